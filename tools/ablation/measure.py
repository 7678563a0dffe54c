"""What is measured of a trained candidate: bits of held-out codes, rollouts of held-out videos, and speed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tools.ablation.candidate import Candidate
from tools.ablation.settings import AblationSettings
from worldmodel.cache.latents import CodeBatch, LatentCache, LatentSource
from worldmodel.codecs.store import PictureCodec
from worldmodel.evaluation.horizons import COPY, ROLLOUT, measure_horizons
from worldmodel.evaluation.world import heldout_videos
from worldmodel.rollouts.moment import FrameModel
from worldmodel.settings import EvaluateSettings, SamplingSettings

HORIZONS = (1, 4, 8, 16)
BATCH_CLIPS = 16
SAMPLINGS = {
    "drawn": SamplingSettings(moved_scales=0),
    "likeliest": SamplingSettings(moved_scales=0, temperature=[0.0]),
    "moved": SamplingSettings(),
}


@dataclass(frozen=True)
class Coded:
    """A candidate with the codec of its codes, as the measures of the world model want it."""

    model: FrameModel
    picture: PictureCodec
    sound: None = None


def measure(candidate: Candidate, picture: PictureCodec, settings: AblationSettings) -> dict[str, Any]:
    """All measures, as JSON values.

    Returns:
        bits, changed_bits: per frame, and of its codes that change; clip_bits: the former of every clip.
        rollouts: by sampling, PSNR by horizon and how many codes change from frame to frame for each that truly does.
        copy_psnr: by horizon, of the last true frame.
    """
    candidate.eval()
    cache = LatentCache(settings.cache)
    found = measure_bits(candidate, cache, settings)
    return found | measure_rollouts(candidate, picture, cache, settings)


@torch.no_grad()
def measure_bits(candidate: Candidate, cache: LatentCache, settings: AblationSettings) -> dict[str, Any]:
    """Bits of the next frame's codes in held-out clips."""
    torch.manual_seed(settings.training.seed)
    bits, changed = [], []
    for batch in heldout_batches(cache, settings):
        found = candidate.predict(batch.picture)
        bits.append((found.nats * found.counted).sum(-1).mean(1).numpy() / math.log(2))
        changed.append((found.nats * found.changed).sum(-1).mean(1).numpy() / math.log(2))
    each = np.concatenate(bits)
    return {
        "bits": float(each.mean()),
        "clip_bits": [float(value) for value in each],
        "changed_bits": float(np.concatenate(changed).mean()),
    }


def heldout_batches(cache: LatentCache, settings: AblationSettings) -> Iterator[CodeBatch]:
    """Evenly spaced held-out clips."""
    source = LatentSource(cache.path, settings.num_frames, "heldout", random_start=False)
    count = min(settings.num_clips, len(source))
    indices = np.linspace(0, len(source) - 1, count).astype(int)
    for start in range(0, count, BATCH_CLIPS):
        yield source.collate([source.read(int(i), np.random.default_rng(0)) for i in indices[start:][:BATCH_CLIPS]])


def measure_rollouts(
    candidate: Candidate, picture: PictureCodec, cache: LatentCache, settings: AblationSettings
) -> dict[str, Any]:
    """Rollouts of held-out videos, drawn in every way that the candidate can be drawn from."""
    coded = Coded(candidate.model, picture)
    source = heldout_videos(coded, cache, settings.context_frames + settings.horizon)
    rollouts, copies = {}, np.zeros((1, settings.horizon))
    shown = [horizon for horizon in HORIZONS if horizon <= settings.horizon]
    for name in candidate.samplings:
        moves = Movement(candidate)
        evaluate = EvaluateSettings(
            run="",
            num_clips=settings.num_clips,
            context_frames=settings.context_frames,
            horizon=settings.horizon,
            sampling=SAMPLINGS[name],
        )
        horizons = measure_horizons(coded, source, evaluate, torch.device("cpu"), moves.imagine)
        psnr, copies = horizons.psnr[ROLLOUT].mean(0), horizons.psnr[COPY]
        rollouts[name] = {
            "psnr": {str(horizon): float(psnr[horizon - 1]) for horizon in shown},
            "changes": moves.share_changed(),
        }
    source.close()
    truth = np.concatenate([batch.picture.numpy() for batch in heldout_batches(cache, settings)])
    return {
        "rollouts": rollouts,
        "true_changes": float((truth[:, 1:] != truth[:, :-1]).mean()),
        "copy_psnr": {str(horizon): float(copies[:, horizon - 1].mean()) for horizon in shown},
    }


class Movement:
    """Imagines by a candidate, and counts how many codes change from frame to frame."""

    def __init__(self, candidate: Candidate) -> None:
        """Nothing is imagined yet."""
        self.candidate, self.changed = candidate, list[Tensor]()

    def imagine(
        self,
        coded: object,
        prompt: Int[Tensor, "batch frame code"],
        has_sound: Bool[Tensor, " batch"],
        settings: EvaluateSettings,
        generator: torch.Generator,
    ) -> Int[Tensor, "batch horizon code"]:
        """Codes of the frames after a prompt."""
        del coded, has_sound
        frames = self.candidate.roll_out(prompt, settings.sampling, generator)
        codes = torch.stack(list(islice(frames, settings.horizon)), 1)
        before = torch.cat((prompt[:, -1:], codes[:, :-1]), 1)
        self.changed.append((codes != before).float().flatten())
        return codes

    def share_changed(self) -> float:
        """Of all codes imagined so far."""
        return float(torch.cat(self.changed).mean())
