"""WordPiece from first principles: BERT's tokenizer, by greedy longest match.

Schuster & Nakajima 2012 (Japanese and Korean voice search); Wu et al. 2016 (arXiv:1609.08144);
BERT (Devlin et al. 2019). Byte pairs apply their merges in order; WordPiece keeps only the pieces,
not the merges, and matches a word from left to right. "##" marks a piece that continues a word:

    encoding    at each position take the longest piece of the vocabulary that matches;
                if none matches, the whole word is [UNK]

    "unaffable" → un ##aff ##able

Training: Wu et al. merge the pair that increases the likelihood most, i.e. with the highest
count(ab) / (count(a) · count(b)). The `tokenizers` library merges the most frequent pair, as byte
pairs do, and so does this file, to be comparable. The library assigns ids to the "##" letters in an
order that varies between runs and breaks ties by them; here they are sorted. The pieces are equal
if no two pairs are equally frequent.

The library's Unicode tables are older than Python's: about 500 marks and symbols added after
Unicode 8 (2015) are letters there.
"""

import json
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from modules.scratch.bpe import learn_merges

CONTINUES = "##"
MAX_LETTERS = 100  # longer words become [UNK], as in BERT

# Chinese, Japanese and Korean ideographs, each of which is a word.
IDEOGRAPHS = (
    range(0x4E00, 0xA000),
    range(0x3400, 0x4DC0),
    range(0x20000, 0x2A6E0),
    range(0x2A700, 0x2B740),
    range(0x2B740, 0x2B820),
    range(0x2B920, 0x2CEB0),
    range(0xF900, 0xFB00),
    range(0x2F800, 0x2FA20),
)


def normalize(text: str) -> str:
    """Lowercase; remove accents and control characters; make all whitespace plain spaces."""
    text = "".join(" " if char.isspace() else char for char in text if not _is_control(char))
    text = "".join(f" {char} " if _is_ideograph(char) else char for char in text)
    letters = unicodedata.normalize("NFD", text)  # é → e and a combining accent (Mn)
    return "".join(c.lower() for c in letters if unicodedata.category(c) != "Mn")


def words(text: str) -> list[str]:
    """Split at whitespace and around every punctuation mark."""
    return [
        piece
        for word in normalize(text).split()
        for is_mark, run in groupby(word, _is_punctuation)
        for piece in (list(run) if is_mark else ["".join(run)])
    ]


def _is_control(char: str) -> bool:
    if char in "\t\n\r":
        return False
    # Unassigned code points (Cn) are kept, as in the library.
    return char == "\N{REPLACEMENT CHARACTER}" or unicodedata.category(char) in ("Cc", "Cf", "Co")


def _is_ideograph(char: str) -> bool:
    return any(ord(char) in block for block in IDEOGRAPHS)


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")


def _spell_out(word: str) -> list[str]:
    return [word[0], *(CONTINUES + letter for letter in word[1:])]


def _join(left: str, right: str) -> str:
    return left + right.removeprefix(CONTINUES)


class WordPiece:
    """BERT's uncased WordPiece, exported in the JSON format of the `tokenizers` library.

    Args:
        vocab: Id of each piece.
        unknown: Piece of words that cannot be encoded otherwise.
    """

    def __init__(self, vocab: dict[str, int], unknown: str = "[UNK]") -> None:
        self.vocab = vocab
        self.unknown = unknown
        self.piece_of_id = {index: piece for piece, index in vocab.items()}

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, special: tuple[str, ...] = ("[UNK]",)
    ) -> "WordPiece":
        """Train until there are `vocab_size` pieces, or no pair occurs twice."""
        frequency = Counter(word for text in texts for word in words(text))
        letters = sorted({letter for word in frequency for letter in word})
        inner = sorted({letter for word in frequency for letter in word[1:]})
        pieces = [*special, *letters, *(CONTINUES + letter for letter in inner)]
        vocab = {piece: index for index, piece in enumerate(pieces)}
        spellings = [(_spell_out(word), times) for word, times in frequency.items()]
        learn_merges(spellings, vocab, vocab_size, join=_join)
        return cls(vocab, special[0])

    @classmethod
    def from_file(cls, vocab_txt: Path) -> "WordPiece":
        """Read BERT's `vocab.txt` with one piece per line."""
        lines = vocab_txt.read_text(encoding="utf-8").split("\n")
        return cls({piece: index for index, piece in enumerate(lines) if piece})

    def to_str(self) -> str:
        """Return the input of the library's `Tokenizer.from_str`."""
        return json.dumps(
            {
                "version": "1.0",
                "added_tokens": [],
                "normalizer": {
                    "type": "BertNormalizer",
                    "clean_text": True,
                    "handle_chinese_chars": True,
                    "strip_accents": True,
                    "lowercase": True,
                },
                "pre_tokenizer": {"type": "BertPreTokenizer"},
                "decoder": {"type": "WordPiece", "prefix": CONTINUES, "cleanup": False},
                "model": {
                    "type": "WordPiece",
                    "unk_token": self.unknown,
                    "continuing_subword_prefix": CONTINUES,
                    "max_input_chars_per_word": MAX_LETTERS,
                    "vocab": self.vocab,
                },
            }
        )

    def encode(self, text: str) -> list[int]:
        return [self.vocab[piece] for word in words(text) for piece in self._pieces(word)]

    def _pieces(self, word: str) -> list[str]:
        if len(word) > MAX_LETTERS:
            return [self.unknown]
        pieces: list[str] = []
        start = 0
        while start < len(word):
            prefix = CONTINUES if start else ""
            matches = (
                (prefix + word[start:stop], stop)
                for stop in range(len(word), start, -1)  # longest first
                if prefix + word[start:stop] in self.vocab
            )
            piece, start = next(matches, ("", 0))
            if not piece:
                return [self.unknown]
            pieces.append(piece)
        return pieces

    def decode(self, ids: Iterable[int]) -> str:
        """Return the pieces as words separated by spaces; case, accents and layout are lost."""
        text = " ".join(self.piece_of_id[index] for index in ids)
        return text.replace(f" {CONTINUES}", "")
