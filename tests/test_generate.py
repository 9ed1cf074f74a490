"""generate.py, called in this process, with checkpoints and Hugging Face folders."""

import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config
from transformers import GPT2LMHeadModel as ReferenceGPT2

import generate
from modules import Classifier, LanguageModel
from modules.inference.pretrained import open_language_model
from modules.nets import CNN, GPT, Bigram
from tests.support.language_models import (
    TEXT,
    byte_pairs,
    gpt2_like,
    language_model,
    save,
    user_error,
)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return save(language_model(), tmp_path / "best.ckpt")


def run(checkpoint, *options) -> None:
    generate.main(["--checkpoint", str(checkpoint), *options])


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("32-true", torch.float32), ("bf16-true", torch.bfloat16), ("16-true", torch.float16)],
)
def test_precision_converts_the_weights(checkpoint, capsys, monkeypatch, precision, dtype):
    dtypes = set()
    forward = GPT.forward

    def recorded(self, *inputs):
        dtypes.update(parameter.dtype for parameter in self.parameters())
        return forward(self, *inputs)

    monkeypatch.setattr(GPT, "forward", recorded)
    options = ("--prompt", "To be", "--seed", "1", "--max_new_tokens", "60")
    run(checkpoint, *options, "--precision", precision)
    assert dtypes == {dtype}
    assert len(capsys.readouterr().out) == len("To be") + 60 + len("\n")


def test_prompt_is_continued_reproducibly_with_a_seed(checkpoint, capsys):
    texts = []
    for seed in ("1", "1", "2"):
        run(checkpoint, "--prompt", "To be", "--seed", seed, "--max_new_tokens", "60")
        captured = capsys.readouterr()
        texts.append(captured.out)
        assert captured.err == ""
    assert texts[0].startswith("To be")
    assert len(texts[0]) == len("To be") + 60 + len("\n")  # far beyond the context of 16
    assert texts[0] == texts[1] != texts[2]


def test_text_is_streamed(checkpoint, capsys, monkeypatch):
    printed = []
    step = LanguageModel.stream

    def recorded(self, *args, **kwargs):
        for pieces in step(self, *args, **kwargs):
            printed.append(capsys.readouterr().out)
            yield pieces

    monkeypatch.setattr(LanguageModel, "stream", recorded)
    run(checkpoint, "--prompt", "To be", "--max_new_tokens", "5")
    assert printed[0] == "To be"
    assert [len(piece) for piece in printed[1:]] == [1] * 4


def test_options_are_passed_to_sampling(checkpoint, monkeypatch):
    received = {}

    def stream(self, prompts, **options):
        received.update(options)
        yield from ()

    monkeypatch.setattr(LanguageModel, "stream", stream)
    expected = {"temperature": 0.7, "top_k": 3, "top_p": 0.9, "repetition_penalty": 1.2}
    expected |= {"min_p": 0.1, "seed": 4, "stop": "be", "max_new_tokens": 7}
    options = [x for k, v in expected.items() for x in (f"--{k}", str(v))]
    run(checkpoint, "--prompt", "To", *options, "--logit_bias", "3=1.5", "--logit_bias", "5=-2")
    assert received == expected | {"logit_bias": {3: 1.5, 5: -2.0}}


