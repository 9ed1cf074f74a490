"""Callbacks that log speed, memory, gradients and layer statistics."""
