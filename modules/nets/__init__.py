"""The nets: plain torch, one architecture a file, from the ground floor up."""

from modules.nets.bigram import Bigram
from modules.nets.cnn import CNN
from modules.nets.gpt import GPT
from modules.nets.mlp import MLP
from modules.nets.mlp_lm import MLPLM
from modules.nets.resnet import ResNet
from modules.nets.resnet9 import ResNet9
from modules.nets.rnn import RNNLM, RecurrentEncoder
from modules.nets.torchvision_net import TorchvisionNet
from modules.nets.vgg import VGG

__all__ = [
    "CNN",
    "GPT",
    "MLP",
    "MLPLM",
    "RNNLM",
    "VGG",
    "Bigram",
    "RecurrentEncoder",
    "ResNet",
    "ResNet9",
    "TorchvisionNet",
]
