import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel.sight import PIECE_QUERIES, UNCUT_QUERIES, Sight, pieces_of

CPU = torch.device("cpu")


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 7), st.integers(0, 3))
def test_a_frame_sees_the_window_and_nothing_else(num_frames: int, num_tokens: int, window_frames: int, num_past: int):
    mask = Sight.of_frames(num_frames, num_tokens, window_frames, num_past).mask()
    assert mask.shape == (num_frames * num_tokens, (num_past + num_frames) * num_tokens)
    for query in range(mask.shape[0]):
        for key in range(mask.shape[1]):
            back = num_past + query // num_tokens - key // num_tokens
            assert mask[query, key] == (0 <= back <= window_frames - 1)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 4))
def test_a_scale_sees_the_prefix_and_the_scales_up_to_its_own(sizes: list[int], prefix: int):
    mask = Sight.of_scales(sizes, prefix).mask()
    scale_of = [scale for scale, size in enumerate(sizes) for _ in range(size)]
    assert mask.shape == (len(scale_of), prefix + len(scale_of))
    for query, scale in enumerate(scale_of):
        assert mask[query, :prefix].all()
        assert mask[query, prefix:].tolist() == [other <= scale for other in scale_of]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 7), st.integers(0, 3), st.integers(1, 20))
def test_pieces_put_together_are_the_mask(frames: int, tokens: int, window: int, past: int, piece_queries: int):
    sight = Sight.of_frames(frames, tokens, window, past)
    mask, seen = sight.mask(), torch.zeros_like(sight.mask())
    pieces = sight.cut(piece_queries)
    for piece in pieces:
        seen[piece.queries, piece.keys] |= True if piece.mask is None else piece.mask
    assert torch.equal(seen, mask)
    assert [piece.queries.start for piece in pieces] == [0, *(piece.queries.stop for piece in pieces[:-1])]
    sizes = [piece.queries.stop - piece.queries.start for piece in pieces]
    assert all(size >= piece_queries for size in sizes[:-1])
    assert sum(sizes) == sight.num_queries


def test_frames_of_many_tokens_need_no_mask_and_a_few_tokens_one_call():
    many = pieces_of(Sight.of_frames(8, PIECE_QUERIES, 4), CPU, cut=True)
    assert len(many) == 8
    assert all(piece.mask is None for piece in many)
    few = pieces_of(Sight.of_frames(UNCUT_QUERIES // 16, 16, 4), CPU, cut=True)
    assert len(few) == 1
    assert len(pieces_of(Sight.of_frames(8, PIECE_QUERIES, 4), CPU, cut=False)) == 1


def test_the_finest_scale_needs_no_mask():
    coarse, fine = pieces_of(Sight.of_scales([1, 4, 16, 64, 256], 64), CPU, cut=True)
    assert coarse.mask is not None
    assert coarse.mask.shape == (85, 149)
    assert (fine.queries, fine.keys, fine.mask) == (slice(85, 341), slice(0, 405), None)


def test_one_group_sees_all_without_a_mask():
    assert Sight.of_frames(1, 5, 3, 4).whole().mask is None


@torch.inference_mode()
def test_masks_that_inference_made_serve_a_gradient_later():
    sight = Sight.of_frames(3, 7, 2)
    mask = pieces_of(sight, CPU, cut=True)[0].mask
    assert mask is not None
    assert not mask.is_inference()


@pytest.mark.parametrize("cut", [True, False])
def test_calls_are_made_once_for_all_blocks(cut: bool):
    one, other = Sight.of_frames(30, 17, 5), Sight.of_frames(30, 17, 5)
    assert pieces_of(one, CPU, cut) is pieces_of(other, CPU, cut)
