"""VGG and ResNet against torchvision's, with copied weights, and against the papers' numbers."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets import VGG, ResNet
from modules.nets.layers.convolution import Flatten
from modules.nets.resnet import PaddingShortcut
from tests.support.layer_by_layer import first_difference

WEIGHED = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
IMAGENET = {"num_classes": 1000, "in_channels": 3, "image_size": 224}


def theirs(name: str) -> nn.Module:
    """torchvision's net with weights, biases and statistics none of which is 0 or 1."""
    torch.manual_seed(0)
    with torch.device("meta"):  # its own initialisation would take most of the time
        net = getattr(torchvision.models, name)(weights=None)
    for name, tensor in net.to_empty(device="cpu").state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.zero_()
        elif tensor.ndim > 1:
            tensor.uniform_(-1, 1).mul_((6 / tensor[0].numel()) ** 0.5)  # of He's variance
        elif name.endswith(("bias", "mean")):
            tensor.uniform_(-0.3, 0.3)
        else:
            tensor.uniform_(0.5, 1.5)
    return net.eval()


def weighed(net: nn.Module) -> dict[str, nn.Module]:
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, WEIGHED)}


def copied(net: nn.Module, reference: nn.Module) -> tuple[nn.Module, dict[str, str]]:
    """Our net with the reference's weights, layer by layer in order, and which layers are equal."""
    ours, found = weighed(net), weighed(reference)
    assert len(ours) == len(found)
    pairs: dict[str, str] = {}
    offset = None  # a bias before batch norm is one with the mean that it takes away
    for (our_name, layer), (their_name, other) in zip(ours.items(), found.items(), strict=True):
        weights = dict(other.state_dict())
        if offset is not None:
            weights["running_mean"] = weights["running_mean"] - offset
        offset = weights.pop("bias") if other.bias is not None and layer.bias is None else None
        if offset is None:
            pairs[our_name] = their_name
        layer.load_state_dict(weights, assign=True)
    return net.eval(), pairs


def pictures(number: int = 1, size: int = 224) -> Tensor:
    shape = (number, 3, size, size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def assert_equal(net: nn.Module, reference: nn.Module, pairs: dict[str, str], x: Tensor) -> None:
    with torch.inference_mode():
        ours, found = net(x), reference(x)
    assert found.std() > 0.1  # else everything would be equal
    # 1e-4: sums of thousands of numbers in fp32.
    equal = torch.allclose(ours, found, atol=1e-4 * found.std().item(), rtol=1e-4)
    assert equal, first_difference(net, reference, pairs, x)


def on_meta(make) -> nn.Module:
    with torch.device("meta"):  # shapes only: the weights come from the reference
        return make()


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vgg_equals_torchvisions(depth: int, batch_norm: bool) -> None:
    reference = theirs(f"vgg{depth}_bn" if batch_norm else f"vgg{depth}")
    options = {"depth": depth, "batch_norm": batch_norm, "hidden_size": 4096}
    net, pairs = copied(on_meta(lambda: VGG(**IMAGENET, **options)), reference)
    assert_equal(net, reference, pairs, pictures())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("depth", [18, 34, 50])
def test_resnet_equals_torchvisions(depth: int, training: bool) -> None:
    reference = theirs(f"resnet{depth}")
    make = lambda: ResNet(**IMAGENET, depth=depth, stem="imagenet")  # noqa: E731
    net, pairs = copied(on_meta(make), reference)
    assert sum(p.numel() for p in net.parameters()) == sum(
        p.numel() for p in reference.parameters()
    )
    x = pictures(4, 96) if training else pictures(2, 130)  # odd sizes on the way down
    assert_equal(net.train(training), reference.train(training), pairs, x)


def test_the_first_layer_that_differs_is_named() -> None:
    reference = theirs("resnet18")
    net, pairs = copied(on_meta(lambda: ResNet(**IMAGENET, depth=18, stem="imagenet")), reference)
    net.stages[1][0].shortcut[0].weight = nn.Parameter(net.stages[1][0].shortcut[0].weight + 0.1)
    with pytest.raises(AssertionError, match=r"^stages\.1\.0\.shortcut\.0: largest difference"):
        assert_equal(net, reference, pairs, pictures(1, 64))


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (32, 464_154), (56, 853_018)])
def test_the_cifar_nets_have_as_many_parameters_as_in_the_paper(
    depth: int, parameters: int
) -> None:
    net = ResNet(in_channels=3, image_size=32, depth=depth)
    assert sum(p.numel() for p in net.parameters()) == parameters  # 0.27, 0.46 and 0.85 million
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth  # no weights in the shortcuts
    net.stages.register_forward_hook(lambda stages, inputs, output: shapes.append(output.shape[1:]))
    shapes: list[torch.Size] = []
    net(pictures(2, 32))
    assert shapes == [(64, 8, 8)]


