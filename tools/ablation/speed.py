"""How fast candidates train and imagine, measured in turns within one run."""

import statistics
import time

import torch

from tools.ablation.candidate import Candidate
from tools.ablation.measure import SAMPLINGS
from worldmodel.cache.latents import CodeBatch

NUM_ROUNDS, FRAMES_PER_ROUND = 5, 2


def speed_table(candidates: dict[str, Candidate], batch: CodeBatch, context_frames: int) -> list[str]:
    """Clips trained, and frames imagined one clip at a time, per second of CPU time; ratios are to the first candidate.

    Args:
        candidates: by name, trained or not.
        batch: of a training step; its first clip begins the rollouts.
        context_frames: read before them.
    """
    trained: dict[str, list[float]] = {name: [] for name in candidates}
    imagined: dict[str, list[float]] = {name: [] for name in candidates}
    prompt = batch.picture[:1, :context_frames]
    for _ in range(NUM_ROUNDS):
        for name, candidate in candidates.items():
            trained[name].append(len(batch.picture) / step_seconds(candidate, batch))
            imagined[name].append(1 / frame_seconds(candidate, prompt))
    lines = [
        "| candidate | clips/CPU-s trained | ratio | frames/CPU-s imagined | ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    first = next(iter(candidates))
    for name in candidates:
        cells = [name]
        for found in (trained, imagined):
            rate = statistics.median(found[name])
            ratio = statistics.median(one / other for one, other in zip(found[name], found[first], strict=True))
            cells += [f"{rate:.3g}", f"{ratio:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def step_seconds(candidate: Candidate, batch: CodeBatch) -> float:
    """CPU time of a forward and a backward pass."""
    candidate.train()
    begun = time.process_time()
    candidate(batch)[0].backward()
    seconds = time.process_time() - begun
    candidate.zero_grad()
    return seconds


@torch.no_grad()
def frame_seconds(candidate: Candidate, prompt: torch.Tensor) -> float:
    """CPU time of a frame, after the first one, before which the prompt is read."""
    candidate.eval()
    frames = candidate.roll_out(prompt, SAMPLINGS["drawn"], torch.Generator().manual_seed(0))
    next(frames)
    begun = time.process_time()
    for _ in range(FRAMES_PER_ROUND):
        next(frames)
    return (time.process_time() - begun) / FRAMES_PER_ROUND
