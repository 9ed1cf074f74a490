"""VGG and ResNet equal torchvision's with copied weights, and have the papers' parameters."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets import VGG, ResNet
from tests.support.layer_by_layer import first_difference

WEIGHT_LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
IMAGENET = {"num_classes": 1000, "in_channels": 3, "image_size": 224}


def theirs(name: str) -> nn.Module:
    """Return torchvision's network with weights, biases and statistics none of which is 0 or 1."""
    torch.manual_seed(0)
    with torch.device("meta"):  # skips its slow initialization
        net = getattr(torchvision.models, name)(weights=None)
    for name, tensor in net.to_empty(device="cpu").state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.zero_()
        elif tensor.ndim > 1:
            tensor.uniform_(-1, 1).mul_((6 / tensor[0].numel()) ** 0.5)  # He's variance
        elif name.endswith(("bias", "mean")):
            tensor.uniform_(-0.3, 0.3)
        else:
            tensor.uniform_(0.5, 1.5)
    return net.eval()


def weight_layers(net: nn.Module) -> dict[str, nn.Module]:
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, WEIGHT_LAYERS)}


def copied(net: nn.Module, reference: nn.Module) -> tuple[nn.Module, dict[str, str]]:
    """Copy the reference's weights layer by layer; also return the pairs of equal layers."""
    ours, found = weight_layers(net), weight_layers(reference)
    assert len(ours) == len(found)
    pairs: dict[str, str] = {}
    offset = None  # batch norm subtracts the bias of a convolution: fold it into the running mean
    for (our_name, layer), (their_name, other) in zip(ours.items(), found.items(), strict=True):
        weights = dict(other.state_dict())
        if offset is not None:
            weights["running_mean"] = weights["running_mean"] - offset
        offset = weights.pop("bias") if other.bias is not None and layer.bias is None else None
        if offset is None:
            pairs[our_name] = their_name
        layer.load_state_dict(weights, assign=True)
    return net.eval(), pairs


def images(number: int = 1, size: int = 224) -> Tensor:
    shape = (number, 3, size, size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def assert_equal(net: nn.Module, reference: nn.Module, pairs: dict[str, str], x: Tensor) -> None:
    with torch.inference_mode():
        ours, found = net(x), reference(x)
    assert found.std() > 0.1  # constant outputs would prove nothing
    # 1e-4: sums of thousands of numbers in fp32.
    equal = torch.allclose(ours, found, atol=1e-4 * found.std().item(), rtol=1e-4)
    assert equal, first_difference(net, reference, pairs, x)


def on_meta(make) -> nn.Module:
    with torch.device("meta"):  # shapes only: the weights come from the reference
        return make()


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("depth", [11, 16])
def test_vgg_equals_torchvision(depth: int, batch_norm: bool) -> None:
    reference = theirs(f"vgg{depth}_bn" if batch_norm else f"vgg{depth}")
    options = {"depth": depth, "batch_norm": batch_norm, "hidden_size": 4096}
    net, pairs = copied(on_meta(lambda: VGG(**IMAGENET, **options)), reference)
    assert_equal(net, reference, pairs, images())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_equals_torchvision(depth: int, training: bool) -> None:
    reference = theirs(f"resnet{depth}")
    make = lambda: ResNet(**IMAGENET, depth=depth, stem="imagenet")  # noqa: E731
    net, pairs = copied(on_meta(make), reference)
    assert sum(p.numel() for p in net.parameters()) == sum(
        p.numel() for p in reference.parameters()
    )
    x = images(4, 96) if training else images(2, 130)  # odd sizes on the way down
    assert_equal(net.train(training), reference.train(training), pairs, x)


def in_order(net: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """Load weights by the line in the docstring of ResNet."""
    net.load_state_dict(dict(zip(net.state_dict(), weights.values(), strict=True)), assign=True)
    return net.eval()


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_torchvision_weights_load_in_order_at_every_depth(depth: int) -> None:
    with torch.device("meta"):
        reference = getattr(torchvision.models, f"resnet{depth}")()
        net = ResNet(**IMAGENET, depth=depth, stem="imagenet")
    in_order(net, reference.state_dict())  # a shape that differs is an error


class CifarBlock(nn.Module):
    """As in akamaster/pytorch_resnet_cifar10, shortcut of option A."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.pad = stride, channels // 4 if stride == 2 else 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(x, (0, 0, 0, 0, self.pad, self.pad)))


class CifarResNet20(nn.Module):
    """As in akamaster/pytorch_resnet_cifar10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        sizes = [(16, 16, 1)] * 3 + [(16, 32, 2), *[(32, 32, 1)] * 2]
        sizes += [(32, 64, 2), *[(64, 64, 1)] * 2]
        self.layers = nn.Sequential(*(CifarBlock(*size) for size in sizes))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.linear(x.mean(dim=(2, 3)))


def test_cifar_weights_with_zero_channels_on_both_sides_give_equal_logits() -> None:
    torch.manual_seed(0)
    reference, x = CifarResNet20(), images(4, 32)
    reference.train()(x)  # statistics other than 0 and 1
    expected = reference.eval()(x)
    net = in_order(ResNet(in_channels=3, shortcut_padding="both"), reference.state_dict())
    torch.testing.assert_close(net(x), expected)
    other = in_order(ResNet(in_channels=3), reference.state_dict())
    assert not torch.allclose(other(x), expected, atol=0.01)


def test_first_difference_names_the_layer() -> None:
    reference = theirs("resnet18")
    net, pairs = copied(on_meta(lambda: ResNet(**IMAGENET, depth=18, stem="imagenet")), reference)
    net.stages[1][0].shortcut[0].weight = nn.Parameter(net.stages[1][0].shortcut[0].weight + 0.1)
    with pytest.raises(AssertionError, match=r"^stages\.1\.0\.shortcut\.0: largest difference"):
        assert_equal(net, reference, pairs, images(1, 64))


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)],
)
def test_cifar_resnets_have_the_parameters_of_the_paper(depth: int, parameters: int) -> None:
    net = ResNet(in_channels=3, image_size=32, depth=depth)
    assert (
        sum(p.numel() for p in net.parameters()) == parameters
    )  # table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth  # no weights in the shortcuts
    net.stages.register_forward_hook(lambda stages, inputs, output: shapes.append(output.shape[1:]))
    shapes: list[torch.Size] = []
    net(images(2, 32))
    assert shapes == [(64, 8, 8)]


