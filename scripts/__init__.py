"""Programs for what is done once, before training: `python -m scripts.<name>`."""
