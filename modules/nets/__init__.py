"""The networks: plain torch, one architecture per file."""

from modules.nets.attention_rnn import AttentionRNN
from modules.nets.bag_of_words import BagOfWords
from modules.nets.bert import BertClassifier, BertMLM
from modules.nets.bigram import Bigram
from modules.nets.cnn import CNN
from modules.nets.glove import GloVe
from modules.nets.gpt import GPT
from modules.nets.huggingface.pretrained import (
    PretrainedCausalLM,
    PretrainedClassifier,
    PretrainedEncoder,
    PretrainedTokenClassifier,
)
from modules.nets.mlp import MLP
from modules.nets.mlp_lm import MLPLM
from modules.nets.resnet import ResNet
from modules.nets.resnet9 import ResNet9
from modules.nets.rnn import RNNLM, RecurrentEncoder
from modules.nets.seq2seq import Seq2Seq
from modules.nets.skip_gram import CBOW, SkipGram
from modules.nets.text_cnn import TextCNN
from modules.nets.text_rnn import TextRNN
from modules.nets.torchvision_net import TorchvisionNet
from modules.nets.transformer import Transformer
from modules.nets.transformer_classifier import TransformerClassifier
from modules.nets.vgg import VGG

__all__ = [
    "CBOW",
    "CNN",
    "GPT",
    "MLP",
    "MLPLM",
    "RNNLM",
    "VGG",
    "AttentionRNN",
    "BagOfWords",
    "BertClassifier",
    "BertMLM",
    "Bigram",
    "GloVe",
    "PretrainedCausalLM",
    "PretrainedClassifier",
    "PretrainedEncoder",
    "PretrainedTokenClassifier",
    "RecurrentEncoder",
    "ResNet",
    "ResNet9",
    "Seq2Seq",
    "SkipGram",
    "TextCNN",
    "TextRNN",
    "TorchvisionNet",
    "Transformer",
    "TransformerClassifier",
]
