"""The commands generate.py and export.py, in this very process, and folders of Hugging Face."""

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
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, GPT2Config
from transformers import GPT2LMHeadModel as TheirGPT2

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
    made = TOKENIZERS[tokenizer]()
    if net is GPT:
        sizes = {"context": 16, "num_layers": 2, "num_heads": 2, "dim": 16} | sizes
    built = net(made.get_vocab_size(), **sizes)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return LanguageModel(built, tokenizer=made.to_str())


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


def refused(capsys, command, *options) -> str:
    """What is said on stderr: one sentence, exit code 2, nothing on stdout."""
    with pytest.raises(SystemExit) as exit:
        command([str(option) for option in options])
    said = capsys.readouterr()
    assert exit.value.code == 2
    assert said.out == ""
    assert "Traceback" not in said.err
    *before, told = said.err.strip().split("\n")
    assert all("%|" in line for line in before), before  # bars of transformers, which made a folder
    return told


# generate.py


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("32-true", torch.float32), ("bf16-true", torch.bfloat16), ("16-true", torch.float16)],
)
def test_the_weights_may_have_16_bits(checkpoint, capsys, monkeypatch, precision, dtype):
    seen = set()
    forward = GPT.forward

    def watched(self, *inputs):
        seen.update(parameter.dtype for parameter in self.parameters())
        return forward(self, *inputs)

    monkeypatch.setattr(GPT, "forward", watched)
    options = ("--prompt", "To be", "--seed", "1", "--max_new_tokens", "60")
    run(checkpoint, *options, "--precision", precision)
    assert seen == {dtype}
    assert len(capsys.readouterr().out) == len("To be") + 60 + len("\n")


def test_a_prompt_is_continued_and_the_seed_repeats_it(checkpoint, capsys):
    texts = []
    for seed in ("1", "1", "2"):
        run(checkpoint, "--prompt", "To be", "--seed", seed, "--max_new_tokens", "60")
        said = capsys.readouterr()
        texts.append(said.out)
        assert said.err == ""
    assert texts[0].startswith("To be")
    assert len(texts[0]) == len("To be") + 60 + len("\n")  # far beyond the context of 16
    assert texts[0] == texts[1] != texts[2]


def test_the_text_is_shown_while_it_is_drawn(checkpoint, capsys, monkeypatch):
    shown = []
    step = LanguageModel.stream

    def watched(self, *args, **kwargs):
        for pieces in step(self, *args, **kwargs):
            shown.append(capsys.readouterr().out)
            yield pieces

    monkeypatch.setattr(LanguageModel, "stream", watched)
    run(checkpoint, "--prompt", "To be", "--max_new_tokens", "5")
    assert shown[0] == "To be"
    assert [len(piece) for piece in shown[1:]] == [1] * 4


def test_every_option_reaches_the_sampling(checkpoint, monkeypatch):
    got = {}

    def stream(self, prompts, **options):
        got.update(options)
        yield from ()

    monkeypatch.setattr(LanguageModel, "stream", stream)
    wanted = {"temperature": 0.7, "top_k": 3, "top_p": 0.9, "repetition_penalty": 1.2}
    wanted |= {"seed": 4, "stop": "be", "max_new_tokens": 7}
    run(checkpoint, "--prompt", "To", *(x for k, v in wanted.items() for x in (f"--{k}", str(v))))
    assert got == wanted


def test_prompts_of_a_file_are_all_answered_and_saved(checkpoint, tmp_path, capsys):
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


