from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from streams import choosing
from streams.choosing import Trial, attempt, choose_reader, is_frame, places_of_samples, places_to_read
from streams.errors import MediaError
from streams.index import FrameIndex
from streams.pyav.facts import measure
from streams.pyav.index import index_frames
from streams.settings import Library
from tests.streams.ffmpeg import make_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video("constant", tmp_path_factory.mktemp("choosing"))


@pytest.mark.parametrize("library", ["pyav", "decord", "torchcodec"])
def test_frames_at_random_are_held_to_those_of_a_plain_decode(library: Library, video: Path):
    index = index_frames(video)
    pictures, _, _ = measure(video, 10.0, places_of_samples(len(index.ticks)))
    trial = attempt(video, index, pictures.samples, library)
    assert not trial.refusal
    assert trial.cpu_seconds > 0
    ticks = index.ticks.tolist()
    moved = {ticks[place - 1]: pictures.samples[ticks[place]] for place in places_of_samples(len(ticks))[1:]}
    assert f"{library} shows another frame at" in attempt(video, index, moved, library).refusal


def test_a_neighbour_is_told_from_the_frame_where_little_moves():
    generator = np.random.default_rng(0)
    still = generator.integers(0, 255, (3, 48, 64)).astype(np.uint8)
    frames = []
    for column in range(3):
        frames.append(still.copy())
        frames[-1][:, 20:24, 10 + column : 14 + column] = 255
    levels = np.abs(frames[0].astype(float) - frames[1]).mean()
    assert levels < 1
    brighter = np.minimum(frames[1], 254) + 1
    assert is_frame(brighter, frames, True)
    assert not is_frame(frames[2], frames, True)
    assert is_frame(frames[0], frames[:2], False)
    assert not is_frame(frames[1], frames[:2], False)
    assert is_frame(frames[0], [frames[0]], False)
    assert not is_frame(np.zeros_like(still), [frames[0]], False)


def test_samples_are_spread_from_the_first_frame_to_the_last():
    assert places_to_read(1) == places_of_samples(1) == [0]
    assert places_to_read(3) == [0, 1, 2]
    assert places_to_read(101) == [0, 20, 40, 60, 80, 100]
    assert places_of_samples(101) == [0, 1, *(20 * n + step for n in (1, 2, 3, 4) for step in (-1, 0, 1)), 99, 100]


def choose(monkeypatch: pytest.MonkeyPatch, trials: dict[Library, Trial], fall_back: bool, *readers: Library) -> Trial:
    monkeypatch.setattr(choosing, "attempt", lambda path, index, samples, library: trials[library])
    index = FrameIndex(np.arange(2), np.arange(1), Fraction(1), Fraction(0), "mov", "h264")
    return choose_reader(Path("a.mp4"), index, {}, readers, fall_back)


def trial(library: Library, seconds: float, refusal: str = "") -> Trial:
    return Trial(library, refusal, seconds)


def test_the_fastest_of_those_that_are_right_is_taken(monkeypatch: pytest.MonkeyPatch):
    trials: dict[Library, Trial] = {
        "pyav": trial("pyav", 2.0),
        "decord": trial("decord", 1.0, "wrong"),
        "torchcodec": trial("torchcodec", 1.5),
    }
    assert choose(monkeypatch, trials, True, "pyav").library == "pyav"
    assert choose(monkeypatch, trials, True, "pyav", "torchcodec", "decord").library == "torchcodec"


def test_where_none_is_right_another_one_is_tried_unless_the_file_is_damaged(monkeypatch: pytest.MonkeyPatch):
    trials: dict[Library, Trial] = {
        "pyav": trial("pyav", 1.0, "does not seek"),
        "torchcodec": trial("torchcodec", 1.0, "not exact"),
        "decord": trial("decord", 3.0),
    }
    assert choose(monkeypatch, trials, True, "pyav").library == "decord"
    with pytest.raises(MediaError, match="^does not seek$"):
        choose(monkeypatch, trials, False, "pyav")
    trials["decord"] = trial("decord", 1.0, "not exact")
    with pytest.raises(MediaError, match="does not seek; not exact"):
        choose(monkeypatch, trials, True, "pyav", "torchcodec")
