"""Find and redact personal data in texts by rules: patterns, check digits and context.

Claimed kinds, which safety.evaluate_redaction measures together: e-mail addresses, URLs, telephone
numbers, credit cards (Luhn's check digit), IBANs (ISO 13616, modulo 97), IP addresses, US social
security numbers, driver's licenses and calendar dates, such as dates of birth. Names and street
addresses are redacted where their form or context gives them away, and many are not found: rules
cannot recognize an arbitrary name.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from typing import NamedTuple

CLAIMED = (
    "EMAIL_ADDRESS",
    "URL",
    "IBAN_CODE",
    "CREDIT_CARD",
    "IP_ADDRESS",
    "US_SSN",
    "DRIVER_LICENSE",
    "DATE",
    "PHONE_NUMBER",
)
IBAN_LENGTHS = range(15, 35)  # characters of an IBAN without spaces
PHONE_DIGITS = range(7, 16)  # of a telephone number, extension excluded


class Span(NamedTuple):
    """Personal data in a text."""

    start: int
    end: int
    kind: str


class Rule(NamedTuple):
    """Matches of a pattern that pass a check; group 1, if there is one, is what is redacted."""

    kind: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool] = bool


def is_luhn_valid(number: str) -> bool:
    """Return whether the digits end with the check digit of ISO/IEC 7812."""
    digits = [int(character) for character in number if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return len(digits) >= 12 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    """Return whether a text is an International Bank Account Number with valid check digits."""
    code = re.sub(r"\s", "", text).upper()
    if len(code) not in IBAN_LENGTHS:
        return False
    return int("".join(str(int(character, 36)) for character in code[4:] + code[:4])) % 97 == 1


def is_ip_address(text: str) -> bool:
    """Return whether a text is an address of IPv4 or IPv6."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_date(text: str) -> bool:
    """Return whether day and month, in either order, are in their ranges."""
    first, second = sorted(map(int, re.findall(r"\d+", text)[:2]))
    return 1 <= first <= 12 and 1 <= second <= 31


def is_phone_number(text: str) -> bool:
    """Return whether the number of digits is that of a telephone number, and not a postal code."""
    number = re.split(r"(?i)x|ext", text)[0]
    digits = sum(character.isdigit() for character in number)
    return digits in PHONE_DIGITS and not re.fullmatch(r"\d{4,5}-\d{3}", text)


IBAN = re.compile(
    r"""(?ix)
    \b[a-z]{2}\d{2}
    (?:[a-z0-9]{11,30} | (?:[ ][a-z0-9]{4}){2,7}(?:[ ][a-z0-9]{1,3})?)  # in one or in groups
    \b
    """
)
IP_ADDRESS = re.compile(
    r"""(?ix)
    (?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]\d)
    | (?<![\w:])[0-9a-f:]*:[0-9a-f:]*:[0-9a-f]*
    """
)
NUMERIC_DATE = re.compile(r"(?<![\d/.-])\d{1,2}([/.-])\d{1,2}\1(?:\d{4}|\d{2})(?![/.-]?\d)")
PHONE = re.compile(
    r"""(?x)
    (?<![\w./+-])(?<!\d,)                  # not within another number
    (?:(?:\+|00)?\d{1,3}[ .-]?)?           # country code
    (?:\(\d{1,4}\)[ .-]?)?                 # area code
    \d{1,11}(?:[ .-]\d{2,7}){0,5}
    (?:[ ]?(?:x|ext\.?)[ ]?\d{1,5})?       # extension
    (?![\w/]|\.\d|[ ]+\d|[ ]+(?!I\b)[A-ZÀ-Ž])  # nor the start of a street address
    """
)
MONTHS = (
    "Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|"
    "Sep(?:t|tember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?"
)
STREETS = (
    "Street|St|Road|Rd|Avenue|Ave|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Square|Sq|Terrace|"
    "Way|Place|Pl|Close|Crescent|Highway|Parkway|Alley|Row|Gardens|Grove"
)
WORD = r"[A-ZÀ-ÖØ-ÞĀ-Ž][\w'’-]*"
UNIT = r"(?:Suite|Apt\.?|Apartment|Unit|Floor|Room)\s*#?\d+\w?"
NAME = rf"{WORD}(?:\s+(?:{WORD}|[A-Z]\.|de|van|von|der|la))*"


