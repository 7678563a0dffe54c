import numpy as np
import pytest
import torch
from PIL import Image

from streams.geometry import resize_crop, warp


def smooth_frames(rows: int, columns: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 3, rows), torch.linspace(0, 4, columns), indexing="ij")
    return torch.stack([(torch.sin(x + c) * torch.cos(y) * 100 + 128).to(torch.uint8) for c in range(3)])[None]


def test_frames_of_the_wanted_size_are_returned_as_they_are():
    frames = smooth_frames(16, 24)
    assert resize_crop(frames, 16, 24) is frames


@pytest.mark.parametrize(("rows", "columns"), [(64, 96), (96, 64), (20, 30), (33, 57)])
def test_resizing_is_that_of_pillow(rows: int, columns: int):
    frames = smooth_frames(rows, columns)
    factor = 32 / min(rows, columns)
    fitted = round(rows * factor), round(columns * factor)
    image = Image.fromarray(frames[0].permute(1, 2, 0).numpy()).resize(
        (fitted[1], fitted[0]), Image.Resampling.BILINEAR
    )
    top, left = (fitted[0] - 32) // 2, (fitted[1] - 32) // 2
    expected = np.asarray(image)[top : top + 32, left : left + 32].transpose(2, 0, 1)
    away = resize_crop(frames, 32, 32)[0].numpy().astype(int) - expected
    assert np.abs(away).max() <= 1


def test_no_row_or_column_is_missing_after_rounding():
    for rows, columns in ((101, 33), (33, 101), (7, 13)):
        assert resize_crop(smooth_frames(rows, columns), 48, 20).shape == (1, 3, 48, 20)


def test_no_flow_changes_nothing():
    frames = torch.rand(2, 3, 8, 10)
    torch.testing.assert_close(warp(frames, torch.zeros(2, 2, 8, 10)), frames)


def test_the_output_is_looked_up_where_the_flow_points():
    frames = torch.rand(1, 3, 8, 10)
    flow = torch.zeros(1, 2, 8, 10)
    flow[:, 0], flow[:, 1] = 2.0, -1.0
    # output[y, x] = frames[y - 1, x + 2]
    torch.testing.assert_close(warp(frames, flow)[:, :, 1:, :-2], frames[:, :, :-1, 2:])


def test_half_a_pixel_is_the_mean_of_two():
    frames = torch.rand(1, 1, 4, 6)
    flow = torch.zeros(1, 2, 4, 6)
    flow[:, 0] = 0.5
    torch.testing.assert_close(warp(frames, flow)[..., :-1], (frames[..., :-1] + frames[..., 1:]) / 2)


def test_beyond_the_border_the_border_goes_on():
    frames = torch.rand(1, 1, 4, 6)
    torch.testing.assert_close(warp(frames, torch.full((1, 2, 4, 6), 100.0)), frames[..., -1:, -1:].expand(1, 1, 4, 6))
