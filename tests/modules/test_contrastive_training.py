"""Contrastive training of SentenceEncoder, its data, and folders of sentence-transformers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules import QueryPassages
from engine.errors import UserError
from modules import SentenceEncoder
from modules.nets import PretrainedEncoder
from modules.sentence_encoder import info_nce, save_sentence_transformers
from preprocessing.special_tokens import IGNORE_INDEX
from preprocessing.texts import with_truncation_and_padding
from tests.support.configs import TINY_BERT
from tests.support.huggingface import make_model, make_tokenizer, save_model

TINY_ENCODER = TINY_BERT.replace("PretrainedClassifier", "PretrainedEncoder")
COLORS = ["red", "blue", "green", "white", "black", "brown", "yellow", "orange"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Write queries for a color, with passages that contain it and hard negatives."""
    records = []
    for n in range(64):
        color, other = COLORS[n % 8], COLORS[(n + 3) % 8]
        records.append(
            {
                "query": f"which is {color}",
                "passage": f"number {n} is {color}",
                "negatives": [f"number {n} is {other}"],
            }
        )
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, records)))
    return tmp_path / "pairs.jsonl"


def make_encoder(**options: object) -> SentenceEncoder:
    torch.manual_seed(0)
    config = json.loads(TINY_ENCODER)["init_args"]["config"]
    net = PretrainedEncoder(config=config, dropout=0.0)
    tokenizer = with_truncation_and_padding(make_tokenizer(), 16)
    return SentenceEncoder(net, tokenizer=tokenizer, **options)  # type: ignore[arg-type]


def make_batch() -> tuple[dict[str, Tensor], Tensor]:
    ids = torch.randint(5, 100, (7, 9))
    mask = torch.arange(9) < torch.tensor([3, 9, 5, 2, 7, 9, 4])[:, None]
    return {"input_ids": ids, "attention_mask": mask}, torch.tensor([0, 1, 1, *[IGNORE_INDEX] * 4])


def test_loss_is_the_mean_of_both_directions() -> None:
    queries, passages = torch.randn(3, 4), torch.randn(5, 4)
    targets = torch.tensor([0, 2, 2])
    scores = F.normalize(queries, dim=1) @ F.normalize(passages, dim=1).T / 0.1
    there = torch.stack([-scores[n].log_softmax(0)[t] for n, t in enumerate(targets)]).mean()
    # Queries 1 and 2 have the same passage: neither is a negative of the other.
    competitors = {0: [0, 1, 2], 1: [0, 1], 2: [0, 2]}
    back = [
        scores[rows, targets[n]].logsumexp(0) - scores[n, targets[n]]
        for n, rows in competitors.items()
    ]
    expected = (there + torch.stack(back).mean()) / 2
    torch.testing.assert_close(info_nce(queries, passages, targets, 0.1), expected)


def test_gradient_in_chunks_is_that_of_the_batch() -> None:
    inputs, targets = make_batch()
    gradients = []
    for chunk_size in (None, 2):
        encoder = make_encoder(chunk_size=chunk_size)
        vectors = encoder.encode(inputs)
        info_nce(vectors[:3], vectors[3:], targets[:3], encoder.temperature).backward()
        gradients.append([p.grad for p in encoder.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_matryoshka_loss_is_the_mean_over_the_dimensions() -> None:
    batch = make_batch()
    single = [make_encoder(dims=[dim])._step(batch, "val") for dim in (4, 16)]
    both = make_encoder(dims=[4, 16])._step(batch, "val")
    torch.testing.assert_close(both, torch.stack(single).mean())
    assert single[0] != single[1]


def test_batch_has_each_passage_once(pairs: Path) -> None:
    data = QueryPassages(str(pairs), batch_size=16, context=12)
    data.setup("fit")
    inputs, targets = next(iter(data.train_dataloader()))
    tokenizer = data.tokenizer
    texts = [
        tokenizer.decode(ids[mask].tolist())
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    queries = (targets >= 0).sum()
    assert queries == 16
    assert (targets[:16] >= 0).all()
    passages = texts[16:]
    assert len(passages) == len(set(passages)) == 32
    for query, target in zip(texts, targets[:16].tolist(), strict=False):
        assert passages[target].endswith(query.split()[-1])
    held_out = {pair.passage for pair in data.pairs["val"]}
    assert held_out.isdisjoint(pair.passage for pair in data.pairs["train"])


@pytest.mark.slow  # about a hundred steps
def test_training_finds_passages_and_its_checkpoint_embeds(
    pairs: Path, run: Callable[..., Path]
) -> None:
    folder = run(
        *("fit", "--model", "modules.SentenceEncoder", "--model.net", TINY_ENCODER),
        *("--model.optimizer", "torch.optim.AdamW", "--model.optimizer.lr", 0.01),
        *("--model.dims", "[8, 16]", "--model.chunk_size", 8),
        *("--data", "datamodules.QueryPassages", "--data.train", pairs, "--data.batch_size", 16),
        *("--data.context", 12, "--trainer.max_epochs", 30, "--trainer.accelerator", "cpu"),
        *("--trainer.check_val_every_n_epoch", 30),
    )
    path = folder / "checkpoints/last.ckpt"
    encoder = SentenceEncoder.load_from_checkpoint(path, weights_only=True)
    queries = encoder.embed([f"which is {color}" for color in COLORS], dim=8)
    passages = encoder.embed([f"number 7 is {color}" for color in COLORS], dim=8)
    assert queries.shape == (8, 8)
    torch.testing.assert_close(queries.norm(dim=1), torch.ones(8))
    assert ((queries @ passages.T).argmax(dim=1) == torch.arange(8)).sum() >= 7


@pytest.fixture
def trained(tmp_path: Path) -> SentenceEncoder:
    folder = save_model(tmp_path / "bert", make_model("bert", "AutoModel"))
    return SentenceEncoder.from_pretrained(str(folder), context=12)


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("cls", False)])
def test_written_folder_gives_equal_vectors(
    pooling: str, normalize: bool, trained: SentenceEncoder, tmp_path: Path
) -> None:
    trained.pooling, trained.normalize = pooling, normalize
    save_sentence_transformers(trained, tmp_path / "out")
    found = SentenceEncoder.from_pretrained(str(tmp_path / "out"))
    assert (found.pooling, found.normalize) == (pooling, normalize)
    texts = ["a good film", "good " * 40]
    assert torch.equal(found.embed(texts), trained.embed(texts))


@pytest.mark.slow  # importing sentence_transformers takes seconds
@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("max", False)])
def test_sentence_transformers_reads_and_writes_equal_vectors(
    pooling: str, normalize: bool, trained: SentenceEncoder, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    trained.pooling, trained.normalize = pooling, normalize
    save_sentence_transformers(trained, tmp_path / "ours")
    texts = ["a good film", "good " * 40]
    model = SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    expected = torch.from_numpy(model.encode(texts))
    torch.testing.assert_close(trained.embed(texts), expected, atol=1e-5, rtol=1e-5)
    model.save(str(tmp_path / "theirs"))
    found = SentenceEncoder.from_pretrained(str(tmp_path / "theirs"))
    torch.testing.assert_close(found.embed(texts), expected, atol=1e-5, rtol=1e-5)


def test_network_that_is_not_of_transformers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a network of transformers"):
        save_sentence_transformers(SentenceEncoder(torch.nn.Identity()), tmp_path / "out")


def test_record_without_texts_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"query": "a", "text": "b"}\n')
    with pytest.raises(UserError, match=r"line 1\) needs texts in 'query' and 'passage'"):
        _ = QueryPassages(str(tmp_path / "a.jsonl")).pairs