@cache
def rules() -> tuple[Rule, ...]:
    """Return the rules; where matches overlap, the earlier rule wins."""
    first_names = "|".join(
        files("safety").joinpath("prompts/first_names.txt").read_text(encoding="utf-8").split()
    )
    return (
        Rule("EMAIL_ADDRESS", re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")),
        Rule("URL", re.compile(r"(?i)\b(?:https?://|www\.)[^\s<>\"'|]+[^\s<>\"'|.,;:!?)]")),
        Rule("IBAN_CODE", IBAN, is_iban),
        Rule("CREDIT_CARD", re.compile(r"(?<![\w+])\d(?:[ -]?\d){11,18}(?!\w)"), is_luhn_valid),
        Rule(
            "IP_ADDRESS", re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]\d)"), is_ip_address
        ),
        Rule(
            "IP_ADDRESS",
            re.compile(r"(?i)(?<![\w:])[0-9a-f:]*:[0-9a-f:]*:[0-9a-f]*"),
            is_ip_address,
        ),
        Rule("US_SSN", re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")),
        Rule(
            "DRIVER_LICENSE",
            re.compile(r"(?i)\blicen[cs]e (?:number|no\.?|#)(?: is|:)? *([A-Z0-9][A-Z0-9-]{4,})"),
        ),
        Rule(
            "DATE",
            re.compile(r"(?<![\d/.-])\d{1,2}([/.-])\d{1,2}\1(?:\d{4}|\d{2})(?![/.-]?\d)"),
            is_date,
        ),
        Rule("DATE", re.compile(r"(?<!\d)\d{4}-\d{2}-\d{2}(?:[ T]\d{2}:\d{2}(?::\d{2})?)?(?!\d)")),
        Rule("DATE", re.compile(rf"\b(?:{MONTHS})\.? \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}\b")),
        Rule("DATE", re.compile(rf"\b\d{{1,2}}(?:st|nd|rd|th|\.)? (?:{MONTHS})\.?,? \d{{4}}\b")),
        Rule("PHONE_NUMBER", PHONE, is_phone_number),
        Rule("STREET_ADDRESS", re.compile(r"\bP\.? ?O\.? Box \d+")),
        Rule(
            "STREET_ADDRESS",
            re.compile(
                rf"\b\d{{1,6}}\s+(?:\d+\s+)?(?:{WORD}\s+){{1,4}}(?:{STREETS})\b\.?(?:\s+{UNIT})?"
            ),
        ),
        Rule(
            "STREET_ADDRESS",
            re.compile(rf"\b\d{{1,6}}\s+(?:{WORD}\s+){{1,4}}\d{{1,4}}\b(?:,?\s+{UNIT})*"),
        ),
        Rule("STREET_ADDRESS", re.compile(UNIT)),
        Rule("PERSON", re.compile(rf"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.?\s+({NAME})")),
        Rule("PERSON", re.compile(rf"\b(?:[Mm]y name is|[Nn]ame:|I am called)\s+({NAME})")),
        Rule("PERSON", re.compile(rf"\b(?:{first_names})\b(?:\s+(?:{WORD}|[A-Z]\.))*")),
    )


def find_personal_data(text: str) -> list[Span]:
    """Return the personal data in a text, in its order and without overlaps."""
    found: list[Span] = []
    for rule in rules():
        for span in _matches(rule, text):
            if not any(span.start < other.end and other.start < span.end for other in found):
                found.append(span)
    return sorted(found)


def _matches(rule: Rule, text: str) -> Iterator[Span]:
    for match in rule.pattern.finditer(text):
        group = 1 if rule.pattern.groups and rule.kind != "DATE" else 0
        start, end = match.span(group)
        if rule.check(text[start:end]):
            yield Span(start, end, rule.kind)


def redact(text: str) -> str:
    """Return a text with personal data replaced by its kind, such as `<EMAIL_ADDRESS>`."""
    parts, position = [], 0
    for start, end, kind in find_personal_data(text):
        parts += [text[position:start], f"<{kind}>"]
        position = end
    return "".join([*parts, text[position:]])
