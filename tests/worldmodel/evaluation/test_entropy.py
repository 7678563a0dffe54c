import numpy as np
import pytest

from worldmodel.evaluation import entropy
from worldmodel.evaluation.entropy import Model, coded_bits, decode_scale, encode_scale
from worldmodel.evaluation.metrics import entropy_bits

MODELS: tuple[Model, ...] = ("alone", "in_time")


def skewed(shape: tuple[int, int, int], vocabulary: int, seed: int = 0) -> np.ndarray:
    """Independent codes, of which few are common."""
    shares = 1.0 / np.arange(1, vocabulary + 1)
    return np.random.default_rng(seed).choice(vocabulary, shape, p=shares / shares.sum())


def sticky(shape: tuple[int, int, int], vocabulary: int, change: float) -> np.ndarray:
    """Codes that change with this probability from frame to frame, to any other one."""
    generator = np.random.default_rng(1)
    codes = generator.integers(0, vocabulary, shape)
    for frame in range(1, shape[1]):
        other = (codes[:, frame - 1] + generator.integers(1, vocabulary, codes[:, frame].shape)) % vocabulary
        codes[:, frame] = np.where(generator.random(other.shape) < change, other, codes[:, frame - 1])
    return codes


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [(3, 5, 16), (2, 1, 4), (1, 6, 1)])
@pytest.mark.parametrize("vocabulary", [2, 40, 5000])
def test_codes_come_back_as_they_were(model: Model, shape: tuple[int, int, int], vocabulary: int):
    codes = sticky(shape, vocabulary, 0.3)
    words = encode_scale(codes.astype(np.uint16), vocabulary, model)
    np.testing.assert_array_equal(decode_scale(words, shape, vocabulary, model), codes)


def test_another_model_reads_something_else():
    codes = sticky((2, 6, 16), 40, 0.3)
    words = encode_scale(codes, 40, "in_time")
    assert not np.array_equal(decode_scale(words, codes.shape, 40, "alone"), codes)


def test_independent_codes_take_their_entropy_and_a_little_for_learning_it():
    codes = skewed((20, 50, 32), 64)
    bits = 32 * len(encode_scale(codes, 64, "alone"))
    least = entropy_bits(np.bincount(codes.ravel())) * codes.size
    # Krichevsky and Trofimov's counts cost at most (entries - 1) / 2 * log2(codes) bits more, and some constant.
    assert least < bits < least + 63 / 2 * np.log2(codes.size) + 200


def test_the_code_length_is_that_of_the_counts_summed_by_hand():
    codes = skewed((4, 10, 8), 16, seed=3)
    counts, expected = np.full(16, 0.5), 0.0
    for frame in codes.reshape(-1, 8):
        for code in frame:
            expected -= np.log2(counts[code] / counts.sum())
        for code in frame:
            counts[code] += 1
    assert 0 <= 32 * len(encode_scale(codes, 16, "alone")) - expected <= 64


@pytest.mark.parametrize("vocabulary", [2, 64])
def test_sticky_codes_take_the_entropy_of_their_changes(vocabulary: int):
    change = 0.1
    codes = sticky((8, 200, 32), vocabulary, change)
    rate = -change * np.log2(change / (vocabulary - 1)) - (1 - change) * np.log2(1 - change)
    expected = 8 * 32 * (np.log2(vocabulary) + 199 * rate)
    assert 32 * len(encode_scale(codes, vocabulary, "in_time")) == pytest.approx(expected, rel=0.02)
    assert len(encode_scale(codes, vocabulary, "alone")) > 1.5 * len(encode_scale(codes, vocabulary, "in_time"))


def test_changes_that_come_together_are_cheaper_than_scattered_ones():
    still, moving = np.zeros((1, 100, 64), int), skewed((1, 100, 64), 4)
    together = np.where(np.arange(64) < 16, moving, still)
    scattered = together[..., np.random.default_rng(0).permutation(64)]
    assert len(encode_scale(together, 4, "in_time")) < len(encode_scale(scattered, 4, "in_time"))


def test_many_changes_at_once_are_coded_in_parts(monkeypatch: pytest.MonkeyPatch):
    codes = sticky((1, 4, 32), 100, 0.9)
    whole = encode_scale(codes, 100, "in_time")
    monkeypatch.setattr(entropy, "ROW_ENTRIES", 300)
    np.testing.assert_array_equal(encode_scale(codes, 100, "in_time"), whole)


def test_bits_are_given_for_every_scale():
    coarse, fine = skewed((3, 4, 1), 8), skewed((3, 4, 16), 32)
    bits = coded_bits(np.concatenate([coarse, fine], 2), (slice(0, 1), slice(1, 17)), (8, 32), "alone")
    assert bits == [32 * len(encode_scale(coarse, 8, "alone")), 32 * len(encode_scale(fine, 32, "alone"))]
