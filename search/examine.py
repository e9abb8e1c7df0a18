"""The examination of one machine: whether runs may be placed on it, and what is wrong with it.
Comes in: what the head has (`Expected`). Goes out: `Findings`: facts, and one line for each fault: what, why, what to do. Knows no Ray:
`admission` runs it on each node of a cluster, `doctor` here too, where there is none."""

import errno
import importlib.util
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.home import cache, home, is_address, place_of
from search.objects import Objects, needs
from trainables.parts import code
from trainables.parts.errors import StorageFault

ROOM_BYTES = 5e8  # free: a checkpoint and Ray's own logs
SHARED_BYTES = 1e8  # of /dev/shm; a container has 64 MB unless told otherwise, which NCCL and Ray's object store soon fill
CLOCK_SECONDS = 5.0  # a machine that asks a time server is right to a hundredth of one
SLOW_BYTES = 5e6  # a second: a checkpoint of a ResNet-50 takes half a minute
PROBE_BYTES, PROBE_SECONDS = 64 << 20, 3.0  # written and read to know how fast a storage is, and for how long at most
PIECE = 4 << 20
RIGHTS = "; every machine needs rights of its own for it: a role, or the same variables where Ray is started"
HEADS = "head"  # the file of whoever examines
PRETEND = "KARYOTUNE_PRETEND_CARDS"  # where it is set, runs train on the CPU and take Ray's word for their cards: for tests without a GPU
BESIDE = ("numpy", "ray")  # libraries whose version does not part results, and may yet be why a machine fails


@dataclass(frozen=True)
class Expected:
    """What a machine is held against. storage: a folder or an address of this examination's own, in which the head has written `token`.
    known: the code of the head (`trainables.parts.code.known`). gpus: as Ray promises. sent: the head's clock when it asked. group: runs
    have several workers, who meet in /dev/shm. probe: also measure how fast the storage is."""

    storage: str
    token: str
    known: Mapping[str, Any]
    gpus: float = 0.0
    sent: float = 0.0
    group: bool = False
    probe: bool = False


@dataclass(frozen=True)
class Fault:
    """bars: no run may be placed there; else it is worth mending, and no more."""

    kind: str  # storage, code, gpu, disk, shm, clock, token, silent
    words: str
    bars: bool = True


@dataclass
class Findings:
    """Of one machine. now: its clock as it was examined; wrote: the file that it left for the head to see."""

    host: str
    faults: list[Fault] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    now: float = 0.0
    wrote: str = ""
    node: str = ""  # Ray's name for it; '' without a cluster
    resources: dict[str, float] = field(default_factory=dict)

    @property
    def bars(self) -> str:
        """Why no run may be placed there; '' where they may."""
        return "; ".join(fault.words for fault in self.faults if fault.bars)


def examine(expected: Expected) -> Findings:
    """On the machine itself."""
    found = Findings(socket.gethostname())
    for look in (_storage, _code, _gpus, _disk, _shared, _token, _speed):
        look(expected, found)
    found.now = time.time()
    return found


def clock_fault(found: Findings, sent: float, received: float) -> Fault | None:
    """Its clock as it was examined must lie between the head's when it asked and when it heard."""
    ahead = found.now - received if found.now > received else min(0.0, found.now - sent)
    found.facts["clock_seconds"] = round(ahead, 1)
    if abs(ahead) <= CLOCK_SECONDS:
        return None
    words = f"{found.host}: its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the head's"
    return Fault(
        "clock", f"{words}, so that times in records and logs are wrong; have it ask a time server (timedatectl set-ntp true)", False
    )


def sees(found: Findings, folder: Path, token: str) -> Fault | None:
    """On the head: whether it sees what the machine has written."""
    if not found.wrote:
        return None
    with suppress(OSError):  # it is not there
        if _read(place_of(folder), found.wrote) == token:
            return None
    return Fault(
        "storage",
        f"{found.host}: what it writes to {folder.parent} is not seen here, so that is another disk of the same name; mount one shared "
        "folder on every machine and give that as --storage",
    )


class Folder:
    """A folder of an examination's own below a storage, and the head's file in it. Gone after `close`, and the storage too where it was
    made for this."""

    def __init__(self, storage: Path) -> None:
        self.made = next((path for path in reversed([storage, *storage.parents]) if not path.exists()), None)
        self.path = storage / f".examination-{secrets.token_hex(4)}"
        self.token = secrets.token_hex(16)
        self.path.mkdir(parents=True)
        _write(place_of(self.path), HEADS, self.token)

    def close(self) -> None:
        home(self.path).forget()
        shutil.rmtree(self.path, ignore_errors=True)
        below = self.path.parent
        while below.exists() and self.made is not None and below != self.made.parent and not any(below.iterdir()):
            below.rmdir()
            below = below.parent


