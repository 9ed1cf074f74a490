"""TextStream: one endless token sequence for all processes, resumable at any step."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from datamodules import TextStream
from datamodules.language_modeling.text_stream import DocumentStream, StreamBatches
from engine.errors import UserError
from tests.support import ROOT
from tests.support.resume import Crash, assert_same_run, crash_after

pytest.importorskip("datasets", reason="the optional package `datasets` is not installed")
SIZES = {"context": 16, "batch_size": 4, "tokenizer": "bpe", "max_vocab_size": 300}
VAL = 3


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    """Write forty documents to four files, some of them empty or long."""
    draw = np.random.default_rng(0)
    words = [*"ab cd efg hi jkl mnopq rst uvwx yz".split(" ")]  # noqa: SIM905
    sizes = draw.integers(0, 60, 40)
    made = [f"{number} " + " ".join(draw.choice(words, size)) for number, size in enumerate(sizes)]
    made[7], made[20] = "", "long " * 300
    for number in range(4):
        rows = [json.dumps({"text": text}) for text in made[10 * number : 10 * number + 10]]
        (tmp_path / f"part-{number}.jsonl").write_text("\n".join(rows) + "\n")
    return made


@pytest.fixture
def stream(tmp_path: Path, texts: list[str]) -> Callable[..., TextStream]:
    def stream(share: tuple[int, int] = (0, 1), **changes) -> TextStream:
        files = [str(tmp_path / f"part-{number}.jsonl") for number in range(4)]
        arguments = {"dataset": "json", "files": files, "val_documents": VAL, "epoch_steps": 50}
        data = TextStream(**(arguments | SIZES | changes))
        message = {"rank": share[0], "num_replicas": share[1]}
        state = SimpleNamespace(fn=TrainerFn.FITTING)
        data.trainer = SimpleNamespace(distributed_sampler_kwargs=message, state=state)
        data.prepare_data()
        data.setup("fit")
        return data

    return stream


def rows(data: TextStream) -> StreamBatches:
    return data.train_dataloader().dataset


def flat(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> list[int]:
    return torch.cat([inputs.flatten() for inputs, _ in batches]).tolist()


def test_batches_repeat_the_documents_in_order(stream, texts) -> None:
    data = stream()
    end = data.tokenizer.token_to_id("<|endoftext|>")
    once = [t for text in texts[VAL:] for t in (*data.tokenizer.encode(text).ids, end)]
    source = rows(data)
    batches = [source[step] for step in range(3 * len(once) // 64)]
    assert len(batches) > 2 * len(once) // 64  # more than two epochs of documents
    assert flat(batches) == (once * 3)[: 64 * len(batches)]
    for inputs, targets in batches:
        assert torch.equal(inputs.flatten()[1:], targets.flatten()[:-1])
    for (_, before), (inputs, _) in pairwise(batches):
        assert before[-1, -1] == inputs[0, 0]
    val = [t for text in texts[:VAL] for t in (*data.tokenizer.encode(text).ids, end)]
    assert data.val_tokens.tolist() == val


@pytest.mark.slow
@pytest.mark.parametrize("start", [1, 2, 17, 45])
def test_seek_to_any_step_with_or_without_saved_state(stream, start: int) -> None:
    whole, all_reads = rows(stream()), []
    count(whole.documents, all_reads)
    expected = [whole[step] for step in range(60)]
    other = stream()
    for number, batch in enumerate(rows(other)[step] for step in range(start)):
        assert torch.equal(batch[0], expected[number][0])
    kept = json.loads(json.dumps(other.state_dict()))  # plain values
    for known in (kept, {}):
        again = stream()
        again.load_state_dict(known)
        source, read = rows(again), []
        count(source.documents, read)
        position = start - 1  # loaded but not trained on
        seen = [source[step] for step in range(position, 60)]
        for (a, b), (c, d) in zip(seen, expected[position:], strict=True):
            assert torch.equal(a, c)
            assert torch.equal(b, d)
        if known and start > 10:
            assert len(read) < len(all_reads) - 10  # earlier documents are not read again


def test_resume_on_changed_documents_is_refused(stream, tmp_path: Path) -> None:
    state = stream().state_dict()
    file = tmp_path / "part-0.jsonl"
    file.write_text(file.read_text().replace('"text": "0', '"text": "9'))
    with pytest.raises(UserError, match="the text of TextStream has changed"):
        stream().load_state_dict(state)


def count(documents: DocumentStream, read: list) -> None:
    following = documents.next
    documents.next = lambda: read.append(1) or following()  # type: ignore[method-assign]


def test_global_batch_does_not_depend_on_world_size(stream) -> None:
    whole = rows(stream())
    shares = [rows(stream(share=(rank, 2))) for rank in (0, 1)]
    for step in range(8):
        parts = [share[step] for share in shares]
        for number in (0, 1):
            assert torch.equal(torch.cat([part[number] for part in parts]), whole[step][number])


def arguments(tmp_path: Path) -> tuple:
    files = json.dumps([str(tmp_path / f"part-{number}.jsonl") for number in range(4)])
    return (
        *("--config", ROOT / "configs/source/gpt.yaml"),
        *("--config", ROOT / "configs/size/gpt-nano.yaml", "--data", "datamodules.TextStream"),
        *("--data.dataset", "json", "--data.files", files, "--data.tokenizer", "bpe"),
        *("--data.max_vocab_size", 300, "--data.val_documents", 3, "--data.epoch_steps", 7),
        *("--data.context", 16, "--data.batch_size", 4, "--model.net.dropout", 0.1),
        *("--trainer.precision", "32-true", "--model.lr_scheduler.warmup_steps", 3),
        *("--trainer.max_steps", 24, "--trainer.val_check_interval", 6),
        *("--trainer.log_every_n_steps", 1, "--checkpoint.every_n_steps", 4),
        *("--test_after_fit", "false", "--trainer.callbacks", "null"),
    )


@pytest.mark.parametrize("crash", [10, pytest.param(5, marks=pytest.mark.slow)])
def test_resume_is_bit_exact_mid_epoch(
    run: Callable[..., Path], texts: list[str], tmp_path: Path, crash: int
) -> None:
    given = arguments(tmp_path)
    whole = run("fit", *given, "--experiment", "whole")
    with pytest.raises(Crash):
        run("fit", *given, "--experiment", "stopped", *crash_after(crash))
    again = run("fit", *given, "--experiment", "stopped", "--resume", "auto")
    # The library has several equivalent states for one position.
    assert_same_run(whole, again, but="TextStream")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"field": "body"}, "has no text in 'body'; its columns are 'text'"),
        ({"dataset": "json", "files": ["nowhere.jsonl"]}, "cannot open"),
        ({"dataset_split": "test"}, "cannot open"),
        ({"tokenizer": "words"}, "unknown tokenizer 'words'"),
        ({"max_vocab_size": 256}, "at least 257"),
        ({"val_documents": 40}, "too short"),
        ({"val_documents": 0}, "val_documents must be"),
        ({"epoch_steps": 0}, "epoch_steps must be"),
    ],
)
def test_invalid_settings_are_reported(stream, wrong: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        stream(**wrong)
