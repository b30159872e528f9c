"""Every architecture maps in_shape to out_shape; options do what they promise."""

import re
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn
from torchvision.transforms.v2.functional import normalize

from lossyless.architectures import (
    CNN,
    MLP,
    Balle,
    BalleDecoder,
    CNNDecoder,
    Identity,
    Linear,
    ResNet,
    Standardize,
)
from lossyless.architectures.layers import BatchNorm

SHAPES = {
    "identity": ((3,), (3,)),
    "linear": ((1, 4, 4), (2, 3)),
    "mlp": ((1, 4, 4), (2, 3)),
    "cnn": ((3, 16, 16), (5,)),
    "cnn_decoder": ((5,), (3, 16, 16)),
    "resnet": ((3, 16, 16), (2, 3)),
    "balle": ((3, 24, 24), (8,)),
    "balle_decoder": ((8,), (3, 24, 24)),
}


ARCHITECTURES = {
    "identity": Identity,
    "linear": Linear,
    "mlp": MLP,
    "cnn": CNN,
    "cnn_decoder": CNNDecoder,
    "resnet": ResNet,
    "balle": partial(Balle, hid_dim=8),
    "balle_decoder": partial(BalleDecoder, hid_dim=8),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_outputs_have_the_requested_shape_and_depend_on_the_example_and_all_parameters(name):
    in_shape, out_shape = SHAPES[name]
    network = ARCHITECTURES[name](in_shape, out_shape)
    x = torch.randn(16, *in_shape, requires_grad=True)
    out = network(x)
    assert out.shape == (16, *out_shape)
    out.square().sum().backward()
    assert (x.grad.abs().sum(0) > 0).all()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())
    network.eval()  # so that outputs do not depend on the batch
    torch.testing.assert_close(network(x)[:1], network(x[:1]))


@pytest.mark.parametrize("shape", [(3, 16, 32), (3, 2, 2), (16,)])
def test_invalid_shapes_raise_errors(shape):
    for make in (CNN, Balle, Identity):
        with pytest.raises(ValueError, match=re.escape(str(shape))):
            make(shape, (64,))
    for make in (CNNDecoder, BalleDecoder):
        with pytest.raises(ValueError, match=re.escape(str(shape))):
            make((64,), shape)


def test_the_options_of_an_mlp_make_its_layers():
    network = MLP((3,), (2,), 8, 3, activation="Softplus", is_batchnorm=True, dropout=0.5)
    kinds = [type(layer) for layer in network.hidden]
    assert kinds == 3 * [nn.Linear, BatchNorm, nn.Softplus, nn.Dropout]
    n_parameters = sum(p.numel() for p in network.parameters())
    assert n_parameters == (3 * 8 + 8 * 8 + 8 * 8) + 3 * 2 * 8 + (8 * 2 + 2)
    assert len(MLP((3,), (2,), n_hidden_layers=0).hidden) == 0
    with pytest.raises(ValueError, match="'Rellu'"):
        MLP((3,), (2,), activation="Rellu")


@pytest.mark.parametrize("side, n_halvings", [(4, 1), (28, 4), (96, 6)])
def test_a_cnn_halves_its_images_to_a_core_and_the_decoder_mirrors_it(side, n_halvings):
    encoder, decoder = CNN((1, side, side), (6,), 4), CNNDecoder((6,), (1, side, side), 4)
    down = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    up = [m for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert len(down) == len(up) == n_halvings
    assert [m.in_channels for m in down] == [m.out_channels for m in reversed(up)]
    assert [m.out_channels for m in down] == [m.in_channels for m in reversed(up)]
    assert all(b.out_channels == 2 * a.out_channels for a, b in pairwise(down))
    assert encoder(torch.zeros(2, 1, side, side)).shape == (2, 6)
    assert decoder(torch.zeros(2, 6)).shape == (2, 1, side, side)


PROBE, FANCY = {"hid_dim": 2048, "is_batchnorm": True}, {"hid_dim": 1024, "is_batchnorm": True}


@pytest.mark.parametrize(
    ("make", "n_parameters"),
    [
        (lambda: MLP((2,), (2,), **FANCY), 1_056_770),  # Banana
        (lambda: MLP((2,), (1,), **PROBE), 4_208_641),
        (lambda: MLP((128,), (10,), **PROBE), 4_485_130),
        (lambda: ResNet((1, 32, 32), (128,)), 11_233_344),
        (lambda: ResNet((3, 96, 96), (10,)), 11_173_962),
        (lambda: CNNDecoder((128,), (1, 32, 32)), 519_393),
        (lambda: CNNDecoder((128,), (3, 96, 96)), 6_814_499),
        (lambda: Balle((3, 96, 96), (8192,)), 4_116_864),
        (lambda: BalleDecoder((8192,), (3, 96, 96)), 4_116_739),
        (lambda: MLP((128,), (64,), 128, 1), 24_768),  # BINCE's projector
    ],
)
def test_networks_have_as_many_parameters_as_those_of_the_paper(make, n_parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in make().parameters()) == n_parameters


@pytest.mark.parametrize("name", ["linear", "mlp", "cnn", "cnn_decoder", "balle", "balle_decoder"])
def test_weights_are_drawn_as_in_the_paper(name):
    """Kaiming: uniform with fan-in for linear layers, normal with fan-out for convolutions."""
    torch.manual_seed(0)
    widths = {} if name == "linear" else {"hid_dim": 64}
    network = ARCHITECTURES[name](*SHAPES[name], **widths)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            bound = (6 / module.in_features) ** 0.5
            assert module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.25)
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            fan_out = module.weight.shape[0] * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
        else:
            continue
        assert module.bias is None or not module.bias.any()


def test_images_are_standardised_as_torchvision_does():
    mean, std = [0.5, 0.4, 0.1], [0.2, 0.3, 1.5]
    standardize, x = Standardize((3, 4, 5), mean, std), torch.rand(6, 3, 4, 5)
    torch.testing.assert_close(standardize(x), normalize(x, mean, std))
    moments = Standardize((3, 4, 5), x.mean((0, 2, 3)).tolist(), x.std((0, 2, 3)).tolist())(x)
    torch.testing.assert_close(moments.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(moments.std((0, 2, 3)), torch.ones(3))
    assert standardize.state_dict() == {}  # properties of the data, not weights


@pytest.mark.parametrize(
    "in_shape, mean, std",
    [
        ((1, 4, 4), [0.5], None),
        ((3, 4, 4), [0.5], [0.2]),
        ((3, 4, 4), [0.5] * 3, [0.2] * 2),
        ((3,), [0.5] * 3, [0.2] * 3),
        ((2, 4, 4), [0.5] * 2, [0.2, 0.0]),
    ],
)
def test_invalid_mean_and_std_raise_errors(in_shape, mean, std):
    with pytest.raises(ValueError, match=re.escape(f"std={std}")):
        Standardize(in_shape, mean, std)
