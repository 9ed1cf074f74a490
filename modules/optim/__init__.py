"""Optimizers and learning-rate schedules that a config names."""

from modules.optim.layer_decay import LayerDecayAdamW
from modules.optim.muon import Muon
from modules.optim.schedules import Noam, OneCycle, WarmupCosine, WarmupLinear

__all__ = ["LayerDecayAdamW", "Muon", "Noam", "OneCycle", "WarmupCosine", "WarmupLinear"]
