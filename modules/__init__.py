"""Tasks (LightningModules), imported on first use; modules.scratch does not import torch."""

import importlib
from typing import TYPE_CHECKING, Any

import engine  # noqa: F401  # makes old module names importable

if TYPE_CHECKING:
    from modules.classifier import Classifier
    from modules.language_model import LanguageModel
    from modules.masked_language_model import MaskedLanguageModel
    from modules.multi_label_classifier import MultiLabelClassifier
    from modules.preference import PreferenceModel
    from modules.regressor import Regressor
    from modules.sentence_encoder import SentenceEncoder
    from modules.span_reader import SpanReader
    from modules.token_classifier import TokenClassifier
    from modules.translator import Translator
    from modules.word_vectors import WordVectors

__all__ = [
    "Classifier",
    "LanguageModel",
    "MaskedLanguageModel",
    "MultiLabelClassifier",
    "PreferenceModel",
    "Regressor",
    "SentenceEncoder",
    "SpanReader",
    "TokenClassifier",
    "Translator",
    "WordVectors",
]
FILES = {
    "Classifier": "classifier",
    "LanguageModel": "language_model",
    "MaskedLanguageModel": "masked_language_model",
    "MultiLabelClassifier": "multi_label_classifier",
    "PreferenceModel": "preference",
    "Regressor": "regressor",
    "SentenceEncoder": "sentence_encoder",
    "SpanReader": "span_reader",
    "TokenClassifier": "token_classifier",
    "Translator": "translator",
    "WordVectors": "word_vectors",
}


def __getattr__(name: str) -> Any:
    if name not in FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{FILES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *FILES})
