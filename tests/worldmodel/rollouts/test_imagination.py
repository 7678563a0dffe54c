import re
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from streams.pyav.pictures import PyAVReader
from streams.pyav.sound import read_sound
from tests.fake_codecs import make_videos
from tests.worldmodel.tiny_run import CLIPS, TinyRun, tiny_run
from worldmodel.decoder import FrameDecoder
from worldmodel.errors import CheckpointError, MediaError, SettingsError
from worldmodel.rollouts.beginning import read_prompt
from worldmodel.rollouts.imagination import comparison_lines, imagine, imagine_with
from worldmodel.rollouts.repeated import Repeat, Repeated
from worldmodel.rollouts.rollout import roll_out
from worldmodel.rollouts.rollout_codes import load_codes
from worldmodel.settings import RolloutSettings, SamplingSettings

CPU = torch.device("cpu")
GREEDY = SamplingSettings(temperature=[0.0])


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_videos(tmp_path_factory.mktemp("videos"), num_videos=1)[0])


def roll(run: TinyRun, out: Path, **changes: Any) -> list[str]:
    settings: dict[str, Any] = {"run": "tiny", "out": str(out), "horizon": 4, "context_frames": 3}
    return imagine_with(run, RolloutSettings(**settings | changes), CPU, progress=False)


def codes_of(out: Path) -> torch.Tensor:
    return load_file(out.with_suffix(".codes.safetensors"))["codes"]


def test_video_strip_and_codes_are_written_and_named_line_by_line(video: str, tmp_path: Path):
    lines = roll(tiny_run(), tmp_path / "deep" / "out.mp4", prompt=video, horizon=9)
    files = sorted((tmp_path / "deep").iterdir())
    assert [file.name for file in files] == ["out.codes.safetensors", "out.mp4", "out.png"]
    assert sorted(line.split(": ")[0] for line in lines[:3]) == [str(file) for file in files]
    assert "3 frames of context, 9 imagined, with sound" in lines[0]
    assert codes_of(files[1]).dtype == torch.int32
    assert codes_of(files[1]).shape == (1, 12, 21 + 5)
    with Image.open(files[2]) as strip:
        assert strip.width > 12 * 96


def test_the_video_has_every_frame_large_enough_to_watch_and_sound_of_its_length(video: str, tmp_path: Path):
    roll(tiny_run(), tmp_path / "out.mp4", prompt=video)
    with PyAVReader(tmp_path / "out.mp4") as reader:
        assert reader.seconds.tolist() == pytest.approx([number / 10 for number in range(7)])
        assert reader.frames_at([0, 6]).shape == (2, 3, 256, 256)
    sound = read_sound(tmp_path / "out.mp4", 0.0, 0.7, CLIPS.sample_hz)
    assert sound is not None
    assert sound[-800:].abs().max() > 0


def test_the_comparison_names_the_horizons_that_the_video_still_covers(video: str, tmp_path: Path):
    lines = roll(tiny_run(sound=False), tmp_path / "out.mp4", prompt=video, horizon=9)[3:]
    assert [re.split(r"\s{2,}", line) for line in lines[:1]] == [["PSNR in dB at horizon", "1", "2", "4", "8"]]
    assert [line[:15] for line in lines[1:]] == ["rollout        ", "copy last frame"]
    late = roll(tiny_run(sound=False), tmp_path / "out.mp4", prompt=video, horizon=9, start_seconds=1.5)
    assert re.split(r"\s{2,}", late[3]) == ["PSNR in dB at horizon", "1", "2"]
    assert len(roll(tiny_run(sound=False), tmp_path / "out.mp4", prompt=video, start_seconds=1.7)) == 3


@pytest.mark.parametrize("sampling", [GREEDY, SamplingSettings()], ids=["greedy", "sampled"])
def test_a_rollout_in_two_parts_is_the_rollout_in_one(sampling: SamplingSettings, video: str, tmp_path: Path):
    run = tiny_run()
    whole, first, rest = (tmp_path / f"{name}.mp4" for name in ("whole", "first", "rest"))
    several: dict[str, Any] = {"num_rollouts": 2, "sampling": sampling}
    compared = roll(run, whole, prompt=video, horizon=12, seed=5, **several)
    roll(run, first, prompt=video, horizon=6, seed=5, **several)
    continued = str(first.with_suffix(".codes.safetensors"))
    lines = roll(run, rest, continue_from=continued, prompt=video, horizon=6, sampling=sampling)
    names = ("codes", "generator_state")
    one, two = (load_file(out.with_suffix(".codes.safetensors")) for out in (whole, rest))
    assert all(one[name].equal(two[name]) for name in names)
    assert (one["codes"][:, 3:].diff(dim=1) != 0).any(2).all()  # nothing stands still, so that equality says something
    assert (whole.with_stem("whole_1").read_bytes()) == rest.with_stem("rest_1").read_bytes()
    assert whole.with_suffix(".png").read_bytes() == rest.with_suffix(".png").read_bytes()
    assert lines[-3:] == compared[-3:]


def test_without_the_video_a_continued_rollout_has_no_truth(video: str, tmp_path: Path):
    run, first, rest = tiny_run(sound=False), tmp_path / "first.mp4", tmp_path / "rest.mp4"
    roll(run, first, prompt=video)
    lines = roll(run, rest, continue_from=str(first.with_suffix(".codes.safetensors")))
    assert len(lines) == 3
    assert codes_of(rest)[:, :7].equal(codes_of(first))
    with Image.open(first.with_suffix(".png")) as one, Image.open(rest.with_suffix(".png")) as two:
        assert two.height < one.height


