"""What a rollout refuses before it begins."""

import os
from pathlib import Path

import torch

from streams.settings import ClipSettings
from worldmodel.compiler import require_compiler
from worldmodel.errors import SettingsError
from worldmodel.settings import RolloutSettings

CODES = ".codes.safetensors"
PIPE = "-"  # as the name of what is written


def check_repeat(settings: RolloutSettings, device: torch.device) -> None:
    """Refuse what the machine has nothing for, before the run is read.

    Raises:
        SettingsError: there is no GPU to record, or no compiler that works.
    """
    if settings.cuda_graph and device.type != "cuda":
        raise SettingsError(f"cuda_graph=true needs a CUDA device, not {device}: leave it out, or see compile")
    if settings.compile:
        require_compiler(device, "compile")


def check_settings(settings: RolloutSettings) -> None:
    """Refuse what no run can do.

    Raises:
        SettingsError: names the setting, its value and what was expected.
    """
    for name in ("horizon", "context_frames", "num_rollouts"):
        if getattr(settings, name) < 1:
            raise SettingsError(f"{name}={getattr(settings, name)} is out of range: it must be 1 or more")
    if settings.start_seconds < 0:
        raise SettingsError(f"start_seconds={settings.start_seconds} is out of range: it must be 0 or more")
    if settings.prompt is None and settings.continue_from is None:
        raise SettingsError("neither a prompt nor codes to continue: give a video, or the codes of an earlier rollout")
    if settings.out == PIPE:
        if settings.num_rollouts > 1:
            raise SettingsError(f"num_rollouts={settings.num_rollouts} with out=-: one rollout can be piped, give 1")
        return
    written = [Path(settings.out), *(Path(settings.out).with_suffix(ending) for ending in (".png", CODES))]
    for name in ("prompt", "continue_from"):
        given = getattr(settings, name)
        if given is not None and Path(given).resolve() in [path.resolve() for path in written]:
            raise SettingsError(f"out={settings.out} would replace {given}, which {name} reads: give another name")
    if Path(settings.out).suffix.lower() != ".mp4":
        raise SettingsError(f"out={settings.out}: the name must end with .mp4, or be - for a pipe")


def check_memory(num_rollouts: int, num_frames: int, clips: ClipSettings) -> None:
    """Refuse what is too long for the frames to lie in half of this machine's memory: beside them there are others.

    Raises:
        SettingsError: it is.
    """
    needed = num_rollouts * num_frames * (3 * clips.height * clips.width + 4 * clips.samples_per_frame)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory // 2:
        longest = memory // 2 * num_frames // needed
        raise SettingsError(
            f"{num_rollouts} times {num_frames} frames with their sound need {needed / 2**30:.0f} GiB, this machine "
            f"has {memory / 2**30:.0f}: ask for {longest} frames at most, context included, or for fewer rollouts"
        )