def test_a_prompt_longer_than_the_context_works_and_says_so(checkpoint, capsys):
    prompt = "that is the question. " * 4
    run(checkpoint, "--prompt", prompt, "--max_new_tokens", "10")
    said = capsys.readouterr()
    assert said.out.startswith(prompt)
    assert len(said.out) == len(prompt) + 11
    assert said.err.count("\n") == 1
    assert "88 tokens and the net sees 16" in said.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "To Ω\x07"], r"never seen: '\\x07' \(U\+0007\), 'Ω' \(U\+03A9\)"),
        (["--prompt", "To \udcff"], "not in UTF-8"),
        (["--prompt", "To", "--temperature", "0"], "temperature must be above 0"),
        (["--prompt", "To", "--temperature", "nan"], "temperature must be above 0"),
        (["--prompt", "To", "--top_k", "0"], "top_k must be at least 1"),
        (["--prompt", "To", "--top_p", "1.5"], "top_p must be in"),
        (["--prompt", "To", "--repetition_penalty", "-1"], "repetition_penalty must be above 0"),
        (["--prompt", "To", "--max_new_tokens", "0"], "max_new_tokens must be at least 1"),
        (["--prompt", "To", "--seed", "-1"], "seed must be in"),
        (["--prompt", "To", "--stop", ""], "--stop is empty"),
        (["--prompt", "To", "--device", "abacus"], "--device abacus can't be used"),
        (["--prompt", "To", "--output", "no/such/folder/x.txt"], "there is no folder no/such"),
        (["--prompts_file", "nowhere.txt"], "nowhere.txt can't be read"),
    ],
)
def test_a_wrong_option_is_one_sentence(checkpoint, capsys, options, message):
    said = refused(capsys, generate.main, "--checkpoint", checkpoint, *options)
    assert re.search(message, said), said


def test_prompts_files_without_a_prompt_or_in_latin_1_are_refused(checkpoint, tmp_path, capsys):
    path = tmp_path / "prompts.txt"
    for content, message in ((b"\n\n", "holds no prompt"), (b"\xe9t\xe9", "UTF-8")):
        path.write_bytes(content)
        said = refused(capsys, generate.main, "--checkpoint", checkpoint, "--prompts_file", path)
        assert message in said


@pytest.mark.parametrize("option", [["--temp", "1"], ["--colour", "red"]])
def test_unknown_and_shortened_options_are_refused(checkpoint, capsys, option):
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
        files["text"]: "no checkpoint",
        files["evil"]: "would run code",
        files["dict"]: "no state_dict",
        files["classifier"]: "holds the task modules.classifier.Classifier",
        files["strange"]: "built by os.system",
        folder / "empty": "it has no config.json",
    }


def test_what_is_no_language_model_is_named(tmp_path, capsys):
    for path, message in wrong_checkpoints(tmp_path).items():
        said = refused(capsys, generate.main, "--checkpoint", path, "--prompt", "To")
        assert message in said
    assert not Path("touched-by-a-pickle").exists()


# Hugging Face folders, read


def their_folder(folder: Path, **config) -> TheirGPT2:
    torch.manual_seed(0)
    tokenizer = gpt2_like()
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "n_positions": 16, "n_layer": 2}
    sizes |= {"n_head": 2, "n_embd": 16, "bos_token_id": 0, "eos_token_id": 0}
    theirs = TheirGPT2(GPT2Config(**sizes | config)).eval()
    theirs.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return theirs


def test_a_hugging_face_folder_is_continued_as_transformers_does(tmp_path, capsys):
    theirs = their_folder(tmp_path)
    run(tmp_path, "--prompt", "To be", "--top_k", "1", "--max_new_tokens", "8")
    tokens = gpt2_like().encode("To be").ids
    after = theirs.generate(
        torch.tensor([tokens]), do_sample=False, max_new_tokens=8, eos_token_id=-1, pad_token_id=0
    )
    expected = gpt2_like().decode(after[0].tolist(), skip_special_tokens=False)
    assert capsys.readouterr().out == expected + "\n"


def test_the_old_form_of_gpt2s_tokenizer_is_read_too(tmp_path):
    their_folder(tmp_path)
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(merges))
    opened = open_language_model(tmp_path)
    assert opened.encode(TEXT) == gpt2_like().encode(TEXT).ids
    assert opened.decode(opened.encode(TEXT)) == TEXT
    assert opened.encode("a<|endoftext|>")[-1] == gpt2_like().token_to_id("<|endoftext|>")


