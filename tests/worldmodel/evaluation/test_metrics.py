import numpy as np
import pytest
import torch

from worldmodel.evaluation.metrics import (
    bootstrap_interval,
    code_divergence_bits,
    entropy_bits,
    psnr,
    unigram_entropy_bits,
)


def test_psnr_is_that_of_the_textbook():
    reference = torch.randint(0, 200, (2, 3, 3, 8, 8), dtype=torch.uint8)
    values = psnr(reference + 10, reference)
    assert values.shape == (2, 3)
    assert values == pytest.approx(20 * np.log10(255 / 10))


def test_equal_frames_have_infinite_psnr_and_no_value_wraps_around():
    dark, bright = torch.zeros(3, 4, 4, dtype=torch.uint8), torch.full((3, 4, 4), 255, dtype=torch.uint8)
    assert psnr(dark, dark) == np.inf
    assert psnr(dark, bright) == psnr(bright, dark) == 0


def test_an_interval_covers_the_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(generator.normal(3, 2, 50), generator, num_draws=300)
        covered += low < 3 < high
    assert 0.88 <= covered / 200 <= 0.99


def test_an_interval_is_that_of_the_normal_distribution_for_many_values():
    values = np.random.default_rng(1).normal(0, 1, 400)
    low, high = bootstrap_interval(values, np.random.default_rng(2))
    half = 1.96 * values.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)
    assert (low, high) == bootstrap_interval(values, np.random.default_rng(2))


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval(np.zeros(0), np.random.default_rng(0))


def test_entropy_is_that_of_coins_and_dice():
    assert entropy_bits(np.array([5, 5])) == 1
    assert entropy_bits(np.array([7, 0, 0])) == 0
    assert entropy_bits(np.array([1, 1, 1, 1, 1, 1])) == pytest.approx(np.log2(6))
    assert entropy_bits(np.array([3, 1])) == pytest.approx(0.811278, abs=1e-6)


def test_entropy_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no codes were counted"):
        entropy_bits(np.zeros(4, int))


def test_entropy_is_given_for_every_scale():
    codes = np.array([[[0, 1, 2, 3, 4]], [[0, 1, 2, 3, 4]]], dtype=np.uint16)
    assert unigram_entropy_bits(codes, (slice(0, 1), slice(1, 5))) == [0, 2]


def test_codes_that_are_used_alike_do_not_diverge_and_others_by_a_bit_at_most():
    codes, two = np.array([[0, 1, 2], [0, 2, 1]]), (slice(0, 1), slice(1, 3))
    assert code_divergence_bits(codes, codes[::-1], two) == pytest.approx(0)
    assert code_divergence_bits(codes, codes + 5, two) == pytest.approx(1)
    # The first scale is the same, the second has nothing in common.
    assert code_divergence_bits(codes, codes + np.array([0, 5, 5]), two) == pytest.approx(0.5)


def test_divergence_is_the_mean_distance_to_the_mixture():
    first, second = np.array([[0], [0], [0], [1]]), np.array([[0], [1], [1], [2]])
    p, q = np.array([0.75, 0.25, 0.0]), np.array([0.25, 0.5, 0.25])
    mixture = (p + q) / 2
    expected = sum(x * np.log2(x / m) for each in (p, q) for x, m in zip(each, mixture, strict=True) if x > 0) / 2
    assert code_divergence_bits(first, second, (slice(0, 1),)) == pytest.approx(expected)
