"""BERT equals that of transformers, and its folders are read and written."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
)

from modules.nets import BertClassifier, BertMLM
from modules.nets.huggingface.bert import save_bert
from tests.support.layer_by_layer import first_difference

V, T, CLASSES = 40, 16, 3
SIZES = {"vocab_size": V, "context": T, "num_layers": 2, "num_heads": 4, "dim": 32}


def theirs(kind: type, **options) -> nn.Module:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=V,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=T,
        num_labels=CLASSES,
        initializer_range=0.2,  # large, so that a wrong layer changes the logits
        **options,
    )
    net = kind(config).eval()
    for parameter in net.parameters():  # no bias or norm weight stays at 0 or 1
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net


def draw(segments: bool = True) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(V, (3, 12), generator=random)
    mask = torch.ones(3, 12, dtype=torch.int64)
    mask[1, 7:] = 0
    inputs = {"input_ids": tokens, "attention_mask": mask}
    if segments:
        inputs["token_type_ids"] = torch.randint(2, (3, 12), generator=random)
    return inputs


def mlm(**options) -> BertMLM:
    torch.manual_seed(1)
    return BertMLM(**{**SIZES, **options}).eval()


def classifier(**options) -> BertClassifier:
    torch.manual_seed(1)
    return BertClassifier(CLASSES, **{**SIZES, **options}).eval()


def pairs(net: BertMLM | BertClassifier) -> dict[str, str]:
    names = {"encoder.token_embedding": "embeddings.word_embeddings"}
    names["encoder.norm"] = "embeddings.LayerNorm"
    for n in range(net.num_layers):
        for our_part, their_part in {
            "attention.proj": "attention.output.dense",
            "norm_1": "attention.output.LayerNorm",
            "mlp.up": "intermediate.dense",
            "norm_2": "output.LayerNorm",
        }.items():
            names[f"encoder.blocks.{n}.{our_part}"] = f"encoder.layer.{n}.{their_part}"
    return {ours: f"bert.{theirs}" for ours, theirs in names.items()}


class Wrapped(nn.Module):
    """Call a network of transformers with a dict of inputs."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.net(**inputs).logits


@pytest.mark.parametrize("segments", [True, False])
@pytest.mark.parametrize(
    ("kind", "make"),
    [(BertForMaskedLM, mlm), (BertForSequenceClassification, classifier)],
)
def test_loaded_folder_gives_the_logits_of_transformers(
    tmp_path: Path, kind: type, make, segments: bool
) -> None:
    reference = theirs(kind)
    reference.save_pretrained(tmp_path, max_shard_size="20KB")
    ours = make(pretrained=str(tmp_path))
    inside = draw()["attention_mask"].bool() if kind is BertForMaskedLM else slice(None)
    with torch.inference_mode():
        a, b = ours(draw(segments)), reference(**draw(segments)).logits
    layers = {ours: f"net.{theirs}" for ours, theirs in pairs(ours).items()}
    # 1e-5: sums of 128 products in another order (fp32).
    assert (a - b)[inside].abs().max() < 1e-5, first_difference(
        ours, Wrapped(reference), layers, draw(segments)
    )


def test_bare_encoder_gives_the_same_vectors(tmp_path: Path) -> None:
    reference = theirs(BertModel)
    reference.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"newly initialized: head\.weight, head\.bias"):
        ours = classifier(pretrained=str(tmp_path))
    with torch.inference_mode():
        expected = reference(**draw())
        inside = draw()["attention_mask"].bool()
        vectors = ours.encoder(draw())
        torch.testing.assert_close(
            vectors[inside], expected.last_hidden_state[inside], atol=1e-5, rtol=0
        )
        torch.testing.assert_close(ours.pooled(draw()), expected.pooler_output, atol=1e-5, rtol=0)


def test_pretraining_folder_initializes_both_heads(tmp_path: Path) -> None:
    theirs(BertForPreTraining).save_pretrained(tmp_path)
    with warnings.catch_warnings(action="error"):
        mlm(pretrained=str(tmp_path))
    with pytest.warns(UserWarning, match=r"loaded \d+ of \d+ weights from .*: head\.weight"):
        classifier(pretrained=str(tmp_path))


