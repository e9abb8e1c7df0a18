"""Where a study lives: a folder that all machines see, or an address of an object store with a copy of it on each machine.
Comes in: a folder, or an address (`s3://bucket/prefix`). Goes out: a folder on this machine for everybody to work in, and a Home, which
brings what is there and puts what is finished. Exists so that no other file asks which of the two it is: of a shared folder a Home does
nothing. The store is the truth, the copy (below KARYOTUNE_CACHE) can go at any time: what was not put there was not done."""

import fcntl
import functools
import json
import os
import secrets
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from search import objects
from search.objects import Found, Objects
from trainables.parts.errors import RequestError, StorageFault

CACHE = "KARYOTUNE_CACHE"  # where copies are on this machine; of no other machine, and not on a shared disk
LOCK, STOP = ".lock", ".stop"
LEDGERS = {"records": "records.jsonl", "trials": "trials.jsonl"}  # one object a line; and the file that they make
BEAT_SECONDS, LEASE_SECONDS = 10.0, 30.0  # a command that holds a study says so; after how long without it is another may have it
PUT_SECONDS = 60.0  # how often what is written beside a study at work (report, log) is put
STOP_SECONDS = 2.0  # how often a run asks whether it is to stop
STAGES_SECONDS = 2.0  # how often a study asks which stages are there
ONCE = ("checkpoints", "stages", *LEDGERS)  # put by whoever makes them, when they are made
LARGE = ("model.safetensors", "stage.safetensors")  # brought one by one, when they are needed
AT_ONCE = 16  # objects
PLAIN = str.maketrans("/:", "__")  # of a host in a folder's name


