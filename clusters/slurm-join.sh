#!/bin/bash
# A study that begins with the first machine that the queue gives, and takes every other as it comes. From the project's folder, which all nodes
# see, with its environment made (`make setup`):
#
#   sbatch clusters/slurm-join.sh                       the head: a small job without a GPU that runs `python -m search supcam`
#   MACHINES=8 sbatch clusters/slurm-join.sh scl --preset paper     at most eight machines (of 1 GPU each, see below), other words
#
# Without --preset the first line takes `quick`, which shows that all works: the head has no GPU to guess another one from. Say `paper` for results.
# The head asks for its workers itself (this file once more, as a job array) and ends them when the study has ended. A worker whose time limit
# comes, or that is preempted, costs its runs the work since their last checkpoint and goes back to the queue. The head's time limit must hold
# the study; when it comes the head goes back to the queue like clusters/slurm.sh, and asks for workers anew.
# What you must change is marked CHANGE. docs/cluster.md has more; tests/cluster tries this file.
#SBATCH --job-name=karyotune
#SBATCH --time=2-00:00:00  # CHANGE: of the head
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2  # CHANGE if you like: of the head
#SBATCH --mem=8G  # CHANGE if you like
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=karyotune-%A.out
# CHANGE: what else your site asks for, such as #SBATCH --partition=cpu and #SBATCH --account=...
machines=${MACHINES:-4}  # CHANGE: workers at most
worker=(--cpus-per-task=8 --mem=32G --gpus-per-node=1 --time=04:00:00)  # CHANGE: one worker, and what else your site asks for its jobs
set -u
cd "${SLURM_SUBMIT_DIR:?this is for sbatch}" || exit
. "${VENV:-.venv}/bin/activate" || exit                            # CHANGE if yours is elsewhere
export KARYOTUNE_DATA=${KARYOTUNE_DATA:-}                          # CHANGE: your images; nothing for the built-in set
export KARYOTUNE_STORAGE=${KARYOTUNE_STORAGE:-$SLURM_SUBMIT_DIR/runs}  # CHANGE if you like: a folder that all nodes see

export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
# Ray's folder is the head's on all machines, whatever they say; short, for its sockets stand below.
[ "${1:-}" = join ] || export RAY_TMPDIR=/tmp/kt-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
mkdir -p "$RAY_TMPDIR"
asked=0
child=

# Wait for $child through signals; its status.
ended() {
  local before status
  while :; do
    before=$asked
    wait "$child"
    status=$?
    [ "$asked" -ne "$before" ] || return "$status"  # else it was the signal that ended the wait
  done
}

# Back to the queue, unless somebody has cancelled the job.
again() {
  [ "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)" = RUNNING ] || return
  echo "slurm-join.sh: back to the queue"
  trap '' TERM
  scontrol requeue "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"
  sleep 60  # until Slurm ends this script, whose status would be the job's
}

if [ "${1:-}" = join ]; then
  # -- a worker: RAY_ADDRESS and RAY_AUTH_TOKEN came with the job ---------------------------------------------------------------------------
  trap 'asked=$((asked + 1)); kill -TERM "$child"' TERM
  setsid ray start --block --address="$RAY_ADDRESS" --num-cpus="${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
    --min-worker-port=0 --max-worker-port=0 &
  child=$!
  ended
  pgrep -u "$(id -u)" -x raylet > /dev/null || rm -rf "$RAY_TMPDIR"  # another worker may stand here
  [ "$asked" -eq 0 ] || again
  exit 0
fi

# -- the head -----------------------------------------------------------------------------------------------------------------------------
[ $# -gt 0 ] || set -- supcam
here=$(hostname --all-ip-addresses | awk '{print $1}')  # CHANGE if the nodes reach each other on another of its networks
port=$((20000 + SLURM_JOB_ID % 10000))
# The cluster's password is in the environment of these jobs alone.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_ADDRESS=$here:$port
setsid ray start --head --block --node-ip-address="$here" --port="$port" --num-cpus=0 --num-gpus=0 --min-worker-port=0 --max-worker-port=0 &
head=$!
array=$(sbatch --parsable --job-name=karyotune-worker --array="1-$machines" --export=ALL "${worker[@]}" "$0" join) || exit
array=${array%%;*}
trap 'asked=$((asked + 1)); [ -z "$child" ] || kill -TERM "$child"' TERM
echo "slurm-join.sh: the head is at $RAY_ADDRESS; waiting for the first of $machines machines (jobs $array)"
until [ "$asked" -gt 0 ] || [ "$(ray list nodes --filter state=ALIVE --format json 2> /dev/null | grep -o '"node_id"' | wc -l)" -gt 1 ]; do sleep 5; done
status=143
if [ "$asked" -eq 0 ]; then
  setsid python -m search "$@" &  # a signal of Slurm's own beside the one of the trap would not wait for a checkpoint
  child=$!
  ended
  status=$?
fi
scancel "$array"
kill -TERM "$head"
wait "$head"
rm -rf "$RAY_TMPDIR"
if [ "$asked" -gt 0 ] && { [ "$status" -eq 3 ] || [ "$status" -eq 143 ]; }; then again; fi
exit "$status"
