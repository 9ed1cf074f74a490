"""Freeze: parameters that match a pattern stay as they are, in eval mode."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks import Freeze
from engine.errors import UserError
from modules import Classifier
from tests.support import QUIET


class Net(nn.Module):
    """Two blocks with batch norm and dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)) for _ in range(2)
        )
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def fit(patterns: list[str]) -> tuple[Net, dict, dict]:
    """Train with frozen parameters; return the net, and its state before and after."""
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x, y = torch.randn(32, 4) + 3, torch.randint(2, (32,))
    loader = DataLoader(TensorDataset(x, y), batch_size=8)
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", callbacks=[Freeze(patterns)], **QUIET)
    trainer.fit(Classifier(net, 2), loader, loader)  # validation restores the modes
    return net, before, net.state_dict()


def test_matching_parameters_and_their_statistics_are_frozen() -> None:
    net, before, after = fit(["net.blocks.0.*"])
    for name, value in after.items():
        assert torch.equal(value, before[name]) == name.startswith("blocks.0."), name
    assert [block[2].training for block in net.blocks] == [False, True]


def test_pattern_may_match_single_parameters() -> None:
    _, before, after = fit(["*.bias"])
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert not any(name.endswith("bias") for name in changed)
    assert "head.weight" in changed
    assert "blocks.0.1.running_mean" in changed  # its weight is trained


@pytest.mark.parametrize(
    ("patterns", "message"),
    [(["net.encoder.*"], "no parameter matches 'net.encoder"), (["*"], "nothing is left to train")],
)
def test_wrong_patterns_are_user_errors(patterns: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(patterns)