class Home:
    """Of a study in a folder that all machines see."""

    url = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return self.url or str(self.folder)

    def check(self) -> None:
        """StorageFault where it cannot be written."""

    def bring(self, kind: str = "work") -> None:
        """Have this machine's copy be what is there. kind: `glance` (how it stands), `work` (all but LARGE), `whole`; `results`: what runs
        on other machines have left, for the command at work; `images`: of no study."""

    def put(self, *paths: Path) -> None:
        """Files that are finished; without any, all that was changed and is nobody else's to put. Deletes nothing: a copy may lack what was
        not brought, or was swept away."""

    def replaced(self, folder: Path) -> None:
        """Another one has taken the place of a whole folder: what the one before had beside goes."""

    def put_run(self, run: Path) -> None:
        """What a worker has finished of its run."""

    def fetch(self, path: Path) -> None:
        """Bring one file, where it is there and differs."""

    def take_up(self, run: Path, needs: Iterable[str], first: bool = True) -> None:
        """What a worker needs to begin with a run: `needs` of the study, and the run's own folder as it was left. first: of the run's
        workers, who alone writes; another one may be in the same folder."""

    def leave(self, run: Path) -> None:
        """The run has ended here, and all of it was put: a copy would only fill the disk."""

    def has(self, path: Path) -> bool:
        return path.exists()

    def remove(self, path: Path) -> None:
        """A file or a folder, everywhere."""
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def remove_all(self) -> None:
        """The study."""
        shutil.rmtree(self.folder)

    def forget(self) -> None:
        """What stands at an address alone, below a folder of this machine that goes."""

    def append(self, ledger: str, line: bytes) -> None:
        """Before a line is written to a file of LEDGERS. StorageFault where another command has written."""

    def stage(self, key: str, path: Path) -> bool:
        """Whether a stage is there."""
        return path.exists()

    def stages(self) -> set[str]:
        return {path.name for path in (self.folder / "stages").glob("*")}

    def put_new(self, path: Path) -> None:
        """A finished file, unless another machine has been first."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """For this command alone, beside the lock of this machine. RequestError where another one is at work."""
        yield

    def at_work(self) -> bool:
        """Whether a command on another machine is."""
        return False

    def stop(self, wait: bool = True) -> None:
        """wait: until the word is there; the network may be gone, or silent."""
        (self.folder / STOP).touch()

    def stopped(self) -> bool:
        return (self.folder / STOP).exists()

    def forget_stop(self) -> None:
        (self.folder / STOP).unlink(missing_ok=True)


class Away(Home):
    """Of a study at an address."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self.url = url
        self.lost = ""  # why this command may not write any more
        self.holds = False  # whether this process is the command at work
        self._objects: Objects | None = None
        self._quick: Objects | None = None
        self._next: dict[str, int] = {}
        self._stages: tuple[float, set[str]] = (0.0, set())
        self._asked, self._stopped = 0.0, False
        self._word: threading.Thread | None = None  # that puts the word to stop
        self._ahead: float | None = None  # the store's clock less this machine's monotonic one
        self._flights: set[Path] = set()  # that this process has put
        self._busy = threading.RLock()  # threads of this process

    @property
    def quick(self) -> Objects:
        """For questions whose answer somebody waits for."""
        self._quick = self._quick or Objects(self.url, quick=True)
        return self._quick

    @property
    def objects(self) -> Objects:
        self._objects = self._objects or Objects(self.url)
        return self._objects

    def check(self) -> None:
        """Also where two commands could not be kept from each other: some that speak like S3 take no heed of conditions."""
        quick, probe = self.quick, f".probe-{secrets.token_hex(4)}"
        heeds = quick.put_new(probe, b"one") and not quick.put_new(probe, b"other")
        first = quick.get(probe)
        quick.put(probe, b"later")
        heeds = heeds and first is not None and quick.put_over(probe, b"too late", first[1]) is None
        quick.delete(probe)
        if not heeds:
            raise StorageFault(
                f"{self.url} cannot be used: it takes no heed of conditional writes (If-None-Match, If-Match), so that two commands could "
                "write one study; have its server renewed, or name another --storage"
            )
        quick.folders()

    # -- files ------------------------------------------------------------------------------------------------------------------------

    def bring(self, kind: str = "work") -> None:
        with self._alone():
            # else the copy, or what it is a part of, is what a command on this machine works on
            if self.holds or not any(locked(one) for one in (self.folder, *self.folder.parents)):
                self._bring(kind)

    def _bring(self, kind: str) -> None:
        if kind == "images":
            images = self.objects.below()
            if not images:
                raise RequestError(f"there is nothing at {self.url}; give the address of a folder of images, or of an export (`best`)")
            self._clear(images, kind)
            nested = self._nested()
            self._load(found for found in images if not found.name.startswith(nested))
            return
        if kind == "results":
            self._load(found for found in self.objects.below("checkpoints/") if not found.name.endswith(LARGE))
            return
        there = [found for found in self.objects.beside() if not found.name.startswith(".")]
        folders = self.objects.folders()
        if not any(found.name == "study.json" for found in there) and not {*LEDGERS, "checkpoints"} & {*folders}:
            below = next((name for name in folders if self.objects.head(f"{name}/study.json") is not None), "")
            if below:
                raise RequestError(f"{self.url} is no study, it holds some (such as {below}); name one, or give yours another --name")
            there, folders = [], []  # one that is to be begun, whatever lies beside
        for name in folders:
            if kind == "glance" and name not in (*LEDGERS, "checkpoints"):
                continue
            there += self.objects.below(f"{name}/")
        if kind == "glance":
            there = [found for found in there if not found.name.startswith("checkpoints/") or found.name.endswith("/epochs.log")]
        self._clear(there, kind)
        self._load(found for found in there if kind == "whole" or not found.name.endswith(LARGE))
        for name in LEDGERS:
            self._join(name, [found.name for found in there if found.name.startswith(f"{name}/")])

    def _nested(self) -> tuple[str, ...]:
        """Copies of studies below this address, which is a level too high: a command of this machine may be at work on them."""
        return tuple(
            f"{path.parent.relative_to(self.folder).as_posix()}/" for path in self.folder.rglob(LOCK) if path.parent != self.folder
        )

    def _clear(self, there: Iterable[Found], kind: str) -> None:
        """Delete what is not there: it was deleted, or was never put."""
        names = {found.name for found in there}
        for path in _files(self.folder):
            name = path.relative_to(self.folder).as_posix()
            first = name.partition("/")[0]
            if name in names or (name in LEDGERS.values() and kind != "images"):
                continue
            if kind == "glance" and "/" in name and first not in LEDGERS:
                continue
            path.unlink(missing_ok=True)

    def _load(self, there: Iterable[Found], all_small: bool = False) -> None:
        """Bring those that differ from this machine's. Stores tell time by the second, in which a file may be put twice: small ones at the
        top are always brought; all_small: and others than LARGE."""

        def again(found: Found) -> bool:
            return not found.name.endswith(LARGE) if all_small else "/" not in found.name and found.size < 1 << 20

        wanted = [found for found in there if again(found) or not self._same(found)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda found: self._download(found.name), wanted))

    def _same(self, found: Found) -> bool:
        return _same(self.folder / found.name, found)

    def _download(self, name: str) -> bool:
        found = self.objects.download(name, self.folder / name)
        if found is not None:
            _stamp(self.folder / name, found)
        return found is not None

    def _join(self, ledger: str, names: list[str]) -> None:
        from trainables.parts.checkpoint import write_atomically  # which imports PyTorch

        names = sorted(names)
        self._next[ledger] = int(Path(names[-1]).stem) + 1 if names else 0
        path = self.folder / LEDGERS[ledger]
        text = b"".join((self.folder / name).read_bytes().rstrip(b"\n") + b"\n" for name in names)
        if names and (not path.exists() or path.read_bytes() != text):
            write_atomically(path, lambda temporary: temporary.write_bytes(text))
        elif not names:
            path.unlink(missing_ok=True)

    def put(self, *paths: Path) -> None:
        if self.lost:
            return
        if paths:
            for path in paths:
                self._put(path)
            return
        with self._busy:
            there = {found.name: found for found in self.objects.beside() if not found.name.startswith(".")}
            for name in self.objects.folders():
                if name not in ONCE:
                    there |= {found.name: found for found in self.objects.below(f"{name}/")}
            here = {path.relative_to(self.folder).as_posix(): path for path in _files(self.folder)}
            here = {name: path for name, path in here.items() if name.partition("/")[0] not in (*ONCE, *LEDGERS.values())}
            changed = [path for name, path in here.items() if name not in there or _changed(path, there[name])]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(self._put, changed))

    def replaced(self, folder: Path) -> None:
        if self.lost:
            return
        self.put(*_files(folder))
        below = self.objects.below(f"{folder.relative_to(self.folder).as_posix()}/")
        self.objects.delete(*(found.name for found in below if not (self.folder / found.name).exists()))

    def _put(self, path: Path) -> None:
        name = path.relative_to(self.folder).as_posix()
        before = path.stat()
        self.objects.put(name, path)
        found = self.objects.head(name)
        if found is not None and path.stat().st_mtime_ns == before.st_mtime_ns:
            _stamp(path, found)

    def put_run(self, run: Path) -> None:
        """The log last: what it says was saved is there."""
        from trainables.parts.execution import FLIGHT

        new = sorted((path for path in _files(run) if not _stamped(path)), key=lambda path: (path.suffix == ".log", path.suffix == ".json"))
        if any(path.suffix != ".log" for path in new):
            self.put(*new)
        flight = run / FLIGHT
        if flight in self._flights and not flight.exists():
            self.objects.delete(flight.relative_to(self.folder).as_posix())
        self._flights = {flight} if flight.exists() else set()

    def put_new(self, path: Path) -> None:
        name = path.relative_to(self.folder).as_posix()
        if not self.objects.put_new(name, path):
            self.fetch(path)
        elif (found := self.objects.head(name)) is not None:
            _stamp(path, found)

    def fetch(self, path: Path) -> None:
        found = self.objects.head(path.relative_to(self.folder).as_posix())
        if found is not None and not self._same(found):
            self._download(found.name)

    def take_up(self, run: Path, needs: Iterable[str], first: bool = True) -> None:
        from trainables.parts.execution import EPOCHS, FLIGHT

        with self._alone():  # the first process of a machine brings it, the others find it
            for name in needs:
                self._load(self.objects.below(f"{name}/"))
            stages = self.stages()
            for path in (self.folder / "stages").glob("*/*"):
                if path.parent.name not in stages and path.exists() and _stamped(path):  # freed meanwhile, by a command elsewhere
                    path.unlink(missing_ok=True)
            if not (self.folder / "study.json").exists():
                self._download("study.json")
        below = f"{run.relative_to(self.folder).as_posix()}/"
        there = [found for found in self.objects.below(below) if first or not found.name.endswith((EPOCHS, *LARGE))]
        names = {found.name for found in there}
        for path in _files(run):
            if path.relative_to(self.folder).as_posix() not in names and (first or not path.name.endswith((EPOCHS, *LARGE))):
                path.unlink(missing_ok=True)
        self._load(there, all_small=True)
        self._flights = {path for path in [run / FLIGHT] if path.exists()}

    def leave(self, run: Path) -> None:
        if not locked(self.folder):  # else the command is on this machine, and frees what nobody needs
            shutil.rmtree(run, ignore_errors=True)

    def has(self, path: Path) -> bool:
        return path.exists() or self.objects.head(path.relative_to(self.folder).as_posix()) is not None

    def remove(self, path: Path) -> None:
        name = path.relative_to(self.folder).as_posix()
        if not self.lost:  # else it is another command's
            below = [found.name for found in self.objects.below(f"{name}/")] if "." not in path.name else [name]
            self.objects.delete(*below)
        self._stages = (0.0, self._stages[1] - {path.name})
        super().remove(path)

    def remove_all(self) -> None:
        names = [found.name for found in self.objects.below()]
        self.objects.delete(*sorted(names, key=lambda name: name in ("study.json", LOCK)))  # these last: what broke off can be repeated
        super().remove_all()

    def forget(self) -> None:
        self.objects.delete(*(found.name for found in self.objects.below()))

    def stage(self, key: str, path: Path) -> bool:
        if path.exists() or key in self._stages[1]:
            return True
        if time.monotonic() - self._stages[0] > STAGES_SECONDS:
            self._stages = (time.monotonic(), self.stages())
        return key in self._stages[1]

    def stages(self) -> set[str]:
        return set(self.objects.folders("stages/"))

    # -- the ledger ---------------------------------------------------------------------------------------------------------------------

    def append(self, ledger: str, line: bytes) -> None:
        """The store takes one object of a name: of two commands that write the same line, one wins."""
        if self.lost:
            raise StorageFault(self.lost)
        number = self._next.get(ledger)
        if number is None:
            numbers = [int(Path(found.name).stem) for found in self.objects.below(f"{ledger}/")]
            number = max(numbers, default=-1) + 1
        if not self.objects.put_new(f"{ledger}/{number:08d}.json", line):
            self.lost = f"{self.url} was written by another command meanwhile ({ledger}/{number:08d}.json); this one has ended"
            raise StorageFault(self.lost)
        self._next[ledger] = number + 1

    # -- the word to stop ---------------------------------------------------------------------------------------------------------------

    def stop(self, wait: bool = True) -> None:
        self._stopped = True  # whether the network is there or not
        if self.lost:
            return  # the word would be for the command that has taken over
        if wait:
            self.objects.put(STOP, b"")
        elif self._word is None:
            self._word = threading.Thread(target=self._say_stop, daemon=True)
            self._word.start()

    def _say_stop(self) -> None:
        with suppress(StorageFault):  # no network: runs elsewhere are stopped with their next row
            self.objects.put(STOP, b"")

    def stopped(self) -> bool:
        if not self._stopped and time.monotonic() - self._asked > STOP_SECONDS:
            with suppress(StorageFault):  # no network: as it was; what is lost by that, records and checkpoints say themselves
                self._stopped = self.quick.head(STOP) is not None
            self._asked = time.monotonic()
        return self._stopped

    def forget_stop(self) -> None:
        self.objects.delete(STOP)
        self._stopped = False

    # -- the lock -----------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def held(self) -> Iterator[None]:
        over, own = threading.Event(), _owner()
        version = self._take(own)
        self.lost, self.holds = "", True

        def keep() -> None:
            nonlocal version
            while not over.wait(BEAT_SECONDS):
                own["beat"] += 1
                with suppress(StorageFault):  # no network: records are conditional, and say so themselves
                    version = self.objects.put_over(LOCK, _json(own), version) or self._version(own)
                    if not version:
                        self.lost = self.lost or f"{self.url} was taken over by another command; this one has ended"
                        return

        def put() -> None:
            while not over.wait(PUT_SECONDS):
                with suppress(OSError):  # said at the end, when all is put once more
                    self.put()

        threads = [threading.Thread(target=work, daemon=True) for work in (keep, put)]
        for thread in threads:
            thread.start()
        try:
            try:
                yield
            except BaseException:
                with suppress(OSError):  # that may be what ended it
                    self.put()
                raise
            self.put()
        finally:
            over.set()
            for thread in (*threads, *([self._word] if self._word is not None else [])):
                thread.join()
            self.holds, self._word = False, None
            if version:
                with suppress(StorageFault):  # another command waits LEASE_SECONDS for it then
                    self.objects.delete(LOCK)

    def _take(self, own: dict[str, Any]) -> dict[str, str]:
        """The lock's version. One whose command was killed on this machine is taken at once, else after LEASE_SECONDS without a word."""
        began, first, told = time.monotonic(), None, False
        while True:
            if self.objects.put_new(LOCK, _json(own)):
                return self._version(own)
            there = self.objects.get(LOCK)
            if there is None:
                continue
            first = first or there[1]
            other = json.loads(there[0])
            if there[1] != first:
                raise RequestError(
                    f"{self}: another search is at work on this study ({other['host']}); wait for it, or give this one another --name"
                )
            if _dead(other) or time.monotonic() - began > LEASE_SECONDS:
                taken = self.objects.put_over(LOCK, _json(own), there[1])
                if taken is not None:
                    return taken
            elif not told:
                told = True
                print(f"{self}: looking for {LEASE_SECONDS:g} s whether the command that holds it ({other['host']}) lives", file=sys.stderr)
            time.sleep(1.0)

    def _version(self, own: dict[str, Any]) -> dict[str, str]:
        """Of our lock; {} where it is another's. One whose answer was lost on the way is ours under a version that we were not told."""
        there = self.objects.get(LOCK)
        return there[1] if there is not None and json.loads(there[0]).get("nonce") == own["nonce"] else {}

    def at_work(self) -> bool:
        there = self.objects.head(LOCK)
        return there is not None and self._now() - there.modified < LEASE_SECONDS

    def _now(self) -> float:
        """By the store's clock, as what stands there is; this machine's may be wrong. Asked once."""
        if self._ahead is None:
            probe = f".probe-{secrets.token_hex(4)}"
            try:
                self.objects.put(probe, b"")
                found = self.objects.head(probe)
                self.objects.delete(probe)
            except StorageFault:  # may only look
                return time.time()
            if found is None:
                return time.time()
            self._ahead = found.modified - time.monotonic()
        return time.monotonic() + self._ahead

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of this machine's processes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._busy, FileLock(self.folder.with_name(f".{self.folder.name}.bring")):
            yield


