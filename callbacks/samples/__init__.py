"""Callbacks that write samples of what a model generates."""
