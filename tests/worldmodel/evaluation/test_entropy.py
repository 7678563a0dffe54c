import numpy as np
import pytest

from worldmodel.evaluation import entropy
from worldmodel.evaluation.entropy import Model, coded_bits, decode_plane, encode_plane
from worldmodel.evaluation.metrics import entropy_bits
from worldmodel.layout import Pyramid, Scale

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
    words = encode_plane(codes.astype(np.uint16), vocabulary, model)
    np.testing.assert_array_equal(decode_plane(words, shape, vocabulary, model), codes)


def test_another_model_reads_something_else():
    codes = sticky((2, 6, 16), 40, 0.3)
    words = encode_plane(codes, 40, "in_time")
    assert not np.array_equal(decode_plane(words, codes.shape, 40, "alone"), codes)


def test_independent_codes_take_their_entropy_and_a_little_for_learning_it():
    codes = skewed((20, 50, 32), 64)
    bits = 32 * len(encode_plane(codes, 64, "alone"))
    least = entropy_bits(np.bincount(codes.ravel())) * codes.size
    # The best adaptive codes need about (entries - 1) / 2 * log2(codes) bits more (Rissanen 1984); here twice as many.
    assert least < bits < least + 63 * np.log2(codes.size)


def test_the_code_length_is_that_of_the_counts_summed_by_hand():
    codes = skewed((4, 10, 8), 16, seed=3)
    counts, expected = [0] * 16, 0.0
    for frame in codes.reshape(-1, 8):
        total, seen = sum(counts), sum(count > 0 for count in counts)
        for code in frame:
            if total == 0:
                share = 1 / 16
            elif seen == 16:
                share = counts[code] / total
            else:  # an escape, as often as something was new, and then any of the others
                share = (counts[code] or seen / (16 - seen)) / (total + seen)
            expected -= np.log2(share)
        for code in frame:
            counts[code] += 1
    assert 0 <= 32 * len(encode_plane(codes, 16, "alone")) - expected <= 64


@pytest.mark.parametrize("vocabulary", [2, 64])
def test_sticky_codes_take_the_entropy_of_their_changes(vocabulary: int):
    change = 0.1
    codes = sticky((4, 200, 32), vocabulary, change)
    rate = -change * np.log2(change / (vocabulary - 1)) - (1 - change) * np.log2(1 - change)
    expected = 4 * 32 * (np.log2(vocabulary) + 199 * rate)
    assert 32 * len(encode_plane(codes, vocabulary, "in_time")) == pytest.approx(expected, rel=0.03)
    assert len(encode_plane(codes, vocabulary, "alone")) > 1.5 * len(encode_plane(codes, vocabulary, "in_time"))


def test_changes_that_come_together_are_cheaper_than_scattered_ones():
    still, moving = np.zeros((1, 100, 64), int), skewed((1, 100, 64), 4)
    together = np.where(np.arange(64) < 16, moving, still)
    scattered = together[..., np.random.default_rng(0).permutation(64)]
    assert len(encode_plane(together, 4, "in_time")) < len(encode_plane(scattered, 4, "in_time"))


def test_many_changes_at_once_are_coded_in_parts(monkeypatch: pytest.MonkeyPatch):
    codes = sticky((1, 4, 32), 100, 0.9)
    whole = encode_plane(codes, 100, "in_time")
    monkeypatch.setattr(entropy, "ROW_ENTRIES", 300)
    np.testing.assert_array_equal(encode_plane(codes, 100, "in_time"), whole)


@pytest.mark.parametrize("model", MODELS)
def test_a_single_entry_costs_next_to_nothing(model: Model):
    codes = np.zeros((10, 20, 4), int)
    words = encode_plane(codes, 1, model)
    np.testing.assert_array_equal(decode_plane(words, codes.shape, 1, model), codes)
    assert 32 * len(words) <= 64


def test_bits_are_given_for_every_scale():
    coarse, fine = skewed((3, 4, 1), 8), skewed((3, 4, 16), 32)
    pyramid = Pyramid((Scale(1, 1, 8), Scale(4, 4, 32)))
    bits = coded_bits(np.concatenate([coarse, fine], 2), pyramid, "alone")
    assert bits == [32 * len(encode_plane(coarse, 8, "alone")), 32 * len(encode_plane(fine, 32, "alone"))]


def test_planes_of_a_scale_are_counted_apart():
    class Planes(Scale):
        """Two codes at every place."""

        @property
        def num_codes(self) -> int:
            return 2 * self.height * self.width

    low, high = skewed((3, 20, 16), 4), 4 + skewed((3, 20, 16), 4, seed=1)
    (bits,) = coded_bits(np.concatenate([low, high], 2), Pyramid((Planes(4, 4, 8),)), "alone")
    assert bits == 32 * (len(encode_plane(low, 8, "alone")) + len(encode_plane(high, 8, "alone")))
    assert bits < 32 * len(encode_plane(np.concatenate([low, high], 2), 8, "alone"))
