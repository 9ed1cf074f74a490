"""Parts that several tasks share in training."""
