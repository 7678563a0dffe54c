"""The door to DeepSpeed, the one training engine, from one process on a CPU to many nodes."""

import io
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

# DeepSpeed looks for an accelerator at import, and warns where it finds none.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed
from deepspeed.runtime.utils import clip_grad_norm_

from worldmodel.compiler import require_compiler
from worldmodel.frame_group import FrameGroup
from worldmodel.settings import TrainingSettings
from worldmodel.training import cluster, compiling
from worldmodel.training.memory import BUCKET_ELEMENTS
from worldmodel.training.optimizer_state import OptimizerState, keys_of
from worldmodel.training.tensor_parallel import CutMatrices, joined, refuse_unfit, section_of
from worldmodel.training.ulysses import Ulysses

# Else the first collective on a CPU compiles a shared-memory operator: minutes, and a compiler that may not be there.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

Precision = Literal["fp32", "bf16"]


def deepspeed_settings(settings: TrainingSettings, batch_size: int, num_ranks: int) -> dict[str, Any]:
    """DeepSpeed's dictionary, a pure function of the settings.

    Precision is not in it: weights, gradients and optimizer are fp32, and autocast surrounds the objective.

    Args:
        settings: of the loop.
        batch_size: items of one update over all processes.
        num_ranks: processes.

    Raises:
        ValueError: the batch does not divide among the processes and micro-batches, or these not into groups.
    """
    for name in ("sequence_parallel", "tensor_parallel"):
        if (size := getattr(settings, name)) < 1 or num_ranks % size:
            raise ValueError(f"training.{name}={size} must divide the {num_ranks} processes")
    refuse_unfit(settings)
    compiling.refuse_unfit(settings)
    sharing = settings.num_sharing
    num_readers = num_ranks // sharing
    if batch_size % (num_readers * settings.accumulate):
        micro = f" times {settings.accumulate} micro-batches" if settings.accumulate > 1 else ""
        groups = "processes" if sharing == 1 else f"groups of {sharing} processes"
        raise ValueError(f"batch_size {batch_size} must be a multiple of the {num_readers} {groups}{micro}")
    # DeepSpeed takes all that share clips for readers of different data: only so are its gradients right in every
    # stage. It knows of those that share matrices, and counts them as readers at one place and as one at another.
    whole = {"train_batch_size": batch_size * sharing} if settings.tensor_parallel == 1 else {}
    return {
        **whole,
        "train_micro_batch_size_per_gpu": batch_size // num_readers // settings.accumulate,
        "gradient_accumulation_steps": settings.accumulate,
        # Without ZeRO, DeepSpeed does not tell the norm it clipped: `Engine.update` clips there.
        "gradient_clipping": bound_of(settings) if settings.zero_stage > 0 else 0.0,
        # Overlapping would let the order of additions vary from run to run.
        "zero_optimization": {
            "stage": settings.zero_stage,
            "overlap_comm": False,
            "reduce_bucket_size": BUCKET_ELEMENTS,
            "reduce_scatter": settings.optimizer != "muon",  # Muon needs whole gradients
            **offload_settings(settings),
        },
        **section_of(settings.tensor_parallel),
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
    }


def offload_settings(settings: TrainingSettings) -> dict[str, Any]:
    """What of the state lies in the host's memory; the optimizer then steps there too, with torch's own kernels."""
    host = {"device": "cpu", "pin_memory": True}
    kept = {
        "none": (),
        "optimizer": ("offload_optimizer",),
        "parameters": ("offload_optimizer", "offload_param"),
    }
    return {name: dict(host) for name in kept[settings.offload]}


def bound_of(settings: TrainingSettings) -> float:
    """Largest norm of the gradient, 0 for none.

    Not with Muon: its steps do not depend on the gradient's size (nor, but for its memory, do Adam's), and DeepSpeed
    would clip the finished step of Muon, from stage 1 on.
    """
    return settings.clip_norm if settings.optimizer == "adamw" else 0.0


