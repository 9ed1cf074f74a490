"""FeatureMaps shows filters and outputs of convolutions and leaves the network unchanged."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from callbacks import FeatureMaps
from callbacks.figures.feature_maps import convolution_outputs, first_layer
from modules.nets import CNN
from tests.support.figures import Digits, Task, make_trainer, small_cnn


def test_feature_maps_do_not_change_network_and_random_state() -> None:
    class Noisy(nn.Sequential):
        def forward(self, inputs):
            return super().forward(inputs + torch.rand(()))

    net = Noisy(*small_cnn()).train()
    net[5].eval()  # must stay in eval mode
    inputs = torch.rand(1, 1, 8, 8)
    weights, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    modes = [module.training for module in net.modules()]
    maps = convolution_outputs(net, inputs)
    assert torch.equal(random, torch.get_rng_state())
    assert [tuple(values.shape) for values in maps.values()] == [(6, 6, 6), (4, 4, 4)]
    assert all(torch.equal(weights[key], value) for key, value in net.state_dict().items())
    assert modes == [module.training for module in net.modules()]
    assert not any(module._forward_hooks for module in net.modules())


def test_feature_maps_of_a_compiled_network() -> None:
    net, inputs = small_cnn().eval(), torch.rand(1, 1, 8, 8)
    expected = net[:4](inputs)[0]
    net.compile(backend="eager")
    with torch.inference_mode():
        net(inputs)  # compiles a graph without hooks
    maps = convolution_outputs(net, inputs)
    assert torch.equal(maps["3"], expected)


def test_feature_maps_are_those_before_an_in_place_relu() -> None:
    maps = convolution_outputs(CNN(channels=(4,), image_size=8, padding=1), torch.randn(1, 1, 8, 8))
    assert all((values < 0).any() for values in maps.values())


def test_filters_without_convolution_are_the_first_linear_layer_over_the_image() -> None:
    net = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 5))
    name, filters = first_layer(net, torch.zeros(1, 8, 8))
    assert name == "1"
    assert torch.equal(filters.flatten(1), net[1].weight)
    assert filters.shape == (5, 1, 8, 8)


def test_network_without_filters_gives_a_warning_and_no_figure(tmp_path: Path) -> None:
    net = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))
    with pytest.warns(UserWarning, match="Sequential has neither an nn.Conv2d nor an nn.Linear"):
        make_trainer(tmp_path, FeatureMaps()).test(Task(net), Digits(), verbose=False)
    assert not (tmp_path / "figures").exists()
