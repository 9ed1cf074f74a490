"""Byte-level byte-pair encoding from first principles: learnt by counting, applied by replaying.

Sennrich, Haddow & Birch 2016 (arXiv:1508.07909); over bytes as in GPT-2 (Radford et al. 2019).
Characters make long texts, and a list of words cannot spell a new one. Byte pairs are between the
two: what is frequent becomes one token, what is rare stays bytes, and nothing is unknown.

    learning    start with the 256 bytes
                repeat: (a, b) ← the most frequent pair of neighbours;  a b → ab everywhere
    encoding    repeat: of all pairs of neighbours, merge the one learnt first

Ties, as the `tokenizers` library breaks them: of equally frequent pairs the one whose first token
has the smaller number, then whose second has. Pairs never reach across words, and one that lies
over itself counts each time: "aaa" holds (a, a) twice.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import pairwise
from operator import add
from pathlib import Path

import regex

Pair = tuple[str, str]

# GPT-2's words: an English ending, a blank with letters, with digits, with signs, or blanks alone,
# of which the last one is left to the word that follows. Every character belongs to one word.
WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


def byte_alphabet() -> list[str]:
    """A visible character for each byte: its own if it has one, else the next after U+00FF."""
    letters = []
    invisible = 0
    for byte in range(256):
        if chr(byte).isprintable() and chr(byte) != " ":
            letters.append(chr(byte))
        else:
            letters.append(chr(256 + invisible))
            invisible += 1
    return letters


LETTER_OF_BYTE = byte_alphabet()
BYTE_OF_LETTER = {letter: byte for byte, letter in enumerate(LETTER_OF_BYTE)}


def words(text: str) -> list[str]:
    """The words of a text, each byte written as its visible character."""
    return ["".join(LETTER_OF_BYTE[byte] for byte in word.encode()) for word in WORD.findall(text)]


def merge(symbols: list[str], pair: Pair, merged: str) -> list[str]:
    """Replaces each occurrence of the pair, from left to right."""
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
    """Learns merges, most frequent pair first, and adds their tokens to `vocab`.

    Args:
        spellings: Each different word as its symbols, with the number of times that it occurs.
        vocab: The symbols to begin with and their numbers; grows up to `vocab_size`.
        vocab_size: Where to stop.
        min_count: A rarer pair is not merged.
        join: How two symbols become one.
    """
    symbols, times = map(list, zip(*spellings, strict=True))
    count: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # the words that (may) hold a pair

    def tally(word: int, sign: int) -> None:
        for pair in pairwise(symbols[word]):
            count[pair] += sign * times[word]
            where[pair].add(word)

    for word in range(len(symbols)):
        tally(word, +1)
    merges: list[Pair] = []
    while len(vocab) < vocab_size and (top := max(count.values(), default=0)) >= min_count:
        tied = [pair for pair, times_seen in count.items() if times_seen == top]
        best = min(tied, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merged = join(*best)
        vocab.setdefault(merged, len(vocab))
        merges.append(best)
        for word in where.pop(best):
            tally(word, -1)
            symbols[word] = merge(symbols[word], best, merged)
            tally(word, +1)
        del count[best]
    return merges


class BytePairs:
    """Byte-level BPE with the same tokens as the library's, which reads and writes the same JSON.

    Args:
        vocab: The number of each token; tokens are written in the visible characters of bytes.
        merges: The pairs to merge, the first learnt first.
    """

    def __init__(self, vocab: dict[str, int], merges: Iterable[Pair]) -> None:
        self.vocab = vocab
        self.merges = [(left, right) for left, right in merges]
        self.rank = {pair: rank for rank, pair in enumerate(self.merges)}
        self.token_of_id = {index: token for token, index in vocab.items()}
        self._spell = lru_cache(maxsize=2**16)(self._spell_word)  # most words come again and again

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "BytePairs":
        """Learns from texts until there are `vocab_size` tokens, or no pair occurs twice."""
        frequency = Counter(word for text in texts for word in words(text))
        vocab = {letter: index for index, letter in enumerate(sorted(LETTER_OF_BYTE))}
        spellings = [(list(word), times) for word, times in frequency.items()]
        return cls(vocab, learn_merges(spellings, vocab, vocab_size))

    @classmethod
    def from_files(cls, encoder_json: Path, vocab_bpe: Path) -> "BytePairs":
        """Reads the two files that GPT-2 came with."""
        vocab = json.loads(encoder_json.read_text(encoding="utf-8"))
        lines = vocab_bpe.read_text(encoding="utf-8").splitlines()
        pairs = (line.split(" ") for line in lines if line and not line.startswith("#version"))
        return cls(vocab, [(left, right) for left, right in pairs])

    @classmethod
    def from_str(cls, tokenizer_json: str) -> "BytePairs":
        """Reads what the library's `Tokenizer.to_str` wrote of a byte-level BPE."""
        model = json.loads(tokenizer_json)["model"]
        return cls(model["vocab"], [(left, right) for left, right in model["merges"]])

    def to_str(self) -> str:
        """Writes what the library's `Tokenizer.from_str` reads."""
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
            if first == len(self.rank):  # no pair of neighbours was ever merged
                break
            at = ranks.index(first)
            symbols[at : at + 2] = ["".join(symbols[at : at + 2])]
        return symbols

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the tokens; bytes that are no character yet read as U+FFFD."""
        letters = "".join(self.token_of_id[index] for index in ids)
        return bytes(BYTE_OF_LETTER[letter] for letter in letters).decode(errors="replace")
