"""GroundedAnswers: pairs of passages and answers that they support or not."""

from datamodules.question_answering.grounded_answers import make_pairs
from datamodules.question_answering.squad import Paragraph, Question
from preprocessing.grounding import surroundings

OAK = Paragraph(
    "Trees",
    "The oak lives for 500 years. It was planted by Anna in Berlin.",
    [
        Question("1", "How long does it live?", ["500 years"]),
        Question("2", "Who planted it?", ["Anna"]),
        Question("3", "Where?", ["Berlin", "in Berlin"]),
    ],
)
FIR = Paragraph(
    "Trees",
    "A fir keeps its needles in winter.",
    [Question("4", "What does it keep?", ["its needles"])],
)


def test_half_of_the_pairs_are_supported() -> None:
    texts, labels = make_pairs([OAK, FIR])
    assert labels == [1, 0] * 4
    answers = {q.text: q.answers for p in (OAK, FIR) for q in p.questions}
    for (passage, answered), label in zip(texts, labels, strict=True):
        question = next(text for text in answers if answered.startswith(text))
        right = [f"{question} {answer}" for answer in answers[question]]
        assert label == (answered in right and any(a in passage for a in answers[question]))
    # Both kinds: another answer with the passage, and the answer with another passage.
    wrong = texts[1::2]
    swapped = [passage for passage, answered in wrong if answered not in {t[1] for t in texts[::2]}]
    assert 0 < len(swapped) < len(wrong)
    assert make_pairs([OAK, FIR]) == (texts, labels)


def test_paragraph_with_one_question_and_no_other_has_no_pair() -> None:
    assert make_pairs([FIR]).labels == []


def test_surroundings_end_at_words() -> None:
    text = "one two three four five six"
    assert surroundings(text, 8, 13, margin=6) == "two three four"
    assert surroundings(text, 8, 13, margin=100) == text
    assert surroundings("abcdefgh", 3, 5, margin=1) == "de"
