"""What this process may use of its machine.
Comes in: nothing. Goes out: CPUs. Exists because the machine's cores are not the process's: under taskset, in a container, in a Slurm job a
run for each core of the machine would be ten runs on one."""

import functools
import os


@functools.cache
def cpus() -> int:
    """CPUs by affinity and control group (joblib's count, which comes with scikit-learn), and by what Slurm gave the task; at least 1."""
    from joblib.externals.loky import cpu_count  # a third of a second, which a command that refuses its words can do without

    asked = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return max(1, min(cpu_count(), int(asked) if asked.isdecimal() and int(asked) else 1 << 30))