# -- addresses ----------------------------------------------------------------------------------------------------------------------------


def is_address(place: object) -> bool:
    """Whether it has a scheme; a Path has lost one of its slashes."""
    scheme, colon, rest = str(place).partition(":/")
    return (
        bool(colon) and len(scheme) > 1 and scheme.replace("+", "").isalnum() and not Path(f"{scheme}:").exists() and bool(rest or scheme)
    )


def address_of(place: object) -> str:
    """As it was said, with both slashes."""
    scheme, _, rest = str(place).partition(":/")
    return f"{scheme}://{rest.strip('/')}"


def here(place: Path | str) -> Path:
    """The folder on this machine that stands for an address; a folder stands for itself. RequestError for an address that cannot be
    used."""
    if not is_address(place):
        return Path(place)
    url = address_of(place)
    if words := objects.needs(url):
        raise RequestError(words)
    scheme, _, rest = url.partition("://")
    other = objects.endpoint().partition("://")[2] if scheme == "s3" else ""
    return cache() / (scheme + (f"@{other.strip('/').translate(PLAIN)}" if other else "")) / rest


def place_of(place: Path) -> str:
    """What a folder on this machine stands for."""
    try:
        below = place.resolve().relative_to(cache())
    except ValueError:
        return str(place)
    scheme = below.parts[0].partition("@")[0] if len(below.parts) > 1 else ""
    if scheme not in objects.SCHEMES:
        return str(place)
    return f"{scheme}://{'/'.join(below.parts[1:])}"


