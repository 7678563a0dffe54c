import json

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel.layout import Pyramid, Scale

SCALE = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(2, 4096), st.integers(1, 4))
DESCRIPTIONS = st.lists(SCALE, min_size=1, max_size=6)


def test_a_pyramid_by_hand():
    pyramid = Pyramid((Scale(1, 1, 8), Scale(2, 3, 16), Scale(4, 6, 16)))
    assert [scale.num_codes for scale in pyramid.scales] == [1, 6, 24]
    assert pyramid.num_codes == 31
    assert pyramid.slices == (slice(0, 1), slice(1, 7), slice(7, 31))
    assert pyramid.grid == (4, 6)
    assert pyramid.describe() == [[1, 1, 8], [2, 3, 16], [4, 6, 16]]


def test_a_scale_of_several_planes_has_as_many_codes_at_every_place():
    pyramid = Pyramid((Scale(2, 3, 16, 5), Scale(4, 6, 16)))
    assert pyramid.num_codes == 30 + 24
    assert pyramid.slices == (slice(0, 30), slice(30, 54))
    assert pyramid.describe() == [[2, 3, 16, 5], [4, 6, 16]]  # one plane is written as before there were several


@settings(deadline=None)
@given(DESCRIPTIONS)
def test_the_slices_cut_the_codes_into_scales_without_gap_or_overlap(description: list[tuple[int, int, int, int]]):
    pyramid = Pyramid(tuple(Scale(*scale) for scale in description))
    codes = torch.arange(pyramid.num_codes)
    parts = [codes[part] for part in pyramid.slices]
    assert torch.equal(torch.cat(parts), codes)
    assert [len(part) for part in parts] == [scale.planes * scale.height * scale.width for scale in pyramid.scales]


@settings(deadline=None)
@given(DESCRIPTIONS)
def test_a_description_survives_json_and_reads_back_equal(description: list[tuple[int, int, int, int]]):
    pyramid = Pyramid(tuple(Scale(*scale) for scale in description))
    assert Pyramid.from_description(json.loads(json.dumps(pyramid.describe()))) == pyramid


def test_codes_of_the_whole_frame_lie_in_one_row_and_are_described_as_such():
    pyramid = Pyramid(tuple(Scale(1, num_codes, 16, whole_frame=True) for num_codes in (1, 1, 2)))
    assert pyramid.grid == (1, 4)
    assert pyramid.whole_frame
    assert pyramid.describe() == [[1, 1, 16, 1, 1], [1, 1, 16, 1, 1], [1, 2, 16, 1, 1]]
    assert Pyramid.from_description(json.loads(json.dumps(pyramid.describe()))) == pyramid
    assert not Pyramid((Scale(1, 4, 16),)).whole_frame
