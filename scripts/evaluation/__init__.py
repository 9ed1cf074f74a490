"""What scripts.evaluate is made of: answers, statistics, report."""
