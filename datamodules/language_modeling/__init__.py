"""Token sequences for language models."""
