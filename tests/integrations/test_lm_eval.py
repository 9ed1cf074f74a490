"""The harness gives the numbers of its own `hf` model, whatever the batch size."""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from datamodules.text.tokenizers import train_bpe

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.slow  # importing the harness takes 10 seconds

TASKS = {
    "choices": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "texts": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
""",
}
RECORDS = {
    "choices": [
        {
            "question": "the cat",
            "choices": ["sat on a mat", "ran", "under the big house"],
            "answer": 0,
        },
        {"question": "a big red dog", "choices": ["ran", "sat under the mat ."], "answer": 1},
        {"question": "the house ?", "choices": ["red", "big", "on the mat"], "answer": 2},
    ],
    "texts": [{"text": "the cat sat on the mat . " * 9}, {"text": "a red dog ran under a house ."}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny Llama, and two tasks with their data."""
    folder = tmp_path_factory.mktemp("lm_eval")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_bpe([str(RECORDS)], 300), bos_token="<s>", eos_token="</s>"
    )
    tokenizer.save_pretrained(folder / "llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "llama")
    for name, yaml in TASKS.items():
        data = folder / f"{name}.jsonl"
        data.write_text("\n".join(map(json.dumps, RECORDS[name])))
        (folder / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_path: json\n"
            f"dataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n{yaml}"
        )
    return folder


def numbers(results: dict) -> dict[str, float]:
    return {
        f"{task} {name}": value
        for task, metrics in results.items()
        for name, value in metrics.items()
        if isinstance(value, float) and "stderr" not in name
    }


def test_numbers_equal_those_of_the_hf_model(folder, capsys):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from integrations.lm_eval import main

    theirs = HFLM(str(folder / "llama"), dtype="float32", batch_size=1, device="cpu")
    manager = TaskManager(include_path=str(folder))
    expected = numbers(
        simple_evaluate(model=theirs, tasks=[*TASKS], task_manager=manager)["results"]
    )
    assert {name.split()[1].split(",")[0] for name in expected} >= {"acc", "word_perplexity"}
    for batch_size in ("1", "3"):
        options = ["--include_path", str(folder), "--batch_size", batch_size]
        found = main(["--checkpoint", str(folder / "llama"), "--tasks", ",".join(TASKS), *options])
        assert numbers(found) == pytest.approx(expected, rel=1e-5, abs=1e-4)
    assert "word_perplexity" in capsys.readouterr().out


def test_log_likelihoods_equal_those_of_the_hf_model(folder):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from integrations.lm_eval import LanguageModelLM

    theirs = HFLM(str(folder / "llama"), dtype="float32", batch_size=2, device="cpu")
    pairs = [("", "the cat"), ("the", "dog ran"), ("a big ", "mat"), ("the cat sat " * 20, "on")]
    requests = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]
    for batch_size in (1, 3):
        ours = LanguageModelLM(folder / "llama", batch_size)
        expected = theirs.loglikelihood(requests, disable_tqdm=True)
        for own, other in zip(ours.loglikelihood(requests, True), expected, strict=True):
            assert own == (pytest.approx(other[0], abs=1e-4), other[1])


def test_unknown_task_is_a_user_error(folder, capsys):
    from integrations.lm_eval import main

    with pytest.raises(SystemExit) as exit:
        main(["--checkpoint", str(folder / "llama"), "--tasks", "no_such_task"])
    assert exit.value.code == 2
    assert "the harness has no task no_such_task" in capsys.readouterr().err
