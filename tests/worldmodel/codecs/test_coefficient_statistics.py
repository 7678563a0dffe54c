import numpy as np
import pytest

from streams.settings import ClipSettings
from tests.jpeg import moving
from worldmodel.codecs.coefficient_statistics import CoefficientStatistics, cross_entropy_bits
from worldmodel.codecs.dct import PictureDCT
from worldmodel.evaluation.metrics import entropy_bits
from worldmodel.settings import DctSettings

CLIPS = ClipSettings(height=32, width=48)


@pytest.mark.parametrize(
    "settings",
    [DctSettings(), DctSettings(dc="value", qualities=(10, 40)), DctSettings(qualities=(5, 60), bits_per_frame=4000)],
)
def test_the_values_of_every_frequency_are_counted_as_a_naive_loop_counts_them(settings: DctSettings):
    codec = PictureDCT(settings, CLIPS)
    codes = codec.encode(moving()[None])
    statistics = CoefficientStatistics(codec)
    statistics.add(codes[:, :2].numpy())
    statistics.add(codes[0, 2:].numpy())
    rows = statistics.rows(statistics)
    assert len(rows) == codec.num_layers * 2 * 64
    scale = 0
    expected = {}
    if codec.adapted:
        scale = 1
    for layer in range(codec.num_layers):
        for band in codec.layout.bands:
            for colour in ("chroma", "luma"):
                about = codec.pyramid.scales[scale]
                planes = (
                    codes[..., codec.pyramid.slices[scale]].unflatten(-1, (about.planes, -1)) - about.vocabulary // 2
                )
                for at, frequency in enumerate(range(band.start, band.stop)):
                    # Of chroma, blue's planes come before red's.
                    mine = planes[:, :, at :: band.stop - band.start].flatten().numpy()
                    expected[layer, colour, frequency] = np.unique(mine, return_counts=True)[1], (mine != 0).sum()
                scale += 1
    for row in rows:
        counts, num_nonzero = expected[row.layer, row.colour, row.frequency]
        assert (row.num_values, row.num_nonzero) == (counts.sum(), num_nonzero)
        assert row.entropy == pytest.approx(entropy_bits(counts))
        assert row.cross_entropy >= row.entropy - 1e-9
        if num_nonzero:
            assert row.entropy_per_nonzero == pytest.approx(row.entropy * counts.sum() / num_nonzero)
            assert row.cross_entropy_per_nonzero == pytest.approx(row.cross_entropy * counts.sum() / num_nonzero)
        else:
            assert row.entropy_per_nonzero == float("inf")


def test_the_cross_entropy_is_the_entropy_where_the_reference_is_alike_and_more_where_it_is_not():
    counts = np.array([1000, 3000, 4000])
    assert cross_entropy_bits(counts, counts) == pytest.approx(entropy_bits(counts), abs=1e-4)
    assert cross_entropy_bits(counts, counts * 1000) == pytest.approx(entropy_bits(counts), abs=1e-6)
    assert cross_entropy_bits(counts, np.zeros(3, np.int64)) == pytest.approx(np.log2(3))
    # All values were the one that the reference never saw: half a time of 8.
    assert cross_entropy_bits(np.array([5, 0]), np.array([0, 7])) == pytest.approx(4)
    with pytest.raises(ValueError, match="no values were counted"):
        cross_entropy_bits(np.zeros(3, np.int64), counts)
