"""Build tokenizers from text, or from the vocabularies of GPT-2 and BERT.

Each is a `tokenizers.Tokenizer`, hence one JSON string (`to_str`, `Tokenizer.from_str`) that a
checkpoint holds as a plain hyper-parameter. Two families:

- for language models, `character_tokenizer`, `train_bpe` and `gpt2_tokenizer`: lossless
  (`decode(encode(text)) == text`), without special tokens. Unknown characters are an error for the
  first and bytes for the others;
- for single texts, `train_tokenizer`: with [PAD] (0), [UNK] (1) and optional lower-casing, so that
  the JSON holds every step from raw text to tokens.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from lightning.pytorch.utilities import rank_zero_warn
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from datamodules.loading.files import obtain
from engine.errors import UserError
from preprocessing.special_tokens import (
    CLS,
    END_OF_TEXT,
    MASK,
    PAD,
    SEP,
    UNK,
)

Kind = Literal["words", "characters", "bpe", "wordpiece", "bert"]
KINDS: tuple[str, ...] = get_args(Kind)
NUM_BYTES = 256  # the smallest vocabulary of byte-level BPE
# A word, a contracted ending, or any other symbol: don't → don 't, film's → film 's.
WORD_WITHOUT_PUNCTUATION = r"\w+|'(?:s|t|re|ve|m|ll|d)\b"
WORD = WORD_WITHOUT_PUNCTUATION + r"|[^\w\s]"
LINE_BREAK = r"<br\s*/?>"  # the only markup of the IMDB reviews
LONG_WORD = re.compile(r"\S{1000}(?=\S)|\s{1000}(?=\s)")
END_TOKENS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>")  # of well-known models
GPT2_URL = "https://openaipublic.blob.core.windows.net/gpt-2/models/124M/"
GPT2_FILES = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
BERT_URL = "https://huggingface.co/google-bert/bert-base-uncased/resolve/main/vocab.txt"
BERT_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"

# For language models.


def character_tokenizer(alphabet: str) -> Tokenizer:
    """Build a tokenizer with one token per character, in the order of their code points."""
    vocab = {character: index for index, character in enumerate(sorted(set(alphabet)))}
    # With an unknown token outside the vocabulary, the library raises for an unknown character;
    # a BPE model would drop it silently.
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    special_tokens: Sequence[str] = (),
    normalizer: normalizers.Normalizer | None = None,
    min_count: int = 2,
) -> Tokenizer:
    """Train byte-level BPE (Sennrich et al. 2016; Radford et al. 2019).

    Args:
        texts: Training texts; no token spans two of them.
        vocab_size: Maximum number of tokens, at least 256 and the special ones.
        special_tokens: Tokens for padding and the like, numbered from 0.
        normalizer: Applied to every text first.
        min_count: Occurrences a pair needs to become a token.
    """
    tokenizer = _byte_level(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_count,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(split_long_words(texts), trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        rank_zero_warn(
            f"The text has too few repeated pairs for a BPE vocabulary of {vocab_size}: the "
            f"tokenizer has {tokenizer.get_vocab_size()} tokens."
        )
    return tokenizer


def split_long_words(texts: Iterable[str]) -> Iterator[str]:
    """Split texts within words of more than 1,000 characters: training takes quadratic time."""
    for text in texts:
        start = 0
        for match in LONG_WORD.finditer(text):
            yield text[start : match.end()]
            start = match.end()
        yield text[start:]


def take_characters(texts: Iterable[str], limit: int) -> Iterator[str]:
    """Return the first texts, until they have `limit` characters: enough to train a tokenizer."""
    for text in texts:
        yield text
        limit -= len(text)
        if limit <= 0:
            return


def gpt2_tokenizer(data_dir: Path) -> Tokenizer:
    """Return GPT-2's byte-level BPE of 50,257 tokens, from `encoder.json` and `vocab.bpe`.

    `<|endoftext|>` (50256) can be decoded; in a text it is encoded as ordinary characters.
    """
    vocab, merges = (
        obtain(
            data_dir / "gpt2-bpe" / name,
            [GPT2_URL + name],
            f"sha256:{sha256}",
            offline_config="configs/source/gpt.yaml",
        )
        for name, sha256 in GPT2_FILES.items()
    )
    return _byte_level(models.BPE.from_file(str(vocab), str(merges)))


def _byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def add_end_of_text(tokenizer: Tokenizer) -> tuple[Tokenizer, int]:
    """Add `<|endoftext|>`, which no text is encoded as; return the tokenizer and the token's id."""
    token = tokenizer.token_to_id(END_OF_TEXT)
    if token is not None:
        return tokenizer, token
    state = json.loads(tokenizer.to_str())
    state["model"]["vocab"][END_OF_TEXT] = token = tokenizer.get_vocab_size()
    return Tokenizer.from_str(json.dumps(state)), token


def find_end_of_text(tokenizer: Tokenizer) -> int:
    """Return the token to put between two documents, for a tokenizer that must not change.

    That is its end-of-text token. A model that was trained without one, on a single long text, saw
    newlines instead.

    Raises:
        UserError: If it has neither.
    """
    for name in END_TOKENS:
        token = tokenizer.token_to_id(name)
        if token is not None:
            return token
    try:
        newline = tokenizer.encode("\n", add_special_tokens=False).ids
    except Exception:  # a character tokenizer without newline; the library's only exception class
        newline = []
    if len(newline) != 1:
        raise UserError(
            f"the tokenizer has no end-of-text token ({', '.join(END_TOKENS)}) and no token for a "
            "newline to put between documents: choose another --tokenizer."
        )
    return newline[0]


