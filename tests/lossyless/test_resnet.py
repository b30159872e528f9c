"""Residual networks: torchvision's, with the stem that fits the images."""

import pytest
import torch
import torchvision
from torch import nn

from lossyless.architectures import ResNet


def test_with_the_imagenet_stem_it_is_torchvisions_network():
    network = ResNet((3, 64, 64), (5,), stem="imagenet").eval()
    reference = torchvision.models.resnet18(num_classes=5).eval()
    reference.load_state_dict(network.network.state_dict())
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(network(x), reference(x))


@pytest.mark.parametrize("base", ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_every_base_has_the_expected_size_channels_and_outputs(base):
    with torch.device("meta"):
        network = ResNet((1, 224, 224), (2, 3), base=base).network
        reference = torchvision.models.get_model(base, weights=None, num_classes=6)
    n_parameters, n_expected = (
        sum(p.numel() for p in net.parameters()) for net in (network, reference)
    )
    assert n_expected - n_parameters == 2 * 64 * 7 * 7  # two input colours fewer
    assert network.fc.out_features == 6


@pytest.mark.parametrize(
    "sides, stem, first_side",
    [
        ((96, 200), "auto", 96),  # 96: STL10
        ((100, 100), "auto", 25),
        ((32, 32), "imagenet", 8),
        ((128, 128), "small", 128),
    ],
)
def test_the_stem_keeps_the_sides_of_small_images_and_quarters_those_of_others(
    sides, stem, first_side
):
    network = ResNet((3, *sides), (4,), stem=stem).network
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    assert stem(torch.rand(2, 3, *sides)).shape[1:3] == (64, first_side)


@pytest.mark.parametrize(
    "in_shape, options, message",
    [
        ((3, 32, 32), {"base": "vgg16"}, "'vgg16'.*resnet18"),
        ((3, 32, 32), {"stem": "tiny"}, "'tiny'.*small"),
        ((128,), {}, r"\(128,\)"),
    ],
)
def test_invalid_options_raise_errors(in_shape, options, message):
    with pytest.raises(ValueError, match=message):
        ResNet(in_shape, (4,), **options)
