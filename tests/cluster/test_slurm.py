"""clusters/slurm.sh and clusters/slurm-join.sh from nothing to a report, under Slurm on machines made out of namespaces: a time limit that
comes, a machine that is lost, machines that join. What is replaced in the files is what they mark CHANGE, and nothing else."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from laboratory import ROOT, Hosts, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

CONFIG = """ClusterName=lab
SlurmctldHost=k1({net}.11)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=/mnt/host/state
SlurmdSpoolDir=/mnt/host/spool
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
KillWait=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
SETTINGS = "export SLURM_CONF=/mnt/shared/slurm.conf VENV=/mnt/env; cd /mnt/shared/karyotune"
SMALLEST = "supcam --trials 0 --repeats 1 --tables 2 --set finetune_epochs=1 --name tried"


class Slurm:
    """Slurm on three hosts; the first of them is where its commands are given, in the project's folder."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts, self.folder = hosts, hosts.shared / "karyotune"
        hosts.up(3)
        nodes = "\n".join(f"NodeName=k{i} NodeAddr={hosts.address(i)} CPUs=2 RealMemory=4000 State=UNKNOWN" for i in (1, 2, 3))
        (hosts.shared / "slurm.conf").write_text(CONFIG.format(net=hosts.net, nodes=nodes))
        (hosts.shared / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # which slurmd else looks for, though nothing here uses it
        shutil.copy(Path(__file__).parent / "slurm.sh", hosts.shared)
        for number in (1, 2, 3):
            hosts.ssh(number, "bash /mnt/shared/slurm.sh")
        for name in ("search", "search_spaces", "trainables", "analysis", "clusters"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("slurm.sh", "slurm-join.sh"):
            (self.folder / "clusters" / name).write_text(changed((ROOT / "clusters" / name).read_text()))
        wait_for(lambda: self.idle() == 3, 90, "three idle machines in Slurm")

    def __call__(self, command: str) -> str:
        return self.hosts.ssh(1, f"{SETTINGS}; {command}", check=False).stdout

    def idle(self) -> int:
        return self("sinfo --noheader --Node --format %t").split().count("idle")

    def submit(self, line: str) -> str:
        began = time.monotonic()
        (job,) = re.findall(r"Submitted batch job (\d+)", self(line))
        self.hosts.note(line, time.monotonic() - began)
        return str(job)

    def states(self) -> list[str]:
        return self("squeue --noheader --array --format %T").split()

    def said(self, job: str) -> str:
        path = self.folder / f"karyotune-{job}.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def records(self) -> list[str]:
        path = self.folder / "runs" / "tried" / "records.jsonl"
        return [json.loads(line)["status"] for line in path.read_text().splitlines()] if path.exists() else []

    def begun(self) -> int:
        return sum("epoch" in path.read_text() for path in self.folder.glob("runs/tried/checkpoints/*/epochs.log"))

    def trains(self, number: int) -> bool:
        return any("ray::ImplicitFunc.train" in line for line in self.hosts.processes(number))

    def idle_machines(self, *numbers: int) -> bool:
        """Nothing but Slurm itself runs there."""
        left = [line for number in numbers for line in self.hosts.processes(number)]
        return not [line for line in left if not re.match(r"munged|slurmctld|slurmd|: slurmscriptd|/usr/sbin/", line)]


def changed(text: str) -> str:
    """A recipe for two cores and no GPU: other values in lines that say CHANGE."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if "  # CHANGE" in line:
            line = (
                line.replace("--cpus-per-task=8", "--cpus-per-task=2")
                .replace("--mem=32G", "--mem=3G")
                .replace("--mem=8G", "--mem=3G")
                .replace("--gpus-per-node=1 --", "--")
            )
            lines[number] = "" if "--gpus-per-node" in line else line
    return "\n".join(lines) + "\n"


@pytest.fixture
def slurm(hosts: Hosts) -> Slurm:
    needed = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge"}
    if missing := sorted({package for program, package in needed.items() if shutil.which(program) is None}):
        pytest.skip(f"not installed: {', '.join(missing)}")
    return Slurm(hosts)