def home(folder: Path) -> Home:
    """One for each study and process."""
    return _home(folder.resolve())


@functools.cache
def _home(folder: Path) -> Home:
    url = place_of(folder)
    return Away(folder, url) if is_address(url) else Home(folder)


def ready(folder: Path, kind: str = "work") -> Path:
    """A folder, once this machine's copy is what is at its address. RequestError, within seconds, where that cannot be used."""
    there = home(folder)
    try:
        if isinstance(there, Away):
            there.quick.folders()
        there.bring(kind)
    except StorageFault as fault:
        raise RequestError(str(fault)) from None
    return folder


def names_below(storage: Path) -> list[str] | None:
    """Studies of a storage at an address; None of a folder."""
    there = home(storage)
    if not isinstance(there, Away):
        return None
    try:
        found = [name for name in there.quick.folders() if there.quick.head(f"{name}/study.json") is not None]
    except StorageFault as fault:
        raise RequestError(str(fault)) from None
    return sorted(found)


def locked(folder: Path) -> bool:
    """Whether a command on this machine, or one that shares this folder with it, holds a study."""
    try:
        with open(folder / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def cache() -> Path:
    """Where copies are; by host: a home folder that several machines share must not be one copy for all of them."""
    own = os.environ.get(CACHE)
    below = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "karyotune" / socket.gethostname()
    return (Path(own) if own else below).resolve()


# -- files of this machine ----------------------------------------------------------------------------------------------------------------


def _files(folder: Path) -> Iterator[Path]:
    """Those that are or may be at the address too: nothing hidden, nothing of Ray's."""
    for root, folders, files in os.walk(folder):
        if LOCK in files and Path(root) != folder:  # a study's own copy, below an address that is a level too high
            folders[:] = []
            continue
        folders[:] = [name for name in folders if not name.startswith(".") and (name != "ray" or Path(root) != folder)]
        for name in files:
            if not name.startswith("."):
                yield Path(root) / name


def _same(path: Path, found: Found) -> bool:
    """By size and time, as a file is stamped when it is brought or put: one that was written here since has parts of a second."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return False
    return about.st_size == found.size and about.st_mtime_ns == found.modified * 10**9


def _changed(path: Path, found: Found) -> bool:
    """Whether it was written here; one that was brought, and put anew from elsewhere since, is the older one."""
    return not _same(path, found) and not (_stamped(path) and path.stat().st_mtime < found.modified)


def _stamped(path: Path) -> bool:
    """Whether nothing was written to it since it was brought or put."""
    return path.stat().st_mtime_ns % 10**9 == 0


def _stamp(path: Path, found: Found) -> None:
    with suppress(FileNotFoundError):  # freed by now
        os.utime(path, (found.modified, found.modified))


# -- who holds a study --------------------------------------------------------------------------------------------------------------------


def _owner() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), **_life(os.getpid()), "nonce": secrets.token_hex(8), "beat": 0}


def _life(pid: int) -> dict[str, str]:
    """What tells a process of this boot and container from any other of its number."""
    boot, space, stat = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid"), Path(f"/proc/{pid}/stat")
    try:
        return {
            "boot": boot.read_text().strip(), "space": os.readlink(space), "start": stat.read_text().rpartition(")")[2].split()[19],
        }  # fmt: skip
    except OSError:
        return {}


def _dead(other: dict[str, Any]) -> bool:
    """Whether it was a process of this machine that is gone."""
    own = _life(os.getpid())
    if not own or any(own[name] != other.get(name) for name in ("boot", "space")) or other["host"] != socket.gethostname():
        return False
    return _life(int(other["pid"])).get("start") != other.get("start")


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode()
