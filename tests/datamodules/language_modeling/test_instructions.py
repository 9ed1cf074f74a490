"""Instructions: targets are the answers, samples are packed whole, runs resume bit for bit."""

import json
from pathlib import Path

import lightning as L
import pytest
import torch

from datamodules import Instructions
from datamodules.language_modeling.instructions import pack
from engine.errors import UserError
from modules import LanguageModel
from modules.nets import GPT, RNNLM
from preprocessing.chat import CHATML, answer_spans, end_of_turn, render, with_special_tokens
from preprocessing.special_tokens import IGNORE_INDEX
from tests.support import QUIET, ROOT
from tests.support.resume import Crash, assert_same_run, crash_after

CHAT = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "Größer?"},
    {"role": "assistant", "content": "Fünf 😀"},
]


def write(folder: Path, records: list, name: str = "data.json") -> str:
    text = json.dumps(records)
    if name.endswith(".jsonl"):
        text = "\n".join(map(json.dumps, records))
    (folder / name).write_text(text)
    return str(folder / name)


def loaded(train: str, **arguments) -> Instructions:
    data = Instructions(train, **{"bpe_vocab_size": 270, "context": 256} | arguments)
    data.setup("fit")
    return data


def texts_of_targets(data: Instructions) -> set[str]:
    """The targets of each document of the training rows as text."""
    (inputs, targets), found = data.splits["train"][torch.arange(1)], set()
    for number in inputs["documents"][0].unique():
        chosen = targets[0][(inputs["documents"][0] == number) & (targets[0] != IGNORE_INDEX)]
        found.add(data.tokenizer.decode(chosen.tolist(), skip_special_tokens=False))
    return found


def test_targets_are_the_answers_with_the_end_of_turn(tmp_path: Path) -> None:
    for name in ("data.json", "data.jsonl"):
        data = loaded(write(tmp_path, [{"messages": CHAT}] * 3, name))
        assert texts_of_targets(data) == {"4<|im_end|>Fünf 😀<|im_end|>", ""}  # "": the padding


def test_target_is_the_token_after_the_input(tmp_path: Path) -> None:
    data = loaded(write(tmp_path, [{"messages": CHAT}] * 3))
    inputs, targets = data.splits["train"][torch.arange(1)]
    used = (targets[0, :-1] != IGNORE_INDEX) & (targets[0, 1:] != IGNORE_INDEX)
    assert used.any()
    assert torch.equal(targets[0, :-1][used], inputs["input_ids"][0, 1:][used])


def test_columns_give_question_input_and_answer(tmp_path: Path) -> None:
    table = tmp_path / "data.csv"
    table.write_text("question,context,answer\n" + 'Which?,"the\nsky",blue\n' * 3)
    columns = {"instruction_column": "question", "input_column": "context"}
    data = loaded(str(table), **columns, output_column="answer")
    assert data.conversations["train"][0] == [
        {"role": "user", "content": "Which?\n\nthe\nsky"},
        {"role": "assistant", "content": "blue"},
    ]


def test_samples_longer_than_the_context_are_left_out_and_counted(tmp_path: Path) -> None:
    records = [{"instruction": "a", "output": "b" * (300 if n % 6 == 5 else 2)} for n in range(60)]
    with pytest.warns(UserWarning, match=r"of 48 train samples are longer than the context of 64"):
        data = loaded(write(tmp_path, records), context=64, bpe_vocab_size=258)
    assert data.splits["train"].num_samples < 48
    with pytest.raises(UserError, match="All 48 train samples are longer"):
        loaded(write(tmp_path, records), context=4)


