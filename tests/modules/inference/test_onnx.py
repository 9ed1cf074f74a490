"""export.py --format onnx and torch_export, and tasks that run by onnxruntime."""

import builtins
import io
import json
import os
import re
import shutil
import subprocess
import sys

import httpx
import pytest
import torch
from PIL import Image

import export
from datamodules.text.tokenizers import train_bpe
from modules import Classifier, LanguageModel, SentenceEncoder
from modules.inference.onnx import load_onnx
from modules.inference.onnx_runtime import open_onnx
from modules.nets import (
    CNN,
    GPT,
    MLP,
    BagOfWords,
    PretrainedClassifier,
    PretrainedEncoder,
    TextRNN,
    TransformerClassifier,
)
from preprocessing.texts import with_truncation_and_padding
from tests.support import ROOT
from tests.support.huggingface import CONFIGS, make_tokenizer
from tests.support.language_models import save, user_error
from tests.support.requests import encoded, pairs, png
from tests.support.system import START_SECONDS

pytest.importorskip("onnxruntime", reason="needs the extra onnx")
TEXTS = ["good film", "the film was very bad is a a the", "a"]
TOKENIZER = with_truncation_and_padding(make_tokenizer(), 16)
PREPROCESSING = {"in_channels": 1, "image_size": 8, "mean": [0.3], "std": [0.4]}
WORDS = {"num_classes": 3, "vocab_size": 64}
TINY = {"context": 16, "dim": 16, "num_heads": 2, "num_layers": 1}


def export_to(folder, checkpoint, format="onnx", *options):
    arguments = ["--checkpoint", checkpoint, "--format", format, "--output", folder, *options]
    return export.main([*map(str, arguments)])


def image_task(net=None, **arguments) -> Classifier:
    torch.manual_seed(0)
    net = net or MLP(3, 1, 8, hidden_sizes=[6])
    return Classifier(net, 3, preprocessing=PREPROCESSING, class_names=["a", "b", "c"], **arguments)


def text_task(net) -> Classifier:
    return Classifier(net, 3, tokenizer=TOKENIZER, class_names=["a", "b", "c"])


def images() -> list[Image.Image]:
    draw = torch.Generator().manual_seed(1)
    rows = torch.randint(256, (3, 10, 10), generator=draw, dtype=torch.uint8)
    return [Image.fromarray(row.numpy()) for row in rows]


def assert_same_probabilities(task, folder, samples) -> None:
    expected = task.eval().probabilities(samples)
    assert expected.std() > 1e-3
    best = [name for name, _ in task.classify(samples)]
    resized = isinstance(samples[0], Image.Image)  # by Pillow where torch is not used
    for exported, atol in (
        (load_onnx(folder), 1e-4),
        (open_onnx(folder), 1e-3 if resized else 1e-4),
    ):
        found = torch.as_tensor(exported.probabilities(samples))
        torch.testing.assert_close(found, expected, atol=atol, rtol=0)
        assert [name for name, _ in exported.classify(samples)] == best


@pytest.fixture(scope="module")
def image_export(tmp_path_factory):
    """Return an image classifier, its checkpoint and its ONNX folder."""
    folder, task = tmp_path_factory.mktemp("onnx"), image_task()
    checkpoint = save(task, folder / "model.ckpt")
    return task, checkpoint, export_to(folder / "exported", checkpoint)


