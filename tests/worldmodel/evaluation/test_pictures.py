import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from worldmodel.evaluation.pictures import LINE, film_strip, frame_pictures, gif_bytes, save_png, side_by_side


def film(num_frames: int = 6, height: int = 8, width: int = 10) -> torch.Tensor:
    """Frame t is of grey level 10 t."""
    levels = 10 * torch.arange(num_frames, dtype=torch.uint8)
    return levels[:, None, None, None].expand(num_frames, 3, height, width).contiguous()


def colours(picture: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.asarray(picture).reshape(-1, 3).tolist()}


def row_of(strip: Image.Image, from_below: int, height: int) -> np.ndarray:
    """The middle line of pixels of a row."""
    return np.asarray(strip)[-1 - (height + 2) * from_below - 2 - height // 2]


def test_a_strip_shows_every_nth_frame_in_order():
    strip = film_strip({"truth": film()}, every=2, scale_up=3)
    line = row_of(strip, 0, 24)[:, 0]
    assert [level for level in (0, 20, 40) if (line == level).sum() >= 30] == [0, 20, 40]
    assert not (line == 10).any()
    assert np.flatnonzero(line == 20)[0] > np.flatnonzero(line == 0)[-1]
    assert (line == 40).sum() == 30


def test_frames_of_all_rows_stand_below_each_other():
    strip = film_strip({"truth": film(), "a longer label": film() + 100})
    upper, lower = row_of(strip, 1, 8)[:, 0], row_of(strip, 0, 8)[:, 0]
    assert (np.flatnonzero(upper == 50) == np.flatnonzero(lower == 150)).all()


@pytest.mark.parametrize("num_context", [0, 3, 4, 6])
def test_a_line_stands_before_the_first_imagined_frame(num_context: int):
    strip = film_strip({"rollout": film()}, every=2, scale_up=2, num_context=num_context)
    pixels = np.asarray(strip)
    columns = np.flatnonzero((pixels == LINE).all(axis=2).all(axis=0))
    assert len(columns) == 2
    line = row_of(strip, 0, 16)[:, 0]
    shown_before = [level for level in (0, 20, 40) if (np.flatnonzero(line == level) < columns[0]).sum() >= 20]
    assert shown_before == [level for level in (0, 20, 40) if level < 10 * num_context]
    assert LINE not in colours(film_strip({"rollout": film()}))


def test_a_shorter_row_ends_earlier():
    line = row_of(film_strip({"truth": film(6), "rollout": film(3)}), 0, 8)[:, 0]
    assert (line == 20).any()
    assert not (line == 50).any()


def test_labels_numbers_and_seconds_are_written():
    plain = film_strip({"": film()}, scale_up=8)
    labelled = film_strip({"rollout": film()}, scale_up=8)
    timed = film_strip({"": film()}, scale_up=8, frames_per_second=10.0)
    assert labelled.width > plain.width
    assert timed.height > plain.height
    header = np.asarray(timed)[: timed.height - plain.height + 8]
    assert (header < 100).any()


def test_sound_is_a_row_in_which_loud_is_dark_and_low_is_below():
    mel = torch.full((6, 4, 2), -9.0)
    mel[2, 0] = 0.0  # a low note in frame 2
    strip = film_strip({"truth": film()}, scale_up=2, sound={"heard": mel})
    cells = np.asarray(strip)[-18:-2, :, 0]
    dark = np.argwhere(cells == 0)
    assert dark[:, 0].min() >= 12
    assert dark[:, 1].max() - dark[:, 1].min() == 19
    assert strip.height == film_strip({"truth": film(), "heard": film()}, scale_up=2).height


def test_rows_of_different_sizes_or_none_are_refused():
    with pytest.raises(ValueError, match="expected rows of one size"):
        film_strip({"a": film(), "b": film(width=12)})
    with pytest.raises(ValueError, match="expected rows of one size"):
        film_strip({})


def test_a_png_holds_the_same_pixels_and_leaves_no_other_file(tmp_path: Path):
    strip = film_strip({"truth": film()})
    save_png(strip, tmp_path / "pictures" / "strip.png")
    with Image.open(tmp_path / "pictures" / "strip.png") as read:
        assert (np.asarray(read) == np.asarray(strip)).all()
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["strip.png"]


def test_a_gif_has_all_frames_at_their_times():
    frames = torch.randint(0, 255, (7, 3, 8, 10), dtype=torch.uint8)
    with Image.open(io.BytesIO(gif_bytes(frames, 15.0, scale_up=2))) as gif:
        assert getattr(gif, "n_frames") == 7  # noqa: B009
        assert gif.size == (20, 16)
        seconds = []
        for frame in range(7):
            gif.seek(frame)
            seconds.append(gif.info["duration"] / 1000)
        assert sum(seconds) == pytest.approx(7 / 15, abs=0.005)


def test_a_gif_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no frames"):
        gif_bytes(film(0), 10.0)


def test_pictures_keep_the_order_of_the_colours():
    frames = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    frames[:, 0] = 200
    assert colours(frame_pictures(frames)[0]) == {(200, 0, 0)}


def test_films_stand_side_by_side():
    assert side_by_side([film(), film()]).shape == (6, 3, 8, 20)
