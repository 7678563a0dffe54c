from typing import Any

import pytest
import torch

from tests.worldmodel.tiny import CLIPS
from worldmodel.errors import SettingsError
from worldmodel.rollouts import checking
from worldmodel.rollouts.checking import check_memory, check_repeat, check_settings
from worldmodel.settings import RolloutSettings

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "horizon=0 is out of range: it must be 1 or more"),
        ({"context_frames": 0}, "context_frames=0 is out of range"),
        ({"num_rollouts": -1}, "num_rollouts=-1 is out of range"),
        ({"start_seconds": -0.5}, "start_seconds=-0.5 is out of range: it must be 0 or more"),
        ({"prompt": None}, "neither a prompt nor codes to continue"),
        ({"out": "film.avi"}, r"out=film.avi: the name must end with \.mp4"),
    ],
)
def test_settings_that_nothing_can_do_are_refused(changes: dict, message: str):
    settings: dict[str, Any] = {"run": "tiny", "out": "out.mp4", "prompt": "video.mp4"} | changes
    with pytest.raises(SettingsError, match=message):
        check_settings(RolloutSettings(**settings))


@pytest.mark.parametrize(
    ("given", "out"),
    [
        ({"prompt": "videos/a.mp4"}, "videos/../videos/a.mp4"),
        ({"continue_from": "a.codes.safetensors"}, "a.mp4"),
        ({"prompt": "a.png"}, "a.mp4"),
    ],
)
def test_what_is_read_is_never_written_over(given: dict[str, str], out: str):
    with pytest.raises(SettingsError, match=r"out=.* would replace .*a\..*, which .* reads: give another name"):
        check_settings(RolloutSettings("run", out, **given))  # type: ignore[arg-type]


def test_frames_whose_pixels_fill_half_of_the_memory_are_refused_and_it_is_told_how_many_do_not(
    monkeypatch: pytest.MonkeyPatch,
):
    num_bytes = 3 * CLIPS.height * CLIPS.width + 4 * CLIPS.samples_per_frame
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 40, "SC_PAGE_SIZE": num_bytes}.get)
    check_memory(2, 10, CLIPS)
    with pytest.raises(SettingsError, match="2 times 11 frames with their sound need 0 GiB.*ask for 10 frames at most"):
        check_memory(2, 11, CLIPS)


def test_a_cuda_graph_needs_a_gpu():
    with pytest.raises(SettingsError, match="cuda_graph=true needs a CUDA device, not cpu: leave it out, or see comp"):
        check_repeat(RolloutSettings("tiny", "out.mp4", cuda_graph=True), CPU)


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(checking, "require_compiler", lambda *given: asked.append(given))
    check_repeat(RolloutSettings("tiny", "out.mp4"), CPU)
    assert asked == []
    check_repeat(RolloutSettings("tiny", "out.mp4", compile=True), CPU)
    assert asked == [(CPU, "compile")]
