"""What a rollout starts from: the first frames of a video, or the codes of an earlier rollout."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from streams.addresses import address_of
from streams.clip import Batch, Clip
from streams.errors import MediaError
from streams.settings import ClipSettings
from streams.videos import VideoSource
from worldmodel.errors import SettingsError
from worldmodel.evaluation.films import CodedModel, encode_clips
from worldmodel.rollouts.rollout_codes import RolloutCodes, load_codes
from worldmodel.settings import RolloutSettings


@runtime_checkable
class Run(CodedModel, Protocol):
    """A loaded run."""

    @property
    def fingerprint(self) -> str:
        """Of the codecs."""
        ...


@dataclass(frozen=True)
class Beginning:
    """What a rollout starts from.

    Attributes:
        rollout: the codes so far; nothing is drawn yet, or as much as the earlier rollout did.
        truth: the video from the first context frame on, if there is one.
        generator: of the draws to come.
        notes: what the user should know.
    """

    rollout: RolloutCodes
    truth: Clip | None
    generator: torch.Generator
    notes: list[str]


def begin_from_video(run: Run, settings: RolloutSettings, device: torch.device) -> Beginning:
    """Encode the context of a prompt, once for all rollouts."""
    assert settings.prompt is not None, "check_settings asks for a prompt"
    clips, num_context = run.picture.clips, settings.context_frames
    clip = read_prompt(settings.prompt, clips, settings.start_seconds, num_context, settings.horizon)
    context = Clip(
        clip.frames[:num_context],
        clip.seconds[:num_context],
        None if clip.sound is None else clip.sound[:num_context],
        clip.video,
    )
    codes = encode_clips(run, Batch.stack([context], clips.samples_per_frame).to(device)).cpu()
    seed = settings.seed or 0
    generator = torch.Generator(device).manual_seed(seed)
    rollout = RolloutCodes(
        codes=codes.repeat(settings.num_rollouts, 1, 1),
        num_prompt_frames=num_context,
        start_seconds=float(clip.seconds[0]),
        has_sound=clip.sound is not None,
        frames_per_second=float(clips.frames_per_second),
        seed=seed,
        generator_state=generator.get_state(),
        device=device.type,
        fingerprint=run.fingerprint,
    )
    notes = []
    if run.sound is not None and clip.sound is None:
        notes.append(f"{clip.video} has no sound: the model is told so, and the sound that follows is its own guess")
    return Beginning(rollout, clip, generator, notes)


def begin_from_codes(run: Run, settings: RolloutSettings, device: torch.device) -> Beginning:
    """Take up an earlier rollout: same codes, same place in the draws.

    One rollout may branch into many; many go on as many.

    Raises:
        SettingsError: another number of rollouts is asked for than the file holds.
        CacheError: see `load_codes`.
    """
    path = Path(settings.continue_from or "")
    earlier = load_codes(path, run.fingerprint, run.model.decoder.scales)
    num_there = len(earlier.codes)
    if settings.num_rollouts != 1 and num_there not in (1, settings.num_rollouts):
        raise SettingsError(
            f"num_rollouts={settings.num_rollouts}, but {path} holds {num_there} rollouts: all of them go on, give 1"
        )
    if num_there == 1:
        earlier = replace(earlier, codes=earlier.codes.repeat(settings.num_rollouts, 1, 1))
    generator, notes = torch.Generator(device), []
    if settings.seed is not None:
        earlier = replace(earlier, seed=settings.seed)
        generator.manual_seed(settings.seed)
    elif earlier.device == device.type:
        generator.set_state(earlier.generator_state)
    else:
        # Not the seed itself, which would repeat the draws of the beginning.
        generator.manual_seed(earlier.seed + earlier.codes.shape[1])
        notes.append(
            f"{path} was drawn on {earlier.device}, this is {device.type}: other draws than there would follow"
        )
    truth = None
    if settings.prompt is not None:
        num_context = earlier.num_prompt_frames
        horizon = earlier.codes.shape[1] - num_context + settings.horizon
        truth = read_prompt(settings.prompt, run.picture.clips, earlier.start_seconds, num_context, horizon)
    return Beginning(earlier, truth, generator, notes)


def read_prompt(prompt: str, clips: ClipSettings, start_seconds: float, context_frames: int, horizon: int) -> Clip:
    """The context and, as far as the video goes on, the truth of the horizon.

    Raises:
        MediaError: there is no such video, it cannot be decoded, or it is shorter than the context.
    """
    path = address_of(prompt)
    if isinstance(path, Path) and not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise MediaError(f"{path}: {what}; give one video as the prompt")
    video = VideoSource([path], replace(clips, num_frames=1)).videos[0]
    rate = clips.frames_per_second
    start = max(video.first, round(start_seconds * rate))
    num_left = video.first + video.num_frames - start
    if num_left < context_frames:
        raise MediaError(
            f"{path}: {max(0, num_left)} frames ({rate:g} per second) from second {start_seconds:g} on, "
            f"context_frames={context_frames} are needed: start earlier, or give a longer video"
        )
    source = VideoSource([path], replace(clips, num_frames=min(num_left, context_frames + horizon)))
    clip = source.clips_at(0, [start])[0]
    source.close()
    return clip
