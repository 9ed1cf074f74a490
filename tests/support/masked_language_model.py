"""A small masked language model: token sequences, a tokenizer and arguments of a run."""

import torch
from torch import Tensor

from datamodules.text.tokenizers import train_tokenizer
from tests.support import ROOT

PAD, UNK, CLS, SEP, MASK = range(5)
V, T = 60, 32
TINY = (
    *("--model.net.dim", 16, "--model.net.num_heads", 2, "--model.net.num_layers", 1),
    *("--trainer.accelerator", "cpu", "--trainer.precision", "32-true"),
    *("--trainer.log_every_n_steps", 1, "--model.lr_scheduler.warmup_steps", 3),
)
MLM = (
    *("fit", "--config", ROOT / "configs/imdb/bert_mlm.yaml", *TINY, "--model.optimizer.lr", 0.01),
    *("--data.context", 32, "--data.batch_size", 16, "--data.max_vocab_size", 120),
    *("--trainer.max_steps", 40, "--trainer.val_check_interval", 20, "--model.rate", 0.15),
)


def texts(rows: int) -> Tensor:
    """Return rows `[CLS] … [SEP]`; the second half of the last row is padding."""
    tokens = torch.randint(5, V, (rows, T), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, -1] = CLS, SEP
    tokens[0, 7] = UNK
    tokens[-1, T // 2 - 1], tokens[-1, T // 2 :] = SEP, PAD
    return tokens


def small_tokenizer() -> str:
    """Return a WordPiece tokenizer of at most 60 tokens: letters and pairs of letters."""
    return train_tokenizer("wordpiece", ["abcdefghij klmnop qrstuv wxyz " * 9], V).to_str()