def test_option_a_shortcut_subsamples_and_appends_zero_channels() -> None:
    block = ResNet(image_size=8).stages[1][0]
    x = torch.randn(2, 16, 8, 8)
    y = block.shortcut(x)
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2])
    assert y.shape == (2, 32, 4, 4)
    assert not y[:, 16:].any()


@pytest.mark.parametrize("depth", [18, 20, 50])
def test_pre_activation_equals_the_formula_of_the_paper(depth: int) -> None:
    torch.manual_seed(0)
    net = ResNet(in_channels=3, image_size=16, depth=depth, width=4, pre_activation=True)
    x = images(3, 16)
    net.train()(x)  # statistics other than 0 and 1
    net.eval()
    convolution, norm, _ = net.first
    h = F.relu(norm(convolution(x)))
    for stage in net.stages:
        for block in stage:
            # x_{l+1} = h(x_l) + F(x_l), F a chain of W · relu(BN(·)) (He et al. 2016, eq. 1 and 5)
            layers = [
                m for m in block.branch.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)
            ]
            shared = [m for m in block.shared.modules() if isinstance(m, nn.BatchNorm2d)]
            h = F.relu(shared[0](h)) if shared else h
            f = h
            for layer in layers:
                f = F.relu(layer(f)) if isinstance(layer, nn.BatchNorm2d) else layer(f)
            assert isinstance(layers[-1], nn.Conv2d)
            first_of_all = block is net.stages[0][0]
            assert isinstance(layers[0], nn.BatchNorm2d) != (bool(shared) or first_of_all)
            assert bool(shared) == (block is stage[0] and not first_of_all)
            h = block.shortcut(h) + f
    logits = net.head[-1](F.relu(net.head[0](h)).mean(dim=(2, 3)))
    torch.testing.assert_close(net(x), logits)


def test_pre_activation_block_without_residual_is_the_identity() -> None:
    x = torch.randn(2, 16, 8, 8)  # half of it negative, so that a ReLU shows
    for pre_activation, expected in ((True, x), (False, x.relu())):
        block = ResNet(pre_activation=pre_activation).stages[0][1]
        for parameter in block.branch.parameters():
            nn.init.zeros_(parameter)  # f = 0
        assert torch.equal(block(x), expected)


@pytest.mark.parametrize(
    ("image_size", "sizes"), [(8, [4, 2]), (28, [14, 7, 3]), (32, [16, 8, 4, 2]), (3, [])]
)
def test_vgg_pools_while_more_than_one_pixel_remains(image_size: int, sizes: list[int]) -> None:
    net = VGG(image_size=image_size, width=2, hidden_size=8)
    sizes_found: list[int] = []
    for layer in net.features:
        if isinstance(layer, nn.MaxPool2d):
            layer.register_forward_hook(
                lambda m, inputs, output: sizes_found.append(output.shape[-1])
            )
    assert net(torch.randn(2, 1, image_size, image_size)).shape == (2, 10)
    assert sizes_found == sizes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VGG(depth=12), r"VGG: depth must be 11, 13, 16 or 19, got 12\."),
        (
            lambda: ResNet(depth=19),
            r"ResNet: depth must be one of 18, 20, 32, 34, 44, .*, got 19\.",
        ),
        (lambda: ResNet(stem="large"), r"ResNet: stem must be small or imagenet, got large\."),
    ],
)
def test_unknown_depth_and_options_are_reported(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
