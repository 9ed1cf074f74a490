"""Graders of the exercises, one module a day; each defines `TASKS`."""
