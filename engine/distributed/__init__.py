"""Strategies for training in several processes, and sharding of their networks."""

from engine.distributed.strategies import DeepSpeed, ModelParallel

__all__ = ["DeepSpeed", "ModelParallel"]