def test_a_shortcut_of_option_a_takes_every_other_pixel_and_adds_empty_channels() -> None:
    block = ResNet(image_size=8).stages[1][0]
    x = torch.randn(2, 16, 8, 8)
    y = block.shortcut(x)
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2])
    assert y.shape == (2, 32, 4, 4)
    assert not y[:, 16:].any()


@pytest.mark.parametrize("depth", [18, 20, 50])
def test_pre_activation_is_the_formula_of_the_paper(depth: int) -> None:
    torch.manual_seed(0)
    net = ResNet(in_channels=3, image_size=16, depth=depth, width=4, pre_activation=True)
    x = pictures(3, 16)
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


def test_with_pre_activation_nothing_stands_in_the_way_from_block_to_block() -> None:
    x = torch.randn(2, 16, 8, 8)  # half of it negative: a ReLU would show
    for pre_activation, expected in ((True, x), (False, x.relu())):
        block = ResNet(pre_activation=pre_activation).stages[0][1]
        for parameter in block.branch.parameters():
            nn.init.zeros_(parameter)  # f = 0
        assert torch.equal(block(x), expected)


@pytest.mark.parametrize(
    ("image_size", "sizes"), [(8, [4, 2]), (28, [14, 7, 3]), (32, [16, 8, 4, 2]), (3, [])]
)
def test_vgg_pools_while_more_than_a_pixel_is_left(image_size: int, sizes: list[int]) -> None:
    net = VGG(image_size=image_size, width=2, hidden_size=8)
    seen: list[int] = []
    for layer in net.features:
        if isinstance(layer, nn.MaxPool2d):
            layer.register_forward_hook(lambda m, inputs, output: seen.append(output.shape[-1]))
    assert net(torch.randn(2, 1, image_size, image_size)).shape == (2, 10)
    assert seen == sizes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VGG(depth=12), r"VGG: depth must be 11, 13, 16 or 19, not 12\."),
        (lambda: ResNet(depth=19), r"ResNet: depth must be 18, 20, 32, 34, 50 or 56, not 19\."),
        (lambda: ResNet(stem="large"), r"ResNet: stem must be small or imagenet, not large\."),
    ],
)
def test_a_net_that_no_paper_has_is_a_clear_error(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format])
def test_flatten_is_torchs_and_its_gradient_keeps_the_order_in_memory(
    order: torch.memory_format,
) -> None:
    pictures = torch.randn(2, 3, 4, 5).to(memory_format=order).requires_grad_()
    weights = torch.randn(2, 60)
    seen: list[Tensor] = []
    for flatten in (Flatten(), nn.Flatten()):
        inner = pictures * 1
        inner.register_hook(seen.append)
        vectors = flatten(inner)
        assert torch.equal(vectors, pictures.flatten(1))
        (vectors * weights).sum().backward()
    assert torch.equal(*seen)
    assert seen[0].is_contiguous(memory_format=order)


def test_the_shortcut_without_weights_takes_every_other_pixel() -> None:
    pictures = torch.randn(2, 3, 5, 5)
    kept = PaddingShortcut(new_channels=2)(pictures)
    assert torch.equal(kept[:, :3], pictures[:, :, ::2, ::2])
    assert kept.shape == (2, 5, 3, 3)
    assert not kept[:, 3:].any()
