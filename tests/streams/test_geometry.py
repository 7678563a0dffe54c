import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from streams.geometry import crop_box, resize_crop, structural_similarity, warp


def smooth_frames(rows: int, columns: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 3, rows), torch.linspace(0, 4, columns), indexing="ij")
    return torch.stack([(torch.sin(x + c) * torch.cos(y) * 100 + 128).to(torch.uint8) for c in range(3)])[None]


def test_frames_of_the_wanted_size_are_returned_as_they_are():
    frames = smooth_frames(16, 24)
    assert resize_crop(frames, 16, 24) is frames


@pytest.mark.parametrize(("rows", "columns"), [(64, 96), (96, 64), (20, 30), (33, 57), (32, 32), (31, 32)])
@pytest.mark.parametrize("pixel_aspect", [1.0, 4 / 3, 0.5])
def test_resizing_is_that_of_pillow(rows: int, columns: int, pixel_aspect: float):
    frames = smooth_frames(rows, columns)
    box = crop_box(rows, columns, 32, 24, pixel_aspect)
    image = Image.fromarray(frames[0].permute(1, 2, 0).numpy())
    kept = image.crop((box.left, box.top, box.left + box.width, box.top + box.height))
    expected = np.asarray(kept.resize((24, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    away = resize_crop(frames, 32, 24, pixel_aspect)[0].numpy().astype(int) - expected
    assert np.abs(away).max() <= 1


@given(st.integers(2, 400), st.integers(2, 400), st.integers(1, 100), st.integers(1, 100), st.floats(0.25, 4.0))
def test_what_is_kept_is_centred_and_has_the_aspect_that_is_wanted(
    rows: int, columns: int, height: int, width: int, pixel_aspect: float
):
    box = crop_box(rows, columns, height, width, pixel_aspect)
    assert 0 <= box.top <= rows - box.height
    assert 0 <= box.left <= columns - box.width
    assert box.height == rows or box.width == columns
    # Even numbers cost up to a pixel at each side.
    assert abs(rows - box.height - 2 * box.top) <= 2
    assert abs(columns - box.width - 2 * box.left) <= 2
    wide = box.height * width / height / pixel_aspect
    high = box.width * pixel_aspect * height / width
    assert abs(box.width - max(2, wide)) <= 1 or abs(box.height - max(2, high)) <= 1


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


def test_structural_similarity_is_that_of_the_formula_window_by_window():
    generator = np.random.default_rng(0)
    one = generator.integers(0, 256, (2, 3, 16, 14)).astype(np.uint8)
    other = (one * 0.7 + generator.integers(0, 60, one.shape)).astype(np.uint8)
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    similar = np.zeros((2, 3, 6, 4))
    for place in np.ndindex(similar.shape):
        frame, colour, row, column = place
        x, y = (each[frame, colour, row : row + 11, column : column + 11] / 255 for each in (one, other))
        mean_x, mean_y = (window * x).sum(), (window * y).sum()
        var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
        both = (window * (x - mean_x) * (y - mean_y)).sum()
        similar[place] = (2 * mean_x * mean_y + 0.01**2) * (2 * both + 0.03**2)
        similar[place] /= (mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2)
    found = structural_similarity(torch.from_numpy(other), torch.from_numpy(one))
    np.testing.assert_allclose(found.numpy(), similar.mean(axis=(1, 2, 3)), atol=1e-5)


def test_equal_frames_are_wholly_similar():
    frames = torch.randint(0, 256, (2, 3, 11, 20), dtype=torch.uint8)
    assert structural_similarity(frames, frames).tolist() == pytest.approx([1.0, 1.0])
