"""generate.py and export.py, called in this process, and Hugging Face folders."""

import json
import pickle
import re
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config
from transformers import GPT2LMHeadModel as ReferenceGPT2

import export
import generate
from datamodules.text.tokenizers import character_tokenizer, train_bpe
from modules import Classifier, LanguageModel
from modules.inference.pretrained import open_language_model
from modules.nets import CNN, GPT, RNNLM, Bigram
from tests.support import ROOT

TEXT = "To be, or not to be: that is the question. don't .  two\n\tblanks é 漢字 😀 end ."


def byte_pairs() -> Tokenizer:
    return train_bpe([TEXT * 5], 300)


def gpt2_like() -> Tokenizer:
    """Byte pairs with GPT-2's end of text as the last of the vocabulary."""
    content = json.loads(byte_pairs().to_str())
    content["model"]["vocab"]["<|endoftext|>"] = len(content["model"]["vocab"])
    return Tokenizer.from_str(json.dumps(content))


TOKENIZERS = {
    "characters": lambda: character_tokenizer(TEXT),
    "bpe": byte_pairs,
    "gpt2-like": gpt2_like,
}


def language_model(net=GPT, tokenizer="characters", **sizes) -> LanguageModel:
    torch.manual_seed(0)
    trained_tokenizer = TOKENIZERS[tokenizer]()
    if net is GPT:
        sizes = {"context": 16, "num_layers": 2, "num_heads": 2, "dim": 16} | sizes
    network = net(trained_tokenizer.get_vocab_size(), **sizes)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return LanguageModel(network, tokenizer=trained_tokenizer.to_str())


def save(task: L.LightningModule, path: Path) -> Path:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path)
    return path


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return save(language_model(), tmp_path / "best.ckpt")


def run(checkpoint, *options) -> None:
    generate.main(["--checkpoint", str(checkpoint), *options])


def user_error(capsys, command, *options) -> str:
    """Return the error message; check exit code 2 and an empty stdout."""
    with pytest.raises(SystemExit) as exit:
        command([str(option) for option in options])
    captured = capsys.readouterr()
    assert exit.value.code == 2
    assert captured.out == ""
    assert "Traceback" not in captured.err
    *before, message = captured.err.strip().split("\n")
    assert all("%|" in line for line in before), before  # progress bars of transformers
    return message


# generate.py


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
    ],
)
def test_invalid_option_is_a_user_error(checkpoint, capsys, options, message):
    error = user_error(capsys, generate.main, "--checkpoint", checkpoint, *options)
    assert re.search(message, error), error


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


# export.py


def export_to(folder: Path, format: str, checkpoint: Path) -> Path:
    options = ["--checkpoint", checkpoint, "--format", format, "--output", folder]
    return export.main([str(option) for option in options])


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_exported_folder_gives_equal_logits_in_transformers(tmp_path, tokenizer):
    model = language_model(tokenizer=tokenizer).eval()
    folder = export_to(tmp_path / "hf", "huggingface", save(model, tmp_path / "best.ckpt"))
    net = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(TEXT)["input_ids"]
    assert tokens == model.encode(TEXT)
    assert tokenizer.decode(tokens) == TEXT
    assert len(tokenizer) == model.net.vocab_size
    batch = torch.tensor([tokens[:16]])
    with torch.inference_mode():
        torch.testing.assert_close(net(batch).logits, model.net(batch)[0], atol=1e-4, rtol=1e-4)
    end = model.tokenizer.token_to_id("<|endoftext|>")
    assert tokenizer.eos_token_id == net.config.eos_token_id == end
    if end is not None:
        assert tokenizer("To<|endoftext|>")["input_ids"][-1] == end