def resolve_precision(precision: Literal["fp32", "bf16", "auto"], device: torch.device) -> Precision:
    """The precision meant by "auto": bf16 where the device computes it natively, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        abilities = torch.cpu.get_capabilities()
        fast = bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))
    return "bf16" if fast else "fp32"


@runtime_checkable
class HasHiddenMatrices(Protocol):
    """An objective that says which of its matrices Muon may train."""

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Matrices between hidden layers: no embeddings and no readouts."""
        ...


@runtime_checkable
class HasWidth(Protocol):
    """An objective that is made in several widths, with one learning rate for all of them."""

    def wide_matrices(self) -> tuple[list[nn.Parameter], float]:
        """Matrices that sum over as many channels as it is wide, and what Adam's rate is multiplied by for them."""
        ...


@runtime_checkable
class Recomputes(Protocol):
    """An objective whose transformers can do without most of their activations."""

    def recompute_activations(self, on: bool) -> None:
        """Keeps only what enters a block, and runs the block again in the backward pass."""
        ...


@runtime_checkable
class Compiles(Protocol):
    """An objective whose transformers can run as compiled code."""

    def compile_blocks(self, on: bool) -> None:
        """Compiles the blocks when they are next trained."""
        ...


@runtime_checkable
class SharesFrames(Protocol):
    """An objective whose clips several processes can share."""

    def share_frames(self, group: FrameGroup | None) -> None:
        """Lets a group of processes share every clip, of which it returns on each a loss whose mean is the clip's."""
        ...


@runtime_checkable
class CanBeCut(Protocol):
    """An objective with transformers whose matrices several processes can share."""

    def check_cut(self, size: int) -> None:
        """Raises ValueError where heads or hidden channels do not divide among so many processes."""
        ...

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Matrices of the transformers' blocks."""
        ...


