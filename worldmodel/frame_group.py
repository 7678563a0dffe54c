"""Processes that share clips, each with its part of the frames."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from worldmodel.sight import Sight


@runtime_checkable
class FrameGroup(Protocol):
    """What a model asks of the group that this process is in; `worldmodel.training.ulysses` has the real one.

    Attributes:
        rank: number of this process in the group.
        size: processes of the group.
    """

    rank: int
    size: int

    def attend(self, query: Tensor, key: Tensor, value: Tensor, sight: Sight | None, backend: Any) -> Tensor:
        """Attention of this process's tokens to those of all, as `worldmodel.attention.attend`."""
        ...

    def gather(self, states: Tensor) -> Tensor:
        """The states of all frames from those of every process's part, (batch, frame, token, dim)."""
        ...


def part_of(group: FrameGroup, num_frames: int) -> slice:
    """This process's frames of a clip.

    Raises:
        ValueError: the frames do not divide among the processes.
    """
    if num_frames % group.size:
        raise ValueError(
            f"{num_frames} frames do not divide among the {group.size} processes of training.sequence_parallel"
        )
    share = num_frames // group.size
    return slice(group.rank * share, (group.rank + 1) * share)
