"""Strategies and sharding for training in several processes."""

from engine.distributed.strategies import DeepSpeed, ModelParallel

__all__ = ["DeepSpeed", "ModelParallel"]
