"""What a run shows and keeps besides its weights, one idea a file."""

from callbacks.augmented_samples import AugmentedSamples as AugmentedSamples
from callbacks.backbone_finetuning import BackboneFinetuning as BackboneFinetuning
from callbacks.batch_size_finder import BatchSizeFinder as BatchSizeFinder
from callbacks.confusion_matrix import ConfusionMatrix as ConfusionMatrix
from callbacks.cross_attention import CrossAttention as CrossAttention
from callbacks.feature_maps import FeatureMaps as FeatureMaps
from callbacks.gradient_norms import GradientNorms as GradientNorms
from callbacks.layer_health import LayerHealth as LayerHealth
from callbacks.learning_rate import LearningRate as LearningRate
from callbacks.learning_rate_finder import LearningRateFinder as LearningRateFinder
from callbacks.masked_words import MaskedWords as MaskedWords
from callbacks.memory import Memory as Memory
from callbacks.mistakes import Mistakes as Mistakes
from callbacks.reliability_diagram import ReliabilityDiagram as ReliabilityDiagram
from callbacks.speed import Speed as Speed
from callbacks.text_samples import TextSamples as TextSamples
from callbacks.training_curves import TrainingCurves as TrainingCurves
from callbacks.translations import Translations as Translations
from callbacks.weight_averaging import EMAWeightAveraging as EMAWeightAveraging
from callbacks.weight_averaging import StochasticWeightAveraging as StochasticWeightAveraging
from callbacks.word_attention import WordAttention as WordAttention
from callbacks.word_map import WordMap as WordMap
from callbacks.word_neighbours import WordNeighbours as WordNeighbours
