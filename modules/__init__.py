"""What learns: tasks (LightningModules) and the nets that they hold."""

from modules.classifier import Classifier

__all__ = ["Classifier"]
