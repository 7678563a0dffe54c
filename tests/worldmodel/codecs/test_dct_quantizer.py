import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldmodel.codecs.dct_quantizer import largest_values, nearest_quality, quantise


def test_values_are_rounded_half_away_from_zero_and_layers_take_what_is_left():
    coefficients = torch.tensor([[11, 12, 13, -12, -11, 35, 36]])
    steps = torch.tensor([24, 6])[None, :, None].expand(1, 2, 7)
    values = quantise(coefficients, steps, None, 0.5)
    assert values[0, 0].tolist() == [0, 1, 1, -1, 0, 1, 2]
    assert values[0, 1].tolist() == [2, -2, -2, 2, -2, 2, -2]  # 11, -12, -11, 12, -11, 11, -12


@given(st.floats(0, 2), st.integers(0, 2**32 - 1))
def test_an_old_value_stays_exactly_where_it_is_at_most_the_margin_worse(margin: float, seed: int):
    generator = np.random.default_rng(seed)
    coefficients, steps = generator.integers(-99, 100, (2, 9)), 2 * generator.integers(1, 20, (1, 1, 9))
    old = generator.integers(-3, 4, (2, 1, 9))
    given_ = (torch.from_numpy(coefficients), torch.from_numpy(steps), torch.from_numpy(old))
    values = quantise(*given_, margin)
    for (item, at), coefficient in np.ndenumerate(coefficients):
        step, was = int(steps[0, 0, at]), int(old[item, 0, at])
        new = int(np.sign(coefficient)) * ((abs(int(coefficient)) + step // 2) // step)
        worse = (int(coefficient) - was * step) ** 2 - (int(coefficient) - new * step) ** 2
        stays = margin > 0 and worse <= margin * step**2
        assert int(values[item, 0, at]) == (was if stays else new)


@given(st.floats(0, 2), st.integers(0, 2**32 - 1))
def test_no_value_is_larger_than_the_largest_and_extremes_reach_it(margin: float, seed: int):
    generator = np.random.default_rng(seed)
    tables = np.sort(2 * generator.integers(1, 100, (2, 1, 5)), 0)[::-1].repeat(2, 1)
    peaks = generator.integers(1, 900, 5).astype(float)
    (first, _), (second, _) = largest_values(peaks, tables, margin)
    steps = torch.from_numpy(tables[:, 0].copy())[None]
    previous = None
    for _ in range(6):
        coefficients = torch.from_numpy(np.rint(generator.uniform(-1, 1, (8, 5)) * peaks).astype(np.int64))
        previous = quantise(coefficients, steps, previous, margin)
        assert (previous[:, 0].abs() <= torch.tensor(first)).all()
        assert (previous[:, 1].abs() <= torch.tensor(second)).all()
    top = quantise(torch.from_numpy(peaks.astype(np.int64))[None], steps, None, margin)
    assert top[0, 0].tolist() == first


@pytest.mark.parametrize("num_qualities", [1, 2, 3, 7, 64, 98])
def test_the_nearest_quality_is_what_trying_all_of_them_finds(num_qualities: int):
    generator = torch.Generator().manual_seed(num_qualities)
    bits = torch.randint(1, 50, (20, num_qualities), generator=generator).cumsum(1)
    for target in (0, 30, 300, 1000, 10**6):
        found = nearest_quality(lambda at: bits.gather(1, at[:, None])[:, 0], num_qualities, target, bits)
        misses = (bits - target).abs()
        assert torch.equal(misses.gather(1, found[:, None])[:, 0], misses.amin(1))
