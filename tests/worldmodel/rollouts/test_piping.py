import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streams.clip import Clip
from streams.pyav.sound import read_sound
from tests.fake_codecs import make_videos
from tests.streams.ffmpeg import reference
from tests.worldmodel.tiny_run import TinyRun, tiny_run
from worldmodel.errors import SettingsError
from worldmodel.evaluation.films import decode_clips
from worldmodel.rollouts.beginning import read_prompt
from worldmodel.rollouts.checking import check_settings
from worldmodel.rollouts.imagination import imagine_with
from worldmodel.rollouts.piping import FRAMES_AT_ONCE, MOST_WAITING, pipe_frames
from worldmodel.settings import RolloutSettings

CPU = torch.device("cpu")


def codes_of(run: TinyRun, num_frames: int) -> torch.Tensor:
    entries = min(scale.vocabulary for scale in run.model.decoder.scales)
    columns = run.model.decoder.slices[-1].stop
    return torch.randint(entries, (num_frames, columns), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sound", [True, False], ids=["with sound", "silent"])
@pytest.mark.parametrize("num_frames", [2, 23])
def test_what_is_piped_is_what_the_codes_look_and_sound_like(sound: bool, num_frames: int, tmp_path: Path):
    run, path = tiny_run(sound=sound), tmp_path / "a.ts"
    codes = codes_of(run, num_frames)
    with path.open("wb") as file:
        assert pipe_frames(run, codes, file, CPU) == num_frames
    clip = decode_clips(run, codes[None])[0]
    shown, seconds = reference(path, 256, 256)
    assert np.diff(seconds) == pytest.approx([0.1] * (num_frames - 1))
    large = clip.frames.repeat_interleave(256 // clip.frames.shape[-2], 2)
    large = large.repeat_interleave(256 // clip.frames.shape[-1], 3).numpy()
    assert np.abs(shown.astype(int) - large).mean() < 8
    command = ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", str(path)]
    names = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert {name.strip(",") for name in names} == ({"h264", "aac"} if sound else {"h264"})


def test_frames_are_read_before_the_last_one_is_imagined():
    run = tiny_run(sound=False)
    codes, seen = codes_of(run, 60), threading.Event()

    class Watched(io.BytesIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            seen.set()
            return super().write(data)

    def imagined() -> Iterator[torch.Tensor]:
        yield from codes[:40]
        assert seen.wait(30), "nothing was written while 40 frames had come"
        yield from codes[40:]

    assert pipe_frames(run, imagined(), Watched(), CPU) == 60


def test_a_rollout_waits_for_those_who_show_it():
    run, given = tiny_run(sound=False), 0
    held = threading.Event()

    class Slow(io.BytesIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            held.wait(30)
            return super().write(data)

    def imagined() -> Iterator[torch.Tensor]:
        nonlocal given
        for frame in codes_of(run, 100):
            given += 1
            yield frame

    thread = threading.Thread(target=pipe_frames, args=(run, imagined(), Slow(), CPU))
    thread.start()
    thread.join(2)
    ahead = given
    held.set()
    thread.join(60)
    assert ahead <= FRAMES_AT_ONCE * (MOST_WAITING + 1)
    assert given == 100


def test_a_reader_that_goes_away_ends_the_rollout_without_an_error():
    run = tiny_run(sound=False)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", 0) as file:
        assert pipe_frames(run, codes_of(run, 400), file, CPU) < 400


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT does what it does by default, also where the tests run in the background and it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_the_rollout_waits_for_a_reader_ends_the_video_well(tmp_path: Path):
    run, given, path = tiny_run(), 0, tmp_path / "a.ts"
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    class Slow(io.BytesIO):
        stopped = False

        def write(self, data: bytes) -> int:  # type: ignore[override]
            if not self.stopped:
                self.stopped, before = True, -1
                while given > before:
                    before = given
                    time.sleep(0.3)
                # Nothing goes on before this is written.
                signal.pthread_kill(main_thread, signal.SIGINT)
                time.sleep(0.2)
            return super().write(data)

    def imagined() -> Iterator[torch.Tensor]:
        nonlocal given
        for frame in codes_of(run, 400):
            given += 1
            yield frame

    written = Slow()
    num_frames = pipe_frames(run, imagined(), written, CPU)
    path.write_bytes(written.getvalue())
    assert num_frames == given < 400
    assert len(reference(path, 256, 256)[0]) == num_frames


def test_a_failure_while_frames_are_shown_is_not_swallowed(monkeypatch: pytest.MonkeyPatch):
    run = tiny_run(sound=False)

    def failing(codes: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(run.picture, "decode", failing)
    with pytest.raises(RuntimeError, match="no memory left"):
        pipe_frames(run, codes_of(run, 40), io.BytesIO(), CPU)


def test_the_command_pipes_prompt_and_rollout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    video, path = make_videos(tmp_path, num_videos=1)[0], tmp_path / "out.ts"
    settings = RolloutSettings("tiny", "-", prompt=str(video), horizon=9, context_frames=3)
    with path.open("w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        lines = imagine_with(tiny_run(), settings, CPU, progress=False)
    assert lines == ["stdout: 3 frames of context, 9 imagined"]
    assert len(reference(path, 256, 256)[0]) == 12


def test_a_silent_prompt_is_followed_by_the_sound_that_the_model_guesses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    video, path = make_videos(tmp_path, num_videos=1, silent=(0,))[0], tmp_path / "out.ts"
    settings = RolloutSettings("tiny", "-", prompt=str(video), horizon=9, context_frames=3)
    with path.open("w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        lines = imagine_with(tiny_run(), settings, CPU, progress=False)
    assert "the sound that follows is its own guess" in lines[0]
    sound = read_sound(path, 0.0, 1.2, 8000)
    assert sound is not None
    assert sound.square().mean() > 0


def test_stdout_that_is_full_or_closed_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    video = make_videos(tmp_path, num_videos=1)[0]
    settings = RolloutSettings("tiny", "-", prompt=str(video), horizon=9, context_frames=3)
    with Path("/dev/full").open("w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with pytest.raises(SettingsError, match="out=-: stdout cannot be written: No space left on device"):
            imagine_with(tiny_run(), settings, CPU, progress=False)
    for closed in (file, None):
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(SettingsError, match="out=- writes a video to stdout, which is closed"):
            imagine_with(tiny_run(), settings, CPU, progress=False)


def test_nothing_is_left_to_be_written_when_the_reader_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    video = make_videos(tmp_path, num_videos=1)[0]
    settings = RolloutSettings("tiny", "-", prompt=str(video), horizon=60, context_frames=3)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        (line,) = imagine_with(tiny_run(), settings, CPU, progress=False)
    assert line.endswith(", of 60: it was stopped")


def test_what_a_prompt_goes_on_with_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    video, read = make_videos(tmp_path, num_videos=1)[0], []

    def reading(*arguments: Any) -> Clip:
        read.append(read_prompt(*arguments))
        return read[-1]

    monkeypatch.setattr("worldmodel.rollouts.beginning.read_prompt", reading)
    with (tmp_path / "out.ts").open("w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        imagine_with(tiny_run(), RolloutSettings("tiny", "-", str(video), None, 9, 3), CPU, progress=False)
    assert [len(clip.frames) for clip in read] == [3]


def test_several_rollouts_cannot_be_piped():
    with pytest.raises(SettingsError, match="num_rollouts=2 with out=-: one rollout can be piped, give 1"):
        check_settings(RolloutSettings("tiny", "-", prompt="a.mp4", num_rollouts=2))


def test_a_terminal_gets_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    video = make_videos(tmp_path, num_videos=1)[0]
    settings = RolloutSettings("tiny", "-", prompt=str(video), horizon=2, context_frames=3)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(SettingsError, match="out=- writes a video to the terminal: pipe it into a player"):
        imagine_with(tiny_run(), settings, CPU, progress=False)
