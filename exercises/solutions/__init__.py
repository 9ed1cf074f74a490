"""Solutions of the exercises, one module a day."""