def test_a_job_saves_before_its_time_limit_goes_back_to_the_queue_and_ends_with_a_report_though_a_machine_is_lost(slurm: Slurm) -> None:
    began = time.monotonic()
    job = slurm.submit(
        f'sbatch --nodes=2 --exclusive clusters/slurm.sh {SMALLEST} --arms "MoCo,MoCo + SupCon" --set pretrain_epochs=40 --stall-minutes 5'
    )
    wait_for(lambda: slurm.begun() == 2 or "slurm.sh:" in slurm.said(job), 600, "both runs at work")
    assert slurm.records() == [], slurm.said(job)
    slurm(f"scancel --signal=TERM --batch {job}")  # as --signal=B:TERM does
    slurm.hosts.note("(the time limit is near)", time.monotonic() - began)
    wait_for(lambda: "back to the queue" in slurm.said(job) and slurm.states() == ["PENDING"], 120, "the job in the queue again")
    assert "runs save their checkpoints" in slurm.said(job) and "search: stopped" in slurm.said(job)
    assert len(list(slurm.folder.glob("runs/tried/checkpoints/*/flight.safetensors"))) == 2
    slurm.hosts.note("(in the queue again)", time.monotonic() - began)
    slurm(f"scontrol update jobid={job} starttime=now")  # Slurm waits for two minutes otherwise
    wait_for(lambda: "RUNNING" in slurm.states() and slurm.trains(2), 600, "a run on the second machine")
    slurm.hosts.kill(2)
    wait_for(lambda: slurm.states() == [], 600, "the job's end")
    slurm.hosts.note("(the job has ended)", time.monotonic() - began)
    assert slurm.records() == ["completed"] * 2, slurm.said(job)
    assert (slurm.folder / "runs/tried/report.html").exists() and "2 runs (2 completed)" in slurm.said(job)
    assert slurm.idle_machines(1), slurm.hosts.processes(1)


def test_a_job_on_one_machine_runs_by_itself_and_a_cancelled_one_does_not_come_back(slurm: Slurm) -> None:
    job = slurm.submit(f'sbatch clusters/slurm.sh {SMALLEST} --arms "MoCo" --set pretrain_epochs=500')
    wait_for(lambda: slurm.begun() == 1, 600, "a run at work")
    assert (
        "cluster of its own (default), data built-in set (default), storage /mnt/shared/karyotune/runs (KARYOTUNE_STORAGE)"
        in slurm.said(job)
    )
    slurm(f"scancel {job}")
    wait_for(lambda: slurm.states() == [], 60, "the job's end")
    wait_for(lambda: slurm.idle_machines(1, 2, 3), 60, "no process left")
    assert slurm.states() == [] and "back to the queue" not in slurm.said(job)


def test_machines_join_as_the_queue_lets_them_and_one_that_is_lost_costs_a_checkpoint_interval(slurm: Slurm) -> None:
    began = time.monotonic()
    job = slurm.submit(f'MACHINES=2 sbatch clusters/slurm-join.sh {SMALLEST} --arms "MoCo,MoCo + SupCon,SupCAM*" --set pretrain_epochs=40')
    wait_for(lambda: slurm.begun() >= 2 and (slurm.trains(2) or slurm.trains(3)), 600, "runs at work")
    slurm.hosts.note("(runs are at work)", time.monotonic() - began)
    lost = 3 if slurm.trains(3) else 2
    slurm.hosts.kill(lost)
    wait_for(lambda: "RUNNING" not in slurm.states() and len(slurm.records()) == 3, 600, "the study's end")
    slurm.hosts.note("(the study has ended)", time.monotonic() - began)
    assert slurm.records() == ["completed"] * 3, slurm.said(job)
    assert (slurm.folder / "runs/tried/report.html").exists() and "3 runs (3 completed)" in slurm.said(job)
    wait_for(lambda: slurm.idle_machines(1, 5 - lost), 120, "no process left on the other machines")
    wait_for(lambda: slurm.states() == [], 60, "no job left")
