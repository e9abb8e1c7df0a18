#!/bin/bash
# One Slurm job that goes on until the study is done. From the project's folder, which all nodes see, with its environment made (`make setup`):
#
#   sbatch clusters/slurm.sh                                  `python -m search supcam`; its words go to karyotune-JOB.out
#   sbatch clusters/slurm.sh scl --data FOLDER                other words
#   sbatch --nodes=4 --exclusive clusters/slurm.sh            several machines as one cluster, the whole machines (see below)
#   squeue --me; tail -f karyotune-*.out; python -m search watch STUDY; scancel JOB
#
# What you must change is marked CHANGE. Five minutes before the time limit the runs save their checkpoints, and the job goes back to the queue,
# to go on where it was: take a short limit, which the queue likes. An end of its own (done, failed, --max-hours) is the end of the job;
# so is `scancel`, after which the same line goes on. docs/cluster.md has more; tests/cluster tries this file.
#SBATCH --job-name=karyotune
#SBATCH --time=04:00:00  # CHANGE if you like
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8  # CHANGE: of each machine
#SBATCH --mem=32G  # CHANGE: of each machine
#SBATCH --gpus-per-node=1  # CHANGE: or --gres=gpu:1 where your site has it so; without a GPU remove the line
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --output=karyotune-%j.out
# CHANGE: what else your site asks for, such as #SBATCH --partition=gpu and #SBATCH --account=...
set -u
cd "${SLURM_SUBMIT_DIR:?this is for sbatch}" || exit
. "${VENV:-.venv}/bin/activate" || exit                            # CHANGE if yours is elsewhere
export KARYOTUNE_DATA=${KARYOTUNE_DATA:-}                          # CHANGE: your images; nothing for the built-in set
export KARYOTUNE_STORAGE=${KARYOTUNE_STORAGE:-$SLURM_SUBMIT_DIR/runs}  # CHANGE if you like: a folder that all nodes see
[ $# -gt 0 ] || set -- supcam

export RAY_USAGE_STATS_ENABLED=0
scratch=/tmp/kt-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}  # short: Ray's sockets stand below
mkdir -p "$scratch"

# The command and its number, for the signal: on the machine that this script runs on, the first of the job. It is sent by `heard` below, once,
# and setsid keeps Slurm's own from it: a second signal would not wait for a checkpoint.
cat > "$scratch/command" <<END
echo \$\$ > $scratch/number
exec python -m search "\$@"
END

if [ "$SLURM_JOB_NUM_NODES" -eq 1 ]; then
  # One machine: a Ray of the command's own, closed to others; several such jobs may share the machine.
  unset RAY_ADDRESS
  setsid bash "$scratch/command" "$@" &
else
  # Several: `ray symmetric-run` starts Ray on each, runs the command on the first and stops Ray. It wants the machines for itself: it
  # starts nothing where the same user already runs a Ray, and stops all of that user's.
  # The cluster's password is made here and is in the environment of this job's processes alone.
  RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
  other=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tail -n 1)
  here=$(ip route get "$(getent ahostsv4 "$other" | awk 'NR == 1 {print $1}')" | sed -n 's/.* src \([^ ]*\).*/\1/p')  # as the others see it
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_TMPDIR=$scratch RAY_ADDRESS=$here:6379 RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600
  srun --no-kill --kill-on-bad-exit=0 mkdir -p "$scratch"
  setsid srun --no-kill --kill-on-bad-exit=0 --wait=0 ray symmetric-run --address "$RAY_ADDRESS" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
    --dashboard-host=127.0.0.1 --min-worker-port=0 --max-worker-port=0 -- bash "$scratch/command" "$@" &
fi
child=$!

asked=0
heard() {
  asked=$((asked + 1))
  echo "slurm.sh: the time limit is near: runs save their checkpoints"
  kill -TERM "$(cat "$scratch/number" 2> /dev/null || echo "$child")"
}
trap heard TERM
while :; do
  before=$asked
  wait "$child"
  status=$?
  [ "$asked" -ne "$before" ] || break  # else it was the signal that ended the wait, and not the command
done
trap '' TERM  # of the requeue
[ "$SLURM_JOB_NUM_NODES" -eq 1 ] || timeout 60 srun --no-kill --kill-on-bad-exit=0 rm -rf "$scratch"
rm -rf "$scratch"

# 3: unfinished; 143: ended by the signal. Without the signal, 3 is what the words asked for (--max-hours, `search stop`), and no more is wanted.
# After `scancel` the job is not RUNNING any more.
if [ "$asked" -gt 0 ] && { [ "$status" -eq 3 ] || [ "$status" -eq 143 ]; } && [ "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)" = RUNNING ]; then
  echo "slurm.sh: not done; back to the queue"
  scontrol requeue "$SLURM_JOB_ID"
  sleep 60  # until Slurm ends this script, whose status would be the job's
fi
exit "$status"
