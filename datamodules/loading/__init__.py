"""Whole-batch loading, files, and batches by length."""
