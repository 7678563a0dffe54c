#!/bin/bash
# A throwaway Slurm cluster for tests: its own munged, slurmctld and slurmd, all as the calling user, nothing in /etc.
#
#   testbed.sh up DIR [NODES] [PORT]   starts it (ports PORT to PORT + NODES); clients need SLURM_CONF=DIR/slurm.conf
#                                      FIRST_JOB (1) is the number of its first job, from which processes' ports follow
#   testbed.sh kill DIR NODE           kills a node's daemon, and nothing that runs there
#   testbed.sh start DIR NODE          starts it again
#   testbed.sh down DIR                ends it
#
# QUICK=1 finds out within seconds that a node is gone; on a busy machine it may be wrong about that, so it is for tests
# of that alone. Needs Debian's slurm-wlm and munge.
set -euo pipefail
action=$1
folder=$(realpath -m "$2")
nodes=${3:-2}
port=${4:-31000}
host=$(hostname -s)
user=$(id -un)

up() {
  mkdir -p "$folder"/{log,state,munge}
  chmod 700 "$folder/munge"
  export SLURM_CONF=$folder/slurm.conf
  [ -s "$folder/munge/key" ] || (umask 077 && head -c 128 /dev/urandom >"$folder/munge/key")
  munged --force --socket="$folder/munge/sock" --key-file="$folder/munge/key" --pid-file="$folder/munge/pid" \
    --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
  # cred_expire: by its default every requeue waits two minutes.
  cat >"$SLURM_CONF" <<CONF
ClusterName=testbed
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge/sock,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/ctld.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/log/ctld.log
SlurmdLogFile=$folder/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobRequeue=1
FirstJobId=${FIRST_JOB:-1}
KillWait=10
SlurmdTimeout=$([ -n "${QUICK:-}" ] && echo 4 || echo 15)
MessageTimeout=$([ -n "${QUICK:-}" ] && echo 3 || echo 10)
TCPTimeout=$([ -n "${QUICK:-}" ] && echo 1 || echo 2)
SlurmctldTimeout=15
SchedulerParameters=bf_interval=1,sched_min_interval=1,batch_sched_delay=0
CONF
  for number in $(seq "$nodes"); do
    echo "NodeName=n$number NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + number)) CPUs=2 State=UNKNOWN"
  done >>"$SLURM_CONF"
  echo "PartitionName=main Nodes=n[1-$nodes] Default=YES MaxTime=INFINITE State=UP" >>"$SLURM_CONF"
  slurmctld
  for number in $(seq "$nodes"); do slurmd -N "n$number"; done
  for _ in $(seq 100); do
    [ "$(sinfo -h -t idle -o %D 2>/dev/null | head -n 1)" = "$nodes" ] && return
    sleep 0.2
  done
  echo "the nodes did not come up; see $folder/log" >&2
  exit 1
}

down() {
  export SLURM_CONF=$folder/slurm.conf
  if [ -n "$(squeue -h 2>/dev/null)" ]; then # their processes would outlive the cluster
    scancel --user="$user" --signal=KILL --full
    scancel --user="$user"
    sleep 2
  fi
  for file in "$folder"/n*.pid "$folder/ctld.pid" "$folder/munge/pid"; do
    if [ -s "$file" ]; then kill "$(cat "$file")" 2>/dev/null || true; fi
  done
}

kill_node() {
  kill -KILL "$(cat "$folder/$1.pid")"
}

start_node() {
  SLURM_CONF=$folder/slurm.conf slurmd -N "$1"
}

case $action in
  kill | start) "${action}_node" "$3" ;;
  *) "$action" ;;
esac
