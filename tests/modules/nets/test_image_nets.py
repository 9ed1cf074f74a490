"""Contracts: what holds for every net that takes pictures."""

import inspect
import math
import shutil
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets import CNN, MLP
from tests.support.image_nets import NUM_CLASSES, PICTURE_NETS, SMALL_NETS, TAKES_PICTURES


@pytest.fixture(params=PICTURE_NETS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(1)
    return with_statistics(PICTURE_NETS[request.param]())


def pictures_for(net: nn.Module, number: int = 4, seed: int = 2) -> Tensor:
    shape = (number, net.in_channels, net.image_size, net.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_statistics(net: nn.Module) -> nn.Module:
    """Shows pictures to batch norms, so that evaluation means something.

    Their running means and variances begin as 0 and 1, which are nobody's. A net evaluated with
    those before its first step is none that anyone will meet, and a deep one is far off: each block
    of a ResNet adds to the variance, and 27 of them without a norm double it 27 times.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.momentum = None  # a plain mean over what was seen
        with torch.no_grad():
            net.train()(pictures_for(net, 64, seed=3))
        for norm in norms:
            norm.momentum = 0.1
    return net


def test_logits_are_finite_one_row_a_picture(net: nn.Module) -> None:
    logits = net(pictures_for(net))
    assert logits.shape == (4, NUM_CLASSES)
    assert logits.isfinite().all()


def test_every_parameter_receives_gradient(net: nn.Module) -> None:
    targets = torch.arange(64) % NUM_CLASSES
    F.cross_entropy(net(pictures_for(net, 64)), targets).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_one_row_of_a_batch_never_sees_another(net: nn.Module) -> None:
    pictures = pictures_for(net).requires_grad_()
    logits = net.eval()(pictures)
    (gradient,) = torch.autograd.grad(logits[1].square().sum(), pictures)
    assert gradient[1].any()
    assert not gradient[[0, 2, 3]].any()


def test_a_picture_gets_the_same_logits_alone_and_in_a_batch(net: nn.Module) -> None:
    pictures = pictures_for(net)
    # 1e-5: other batch sizes take other matrix kernels, which sum in another order (fp32).
    torch.testing.assert_close(net.eval()(pictures)[2:3], net(pictures[2:3]), atol=1e-5, rtol=1e-5)


def test_the_first_loss_is_that_of_guessing(net: nn.Module) -> None:
    targets = torch.arange(512) % NUM_CLASSES
    with torch.no_grad():
        loss = F.cross_entropy(net.eval()(pictures_for(net, 512)), targets).item()
    # Logits of variance v cost about v/2 above ln K. torch's initialisation bounds the weights by
    # 1/sqrt(fan in), variance 1/(3 fan in): unit inputs give v ≤ 1/3 and, by the bias, a little
    # more; a last layer drawn smaller gives less. Sampling adds sqrt(v/512) = 0.03.
    assert abs(loss - math.log(NUM_CLASSES)) < 0.25


def test_where_a_pixel_is_matters(net: nn.Module) -> None:
    pictures = pictures_for(net)
    shuffled = pictures.flip(-1)
    assert not torch.allclose(net.eval()(pictures), net(shuffled), atol=1e-3)


def test_evaluation_is_deterministic_and_dropout_is_not(net: nn.Module) -> None:
    pictures = pictures_for(net)
    assert torch.equal(net.eval()(pictures), net(pictures))
    if any(isinstance(module, nn.Dropout) and module.p for module in net.modules()):
        assert not torch.equal(net.train()(pictures), net(pictures))


def test_arguments_are_kept_as_attributes(net: nn.Module) -> None:
    arguments = {name: getattr(net, name) for name in inspect.signature(type(net)).parameters}
    again = type(net)(**arguments)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in net.state_dict().items()
    }


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="compiling for the CPU needs g++")
def test_a_compiled_net_is_the_eager_net(net: nn.Module) -> None:
    pictures, keys = pictures_for(net), list(net.state_dict())
    eager = net.eval()(pictures)
    exact = deepcopy(net).double()(pictures.double())
    net.compile()
    # Fused kernels round in another order, but not worse; where that shows depends on the CPU.
    error, allowed = ((seen - exact).abs().max() for seen in (net(pictures), eager))
    assert error <= 4 * allowed + 1e-6
    assert list(net.state_dict()) == keys


def test_every_net_has_a_small_case_for_the_tests_that_train() -> None:
    assert {type(make()) for make in SMALL_NETS.values()} == set(TAKES_PICTURES)


def test_the_default_mlp_is_784_128_10() -> None:
    linear = [m for m in MLP().modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(784, 128), (128, 10)]


def test_the_default_cnn_is_the_tutorials_two_convolutions() -> None:
    net = CNN()
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions] == [(1, 32), (32, 64)]
    assert sum(p.numel() for p in net.parameters()) == 1_199_882  # PyTorch's own MNIST example


def test_batch_norm_comes_between_convolution_and_relu_and_takes_over_its_bias() -> None:
    kinds = [type(layer).__name__ for layer in CNN(batch_norm=True).features[:7]]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"]
    biases = [m.bias for m in CNN(batch_norm=True).modules() if isinstance(m, nn.Conv2d)]
    assert biases == [None, None]
    layers = ("features.0", "features.2", "head.1", "head.4")  # without it, the names of old runs
    assert list(CNN().state_dict()) == [f"{n}.{w}" for n in layers for w in ("weight", "bias")]


def test_a_cnn_without_convolutions_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="CNN: channels must not be empty"):
        CNN(channels=[])


def test_an_mlp_without_hidden_layer_is_linear() -> None:
    net = MLP(image_size=4, hidden_sizes=[]).eval()
    a, b = pictures_for(net, 2).unsqueeze(1)
    torch.testing.assert_close(net((a + b) / 2), (net(a) + net(b)) / 2)


def test_an_mlp_does_not_care_in_which_order_the_pixels_come() -> None:
    net, order = MLP(image_size=4).eval(), torch.randperm(16)
    pictures = pictures_for(net)
    logits = net(pictures)
    net.layers[1].weight.data = net.layers[1].weight.data[:, order]
    shuffled = pictures.flatten(1)[:, order].view_as(pictures)
    torch.testing.assert_close(net(shuffled), logits)


def test_the_features_of_a_cnn_move_with_the_picture() -> None:
    net = CNN(image_size=12, channels=[4, 6]).eval()
    pictures = pictures_for(net)
    moved = pictures.roll(2, dims=-1)  # by the stride of the pooling
    features = net.features(pictures), net.features(moved)
    # Only the first column sees pixels that came in from the other side.
    torch.testing.assert_close(features[1][..., 1:], features[0][..., :-1])


@pytest.mark.parametrize(("size", "channels"), [(5, [4, 4]), (3, [4]), (8, [4] * 4)])
def test_a_picture_too_small_is_a_clear_error(size: int, channels: list[int]) -> None:
    with pytest.raises(ValueError, match=f"CNN: pictures of {size}x{size} pixels are too small"):
        CNN(image_size=size, channels=channels)
    CNN(image_size=size, channels=channels, padding=1)  # the fix that the message offers
