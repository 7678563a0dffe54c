import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from streams.clip import Batch, Clip, to_float, to_uint8
from streams.settings import ClipSettings
from tests.worldmodel.tiny_run import CLIPS, tiny_run
from worldmodel.evaluation.films import (
    compare,
    decode_clips,
    encode_clips,
    joined_sound,
    label_rollouts,
    mel_of,
    strip_of,
    watchable,
)
from worldmodel.evaluation.pictures import LINE


def grey(*levels: int) -> Clip:
    frames = torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 16, 16).contiguous()
    return Clip(frames, torch.arange(len(levels)).double() / 10, None, "grey")


def batch(num_frames: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(0)
    clips = [
        Clip(
            torch.randint(0, 255, (num_frames, 3, 16, 16), dtype=torch.uint8, generator=generator),
            torch.arange(num_frames).double() / 10,
            torch.rand(num_frames, 800, generator=generator) - 0.5,
            f"{number}.mp4",
        )
        for number in range(2)
    ]
    return Batch.stack(clips)


def test_clips_are_coded_and_decoded_as_the_codecs_do():
    run, clips = tiny_run(), batch(40)
    codes = encode_clips(run, clips)
    assert run.sound is not None
    assert codes[..., :21].equal(run.picture.encode(to_float(clips.frames)))
    assert codes[..., 21:].equal(run.sound.encode(clips.sound))
    decoded = decode_clips(run, codes, start_seconds=2.0)
    assert (decoded[1].frames.int() - to_uint8(run.picture.decode(codes))[1].int()).abs().max() <= 1
    assert decoded[1].seconds[:3].tolist() == pytest.approx([2.0, 2.1, 2.2])
    assert decoded[1].sound is not None
    assert torch.allclose(decoded[1].sound, run.sound.decode(codes[..., 21:])[1], atol=1e-4)


def test_without_a_sound_codec_there_are_only_picture_codes_and_no_sound():
    run = tiny_run(sound=False)
    codes = encode_clips(run, batch())
    assert codes.shape == (2, 5, 21)
    assert decode_clips(run, codes)[0].sound is None
    assert joined_sound(decode_clips(run, codes)[0], CLIPS) is None


def test_sound_is_joined_without_drift_where_samples_do_not_divide():
    clips = ClipSettings(frames_per_second=30.0, sample_hz=1000)
    whole = torch.arange(1034.0)
    starts = [round(frame / 30 * 1000) for frame in range(30)]
    sound = torch.stack([whole[start : start + clips.samples_per_frame] for start in starts])
    clip = replace(grey(*range(30)), sound=sound)
    joined = joined_sound(clip, clips)
    assert joined is not None
    wrong = (joined != whole[:1000]).nonzero()[:, 0]
    # 33 samples per frame where 33.3 are needed: every third frame lacks one sample, and none is out of place.
    assert len(joined) == 1000
    assert len(wrong) == 10
    assert (joined[wrong] == 0).all()


def test_the_comparison_is_of_the_right_frames():
    truth, rollouts = grey(0, 50, 60, 70, 80), [grey(0, 50, 61, 80, 0, 0), grey(0, 50, 62, 70, 0, 0)]
    compared = compare(truth, rollouts, 2)

    def decibels(difference: float) -> float:
        return 20 * math.log10(255 / difference)

    assert compared["rollout"] == {1: pytest.approx((decibels(1) + decibels(2)) / 2), 2: math.inf}
    assert compared["copy last frame"] == {1: pytest.approx(decibels(10)), 2: pytest.approx(decibels(20))}
    assert compare(grey(0, 50), rollouts, 2) == {"rollout": {}, "copy last frame": {}}


def test_a_long_strip_has_few_columns_and_the_line_stands_before_the_first_imagined_frame():
    levels = range(0, 200, 2)
    strip = np.asarray(strip_of({"truth": grey(*levels[:50]), "rollout": grey(*levels)}, 17, CLIPS))
    columns = np.flatnonzero((strip == LINE).all(axis=2).all(axis=0))
    line = strip[-20, :, 0]
    assert len(columns) == 2
    assert line[columns[-1] + 1] == 17 * 2
    shown = [level for level in levels if (line == level).sum() >= 90]
    assert 2 * 17 in shown
    assert len(shown) <= 16


def test_the_strip_shows_sound_below_the_pictures():
    loud = replace(grey(0, 50, 60), sound=torch.rand(3, 800))
    plain = strip_of({"truth": grey(0, 50, 60)}, 1, CLIPS)
    assert strip_of({"truth": grey(0, 50, 60), "rollout": loud}, 1, CLIPS).height == plain.height + 2 * 98


@pytest.mark.parametrize("frames_per_second", [1.0, 10.0, 60.0])
def test_pictures_of_sound_cover_any_frame_rate(frames_per_second: float):
    clips = replace(CLIPS, frames_per_second=frames_per_second, sample_hz=16000)
    assert mel_of(torch.rand(3, clips.samples_per_frame), clips.sample_hz).shape == (3, 32, 8)


def test_rows_are_labelled_and_few():
    assert list(label_rollouts(grey(1), [grey(2)])) == ["truth", "rollout"]
    assert list(label_rollouts(None, [grey(2)] * 20)) == [f"rollout {number}" for number in range(8)]


@pytest.mark.parametrize(("size", "large"), [((16, 24), (256, 384)), ((85, 90), (340, 360)), ((301, 400), (602, 800))])
def test_frames_are_enlarged_by_whole_factors_to_even_sizes(size: tuple[int, int], large: tuple[int, int]):
    factor = watchable(*size)
    assert (factor * size[0], factor * size[1]) == large
