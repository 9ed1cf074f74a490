"""Contracts of every image network."""

import inspect
import math
import shutil
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets import CNN, MLP
from tests.support.image_nets import IMAGE_NET_CLASSES, IMAGE_NETS, NUM_CLASSES, SMALL_NETS


@pytest.fixture(params=IMAGE_NETS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(1)
    return with_statistics(IMAGE_NETS[request.param]())


def images_for(net: nn.Module, number: int = 4, seed: int = 2) -> Tensor:
    shape = (number, net.in_channels, net.image_size, net.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_statistics(net: nn.Module) -> nn.Module:
    """Set the running statistics of batch norms from a batch.

    With the initial 0 and 1 a deep network is not normalized in eval mode: each block of a ResNet
    adds to the variance, and 27 of them double it 27 times.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.momentum = None  # cumulative mean
        with torch.no_grad():
            net.train()(images_for(net, 64, seed=3))
        for norm in norms:
            norm.momentum = 0.1
    return net


def test_logits_have_one_finite_row_per_image(net: nn.Module) -> None:
    logits = net(images_for(net))
    assert logits.shape == (4, NUM_CLASSES)
    assert logits.isfinite().all()


def test_every_parameter_receives_gradient(net: nn.Module) -> None:
    targets = torch.arange(64) % NUM_CLASSES
    F.cross_entropy(net(images_for(net, 64)), targets).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_rows_of_a_batch_are_independent(net: nn.Module) -> None:
    images = images_for(net).requires_grad_()
    logits = net.eval()(images)
    (gradient,) = torch.autograd.grad(logits[1].square().sum(), images)
    assert gradient[1].any()
    assert not gradient[[0, 2, 3]].any()


def test_logits_do_not_depend_on_the_batch_size(net: nn.Module) -> None:
    images = images_for(net)
    # 1e-5: kernels for other batch sizes sum in another order (fp32).
    torch.testing.assert_close(net.eval()(images)[2:3], net(images[2:3]), atol=1e-5, rtol=1e-5)


def test_first_loss_is_close_to_ln_num_classes(net: nn.Module) -> None:
    targets = torch.arange(256) % NUM_CLASSES
    with torch.no_grad():
        loss = F.cross_entropy(net.eval()(images_for(net, 256)), targets).item()
    # Logits of variance v give a loss about v/2 above ln K. torch's default initialization has
    # variance 1/(3 fan_in): unit inputs give v ≤ 1/3 and, by the bias, a little more. Sampling adds
    # sqrt(v/256) = 0.04.
    assert abs(loss - math.log(NUM_CLASSES)) < 0.25


def test_logits_depend_on_pixel_positions(net: nn.Module) -> None:
    images = images_for(net)
    shuffled = images.flip(-1)
    assert not torch.allclose(net.eval()(images), net(shuffled), atol=1e-3)


def test_only_dropout_is_random(net: nn.Module) -> None:
    images = images_for(net)
    assert torch.equal(net.eval()(images), net(images))
    if any(isinstance(module, nn.Dropout) and module.p for module in net.modules()):
        assert not torch.equal(net.train()(images), net(images))


def test_arguments_are_attributes(net: nn.Module) -> None:
    arguments = {name: getattr(net, name) for name in inspect.signature(type(net)).parameters}
    again = type(net)(**arguments)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in net.state_dict().items()
    }


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="compiling for the CPU needs g++")
def test_compiled_net_equals_the_eager_one(net: nn.Module) -> None:
    images, keys = images_for(net), list(net.state_dict())
    eager = net.eval()(images)
    exact = deepcopy(net).double()(images.double())
    net.compile()
    # Fused kernels round differently, but not with larger errors.
    error, eager_error = ((logits - exact).abs().max() for logits in (net(images), eager))
    assert error <= 4 * eager_error + 1e-6
    assert list(net.state_dict()) == keys


def test_every_image_net_has_a_small_case() -> None:
    assert {type(make()) for make in SMALL_NETS.values()} == set(IMAGE_NET_CLASSES)


def test_default_mlp_is_784_128_10() -> None:
    linear = [m for m in MLP().modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(784, 128), (128, 10)]


def test_default_cnn_is_that_of_the_mnist_example() -> None:
    net = CNN()
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions] == [(1, 32), (32, 64)]
    assert sum(p.numel() for p in net.parameters()) == 1_199_882  # PyTorch's own MNIST example


def test_cnn_batch_norm_is_between_convolution_and_relu_and_replaces_the_bias() -> None:
    kinds = [type(layer).__name__ for layer in CNN(batch_norm=True).features[:7]]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"]
    biases = [m.bias for m in CNN(batch_norm=True).modules() if isinstance(m, nn.Conv2d)]
    assert biases == [None, None]
    layers = ("features.0", "features.2", "head.1", "head.4")  # keys of old checkpoints
    assert list(CNN().state_dict()) == [f"{n}.{w}" for n in layers for w in ("weight", "bias")]


def test_cnn_without_convolutions_is_reported() -> None:
    with pytest.raises(ValueError, match="CNN: channels must not be empty"):
        CNN(channels=[])


def test_mlp_without_hidden_layer_is_linear() -> None:
    net = MLP(image_size=4, hidden_sizes=[]).eval()
    a, b = images_for(net, 2).unsqueeze(1)
    torch.testing.assert_close(net((a + b) / 2), (net(a) + net(b)) / 2)


def test_mlp_is_invariant_to_pixel_permutations() -> None:
    net, order = MLP(image_size=4).eval(), torch.randperm(16)
    images = images_for(net)
    logits = net(images)
    net.layers[1].weight.data = net.layers[1].weight.data[:, order]
    shuffled = images.flatten(1)[:, order].view_as(images)
    torch.testing.assert_close(net(shuffled), logits)


def test_cnn_features_are_translation_equivariant() -> None:
    net = CNN(image_size=12, channels=[4, 6]).eval()
    images = images_for(net)
    moved = images.roll(2, dims=-1)  # the stride of the pooling
    features = net.features(images), net.features(moved)
    # The first column depends on pixels that wrapped around.
    torch.testing.assert_close(features[1][..., 1:], features[0][..., :-1])


@pytest.mark.parametrize(("size", "channels"), [(5, [4, 4]), (3, [4]), (8, [4] * 4)])
def test_images_too_small_are_reported(size: int, channels: list[int]) -> None:
    with pytest.raises(ValueError, match=f"CNN: images of {size}x{size} pixels are too small"):
        CNN(image_size=size, channels=channels)
    CNN(image_size=size, channels=channels, padding=1)  # the fix that the message suggests
