"""The nets: plain torch, one architecture a file, from the ground floor up."""

from modules.nets.cnn import CNN
from modules.nets.mlp import MLP

__all__ = ["CNN", "MLP"]
