"""A study folder: study.json, the packed data, the splits; and the lock that keeps it for one command.
Comes in: what was asked, and data. Goes out: `study.json`, `data/`, `splits/`. Exists so that whoever has the folder can tell what it is,
and that two commands are never at work on it."""

import csv
import errno
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from search.home import LOCK, home
from trainables.data.pack import Pack, load_pack, save_pack
from trainables.parts import code
from trainables.parts.checkpoint import write_atomically
from trainables.parts.errors import RequestError, StorageFault
from trainables.parts.sealing import sealed, unsealed

SCHEMA = 1
STUDY = "study.json"


class _Objective(BaseModel):
    metric: str
    direction: str
    intermediate: str


class _Data(BaseModel):
    hash: str
    classes: list[str]


class _Arm(BaseModel):
    name: str
    config_hash: str


class _Table(BaseModel):
    number: str
    metric: str
    baseline_arm: str
    arms: list[_Arm]


class _Study(BaseModel):
    """What study.json must have for whoever reads it; what else stands in it is kept as it is."""

    model_config = ConfigDict(strict=True)

    study: str
    procedure: str
    preset: str
    objective: _Objective
    data: _Data
    seed: int
    seeds: list[int]
    repeats: int
    trials: int
    baseline: dict[str, Any]
    tables: list[_Table]
    code: str = ""  # fingerprint that keys are made with; '' where it was begun by a version that did not keep it
    codes: list[dict[str, Any]] = []  # `code.known` of each that trained, the earliest first
    most: dict[str, int] = {}  # trials and repeats that any command has asked for


def read_study(folder: Path) -> dict[str, Any] | None:
    """study.json, or None where there is none. RequestError if it is damaged or of another schema."""
    path = folder / STUDY
    if not path.exists():
        return None
    again = "delete it, and the command that began the study writes it anew, or give the study another --name"
    try:
        study = json.loads(path.read_text())
        if isinstance(study, dict):
            study = unsealed(study)
    except (ValueError, RecursionError) as fault:
        raise RequestError(f"{path} is damaged ({fault}); {again}") from None
    if not isinstance(study, dict) or study.get("schema") != SCHEMA:
        raise RequestError(
            f"{path} is of schema {study.get('schema') if isinstance(study, dict) else '?'}, this version writes {SCHEMA}; give the "
            "study another --name"
        )
    try:
        _Study.model_validate(study)
    except ValidationError as fault:
        raise RequestError(f"{path} is damaged ({'; '.join(map(_found, fault.errors(include_url=False)[:5]))}); {again}") from None
    return study


def _found(error: Any) -> str:
    """A fault of a file that pydantic has found, in words."""
    place = ".".join(map(str, error["loc"]))
    return f"{place} missing" if error["type"] == "missing" else f"{place}: {error['msg']}"


def write_study(folder: Path, study: Mapping[str, Any]) -> None:
    text = json.dumps(sealed(study), indent=1, allow_nan=False)
    write_atomically(folder / STUDY, lambda path: path.write_text(text + "\n"), "study")
    home(folder).put(folder / STUDY)


def advice(fault: OSError) -> str:
    """What to do about a file that could not be made, written or locked."""
    if fault.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP):
        return (
            "its file system has no locks, and nothing would keep a second command off the study; have it mounted with locks "
            "(Lustre: -o flock; NFS: version 4, or lockd), or name another --storage"
        )
    if fault.errno in (errno.EMFILE, errno.ENFILE):
        return "raise the limit of open files (ulimit -n), or end what holds so many"
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return "make room, or name another --storage"
    if fault.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "change its permissions, or name another --storage"
    return "name another --storage"


