"""Adapters: train few parameters of a network whose other weights are frozen (by peft)."""

from modules.adapters.methods import IA3, Adapter, DoRA, HeadOnly, LoRA, PrefixTuning, QLoRA

__all__ = ["IA3", "Adapter", "DoRA", "HeadOnly", "LoRA", "PrefixTuning", "QLoRA"]
