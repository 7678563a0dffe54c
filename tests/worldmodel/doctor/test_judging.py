from dataclasses import replace
from typing import Any

import pytest

from streams.pyav.decoders import KINDS
from worldmodel.doctor.facts import UNLIMITED, Facts
from worldmodel.doctor.findings import Finding
from worldmodel.doctor.gpus import Gpu
from worldmodel.doctor.judging import in_words, judge_machines, shortened

GIB = 2**30


def gpu(number: int) -> Gpu:
    return Gpu(f"GPU-{number}", "H100", 80000, 10, 0, throttled=False)


def process(rank: int, **changes: Any) -> Facts:
    """One of four healthy processes, two on each machine."""
    healthy = Facts(
        rank=rank,
        local_rank=rank % 2,
        machine=f"n{rank // 2}",
        address=f"10.0.0.{rank // 2}",
        expected_local=2,
        versions={"python": "3.11", "torch": "2.14"},
        open_files=65536,
        locked_bytes=UNLIMITED,
        has_infiniband=True,
        shm_bytes=64 * GIB,
        shm_free_bytes=60 * GIB,
        gpus=[gpu(2 * (rank // 2)), gpu(2 * (rank // 2) + 1)],
        gpu_trouble="",
        num_torch_gpus=2,
        decoders=list(KINDS),
    )
    return replace(healthy, **changes)


def judged(changes: dict[int, dict[str, Any]], shm_needed_bytes: int = GIB) -> dict[str, Finding]:
    facts = [process(rank, **changes.get(rank, {})) for rank in range(4)]
    return {finding.check: finding for finding in judge_machines(facts, shm_needed_bytes)}


def test_healthy_machines_pass():
    findings = judged({})
    assert {finding.verdict for finding in findings.values()} == {"pass"}
    assert findings["processes on machines"].value == "4 on 2 (n0 10.0.0.0, n1 10.0.0.1)"
    assert findings["GPUs"].value == "2 x H100 on each machine"
    assert findings["/dev/shm"].expected == "2 GiB for the loaders of 2 processes"


FAULTS = [
    ("processes on machines", {3: {"machine": "n0"}}, "n0 has 3 instead of 2"),
    (
        "processes on machines",
        {r: {"expected_local": 0, "local_rank": r, "machine": f"n{r // 3}"} for r in range(4)},
        "n0 has 3; n1 has 1",
    ),
    ("processes on machines", {1: {"local_rank": 0}}, "n0 has a local rank twice"),
    ("versions", {2: {"versions": {"python": "3.11", "torch": "2.9"}}}, "torch 2.14 on n0 but 2.9 on n1"),
    ("/dev/shm", {r: {"shm_bytes": GIB} for r in (2, 3)}, "1 GiB, 60 GiB free, on n1"),
    ("open files", {3: {"open_files": 256}}, "256 on n1"),
    ("locked memory", {2: {"locked_bytes": 65536}}, "64 KiB on n1"),
    (
        "GPUs",
        {r: {"gpus": [replace(gpu(r), name="A100") for r in (2, 3)]} for r in (2, 3)},
        "they differ: 2 x H100 on n0",
    ),
    ("GPUs", {r: {"gpus": [gpu(2)]} for r in (2, 3)}, "2 processes share 1 on n1"),
    ("GPUs", {3: {"num_torch_gpus": 0}}, "torch cannot use those of n1"),
    ("GPUs", {3: {"gpu_trouble": "nvidia-smi ended with 9"}}, "nvidia-smi ended with 9"),
    ("GPUs", {0: {"gpus": [replace(gpu(0), num_ecc_errors=3), gpu(1)]}}, "3 ECC errors of GPU-0 on n0"),
    ("decoders", {1: {"decoders": ["vp9"]}}, "without h264, hevc"),
]
WARNINGS = [
    ("/dev/shm", {r: {"shm_free_bytes": GIB} for r in (2, 3)}, "64 GiB, 1 GiB free, on n1"),
    ("open files", {3: {"open_files": 1024}}, "1024 on n1"),
    ("locked memory", {r: {"has_infiniband": False, "locked_bytes": 65536} for r in range(4)}, "64 KiB on n0"),
    ("GPUs", {0: {"gpus": [replace(gpu(0), throttled=True), gpu(1)]}}, "GPU-0 on n0 is slowed down by heat or power"),
    ("GPUs", {0: {"gpus": [replace(gpu(0), used_mebibytes=30000), gpu(1)]}}, "30000 of 80000 MiB of GPU-0 on n0 are"),
    ("decoders", {1: {"decoders": [kind for kind in KINDS if kind != "av1"]}}, "without av1 on n0"),
]


@pytest.mark.parametrize(
    ("verdict", "check", "changes", "told"),
    [*(("FAIL", *fault) for fault in FAULTS), *(("warn", *warning) for warning in WARNINGS)],
)
def test_a_fault_is_found_told_and_has_a_remedy(verdict: str, check: str, changes: dict[int, Any], told: str):
    findings = judged({1: changes[0], **changes} if check == "GPUs" and 0 in changes else changes)
    assert told in findings[check].value
    assert findings[check].verdict == verdict
    assert findings[check].remedy
    others = {finding.verdict for name, finding in findings.items() if name != check}
    assert others == {"pass"} or check == "processes on machines"  # which then share other GPUs too


def test_without_gpus_the_cpu_trains():
    findings = judged({rank: {"gpus": [], "num_torch_gpus": 0} for rank in range(4)})
    assert (findings["GPUs"].verdict, findings["GPUs"].value) == ("pass", "none, the CPU trains")


def test_sizes_and_long_lists_are_told_in_short():
    assert [in_words(size) for size in (12, 2048, 3.5 * GIB, 2**41)] == ["12 B", "2 KiB", "3.5 GiB", "2 TiB"]
    assert shortened([f"n{number}" for number in range(9)]) == ["n0", "n1", "n2", "n3", "5 more"]
