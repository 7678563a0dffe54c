"""The optimizer's state by the names of parameters, whatever DeepSpeed has made of it.

ZeRO 1 and 2 lay the parameters of a group end to end and cut the row evenly among the processes, ZeRO 3 cuts every
parameter, and tensor_parallel matrices before. By name, the state of one number of processes and one stage fits any
other.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.training import cluster
from worldmodel.training.tensor_parallel import joined, part_of

ADAM, MUON = ("exp_avg", "exp_avg_sq"), ("momentum_buffer",)


class OptimizerState:
    """Reads and writes the state of an engine's optimizer, parameter by parameter; all processes call it together."""

    def __init__(
        self,
        optimizer: Any,
        stage: int,
        offloaded: bool,
        parameters: dict[str, nn.Parameter],
        utils: Any,
        tensor_parallel: int = 1,
    ) -> None:
        """Looks at an optimizer.

        Args:
            optimizer: of DeepSpeed's engine: torch's own in stage 0, a ZeRO optimizer around it in the others.
            stage: ZeRO stage.
            offloaded: whether it steps in the host's memory.
            parameters: those that are trained, by name.
            utils: `deepspeed.utils`, whose functions find a parameter in its flat row.
            tensor_parallel: neighbouring processes that share matrices; ZeRO cuts among the others.
        """
        self.optimizer, self.stage, self.parameters, self.utils = optimizer, stage, parameters, utils
        self.base = optimizer if stage == 0 else optimizer.optimizer
        self.rank, self.num_ranks = cluster.data_ranks(tensor_parallel)
        # Here DeepSpeed keeps Muon's momentum of whole matrices, also of those it shares with its neighbour.
        self.whole_matrices = stage in (1, 2) and not offloaded

    def gather(self) -> dict[str, Tensor]:
        """This process's share of the state, whole tensors on the CPU: every tensor is with one process."""
        self.link()
        ranks = cluster.find_ranks()
        loads = [0] * ranks.num_ranks
        found = {}
        for name, parameter in self.parameters.items():
            owner = loads.index(min(loads))
            loads[owner] += getattr(parameter, "ds_numel", parameter.numel())
            for key in keys_of(parameter):
                value = self.whole(parameter, key)
                if owner == ranks.rank:
                    found[f"{key}/{name}"] = value.detach().to("cpu", torch.float32, copy=True).contiguous()
        return found

    def whole(self, parameter: nn.Parameter, key: str) -> Tensor:
        """One parameter's state."""
        if self.stage == 0:
            return joined(parameter, self.base.state[parameter][key])
        if not (self.whole_matrices and key in MUON):
            return joined(parameter, self.utils.safe_get_full_optimizer_state(parameter, key))
        mine = self.matrix_of(parameter)
        absent = torch.full(parameter.shape, -torch.inf, device=parameter.device)
        return cluster.largest_(absent if mine is None else mine.float().clone())

    def matrix_of(self, parameter: nn.Parameter) -> Tensor | None:
        """The momentum of a matrix that this process has a part of."""
        for group, parameters in zip(self.base.param_groups, self.optimizer.params_in_partition, strict=True):
            start = 0
            for one in parameters if group.get("use_muon") else ():
                if one is parameter:
                    buffer = self.base.state[group["params"][0]]["momentum_buffer"]
                    return buffer.narrow(0, start, one.numel()).view(one.shape)
                start += one.numel()
        return None

    def begin(self, num_updates: int) -> None:
        """Makes a new optimizer's state, all zeros, after so many updates."""
        for parameter, keys, length in self.rows():
            state = self.base.state[parameter]
            for key in keys:
                shape = parameter.shape if length is None else (length,)
                state[key] = torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)
            if keys == ADAM:
                state["step"] = torch.tensor(float(num_updates), device=parameter.device)
        self.link()

    def link(self) -> None:
        """Lets DeepSpeed find parameters in the flat state; it does so itself when only the first group has one."""
        if self.stage in (1, 2):
            rows = self.optimizer.single_partition_of_fp32_groups
            for parameters, row in zip(self.optimizer.bit16_groups, rows, strict=True):
                self.utils.lazy_init_hp_params_optimizer_state(parameters, row, self.base.state)

    def rows(self) -> Iterator[tuple[Tensor, tuple[str, ...], int | None]]:
        """What the optimizer steps on: tensor, names of its state, and the state's length if it is not the tensor's."""
        if self.stage == 0:
            yield from ((parameter, keys_of(parameter), None) for parameter in self.parameters.values())
        elif self.stage == 3:
            for number, row in enumerate(self.optimizer.fp32_partitioned_groups_flat):
                group = self.base.param_groups[self.optimizer.sub_group_to_group_id[number]]
                yield row, MUON if group.get("use_muon") else ADAM, None
        else:
            for group, parameters in zip(self.base.param_groups, self.optimizer.params_in_partition, strict=True):
                muon = group.get("use_muon", False)
                length = sum(one.numel() for one in parameters) if muon and self.whole_matrices else None
                if length != 0:
                    yield group["params"][0], MUON if muon else ADAM, length

    def put(self, name: str, key: str, value: Tensor) -> None:
        """Sets one parameter's state from a whole tensor.

        Raises:
            RuntimeError: it has another shape.
        """
        parameter = self.parameters[name]
        value = part_of(parameter, value)
        shape = tuple(getattr(parameter, "ds_shape", parameter.shape))
        if tuple(value.shape) != shape:
            raise RuntimeError(f"the state of {name} has the shape {tuple(value.shape)}, not {shape}")
        if self.stage == 0:
            self.base.state[parameter][key].copy_(value)
        elif self.stage == 3:
            size = parameter.ds_tensor.numel()  # pyright: ignore[reportAttributeAccessIssue]
            # Filled up to equal parts, as DeepSpeed does; its own function for whole tensors does not.
            padded = torch.zeros(size * self.num_ranks)
            padded[: value.numel()] = value.flatten()
            self.utils.safe_set_local_optimizer_state(parameter, padded[size * self.rank :][:size], key)
        elif self.whole_matrices and key in MUON:
            mine = self.matrix_of(parameter)
            if mine is not None:
                mine.copy_(value)
        else:
            self.utils.safe_set_full_optimizer_state(parameter, value, key)


def keys_of(parameter: nn.Parameter) -> tuple[str, ...]:
    """Names of a parameter's state."""
    return MUON if getattr(parameter, "use_muon", False) else ADAM
