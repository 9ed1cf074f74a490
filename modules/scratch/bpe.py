"""Byte-level byte-pair encoding from first principles.

Sennrich, Haddow & Birch 2016 (arXiv:1508.07909); over bytes as in GPT-2 (Radford et al. 2019).
Characters give long sequences, and a word vocabulary cannot encode new words. With byte pairs
frequent strings become one token, rare ones stay bytes, and nothing is unknown.

    training    start with the 256 bytes
                repeat: (a, b) ← the most frequent adjacent pair;  a b → ab everywhere
    encoding    repeat: of all adjacent pairs, merge the one that was learned first

Ties are broken as in the `tokenizers` library: of equally frequent pairs the one whose first token
has the smaller id, then whose second has. Pairs do not cross word boundaries, and overlapping
occurrences all count: "aaa" contains (a, a) twice.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import pairwise
from operator import add
from pathlib import Path

import regex

from preprocessing.byte_level import BYTE_OF_LETTER, LETTER_OF_BYTE

Pair = tuple[str, str]

# GPT-2's pre-tokenization: a contraction; a space with letters, digits or symbols; or whitespace,
# whose last space belongs to the next word. Every character belongs to one word.
WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


def words(text: str) -> list[str]:
    """Split a text into words, each byte written as its printable letter."""
    return ["".join(LETTER_OF_BYTE[byte] for byte in word.encode()) for word in WORD.findall(text)]


def merge(symbols: list[str], pair: Pair, merged: str) -> list[str]:
    """Replace each occurrence of the pair, from left to right."""
    result: list[str] = []
    position = 0
    while position < len(symbols):
        if tuple(symbols[position : position + 2]) == pair:
            result.append(merged)
            position += 2
        else:
            result.append(symbols[position])
            position += 1
    return result


def learn_merges(
    spellings: Iterable[tuple[list[str], int]],
    vocab: dict[str, int],
    vocab_size: int,
    min_count: int = 2,
    join: Callable[[str, str], str] = add,
) -> list[Pair]:
    """Learn merges, most frequent pair first, and add their tokens to `vocab`.

    Args:
        spellings: The symbols of each distinct word, and its frequency.
        vocab: Ids of the initial symbols; extended up to `vocab_size`.
        vocab_size: Maximum number of tokens.
        min_count: Minimum frequency of a merged pair.
        join: Joins two symbols to one.
    """
    symbols, frequencies = map(list, zip(*spellings, strict=True))
    count: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # words that may contain the pair

    def update_counts(word: int, sign: int) -> None:
        for pair in pairwise(symbols[word]):
            count[pair] += sign * frequencies[word]
            where[pair].add(word)

    for word in range(len(symbols)):
        update_counts(word, +1)
    merges: list[Pair] = []
    while len(vocab) < vocab_size and (top := max(count.values(), default=0)) >= min_count:
        tied = [pair for pair, number in count.items() if number == top]
        best = min(tied, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merged = join(*best)
        vocab.setdefault(merged, len(vocab))
        merges.append(best)
        for word in where.pop(best):
            update_counts(word, -1)
            symbols[word] = merge(symbols[word], best, merged)
            update_counts(word, +1)
        del count[best]
    return merges


class BytePairs:
    """Byte-level BPE with the same tokens and JSON format as the `tokenizers` library.

    Args:
        vocab: Id of each token; tokens are written in the printable letters of bytes.
        merges: Pairs to merge, in the order in which they were learned.
    """

    def __init__(self, vocab: dict[str, int], merges: Iterable[Pair]) -> None:
        self.vocab = vocab
        self.merges = [(left, right) for left, right in merges]
        self.rank = {pair: rank for rank, pair in enumerate(self.merges)}
        self.token_of_id = {index: token for token, index in vocab.items()}
        self._spell = lru_cache(maxsize=2**16)(self._spell_word)  # most words are frequent

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "BytePairs":
        """Train until there are `vocab_size` tokens, or no pair occurs twice."""
        frequency = Counter(word for text in texts for word in words(text))
        vocab = {letter: index for index, letter in enumerate(sorted(LETTER_OF_BYTE))}
        spellings = [(list(word), times) for word, times in frequency.items()]
        return cls(vocab, learn_merges(spellings, vocab, vocab_size))

    @classmethod
    def from_files(cls, encoder_json: Path, vocab_bpe: Path) -> "BytePairs":
        """Read the two files of the original GPT-2 release."""
        vocab = json.loads(encoder_json.read_text(encoding="utf-8"))
        lines = vocab_bpe.read_text(encoding="utf-8").splitlines()
        pairs = (line.split(" ") for line in lines if line and not line.startswith("#version"))
        return cls(vocab, [(left, right) for left, right in pairs])

    @classmethod
    def from_str(cls, tokenizer_json: str) -> "BytePairs":
        """Read the output of the library's `Tokenizer.to_str`."""
        model = json.loads(tokenizer_json)["model"]
        return cls(model["vocab"], [(left, right) for left, right in model["merges"]])

    def to_str(self) -> str:
        """Return the input of the library's `Tokenizer.from_str`."""
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
        byte_level["trim_offsets"] = True
        return json.dumps(
            {
                "version": "1.0",
                "added_tokens": [],
                "pre_tokenizer": byte_level,
                "decoder": byte_level,
                "model": {"type": "BPE", "vocab": self.vocab, "merges": self.merges},
            }
        )

    def encode(self, text: str) -> list[int]:
        return [self.vocab[token] for word in words(text) for token in self._spell(word)]

    def _spell_word(self, word: str) -> list[str]:
        symbols = list(word)
        while len(symbols) > 1:
            ranks = [self.rank.get(pair, len(self.rank)) for pair in pairwise(symbols)]
            first = min(ranks)
            if first == len(self.rank):  # no adjacent pair can be merged
                break
            index = ranks.index(first)
            symbols[index : index + 2] = ["".join(symbols[index : index + 2])]
        return symbols

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the tokens; incomplete characters become U+FFFD."""
        letters = "".join(self.token_of_id[index] for index in ids)
        return bytes(BYTE_OF_LETTER[letter] for letter in letters).decode(errors="replace")
