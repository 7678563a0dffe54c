import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldmodel.errors import SettingsError
from worldmodel.rollouts.sampling import SURE, check_sampling, move_codes, sample_codes
from worldmodel.settings import SamplingSettings

NUM_DRAWS = 4000
# Distinct by construction, so that "the k most likely" names one set.
LOGITS = st.lists(st.integers(-40, 40), min_size=2, max_size=8, unique=True)


def sampling(temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> SamplingSettings:
    return SamplingSettings(temperature=[temperature], top_k=[top_k], top_p=[top_p])


def softmax(values: list[float]) -> list[float]:
    weights = [math.exp(value - max(values)) for value in values]
    return [weight / sum(weights) for weight in weights]


def naive_chances(values: list[float], temperature: float, top_k: int, top_p: float) -> list[float]:
    """The k most likely codes, then the fewest of them that together reach p of what is left; others are impossible."""
    values = [value / temperature for value in values]
    order = sorted(range(len(values)), key=lambda code: -values[code])[: top_k or None]
    kept, reached = [], 0.0
    for code, chance in zip(order, softmax([values[code] for code in order]), strict=True):
        kept.append(code)
        reached += chance
        if reached >= top_p:
            break
    chances = softmax([values[code] for code in kept])
    return [chances[kept.index(code)] if code in kept else 0.0 for code in range(len(values))]


def numbers(logits: Tensor, seed: int) -> Tensor:
    return torch.rand(logits.shape[:2], generator=torch.Generator().manual_seed(seed))


def frequencies(values: list[float], chosen: SamplingSettings, num_draws: int = NUM_DRAWS) -> Tensor:
    logits = torch.tensor(values, dtype=torch.float32).expand(2, num_draws // 2, -1)
    codes = sample_codes(logits, chosen, 0, numbers(logits, 0))
    return torch.bincount(codes.flatten(), minlength=len(values)) / num_draws


@pytest.mark.parametrize("chosen", [sampling(temperature=0.0), sampling(top_k=1), sampling(temperature=1e-6)])
def test_no_temperature_and_one_code_to_choose_from_mean_the_most_likely_code(chosen: SamplingSettings):
    logits = torch.randn(3, 50, 16)
    assert torch.equal(sample_codes(logits, chosen, 0), logits.argmax(-1))


def test_a_tiny_nucleus_holds_the_most_likely_code():
    logits = torch.randn(3, 50, 16)
    assert torch.equal(sample_codes(logits, sampling(top_p=1e-6), 0), logits.argmax(-1))


@settings(deadline=None, max_examples=40)
@given(LOGITS, st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 9), st.sampled_from([0.3, 0.6, 0.85, 1.0]))
def test_frequencies_follow_a_naive_reference(tenths: list[int], temperature: float, top_k: int, top_p: float):
    values = [tenth / 10 for tenth in tenths]
    expected = torch.tensor(naive_chances(values, temperature, top_k, top_p))
    drawn = frequencies(values, sampling(temperature, top_k, top_p))
    assert (drawn[expected == 0] == 0).all()
    # five standard deviations of a drawn frequency
    assert ((drawn - expected).abs() <= 5 * (expected * (1 - expected) / NUM_DRAWS).sqrt() + 1e-3).all()


@pytest.mark.parametrize("min_p", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_frequencies_follow_min_p_as_a_naive_loop_finds_it(min_p: float, temperature: float):
    values = [0.0, 0.7, 1.9, -1.0, 2.5, 0.2]
    chances = softmax([value / temperature for value in values])
    kept = [chance if chance >= min_p * max(chances) else 0.0 for chance in chances]
    expected = torch.tensor([chance / sum(kept) for chance in kept])
    drawn = frequencies(values, SamplingSettings(temperature=[temperature], min_p=[min_p]))
    assert (drawn[expected == 0] == 0).all()
    assert ((drawn - expected).abs() <= 5 * (expected * (1 - expected) / NUM_DRAWS).sqrt() + 1e-3).all()


def test_frequencies_follow_the_softmax_by_chi_square():
    values, num_draws = [0.0, 0.5, 1.0, 1.5, 2.0, -1.0, -0.5, 0.25], 50_000
    expected = torch.tensor(softmax(values))
    drawn = frequencies(values, sampling(), num_draws)
    chi_square = num_draws * ((drawn - expected).square() / expected).sum()
    assert chi_square < 24.3  # the 99.9 % quantile with 7 degrees of freedom


def test_a_number_takes_the_code_whose_share_of_zero_to_one_it_falls_into():
    logits = torch.tensor([0.2, 0.5, 0.3]).log().expand(1, 5, 3)
    given = torch.tensor([[0.0, 0.19, 0.21, 0.69, 0.71]])
    assert sample_codes(logits, sampling(), 0, given).tolist() == [[0, 0, 1, 1, 2]]


def test_places_are_drawn_independently():
    logits = torch.zeros(200, 50, 2)
    codes = sample_codes(logits, sampling(), 0, numbers(logits, 0)).float()
    correlation = torch.corrcoef(codes.T) - torch.eye(50)
    assert correlation.abs().max() < 0.4  # 200 draws: five standard deviations are 0.35


def test_every_place_uses_its_own_logits():
    best = torch.randint(16, (3, 50))
    logits = 100.0 * torch.nn.functional.one_hot(best, 16)
    assert torch.equal(sample_codes(logits, sampling(top_k=4, top_p=0.9), 0), best)


def test_the_same_seed_draws_the_same_codes_and_another_seed_others():
    logits = torch.randn(2, 100, 16)
    first, second, third = (sample_codes(logits, sampling(), 0, numbers(logits, seed)) for seed in (7, 7, 8))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_drawing_leaves_the_logits_as_they_were():
    logits = torch.randn(1, 10, 16)
    before = logits.clone()
    sample_codes(logits, sampling(0.7, 3, 0.8), 0)
    assert torch.equal(logits, before)


def test_half_precision_logits_can_be_drawn_from():
    logits = torch.randn(2, 10, 16).bfloat16()
    assert torch.equal(sample_codes(logits, sampling(temperature=0.0), 0), logits.float().argmax(-1))
    assert sample_codes(logits, sampling(top_p=0.5), 0).shape == (2, 10)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("vocabulary", [7, 16])
def test_logits_that_are_not_finite_are_an_error_and_no_code(wrong: float, vocabulary: int):
    logits = torch.randn(2, 3, vocabulary)
    logits[1, 2, 4] = wrong
    with pytest.raises(RuntimeError, match="the model predicts no probabilities"):
        sample_codes(logits, sampling(), 0)


def test_every_scale_has_its_own_settings_or_all_share_one():
    logits = torch.randn(1, 200, 16)
    mixed = SamplingSettings(temperature=[1.0, 0.0], top_k=[0], top_p=[1.0, 0.5])
    assert not torch.equal(sample_codes(logits, mixed, 0), logits.argmax(-1))
    assert torch.equal(sample_codes(logits, mixed, 1), logits.argmax(-1))


@pytest.mark.parametrize("num_scales", [1, 3])
def test_the_defaults_pass_the_check(num_scales: int):
    check_sampling(SamplingSettings(), num_scales)
    check_sampling(SamplingSettings([0.0] * num_scales, [5] * num_scales, [0.1] * num_scales), num_scales)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": [1.0, 2.0]}, r"temperature has 2 values \[1.0, 2.0\]: give 1 for all scales, or 3"),
        ({"top_k": []}, r"top_k has 0 values \[\]: give 1 for all scales, or 3"),
        ({"top_p": [0.5] * 4}, "top_p has 4 values .* or 3"),
        ({"temperature": [-0.1]}, "temperature=-0.1 is out of range: it must be 0 or more"),
        ({"temperature": [math.nan]}, "temperature=nan is out of range"),
        ({"top_k": [0, 1, -1]}, r"top_k=-1 is out of range: it must be 0 \(all codes\) or more"),
        ({"top_p": [0.0]}, "top_p=0.0 is out of range: it must be above 0 and at most 1"),
        ({"moved_scales": -1}, r"moved_scales=-1 is out of range: it must be 0 \(all scales are drawn\) or more"),
        ({"min_p": [1.5]}, r"min_p=1.5 is out of range: it must be 0 \(all codes\) to 1"),
        ({"guidance": -1.0}, "guidance=-1.0 is out of range: it must be 0 or more; 1 is none"),
        ({"guidance": math.inf}, "guidance=inf is out of range"),
        ({"preview_scales": 4}, r"preview_scales=4 is out of range: it must be 0 \(no preview\) to 3"),
        ({"top_p": [1.1]}, "top_p=1.1 is out of range: it must be above 0 and at most 1"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(change: dict[str, Any], message: str):
    with pytest.raises(SettingsError, match=message):
        check_sampling(SamplingSettings(**change), 3)


VECTORS = torch.tensor([[[0.0], [1.0], [2.0], [9.0]]])


def moved(shares: list[float], previous: int, draw: float, **settings: Any) -> int:
    """The code of one place with these probabilities."""
    logits = torch.tensor(shares).log()[None, None]
    given = torch.tensor([[previous]]), torch.tensor([[draw]])
    return int(move_codes(logits, SamplingSettings(**settings), 0, VECTORS, *given))


def test_a_place_moves_as_often_as_its_code_is_unlikely():
    draws = [number / 1000 for number in range(1000)]
    kept = [moved([0.3, 0.4, 0.2, 0.1], 0, draw) == 0 for draw in draws]
    assert sum(kept) == pytest.approx(300, abs=1)


def test_a_place_that_moves_takes_the_code_nearest_to_the_mean_of_the_others():
    # Of 1, 2 and 9 with equal shares the mean is 4, nearest to 2; with 9 nearly certain it is 9.
    assert moved([0.4, 0.2, 0.2, 0.2], 0, 0.9) == 2
    assert moved([0.4, 0.05, 0.05, 0.5], 0, 0.9) == 3
    # The mean of 0 and 2 is 1, but that is the code which was to be left: a neighbour is taken.
    assert moved([0.3, 0.4, 0.3, 0.0], 1, 0.9) in (0, 2)


def test_a_place_that_is_nearly_sure_never_moves():
    rest = (1 - SURE) / 3
    assert moved([SURE + 1e-3, rest, rest, rest], 0, 0.9999) == 0


def test_all_places_of_a_frame_move_at_the_same_time():
    logits = torch.tensor([[0.6, 0.2, 0.1, 0.1]]).log().expand(5, 7, 4)
    previous = torch.zeros(5, 7, dtype=torch.long)
    draw = torch.tensor([[0.1], [0.5], [0.59], [0.61], [0.9]])
    codes = move_codes(logits, SamplingSettings(), 0, VECTORS, previous, draw)
    assert (codes != 0).all(1).tolist() == (codes != 0).any(1).tolist() == [False, False, False, True, True]


def test_planes_move_each_by_its_own_codebook():
    logits = torch.tensor([[0.4, 0.2, 0.2, 0.2]]).log().expand(1, 6, 4)
    # Of the second, codes 1, 2 and 3 stand for 7, 8 and 0: the mean is 5, nearest to 7.
    planes = torch.cat((VECTORS, torch.tensor([[[0.0], [7.0], [8.0], [0.0]]])))
    previous, draw = torch.zeros(1, 6, dtype=torch.long), torch.tensor([[0.9]])
    codes = move_codes(logits, SamplingSettings(), 0, planes, previous, draw)
    assert codes.tolist() == [[2, 2, 2, 1, 1, 1]]


def test_what_moves_heeds_temperature_and_top_k():
    assert moved([0.3, 0.4, 0.2, 0.1], 0, 0.9, temperature=[0.0]) == 1
    assert moved([0.3, 0.4, 0.2, 0.1], 0, 0.9, top_k=[2]) == 1  # of the others only 1 is left
    # Between 1 and 9 lies 2, which is not among the three most likely.
    assert moved([0.4, 0.3, 0.0, 0.3], 0, 0.9, top_k=[3]) in (1, 3)
