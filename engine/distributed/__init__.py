"""Strategies and sharding for training in several processes."""

from engine.distributed.strategies import DeepSpeed, Sharded

__all__ = ["DeepSpeed", "Sharded"]
