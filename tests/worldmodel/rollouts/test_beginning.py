from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from upath import UPath

from streams.clip import to_float
from streams.errors import MediaError
from streams.pyav.writer import write_video
from tests.fake_codecs import make_videos
from tests.worldmodel.tiny_run import CLIPS, tiny_run
from worldmodel.errors import SettingsError
from worldmodel.rollouts.beginning import begin_from_codes, begin_from_video, read_prompt
from worldmodel.settings import RolloutSettings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_videos(tmp_path_factory.mktemp("videos"), num_videos=1)[0])


def settings(**changes: Any) -> RolloutSettings:
    values: dict[str, Any] = {"run": "tiny", "out": "out.mp4", "context_frames": 3, "horizon": 4}
    return RolloutSettings(**values | changes)


def saved(path: Path, video: str, **changes: Any) -> str:
    begin_from_video(tiny_run(), settings(prompt=video, **changes), CPU).rollout.save(path)
    return str(path)


def test_a_prompt_is_read_from_its_start_as_far_as_needed(video: str):
    clip = read_prompt(video, CLIPS, 0.5, 3, 4)
    assert clip.seconds.tolist() == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1])
    assert len(read_prompt(video, CLIPS, 1.5, 3, 4).frames) == 5
    assert clip.frames.equal(read_prompt(video, CLIPS, 0.0, 20, 0).frames[5:12])


@pytest.mark.parametrize(
    ("start_seconds", "context_frames", "message"),
    [
        (0.0, 21, r"20 frames \(10 per second\) from second 0 on, context_frames=21 are needed"),
        (1.8, 3, r"2 frames \(10 per second\) from second 1.8 on, context_frames=3 are needed: start earlier"),
        (9.0, 3, "0 frames"),
    ],
)
def test_a_prompt_shorter_than_the_context_is_refused(
    start_seconds: float, context_frames: int, message: str, video: str
):
    with pytest.raises(MediaError, match=message):
        read_prompt(video, CLIPS, start_seconds, context_frames, 4)


@pytest.mark.parametrize("frames_per_second", [4.0, 25.0])
def test_a_prompt_of_another_rate_and_size_is_read_at_the_runs_own(frames_per_second: float, tmp_path: Path):
    frames = torch.zeros(int(2 * frames_per_second), 3, 40, 96, dtype=torch.uint8)
    frames += torch.linspace(0, 255, len(frames)).byte()[:, None, None, None]
    write_video(tmp_path / "a.mp4", frames, frames_per_second)
    clip = read_prompt(str(tmp_path / "a.mp4"), CLIPS, 0.0, 3, 4)
    assert clip.frames.shape == (7, 3, 16, 16)
    shown = (clip.seconds * frames_per_second + 1e-9).long()
    levels = clip.frames.float().mean((1, 2, 3))
    torch.testing.assert_close(levels, frames[shown].float().mean((1, 2, 3)), atol=3.0, rtol=0)


def test_a_context_longer_than_the_window_is_read_to_its_end(video: str):
    run = tiny_run()
    assert run.model.trunk.window_frames < 18  # type: ignore[attr-defined]
    rollout = begin_from_video(run, settings(prompt=video, context_frames=18), CPU).rollout
    assert rollout.codes.shape[1] == 18
    assert rollout.codes.equal(
        begin_from_video(run, settings(prompt=video, context_frames=20), CPU).rollout.codes[:, :18]
    )


def test_a_missing_prompt_is_refused(tmp_path: Path):
    with pytest.raises(MediaError, match=r"none.mp4: no such file; give one video as the prompt"):
        read_prompt(str(tmp_path / "none.mp4"), CLIPS, 0.0, 3, 4)


def test_the_codes_of_a_context_know_nothing_of_what_follows(video: str):
    run = tiny_run()
    beginning = begin_from_video(run, settings(prompt=video, num_rollouts=2, start_seconds=0.3), CPU)
    assert beginning.truth is not None
    frames = to_float(beginning.truth.frames[None, :3])
    assert beginning.truth.sound is not None
    assert run.sound is not None
    alone = torch.cat((run.picture.encode(frames), run.sound.encode(beginning.truth.sound[None, :3])), 2)
    assert beginning.rollout.codes.equal(alone.repeat(2, 1, 1))
    assert beginning.rollout.has_sound
    assert beginning.rollout.start_seconds == pytest.approx(0.3)
    assert beginning.notes == []


def test_one_rollout_branches_into_many_and_many_go_on_as_many(video: str, tmp_path: Path):
    one = saved(tmp_path / "one", video)
    assert len(begin_from_codes(tiny_run(), settings(continue_from=one, num_rollouts=4), CPU).rollout.codes) == 4
    two = saved(tmp_path / "two", video, num_rollouts=2)
    for num_rollouts in (1, 2):
        beginning = begin_from_codes(tiny_run(), settings(continue_from=two, num_rollouts=num_rollouts), CPU)
        assert len(beginning.rollout.codes) == 2
    with pytest.raises(SettingsError, match="num_rollouts=3, but .*two holds 2 rollouts: all of them go on, give 1"):
        begin_from_codes(tiny_run(), settings(continue_from=two, num_rollouts=3), CPU)


def test_draws_go_on_where_they_stopped_unless_a_seed_is_given(video: str, tmp_path: Path):
    run = tiny_run()
    beginning = begin_from_video(run, settings(prompt=video), CPU)
    torch.rand(3, generator=beginning.generator)
    rollout = replace(beginning.rollout, generator_state=beginning.generator.get_state())
    rollout.save(tmp_path / "codes")
    expected = torch.rand(3, generator=beginning.generator)
    again = begin_from_codes(run, settings(continue_from=str(tmp_path / "codes")), CPU)
    assert torch.rand(3, generator=again.generator).equal(expected)
    seeded = begin_from_codes(run, settings(continue_from=str(tmp_path / "codes"), seed=7), CPU)
    assert seeded.generator.initial_seed() == seeded.rollout.seed == 7
    replace(rollout, device="cuda").save(tmp_path / "codes")
    elsewhere = begin_from_codes(run, settings(continue_from=str(tmp_path / "codes")), CPU)
    assert "was drawn on cuda, this is cpu" in elsewhere.notes[0]
    assert not torch.rand(3, generator=elsewhere.generator).equal(torch.rand(3, generator=torch.Generator()))


def test_a_prompt_may_be_at_an_address(video: str):
    address = UPath("memory://prompts/a.mp4")
    address.parent.mkdir(parents=True, exist_ok=True)
    address.write_bytes(Path(video).read_bytes())
    assert read_prompt(str(address), CLIPS, 0.5, 3, 4).frames.equal(read_prompt(video, CLIPS, 0.5, 3, 4).frames)
