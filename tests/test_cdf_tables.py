"""Tables are checked when they are made, and say what symbols cost."""

import numpy as np
import pytest

from lossyless.cdf_tables import CDFTables
from lossyless.payloads import INT32, CodingError


def test_information_of_listed_and_escaped_symbols_in_closed_form():
    tables = CDFTables([[0, 16384, 49152, 65536]], [4], [-1])
    n_bits = tables.information([[-1, 0, 1, -2, INT32.max, INT32.min]], np.zeros(6, int))
    np.testing.assert_allclose(n_bits, [[2, 1, 34, 34, 34, 34]])


@pytest.mark.parametrize(
    "cdfs, lengths, offsets, match",
    [
        ([[0, 65536]], [2, 2], [0], "one length and one offset"),
        ([0, 65536], [2], [0], "cdfs: expected 2-D"),
        ([[0.0, 65536.0]], [2], [0], "cdfs: expected 2-D integers"),
        ([[0, 65536]], [3], [0], r"lengths\[0\]"),
        ([[0, 65536]], [1], [0], r"lengths\[0\]"),
        ([[0, 65536]], [-5], [0], r"lengths\[0\]"),
        ([[1, 65536]], [2], [0], "from 0 to 65536"),
        ([[0, 65535]], [2], [0], "from 0 to 65536"),
        ([[0, 9, 9, 65536]], [4], [0], "rise strictly"),
        ([[0, 9, 65536]], [3], [2**31 - 1], "beyond int32"),
        ([[0, 9, 65536]], [3], [2**31], "int32"),
    ],
)
def test_bad_tables_raise(cdfs, lengths, offsets, match):
    with pytest.raises(CodingError, match=match):
        CDFTables(cdfs, lengths, offsets)


def test_fingerprint_depends_on_the_tables_and_not_on_their_padding():
    base = CDFTables([[0, 9, 65536, 3], [0, 8, 9, 65536]], [3, 4], [0, 1])
    padded = CDFTables([[0, 9, 65536, 7, 7], [0, 8, 9, 65536, 7]], [3, 4], [0, 1])
    others = [
        CDFTables([[0, 9, 65536, 3], [0, 8, 10, 65536]], [3, 4], [0, 1]),
        CDFTables([[0, 9, 65536, 3], [0, 8, 9, 65536]], [3, 4], [1, 1]),
        CDFTables([[0, 9, 65536]], [3], [0]),
        CDFTables([[0, 8, 9, 65536], [0, 9, 65536, 3]], [4, 3], [0, 1]),
    ]
    assert base.fingerprint() == padded.fingerprint() and len(base.fingerprint()) == 16
    assert len({tables.fingerprint() for tables in [base, *others]}) == 5
