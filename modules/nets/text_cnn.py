"""Text CNN: filters that look for phrases of a few words, wherever they stand.

Kim 2014, "Convolutional neural networks for sentence classification". A bag of words does not know
"not good" from "good … not". New here: a filter reads a few neighbouring words in order; the
largest answer over all places stays (max over time), so the text may be of any length.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.layers.dropout import Dropout
from modules.nets.layers.pooling import masked_max


class TextCNN(nn.Module):
    """Token vectors, filters of several widths, the largest answer of each, one linear layer.

    Args:
        num_classes: number of classes.
        vocab_size: number of different tokens.
        dim: width of a token's vector.
        widths: how many words the filters read, each 1 or more.
        filters: how many filters of each width.
        dropout: probability of dropping one of the answers.
        embedding_dropout: probability of dropping an element of the token vectors. It helps with
            short texts; of a long one the largest answer is soon that of the luckiest draw.
    """

    def __init__(
        self,
        num_classes: int,
        vocab_size: int,
        dim: int = 128,
        widths: list[int] = [3, 4, 5],  # noqa: B006  # never changed, and read by --help
        filters: int = 100,
        dropout: float = 0.5,
        embedding_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise ValueError(f"widths must be numbers of words, each 1 or more, not {widths}")
        self.num_classes = num_classes
        self.vocab_size = vocab_size
        self.dim = dim
        self.widths = list(widths)
        self.filters = filters
        self.dropout = dropout
        self.embedding_dropout = embedding_dropout
        self.embedding = nn.Embedding(vocab_size, dim)
        self.convolutions = nn.ModuleList(nn.Conv1d(dim, filters, width) for width in widths)
        self.drop_vectors = Dropout(embedding_dropout)
        self.drop = Dropout(dropout)
        self.head = nn.Linear(filters * len(widths), num_classes)
        nn.init.normal_(self.embedding.weight, std=0.25)  # as the word vectors of the paper

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens, mask = inputs["input_ids"], inputs["attention_mask"].bool()  # (B, T), (B, T)
        x = self.drop_vectors(self.embedding(tokens))  # (B, T, D)
        # Every text is followed by zeros, in a batch or alone: a filter may begin at its last word.
        x = x.masked_fill(~mask.unsqueeze(-1), 0.0).transpose(1, 2)  # (B, D, T)
        x = F.pad(x, (0, max(self.widths) - 1))  # (B, D, T + width - 1)
        answers = [
            masked_max(convolution(x)[..., : mask.shape[1]].relu().transpose(1, 2), mask)
            for convolution in self.convolutions
        ]  # each (B, filters)
        return self.head(self.drop(torch.cat(answers, dim=1)))  # (B, num_classes)
