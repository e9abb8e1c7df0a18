"""clusters/onprem.yaml from nothing to a report, on machines made out of namespaces: `ray up`, the user's line as it stands, a machine that is
lost in the middle, `ray down`. What is replaced in the file is what it marks CHANGE, and nothing else."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from laboratory import ROOT, Hosts, wait_for
from PIL import Image, ImageDraw

from trainables.data.synthetic_clusters import CLUSTER_TYPES

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

RECIPE = (ROOT / "clusters" / "onprem.yaml").read_text()
SMALLEST = (
    '--trials 0 --repeats 1 --tables 2 --arms "MoCo,MoCo + SupCon,SupCAM*" --set pretrain_epochs=200 --set finetune_epochs=1 --name tried'
)


def changed(text: str, changes: dict[str, str]) -> str:
    """The recipe with other values in lines that say CHANGE."""
    for old, new in changes.items():
        lines = [line for line in text.splitlines() if old in line.partition("  # CHANGE")[0]]
        assert len(lines) == 1 and "  # CHANGE" in lines[0], f"{old} is not one line that says CHANGE"
        text = text.replace(lines[0], lines[0].replace(old, new))
    assert "-CHANGE-ME" not in text
    return text


def draw(folder: Path) -> None:
    """Images for four classes: so many dark rods on white."""
    random = np.random.default_rng(0)
    for number, name in enumerate(CLUSTER_TYPES):
        (folder / name).mkdir(parents=True)
        for index in range(20):
            image = Image.new("L", (64, 64), 255)
            for _ in range(number + 1):
                ends = [int(one) for one in random.integers(8, 56, 4)]
                ImageDraw.Draw(image).line(ends, fill=int(random.integers(0, 120)), width=7)
            image.save(folder / name / f"{index}.png")


class Laptop:
    """Whoever calls `ray up`, from the project's folder: a home with a key and a token."""

    def __init__(self, hosts: Hosts, recipe: Path) -> None:
        self.hosts, self.recipe = hosts, recipe
        home = hosts.folder / "laptop"
        home.mkdir()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "KARYOTUNE_", "PYTHON"))} | {
            "HOME": str(home), "RAY_TMPDIR": str(home / "ray"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }  # fmt: skip

    def start(self, command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["bash", "-c", command], cwd=ROOT, env=self.environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def __call__(self, command: str, seconds: float = 600) -> str:
        began = time.monotonic()
        process = self.start(command)
        try:
            output, _ = process.communicate(timeout=seconds)
        finally:
            process.kill()
        self.hosts.note(command.replace(str(self.recipe), "clusters/onprem.yaml"), time.monotonic() - began)
        assert process.returncode == 0, output[-5000:]
        return output

    def on_head(self, command: str) -> str:
        return f"ray exec {self.recipe} '{command}'"


def test_own_machines_from_nothing_to_a_report_though_one_is_lost_in_the_middle(hosts: Hosts) -> None:
    hosts.up(3)
    draw(hosts.shared / "data" / "chromosomes")
    recipe = hosts.folder / "onprem.yaml"
    recipe.write_text(
        changed(
            RECIPE,
            {
                "HEAD-CHANGE-ME": hosts.address(1),
                "[WORKER-CHANGE-ME]": f"[{hosts.address(2)}, {hosts.address(3)}]",
                "USER-CHANGE-ME": "root",
                "~/.ssh/id_ed25519": str(hosts.key),
                "/SHARED-CHANGE-ME": "/mnt/shared",
                "data/IMAGES": "data/chromosomes",
                "$HOME/venv": "/mnt/env",
            },
        )
    )
    laptop, study = Laptop(hosts, recipe), hosts.shared / "runs" / "tried"
    laptop("(umask 077; ray get-auth-token --generate > /dev/null)")
    assert oct((hosts.folder / "laptop/.ray/auth_token").stat().st_mode)[-3:] == "600"
    laptop(f"ray up -y {recipe}")

    began = time.monotonic()
    wait_for(lambda: len(nodes(hosts)) == 3, 300, "three machines in the cluster")
    hosts.note("(until all three machines are there)", time.monotonic() - began)
    assert hosts.ssh(3, "stat -c %a ~/.ray/auth_token").stdout == "600\n"
    assert hosts.ssh(3, "ls -A ~/karyotune").stdout.split() == sorted(
        ["LICENSE", "README.md", "analysis", "constraints.txt", "pyproject.toml", "search", "search_spaces", "trainables"]
    )

    refused = laptop(
        f"RAY_AUTH_MODE=token python -m search supcam --storage {hosts.folder} --address {hosts.address(1)}:6379 2>&1; test $? = 2"
    )
    assert "a Ray cluster answers there, and this machine is no node of it" in refused

    began, line = time.monotonic(), f"cd ~/karyotune && python -m search supcam {SMALLEST}"
    process = laptop.start(laptop.on_head(line))
    try:
        wait_for(lambda: process.poll() is not None or bool(at_work(hosts, study)), 600, "a run on one of the workers")
        assert process.poll() is None, process.communicate()[0][-5000:]
        lost = at_work(hosts, study)[0]
        hosts.kill(lost)
        output, _ = process.communicate(timeout=900)
    finally:
        process.kill()
    hosts.note(laptop.on_head(line).replace(str(recipe), "clusters/onprem.yaml"), time.monotonic() - began)
    assert process.returncode == 0, output[-5000:]
    output = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output).replace("\r", "")
    assert (
        "cluster auto (RAY_ADDRESS), data /mnt/shared/data/chromosomes (KARYOTUNE_DATA), storage /mnt/shared/runs (KARYOTUNE_STORAGE)"
        in output
    )
    assert "3 runs (3 completed)" in output
    records = [json.loads(line) for line in (study / "records.jsonl").read_text().splitlines()]
    assert [record["status"] for record in records] == ["completed"] * 3, "the lost machine's run was done on another"
    assert (study / "report.html").exists() and (study / "best" / "model.safetensors").exists()

    laptop(f"ray down -y {recipe}")
    began = time.monotonic()
    assert hosts.processes(1) == []
    wait_for(lambda: hosts.processes(5 - lost) == [], 300, "no process of Ray is left on the other worker")
    hosts.note("(until no process is left on any machine)", time.monotonic() - began)
    print(*hosts.transcript, sep="\n")


def nodes(hosts: Hosts) -> list[str]:
    """Addresses of the machines in the cluster, as its head says."""
    asked = hosts.ssh(1, ". ~/karyotune.sh; ray list nodes --format json --filter state=ALIVE 2> /dev/null", check=False)
    return [node["node_ip"] for node in json.loads(asked.stdout)] if asked.returncode == 0 and asked.stdout.startswith("[") else []


def at_work(hosts: Hosts, study: Path) -> list[int]:
    """Which workers train, once each of the three runs has begun; none where one has ended."""
    begun = [path for path in study.glob("checkpoints/*/epochs.log") if "epoch" in path.read_text()]
    if len(begun) < 3 or ((study / "records.jsonl").exists() and (study / "records.jsonl").read_text()):
        return []
    return [number for number in (3, 2) if any("ray::ImplicitFunc.train" in line for line in hosts.processes(number))]
