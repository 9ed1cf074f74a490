"""NumPy networks: gradients, equality with torch, use as torch modules."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets import CNN, MLP
from modules.scratch import gradcheck, train_numpy
from modules.scratch.layers import (
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    SoftmaxCrossEntropy,
    Tanh,
)
from modules.scratch.network import Network, mlp_layers
from modules.scratch.numpy_nets import NumpyCNN, NumpyMLP
from tests.support import REAL, REAL_DIR, ROOT

LAYERS: dict[str, Callable[[np.random.Generator], Layer]] = {
    "Flatten": lambda rng: Flatten(),
    "Linear": lambda rng: Linear(6, 4, rng),
    "ReLU": lambda rng: ReLU(),
    "Tanh": lambda rng: Tanh(),
    "BatchNorm": lambda rng: BatchNorm(6),
    "Dropout": lambda rng: Dropout(0.4, rng),
    "Conv2d": lambda rng: Conv2d(2, 3, 3, 1, rng),
    "MaxPool2d": lambda rng: MaxPool2d(2),
}
ON_IMAGES = ("Flatten", "Conv2d", "MaxPool2d")


def inputs_for(name: str, seed: int = 0) -> np.ndarray:
    shape = (3, 2, 6, 6) if name in ON_IMAGES else (5, 6)
    return np.random.default_rng(seed).standard_normal(shape)


def test_every_backward_pass_agrees_with_finite_differences(capsys) -> None:
    with pytest.raises(SystemExit) as exit:
        gradcheck.main()
    assert exit.value.code == 0
    output = capsys.readouterr().out
    assert "48 of 48 gradients: relative error below" in output
    for name in (*LAYERS, "SoftmaxCrossEntropy"):
        assert re.search(rf"^ {name}\b", output, re.MULTILINE), name


def gradient_names(name: str) -> list[str]:
    return ["inputs", *LAYERS[name](np.random.default_rng(0)).parameter_names]


@pytest.mark.parametrize(
    ("name", "where"), [(name, where) for name in LAYERS for where in gradient_names(name)]
)
def test_error_in_a_backward_pass_is_detected(
    name: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = LAYERS[name](np.random.default_rng(0))
    assert max(gradcheck.check_layers([layer], inputs_for(name)).values()) < gradcheck.LIMIT
    true = type(layer).backward

    def wrong(self: Layer, dy: np.ndarray) -> np.ndarray:
        dx = true(self, dy).copy()
        gradient = dx if where == "inputs" else self.gradients[where]
        index = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        gradient[index] *= 1.001  # one number, by 0.1 %
        return dx

    monkeypatch.setattr(type(layer), "backward", wrong)
    errors = gradcheck.check_layers([layer], inputs_for(name))
    assert [key for key, error in errors.items() if not error < gradcheck.LIMIT] == [where]


def test_error_in_the_gradient_of_the_loss_is_detected(
    monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    # Softmax without subtracting the one-hot target.
    monkeypatch.setattr(SoftmaxCrossEntropy, "backward", lambda self: self.p / len(self.p))
    with pytest.raises(SystemExit) as exit:
        gradcheck.main()
    assert exit.value.code == 1
    (wrong,) = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert "SoftmaxCrossEntropy" in wrong


def test_gradient_check_restores_the_arrays() -> None:
    layer = BatchNorm(6)
    gradcheck.check_layers([layer], inputs := inputs_for("BatchNorm"))
    assert np.array_equal(inputs, inputs_for("BatchNorm"))
    assert not layer.running_mean.any()
    assert np.array_equal(layer.running_var, np.ones(6))


TORCH: dict[str, Callable[[], nn.Module]] = {
    "Flatten": nn.Flatten,
    "Linear": lambda: nn.Linear(6, 4),
    "ReLU": nn.ReLU,
    "Tanh": nn.Tanh,
    "BatchNorm": lambda: nn.BatchNorm1d(6),
    "Conv2d": lambda: nn.Conv2d(2, 3, 3, padding=1),
    "MaxPool2d": lambda: nn.MaxPool2d(2),
}


@pytest.mark.parametrize("name", TORCH)
def test_layer_equals_that_of_torch(name: str) -> None:
    ours, theirs = LAYERS[name](np.random.default_rng(0)), TORCH[name]().double()
    for parameter in ours.parameter_names:
        getattr(theirs, parameter).data = torch.from_numpy(getattr(ours, parameter))
    for seed, training in ((0, True), (1, True), (2, False)):  # two steps, then evaluation
        ours.training, values = training, inputs_for(name, seed)
        inputs = torch.from_numpy(values.copy()).requires_grad_()
        outputs = theirs.train(training)(inputs)
        r = torch.randn_like(outputs)
        theirs.zero_grad()
        outputs.backward(r)
        assert ours.forward(values) == pytest.approx(outputs.detach().numpy(), abs=1e-12)
        assert ours.backward(r.numpy()) == pytest.approx(inputs.grad.numpy(), abs=1e-12)
        for parameter in ours.parameter_names:
            expected = getattr(theirs, parameter).grad.numpy()
            assert ours.gradients[parameter] == pytest.approx(expected, abs=1e-12)
        for buffer in ours.buffer_names:
            assert getattr(ours, buffer) == pytest.approx(getattr(theirs, buffer).numpy())


def test_max_pool_breaks_ties_as_torch_does() -> None:
    images = torch.ones(1, 1, 5, 4, dtype=torch.double, requires_grad=True)
    F.max_pool2d(images, 2).sum().backward()
    layer = MaxPool2d(2)
    layer.forward(images.detach().numpy())
    assert np.array_equal(layer.backward(np.ones((1, 1, 2, 2))), images.grad.numpy())


def test_loss_equals_that_of_torch_and_does_not_overflow() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4], [0.3, 0.2, 0.1]], dtype=torch.float32)
    targets = torch.tensor([0, 2])
    loss = SoftmaxCrossEntropy()
    found = loss.forward(logits.numpy(), targets.numpy())
    assert found == pytest.approx(F.cross_entropy(logits, targets).item())
    logits.requires_grad_()
    F.cross_entropy(logits, targets).backward()
    assert loss.backward() == pytest.approx(logits.grad.numpy(), abs=1e-7)


def test_dropout_preserves_the_expectation_and_is_off_in_eval_mode() -> None:
    layer, x = Dropout(0.3, np.random.default_rng(0)), np.ones((400, 500), np.float32)
    y = layer.forward(x)
    assert y.dtype == np.float32
    # Of 200,000 elements 0.3 ± 0.001 are zero; 0.005 is five standard errors.
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.005)
    assert y.mean() == pytest.approx(1, abs=0.01)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1) / np.float32(0.7)}
    layer.training = False
    assert np.array_equal(layer.forward(x), x)
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1, got 1"):
        Dropout(1.0, np.random.default_rng(0))


PAIRS = {
    "MLP": (
        lambda: NumpyMLP(7, 3, 8, hidden_sizes=[12, 9]),
        lambda: MLP(7, 3, 8, hidden_sizes=[12, 9]),
    ),
    "CNN": (
        lambda: NumpyCNN(7, 2, 9, [4, 5], 11, padding=0),
        lambda: CNN(7, 2, 9, [4, 5], 11, padding=0, conv_dropout=0.0, dropout=0.0),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_logits_and_gradients_equal_those_of_the_torch_net(name: str) -> None:
    ours, theirs = (make() for make in PAIRS[name])
    if name == "CNN":  # the torch network also has Dropout layers, so the keys differ
        weights = list(theirs.state_dict().values())
        ours.load_state_dict(dict(zip(ours.state_dict(), weights, strict=True)))
    else:
        ours.load_state_dict(theirs.state_dict())
    images = torch.randn(5, theirs.in_channels, theirs.image_size, theirs.image_size)
    gradients = []
    for net in (ours, theirs):
        inputs = images.clone().requires_grad_()
        logits = net(inputs)
        F.cross_entropy(logits, torch.arange(5)).backward()
        gradients.append([logits, inputs.grad, *(p.grad for p in net.parameters())])
    for our, their in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their, atol=1e-6, rtol=1e-5)  # fp32, sums in another order


def test_parameters_share_memory_with_numpy() -> None:
    net = NumpyMLP(image_size=4, hidden_sizes=[5], batch_norm=True)
    module = net.layers[1]
    with torch.no_grad():
        module.weight.fill_(3.0)
    assert (module.bind().weight == 3.0).all()
    module.bind().weight[0, 0] = 7.0
    assert module.weight[0, 0] == 7.0
    net.train()(torch.randn(8, 1, 4, 4) + 5)
    assert net.layers[2].running_mean.abs().min() > 0
    assert not torch.equal(net.state_dict()["layers.2.running_var"], torch.ones(5))


def test_second_forward_does_not_affect_the_first_backward() -> None:
    net, a, b = NumpyMLP(image_size=4), torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)

    def gradient(meanwhile: Callable[[], Tensor]) -> Tensor:
        net.zero_grad()
        loss = net(a).square().sum()
        meanwhile()
        loss.backward()
        return net.layers[1].weight.grad.clone()

    assert torch.equal(gradient(lambda: net(b)), gradient(lambda: b))


def test_masks_depend_on_the_seed_of_torch() -> None:
    net, images = NumpyMLP(image_size=4, dropout=0.5).train(), torch.randn(3, 1, 4, 4)
    logits = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        logits.append(net(images))
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    assert torch.equal(net.eval()(images), net(images))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_work(dtype: torch.dtype) -> None:
    net = NumpyMLP(image_size=4, batch_norm=True).to(dtype)
    images = torch.randn(6, 1, 4, 4, dtype=dtype, requires_grad=True)
    logits = net(images)
    logits.sum().backward()
    assert {logits.dtype, images.grad.dtype, net.layers[1].weight.grad.dtype} == {dtype}
    with torch.autocast("cpu", torch.bfloat16):
        assert NumpyMLP(image_size=4)(torch.randn(2, 1, 4, 4)).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NumpyCNN(image_size=5, channels=[4, 4], padding=0), "NumpyCNN: images of 5x5"),
        (lambda: NumpyMLP(activation="gelu"), "activation must be relu or tanh, got 'gelu'"),
        (lambda: NumpyMLP(dropout=1.0), "dropout must be at least 0 and below 1"),
    ],
)
def test_invalid_arguments_are_reported(make: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


WITHOUT_TORCH = """
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "lightning", "torchvision", "torchmetrics"):
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Absent())
sys.argv = ["train_numpy", "--epochs", "5"]
runpy.run_module("modules.scratch.train_numpy", run_name="__main__")
runpy.run_module("modules.scratch.gradcheck", run_name="__main__")
"""


def test_training_and_gradient_check_work_without_torch() -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    epochs = [line for line in done.stdout.splitlines() if line.startswith("epoch")]
    assert len(epochs) == 5
    assert float(epochs[-1].split()[-1]) > 0.93


def test_numpy_training_loads_mnist(data_of, monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with pytest.raises(
        SystemExit, match=r"train-images-idx3-ubyte\.gz does not exist. Set DATA_DIR"
    ):
        train_numpy.main(["--mnist"])
    monkeypatch.setenv("DATA_DIR", str(data_of("MNIST")))
    monkeypatch.setattr(train_numpy, "train", lambda data, *more: calls.append(data))
    calls: list = []
    train_numpy.main(["--mnist"])
    (((images, labels), (test_images, test_labels)),) = calls
    assert images.shape == (len(labels), 784)
    assert 0 <= images.min() < 0.5 < images.max() <= 1
    assert sorted(set(labels)) == list(range(10))
    if "MNIST" in REAL:
        assert (len(labels), len(test_labels)) == (60_000, 10_000)
        assert (labels[:5].tolist(), REAL_DIR.name) == ([5, 0, 4, 1, 9], REAL_DIR.name)
    assert test_images.dtype == np.float32


def test_float32_network_computes_in_float32() -> None:
    rng = np.random.default_rng(0)
    net = Network(mlp_layers([6, 5, 4, 3], rng, "tanh", True, 0.2)).astype(np.float32)
    logits = net.forward(inputs_for("Linear").astype(np.float32), training=True)
    net.backward(logits)
    arrays = [logits, *net.parameters(), *net.gradients()]
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}
