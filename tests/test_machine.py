"""CPUs by a made-up tree of control groups."""

import os

import pytest

from trainables.parts import machine
from trainables.parts.machine import cpus, quota

INFINITE = float("inf")
TREES = {  # /proc/self/cgroup, files below the mount, CPUs
    "version 2": ("0::/job\n", {"job/cpu.max": "250000 100000\n"}, 2.5),
    "version 2, on a parent": ("0::/job/step/task\n", {"job/cpu.max": "300000 100000\n", "job/step/task/cpu.max": "max 100000\n"}, 3),
    "version 2, the least of all": ("0::/job/step\n", {"job/cpu.max": "400000 100000\n", "job/step/cpu.max": "50000 100000\n"}, 0.5),
    "version 2, max": ("0::/job\n", {"cpu.max": "max 100000\n", "job/cpu.max": "max 100000\n"}, INFINITE),
    "version 2, a container that sees the host's path": ("0::/system.slice/docker-1.scope\n", {"cpu.max": "200000 100000\n"}, 2),
    "version 2, a neighbour's": ("0::/job\n", {"job/cpu.max": "max 100000\n", "other/cpu.max": "100000 100000\n"}, INFINITE),
    "version 1": (
        "5:memory:/m\n4:cpu,cpuacct:/job\n0::/\n",
        {"cpu,cpuacct/job/cpu.cfs_quota_us": "150000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "50000\n"},
        3,
    ),
    "version 1, on a parent": ("4:cpu:/job/step\n", {
        "cpu/job/cpu.cfs_quota_us": "200000\n", "cpu/job/cpu.cfs_period_us": "100000\n",
        "cpu/job/step/cpu.cfs_quota_us": "-1\n", "cpu/job/step/cpu.cfs_period_us": "100000\n",
    }, 2),
    "version 1, none": ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, INFINITE),
    "none": ("", {}, INFINITE),
}  # fmt: skip


@pytest.mark.parametrize(("groups", "files", "wanted"), TREES.values(), ids=TREES)
def test_the_least_limit_of_a_process_s_control_groups_counts(tmp_path, groups, files, wanted):
    (tmp_path / "cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert quota(tmp_path / "cgroup", tmp_path / "mount") == wanted


def test_a_machine_without_control_groups_has_no_limit_by_them(tmp_path):
    assert quota(tmp_path / "none", tmp_path) == INFINITE


@pytest.mark.parametrize(
    ("there", "limit", "slurm", "wanted"),
    [(8, INFINITE, "", 8), (8, 2.5, "", 3), (8, 0.2, "", 1), (8, 6, "4", 4), (2, 6, "4", 2), (8, INFINITE, "0", 8), (8, INFINITE, "a", 8)],
)
def test_cpus_are_the_least_of_affinity_control_group_and_slurm(monkeypatch, there, limit, slurm, wanted):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(there)))
    monkeypatch.setattr(machine, "quota", lambda: limit)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", slurm)
    assert cpus.__wrapped__() == wanted
