"""Callbacks that change training: finders, fine-tuning stages, weight averages."""
