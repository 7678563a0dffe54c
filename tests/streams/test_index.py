from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.index import FrameIndex


@given(
    st.lists(st.integers(-(2**33), 2**33), min_size=1, max_size=20, unique=True),
    st.fractions(Fraction(1, 90_000), Fraction(1, 24), max_denominator=90_000),
    st.integers(-(10**9), 10**9),
)
def test_seconds_are_what_exact_arithmetic_says(ticks: list[int], tick_seconds: Fraction, start_microseconds: int):
    start = Fraction(start_microseconds, 1_000_000)
    index = FrameIndex(np.sort(np.array(ticks)), np.array([min(ticks)]), tick_seconds, start, "mov", "h264")
    expected = [float(tick * tick_seconds - start) for tick in sorted(ticks)]
    np.testing.assert_allclose(index.seconds, expected, atol=1e-6)
