"""Which GPUs of this machine a study may take: those that nobody else computes on. For a workstation that several people use.
Comes in: what nvidia-smi says (it comes with the driver), CUDA_VISIBLE_DEVICES. Goes out: CUDA_VISIBLE_DEVICES for Ray, and words on what
is left alone. Where the variable is set already (by the user, or by Slurm for its job) that choice stands."""

import csv
import itertools
import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainables.parts.errors import RequestError

VISIBLE = "CUDA_VISIBLE_DEVICES"
ANSWER_SECONDS = 30.0  # nvidia-smi takes one or two where no driver is loaded yet
GRACE_SECONDS = 15.0  # in which what an earlier command left behind is gone
LOOK_SECONDS = 5.0
FULL, AT_WORK = 0.25, 0.5  # of its memory, of its time: of a GPU whose processes are not shown (a container); a desktop takes less
GPU_FIELDS = ("index", "uuid", "name", "memory.used", "memory.total", "utilization.gpu")


@dataclass(frozen=True)
class Gpu:
    """used: of its memory, 0 to 1; work: of its time, 0 to 1; users: who compute on it; slices: names of its MIG slices, if it is cut."""

    number: int
    uuid: str
    name: str
    used: float = 0.0
    work: float = 0.0
    users: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()

    @property
    def taken(self) -> str:
        """By whom; '' where it is free."""
        if self.users:
            return f"GPU {self.number} ({self.name}) is used by {', '.join(self.users)}"
        if self.used >= FULL or self.work >= AT_WORK:
            return f"GPU {self.number} ({self.name}) is used by others ({self.used:.0%} of its memory, {self.work:.0%} of its time)"
        return ""

    @property
    def names(self) -> tuple[str, ...]:
        """As CUDA_VISIBLE_DEVICES takes them."""
        return self.slices or (str(self.number),)


def look() -> list[Gpu]:
    """The GPUs of this machine; none where there is no nvidia-smi, or it has nothing to say."""
    about = _asked(f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader,nounits")
    users: dict[str, list[str]] = {}
    for uuid, pid in (row for row in _asked("--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader") if len(row) == 2):
        users.setdefault(uuid, []).append(_who(pid))
    slices = _slices() if about else {}
    found = []
    for row in about:
        if len(row) != len(GPU_FIELDS) or not row[0].isdecimal():
            continue
        number, uuid, name, used, total, work = row
        memory = _number(used) / (_number(total) or math.inf)
        found.append(Gpu(int(number), uuid, name, memory, _number(work) / 100, tuple(users.get(uuid, ())), slices.get(uuid, ())))
    return found


def _asked(*words: str) -> list[list[str]]:
    """The rows that nvidia-smi prints."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []  # a driver that hangs is a machine's fault that the runs will name
    return [[cell.strip() for cell in row] for row in csv.reader(done.stdout.splitlines())] if done.returncode == 0 else []


def _slices() -> dict[str, tuple[str, ...]]:
    """GPU -> its MIG slices, from `nvidia-smi -L`."""
    found: dict[str, list[str]] = {}
    gpu = ""
    for line in (",".join(row) for row in _asked("-L")):
        name = line.rpartition("UUID: ")[2].rstrip(") ")
        if name.startswith("MIG-"):
            found[gpu].append(name)
        elif name.startswith("GPU-"):
            gpu = name
            found[gpu] = []
    return {gpu: tuple(names) for gpu, names in found.items() if names}


def _number(text: str) -> float:
    """0 for what nvidia-smi may not tell: [N/A]."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _who(pid: str) -> str:
    """A process and its owner, as far as they can be seen from here."""
    try:
        return f"process {pid} of {Path(f'/proc/{pid}').owner()}"
    except (OSError, KeyError):
        return f"process {pid}"


def seen(visible: str) -> list[str]:
    """What CUDA sees of CUDA_VISIBLE_DEVICES: names up to the first that can be none. Ray counts -1, by which people hide all, as a GPU."""
    names = (one.strip() for one in visible.split(","))
    return list(itertools.takewhile(lambda one: one.isdecimal() or one.startswith(("GPU-", "MIG-")), names))


def _is(gpu: Gpu, name: str) -> bool:
    """A name by UUID may be cut short."""
    return name.startswith("GPU-") and gpu.uuid.startswith(name)


def choose(gpus: Sequence[Gpu], visible: str | None) -> tuple[list[str] | None, list[str]]:
    """What to put into CUDA_VISIBLE_DEVICES, None to leave it as it is; and words. visible: what it is."""
    taken = [gpu for gpu in gpus if gpu.taken]
    if visible is not None:
        chosen = seen(visible)
        beside = [gpu.taken for gpu in taken if any(one == str(gpu.number) or _is(gpu, one) for one in chosen)]
        named = len(chosen)
        words = [f"{VISIBLE}={visible} leaves {named} of {len(gpus)} GPU(s) to this study"] if gpus and named < len(gpus) else []
        return None if chosen == visible.split(",") else chosen, words + [
            f"{line}, and by this study, as {VISIBLE} says" for line in beside
        ]
    cut = [gpu for gpu in gpus if gpu.slices]
    words = [f"{gpu.taken}: left alone" for gpu in taken]
    words += [
        f"GPU {gpu.number} ({gpu.name}) is cut into {len(gpu.slices)} MIG slices, of which each takes runs" for gpu in cut if not gpu.taken
    ]
    names = [name for gpu in gpus if not gpu.taken for name in gpu.names]
    return (names if taken or cut else None), words


@contextmanager
def free_gpus(wanted: int | None, say: Callable[[str], None]) -> Iterator[int | None]:
    """In the block this process and its children see the GPUs alone that are free; how many, None where nothing was changed. wanted: wait
    for so many. RequestError where all are taken and nothing is to be waited for."""
    began, said = time.monotonic(), ""
    while True:
        gpus, visible = look(), os.environ.get(VISIBLE)
        names, words = choose(gpus, visible)
        if visible is not None or (names is None and (not wanted or len(gpus) >= wanted)):
            break
        free = len(names or ())
        if free >= (wanted or 1):
            break
        if wanted and wanted > sum(len(gpu.names) for gpu in gpus):
            raise RequestError(f"--wait-for {wanted} must not be above this machine's {len(gpus)} GPU(s); lower it")
        if not wanted and time.monotonic() - began > GRACE_SECONDS:
            taken = "; ".join(gpu.taken for gpu in gpus)
            raise RequestError(
                f"no GPU of this machine is free: {taken}. --wait-for 1 waits for one, --gpus-per-run 0 does without, "
                f"{VISIBLE}=0 shares GPU 0"
            )
        if wanted and (news := f"waiting for GPUs: {free} of {wanted} free; {'; '.join(gpu.taken for gpu in gpus if gpu.taken)}") != said:
            said = news
            say(news)
        time.sleep(LOOK_SECONDS)
    for line in words:
        say(line)
    if names is None:
        yield None
        return
    os.environ[VISIBLE] = ",".join(names)
    try:
        yield len(names)
    finally:
        if visible is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = visible
