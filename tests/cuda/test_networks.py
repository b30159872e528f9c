"""Networks give nearly the same outputs on a GPU as on the CPU."""

import torch

from lossyless.architectures import ResNet


def test_a_resnet_has_channels_last_on_a_gpu_only(device):
    network = ResNet((1, 32, 32), (5,)).eval()
    x = torch.rand(4, 1, 32, 32)
    expected, names = network(x), list(network.state_dict())
    weight = network.to(device).network.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == (device.type == "cuda")
    torch.testing.assert_close(network(x.to(device)).cpu(), expected, rtol=1e-2, atol=1e-3)
    assert list(network.state_dict()) == names
