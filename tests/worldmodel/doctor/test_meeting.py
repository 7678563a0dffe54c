import os
import socket
import subprocess
import sys
import threading

import pytest
import torch.distributed as dist

from tests.worldmodel.training.toy import ROOT
from worldmodel.doctor import meeting
from worldmodel.doctor.findings import Finding
from worldmodel.training.cluster import Ranks


def roll_call(ranks: list[int], num_ranks: int) -> list[Finding]:
    """What each of these finds, a thread for each."""
    store, found = dist.HashStore(), list[Finding]()  # pyright: ignore[reportPrivateImportUsage]

    def come(rank: int) -> None:
        found.append(meeting.roll_call(store, Ranks(rank, num_ranks, rank), 0.3))

    threads = [threading.Thread(target=come, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    return found


def test_all_who_come_find_each_other():
    (found, *_) = roll_call([0, 1, 2], 3)
    assert (found.verdict, found.value) == ("pass", "3 of 3 came")


def test_who_is_missing_is_named():
    (found, *_) = roll_call([0, 2], 4)
    assert (found.verdict, found.value) == ("FAIL", "2 of 4 came; missing: 1, 3")
    assert "start all by one srun or torchrun" in found.remedy


def test_a_rank_that_came_twice_is_named_with_its_machines():
    assert (
        meeting.found(["0 n0", "1 n1", "1 n2"], 3).value == "3 of 3 came; missing: 2; the same rank twice: 1 n1, 1 n2"
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_stays_alone_ends_in_time_and_says_whom_it_missed(rank: int):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    ranks = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "worldmodel", "doctor", "--timeout_seconds", "2"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | ranks, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1
    if rank == 0:
        assert "ranks  FAIL     1 of 2 came; missing: 1" in done.stdout
    else:
        assert f"127.0.0.1:{port} cannot be used by process 1 on " in done.stderr
        assert "-> set MASTER_ADDR to the machine of rank 0" in done.stderr
