"""Chunks of one size hold the rows of batches of any, in memory of their own."""

import pytest
import torch

from lossyless.regrouping import regroup

SIZES = [1, 3, 5, 8, 10, 100]
SPLITS = [[4, 1, 5], [10], [1] * 10, [5, 5], [0, 7, 0, 3, 0]]


@pytest.mark.parametrize("shape", [(), (2,), (3, 4, 4)])
@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_regrouping_keeps_rows_in_order(size, split, shape):
    rows = torch.randn(10, *shape)
    chunks = list(regroup(rows.split(split), size))
    assert torch.equal(torch.cat(chunks), rows)
    assert {len(chunk) for chunk in chunks[:-1]} <= {size} and 1 <= len(chunks[-1]) <= size


@pytest.mark.parametrize("size", SIZES)
def test_chunks_stay_as_they_are_when_batches_are_reused(size):
    rows = torch.randn(20, 3)

    def batches():
        buffer = torch.empty(5, 3)
        for part in rows.split(5):
            yield buffer.copy_(part)
        buffer.zero_()

    assert torch.equal(torch.cat(list(regroup(batches(), size))), rows)


def test_chunks_are_made_when_they_are_needed():
    taken = []

    def batches():
        for i in range(9):
            taken.append(i)
            yield torch.ones(4, 2, dtype=torch.int16)

    chunks = regroup(batches(), 6)
    for n_taken in (2, 3, 5):
        assert next(chunks).dtype == torch.int16 and len(taken) == n_taken


def test_no_rows_are_no_chunks():
    assert list(regroup([], 3)) == list(regroup([torch.empty(0, 2)], 3)) == []
