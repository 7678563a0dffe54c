import socket

import torch
import torch.distributed as dist

from tools.scaling.counting import Collectives, acknowledged_bytes
from worldmodel.training import cluster


def test_collectives_are_counted_by_the_bytes_of_the_whole():
    cluster.start()
    one = torch.ones(10)
    with Collectives() as counted:
        dist.all_reduce(one)
        dist.all_reduce(one.double())
        dist.all_gather([torch.empty(10)], one)
        dist.all_gather_single(torch.empty(10), one)
        dist.reduce_scatter_single(torch.empty(10), one)
        dist.all_to_all_single(torch.empty(10), one)
        dist.broadcast(one, 0)
        dist.barrier()
        one.add(one)
    assert counted.bytes == {
        "all_reduce": 120,
        "all_gather": 80,
        "reduce_scatter": 40,
        "all_to_all": 40,
        "broadcast": 40,
    }
    assert counted.calls == {"all_reduce": 2, "all_gather": 2, "reduce_scatter": 1, "all_to_all": 1, "broadcast": 1}


def test_collectives_inside_a_backward_pass_are_counted():
    cluster.start()
    weight = torch.ones(5, requires_grad=True)
    weight.register_hook(lambda gradient: dist.all_reduce(gradient.clone()))
    loss = weight.sum()
    with Collectives() as counted:
        loss.backward()
    assert counted.bytes == {"all_reduce": 20}


def test_bytes_of_tcp_connections_are_those_that_were_acknowledged():
    before = acknowledged_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver:
            sender.sendall(b"x" * 50_000)
            received = 0
            while received < 50_000:
                received += len(receiver.recv(50_000))
            # One byte of each connection's handshake counts as well.
            assert 50_000 <= acknowledged_bytes() - before <= 50_002
