import json
import sys
from pathlib import Path

from tests.slurm.cluster import Cluster, needs_slurm

DOCTOR = f"{sys.executable} -m worldmodel doctor --disk_gibibytes 0.001"
SRUN = ("srun", "--nodes=2", "--ntasks-per-node=1", "bash", "-c")


@needs_slurm
def test_two_nodes_are_examined_and_a_folder_that_is_not_shared_is_found(tmp_path: Path, cluster: Cluster):
    printed = cluster.call(*SRUN, f"{DOCTOR} --folder {tmp_path} --json {tmp_path}/healthy.json")
    healthy = {finding["check"]: finding for finding in json.loads((tmp_path / "healthy.json").read_text())}
    assert healthy["processes on machines"]["value"] == "2 on 2 (n1 127.0.0.1, n2 127.0.0.1)"
    assert "FAIL" not in printed
    assert printed.count("locks (flock)") == 1
    apart = f"{DOCTOR} --folder {tmp_path}/$SLURMD_NODENAME"
    printed = cluster.call(*SRUN, apart, check=False)
    assert "FAIL     what process 0 made is not there (process 1 on n2)" in printed
