"""Solutions of day 20."""

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]


class CharacterLSTM(nn.Module):
    def __init__(self, vocab_size: int, width: int = 32, layers: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, vocab_size)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        outputs, (h, c) = self.lstm(self.embedding(tokens), state)
        return self.head(outputs), (h.detach(), c.detach())


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    ordered, indices = probabilities.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered  # probability of more probable tokens
    kept = ordered * (before < top_p)
    return torch.zeros_like(probabilities).scatter(-1, indices, kept / kept.sum(-1, keepdim=True))


@torch.no_grad()
def generate(net: nn.Module, prompt: Tensor, length: int, generator: torch.Generator) -> Tensor:
    net.eval()
    tokens, state = prompt[None], None
    new = []
    for _ in range(length):
        logits, state = net(tokens, state)
        tokens = torch.multinomial(logits[:, -1].softmax(dim=-1), 1, generator=generator)
        new.append(tokens[0, 0])
    return torch.stack(new)
