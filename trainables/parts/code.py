"""Which code trains, and where: a fingerprint of `trainables/` and of the libraries that its numbers come from.
Comes in: the files that Python would import. Goes out: hashes, versions, words for a difference. Exists because other code gives other
results: without it, a stage that another loss had trained would be taken over without a word. Works where there is no git, as on the nodes
of a cluster."""

import functools
import hashlib
import json
import platform
import socket
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import trainables

LIBRARIES = ("torch", "torchvision", "timm")  # in the fingerprint
OTHERS = ("numpy", "ray", "optuna")  # worth knowing, and no reason to train anew
KINDS = (".py", ".csv")  # the look-up tables of composed images are csv
SHOWN = 8  # files of a difference


@functools.cache
def files() -> Mapping[str, str]:
    """Relative name -> hash of each file below the folders `trainables`; of two with one name, the one that Python would import."""
    found: dict[str, str] = {}
    for folder in map(Path, trainables.__path__):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.suffix in KINDS and name not in found:
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return dict(sorted(found.items()))


@functools.cache
def versions() -> Mapping[str, str]:
    """Of Python and of what the numbers depend on, as far as it is installed."""
    found = {"python": platform.python_version()}
    for name in (*LIBRARIES, *OTHERS):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def fingerprint() -> str:
    """32 hex digits: equal for equal files and equal libraries. As this process first saw them: code that is changed later is not what it
    runs. 2.15.0+cpu and 2.15.0+cu130 are one version: the head of a cluster may have no GPU."""
    libraries = {name: versions()[name].partition("+")[0] for name in LIBRARIES if name in versions()}
    return hashlib.sha256(json.dumps([list(files().items()), libraries]).encode()).hexdigest()[:32]


@functools.cache
def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's model, as the machine says it, and the instructions that PyTorch uses of it. Both decide in what order a sum is taken: one
    seed ends at other numbers on another processor."""
    import torch  # here: a machine is examined with this file, and one whose torch is broken must be able to say so

    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


@functools.cache
def commit() -> tuple[str | None, bool]:
    """(commit, whether tracked files differ from it) of the code that runs; (None, False) outside a checkout."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    return head, bool(head and git("status", "--porcelain", "--untracked-files=no"))


def known() -> dict[str, Any]:
    """All that is known of the code, as study.json keeps it."""
    head, dirty = commit()
    return {"fingerprint": fingerprint(), "files": dict(files()), "versions": dict(versions()), "commit": head, "dirty": dirty}


def origin(device: str) -> dict[str, Any]:
    """Who trains, as a worker says it of itself and a record keeps it. device: as people call it."""
    head, dirty = commit()
    return {
        "code": fingerprint(), "versions": dict(versions()), "commit": head, "dirty": dirty, "host": socket.gethostname(), "device": device,
        "processor": processor(),
    }  # fmt: skip


def trained_on(origin: Mapping[str, Any]) -> str:
    """A GPU by its name, a CPU by its model and the instructions in use."""
    return str(origin["processor"] if origin["device"] == "cpu" else origin["device"])


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what two of `known` differ, a line for each file and library."""
    was, now = old.get("files", {}), new.get("files", {})
    lines = [
        f"trainables/{name}: {'added' if name not in was else 'removed' if name not in now else 'changed'}"
        for name in sorted({*was, *now})
        if was.get(name) != now.get(name)
    ]
    if len(lines) > SHOWN:
        lines = [*lines[:SHOWN], f"and {len(lines) - SHOWN} more files"]
    had, have = old.get("versions", {}), new.get("versions", {})
    return lines + [f"{name} {had.get(name, 'none')} -> {have.get(name, 'none')}" for name in LIBRARIES if had.get(name) != have.get(name)]
