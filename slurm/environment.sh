# What a job needs around the program; sourced by the sbatch files beside it. Nothing in here names a cluster: set these
# variables where you call sbatch (it hands the environment on), or in a file of your own named by WORLDMODEL_SETUP.
#
#   WORLDMODEL_ROOT   checkout of the project (default: where sbatch was called)
#   WORLDMODEL_SETUP  file to source first: `module load ...`, proxies, NCCL's network interface, ...
#   WORLDMODEL_VENV   virtual environment to activate (default: .venv in the checkout, if there is one)
#   MASTER_ADDR       machine of rank 0 (default: the first one of the job)
#   MASTER_PORT       its port (default: 20000 + the job's number modulo 20000)
#   OMP_NUM_THREADS   threads of one process (default: the CPUs of one task)

cd "${WORLDMODEL_ROOT:-$SLURM_SUBMIT_DIR}"
if [ -n "${WORLDMODEL_SETUP:-}" ]; then
  # shellcheck disable=SC1090
  source "$WORLDMODEL_SETUP"
fi
venv=${WORLDMODEL_VENV:-.venv}
if [ -f "$venv/bin/activate" ]; then
  # shellcheck disable=SC1091
  source "$venv/bin/activate"
fi
export MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
export PYTHONUNBUFFERED=1
# Since Slurm 22.05 srun no longer takes the number of CPUs over from sbatch.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