def test_seeds_decide_the_draws(video: str, tmp_path: Path):
    run, outs = tiny_run(sound=False), [tmp_path / f"{name}.mp4" for name in "abc"]
    for out, seed in zip(outs, (1, 1, 2), strict=True):
        roll(run, out, prompt=video, seed=seed)
    one, same, other = map(codes_of, outs)
    assert one.equal(same)
    assert not one.equal(other)


def test_several_rollouts_share_the_prompt_and_differ_after_it(video: str, tmp_path: Path):
    lines = roll(tiny_run(sound=False), tmp_path / "out.mp4", prompt=video, num_rollouts=3)
    assert [Path(line.split(": ")[0]).name for line in lines[:3]] == ["out_0.mp4", "out_1.mp4", "out_2.mp4"]
    codes = codes_of(tmp_path / "out.mp4")
    assert codes[:, :3].equal(codes[:1, :3].expand(3, -1, -1))
    assert len(codes.unique(dim=0)) == 3


def test_a_model_without_ears_writes_a_silent_video(video: str, tmp_path: Path):
    lines = roll(tiny_run(sound=False), tmp_path / "out.mp4", prompt=video)
    assert lines[0].endswith("no sound")
    assert read_sound(tmp_path / "out.mp4", 0.0, 0.1, 8000) is None


def test_a_prompt_without_sound_is_told_to_the_model_and_to_the_user(tmp_path: Path):
    run = tiny_run()
    silent = make_videos(tmp_path / "videos", num_videos=1, silent=(0,))[0]
    lines = roll(run, tmp_path / "out.mp4", prompt=str(silent), sampling=GREEDY)
    assert "has no sound: the model is told so, and the sound that follows is its own guess" in lines[0]
    rollout = load_codes(tmp_path / "out.codes.safetensors", "tiny", run.model.decoder.scales)
    assert not rollout.has_sound
    assert read_sound(tmp_path / "out.mp4", 0.0, 0.7, 8000) is not None
    told, misled = (
        torch.stack(list(islice(roll_out(run.model, rollout.codes[:, :3], torch.tensor([heard]), GREEDY), 4)), 1)
        for heard in (False, True)
    )
    assert rollout.codes[:, 3:].equal(told)
    assert not rollout.codes[:, 3:].equal(misled)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (SamplingSettings(temperature=[-1.0]), "temperature=-1.0 is out of range: it must be 0 or more"),
        (SamplingSettings(top_p=[0.0]), "top_p=0.0 is out of range"),
        (SamplingSettings(top_k=[1, 2]), "top_k has 2 values"),
    ],
)
def test_sampling_out_of_range_is_refused_before_anything_is_read(sampling: SamplingSettings, message: str):
    with pytest.raises(SettingsError, match=message):
        roll(tiny_run(), Path("out.mp4"), prompt="not there.mp4", sampling=sampling)


def test_frames_are_repeated_where_that_is_asked_for(video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[Repeat] = []

    def watched(model: Any, moment: Any, sampling: Any, how: Repeat) -> Repeated:
        made.append(how)
        return Repeated(model, moment, sampling, replace(how, compiled=False))

    monkeypatch.setattr("worldmodel.rollouts.rollout.Repeated", watched)
    run = tiny_run()
    for name, changes in (("plain", {}), ("compiled", {"compile": True})):
        roll(run, tmp_path / f"{name}.mp4", prompt=video, horizon=9, **changes)
    assert made == [Repeat(compiled=True)]
    assert codes_of(tmp_path / "compiled.mp4").equal(codes_of(tmp_path / "plain.mp4"))


def test_a_missing_run_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="none is not a run"):
        imagine(RolloutSettings(run=str(tmp_path / "none"), out="out.mp4", prompt="video.mp4", device="cpu"))


def test_what_was_imagined_before_ctrl_c_is_kept_and_goes_on_as_if_nothing_had_been(
    video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn = SamplingSettings(moved_scales=0)
    run = tiny_run()
    roll(run, tmp_path / "whole.mp4", prompt=video, horizon=5, sampling=drawn)
    step, num_scales = FrameDecoder.step, len(run.model.decoder.slices)
    calls = iter(range(10**6))

    def stopping(*arguments: Any) -> torch.Tensor:
        if next(calls) == 2 * num_scales + 1:  # in the middle of the third frame, after a draw
            raise KeyboardInterrupt
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FrameDecoder, "step", stopping)
        lines = roll(run, tmp_path / "part.mp4", prompt=video, horizon=5, sampling=drawn)
    assert lines[-1] == "stopped after 2 of 5 frames: --continue goes on from there"
    codes = str(tmp_path / "part.codes.safetensors")
    roll(run, tmp_path / "rest.mp4", continue_from=codes, horizon=3, sampling=drawn)
    assert codes_of(tmp_path / "rest.mp4").equal(codes_of(tmp_path / "whole.mp4"))


def test_a_rollout_that_no_memory_holds_is_refused_in_one_line(video: str, tmp_path: Path):
    with pytest.raises(
        SettingsError, match=r"1 times 1000000003 frames .* need \d+ GiB, .* ask for \d+ frames at most"
    ):
        roll(tiny_run(), tmp_path / "out.mp4", prompt=video, horizon=10**9)


def test_a_comparison_of_nothing_has_no_lines():
    assert comparison_lines({"rollout": {}, "copy last frame": {}}) == []


def test_a_folder_is_no_prompt(tmp_path: Path):
    with pytest.raises(MediaError, match="is a folder; give one video as the prompt"):
        read_prompt(str(tmp_path), CLIPS, 0.0, 1, 1)
