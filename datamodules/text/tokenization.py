"""The tokenizers of a text: its characters, byte pairs learnt from it, or GPT-2's own.

Each is a `tokenizers.Tokenizer`, so each is one JSON string (`to_str`, `Tokenizer.from_str`) that
travels in a checkpoint as a plain hyper-parameter. None has an unknown token: characters refuse
what they have never seen, byte pairs fall back to single bytes. And none changes the text:
`decode(encode(text)) == text`, to the last blank.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from datamodules.loading.files import obtain
from preprocessing.special_tokens import END_OF_TEXT

GPT2_URL = "https://openaipublic.blob.core.windows.net/gpt-2/models/124M/"
GPT2_FILES = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
NUM_BYTES = 256  # the smallest byte-level vocabulary


def characters(alphabet: str) -> Tokenizer:
    """One token for each character of `alphabet`, numbered in the order of their code points."""
    vocab = {character: index for index, character in enumerate(sorted(set(alphabet)))}
    # An unknown token that is not in the vocabulary: the library then refuses an unseen character,
    # where a model of the kind BPE would drop it without a word.
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def byte_pairs(
    texts: Iterable[str],
    vocab_size: int,
    specials: Sequence[str] = (),
    normalizer: normalizers.Normalizer | None = None,
    min_count: int = 2,  # a pair that occurs once teaches nothing
) -> Tokenizer:
    """Byte-level BPE with at most `vocab_size` tokens, learnt from `texts`; none spans two.

    Args:
        texts: What to learn from.
        vocab_size: The most tokens there may be.
        specials: Tokens for padding and the like, which come first.
        normalizer: What is done to every text first; nothing unless given.
        min_count: How often a pair must occur to become a token.
    """
    tokenizer = _byte_level(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_count,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        rank_zero_warn(
            f"The text repeats too little for {vocab_size} byte pairs: the tokenizer has "
            f"{tokenizer.get_vocab_size()}. A smaller vocabulary size says what you get."
        )
    return tokenizer


def gpt2(data_dir: Path) -> Tokenizer:
    """GPT-2's byte-level BPE of 50,257 tokens, from `encoder.json` and `vocab.bpe`.

    `<|endoftext|>` (50256) decodes, but in a text it is read as the 13 characters that it is.
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


def with_end_of_text(tokenizer: Tokenizer) -> tuple[Tokenizer, int]:
    """The tokenizer with a token that no text is read as, and the number of that token."""
    number = tokenizer.token_to_id(END_OF_TEXT)
    if number is not None:
        return tokenizer, number
    state = json.loads(tokenizer.to_str())
    state["model"]["vocab"][END_OF_TEXT] = number = tokenizer.get_vocab_size()
    return Tokenizer.from_str(json.dumps(state)), number


def _byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def encode_corpus(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[np.ndarray]:
    """The tokens of a long text that comes in pieces: those of the whole text, but fast."""
    return encode_each(tokenizer, texts if _is_of_characters(tokenizer) else in_chunks(texts))


def encode_each(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[np.ndarray]:
    """The tokens of each text by itself, none of them very long."""
    dtype = token_dtype(tokenizer)
    if _is_of_characters(tokenizer):
        ids = {ord(name): index for name, index in tokenizer.get_vocab().items() if len(name) == 1}
        table = np.zeros(max(ids) + 1, dtype)
        table[list(ids)] = list(ids.values())
        yield from (table[code_points(text)] for text in texts)
        return
    texts = iter(texts)
    while batch := list(islice(texts, 64)):  # the library spreads a batch over the cores
        for encoding in tokenizer.encode_batch_fast(batch):
            yield np.array(encoding.ids, dtype)


def _is_of_characters(tokenizer: Tokenizer) -> bool:
    """Whether it is one of `characters`, whose unknown token is in no vocabulary."""
    return isinstance(tokenizer.model, models.WordLevel) and tokenizer.model.unk_token == ""


def token_dtype(tokenizer: Tokenizer) -> type[np.uint16] | type[np.uint32]:
    """The smallest of two integers that holds every token."""
    return np.uint16 if tokenizer.get_vocab_size() <= 2**16 else np.uint32


def code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def in_chunks(texts: Iterable[str], size: int = 2**16) -> Iterator[str]:
    """Cuts a text anew, only where byte-level BPE cuts it anyway, so that no token changes.

    GPT-2's pattern always begins a new word at a blank or a line's end that follows visible text.
    """
    cut = re.compile(r"(?<=\S)[ \n]")
    rest = ""
    for text in texts:
        rest += text
        start = 0
        while found := cut.search(rest, start + size):
            yield rest[start : found.start()]
            start = found.start()
        rest = rest[start:]
    if rest:
        yield rest
