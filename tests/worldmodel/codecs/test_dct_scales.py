import torch
from hypothesis import given
from hypothesis import strategies as st

from worldmodel.codecs.dct_scales import BandLayout, differences, sums
from worldmodel.layout import Scale

LAYOUT = BandLayout((4, 6), (2, 3), (1, 3, 16))


def test_coefficients_lie_band_by_band_chroma_first_plane_by_plane_and_come_back():
    luma = torch.arange(16 * 24).view(1, 1, 16, 4, 6)
    chroma = 1000 + torch.arange(2 * 16 * 6).view(1, 2, 16, 2, 3)
    flat = LAYOUT.flatten(luma, chroma)
    expected = []
    for start, stop in ((0, 1), (1, 3), (3, 16)):
        expected += [chroma[0, plane, k].flatten() for plane in (0, 1) for k in range(start, stop)]
        expected += [luma[0, 0, k].flatten() for k in range(start, stop)]
    assert torch.equal(flat[0], torch.cat(expected))
    assert all(torch.equal(a, b) for a, b in zip(LAYOUT.unflatten(flat), (luma, chroma), strict=True))


def test_the_scales_hold_every_value_up_to_the_bounds_of_their_frequencies():
    luma, chroma = [20, 9, 12, *range(13)], [8, 3, 2, *range(13)]
    assert LAYOUT.scales(luma, chroma) == [
        Scale(2, 3, 17, 2),
        Scale(4, 6, 41, 1),
        Scale(2, 3, 7, 4),
        Scale(4, 6, 25, 2),
        Scale(2, 3, 25, 26),
        Scale(4, 6, 25, 13),
    ]


def test_a_table_is_spread_over_all_places_of_its_frequencies():
    tables = torch.stack((torch.arange(16), 100 + torch.arange(16)))[None]
    luma, chroma = LAYOUT.unflatten(LAYOUT.spread(tables))
    assert torch.equal(luma[0, 0, :, 3, 5], tables[0, 0])
    assert torch.equal(chroma[0, 1, :, 1, 2], tables[0, 1])


@given(st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_differences_need_no_larger_vocabulary_and_give_the_values_back(bound: int, seed: int):
    values = torch.randint(-bound, bound + 1, (2, 2, 3, 5), generator=torch.Generator().manual_seed(seed))
    changes = differences(values, bound)
    assert int(changes.abs().max()) <= bound
    assert torch.equal(sums(changes, bound), values)


def test_a_difference_is_to_the_left_and_at_the_edge_to_the_one_above():
    values = torch.tensor([[[[5, 7, 4], [6, 6, -5]]]])
    assert differences(values, 7).tolist() == [[[[5, 2, -3], [1, 0, 4]]]]  # 6 to -5 is 4 round the circle of 15
