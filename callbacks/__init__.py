"""Callbacks for figures, monitoring, samples and training techniques."""

from functools import partial

import engine  # noqa: F401  # makes old module names importable
from callbacks.figures.augmented_samples import AugmentedSamples as AugmentedSamples
from callbacks.figures.confusion_matrix import ConfusionMatrix as ConfusionMatrix
from callbacks.figures.cross_attention import CrossAttention as CrossAttention
from callbacks.figures.feature_maps import FeatureMaps as FeatureMaps
from callbacks.figures.mistakes import Mistakes as Mistakes
from callbacks.figures.reliability_diagram import ReliabilityDiagram as ReliabilityDiagram
from callbacks.figures.training_curves import TrainingCurves as TrainingCurves
from callbacks.figures.word_attention import WordAttention as WordAttention
from callbacks.figures.word_map import WordMap as WordMap
from callbacks.monitoring.gradient_norms import GradientNorms as GradientNorms
from callbacks.monitoring.layer_health import LayerHealth as LayerHealth
from callbacks.monitoring.learning_rate import LearningRate as LearningRate
from callbacks.monitoring.memory import Memory as Memory
from callbacks.monitoring.speed import Speed as Speed
from callbacks.samples.masked_words import MaskedWords as MaskedWords
from callbacks.samples.text_samples import TextSamples as TextSamples
from callbacks.samples.translations import Translations as Translations
from callbacks.samples.word_neighbors import WordNeighbors as WordNeighbors
from callbacks.training.activation_checkpointing import (
    ActivationCheckpointing as ActivationCheckpointing,
)
from callbacks.training.backbone_finetuning import BackboneFinetuning as BackboneFinetuning
from callbacks.training.batch_size_finder import BatchSizeFinder as BatchSizeFinder
from callbacks.training.float8 import Float8 as Float8
from callbacks.training.freeze import Freeze as Freeze
from callbacks.training.learning_rate_finder import LearningRateFinder as LearningRateFinder
from callbacks.training.weight_averaging import EMAWeightAveraging as EMAWeightAveraging
from callbacks.training.weight_averaging import (
    StochasticWeightAveraging as StochasticWeightAveraging,
)
from engine.renamed import renamed_attribute

__getattr__ = partial(renamed_attribute, __name__)  # old names of classes
