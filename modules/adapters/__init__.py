"""Adapters: train few parameters of a network whose other weights are frozen (by peft)."""

import logging

from modules.adapters.methods import IA3, Adapter, DoRA, HeadOnly, LoRA, PrefixTuning, QLoRA

# bitsandbytes, which peft imports where it is installed, reports at its import that it does not
# download a kernel from the hub.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__all__ = ["IA3", "Adapter", "DoRA", "HeadOnly", "LoRA", "PrefixTuning", "QLoRA"]
