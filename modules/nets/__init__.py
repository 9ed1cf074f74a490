from .bigram import Bigram
from .gpt import GPT
from .mlp_lm import MLPLM
from .rnn import RNNLM, RecurrentEncoder

__all__ = ["GPT", "MLPLM", "RNNLM", "Bigram", "RecurrentEncoder"]
