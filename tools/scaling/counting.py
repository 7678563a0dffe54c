"""Counts what a process really sends: the collectives that it calls, and the bytes that the kernel saw acknowledged."""

import os
import socket
import stat
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# The argument that is the whole of what a collective moves, by the name of its operator.
WHOLE = {
    "allreduce_": ("all_reduce", 0),
    "allgather_": ("all_gather", 0),
    "_allgather_base_": ("all_gather", 0),
    "allgather_into_tensor_coalesced_": ("all_gather", 0),
    "reduce_scatter_": ("reduce_scatter", 1),
    "_reduce_scatter_base_": ("reduce_scatter", 1),
    "reduce_scatter_tensor_coalesced_": ("reduce_scatter", 1),
    "alltoall_base_": ("all_to_all", 1),
    "alltoall_": ("all_to_all", 1),
    "broadcast_": ("broadcast", 0),
    "reduce_": ("reduce", 0),
}
SILENT = {"barrier"}
TCP_INFO_BYTES, BYTES_ACKED = 256, 120  # of Linux's struct tcp_info


class Collectives(TorchDispatchMode):
    """Inside, every collective of torch.distributed is counted, whoever calls it.

    Attributes:
        bytes: of the whole tensors, by kind.
        calls: by kind.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.calls = Counter[str](), Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Looks at an operator on its way."""
        if func.namespace == "c10d" and func._opname not in SILENT:
            kind, index = WHOLE[func._opname]
            tensors = [each for each in tree_leaves(args[index]) if isinstance(each, Tensor)]
            self.bytes[kind] += sum(each.numel() * each.element_size() for each in tensors)
            self.calls[kind] += 1
        return func(*args, **(kwargs or {}))


def acknowledged_bytes() -> int:
    """Bytes that the peers of this process's TCP connections have acknowledged so far."""
    total = 0
    for path in list(Path("/proc/self/fd").iterdir()):
        with opened_again(int(path.name)) as connection:
            if connection is not None:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
                total += struct.unpack_from("Q", info, BYTES_ACKED)[0]
    return total


@contextmanager
def opened_again(descriptor: int) -> Iterator[socket.socket | None]:
    """A second handle of a TCP connection; None where the descriptor is of something else, or gone."""
    try:
        is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        found = socket.socket(fileno=os.dup(descriptor)) if is_socket else None
    except OSError:
        found = None
    if found is None:
        yield None
        return
    with found:
        is_tcp = found.type == socket.SOCK_STREAM and found.family in (socket.AF_INET, socket.AF_INET6)
        yield found if is_tcp else None
