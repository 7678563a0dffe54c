import os
import platform
import resource

import pytest
import torch

from worldmodel.doctor.facts import Facts, collect, expected_local, source_digest, version_of
from worldmodel.doctor.gpus import Gpu
from worldmodel.training import cluster


def test_a_process_knows_its_machine():
    found = collect()
    assert (found.rank, found.local_rank, found.machine) == (0, 0, cluster.machine())
    assert found.versions["python"] == platform.python_version()
    assert found.versions.keys() == {"python", "torch", "deepspeed", "av", "zarr", "worldmodel"}
    assert found.versions["worldmodel"].endswith(f" ({source_digest()})")
    assert found.open_files == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    shm = os.statvfs("/dev/shm")
    assert found.shm_bytes == shm.f_blocks * shm.f_frsize
    assert 0 < found.shm_free_bytes <= found.shm_bytes
    assert "h264" in found.decoders


def test_a_package_that_is_missing_on_a_machine_is_a_version_like_others():
    assert version_of("no-such-package") == "not installed"
    assert version_of("torch") == torch.__version__.partition("+")[0]


def test_facts_are_told_as_text():
    one = Facts(
        1,
        0,
        "n1",
        "10.0.0.1",
        2,
        {"torch": "2"},
        9,
        -1,
        True,
        5,
        4,
        [Gpu("u", "H100", 8, 1, 0, False)],
        "",
        1,
        ["h264"],
    )
    assert Facts.from_text(one.to_text()) == one


def test_the_digest_of_the_source_changes_with_it(monkeypatch: pytest.MonkeyPatch):
    from pathlib import Path

    read, before = Path.read_bytes, source_digest()
    changed = lambda path: read(path) + (b"#" if path.name == "facts.py" else b"")  # noqa: E731
    monkeypatch.setattr(Path, "read_bytes", changed)
    assert source_digest() != before


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({}, 0),
        ({"LOCAL_WORLD_SIZE": "8"}, 8),
        ({"SLURM_NTASKS_PER_NODE": "4"}, 4),
        ({"SLURM_NTASKS_PER_NODE": "4(x2),3"}, 0),
    ],
)
def test_the_launcher_says_how_many_processes_a_machine_has(variables: dict[str, str], number: int):
    assert expected_local(variables) == number