# For single texts.


def train_tokenizer(
    kind: Kind,
    texts: Iterable[str],
    max_vocab_size: int = 30_000,
    min_count: int = 1,
    lowercase: bool = True,
    special_tokens: Sequence[str] = (),
    data_dir: Path = Path("data"),
    punctuation: bool = True,
) -> Tokenizer:
    """Train a tokenizer, without truncation and padding.

    Args:
        kind: `words`, `characters`, `bpe` (byte-level), `wordpiece`, or `bert`, the uncased
            vocabulary of BERT, which is not trained here.
        texts: The training texts only.
        max_vocab_size: Maximum number of tokens, including the special ones.
        min_count: Occurrences a word, character or pair needs to become a token.
        lowercase: Convert texts to lower case.
        special_tokens: Further tokens that no text is encoded as, numbered after [PAD] and [UNK].
        data_dir: Folder for BERT's vocabulary.
        punctuation: For `words`, whether punctuation marks are words or dropped.
    """
    normalizer = _normalizer(lowercase)
    reserved = [PAD, UNK, *special_tokens]
    if kind == "bert":
        return bert_tokenizer(data_dir)
    if kind == "wordpiece":
        return train_wordpiece(texts, max_vocab_size, min_count, lowercase, special_tokens)
    if kind == "bpe":
        return train_bpe(texts, max_vocab_size, reserved, normalizer, max(2, min_count))
    word = WORD if punctuation else WORD_WITHOUT_PUNCTUATION
    pattern = Regex(word if kind == "words" else r"[\s\S]")
    trained = Tokenizer(models.WordLevel(unk_token=UNK))
    trained.normalizer = normalizer
    trained.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="removed", invert=True)
    trained.train_from_iterator(
        texts,
        trainers.WordLevelTrainer(
            vocab_size=max_vocab_size,
            min_frequency=min_count,
            special_tokens=reserved,
            show_progress=False,
        ),
    )
    # Rebuilt from its vocabulary: otherwise "[PAD]" in a text would be encoded as padding.
    tokenizer = Tokenizer(models.WordLevel(trained.get_vocab(), unk_token=UNK))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, trained.pre_tokenizer
    return tokenizer


def _normalizer(lowercase: bool) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = [normalizers.Replace(Regex(LINE_BREAK), " ")]
    return normalizers.Sequence([*steps, normalizers.Lowercase()] if lowercase else steps)


def train_wordpiece(
    texts: Iterable[str],
    max_vocab_size: int,
    min_count: int,
    lowercase: bool,
    special_tokens: Sequence[str] = (),
) -> Tokenizer:
    """Train WordPiece (Schuster and Nakajima 2012; BERT), which encodes a text as [CLS] … [SEP].

    The library numbers the letters inside words ("##a") differently in every run, and the learned
    pieces depend on it. For a resumed run to have the same tokens, train twice: for the letters,
    then with these as special tokens, in sorted order.
    """
    texts = list(split_long_words(texts))
    reserved = [PAD, UNK, CLS, SEP, MASK, *special_tokens]
    letters = _train_pieces(texts, reserved, len(reserved), min_count, lowercase)
    inner = sorted(name for name in letters if name.startswith("##") and name not in reserved)
    vocab = _train_pieces(texts, [*reserved, *inner], max_vocab_size, min_count, lowercase)
    return _wordpiece(vocab, lowercase, special_tokens)


def _train_pieces(
    texts: Iterable[str], first: list[str], max_vocab_size: int, min_count: int, lowercase: bool
) -> dict[str, int]:
    """Train a vocabulary that starts with `first` and has every letter, whatever its size."""
    tokenizer = _wordpiece({}, lowercase)
    trainer = trainers.WordPieceTrainer(
        vocab_size=max_vocab_size,
        min_frequency=min_count,
        special_tokens=first,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.get_vocab()


def _wordpiece(
    vocab: dict[str, int], lowercase: bool, special_tokens: Sequence[str] = ()
) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence(
        [_normalizer(lowercase=False), normalizers.BertNormalizer(lowercase=lowercase)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    if not vocab:
        return tokenizer
    tokenizer.add_special_tokens([PAD, UNK, CLS, SEP, MASK, *special_tokens])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (CLS, SEP)],
    )
    return tokenizer


def bert_tokenizer(data_dir: Path) -> Tokenizer:
    """Return BERT's uncased WordPiece tokenizer of 30,522 tokens (Devlin et al. 2019)."""
    path = obtain(
        data_dir / "bert-base-uncased" / "vocab.txt",
        [BERT_URL],
        f"sha256:{BERT_SHA256}",
        offline_config="configs/source/gpt.yaml",
    )
    return _wordpiece(_read_vocabulary(path), lowercase=True)


def read_bert_folder(folder: Path) -> Tokenizer:
    """Read an older Hugging Face folder of a BERT model: vocab.txt and no tokenizer.json."""
    config = folder / "tokenizer_config.json"
    settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    vocab = _read_vocabulary(folder / "vocab.txt")
    return _wordpiece(vocab, lowercase=bool(settings.get("do_lower_case", True)))


def _read_vocabulary(path: Path) -> dict[str, int]:
    # Not splitlines: some tokens are other line separators of Unicode.
    tokens = path.read_text(encoding="utf-8").split("\n")
    return {token: index for index, token in enumerate(tokens) if token}
