"""Studies as folders: which there are, how they stand, whether a command is at work on one, and how it is asked to stop.
Comes in: a folder, or a name below --storage. Goes out: an Overview. Reads what any machine sees of a study, and needs no PyTorch."""

import fcntl
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from search.home import LOCK, address_of, here, home, is_address, locked, names_below, place_of, ready
from search.registry import unknown
from search.status import read_status
from trainables.parts.errors import RequestError


@dataclass(frozen=True)
class Overview:
    """state: `at work`, `finished`, `unfinished`, or `damaged`, where study.json cannot be read. runs: how many ended how; waiting: asked
    for and not begun, without the race of a search."""

    name: str
    folder: Path
    state: str
    procedure: str
    preset: str
    created: str
    images: int
    runs: Mapping[str, int]
    begun: int  # and not ended
    waiting: int
    best: tuple[float, str] | None
    metric: str
    command: str
    halted: str = ""  # what ended the last command before all was done
    status: Mapping[str, Any] = field(default_factory=dict)  # as its last command told it, see `status`

    @property
    def done(self) -> int:
        return sum(self.runs.values())

    def json(self) -> dict[str, Any]:
        return asdict(self) | {
            "folder": str(self.folder),
            "best": None if self.best is None else {"score": self.best[0], "name": self.best[1]},
        }


def studies(storage: Path) -> list[Path]:
    """Folders of studies below a storage, by name."""
    if (away := names_below(storage)) is not None:  # the bucket is the truth, whatever copies are here
        return [storage / name for name in away]
    if not storage.is_dir():
        return []
    return sorted(path.parent for path in storage.glob("*/study.json"))


def find(word: str, storage: Path) -> Path:
    """The folder of a study, by its path or by its name below the storage. RequestError with those that there are."""
    if is_address(word):
        folder = here(address_of(word))
        word, storage = folder.name, folder.parent
    for folder in (Path(word), storage / word):
        if (ready(folder, "glance") / "study.json").exists():
            return folder.resolve()
    there = [path.name for path in studies(storage)]
    raise RequestError(
        unknown("study", word, there) + f" They are looked for in {place_of(storage)}; elsewhere: --storage, or the folder itself"
        if there
        else f"no study {word!r}, and none in {place_of(storage)}; give the folder of a study, or --storage"
    )


def at_work(folder: Path) -> bool:
    """Whether a command holds the study."""
    return locked(folder) or home(folder).at_work()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The study's lock. RequestError where a command is at work."""
    with open(folder / LOCK, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(f"a command is at work on {home(folder)}; stop it first: stop {home(folder)}") from None
        with home(folder).held():
            yield


def overview(folder: Path) -> Overview:
    """How a study stands, by its own files. RequestError where they cannot be read."""
    import analysis

    try:
        study = analysis.load(folder)
    except analysis.StudyError as fault:
        raise RequestError(str(fault)) from None
    asked, records = study.asked, study.usable
    runs = {str(status): int(count) for status, count in sorted(records["status"].value_counts().items())}
    known = set(zip(records["config_hash"], records["seed"], strict=True))
    wanted = {(arm.config_hash, seed) for table in study.tables if table.number != "search" for arm in table.arms for seed in study.seeds}
    trials = max(0, int(asked.get("trials") or 0) - records["trial"].nunique())
    keys = set(records["key"])
    checkpoints = folder / "checkpoints"
    begun = sum(entry.name not in keys for entry in os.scandir(checkpoints) if entry.is_dir()) if checkpoints.is_dir() else 0
    waiting = len(wanted - known) + trials
    decided = not asked.get("trials") or (asked.get("race") or {}).get("winner") is not None
    state = "at work" if at_work(folder) else "damaged" if not asked else "finished" if not waiting and decided else "unfinished"
    return Overview(
        study.name, folder, state, study.procedure, str(asked.get("preset", "")), str(asked.get("created", "")),
        int((asked.get("data") or {}).get("images") or 0), runs, begun, max(0, waiting - begun), _best(study), study.metric,
        str(asked.get("command", "")), "" if state == "at work" else str(asked.get("halted", "")), read_status(folder),
    )  # fmt: skip


def _best(study: Any) -> tuple[float, str] | None:
    """The best mean over the seeds so far, on validation data."""
    import analysis

    found = analysis.best(study)
    return None if found is None or math.isnan(found.mean) else (float(found.mean), f"{found.name}, {len(found.seeds)} seed(s)")


def ask_to_stop(folder: Path) -> None:
    """Have the command at work save its checkpoints and end. RequestError where there is none."""
    if not at_work(folder):
        raise RequestError(
            f"no command is at work on {home(folder)} (or on a file system whose locks are not seen here); there is nothing to stop"
        )
    home(folder).stop()


def remove(folder: Path) -> None:
    """Delete a study. RequestError where a command is at work on it."""
    with held(folder):
        home(folder).remove_all()
