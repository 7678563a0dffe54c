"""What a storm is; torch-free, so that --help is quick."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class KillStormSettings:
    """Kills a training again and again, and proves that it ends as one that was never disturbed.

    Attributes:
        kills: signals sent.
        processes: of the training, started by one torchrun.
        seed: of the moments, the signals and whom they hit.
        out: folder for the runs, kills.csv and kills.png; made by the command, and must be new.
        checkpoint_every: steps between two checkpoints.
        zero_stage: DeepSpeed ZeRO stage.
        limit_seconds: after which no more kills are sent but the first two of those at the end; 0 for no limit.
        patience_seconds: longest wait for what must come (a step, the end of a job) before it counts as a failure.
    """

    kills: int = 100
    processes: int = 2
    seed: int = 0
    out: str = "kill_storm"
    checkpoint_every: int = 4
    zero_stage: Literal[0, 1, 2, 3] = 1
    limit_seconds: float = 0.0
    patience_seconds: float = 300.0