def parameter_groups(module: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Trainable parameters in groups.

    Matrices (two axes or more) decay, the others do not. Those that the objective calls wide are a group of their own.
    With muon so are its hidden matrices, and each parameter is marked for DeepSpeed, which must keep those whole. A
    group's `ratio` is what the learning rate of AdamW and Adam is multiplied by for it.

    Raises:
        ValueError: muon is asked for, and the objective names no hidden matrices.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    muon = settings.optimizer == "muon"
    chosen = module.hidden_matrices() if muon and isinstance(module, HasHiddenMatrices) else []
    if muon and not chosen:
        raise ValueError("training.optimizer=muon is for the world model's transformers: use adamw here")
    hidden = {id(parameter) for parameter in chosen}
    rest = [parameter for parameter in parameters if id(parameter) not in hidden]
    summing, ratio = module.wide_matrices() if isinstance(module, HasWidth) else ([], 1.0)
    wide = {id(parameter) for parameter in summing}
    decay = settings.weight_decay
    groups: list[dict[str, Any]] = [
        {"params": [one for one in rest if one.ndim >= 2 and id(one) not in wide], "weight_decay": decay, "ratio": 1.0},
        {"params": [one for one in rest if id(one) in wide], "weight_decay": decay, "ratio": ratio},
        {"params": [one for one in rest if one.ndim < 2], "weight_decay": 0.0, "ratio": 1.0},
    ]
    if muon:
        for group in groups:
            group |= {"use_muon": False, "betas": (0.9, 0.999), "eps": 1e-8}
        own = settings.muon_learning_rate / settings.learning_rate
        groups.append({"params": chosen, "weight_decay": decay, "ratio": own, "use_muon": True})
        for group in groups:
            for parameter in group["params"]:
                parameter.use_muon = group["use_muon"]
    return [group for group in groups if group["params"]]


def make_optimizer(groups: list[dict[str, Any]], settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW, or DeepSpeed's Muon with Adam for what is not a hidden matrix (Jordan et al. 2024, "Muon")."""
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    return MuonWithAuxAdam(groups, torch.optim.AdamW, {"lr": settings.learning_rate, "fused": True})


def without_compiler() -> AbstractContextManager[object]:
    """DeepSpeed compiles Muon's kernels, from stage 1 on in the backward pass; a node may have no compiler for it."""
    return torch.compiler.set_stance("force_eager")


class Cast(nn.Module):
    """The objective under autocast. Inside the engine, which switches off an autocast from outside."""

    def __init__(self, objective: nn.Module, precision: Precision, device: torch.device) -> None:
        """Wraps the objective; fp32 leaves it as it is."""
        super().__init__()
        self.objective = objective
        self.precision, self.device_type = precision, device.type

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss in fp32 and detached metrics."""
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.precision == "bf16"):
            loss, metrics = self.objective(batch)
        return loss.float(), {name: value.detach().float() for name, value in metrics.items()}


class Engine:
    """One objective with its optimizer on this process's device.

    Attributes:
        device: where batches belong.
        precision: of matrix products, after "auto" is resolved.
        zero_stage: DeepSpeed ZeRO stage.
        learning_rate: peak of the schedule.
        sequence_parallel: processes that share a clip.
        tensor_parallel: processes that share matrices.
    """

    def __init__(self, objective: nn.Module, settings: TrainingSettings, batch_size: int) -> None:
        """Connects the processes and hands the objective to DeepSpeed, which gives all ranks rank 0's weights.

        Raises:
            ValueError: the batch does not divide among the processes, nothing in the objective can be trained, or it
                cannot do what the settings ask for.
            SettingsError: the launcher's variables are wrong.
        """
        ranks = cluster.start()
        self.device = cluster.device()
        self.precision: Precision = resolve_precision(settings.precision, self.device)
        self.zero_stage, self.clip_norm = settings.zero_stage, bound_of(settings)
        self.learning_rate = settings.learning_rate
        self.is_main = ranks.rank == 0
        if isinstance(objective, Recomputes):
            objective.recompute_activations(settings.recompute_activations)
        elif settings.recompute_activations:
            raise ValueError("training.recompute_activations is for the world model's transformers: leave it out here")
        if settings.compile:
            compile_blocks(objective, self.device)
        self.sequence_parallel = settings.sequence_parallel
        if settings.sequence_parallel > 1:
            share_frames(objective, settings.sequence_parallel, ranks.num_ranks)
        self.tensor_parallel = settings.tensor_parallel
        dictionary = deepspeed_settings(settings, batch_size, ranks.num_ranks)
        self.cut = cut_matrices(objective, settings.tensor_parallel) if settings.tensor_parallel > 1 else None
        if self.cut is None:
            objective.to(self.device)
        self.num_micro, self.num_backward, self.num_updates = settings.accumulate, 0, 0
        groups = parameter_groups(objective, settings)
        # Not kept in the groups themselves: a resumed run would take over the ratio of its checkpoint.
        self.ratios = [group.pop("ratio") for group in groups]
        if not groups:
            raise ValueError("the objective has no parameter that requires a gradient")
        hide_warnings()
        with redirect_stdout(io.StringIO()):  # where it tells of each kind of layer that it cuts
            self.engine: Any = deepspeed.initialize(
                model=Cast(objective, self.precision, self.device),
                optimizer=make_optimizer(groups, settings),
                config=dictionary,
            )[0]
        if self.cut is not None:
            self.cut.begin(self.engine)
        self.norm, self.largest_norm = 0.0, math.inf
        if self.zero_stage > 0:
            self.watch_norm()
        trained = {name: one for name, one in self.objective.named_parameters() if one.requires_grad}
        offloaded = settings.offload != "none"
        self.state = OptimizerState(
            self.engine.optimizer, self.zero_stage, offloaded, trained, deepspeed.utils, self.tensor_parallel
        )

    @property
    def objective(self) -> nn.Module:
        """The objective, on the device."""
        return self.engine.module.objective

    def forward(self, batch: Any) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss and metrics of this process's share of a micro-batch."""
        return self.engine(batch)

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Gradients, averaged over the processes and over the micro-batches of an update."""
        self.num_backward += 1
        self.engine.set_gradient_accumulation_boundary(self.num_backward % self.num_micro == 0)
        with without_compiler():
            self.engine.backward(loss)

    def update(self, learning_rate: float, largest_norm: float = math.inf) -> tuple[float, bool]:
        """One step of the optimizer after the last micro-batch.

        With Muon from ZeRO stage 1 on the norm is that of the step instead: DeepSpeed replaces the gradient by it.

        Args:
            learning_rate: of AdamW and Adam.
            largest_norm: where the gradient's norm is above it, or is not finite, no process makes the step.

        Returns:
            The norm of the gradient before it was clipped (NaN where it is not finite), and whether the step was made.
        """
        for group, ratio in zip(self.engine.optimizer.param_groups, self.ratios, strict=True):
            group["lr"] = ratio * learning_rate
        self.largest_norm = largest_norm
        if self.zero_stage == 0:
            self.norm = self.clip(self.clip_norm if self.clip_norm > 0 else math.inf)
            made = math.isfinite(self.norm) and self.norm <= largest_norm
            if not made:
                self.engine.zero_grad()
        with without_compiler():
            if self.zero_stage > 0 or made:
                self.engine.step()
        if self.zero_stage > 0:
            made = not self.engine.optimizer.overflow
        self.num_updates += made
        return (self.norm if math.isfinite(self.norm) else math.nan), made

    def clip(self, bound: float) -> float:
        """Scales gradients down to a norm, in stage 0; returns what it was."""
        if self.cut is None:
            return float(nn.utils.clip_grad_norm_(self.objective.parameters(), bound))
        # DeepSpeed's own counts what is cut once, and what every process has too.
        return float(clip_grad_norm_(self.objective.parameters(), bound, mpu=self.engine.mpu))

    def watch_norm(self) -> None:
        """Lets DeepSpeed pass over a step whose norm is too large, as it does itself where the norm is not finite.

        What it makes of the norm is decided between the gradients' reduction and the step, where nothing can be called.
        """
        name = "_get_norm_groups" if self.zero_stage == 3 else "scaled_global_norm"
        measure = getattr(self.engine.optimizer, name)

        def watched() -> Any:
            found = measure()
            norms = [float(norm) for norm in (found if isinstance(found, list) else [found])]
            # A norm that is not finite comes as -1.
            self.norm = math.hypot(*norms) if min(norms) >= 0 else math.nan
            if self.norm <= self.largest_norm:
                return found
            broken = torch.tensor(math.inf, device=self.device)
            return [broken] * len(found) if isinstance(found, list) else broken

        setattr(self.engine.optimizer, name, watched)

    def optimizer_state(self) -> dict[str, Tensor]:
        """This process's share of the optimizer's state, whole tensors by name; all processes call it together."""
        return self.state.gather() if self.num_updates > 0 else {}

    def begin_optimizer(self, num_updates: int, tensors: Iterator[tuple[str, Tensor]]) -> None:
        """Sets the optimizer's state to that of all processes' `optimizer_state`, of any number and stage.

        Raises:
            RuntimeError: it is of another model or optimizer.
        """
        self.num_updates = num_updates
        if num_updates == 0:
            return
        self.state.begin(num_updates)
        missing = {f"{key}/{name}" for name, one in self.state.parameters.items() for key in keys_of(one)}
        for name, value in tensors:
            if name not in missing:
                raise RuntimeError(f"there is no state {name} in this optimizer")
            missing.remove(name)
            key, _, parameter = name.partition("/")
            self.state.put(parameter, key, value)
        if missing:
            raise RuntimeError(f"the state {min(missing)} is missing")

    def weights(self) -> dict[str, Tensor]:
        """Copies of the objective's parameters and buffers on the CPU: on rank 0; elsewhere nothing, but call it."""
        state = self.objective.state_dict(keep_vars=True)
        found = {}
        for name, value in state.items():
            with self.whole([value]):
                whole = joined(value, value)
                if self.is_main:
                    found[name] = whole.detach().to("cpu", copy=True).contiguous()
        return found

    @contextmanager
    def whole(self, tensors: list[Tensor] | None = None) -> Iterator[None]:
        """Inside, the parameters (those given, or all) are whole on every process, which ZeRO-3 otherwise shards.

        Of matrices that are shared each process has its part there too, as their layers need it.
        """
        given = self.objective.parameters() if tensors is None else tensors
        sharded: list[Any] = [one for one in given if hasattr(one, "ds_id")]
        external = [one.is_external_param for one in sharded]
        with deepspeed.zero.GatheredParameters(sharded):
            for one in sharded:
                one.is_external_param = True  # else the first call of the module that owns it would shard it again
            try:
                yield
            finally:
                for one, before in zip(sharded, external, strict=True):
                    one.is_external_param = before

    def close(self) -> None:
        """Takes DeepSpeed off the objective, which keeps its trained weights, whole, as new parameters."""
        objective = self.objective
        if self.sequence_parallel > 1 and isinstance(objective, SharesFrames):
            objective.share_frames(None)
        if isinstance(objective, Compiles):
            objective.compile_blocks(False)
        with self.whole():
            new = {
                id(value): nn.Parameter(joined(value, value).detach().clone(), requires_grad=value.requires_grad)
                for value in objective.parameters()
            }
        self.engine.destroy()
        for module in objective.modules():
            for name, value in module.named_parameters(recurse=False):
                # Not through the old parameter's data: DeepSpeed's hooks stay on it.
                setattr(module, name, new[id(value)])
        if self.cut is not None:
            self.cut.end(deepspeed.utils.groups)


def compile_blocks(objective: nn.Module, device: torch.device) -> None:
    """Lets the objective's transformers run as compiled code.

    Raises:
        ValueError: it has none.
        SettingsError: there is no compiler that works.
    """
    if not isinstance(objective, Compiles):
        raise ValueError("training.compile is for the world model's transformers: leave it out here")
    require_compiler(device)
    objective.compile_blocks(True)


def cut_matrices(objective: nn.Module, size: int) -> CutMatrices:
    """Prepares an objective for groups of so many neighbouring processes to share its matrices.

    Raises:
        ValueError: it has no transformers, or they do not divide.
    """
    if not isinstance(objective, CanBeCut):
        raise ValueError(f"training.tensor_parallel={size} is for the world model's transformers: leave it at 1 here")
    objective.check_cut(size)
    return CutMatrices(objective, objective.hidden_matrices(), size)


def share_frames(objective: nn.Module, size: int, num_ranks: int) -> None:
    """Lets groups of so many neighbouring processes share their clips.

    Raises:
        ValueError: the objective cannot, or the processes do not divide into such groups.
    """
    from deepspeed.sequence.layer import DistributedAttention

    if not isinstance(objective, SharesFrames):
        raise ValueError(f"training.sequence_parallel={size} is for the world model's trunk: leave it at 1 here")
    if num_ranks % size:
        raise ValueError(f"training.sequence_parallel={size} must divide the {num_ranks} processes")
    objective.share_frames(Ulysses(size, DistributedAttention))


def hide_warnings() -> None:
    """Hides what DeepSpeed calls in every step and torch has renamed; there is nothing a user could do about it."""
    for name in ("all_gather_into_tensor", "reduce_scatter_tensor"):
        warnings.filterwarnings("ignore", rf"`torch\.distributed\.{name}` is deprecated", FutureWarning)