def test_folders_of_other_nets_or_without_a_tokenizer_are_refused(tmp_path, capsys):
    their_folder(tmp_path)
    for damage, message in (
        (lambda: (tmp_path / "tokenizer.json").write_text("{}"), "unreadable tokenizer"),
        (lambda: (tmp_path / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda: (tmp_path / "model.safetensors").write_bytes(b"x" * 20), "header"),
        (lambda: (tmp_path / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda: (tmp_path / "config.json").write_text(BertConfig().to_json_string()), "a 'bert'"),
        (lambda: (tmp_path / "config.json").write_text("{"), "config.json"),
    ):
        damage()
        said = refused(capsys, generate.main, "--checkpoint", tmp_path, "--prompt", "To")
        assert message in said


# export.py


def export_to(folder: Path, form: str, checkpoint: Path) -> Path:
    options = ["--checkpoint", checkpoint, "--format", form, "--output", folder]
    return export.main([str(option) for option in options])


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_transformers_opens_the_folder_with_the_same_logits_and_text(tmp_path, tokenizer):
    ours = language_model(tokenizer=tokenizer).eval()
    folder = export_to(tmp_path / "hf", "huggingface", save(ours, tmp_path / "best.ckpt"))
    net = AutoModelForCausalLM.from_pretrained(folder).eval()
    words = AutoTokenizer.from_pretrained(folder)
    tokens = words(TEXT)["input_ids"]
    assert tokens == ours.encode(TEXT)
    assert words.decode(tokens) == TEXT
    assert len(words) == ours.net.vocab_size
    batch = torch.tensor([tokens[:16]])
    with torch.inference_mode():
        torch.testing.assert_close(net(batch).logits, ours.net(batch)[0], atol=1e-4, rtol=1e-4)
    end = ours.tokenizer.token_to_id("<|endoftext|>")
    assert words.eos_token_id == net.config.eos_token_id == end
    if end is not None:
        assert words("To<|endoftext|>")["input_ids"][-1] == end


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_there_and_back_is_the_same_model(tmp_path, tokenizer):
    ours = language_model(tokenizer=tokenizer)
    folder = export_to(tmp_path / "hf", "huggingface", save(ours, tmp_path / "best.ckpt"))
    again = open_language_model(folder)
    assert again.generate("To be", 30, seed=1) == ours.generate("To be", 30, seed=1)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("net", [GPT, RNNLM])
def test_safetensors_hold_each_weight_once_and_the_hyper_parameters(tmp_path, net, tied):
    ours = language_model(net, tie_embeddings=tied)
    folder = export_to(tmp_path / "st", "safetensors", save(ours, tmp_path / "best.ckpt"))
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        hyper_parameters = json.loads(file.metadata()["hyper_parameters"])
    assert hyper_parameters["tokenizer"] == ours.tokenizer.to_str()
    again = net(**hyper_parameters["net"]["init_args"])
    again.load_state_dict(load_file(path))
    for name, tensor in ours.net.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    size = sum(4 * parameter.numel() for parameter in ours.net.parameters())
    assert path.stat().st_size < size + 20_000


def test_weights_that_share_their_memory_are_stored_once(tmp_path):
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
def test_the_gpt_of_each_config_opens_in_transformers(tmp_path, config):
    described = yaml.safe_load((ROOT / f"configs/{config}.yaml").read_text())["model"]["init_args"]
    sizes = {"num_layers": 2, "num_heads": 2, "dim": 16, "context": 16}
    task = language_model(**described["net"]["init_args"] | sizes)
    folder = export_to(tmp_path / "hf", "huggingface", save(task, tmp_path / "task"))
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    tokens = torch.tensor([task.encode("to be")])
    with torch.inference_mode():
        torch.testing.assert_close(theirs(tokens).logits, task.eval()(tokens)[0], atol=1e-4, rtol=0)


def test_what_can_not_be_exported_is_one_sentence_and_writes_nothing(tmp_path, capsys):
    good = save(language_model(), tmp_path / "good")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    for form, checkpoint, folder, message in (
        ("huggingface", save(language_model(Bigram), tmp_path / "b"), "new", "the net Bigram"),
        (
            "huggingface",
            save(language_model(positions="rotary", norm="rms"), tmp_path / "r"),
            "new",
            "this net has rotary positions and norm='rms'",
        ),
        ("huggingface", save(Classifier(CNN(num_classes=10)), tmp_path / "c"), "new", "Classifier"),
        ("safetensors", tmp_path / "missing", "new", "there is no checkpoint"),
        ("safetensors", tmp_path / "full", "new", "there is no checkpoint"),
        ("safetensors", good, "full", "is no empty folder"),
        ("huggingface", good, "good", "is no empty folder"),
        ("safetensors", good, "good/below", "can't be written"),
    ):
        options = ["--checkpoint", checkpoint, "--format", form, "--output", tmp_path / folder]
        said = refused(capsys, export.main, *options)
        assert message in said
        assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
