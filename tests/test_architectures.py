"""Every architecture maps in_shape to out_shape; what an option promises holds."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from lossyless.architectures import CNN, MLP, CNNDecoder, Identity, Linear

SHAPES = {
    "identity": ((3,), (3,)),
    "linear": ((1, 4, 4), (2, 3)),
    "mlp": ((1, 4, 4), (2, 3)),
    "cnn": ((3, 16, 16), (5,)),
    "cnn_decoder": ((5,), (3, 16, 16)),
}


ARCHITECTURES = {
    "identity": Identity,
    "linear": Linear,
    "mlp": MLP,
    "cnn": CNN,
    "cnn_decoder": CNNDecoder,
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_examples_have_the_shapes_that_were_asked_for(name):
    in_shape, out_shape = SHAPES[name]
    network = ARCHITECTURES[name](in_shape, out_shape)
    assert network(torch.randn(7, *in_shape)).shape == (7, *out_shape)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_in_evaluation_an_example_does_not_depend_on_its_batch(name):
    in_shape, out_shape = SHAPES[name]
    network = ARCHITECTURES[name](in_shape, out_shape).eval()
    x = torch.randn(7, *in_shape)
    torch.testing.assert_close(network(x)[:1], network(x[:1]))


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "identity"])
def test_every_parameter_and_every_input_matters(name):
    in_shape, out_shape = SHAPES[name]
    network = ARCHITECTURES[name](in_shape, out_shape)
    x = torch.randn(16, *in_shape, requires_grad=True)
    network(x).square().sum().backward()
    assert (x.grad.abs().sum(0) > 0).all()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())


def test_the_identity_keeps_its_input_and_refuses_to_change_shapes():
    x = torch.randn(2, 3)
    assert Identity((3,), (3,))(x) is x
    with pytest.raises(ValueError, match="in_shape=.3,. and out_shape=.4,."):
        Identity((3,), (4,))


def test_linear_is_affine():
    network = Linear((2, 3), (4,))
    a, b = torch.randn(2, 5, 2, 3)
    torch.testing.assert_close(network(0.3 * a + 0.7 * b), 0.3 * network(a) + 0.7 * network(b))


def test_the_options_of_an_mlp_make_its_layers():
    network = MLP((3,), (2,), 8, 3, activation="Softplus", is_batchnorm=True, dropout=0.5)
    kinds = [type(layer) for layer in network.hidden]
    assert kinds == 3 * [nn.Linear, nn.BatchNorm1d, nn.Softplus, nn.Dropout]
    n_parameters = sum(p.numel() for p in network.parameters())
    assert n_parameters == (3 * 8 + 8 * 8 + 8 * 8) + 3 * 2 * 8 + (8 * 2 + 2)
    assert len(MLP((3,), (2,), n_hidden_layers=0).hidden) == 0


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="unknown activation 'Rellu'"):
        MLP((3,), (2,), activation="Rellu")


@pytest.mark.parametrize("side", [8, 32])
def test_a_cnn_halves_its_images_to_4_x_4_and_the_decoder_mirrors_it(side):
    encoder, decoder = CNN((1, side, side), (6,), 4), CNNDecoder((6,), (1, side, side), 4)
    n_halvings = math.log2(side / 4)
    down = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    up = [m for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert len(down) == len(up) == n_halvings
    assert [m.in_channels for m in down] == [m.out_channels for m in reversed(up)]
    assert [m.out_channels for m in down] == [m.in_channels for m in reversed(up)]
    assert all(b.out_channels <= 2 * a.out_channels for a, b in pairwise(down))


@pytest.mark.parametrize("shape", [(3, 16, 32), (3, 4, 4), (3, 24, 24), (16,)])
def test_a_cnn_says_which_images_it_takes(shape):
    for make in (lambda: CNN(shape, (2,)), lambda: CNNDecoder((2,), shape)):
        with pytest.raises(ValueError, match="CNN (needs square images|works on images)"):
            make()
