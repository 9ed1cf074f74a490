"""Calibration removes a preference for a label that does not depend on the text."""

import numpy as np

from prompts.calibration import batch, contextual


def scores(bias: float) -> np.ndarray:
    """Log-probabilities of two labels, equally frequent, with a preference for the first."""
    signal = np.array([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0])
    logits = np.stack([bias - signal, signal], axis=1)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_both_calibrations_undo_a_constant_preference() -> None:
    plain, biased = scores(0.0), scores(1.0)
    truth = [0, 0, 0, 1, 1, 1]
    assert biased.argmax(axis=1).tolist() != truth
    content_free = np.log([[np.exp(1.0), 1.0]])  # not normalized
    for calibrated in (contextual(biased, content_free), batch(biased)):
        assert calibrated.argmax(axis=1).tolist() == truth
        np.testing.assert_allclose(np.exp(calibrated).sum(axis=1), 1.0)
    np.testing.assert_allclose(contextual(biased, content_free), plain)


def test_unnormalized_scores_give_the_same() -> None:
    biased = scores(1.0)
    np.testing.assert_allclose(batch(biased - 7.0), batch(biased))
