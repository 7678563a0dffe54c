import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from worldmodel.training.report import Report, gif, read_scalars


def test_a_curve_is_read_back_from_all_files_of_a_run(tmp_path: Path):
    for first, last in ((1, 3), (3, 5)):  # the second begins again at step 3
        report = Report(tmp_path, first_step=first)
        for step in range(first, last):
            report.scalars({"loss": step / 2 + first}, step)
        report.close()
    assert read_scalars(tmp_path, "loss") == [(1, 1.5), (2, 2.0), (3, 4.5), (4, 5.0)]


def read(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "audio": 0, "scalars": 0})
    return events.Reload()


def test_scalars_are_read_back_and_values_that_are_not_finite_are_left_out(tmp_path: Path):
    report = Report(tmp_path)
    report.scalars({"a": 1.5, "b": float("nan")}, 3)
    report.close()
    events = read(tmp_path)
    assert events.Tags()["scalars"] == ["a"]
    assert [(event.step, event.value) for event in events.Scalars("a")] == [(3, 1.5)]


def test_a_resumed_run_drops_what_it_will_report_again(tmp_path: Path):
    report = Report(tmp_path)
    for step in (1, 2, 3, 4):
        report.scalars({"a": step}, step)
    report.close()
    report = Report(tmp_path, first_step=3)
    report.scalars({"a": 30}, 3)
    report.close()
    assert [(event.step, event.value) for event in read(tmp_path).Scalars("a")] == [(1, 1), (2, 2), (3, 30)]


def test_a_picture_is_read_back_as_it_was(tmp_path: Path):
    picture = torch.randint(0, 256, (6, 8, 3), dtype=torch.uint8)
    report = Report(tmp_path)
    report.image("picture", picture, 1)
    report.close()
    encoded = read(tmp_path).Images("picture")[0].encoded_image_string
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded))), picture.numpy())


def test_a_film_strip_has_frames_beside_each_other_and_videos_below(tmp_path: Path):
    frames = torch.randint(0, 256, (2, 3, 3, 4, 5), dtype=torch.uint8)
    report = Report(tmp_path)
    report.film_strip("strip", frames, 1)
    report.close()
    strip = np.asarray(Image.open(io.BytesIO(read(tmp_path).Images("strip")[0].encoded_image_string)))
    assert strip.shape == (8, 15, 3)
    assert np.array_equal(strip[4:8, 10:15], frames[1, 2].permute(1, 2, 0).numpy())


def test_a_video_is_a_gif_with_all_frames_in_their_time(tmp_path: Path):
    frames = torch.zeros(5, 3, 16, 16, dtype=torch.uint8)
    for index in range(5):
        frames[index, 0] = 50 * index
    report = Report(tmp_path)
    report.video("video", frames, 1, frames_per_second=10)
    report.close()
    image = Image.open(io.BytesIO(read(tmp_path).Images("video")[0].encoded_image_string))
    found = [np.asarray(one.convert("RGB")) for one in ImageSequence.Iterator(image)]
    assert image.format == "GIF"
    assert [int(one[8, 8, 0]) for one in found] == [0, 50, 100, 150, 200]
    assert image.info["duration"] == 100


@pytest.mark.parametrize(("rate", "milliseconds"), [(10.0, 100), (25.0, 40), (1000.0, 20)])
def test_the_gif_keeps_the_rate_that_browsers_can_show(rate: float, milliseconds: int):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    assert Image.open(io.BytesIO(gif(pictures, rate))).info["duration"] == milliseconds


def test_sound_and_text_are_written(tmp_path: Path):
    report = Report(tmp_path)
    report.sound("tone", torch.sin(torch.arange(1600) * 0.1) * 2, 1, sample_hz=16000)
    report.text("note", "hello", 1)
    report.flush()
    report.close()
    events = read(tmp_path)
    sound = events.Audio("tone")[0]
    assert (sound.sample_rate, sound.length_frames) == (16000, 1600)
    assert "note/text_summary" in events.Tags()["tensors"]


def test_other_ranks_write_nothing(tmp_path: Path):
    report = Report(tmp_path, main=False)
    report.scalars({"a": 1}, 1)
    report.image("picture", torch.zeros(2, 2, 3, dtype=torch.uint8), 1)
    report.video("video", torch.zeros(2, 3, 2, 2, dtype=torch.uint8), 1, 10)
    report.sound("tone", torch.zeros(10), 1, 16000)
    report.text("note", "hello", 1)
    report.flush()
    report.close()
    assert list(tmp_path.iterdir()) == []
