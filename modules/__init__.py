"""What learns: tasks (LightningModules) and the nets that they hold."""

from modules.classifier import Classifier
from modules.language_model import LanguageModel

__all__ = ["Classifier", "LanguageModel"]