def test_prompts_file_is_continued_and_saved(checkpoint, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("To be\n\nthe question\n", encoding="utf-8")
    run(
        *(checkpoint, "--prompts_file", str(tmp_path / "prompts.txt"), "--seed", "0"),
        *("--max_new_tokens", "20", "--output", str(tmp_path / "answers.txt")),
    )
    out = capsys.readouterr().out
    saved = (tmp_path / "answers.txt").read_text(encoding="utf-8")
    assert "--- 1 of 2 ---\nTo be" in out
    assert "--- 2 of 2 ---\nthe question" in out
    assert saved.startswith("To be")
    assert "\nthe question" in saved


def test_greedy_does_not_depend_on_the_seed(checkpoint, capsys):
    texts = set()
    for seed in "12":
        run(checkpoint, "--prompt", "To", "--greedy", "--seed", seed, "--max_new_tokens", "20")
        texts.add(capsys.readouterr().out)
    assert len(texts) == 1


def test_draft_checkpoint_does_not_change_greedy_text(checkpoint, capsys):
    options = ("--prompt", "To", "--greedy", "--max_new_tokens", "30")
    run(checkpoint, *options)
    expected = capsys.readouterr().out
    run(checkpoint, *options, "--draft_checkpoint", str(checkpoint))
    assert capsys.readouterr().out == expected


def test_one_beam_gives_the_greedy_text(checkpoint, capsys):
    run(checkpoint, "--prompt", "To", "--greedy", "--max_new_tokens", "8")
    expected = capsys.readouterr().out
    run(checkpoint, "--prompt", "To", "--beam_size", "1", "--max_new_tokens", "8")
    assert capsys.readouterr().out == expected


def test_answer_matches_the_regular_expression(checkpoint, capsys):
    pytest.importorskip("llguidance")
    run(checkpoint, "--prompt", "To", "--regex", "( be){2}", "--max_new_tokens", "20")
    assert capsys.readouterr().out == "To be be\n"


def test_quantized_model_generates(checkpoint, capsys):
    options = ("--prompt", "To", "--greedy", "--max_new_tokens", "5")
    run(checkpoint, *options, "--quantize", "int8")
    assert re.fullmatch(r"To.{5}\n", capsys.readouterr().out, re.DOTALL)


def test_empty_prompt_starts_from_the_bos_token(tmp_path, capsys):
    model = language_model(tokenizer="gpt2-like")
    run(save(model, tmp_path / "best.ckpt"), "--prompt", "", "--greedy", "--max_new_tokens", "8")
    assert capsys.readouterr().out == model.generate("<|endoftext|>", 8, top_k=1) + "\n"


def test_special_token_in_a_prompt_is_one_token():
    tokenizer = json.loads(byte_pairs().to_str())
    tokenizer["model"]["vocab"]["<s>"] = len(tokenizer["model"]["vocab"])
    net = Bigram(len(tokenizer["model"]["vocab"]))
    model = LanguageModel(net, tokenizer=json.dumps(tokenizer))
    assert model.encode("<s>To")[0] == tokenizer["model"]["vocab"]["<s>"]


def test_byte_order_mark_is_not_part_of_the_prompt(checkpoint, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("To be", encoding="utf-8-sig")
    run(checkpoint, "--prompts_file", str(tmp_path / "prompts.txt"), "--max_new_tokens", "1")
    assert "---\nTo be" in capsys.readouterr().out


def test_prompt_longer_than_context_is_truncated_with_a_warning(checkpoint, capsys):
    prompt = "that is the question. " * 4
    run(checkpoint, "--prompt", prompt, "--max_new_tokens", "10")
    captured = capsys.readouterr()
    assert captured.out.startswith(prompt)
    assert len(captured.out) == len(prompt) + 11
    assert captured.err.count("\n") == 1
    assert "88 tokens, but the context of the network is 16" in captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "To Ω\x07"], r"not in the vocabulary: '\\x07' \(U\+0007\), 'Ω' \(U\+03A9\)"),
        (["--prompt", "To \udcff"], "not valid UTF-8"),
        (["--prompt", "To", "--temperature", "0"], "use --greedy"),
        (["--prompt", "To", "--temperature", "nan"], "temperature must be above 0"),
        (["--prompt", "To", "--top_k", "0"], "top_k must be at least 1"),
        (["--prompt", "To", "--top_p", "1.5"], "top_p must be in"),
        (["--prompt", "To", "--min_p", "-0.1"], "min_p must be in"),
        (["--prompt", "To", "--logit_bias", "99=1"], r"the vocabulary has \d+ tokens, got 99"),
        (["--prompt", "To", "--repetition_penalty", "-1"], "repetition_penalty must be above 0"),
        (["--prompt", "To", "--max_new_tokens", "0"], "max_new_tokens must be at least 1"),
        (["--prompt", "To", "--seed", "-1"], "seed must be in"),
        (["--prompt", "To", "--stop", ""], "--stop is empty"),
        (["--prompt", "To", "--device", "abacus"], "--device abacus is not available"),
        (
            ["--prompt", "To", "--output", "no/such/folder/x.txt"],
            "the folder no/such/folder does not",
        ),
        (["--prompt", "To", "--output", "."], "--output: . is a folder"),
        (["--prompts_file", "nowhere.txt"], "cannot read nowhere.txt"),
        (
            ["--prompt", "To", "--device", "meta", "--quantize", "int4"],
            "--quantize int4 is not available on meta: use --device cpu",
        ),
    ],
)
def test_invalid_option_is_a_user_error(checkpoint, capsys, options, message):
    error = user_error(capsys, generate.main, "--checkpoint", checkpoint, *options)
    assert re.search(message, error), error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not a JSON schema: expected an object"),
        ('{"type": "nothing"}', "is not valid"),
    ],
)
def test_invalid_schema_is_a_user_error(checkpoint, tmp_path, capsys, content, message):
    pytest.importorskip("llguidance")
    (tmp_path / "schema.json").write_text(content)
    options = ("--checkpoint", checkpoint, "--prompt", "To", "--json_schema")
    error = user_error(capsys, generate.main, *options, tmp_path / "schema.json")
    assert message in error
    assert "schema.json" in error
    error = user_error(capsys, generate.main, *options, tmp_path / "missing.json")
    assert "missing.json" in error


def test_invalid_prompts_file_is_a_user_error(checkpoint, tmp_path, capsys):
    path = tmp_path / "prompts.txt"
    for content, message in ((b"\n\n", "contains no prompt"), (b"\xe9t\xe9", "UTF-8")):
        path.write_bytes(content)
        error = user_error(
            capsys, generate.main, "--checkpoint", checkpoint, "--prompts_file", path
        )
        assert message in error