def test_packing_keeps_every_sample_once_and_fills_rows() -> None:
    lengths = torch.randint(1, 40, (500,)).tolist()
    rows = pack(lengths, 64)
    assert sorted(sample for row in rows for sample in row) == list(range(500))
    sizes = [sum(lengths[sample] for sample in row) for row in rows]
    assert max(sizes) <= 64
    assert sum(sizes) / (64 * len(rows)) > 0.97


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"instruction": "a"}, r"record 1 has no text in 'output'; its fields are 'instruction'"),
        ({"messages": [{"role": "user", "content": "a"}]}, "with an answer"),
        ({"messages": [{"role": "user"}]}, "must be a list"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, record: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loaded(write(tmp_path, [record] * 3))


def test_template_with_a_default_system_message_and_special_tokens() -> None:
    template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"  # noqa: E501
    complete = with_special_tokens(template, {"bos_token": "<s>", "eos_token": "</s>"})
    assert render(complete, CHAT[:1], add_generation_prompt=True) == (
        "<s>[system]Be short.</s>\n[assistant]"
    )
    assert end_of_turn(complete) == "</s>"
    text, spans = answer_spans(complete, CHAT)
    assert [text[start:end] for start, end in spans] == ["4</s>", "Fünf 😀</s>"]
    with pytest.raises(ValueError, match="changes earlier messages"):
        answer_spans("{{ messages | length }}", CHAT)


def test_template_cannot_reach_python() -> None:
    with pytest.raises(ValueError, match="chat template"):
        render("{{ ''.__class__.__mro__ }}", CHAT)


LAST_ONLY = (
    "{%- for m in messages %}\n  {% if loop.last %}\n{{ m.content | trim }}\n{% endif %}"
    "{% endfor %}"
)


@pytest.mark.parametrize("template", [CHATML, LAST_ONLY], ids=["chatml", "white space"])
def test_rendering_equals_transformers(tmp_path: Path, template: str) -> None:
    from transformers import PreTrainedTokenizerFast

    data = loaded(write(tmp_path, [{"messages": CHAT}] * 3))
    theirs = PreTrainedTokenizerFast(tokenizer_object=data.tokenizer)
    expected = theirs.apply_chat_template(
        CHAT, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    assert render(template, CHAT, add_generation_prompt=True) == expected


@pytest.mark.slow
def test_a_network_overfits_and_answers_from_its_checkpoint_alone(tmp_path: Path) -> None:
    pairs = {"Capital of France?": "Paris.", "2 + 2?": "Four."}
    records = [{"instruction": q, "output": a} for q, a in pairs.items()] * 3
    file = write(tmp_path, records)
    data = Instructions(file, val=file, test=file, context=128, batch_size=2, bpe_vocab_size=280)
    data.setup("fit")
    net = GPT(data.vocab_size, context=128, num_layers=2, num_heads=2, dim=32)
    task = LanguageModel(
        net,
        lambda p: torch.optim.Adam(p, 0.01),
        tokenizer=data.tokenizer_json,
        chat_template=data.chat_template,
    )
    trainer = L.Trainer(**QUIET | {"max_epochs": 60, "accelerator": "cpu"})
    trainer.fit(task, data)
    assert trainer.callback_metrics["val/loss"] < 0.1
    trainer.save_checkpoint(tmp_path / "chat.ckpt")
    again = LanguageModel.load_from_checkpoint(tmp_path / "chat.ckpt", net=net, weights_only=True)
    for question, answer in pairs.items():
        asked = [{"role": "user", "content": question}]
        assert again.chat(asked, max_new_tokens=20, top_k=1) == answer


def test_recurrent_networks_are_refused(tmp_path: Path) -> None:
    data = loaded(write(tmp_path, [{"messages": CHAT}] * 3))
    task = LanguageModel(RNNLM(data.vocab_size, dim=8))
    with pytest.raises(UserError, match="RNNLM cannot separate"):
        L.Trainer(**QUIET | {"max_epochs": 1, "accelerator": "cpu"}).fit(task, data)


@pytest.mark.slow
def test_run_resumes_bit_exactly_mid_epoch(run, runs, small_texts: Path) -> None:
    arguments = (
        *("fit", "--config", ROOT / "configs/instruct/gpt_small.yaml"),
        *("--config", ROOT / "configs/size/gpt-nano.yaml", "--data.data_dir", small_texts),
        *("--data.bpe_vocab_size", 270, "--data.context", 128, "--data.batch_size", 4),
        *("--trainer.max_epochs", 2, "--trainer.log_every_n_steps", 1, "--trainer.callbacks", "[]"),
        *("--checkpoint.every_n_steps", 2, "--test_after_fit", "false"),
    )
    uninterrupted = run(*arguments, "--experiment", "uninterrupted")
    with pytest.raises(Crash):
        run(*arguments, "--experiment", "stopped", *crash_after(3))
    resumed = run(*arguments, "--experiment", "stopped", "--resume", "auto")
    assert_same_run(uninterrupted, resumed)
