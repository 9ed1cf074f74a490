"""Special tokens and the ignored target, shared by the data modules and the tasks."""

from tokenizers import Tokenizer

IGNORE_INDEX = -100  # targets excluded from the loss, as in torch.nn.functional.cross_entropy
PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"  # as in BERT
BOS, EOS = "[BOS]", "[EOS]"  # first and last token of a translation
END_OF_TEXT = "<|endoftext|>"  # between the documents of a language model's corpus, as in GPT-2
ALIASES = {  # names of the same tokens in RoBERTa, SentencePiece and byte-level vocabularies
    PAD: ("<pad>", "<|pad|>", "<|endoftext|>", "<|im_end|>", "</s>"),
    UNK: ("<unk>", "<|endoftext|>", "<|im_end|>"),
    CLS: ("<s>",),
    SEP: ("</s>",),
    MASK: ("<mask>",),
}


def find_special_token(tokenizer: Tokenizer, name: str) -> str | None:
    """Return the name of a special token in this vocabulary, or None if it has none.

    Args:
        tokenizer: A tokenizer of any model.
        name: The token's name in BERT's vocabulary.
    """
    names = (name, *ALIASES.get(name, ()))
    return next((one for one in names if tokenizer.token_to_id(one) is not None), None)


def special_token_id(tokenizer: Tokenizer, name: str) -> int | None:
    """Return the id of a special token by its name in BERT's vocabulary, or None."""
    found = find_special_token(tokenizer, name)
    return None if found is None else tokenizer.token_to_id(found)


def remove_special_tokens(text: str, tokenizer: Tokenizer) -> str:
    """Return a text without the special tokens of a vocabulary, also such as a removal would join.

    A chat template marks the turns of a conversation by special tokens. In a message they would
    let its author write turns of others.

    Args:
        text: Any text.
        tokenizer: The tokenizer that will encode it.
    """
    added = tokenizer.get_added_tokens_decoder().values()
    special = [token.content for token in added if token.special]
    while found := [token for token in special if token in text]:
        for token in found:
            text = text.replace(token, "")
    return text
