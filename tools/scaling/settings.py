"""What the figures on paper assume. Nothing heavy is imported here."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Machine:
    """What GPUs and links do: figures of a data sheet, and what is usually reached of them.

    Attributes:
        peak_teraflops: of a GPU, bf16 without sparsity (H100, H200: 989).
        mfu: share of the peak that a step's arithmetic reaches.
        nvlink_gigabytes: that a GPU sends per second within its node (of 450 on the data sheet).
        network_gigabytes: that a GPU sends per second to other nodes (of 50 with a link of 400 Gbit/s for each).
        slow_network_gigabytes: the same where a node of 8 GPUs has one link of 400 Gbit/s.
        overlap: share of the sending that arithmetic hides; the engine as it stands hides none.
        device_gigabytes: memory of a GPU.
    """

    peak_teraflops: float = 989.0
    mfu: float = 0.4
    nvlink_gigabytes: float = 300.0
    network_gigabytes: float = 40.0
    slow_network_gigabytes: float = 5.0
    overlap: float = 0.0
    device_gigabytes: float = 80.0


@dataclass(frozen=True)
class Work:
    """What a step trains on.

    Attributes:
        frames: of a clip.
        frame_tokens: of a frame in the trunk (16 by 16 of the picture, and one of sound).
        clips: that a GPU reads in a micro-batch, views for the heads included.
        accumulate: micro-batches of a step.
        recompute: whether blocks run again in the backward pass.
        block_bytes: that a block keeps for its backward pass, per token and channel: measured, in bf16.
        cut_bytes: those of them that lie in heads and hidden channels, which processes that share matrices divide.
    """

    frames: int = 32
    frame_tokens: int = 257
    clips: float = 4.0
    accumulate: int = 1
    recompute: bool = True
    block_bytes: float = 60.21875
    cut_bytes: float = 44.15625

    @property
    def tokens(self) -> float:
        """That a GPU reads in a micro-batch."""
        return self.frames * self.frame_tokens * self.clips


@dataclass(frozen=True)
class ScalingSettings:
    """`python -m tools.scaling`: what training sends over links, and what is left of the speed, up to 1,024 GPUs.

    Attributes:
        measure: count on two processes (gloo) what is really sent, beside the arithmetic.
        plot: a picture of the efficiencies to write.
        machine: what GPUs and links do.
        work: what a step trains on.
    """

    measure: bool = False
    plot: str | None = None
    machine: Machine = field(default_factory=Machine)
    work: Work = field(default_factory=Work)