def test_head_of_other_classes_is_new_and_context_may_be_shorter(tmp_path: Path) -> None:
    reference = theirs(BertForSequenceClassification)
    reference.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="newly initialized: head"):
        ours = BertClassifier(5, **{**SIZES, "context": 12}, pretrained=str(tmp_path)).eval()
    with torch.inference_mode():
        pooled = reference.bert(**draw()).pooler_output
        torch.testing.assert_close(ours.pooled(draw()), pooled, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("make", "opens"),
    [(mlm, AutoModelForMaskedLM), (classifier, AutoModelForSequenceClassification)],
)
def test_transformers_opens_saved_folder_with_the_same_logits(tmp_path: Path, make, opens) -> None:
    ours = make()
    for parameter in ours.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    save_bert(ours, tmp_path / "new/folder", ["ants", "bees", "cats"])
    again, report = opens.from_pretrained(tmp_path / "new/folder", output_loading_info=True)
    assert not any(report.values()), report  # nothing missing, unexpected or mismatched
    with torch.inference_mode():
        a, b = ours(draw()), again.eval()(**draw()).logits
    inside = draw()["attention_mask"].bool() if make is mlm else slice(None)
    assert (a - b)[inside].abs().max() < 1e-5
    if make is classifier:
        assert again.config.id2label == {0: "ants", 1: "bees", 2: "cats"}


def test_saved_folder_loads_with_the_same_weights(tmp_path: Path) -> None:
    ours = mlm()
    save_bert(ours, tmp_path)
    again = mlm(pretrained=str(tmp_path))
    for name, tensor in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_folder_is_found_in_data_dir(tmp_path: Path) -> None:
    save_bert(mlm(), tmp_path / "data/tiny-bert")
    mlm(pretrained="tiny-bert", data_dir=tmp_path / "data")
    with pytest.raises(ValueError, match=r"no folder tiny-bert .* not downloaded"):
        mlm(pretrained="tiny-bert", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"dim": 48, "num_layers": 3}, "--model.net.num_layers 2 --model.net.dim 32"),
        ({"vocab_size": 50}, r"has 40 tokens, the data have 50; .* --data.tokenizer"),
        ({"context": 17}, "--data.context 16 or less"),
    ],
)
def test_mismatched_sizes_are_reported_with_the_flags(
    tmp_path: Path, sizes: dict, message: str
) -> None:
    save_bert(mlm(), tmp_path)
    with pytest.raises(ValueError, match=message):
        mlm(**sizes, pretrained=str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "holds a 'gpt2'; only 'bert'"),
        ({"hidden_act": "relu"}, "hidden_act='relu' is not supported"),
        ({"intermediate_size": 64}, "intermediate_size=64 is not supported"),
    ],
)
def test_unsupported_options_are_named(tmp_path: Path, change: dict, message: str) -> None:
    save_bert(mlm(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        mlm(pretrained=str(tmp_path))


def test_damaged_folders_are_reported(tmp_path: Path) -> None:
    save_bert(mlm(), tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(ValueError, match=str(tmp_path)):
        mlm(pretrained=str(tmp_path))
    weights.unlink()
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        mlm(pretrained=str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        mlm(pretrained=str(tmp_path))


# Contracts of BertMLM; those of BertClassifier are in test_text_nets.py.


def test_logits_at_positions_equal_those_of_all_positions() -> None:
    net, positions = mlm(), torch.tensor([[3, 0], [1, 1], [11, 2]])
    every = net(draw())
    expected = torch.stack([every[row, at] for row, at in enumerate(positions)])
    torch.testing.assert_close(net(draw(), positions), expected)


def test_padding_does_not_change_the_logits() -> None:
    net, inputs = mlm(), draw()
    inside = inputs["attention_mask"].bool()
    other_padding = inputs | {"input_ids": inputs["input_ids"].masked_fill(~inside, 5)}
    torch.testing.assert_close(net(other_padding)[inside], net(inputs)[inside])
    alone = net({name: tensor[1:2, :7] for name, tensor in inputs.items()})
    torch.testing.assert_close(alone[0], net(inputs)[1, :7], atol=1e-5, rtol=1e-5)


def test_logits_depend_on_both_sides_and_on_token_order() -> None:
    net, inputs = mlm(), draw(segments=False)
    before = net(inputs)[0, 5]
    for position in (2, 9):
        changed = inputs["input_ids"].clone()
        changed[0, position] = (changed[0, position] + 1) % V
        assert (net(inputs | {"input_ids": changed})[0, 5] - before).abs().max() > 1e-4
    swapped = inputs["input_ids"].clone()
    swapped[0, [2, 9]] = swapped[0, [9, 2]]
    assert (net(inputs | {"input_ids": swapped})[0, 5] - before).abs().max() > 1e-4


def test_every_parameter_receives_gradient() -> None:
    net = mlm().train()
    logits = net(draw(), torch.tensor([[3, 0], [1, 1], [11, 2]]))
    F.cross_entropy(logits.flatten(0, 1), torch.arange(6)).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_text_beyond_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="context of this BERT is 8 tokens, got 12"):
        mlm(context=8)(draw())
    with pytest.raises(ValueError, match=r"dim \(30\) must be a multiple of num_heads \(4\)"):
        mlm(dim=30)
