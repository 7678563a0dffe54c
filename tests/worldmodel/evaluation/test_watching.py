import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streams.addresses import find_videos
from streams.clip import Batch, Clip
from streams.live import LiveSource
from streams.settings import LiveSettings
from streams.videos import VideoSource
from tests.worldmodel.whole_run import WholeRun
from worldmodel.cli import main
from worldmodel.errors import MediaError, SettingsError
from worldmodel.evaluation.films import encode_clips
from worldmodel.evaluation.watching import Watcher, watch, watch_run
from worldmodel.run import LoadedRun, load_run
from worldmodel.settings import WatchSettings

QUICK = LiveSettings(buffer_seconds=60.0, speed=20.0)


@pytest.fixture(scope="module")
def run(whole_run: WholeRun) -> LoadedRun:
    return load_run(whole_run.world)


@pytest.fixture(scope="module")
def clip(whole_run: WholeRun, run: LoadedRun) -> Clip:
    source = VideoSource(find_videos(whole_run.videos)[:1], replace(run.picture.clips, num_frames=20))
    return source.read(0, np.random.default_rng(0))


def one_by_one(clip: Clip) -> list[Clip]:
    sound = clip.sound
    return [
        Clip(clip.frames[t : t + 1], clip.seconds[t : t + 1], None if sound is None else sound[t : t + 1], clip.video)
        for t in range(len(clip.frames))
    ]


def bits_of(run: LoadedRun, clip: Clip) -> list[float]:
    """Bits of every frame but the first, all at once and without a cache."""
    batch = Batch.stack([clip], run.picture.clips.samples_per_frame)
    codes = encode_clips(run, batch)
    with torch.no_grad():
        states = run.model.states(codes, batch.has_sound)
        found = run.objective.next_frame(states, codes, codes, batch.has_sound)
    return ((found.nats * found.counted).sum(-1)[0] / math.log(2)).tolist()


@pytest.mark.parametrize("silent", [False, True])
def test_frame_by_frame_a_model_sees_what_it_sees_at_once(run: LoadedRun, clip: Clip, silent: bool):
    clip = replace(clip, sound=None) if silent else clip
    watcher = Watcher(run)
    seen = [watcher.see(one) for one in one_by_one(clip)]
    assert [num_context for _, num_context in seen] == list(range(20))
    assert math.isnan(seen[0][0])
    np.testing.assert_allclose([bits for bits, _ in seen[1:]], bits_of(run, clip), rtol=1e-4)


def test_after_a_gap_it_begins_anew(run: LoadedRun, clip: Clip):
    frames = one_by_one(clip)
    watcher = Watcher(run)
    seen = [watcher.see(one) for one in [*frames[:5], *frames[9:]]]
    assert [num_context for _, num_context in seen] == [*range(5), *range(11)]
    assert math.isnan(seen[5][0])
    rest = Clip(clip.frames[9:], clip.seconds[9:], None if clip.sound is None else clip.sound[9:], clip.video)
    np.testing.assert_allclose([bits for bits, _ in seen[6:]], bits_of(run, rest), rtol=1e-4)


def test_a_strange_frame_is_a_surprise(run: LoadedRun, clip: Clip):
    frames = one_by_one(clip)
    frames[12] = replace(frames[12], frames=255 - frames[12].frames)
    watcher = Watcher(run)
    bits = [watcher.see(one)[0] for one in frames]
    assert bits[12] > max(bits[1:12])


def test_a_model_that_is_too_slow_loses_frames_and_they_are_counted(whole_run: WholeRun, run: LoadedRun):
    path = str(find_videos(whole_run.videos)[0])
    clips = replace(run.picture.clips, num_frames=1)
    with LiveSource(path, clips, LiveSettings(buffer_seconds=0.5, speed=20.0)) as source:
        seen = []
        for surprise in watch(run, source):
            source.thread.join(20)  # as long as a model takes that is far too slow
            seen.append(surprise)
    assert seen[-1].dropped_frames == source.counts.dropped_frames == 40 - len(seen) > 0
    # The first frame, and the first after the gap, have nothing before them.
    follows = [False, *(np.diff([surprise.seconds for surprise in seen]) < 0.15)]
    assert [math.isfinite(surprise.bits) for surprise in seen] == follows


def test_the_command_prints_a_line_per_second_and_writes_a_table_and_a_plot(
    whole_run: WholeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = find_videos(whole_run.videos)[0]
    arguments = [
        str(whole_run.world),
        str(path),
        "--out",
        str(tmp_path),
        "--live.speed",
        "10",
        "--live.buffer_seconds=60",
    ]
    assert main(["watch", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["0", "s"], ["1", "s"], ["2", "s"]]
    assert any(line.startswith("40 frames seen; frames 40, dropped_frames 0") for line in lines)
    rows = list(csv.DictReader((tmp_path / "surprise.csv").read_text(encoding="utf-8").splitlines()))
    assert [float(row["seconds"]) for row in rows] == pytest.approx(np.arange(40) / 10)
    assert rows[0]["bits"] == "nan"
    assert all(float(row["bits"]) > 0 for row in rows[1:])
    assert {file.name for file in tmp_path.iterdir()} == {"surprise.csv", "surprise.png"}
    assert (tmp_path / "surprise.png").read_bytes().startswith(b"\x89PNG")


def test_it_ends_after_the_seconds_that_are_asked_for(whole_run: WholeRun, tmp_path: Path):
    path = str(find_videos(whole_run.videos)[0])
    lines = watch_run(WatchSettings(str(whole_run.world), path, str(tmp_path), seconds=1.0, live=QUICK))
    assert lines[0].startswith("11 frames seen")


def test_what_was_seen_is_kept_when_the_source_breaks_off(whole_run: WholeRun, tmp_path: Path):
    path = tmp_path / "cut.mp4"
    data = find_videos(whole_run.videos)[0].read_bytes()
    path.write_bytes(data[: len(data) // 2])  # its index is at the end
    with pytest.raises(MediaError, match="cannot be opened"):
        watch_run(WatchSettings(str(whole_run.world), str(path), str(tmp_path / "out"), live=QUICK))
    assert (tmp_path / "out" / "surprise.csv").read_text(encoding="utf-8").startswith("seconds,bits,")


def test_settings_that_no_source_can_use_are_refused(whole_run: WholeRun):
    settings = WatchSettings(str(whole_run.world), str(find_videos(whole_run.videos)[0]))
    with pytest.raises(SettingsError, match=r"seconds=-1.0 is out of range: it must be 0 or more"):
        watch_run(replace(settings, seconds=-1.0))
    with pytest.raises(SettingsError, match=r"live: speed=0.0 is out of range"):
        watch_run(replace(settings, live=LiveSettings(speed=0.0)))
