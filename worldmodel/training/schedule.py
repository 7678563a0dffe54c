"""The learning rate over a run."""

import math

FLOOR = 0.1


def factor(step: int, warmup_steps: int, steps: int) -> float:
    """Share of the peak learning rate that an update uses: linear warm-up, then a cosine down to a tenth.

    A pure function, so that a resumed run needs no state. After Loshchilov and Hutter, 2017 (SGDR), without restarts.

    Args:
        step: index of the update, from 0.
        warmup_steps: updates of the warm-up; the last of them is at the peak.
        steps: updates in the whole run; the last of them is at a tenth.

    Raises:
        ValueError: the step is negative.
    """
    if step < 0:
        raise ValueError(f"step {step} is negative: steps count from 0")
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    # The peak has been reached at index warmup_steps - 1; without a warm-up the first update is at the peak.
    start = max(warmup_steps - 1, 0)
    progress = min((step - start) / max(steps - 1 - start, 1), 1.0)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))
