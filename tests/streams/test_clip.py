import pytest
import torch

from streams.clip import Batch, Clip, to_float, to_uint8


def clip(num_frames: int = 4, has_sound: bool = True, size: int = 8, **parts: object) -> Clip:
    whole = {
        "frames": torch.full((num_frames, 3, size, size), 7, dtype=torch.uint8),
        "seconds": torch.arange(num_frames, dtype=torch.float64) / 10,
        "sound": torch.ones(num_frames, 5) if has_sound else None,
        "video": "a.mp4",
    }
    return Clip(**{**whole, **parts})  # pyright: ignore[reportArgumentType]


def test_all_256_values_come_back():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(values)), values)
    assert to_float(values)[[0, 255]].tolist() == [-1.0, 1.0]


def test_values_outside_are_clamped():
    assert to_uint8(torch.tensor([-3.0, 2.0])).tolist() == [0, 255]


def test_half_precision_frames_convert():
    values = torch.arange(256, dtype=torch.uint8)
    away = to_uint8(to_float(values).to(torch.bfloat16)).int() - values.int()
    assert away.abs().max() <= 1


def test_frames_and_times_must_be_as_many():
    with pytest.raises(ValueError, match="4 frames and 3 times"):
        clip(seconds=torch.arange(3, dtype=torch.float64))


def test_a_clip_needs_a_frame():
    with pytest.raises(ValueError, match="one at least"):
        clip(num_frames=0)


def test_sound_must_have_as_many_slices_as_frames():
    with pytest.raises(ValueError, match="sound for 3"):
        clip(sound=torch.zeros(3, 5))


@pytest.mark.parametrize("times", [[0.0, 0.1, 0.1, 0.2], [0.0, 0.2, 0.1, 0.3]])
def test_times_must_increase(times: list[float]):
    with pytest.raises(ValueError, match="must increase"):
        clip(seconds=torch.tensor(times, dtype=torch.float64))


def test_clips_stack_with_silence_where_there_is_no_sound():
    batch = Batch.stack([clip(), clip(has_sound=False)])
    assert batch.frames.shape == (2, 4, 3, 8, 8)
    assert batch.has_sound.tolist() == [True, False]
    assert batch.sound.sum(dim=(1, 2)).tolist() == [20.0, 0.0]
    assert batch.videos == ["a.mp4", "a.mp4"]


def test_a_batch_without_any_sound_has_the_columns_that_are_asked_for():
    assert Batch.stack([clip(has_sound=False)]).sound.shape == (1, 4, 0)
    assert Batch.stack([clip(has_sound=False)], samples_per_frame=6).sound.shape == (1, 4, 6)


def test_stereo_has_an_axis_of_its_own():
    batch = Batch.stack([clip(sound=torch.ones(4, 2, 5)), clip(has_sound=False)], 5, sound_channels=2)
    assert batch.sound.shape == (2, 4, 2, 5)
    assert batch.sound.sum(dim=(1, 2, 3)).tolist() == [40.0, 0.0]
    assert Batch.stack([clip(has_sound=False)], 5, sound_channels=2).sound.shape == (1, 4, 2, 5)


def test_mono_and_stereo_do_not_stack():
    with pytest.raises(ValueError, match="need one shape"):
        Batch.stack([clip(), clip(sound=torch.ones(4, 2, 5))])


@pytest.mark.parametrize("other", [clip(num_frames=3), clip(size=6)])
def test_clips_of_different_shapes_do_not_stack(other: Clip):
    with pytest.raises(ValueError, match="need one shape"):
        Batch.stack([clip(), other])


def test_no_clips_do_not_stack():
    with pytest.raises(ValueError, match="need one shape"):
        Batch.stack([])


def test_a_batch_whose_parts_disagree_cannot_be_built():
    batch = Batch.stack([clip(), clip()])
    with pytest.raises(ValueError, match="the parts of a batch disagree"):
        Batch(batch.frames, batch.seconds, batch.sound, batch.has_sound, ["a.mp4"])


def test_a_batch_moves_as_a_whole():
    moved = Batch.stack([clip()]).to("meta")
    assert {moved.frames.device.type, moved.seconds.device.type, moved.sound.device.type} == {"meta"}
    assert moved.videos == ["a.mp4"]
