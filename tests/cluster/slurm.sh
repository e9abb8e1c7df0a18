#!/bin/bash
# Run on each host that hosts.sh made, the first one first: makes Slurm's machine of it. /mnt/shared/slurm.conf stands already.
set -eu
mkdir -p /run/munge /mnt/host/state /mnt/host/spool
[ -f /mnt/shared/munge.key ] || (umask 077; head -c 1024 /dev/urandom > /mnt/shared/munge.key)
install -m 400 /mnt/shared/munge.key /mnt/host/munge.key
munged --force --key-file=/mnt/host/munge.key --log-file=/mnt/host/munged.log --pid-file=/run/munge/pid --seed-file=/mnt/host/seed
export SLURM_CONF=/mnt/shared/slurm.conf
if [ "$(hostname)" = k1 ]; then slurmctld -L /mnt/host/slurmctld.log; fi
slurmd -L /mnt/host/slurmd.log
