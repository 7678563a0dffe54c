"""The shipped scripts outside Slurm."""

import os
import subprocess
from pathlib import Path

from tests.slurm.cluster import SBATCH
from tests.worldmodel.training.toy import ROOT


class Stubs:
    """A job outside Slurm: srun and scontrol are scripts that write down how they were called."""

    def __init__(self, folder: Path, job: str) -> None:
        self.folder, self.run, self.job = folder, folder / "run", SBATCH / job
        self.calls = folder / "calls"
        (folder / "bin").mkdir()
        self.script("srun", 'while [[ $1 == -* ]]; do shift; done; exec "$@"')
        self.script("scontrol", 'if [ "$1" = show ]; then echo node7; else echo "$@" >>"$CALLS"; fi')
        self.script("worldmodel", f'echo "$MASTER_ADDR $@" >>"$CALLS"; {folder}/body')

    def script(self, name: str, body: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def start(self, body: str, **variables: str) -> tuple[int, list[str]]:
        """Runs the job with the arguments --a b and a program that does `body`: its exit status, and the calls made."""
        (self.folder / "body").write_text(f"#!/bin/bash\n{body}\n")
        (self.folder / "body").chmod(0o755)
        self.calls.write_text("")
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(self.calls),
            "RUN": str(self.run),
            "CONFIG": "some.yaml",
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_JOB_ID": "12",
            "SLURM_JOB_NODELIST": "node[7-8]",
            "WORLDMODEL_VENV": "nowhere",
        } | variables
        command = ["bash", self.job, "--a", "b"]
        self.done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return self.done.returncode, self.calls.read_text().splitlines()
