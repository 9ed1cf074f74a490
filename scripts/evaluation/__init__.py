"""Parts of scripts.evaluate: predictions, statistics, report."""
