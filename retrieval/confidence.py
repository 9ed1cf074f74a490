"""The probability that the documents answer a question, from the scores of its best passages."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from engine.errors import UserError
from retrieval.index import Index, Query
from retrieval.ranking import Ranking

FEATURES = ("dense_sentences", "sparse")


@dataclass(frozen=True)
class Calibration:
    """A logistic regression on two features, and the threshold of an answer.

    The defaults were fitted on XQuAD: questions whose paragraph is in the index, and the same
    questions with this paragraph left out. configs/rag/xquad.yaml repeats the fit.

    Args:
        similarity: Weight of the cosine similarity of the most similar sentence.
        coverage: Weight of the best BM25 score, divided by the largest possible one.
        bias: Constant.
        threshold: Smallest probability of an answer.
    """

    similarity: float = 8.3628
    coverage: float = 16.0573
    bias: float = -9.6807
    threshold: float = 0.4633

    def probability(self, similarity: float, coverage: float) -> float:
        """Return the probability that the documents answer a question with these features."""
        logit = self.similarity * similarity + self.coverage * coverage + self.bias
        return float(1 / (1 + np.exp(-logit)))

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        """Read the file that `rag.py evaluate` writes.

        Raises:
            UserError: If there is no such file, or it has another form.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"cannot read the calibration {path}: {error}.") from error

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def features(
    index: Index, query: Query, rankings: Mapping[str, Ranking], without: int | None = None
) -> tuple[float, float]:
    """Return similarity and coverage of a question.

    Args:
        index: The index.
        query: The question.
        rankings: Candidates of the components `dense_sentences`, or else `dense`, and `sparse`.
        without: Row of a document to leave out.
    """
    dense = rankings.get("dense_sentences", rankings.get("dense"))
    similarity, score = (
        0.0 if ranking is None else _best(index, ranking, without)
        for ranking in (dense, rankings.get("sparse"))
    )
    best = index.sparse["chunks"].largest_score(query.text)
    return similarity, score / best if best else 0.0


def _best(index: Index, ranking: Ranking, without: int | None) -> float:
    if without is None:
        return float(ranking.scores[0]) if len(ranking.scores) else 0.0
    others = ranking.scores[index.chunks["document"][ranking.rows] != without]
    return float(others[0]) if len(others) else 0.0


def fit_calibration(answered: np.ndarray, unanswered: np.ndarray) -> Calibration:
    """Fit the regression, and the threshold of the best accuracy.

    Args:
        answered: Features of questions whose document is in the index, (N, 2).
        unanswered: Features of questions whose document is not, (M, 2).
    """
    from sklearn.linear_model import LogisticRegression

    x = np.concatenate([answered, unanswered])
    y = np.concatenate([np.ones(len(answered)), np.zeros(len(unanswered))])
    model = LogisticRegression(C=100.0).fit(x, y)
    (similarity, coverage), (bias,) = model.coef_[0].tolist(), model.intercept_.tolist()
    scores = model.predict_proba(x)[:, 1]
    order = np.sort(scores)
    # Accuracy of "answer if the score is at least t", for every t that is a score.
    right = [(scores[y == 1] >= t).sum() + (scores[y == 0] < t).sum() for t in order]
    threshold = float(order[int(np.argmax(right))])
    values = (round(similarity, 4), round(coverage, 4), round(bias, 4), round(threshold, 4))
    return Calibration(*values)
