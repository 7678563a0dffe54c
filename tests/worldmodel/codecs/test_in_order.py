import pytest
import torch

from worldmodel.codecs.in_order import encode_views, frame_by_frame


def name_of(latent: torch.Tensor, previous: torch.Tensor | None) -> torch.Tensor:
    """The frame's number, and that of the frame before it."""
    before = torch.full_like(latent, -1) if previous is None else previous[:, :1]
    return torch.cat((latent, before), 1)


@pytest.mark.parametrize("lengths", [[5, 5, 5], [2, 5, 3], [1, 4, 4], [0, 1, 0]])
def test_beginnings_of_clips_have_the_codes_of_whole_clips_and_nothing_comes_after(lengths: list[int]):
    latent = torch.arange(1, 16).view(3, 5, 1)
    encode = frame_by_frame(name_of, 2)
    whole, beginnings = encode(latent, [5, 5, 5]), encode(latent, lengths)
    assert whole[1].tolist() == [[6, -1], [7, 6], [8, 7], [9, 8], [10, 9]]
    for clip, length in enumerate(lengths):
        assert torch.equal(beginnings[clip, :length], whole[clip, :length])
        assert not beginnings[clip, length:].any()


def test_views_see_the_frames_as_they_are_backwards_and_every_second_one():
    numbers = torch.arange(5)[None, :, None].expand(2, -1, -1)
    forwards, backwards, hurried = encode_views(frame_by_frame(name_of, 2), numbers, None)
    assert forwards[1].tolist() == [[0, -1], [1, 0], [2, 1], [3, 2], [4, 3]]
    assert backwards[1].tolist() == [[4, -1], [3, 4], [2, 3], [1, 2], [0, 1]]
    assert hurried[1].tolist() == [[0, -1], [2, 0]]
