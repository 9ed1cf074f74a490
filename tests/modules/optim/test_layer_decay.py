"""LayerDecayAdamW: learning rates by depth; exemptions and schedules are those of AdamW."""

from functools import partial

import lightning as L
import pytest
import torch
from torch import nn

from engine.errors import UserError
from modules import Classifier
from modules.nets import BagOfWords, BertClassifier, TransformerClassifier
from modules.optim import LayerDecayAdamW, WarmupLinear

SMALL = {"vocab_size": 20, "context": 8, "num_layers": 3, "num_heads": 1, "dim": 8}


def settings(net: nn.Module, **arguments) -> dict[str, dict]:
    """Return the settings of each parameter's group by the parameter's name."""
    adam = partial(LayerDecayAdamW, lr=1.0, weight_decay=0.1, layer_decay=0.5, **arguments)
    task = Classifier(net, 2, optimizer=adam)
    optimizer = task.configure_optimizers()["optimizer"]
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(groups)
    return {name: groups[id(p)] for name, p in task.net.named_parameters()}


@pytest.mark.parametrize(
    "net", [BertClassifier(2, **SMALL), TransformerClassifier(2, **SMALL)], ids=["bert", "ours"]
)
def test_learning_rate_halves_with_every_layer_towards_the_embeddings(net: nn.Module) -> None:
    found = settings(net)
    for name, group in found.items():
        layer = next((part for part in name.split(".") if part.isdecimal()), None)
        expected = 1.0
        if layer is not None:
            expected = 0.5 ** (3 - int(layer))
        elif "embedding" in name or name.startswith("encoder.norm"):
            expected = 0.5**4
        assert group["lr"] == expected, name
    assert found["head.bias"]["lr"] == 1.0


def test_biases_and_norms_have_no_weight_decay() -> None:
    net = BertClassifier(2, **SMALL)
    found = settings(net)
    for name, parameter in net.named_parameters():
        assert found[name]["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0), name


def test_schedule_scales_all_layers_alike() -> None:
    adam = partial(LayerDecayAdamW, lr=1.0, layer_decay=0.5)
    schedule = partial(WarmupLinear, warmup_fraction=0.0, total_steps=4)
    task = Classifier(BertClassifier(2, **SMALL), 2, optimizer=adam, lr_scheduler=schedule)
    config = task.configure_optimizers()
    before = [group["lr"] for group in config["optimizer"].param_groups]
    config["optimizer"].step()
    config["lr_scheduler"]["scheduler"].step()
    after = [group["lr"] for group in config["optimizer"].param_groups]
    assert after == pytest.approx([0.75 * rate for rate in before])
    assert len(set(before)) == 5


def test_network_without_numbered_layers_is_a_user_error() -> None:
    with pytest.raises(UserError, match="has no numbered layers"):
        settings(BagOfWords(2, vocab_size=20, dim=8))
    with pytest.raises(ValueError, match="layer_decay must be in"):
        LayerDecayAdamW([nn.Parameter(torch.zeros(1))], layer_decay=0)


def test_frozen_layers_are_left_out() -> None:
    net = BertClassifier(2, **SMALL)
    net.encoder.blocks[0].requires_grad_(False)
    task: L.LightningModule = Classifier(net, 2, optimizer=partial(LayerDecayAdamW, lr=1.0))
    optimizer = task.configure_optimizers()["optimizer"]
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in net.parameters() if p.requires_grad}