@pytest.mark.parametrize(
    ("tokenizer", "sizes"),
    [
        ("characters", {}),
        ("bpe", {"positions": "rotary"}),  # GPT-NeoX
        (
            "gpt2-like",
            {"positions": "rotary", "norm": "rms", "activation": "swiglu", "bias": False},
        ),
    ],
)
def test_exported_folder_generates_the_same_text(tmp_path, capsys, tokenizer, sizes):
    model = language_model(tokenizer=tokenizer, **sizes)
    folder = export_to(tmp_path / "hf", "huggingface", save(model, tmp_path / "best.ckpt"))
    capsys.readouterr()
    run(folder, "--prompt", "To be", "--seed", "1", "--max_new_tokens", "30")
    assert capsys.readouterr().out == f"To be{model.generate('To be', 30, seed=1)}\n"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("net", [GPT, RNNLM])
def test_safetensors_contain_each_weight_once_and_hyper_parameters(tmp_path, net, tied):
    model = language_model(net, tie_embeddings=tied)
    folder = export_to(tmp_path / "st", "safetensors", save(model, tmp_path / "best.ckpt"))
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        hyper_parameters = json.loads(file.metadata()["hyper_parameters"])
    assert hyper_parameters["tokenizer"] == model.tokenizer.to_str()
    loaded = net(**hyper_parameters["net"]["init_args"])
    loaded.load_state_dict(load_file(path))
    for name, tensor in model.net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    size = sum(4 * parameter.numel() for parameter in model.net.parameters())
    assert path.stat().st_size < size + 20_000


def test_shared_weights_are_stored_once(tmp_path):
    task = Classifier(CNN(num_classes=10))
    path = save(task, tmp_path / "best.ckpt")
    content = torch.load(path, weights_only=True)
    name = next(name for name in content["state_dict"] if name.startswith("net."))
    content["state_dict"]["net.twin"] = content["state_dict"][name]
    torch.save(content, path)
    folder = export_to(tmp_path / "st", "safetensors", path)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(task.net.state_dict())
        assert file.metadata()["twin"] == name.removeprefix("net.")


@pytest.mark.parametrize("config", ["shakespeare/gpt_small_cpu", "shakespeare/gpt", "source/gpt"])
def test_gpt_of_each_config_loads_in_transformers(tmp_path, config):
    config_values = yaml.safe_load((ROOT / f"configs/{config}.yaml").read_text())["model"][
        "init_args"
    ]
    sizes = {"num_layers": 2, "num_heads": 2, "dim": 16, "context": 16}
    task = language_model(**config_values["net"]["init_args"] | sizes)
    folder = export_to(tmp_path / "hf", "huggingface", save(task, tmp_path / "task"))
    reference = AutoModelForCausalLM.from_pretrained(folder)
    tokens = torch.tensor([task.encode("to be")])
    with torch.inference_mode():
        torch.testing.assert_close(
            reference(tokens).logits, task.eval()(tokens)[0], atol=1e-4, rtol=0
        )


def test_failed_export_is_a_user_error_and_writes_nothing(tmp_path, capsys):
    good = save(language_model(), tmp_path / "good")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    for format, checkpoint, folder, message in (
        ("huggingface", save(language_model(Bigram), tmp_path / "b"), "new", "the network Bigram"),
        (
            "huggingface",
            save(language_model(positions="rotary", norm="rms"), tmp_path / "r"),
            "new",
            "cannot export a GPT with rotary positions",
        ),
        ("huggingface", save(Classifier(CNN(num_classes=10)), tmp_path / "c"), "new", "Classifier"),
        ("safetensors", tmp_path / "missing", "new", "there is no checkpoint"),
        ("safetensors", tmp_path / "full", "new", "there is no checkpoint"),
        ("safetensors", good, "full", "is not an empty folder"),
        ("huggingface", good, "good", "is not an empty folder"),
        ("safetensors", good, "good/below", "cannot write to"),
    ):
        options = ["--checkpoint", checkpoint, "--format", format, "--output", tmp_path / folder]
        error = user_error(capsys, export.main, *options)
        assert message in error
        assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
