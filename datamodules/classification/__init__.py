"""Text classification, regression and multi-label data."""
