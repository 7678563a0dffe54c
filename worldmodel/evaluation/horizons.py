"""How rollouts of many clips fare with their length: distance to the true frames, and drift of their codes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from tqdm import tqdm

from streams.clip import to_uint8
from streams.videos import VideoSource
from worldmodel.evaluation.films import CodedModel, encode_clips
from worldmodel.evaluation.metrics import code_divergence_bits, psnr
from worldmodel.evaluation.reading import spread_clips
from worldmodel.rollouts.rollout import roll_out
from worldmodel.settings import EvaluateSettings

# What gives the codes after a prompt, of a model, of clips with sound or without, as the settings say.
Imagine = Callable[[CodedModel, Tensor, Tensor, EvaluateSettings, torch.Generator], Tensor]
BATCH_CLIPS = 16
ROLLOUT, COPY, CODEC = "rollout", "copy of the last frame", "codec"
LARGEST_PSNR = 60.0  # a frame that stands still is copied without any error: one clip must not decide the mean


@dataclass(frozen=True)
class Horizons:
    """Rollouts and what they are compared with, frame by frame after the context.

    Attributes:
        psnr: by name, in decibels, (clip, horizon).
        divergence: by name, between the picture codes of all clips there and the true ones, in bits, (horizon).
        left_out: a line for each clip that could not be read.
    """

    psnr: dict[str, Float[np.ndarray, "clip horizon"]]
    divergence: dict[str, Float[np.ndarray, " horizon"]]
    left_out: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """A line of means for each horizon, as CSV; the file appears whole or not at all."""
        columns = {f"PSNR of {name} (dB)": values.mean(0) for name, values in self.psnr.items()}
        columns |= {f"code divergence of {name} (bits)": values for name, values in self.divergence.items()}
        rows = zip(*columns.values(), strict=True)
        lines = [",".join(["horizon", *columns])]
        lines += [",".join([str(number), *(f"{value:.4f}" for value in row)]) for number, row in enumerate(rows, 1)]
        partial = path.with_suffix(".partial")
        partial.write_text("\n".join([*lines, ""]), encoding="utf-8")
        partial.replace(path)

    def drift_lines(self, shown: Sequence[int]) -> list[str]:
        """The divergence of codes at these horizons, as a small table."""
        lines = [f"{'codes against the truth, Jensen-Shannon bits':48}{''.join(f'{each:8}' for each in shown)}"]
        for name, values in self.divergence.items():
            lines.append(f"  {name:46}{''.join(f'{values[each - 1]:8.3f}' for each in shown)}")
        return lines


def imagine_codes(
    coded: CodedModel,
    prompt: Int[Tensor, "batch frame code"],
    has_sound: Bool[Tensor, " batch"],
    settings: EvaluateSettings,
    generator: torch.Generator,
) -> Int[Tensor, "batch horizon code"]:
    """Codes of the frames after the prompt."""
    frames = roll_out(coded.model, prompt, has_sound, settings.sampling, generator)
    return torch.stack(list(islice(frames, settings.horizon)), 1)


def measure_horizons(
    coded: CodedModel,
    source: VideoSource,
    settings: EvaluateSettings,
    device: torch.device,
    imagine: Imagine = imagine_codes,
) -> Horizons:
    """Roll out evenly spaced clips of context and horizon.

    Args:
        coded: model and codecs.
        source: clips as long as context and horizon together.
        settings: how much of what is imagined how.
        device: where model and codecs are.
        imagine: gives the codes after a prompt.
    """
    count, context = min(settings.num_clips, len(source)), settings.context_frames
    left_out: list[str] = []
    clips = spread_clips(source, count, left_out)
    num_picture = coded.picture.pyramid.num_codes
    found: dict[str, list[np.ndarray]] = {ROLLOUT: [], COPY: [], CODEC: []}
    codes: dict[str, list[np.ndarray]] = {ROLLOUT: [], COPY: [], CODEC: []}
    generator = torch.Generator(device).manual_seed(settings.seed)
    parts = iter(lambda: list(islice(clips, BATCH_CLIPS)), [])
    for part in tqdm(parts, "rollouts", -(-count // BATCH_CLIPS), unit="batch"):
        batch = source.collate(part)
        true = encode_clips(coded, batch.to(device))
        prompt, after = true[:, :context], true[:, context:]
        imagined = imagine(coded, prompt, batch.has_sound.to(device), settings, generator)
        frames = batch.frames[:, context:]
        pictures = {ROLLOUT: show(coded, imagined), CODEC: show(coded, after)}
        pictures[COPY] = batch.frames[:, context - 1 : context].expand_as(frames)
        for name, shown in pictures.items():
            found[name].append(psnr(shown, frames))
        for name, each in {ROLLOUT: imagined, COPY: prompt[:, -1:].expand_as(after), CODEC: after}.items():
            codes[name].append(each[..., :num_picture].cpu().numpy())
    joined = {name: np.concatenate(each) for name, each in codes.items()}
    return Horizons(
        {name: np.concatenate(values).clip(max=LARGEST_PSNR) for name, values in found.items()},
        {name: divergence(joined[name], joined[CODEC], coded.picture.pyramid.slices) for name in (ROLLOUT, COPY)},
        left_out,
    )


def divergence(
    codes: Int[np.ndarray, "clip horizon code"], truth: Int[np.ndarray, "clip horizon code"], slices: tuple[slice, ...]
) -> Float[np.ndarray, " horizon"]:
    """How differently codes are used, frame by frame, in bits."""
    frames = zip(codes.swapaxes(0, 1), truth.swapaxes(0, 1), strict=True)
    return np.array([code_divergence_bits(*pair, slices) for pair in frames])


def show(coded: CodedModel, codes: Int[Tensor, "batch frame code"]) -> UInt8[Tensor, "batch frame 3 height width"]:
    """What the codes look like, on the CPU."""
    return to_uint8(coded.picture.decode(codes[..., : coded.picture.pyramid.num_codes])).cpu()
