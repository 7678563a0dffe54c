"""What a training keeps: of its state by arithmetic, of its activations by measurement.

The arithmetic is ZeRO's (Rajbhandari et al. 2020), for an engine whose weights, gradients and masters are fp32.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from worldmodel.settings import TrainingSettings

FLOAT_BYTES = 4
BUCKET_ELEMENTS = 500_000_000  # gradients are copied here to be reduced; DeepSpeed's default
LIVE_ELEMENTS = 1_000_000_000  # weights that ZeRO-3 may keep whole for their next use; DeepSpeed's default


@dataclass(frozen=True)
class Kept:
    """Bytes of one kind that a process keeps.

    Attributes:
        device: on its device.
        host: in the host's memory, where the state is offloaded.
    """

    device: int = 0
    host: int = 0


def state_bytes(num_elements: int, num_hidden: int, settings: TrainingSettings, num_ranks: int) -> dict[str, Kept]:
    """What a process keeps of the training's state at its fullest, by kind; paddings are left out.

    Masters are the copy of its share that the optimizer of ZeRO 1 to 3 steps on. Gradients are whole until they are
    reduced (in stages 2 and 3, in buckets); the share that the optimizer is given is kept beside them. ZeRO-3 gathers
    weights and keeps them up to a bound, which most models do not reach.

    Args:
        num_elements: trained weights.
        num_hidden: those of them in the transformers' matrices, which Muon would train (its state is one number each,
            Adam's two) and tensor_parallel cuts.
        settings: of the loop.
        num_ranks: processes that the state is cut among, those that share matrices included.
    """
    num_elements -= num_hidden - -(-num_hidden // settings.tensor_parallel)
    num_ranks //= settings.tensor_parallel
    stage, moments = settings.zero_stage, 2 * num_elements
    if settings.optimizer == "muon":
        moments -= num_hidden
    whole, share = FLOAT_BYTES * num_elements, -(-FLOAT_BYTES * num_elements // num_ranks)
    if stage == 0:
        return {"weights": Kept(whole), "gradients": Kept(whole), "optimizer": Kept(FLOAT_BYTES * moments)}
    bucket = FLOAT_BYTES * BUCKET_ELEMENTS
    gathered = FLOAT_BYTES * min(num_elements, LIVE_ELEMENTS)
    offloaded, away = settings.offload != "none", settings.offload == "parameters"
    kept = {
        "weights": Kept(whole) if stage < 3 else Kept(0 if away else share, share if away else 0),
        "gathered weights, at most": Kept(gathered if stage == 3 else 0),
        "gradients": Kept(whole if stage == 1 else 0),
        "gradients, own share": put(share, offloaded),
        "bucket of gradients": Kept(bucket),
        "masters": put(share, offloaded),
        "optimizer": put(-(-FLOAT_BYTES * moments // num_ranks), offloaded),
    }
    return {kind: one for kind, one in kept.items() if one != Kept()}


def put(num_bytes: int, away: bool) -> Kept:
    """Bytes on the device, or away in the host's memory."""
    return Kept(0, num_bytes) if away else Kept(num_bytes)


class Activations:
    """Counts what a forward pass keeps for its backward pass, every storage once, weights left out.

    Attributes:
        num_bytes: of the storages met so far.
    """

    def __init__(self) -> None:
        """Nothing met yet."""
        self.met: dict[int, int] = {}

    @property
    def num_bytes(self) -> int:
        """Of all that is kept."""
        return sum(self.met.values())

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Inside is the forward pass; what it keeps must live until the end of it."""
        with saved_tensors_hooks(self.note, lambda tensor: tensor):
            yield

    def note(self, tensor: Tensor) -> Tensor:
        """Meets a tensor that is kept."""
        # A layer may keep its weight as a view of it, whose base it is.
        if not isinstance(tensor, nn.Parameter) and not isinstance(tensor._base, nn.Parameter):
            storage = tensor.untyped_storage()
            self.met[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # a tensor that its own graph keeps would never be freed


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process has had: of the GPU's, or of the host's where it computes on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
