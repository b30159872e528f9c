"""Several processes compute the same losses and gradients as one."""

import copy
from functools import partial

import pytest
import torch
import torch.distributed as dist
from helpers.processes import in_processes

from lossyless.all_gather import gather, own_rows
from lossyless.architectures import MLP
from lossyless.distortions import ContrastiveDistortion
from utils.training.distributed import GatheredBatchNorm

N_PROCESSES = 2
PROJECTOR = partial(MLP, hid_dim=16, n_hidden_layers=1)


def in_group(function, *args):
    dist.init_process_group("gloo")
    try:
        return function(*args)
    finally:
        dist.destroy_process_group()


def shares(function, *args):
    return in_processes(N_PROCESSES, in_group, function, *args)


def averaged_gradients(module):
    """The gradients that `DistributedDataParallel` would compute."""
    for parameter in module.parameters():
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()
    return [parameter.grad.numpy() for parameter in module.parameters()]


def loss_of_share(distortion, a, b):
    a, b = own_rows(a), own_rows(b)
    distortions, logs = distortion(a, b)
    distortions.mean().backward()
    return distortions.detach().numpy(), averaged_gradients(distortion), logs["I_q_zm"].item()


def test_the_contrastive_loss_over_processes_equals_that_of_the_batch():
    torch.manual_seed(0)
    options = {"initial_temperature": 0.3, "effective_batch_size": 300}
    distortion = ContrastiveDistortion(6, PROJECTOR, **options).double()
    a, b = torch.randn(2, 8, 6).double()
    found = shares(loss_of_share, copy.deepcopy(distortion), a, b)
    distortions, logs = distortion(a, b)
    distortions.mean().backward()
    close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
    close(torch.cat([torch.from_numpy(f[0]) for f in found]), distortions.detach())
    assert sum(f[2] for f in found) / 2 == pytest.approx(logs["I_q_zm"].item(), rel=1e-5)
    for _, gradients, _ in found:
        for gradient, parameter in zip(gradients, distortion.parameters(), strict=True):
            close(torch.from_numpy(gradient), parameter.grad)
    assert distortion.log_temperature.grad != 0


def evaluated(distortion, a, b):
    with torch.no_grad():
        return distortion(a, b)[0].numpy()


def test_evaluation_gathers_nothing_and_training_needs_equal_shares():
    distortion = ContrastiveDistortion(6, PROJECTOR).eval()
    a, b = torch.randn(2, 5, 6)
    expected = evaluated(distortion, a, b)
    for found in shares(evaluated, distortion, a, b):
        assert (found == expected).all()
    for found in shares(unequal, a, b):
        assert "[6, 8] rows" in found and "a multiple of 2" in found
    assert gather(a) is a  # in a single process


def unequal(a, b):
    n = 3 + dist.get_rank()
    return ContrastiveDistortion(6, PROJECTOR)(a[:n], b[:n])


def normalised(module, x):
    sync = GatheredBatchNorm()
    sync.apply(module)
    out = module(own_rows(x))
    out.square().mean().backward()
    gradients = averaged_gradients(module)
    sync.revert(module)
    return out.detach().numpy(), gradients, module(own_rows(x)).detach().numpy()


def test_batch_normalisation_uses_the_whole_batch_until_training_ends():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    x = torch.randn(6, 3, 2, 2)
    found = shares(normalised, copy.deepcopy(module), x)
    expected = module(x)
    expected.square().mean().backward()
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
    close(torch.cat([torch.from_numpy(f[0]) for f in found]), expected.detach())
    for (_, gradients, after), rows in zip(found, x.chunk(2), strict=True):
        for gradient, parameter in zip(gradients, module.parameters(), strict=True):
            close(torch.from_numpy(gradient), parameter.grad)
        close(torch.from_numpy(after), module(rows).detach())  # own rows only, again