def _storage(expected: Expected, found: Findings) -> None:
    folder = Path(expected.storage)
    share = "mount the folder of --storage there as it is on the head, or name one that every machine sees"
    if is_address(expected.storage) and (missing := needs(expected.storage)):
        found.faults.append(Fault("storage", f"{found.host}: {missing}"))
        return
    try:
        same = _read(expected.storage, HEADS) == expected.token
    except StorageFault as fault:
        found.faults.append(Fault("storage", f"{found.host}: {fault}{RIGHTS}"))
        return
    except OSError as fault:
        found.faults.append(Fault("storage", f"{found.host} does not see {folder.parent} ({fault.strerror}); {share}"))
        return
    if not same:
        found.faults.append(Fault("storage", f"{found.host} sees another {folder.parent} than the head; {share}"))
        return
    name = f"node-{secrets.token_hex(8)}"
    try:
        _write(expected.storage, name, expected.token)
    except StorageFault as fault:
        found.faults.append(Fault("storage", f"{found.host}: {fault}{RIGHTS}"))
        return
    except OSError as fault:
        words = f"{found.host} sees {folder.parent} and cannot write there ({fault.strerror})"
        found.faults.append(
            Fault("storage", f"{words}; let user {os.getuid()} write it from every machine (NFS: rw, no squash of that user)")
        )
        return
    found.wrote = name


def _read(storage: str, name: str) -> str:
    if not is_address(storage):
        return (Path(storage) / name).read_text()
    there = Objects(storage, quick=True).get(name)
    if there is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return there[0].decode()


def _write(storage: str, name: str, text: str) -> None:
    if is_address(storage):
        Objects(storage, quick=True).put(name, text.encode())
        return
    with (Path(storage) / name).open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _code(expected: Expected, found: Findings) -> None:
    own = code.known()
    found.facts["versions"] = own["versions"]
    if own["fingerprint"] != expected.known["fingerprint"]:
        differs = [line.replace(" -> ", " on the head, here ") for line in code.difference(expected.known, own)]
        words = f"{found.host} has other code than the head ({', '.join(differs)})"
        found.faults.append(
            Fault(
                "code",
                f"{words}; its numbers would not be comparable: install what constraints.txt says on every machine, "
                "and the same trainables/",
            )
        )
    for name in BESIDE:
        here, there = own["versions"].get(name, "none"), expected.known["versions"].get(name, "none")
        if here != there:
            found.faults.append(
                Fault("code", f"{found.host} has {name} {here}, the head {there}; install what constraints.txt says", False)
            )


