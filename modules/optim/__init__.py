"""Optimizers and learning-rate schedules that a config names."""

from modules.optim.muon import Muon
from modules.optim.schedules import Noam, OneCycle, WarmupCosine

__all__ = ["Muon", "Noam", "OneCycle", "WarmupCosine"]