def check_writable(folder: Path) -> None:
    """RequestError if the study folder cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.write_text("")
        probe.unlink()
        home(folder).check()
    except StorageFault as fault:
        raise RequestError(str(fault)) from None
    except OSError as fault:
        raise RequestError(
            f"--storage must be a folder that can be written, got {folder.parent} ({os.strerror(fault.errno or 0)}); {advice(fault)}"
        ) from None


def takes_files(folder: Path) -> bool:
    """Whether this machine can write to the study's folder, and there is room for more than a name."""
    probe = folder / f".probe.{os.getpid()}"
    try:
        with open(probe, "wb") as file:
            file.write(bytes(1 << 20))
            os.fsync(file.fileno())
        probe.unlink()
        home(folder).check()
    except OSError:
        with suppress(OSError):
            probe.unlink()
        return False
    return True


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The study in this folder, for this process alone. A process that is forked off does not hold it (filelock sees to that): it may
    outlive the command. RequestError, by its cause, if it cannot be had."""
    path = folder / LOCK
    # filelock would go over to a file that stays behind when its holder dies on another machine: better no study than one that seems busy
    lock = FileLock(path, timeout=0.5, fallback_to_soft=False)  # `ls` and `watch` look at it for an instant
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise RequestError(
            f"{home(folder)}: another search is at work on this study; wait for it, or give this one another --name"
        ) from None
    except OSError as fault:
        raise RequestError(f"{path} could not be locked ({os.strerror(fault.errno or 0)}): {advice(fault)}") from None
    try:
        with home(folder).held():
            yield
    finally:
        lock.release()


@dataclass(frozen=True)
class External:
    """A further test set, of another hospital or stain: never trained on, never chosen by."""

    source: str
    pack: Pack
    judged: np.ndarray | None = None  # positions of its images that a run is judged on; None: all

    def json(self, slug: str) -> dict[str, Any]:
        pack = self.pack
        labels = pack.labels if self.judged is None else pack.labels[self.judged]
        counts = dict(zip(pack.classes, np.bincount(labels, minlength=len(pack.classes)).tolist(), strict=True))
        return {
            "slug": slug, "source": self.source, "hash": pack.hash, "images": len(labels), "counts": counts, "notes": list(pack.notes),
        }  # fmt: skip


def external_names(study: Mapping[str, Any]) -> tuple[str, ...]:
    """The external sets of a study, as they are called in `external/` and in metrics."""
    return tuple(known["slug"] for known in study["data"].get("external", []))


def external_packs(folder: Path, names: Iterable[str], verify: bool = False) -> dict[str, Pack]:
    """The external sets of a study by name."""
    return {name: load_pack(folder / "external" / name, verify) for name in names}


def name_external(folders: Sequence[Path]) -> dict[str, Path]:
    """External sets by a word that may stand in a metric's name. RequestError where two have one word."""
    named: dict[str, Path] = {}
    for folder in folders:
        slug = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_") or "set"
        if slug in named:
            raise RequestError(f"external sets must differ in the names of their folders, got {named[slug]} and {folder}; rename one")
        named[slug] = folder
    return named


def code_of(folder: Path) -> str:
    """The fingerprint that the keys of a study in this folder are made with: that of its first command, or, of a new one, that of the code
    that runs; '' in studies of before it was kept."""
    study = read_study(folder)
    return code.fingerprint() if study is None else str(study.get("code", ""))


def store_external(folder: Path, external: Mapping[str, External]) -> None:
    """Pack external sets into the study; those that it has stay, unless they are damaged."""
    for slug, other in external.items():
        stored = folder / "external" / slug
        if stored.exists():
            try:
                if load_pack(stored, verify=True).hash == other.pack.hash:
                    continue
            except RequestError:
                pass
            aside = folder / "external" / f".{slug}.damaged"
            shutil.rmtree(aside, ignore_errors=True)
            stored.rename(aside)
        save_pack(other.pack, stored)


def store_data(folder: Path, pack: Pack, parts: Mapping[str, Mapping[str, np.ndarray]]) -> Pack:
    """Pack the images into the study, one memory-mapped file that all runs of a node share through the page cache: no copy for each
    process, nothing that must fit into /dev/shm as Ray's object store must, and a study that can be read again without its source.
    `parts`: split name -> part -> indices; each is written as splits/<name>.csv."""
    for name, split in parts.items():  # before the images, which stand for all of it when a command that died is repeated
        of = {int(index): part for part, indices in split.items() for index in indices}
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["file", "label", "part"])
        rows.writerows([pack.files[index], pack.classes[pack.labels[index]], of[index]] for index in sorted(of))
        content = text.getvalue()
        write_atomically(folder / "splits" / f"{name}.csv", lambda path: path.write_text(content), "splits")  # noqa: B023 (called before the next turn)
    save_pack(pack, folder / "data")
    return load_pack(folder / "data")
