"""safety.redaction: patterns, check digits and context; and how it is measured."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from safety import evaluate_redaction
from safety.evaluate_redaction import Sentence, evaluate
from safety.redaction import Span, find_personal_data, is_iban, is_luhn_valid, redact
from tests.support.safety_data import make_sentences


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Write to jo.doe+x@mail.example.org.", "Write to <EMAIL_ADDRESS>."),
        ("See https://example.org/a?b=1, please", "See <URL>, please"),
        ("Call +41 (0)62 585 51 90 or 345-899-3560x45!", "Call <PHONE_NUMBER> or <PHONE_NUMBER>!"),
        ("They call at 0494 92 82 32 I think", "They call at <PHONE_NUMBER> I think"),
        ("Card 4111 1111 1111 1111 expires", "Card <CREDIT_CARD> expires"),
        ("IBAN DE89 3704 0044 0532 0130 00 for it", "IBAN <IBAN_CODE> for it"),
        ("from 10.0.0.1 and fe80::1 port 22", "from <IP_ADDRESS> and <IP_ADDRESS> port 22"),
        ("SSN 219-09-9999", "SSN <US_SSN>"),
        ("driver's license number is F1628235", "driver's license number is <DRIVER_LICENSE>"),
        ("born on 7/14/1995, or 14.7.95", "born on <DATE>, or <DATE>"),
        ("born on May 3rd, 1990 or 3 May 1990", "born on <DATE> or <DATE>"),
        ("Mr. Ian van Dyke met Sarah Jones", "Mr. <PERSON> met <PERSON>"),
        ("at 12 Old Mill Road Apt. 4 today", "at <STREET_ADDRESS> today"),
    ],
)
def test_personal_data_are_replaced_by_their_kind(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "Version 3.11.2 has 1,234,567 lines",
        "card 4111 1111 1111 1112",  # wrong check digit
        "IBAN DE89370400440532013001",  # wrong check digits
        "address 300.1.1.1 at 10:30:15",
        "the ratio is 71-33-52 of 2007",  # not a date
        "postal code 3610-114",
    ],
)
def test_other_numbers_are_kept(text: str) -> None:
    assert redact(text) == text


def test_check_digits() -> None:
    assert is_luhn_valid("5500-0000-0000-0004")
    assert not is_luhn_valid("5500-0000-0000-0005")
    assert is_iban("gb82 west 1234 5698 7654 32")
    assert not is_iban("GB83WEST12345698765432")


def test_spans_are_in_order_and_do_not_overlap() -> None:
    spans = find_personal_data("a@b.org, 4111111111111111, Mr. Lee, +41 44 123 45 67. " * 3)
    assert len(spans) == 12
    assert all(one.end <= other.start for one, other in pairwise(spans))


def test_span_must_be_covered_by_its_own_kind() -> None:
    text = "Call 345-899-3560 or a@b.org now"
    marked = [Span(5, 17, "PHONE_NUMBER"), Span(21, 31, "EMAIL_ADDRESS"), Span(0, 4, "URL")]
    counts, errors = evaluate([Sentence(text, marked)])
    assert counts["PHONE_NUMBER"] == (1, 1, 1, 1)
    assert counts["EMAIL_ADDRESS"] == (1, 0, 1, 1)  # the marked span is longer
    assert counts["URL"] == (1, 0, 0, 0)
    assert errors == [
        "missed EMAIL_ADDRESS: Call 345-899-3560 or [a@b.org no]w",
        "missed URL: [Call] 345-899-3560 o",
    ]


def test_command_evaluates_odd_rows_and_leaves_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [("Even a@b.org", "a@b.or"), ("Odd a@b.org", "a@b.org")]
    make_sentences(tmp_path / "data", monkeypatch, *texts)
    metrics = evaluate_redaction.main(["--data_dir", str(tmp_path / "data")])
    assert metrics == {"pii/recall": 1.0, "pii/precision": 1.0}
    results = json.loads(Path("runs/redaction/001/results.json").read_text())
    assert results["metrics"] == metrics
    assert results["sentences"] == 1
    assert results["kinds"]["EMAIL_ADDRESS"]["claimed"]


def test_missing_file_is_a_user_error(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        evaluate_redaction.main(["--data_dir", str(tmp_path)])
    assert "put the file" in capsys.readouterr().err