def test_logit_bias_without_a_number_is_an_error(checkpoint, capsys):
    with pytest.raises(SystemExit) as exit:
        run(checkpoint, "--prompt", "To", "--logit_bias", "to=5")
    assert exit.value.code == 2
    assert "expected TOKEN=BIAS, such as 198=-100, got to=5" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--temp", "1"], ["--color", "red"]])
def test_unknown_and_abbreviated_options_are_errors(checkpoint, capsys, option):
    with pytest.raises(SystemExit) as exit:
        run(checkpoint, "--prompt", "To", *option)
    assert exit.value.code == 2
    assert f"unrecognized arguments: {option[0]}" in capsys.readouterr().err


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("touched-by-a-pickle"),))


def wrong_checkpoints(folder: Path) -> dict[Path, str]:
    files = {name: folder / name for name in ("text", "evil", "dict", "classifier", "strange")}
    files["text"].write_text("no checkpoint")
    files["evil"].write_bytes(pickle.dumps(Evil()))
    torch.save({"weights": torch.zeros(1)}, files["dict"])
    save(Classifier(CNN(num_classes=10)), files["classifier"])
    save(language_model(), files["strange"])
    content = torch.load(files["strange"], weights_only=True)
    content["hyper_parameters"]["_instantiator"] = "os.system"
    torch.save(content, files["strange"])
    (folder / "empty").mkdir()
    return {
        folder / "missing": "there is no checkpoint",
        files["text"]: "is not a checkpoint",
        files["evil"]: "would execute code",
        files["dict"]: "no state_dict",
        files["classifier"]: "holds the task modules.classifier.Classifier",
        files["strange"]: "os.system",
        folder / "empty": "it has no config.json",
    }


def test_other_files_are_user_errors(tmp_path, capsys):
    for path, message in wrong_checkpoints(tmp_path).items():
        error = user_error(capsys, generate.main, "--checkpoint", path, "--prompt", "To")
        assert message in error
    assert not Path("touched-by-a-pickle").exists()


# Hugging Face folders as input


def reference_folder(folder: Path, **config) -> ReferenceGPT2:
    torch.manual_seed(0)
    tokenizer = gpt2_like()
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "n_positions": 16, "n_layer": 2}
    sizes |= {"n_head": 2, "n_embd": 16, "bos_token_id": 0, "eos_token_id": 0}
    reference = ReferenceGPT2(GPT2Config(**sizes | config)).eval()
    reference.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return reference


def test_greedy_text_equals_transformers(tmp_path, capsys):
    reference = reference_folder(tmp_path)
    run(tmp_path, "--prompt", "To be", "--top_k", "1", "--max_new_tokens", "8")
    output = capsys.readouterr().out  # transformers' generate may print messages of DeepSpeed
    tokens = gpt2_like().encode("To be").ids
    after = reference.generate(
        torch.tensor([tokens]), do_sample=False, max_new_tokens=8, eos_token_id=-1, pad_token_id=0
    )
    expected = gpt2_like().decode(after[0].tolist(), skip_special_tokens=False)
    assert output == expected + "\n"


def test_offloaded_weights_give_the_same_text(tmp_path, checkpoint, capsys):
    reference_folder(tmp_path / "model")
    options = ("--prompt", "To be", "--greedy", "--max_new_tokens", "8")
    texts = []
    for more in ((), ("--offload",)):
        run(tmp_path / "model", *options, *more)
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    for source, more, message in (
        (checkpoint, (), "is a checkpoint, whose weights cannot be offloaded"),
        (tmp_path / "model", ("--quantize", "int8"), "--offload reads float32 weights"),
    ):
        arguments = ("--checkpoint", source, *options, "--offload", *more)
        assert message in user_error(capsys, generate.main, *arguments)


def test_vocab_json_and_merges_are_read(tmp_path):
    reference_folder(tmp_path)
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(merges))
    opened = open_language_model(tmp_path)
    assert opened.encode(TEXT) == gpt2_like().encode(TEXT).ids
    assert opened.decode(opened.encode(TEXT)) == TEXT
    assert opened.encode("a<|endoftext|>")[-1] == gpt2_like().token_to_id("<|endoftext|>")


def test_unsupported_folders_are_user_errors(tmp_path, capsys):
    reference_folder(tmp_path)
    for damage, message in (
        (lambda: (tmp_path / "tokenizer.json").write_text("{}"), "cannot read the tokenizer"),
        (lambda: (tmp_path / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda: (tmp_path / "model.safetensors").write_bytes(b"x" * 20), "header"),
        (lambda: (tmp_path / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda: (tmp_path / "config.json").write_text("{"), "config.json"),
    ):
        damage()
        error = user_error(capsys, generate.main, "--checkpoint", tmp_path, "--prompt", "To")
        assert message in error
