"""Day 35: BLEU, ROUGE-L and perplexity."""

Tokens = list[str]


def ngram_matches(hypothesis: Tokens, reference: Tokens, n: int) -> tuple[int, int]:
    """Return the clipped matches and the number of the n-grams of a hypothesis.

    An n-gram of the hypothesis matches at most as often as it occurs in the reference.

    Args:
        hypothesis: Tokens of the generated text.
        reference: Tokens of the reference.
        n: Length of the n-grams.

    Source: Papineni et al. 2002, BLEU: a method for automatic evaluation of machine translation.
    """
    raise NotImplementedError


def bleu(hypotheses: list[Tokens], references: list[Tokens], max_n: int = 4) -> float:
    """Return the BLEU score of a corpus, from 0 to 100, with one reference per hypothesis.

        BLEU = 100 · BP · exp(1/N Σ_n log p_n),  BP = min(1, exp(1 - r / c))

    p_n divides the matches of the whole corpus by its number of n-grams; r and c are the lengths of
    all references and of all hypotheses. Without smoothing the score is 0 if a p_n is 0.

    Args:
        hypotheses: Tokens of each generated sentence.
        references: Tokens of each reference.
        max_n: The N of the formula.

    Source: Papineni et al. 2002, section 2.3.
    """
    raise NotImplementedError


def rouge_l(hypothesis: Tokens, reference: Tokens) -> float:
    """Return the F1 of ROUGE-L, from 0 to 1: precision and recall of the longest common
    subsequence.

    A subsequence keeps the order and may have gaps. Two texts of 1,000 tokens must take less than a
    few seconds: use dynamic programming.

    Args:
        hypothesis: Tokens of the generated summary.
        reference: Tokens of the reference.

    Source: Lin 2004, ROUGE: a package for automatic evaluation of summaries.
    """
    raise NotImplementedError


def perplexity(losses: list[float], tokens: list[int]) -> float:
    """Return the perplexity of a corpus from the mean loss of each batch.

    Derive how batches must be weighted so that the result does not depend on how the corpus is
    split.

    Args:
        losses: Mean cross-entropy of the tokens of each batch, in nats.
        tokens: Number of tokens of each batch.

    Source: Jurafsky & Martin, Speech and Language Processing, section 3.3.
    """
    raise NotImplementedError


def bits_per_byte(loss: float, tokens: int, text: str) -> float:
    """Return the loss of a text in bits per byte of UTF-8, which compares different tokenizers.

    Args:
        loss: Mean cross-entropy per token, in nats.
        tokens: Number of tokens of the text.
        text: The text.

    Source: Gao et al. 2020, The Pile (arXiv:2101.00027), section 3.1.
    """
    raise NotImplementedError