def test_exported_folder_alone_classifies_images(image_export, tmp_path):
    task, _, folder = image_export
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert sorted(path.name for path in copy.iterdir()) == ["model.json", "model.onnx"]
    assert_same_probabilities(task, copy, images())
    described = json.loads((copy / "model.json").read_text())
    assert described["opset"] == 18
    assert described["largest_difference"] < 1e-4
    assert described["arguments"]["class_names"] == ["a", "b", "c"]


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "lightning", "torchvision", "transformers", "jsonargparse"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def test_exported_folder_is_served_without_torch(image_export, tmp_path):
    _, checkpoint, folder = image_export
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    command = [sys.executable, str(ROOT / "serve.py"), "--port", "0", "--name", "digits"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    options = {"stdout": subprocess.PIPE, "text": True, "env": environment, "cwd": tmp_path}
    with subprocess.Popen([*command, "--checkpoint", str(folder)], **options) as process:
        try:
            url = re.search(r"http://\S+", process.stdout.readline())[0]
            body = {"inputs": [encoded(png())]}
            answer = httpx.post(f"{url}/v1/models/digits/classify", json=body).json()
            model = httpx.get(f"{url}/v1/models/digits").json()
        finally:
            process.terminate()
        assert process.wait(START_SECONDS) == 0
    image = Image.open(io.BytesIO(png()))
    assert pairs(answer["predictions"]) == [open_onnx(folder).classify([image], top_k=1)[0]]
    assert (model["task"], model["runtime"]) == ("Classifier", "onnxruntime")
    command += ["--checkpoint", str(checkpoint)]
    refused = subprocess.run(command, **options | {"stderr": subprocess.PIPE, "stdout": None})
    assert refused.returncode == 2
    assert "model.ckpt requires torch, which is not installed" in refused.stderr


def test_torch_export_has_the_outputs_of_the_checkpoint(image_export, tmp_path):
    task, checkpoint, _ = image_export
    folder = export_to(tmp_path / "exported", checkpoint, "torch_export")
    program = torch.export.load(folder / "model.pt2")
    inputs = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(program.module()(pixel_values=inputs), task.eval()(inputs))


def test_differing_outputs_are_an_error_that_leaves_no_files(
    image_export, tmp_path, monkeypatch, capsys
):
    _, checkpoint, _ = image_export
    monkeypatch.setattr("modules.inference.tracing.TOLERANCE", -1.0)
    arguments = ("--checkpoint", checkpoint, "--format", "torch_export", "--output", tmp_path / "o")
    message = user_error(capsys, export.main, *arguments)
    assert "the network MLP cannot be exported: its outputs differ by" in message
    assert not (tmp_path / "o").exists()


def test_networks_that_cannot_be_traced_are_one_message(tmp_path, capsys):
    checkpoint = save(text_task(TextRNN(**WORDS, dim=4, hidden_size=4)), tmp_path / "m.ckpt")
    arguments = ("--checkpoint", checkpoint, "--format", "onnx", "--output", tmp_path / "o")
    assert "TextRNN cannot be exported: recurrent layers" in user_error(
        capsys, export.main, *arguments
    )


def test_missing_packages_name_the_extra(image_export, tmp_path, monkeypatch, capsys):
    _, checkpoint, _ = image_export
    imported = builtins.__import__

    def without_onnx(name, *arguments, **options):
        if name.startswith("onnxruntime"):
            raise ImportError(f"No module named {name!r}", name=name)
        return imported(name, *arguments, **options)

    monkeypatch.setattr("importlib.import_module", without_onnx)
    arguments = ("--checkpoint", checkpoint, "--format", "onnx", "--output", tmp_path / "o")
    message = user_error(capsys, export.main, *arguments)
    assert "onnxruntime is missing: pip install 'stepladder[onnx]'" in message


@pytest.mark.parametrize(
    ("content", "part"), [({}, "task"), ({"task": "Path"}, "unknown task 'Path'"), (None, "model")]
)
def test_damaged_folders_are_user_errors(image_export, tmp_path, content, part):
    from engine.errors import UserError

    folder = shutil.copytree(image_export[2], tmp_path / "copy")
    if content is None:
        (folder / "model.onnx").write_bytes(b"no model")
    else:
        (folder / "model.json").write_text(json.dumps(content))
    for load in (load_onnx, open_onnx):
        with pytest.raises(UserError, match=part):
            load(folder)


NETS = {
    "CNN": lambda: CNN(3, 1, 8, channels=[4], hidden_size=8, padding=1, batch_norm=True),
    "BagOfWords": lambda: BagOfWords(**WORDS, dim=8, bigram_buckets=50),
    "Transformer": lambda: TransformerClassifier(**WORDS, **TINY),
    "bert": lambda: PretrainedClassifier(3, config={"model_type": "bert", **CONFIGS["bert"]}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_exported_classifier_has_the_probabilities_of_the_checkpoint(name, tmp_path):
    torch.manual_seed(0)
    net = NETS[name]()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    task = image_task(net) if name == "CNN" else text_task(net)
    folder = export_to(tmp_path / "exported", save(task, tmp_path / "m.ckpt"))
    samples = images() if name == "CNN" else TEXTS
    assert_same_probabilities(task, folder, samples)
    assert_same_probabilities(task, folder, samples[:1])


@pytest.mark.slow
def test_exported_language_model_generates_as_the_checkpoint(tmp_path):
    torch.manual_seed(0)
    tokenizer = train_bpe(["good film " * 9], 300)
    task = LanguageModel(GPT(300, 24, 1, 2, 16), tokenizer=tokenizer.to_str())
    for parameter in task.net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = export_to(tmp_path / "exported", save(task, tmp_path / "m.ckpt"))
    exported = open_onnx(folder)  # by torch
    tokens = torch.tensor([task.encode("good film good")])
    torch.testing.assert_close(exported(tokens)[0], task.eval()(tokens)[0], atol=1e-4, rtol=1e-4)
    for seed in (1, 2):
        text = task.generate("good", 40, seed=seed)  # beyond the context
        assert exported.generate("good", 40, seed=seed) == text


@pytest.mark.slow
def test_exported_encoder_has_the_embeddings_of_the_checkpoint(tmp_path):
    torch.manual_seed(0)
    net = PretrainedEncoder(config={"model_type": "bert", **CONFIGS["bert"]})
    encoder = SentenceEncoder(net, tokenizer=TOKENIZER)
    folder = export_to(tmp_path / "encoder", save(encoder, tmp_path / "e.ckpt"))
    expected = encoder.eval().embed(TEXTS)
    for exported in (load_onnx(folder), open_onnx(folder)):
        vectors = torch.as_tensor(exported.embed(TEXTS))
        torch.testing.assert_close(vectors, expected, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_int8_weights_are_smaller_and_their_accuracy_is_printed(run, tmp_path, capsys):
    config = ROOT / "configs/digits/mlp.yaml"
    folder = run("fit", "--config", config, "--trainer.max_epochs", "2", "--test_after_fit", "no")
    checkpoint = folder / "checkpoints" / "last.ckpt"
    weights = sum(4 * p.numel() for p in Classifier.load_from_checkpoint(checkpoint).parameters())
    capsys.readouterr()
    quantized = export_to(tmp_path / "int8", checkpoint, "onnx", "--quantize", "int8")
    assert (quantized / "model.onnx").stat().st_size < 0.5 * weights
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("val/accuracy: 0.")
    assert "in float32" in line
    assert "in int8" in line
