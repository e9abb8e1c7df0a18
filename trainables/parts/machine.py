"""What this process may use of its machine.
Comes in: the process's affinity, its control groups, its environment. Goes out: CPUs. Exists because the machine's cores are not the
process's: under taskset, in a container, in a Slurm job a run for each core of the machine would be ten runs on one. joblib's count looks
at the root of a control group's tree alone, where a limit on a parent (a container's, a systemd slice's) is not seen."""

import functools
import math
import os
from contextlib import suppress
from pathlib import Path


@functools.cache
def cpus() -> int:
    """CPUs by affinity and control group, and by what Slurm gave the task; at least 1."""
    found = float(len(os.sched_getaffinity(0)))
    asked = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if asked.isdecimal() and int(asked):
        found = min(found, int(asked))
    return max(1, math.ceil(min(found, quota())))


def quota(groups: Path = Path("/proc/self/cgroup"), mounts: Path = Path("/sys/fs/cgroup")) -> float:
    """CPUs' worth of time that the process's control groups leave it: the least of its own group's limit and of those above it, by version
    2 and 1. Infinite where there is none. groups: lines `number:controllers:path`, the path as seen from the process's own root."""
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:  # no control groups here
        return float("inf")
    found = [float("inf")]
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers == "":
            found += [_limit_2(folder) for folder in _upwards(mounts, path)]
        elif "cpu" in controllers.split(","):
            found += [_limit_1(folder) for name in (controllers, "cpu") for folder in _upwards(mounts / name, path)]
    return min(found)


def _upwards(root: Path, path: str) -> list[Path]:
    """A group's folder and those above it. In a container the path may be the host's, which is not there: the root is then its own."""
    own = root / path.strip("/")
    return [own, *own.parents[: len(own.parts) - len(root.parts)]]


def _limit_2(folder: Path) -> float:
    """`max 100000` or `150000 100000`: microseconds in each period."""
    with suppress(OSError, ValueError):
        amount, period = (folder / "cpu.max").read_text().split()
        return float("inf") if amount == "max" else int(amount) / int(period)
    return float("inf")


def _limit_1(folder: Path) -> float:
    """-1 is no limit."""
    with suppress(OSError, ValueError):
        amount, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return amount / period if amount > 0 else float("inf")
    return float("inf")
