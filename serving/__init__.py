"""The HTTP API of serve.py. The server process does not import torch: models are in workers."""
