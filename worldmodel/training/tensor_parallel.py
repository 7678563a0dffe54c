"""Groups of processes that share the matrices of every transformer block (Shoeybi et al. 2019, "Megatron-LM").

DeepSpeed's AutoTP cuts them: what enters attention and feed-forward by rows of the weight, so that a process has its
share of the heads and of the hidden channels, and what leaves by columns, whose products are added up over the group.
All else (embeddings, norms, readouts) is whole on every process, and so are the tokens between the layers. Neighbouring
processes are a group: they read the same clips and draw the same numbers.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from worldmodel.settings import TrainingSettings
from worldmodel.training import cluster

BLOCK = r".*\.blocks\.\d+\."
# What DeepSpeed does with each of a block's weights; the first pattern that fits a name counts.
LAYERS: list[dict[str, Any]] = [
    {"patterns": [BLOCK + r"attention\.query\.weight$"], "partition_type": "column"},
    # Two matrices in one, keys and values, or gates and values: each is cut for itself.
    {
        "patterns": [BLOCK + r"attention\.key_value\.weight$", BLOCK + r"feed\.gate_value\.weight$"],
        "partition_type": "column",
        "shape": [2, -1],
        "partition_dim": 0,
    },
    {"patterns": [BLOCK + r"(attention|feed)\.out\.weight$"], "partition_type": "row"},
    # One norm for all heads, of which a process sees some: its gradient is the sum over the group.
    {
        "patterns": [BLOCK + r"attention\.(query|key)_norm\.weight$"],
        "partition_type": "skip",
        "grad_allreduce": True,
    },
]


def section_of(size: int) -> dict[str, Any]:
    """The part of DeepSpeed's dictionary that cuts matrices among so many processes."""
    if size == 1:
        return {}
    # Named patterns alone: by default DeepSpeed guesses from the names that models of transformers have.
    return {
        "tensor_parallel": {
            "autotp_size": size,
            "partition_config": {"use_default_specs": False, "layer_specs": LAYERS},
        }
    }


def refuse_unfit(settings: TrainingSettings) -> None:
    """Refuse what does not go together with matrices that are cut.

    Raises:
        ValueError: names the setting.
    """
    size = settings.tensor_parallel
    if size < 1:
        raise ValueError(f"training.tensor_parallel={size} is out of range: it must be 1 or more")
    if size == 1:
        return
    if settings.optimizer == "muon":
        raise ValueError(
            f"training.tensor_parallel={size} with training.optimizer=muon: Muon needs whole matrices; use adamw"
        )
    if settings.sequence_parallel != 1:
        raise ValueError(
            f"training.tensor_parallel={size} with training.sequence_parallel={settings.sequence_parallel}: "
            "leave one of them at 1"
        )


class CutMatrices:
    """The matrices of an objective while they are cut.

    Attributes:
        size: processes of a group.
    """

    def __init__(self, objective: nn.Module, matrices: list[nn.Parameter], size: int) -> None:
        """Gives every process the weights of process 0, of which DeepSpeed is about to cut parts.

        All but the matrices is put on the device, which need not hold them whole: DeepSpeed puts the parts there.

        Args:
            objective: in the host's memory.
            matrices: those that are cut.
            size: processes of a group.
        """
        self.objective, self.size = objective, size
        device, cut = cluster.device(), {id(one) for one in matrices}
        for value in [*objective.parameters(), *objective.buffers()]:
            there = value.detach().to(device)
            dist.broadcast(there, 0)
            value.data = there.to(value.device) if id(value) in cut else there
        self.heads = [(module, module.num_heads) for module in objective.modules() if hasattr(module, "num_heads")]

    def begin(self, engine: Any) -> None:
        """Takes over from DeepSpeed's engine, once it has cut them."""
        # It would compare pickled batches, of which it knows tensors and no classes.
        engine.first_dataloader_check.remove()
        for layer in self.objective.modules():
            if is_cut(layer):
                layer.products_flops = flops_of(layer)  # type: ignore[assignment]

    def end(self, groups: Any) -> None:
        """Puts layers of torch around weights that are whole again, and lets DeepSpeed forget the groups.

        Args:
            groups: `deepspeed.utils.groups`, which would go on with them in the next engine of this process.
        """
        for module, num_heads in self.heads:
            module.num_heads = num_heads  # type: ignore[assignment]
        for module in self.objective.modules():
            module.__dict__.pop("replaced", None)  # else the next engine would pass it over
            for name, layer in module.named_children():
                if is_cut(layer):
                    setattr(module, name, plain(layer))
        groups.mpu = None
        groups._TENSOR_MODEL_PARALLEL_GROUP = groups._MODEL_PARALLEL_GROUP = groups._DATA_PARALLEL_GROUP = None


def is_cut(module: nn.Module) -> bool:
    """Whether it is a layer of DeepSpeed's, with its part of a matrix."""
    return hasattr(module, "gather_params")


def plain(layer: nn.Module) -> nn.Linear:
    """A layer of torch with a layer's weight."""
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    found = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    found.weight = weight
    return found.train(layer.training)


def flops_of(layer: nn.Module) -> Callable[..., int]:
    """What counts the operations of a call of a layer with this process's part of a matrix."""
    weight: Any = layer.weight
    rows, columns = getattr(weight, "ds_shape", weight.shape)  # ZeRO-3 leaves no shape
    return lambda x: 2 * rows * columns * (x.numel() // columns)


def joined(parameter: Tensor, part: Tensor) -> Tensor:
    """The whole of what is like a parameter (it, or its optimizer's state), of which this process has a part.

    All processes of a group call it together; what is not cut is returned as it is.
    """
    if not hasattr(parameter, "gather_params"):
        return part
    found = part.detach().to(cluster.device(), copy=True)
    parameter.gather_params([found])  # pyright: ignore[reportAttributeAccessIssue] (DeepSpeed's)
    return found


def part_of(parameter: Tensor, whole: Tensor) -> Tensor:
    """This process's part of what is like a whole parameter; the whole where it is not cut.

    Raises:
        RuntimeError: it has another shape.
    """
    if not hasattr(parameter, "gather_params"):
        return whole
    found = whole.detach().to(cluster.device(), copy=True)
    with torch.no_grad():
        parameter._tp_partition([found])  # pyright: ignore[reportAttributeAccessIssue] (DeepSpeed's)
    return found
