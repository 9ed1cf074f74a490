"""Exercises of the course with graders: `python -m exercises.check 5` grades day 5."""
