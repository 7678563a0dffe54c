import socket

import pytest
import torch

from worldmodel.errors import LostProcessError, SettingsError
from worldmodel.training import cluster
from worldmodel.training.cluster import Ranks, find_ranks

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29400"}
SLURM = {
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "2",
    "SLURM_NTASKS": "4",
    "SLURM_LOCALID": "0",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7",
}


def test_without_a_launcher_there_is_one_process():
    assert find_ranks({}) == Ranks(rank=0, num_ranks=1, local_rank=0)


def test_torchrun_gives_the_ranks():
    assert find_ranks(TORCHRUN) == Ranks(3, 8, 1, "10.0.0.1", 29400)


def test_srun_gives_the_ranks():
    found = find_ranks(SLURM)
    assert found == Ranks(2, 4, 0, "10.0.0.7", 20000 + 123456 % 20000)


def test_the_batch_script_may_say_where_rank_0_listens():
    found = find_ranks(SLURM | {"MASTER_ADDR": "node1", "MASTER_PORT": "4000"})
    assert (found.address, found.port) == ("node1", 4000)


def test_a_step_smaller_than_its_job_counts_its_own_processes():
    assert find_ranks(SLURM | {"SLURM_STEP_NUM_TASKS": "3"}).num_ranks == 3


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu[07-09,12],cpu1", "gpu07"), ("a,b", "a"), ("rack1n[3,5]", "rack1n3"), ("r[1-2]n[3-4]", "r1n3")],
)
def test_the_processes_meet_on_the_first_machine_of_the_step(nodes: str, first: str):
    assert find_ranks(SLURM | {"SLURM_STEP_NODELIST": nodes}).address == first


def test_torchrun_inside_srun_wins():
    assert find_ranks(SLURM | TORCHRUN).num_ranks == 8


def test_a_batch_script_that_does_not_use_srun_is_one_process():
    variables = {name: value for name, value in SLURM.items() if name != "SLURM_STEP_ID"}
    assert find_ranks(variables).num_ranks == 1


def test_one_process_of_a_launcher_needs_no_address():
    assert find_ranks({"RANK": "0", "WORLD_SIZE": "1"}) == Ranks()


def test_processes_that_share_clips_read_the_same(monkeypatch: pytest.MonkeyPatch):
    for rank, expected in ((4, (2, 4)), (5, (2, 4)), (6, (3, 4))):
        monkeypatch.setattr(cluster, "find_ranks", lambda rank=rank: Ranks(rank, 8))
        assert cluster.data_ranks(2) == expected
        assert cluster.data_ranks(1) == (rank, 8)


@pytest.mark.parametrize("name", list(TORCHRUN))
def test_a_missing_variable_is_named(name: str):
    with pytest.raises(SettingsError, match=f"{name} is not set: start one process per GPU"):
        find_ranks({key: value for key, value in TORCHRUN.items() if key != name})


def test_a_rank_that_is_no_number_is_named():
    with pytest.raises(SettingsError, match="rank 'x' is not a number"):
        find_ranks(TORCHRUN | {"RANK": "x"})


def test_a_rank_beyond_the_last_is_refused():
    with pytest.raises(SettingsError, match="rank 8 of 8 processes"):
        find_ranks(TORCHRUN | {"RANK": "8"})


def test_one_process_agrees_with_itself():
    assert cluster.start() == cluster.start() == Ranks()
    assert cluster.is_main()
    assert cluster.texts("abc") == ["abc"]
    cluster.barrier()


def test_a_process_computes_on_its_gpu_or_on_the_cpu(monkeypatch: pytest.MonkeyPatch):
    assert cluster.device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert cluster.device() == torch.device("cuda", 2)


def test_a_meeting_point_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch):
    import torch.distributed as dist

    def refuse(*_, **__):
        raise dist.DistNetworkError("connection refused")

    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    monkeypatch.setattr(dist, "init_process_group", refuse)
    with pytest.raises(LostProcessError, match=r"process 3 on .* cannot meet the others at 10.0.0.1:29400"):
        cluster.start()


def test_a_launcher_that_has_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    import torch.distributed as dist

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # and nobody listens
        port = str(listener.getsockname()[1])
        here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "True"}
        for name, value in (TORCHRUN | here).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(dist, "is_initialized", lambda: False)
        monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: pytest.fail("it would wait in there"))
        with pytest.raises(LostProcessError, match=rf"cannot meet the others at 127.0.0.1:{port} \(.*refused\)"):
            cluster.start()


def test_the_end_of_one_process_is_an_ordinary_exit():
    cluster.start()
    with pytest.raises(SystemExit) as ending:
        cluster.leave(3)
    assert ending.value.code == 3


def test_one_of_several_processes_ends_with_its_status_and_without_a_farewell(monkeypatch: pytest.MonkeyPatch):
    import torch.distributed as dist

    cluster.start()

    def end(status: int) -> None:
        raise RuntimeError(f"ended with {status}")

    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(cluster.os, "_exit", end)
    with pytest.raises(RuntimeError, match="ended with 75"):
        cluster.leave(75)
