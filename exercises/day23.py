"""Day 23: byte-pair encoding and WordPiece."""

Pair = tuple[str, str]


def count_pairs(words: dict[tuple[str, ...], int]) -> dict[Pair, int]:
    """Count the adjacent pairs of symbols in a vocabulary of words.

    Args:
        words: Symbols of each distinct word, and how often it occurs.

    Returns:
        Pair to its number of occurrences; overlapping ones count, so "aaa" has (a, a) twice.

    Source: Sennrich, Haddow & Birch 2016 (arXiv:1508.07909), algorithm 1.
    """
    raise NotImplementedError


def merge_pair(symbols: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    """Replace each occurrence of a pair by the joined symbol, from left to right.

    Args:
        symbols: Symbols of a word.
        pair: Two adjacent symbols.
    """
    raise NotImplementedError


def learn_merges(words: dict[str, int], number: int) -> list[Pair]:
    """Return the first merges of byte-pair encoding.

    Begin with characters; repeatedly merge the most frequent pair everywhere. Of equally frequent
    pairs take the first in alphabetical order. Stop early if no pair occurs twice.

    Args:
        words: Words and how often they occur.
        number: Maximum number of merges.
    """
    raise NotImplementedError


def encode_bpe(word: str, merges: list[Pair]) -> list[str]:
    """Split a word into the tokens of byte-pair encoding.

    Repeatedly merge the adjacent pair that was learned first, wherever it stands in the word.

    Args:
        word: A word.
        merges: Merges in the order in which they were learned.
    """
    raise NotImplementedError


def encode_wordpiece(word: str, vocab: set[str]) -> list[str]:
    """Split a word by WordPiece: at each position take the longest token of the vocabulary.

    Tokens that continue a word begin with "##". If some part has no token, the whole word is [UNK].

    Args:
        word: A word, not empty.
        vocab: All tokens.

    Source: Schuster & Nakajima 2012; Devlin et al. 2019 (arXiv:1810.04805), section 3.
    """
    raise NotImplementedError
