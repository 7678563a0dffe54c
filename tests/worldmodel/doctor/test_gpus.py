import sys
from pathlib import Path

import pytest

from worldmodel.doctor import gpus
from worldmodel.doctor.gpus import Gpu, find_gpus

HEALTHY = "GPU-1, NVIDIA H100 80GB HBM3, 81559, 4, 0, Not Active, Not Active"
SICK = "GPU-2, NVIDIA A100-SXM4-40GB, 40960, 39000, 7, Not Active, Active"
WITHOUT_ECC = "GPU-3, NVIDIA GeForce RTX 3090, 24576, 300, [N/A], Active, Not Active"


def put_program(folder: Path, body: str) -> dict[str, str]:
    program = folder / "nvidia-smi"
    program.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
    program.chmod(0o755)
    return {"PATH": str(folder)}


def test_the_lines_of_nvidia_smi_are_gpus(tmp_path: Path):
    environment = put_program(tmp_path, f"print({HEALTHY!r}); print({SICK!r}); print({WITHOUT_ECC!r})")
    found, trouble = find_gpus(environment)
    assert trouble == ""
    assert found == [
        Gpu("GPU-1", "NVIDIA H100 80GB HBM3", 81559, 4, 0, throttled=False),
        Gpu("GPU-2", "NVIDIA A100-SXM4-40GB", 40960, 39000, 7, throttled=True),
        Gpu("GPU-3", "NVIDIA GeForce RTX 3090", 24576, 300, 0, throttled=True),
    ]


def test_only_those_are_asked_for_that_are_visible(tmp_path: Path):
    environment = put_program(tmp_path, f"print({HEALTHY!r} if '--id=0,3' in sys.argv else 'all')")
    assert len(find_gpus(environment | {"CUDA_VISIBLE_DEVICES": "0,3"})[0]) == 1
    assert find_gpus(environment | {"CUDA_VISIBLE_DEVICES": ""}) == ([], "")


def test_a_machine_without_nvidia_smi_has_none(tmp_path: Path):
    assert find_gpus({"PATH": str(tmp_path)}) == ([], "")


@pytest.mark.parametrize(
    ("body", "trouble"),
    [
        ("print('No devices were found'); sys.exit(6)", "nvidia-smi ended with 6: No devices were found"),
        ("print('something, else')", "nvidia-smi ended with 0: something, else"),
        ("time.sleep(60)", "nvidia-smi did not answer within 0.5 s"),
    ],
)
def test_a_driver_that_is_broken_is_told(body: str, trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpus, "SMI_SECONDS", 0.5 if "0.5" in trouble else 20.0)
    assert find_gpus(put_program(tmp_path, body)) == ([], trouble)
