"""What a run shows and keeps besides its weights, one idea a file."""

from callbacks.augmented_samples import AugmentedSamples as AugmentedSamples
from callbacks.confusion_matrix import ConfusionMatrix as ConfusionMatrix
from callbacks.feature_maps import FeatureMaps as FeatureMaps
from callbacks.mistakes import Mistakes as Mistakes
from callbacks.reliability_diagram import ReliabilityDiagram as ReliabilityDiagram
from callbacks.text_samples import TextSamples as TextSamples
from callbacks.training_curves import TrainingCurves as TrainingCurves