def _gpus(expected: Expected, found: Findings) -> None:
    """What Ray promises must be there for PyTorch: nvidia-smi shows a GPU that a driver too old for PyTorch's CUDA cannot use."""
    there = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    found.facts |= {"gpus_of_machine": there, "gpus": 0} | ({"CUDA_VISIBLE_DEVICES": hidden} if hidden is not None else {})
    if not expected.gpus or PRETEND in os.environ:
        return
    if importlib.util.find_spec("torch") is None:
        found.faults.append(Fault("gpu", f"{found.host} has no PyTorch; install what constraints.txt says"))
        return
    import torch

    promised, seen = -int(-expected.gpus // 1), torch.cuda.device_count()
    found.facts |= {"gpus": seen, "devices": [torch.cuda.get_device_name(number) for number in range(seen)]}
    if hidden is not None and "MIG-" in hidden:
        promised = min(promised, 1)  # a process sees one slice of a GPU at most, and each run's has its own
    if seen >= promised:
        found.faults += [fault for number in range(promised) if (fault := _unusable(found.host, number))]
        return
    if torch.version.cuda is None and torch.version.hip is None:
        why = f"its PyTorch {torch.__version__} is a build without GPUs; install the one with CUDA"
    elif hidden is not None:
        why = f"CUDA_VISIBLE_DEVICES={hidden!r} hides the others; unset it before `ray start`, or start Ray there with --num-gpus={seen}"
    else:
        why = f"look at its driver (nvidia-smi; PyTorch needs one for CUDA {torch.version.cuda}), or start Ray there with --num-gpus={seen}"
    found.faults.append(Fault("gpu", f"Ray promises {promised} GPU(s) on {found.host} and PyTorch sees {seen}: {why}"))


def _unusable(host: str, number: int) -> Fault | None:
    """A GPU on which nothing can be computed. One whose memory others fill is none."""
    import torch

    try:
        torch.zeros(1, device=f"cuda:{number}")
    except torch.cuda.OutOfMemoryError:
        return None
    except RuntimeError as fault:
        words = f"PyTorch sees GPU {number} of {host} and cannot use it ({str(fault).splitlines()[0]})"
        return Fault(
            "gpu",
            f"{words}; nvidia-smi and dmesg may say why: a driver older than PyTorch's CUDA {torch.version.cuda}, or a fault of the card",
        )
    return None


def _disk(expected: Expected, found: Findings) -> None:
    storage = Path(expected.storage).parent
    if is_address(expected.storage):  # studies are worked on here
        storage = cache()
        storage.mkdir(parents=True, exist_ok=True)
    places = {"temporary files": tempfile.gettempdir()} | ({"storage": str(storage)} if found.wrote else {})
    for what, place in places.items():
        free = shutil.disk_usage(place).free
        found.facts[f"free_{what.split()[0]}"] = free
        if free < ROOM_BYTES:
            words = f"{found.host}: {free / 1e6:.0f} MB are free for {what} ({place}), {ROOM_BYTES / 1e6:.0f} are needed"
            found.faults.append(
                Fault("disk", f"{words}; make room there" + ("" if what == "storage" else ", or start Ray with another TMPDIR"))
            )


def _shared(expected: Expected, found: Findings) -> None:
    try:
        about = os.statvfs("/dev/shm")
    except OSError:
        return  # another system than Linux
    found.facts["shm"] = about.f_blocks * about.f_frsize
    if found.facts["shm"] < SHARED_BYTES:
        words = f"{found.host}: /dev/shm holds {found.facts['shm'] / 1e6:.0f} MB"
        words += (
            ", too little for several workers of one run and for Ray's object store; start the container with --shm-size=2g (or --ipc=host)"
        )
        found.faults.append(Fault("shm", words, expected.group))


def _token(expected: Expected, found: Findings) -> None:
    """The file of a token is its owner's alone, where it is that of this cluster."""
    if os.environ.get("RAY_AUTH_MODE") != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if path.exists() and path.stat().st_mode & 0o077:
        words = f"{found.host}: others of this machine may read the cluster's token; chmod 600 {path} there"
        found.faults.append(Fault("token", words, False))


def _speed(expected: Expected, found: Findings) -> None:
    """Bytes a second, there and back, each piece forced to the disk and out of this machine's memory before it is read."""
    if not (expected.probe and found.wrote):
        return
    name = f"{found.wrote}-probe"
    try:
        written, read = (_speed_away if is_address(expected.storage) else _speed_here)(expected.storage, name, secrets.token_bytes(PIECE))
    except StorageFault as fault:
        found.faults.append(Fault("storage", f"{found.host}: {fault}"))
        return
    except OSError as fault:
        found.faults.append(
            Fault("storage", f"{found.host} could not write {PROBE_BYTES >> 20} MB to the storage ({fault.strerror}); make room there")
        )
        return
    found.facts |= {"write_bytes_a_second": round(written), "read_bytes_a_second": round(read)}
    if min(written, read) < SLOW_BYTES:
        words = f"{found.host} writes {written / 1e6:.1f} MB a second to the storage and reads {read / 1e6:.1f}"
        found.faults.append(
            Fault(
                "storage",
                f"{words}, so that each checkpoint takes long; look at the network between them, or choose a nearer folder",
                False,
            )
        )


def _speed_here(storage: str, name: str, piece: bytes) -> tuple[float, float]:
    path = Path(storage) / name
    try:
        with path.open("wb", buffering=0) as file:
            written = _bytes_a_second(lambda: file.write(piece), lambda: os.fsync(file.fileno()))
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return written, _bytes_a_second(lambda: len(file.read(PIECE)), lambda: None)
    finally:
        path.unlink(missing_ok=True)


def _speed_away(storage: str, name: str, piece: bytes) -> tuple[float, float]:
    """Of one object that is put and brought again and again."""
    there = Objects(storage)  # a slow one is to be measured

    def put() -> int:
        there.put(name, piece)
        return len(piece)

    written = _bytes_a_second(put, lambda: None)
    read = _bytes_a_second(lambda: len((there.get(name) or (b"", {}))[0]), lambda: None)
    there.delete(name)
    return written, read


def _bytes_a_second(move: Callable[[], int | None], end: Callable[[], None]) -> float:
    began, moved = time.perf_counter(), 0
    while moved < PROBE_BYTES and time.perf_counter() - began < PROBE_SECONDS and (step := move()):
        moved += step
    end()
    return moved / max(1e-9, time.perf_counter() - began)
