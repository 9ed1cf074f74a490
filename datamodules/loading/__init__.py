"""Loading of whole batches, downloads, splits, and batches bucketed by length."""
