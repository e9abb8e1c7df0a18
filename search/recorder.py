"""The ledger: one row per ended run, and the only writer of it.
Comes in: records. Goes out: `records.jsonl`, appended and flushed to disk before anything else is told that the run has ended.
Exists because it, and no state of Ray or Optuna, is the truth of a study."""

import fcntl
import hashlib
import json
import os
import re
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import UnionType
from typing import Any, BinaryIO, TextIO

from trainables.parts.checkpoint import storage, write_atomically
from trainables.parts.errors import RequestError
from trainables.parts.failpoints import armed, die, failpoint

SCHEMA = 1
STOP = ".stop"  # while this file stands in a study's folder, its runs save a checkpoint after the epoch they are in, and end
FINAL = ("completed", "pruned", "diverged", "failed")


NEEDED: dict[str, type | UnionType] = {  # of a record, by whoever reads it
    "key": str, "seed": int, "params": dict, "config_hash": str, "data_hash": str, "metrics": dict, "arms": list, "stage_hashes": dict,
    "history": list, "trial": int | None, "error": dict | None,
}  # fmt: skip
_ABSENT = object()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


SEAL = re.compile(rb', "check": "([0-9a-f]{16})"\}$')


def seal(line: bytes) -> bytes:
    """A record's line with a check sum over it as its last value: a flipped bit may leave JSON that is whole and wrong."""
    return line[:-1] + b', "check": "' + hashlib.sha256(line).hexdigest()[:16].encode() + b'"}'


def record_of(line: bytes) -> dict[str, Any]:
    """The record that a line holds, without its check sum. ValueError if it holds none of this schema, or another one than was written; a
    line without check sum is taken as it is where it is of a version that wrote none."""
    found = SEAL.search(line)
    if found is not None:
        line = line[: found.start()] + b"}"
        if hashlib.sha256(line).hexdigest()[:16].encode() != found[1]:
            raise ValueError("its check sum is not that of its content")
    record = json.loads(line)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or record.get("status") not in FINAL:
        raise ValueError("not a record of this schema")
    if found is None and ("check" in record or "lives" in record):
        raise ValueError("a record without its check sum")
    for name, kind in NEEDED.items():
        if not isinstance(record.get(name, _ABSENT), kind):
            raise ValueError(f"{name} is missing, or is not what it should be")
    return record


_held: "weakref.WeakSet[Ledger]" = weakref.WeakSet()


def _leave_locks() -> None:
    """In a process that was forked off (for figures): the lock would live as long as it, though the command has died."""
    for ledger in list(_held):
        ledger.__exit__()


os.register_at_fork(after_in_child=_leave_locks)


class Ledger:
    """records.jsonl of one study, open for this process alone while it is used as a context.

    `records` holds the record of each key that stands, see `_take`. A torn last line (a crash while it was written) is set aside in `records.torn` with a
    warning; a damaged line elsewhere likewise, for the run can be done again but not guessed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "records.jsonl"
        self.records: dict[str, dict[str, Any]] = {}
        self.warnings: list[str] = []
        self._file: BinaryIO | None = None
        self._lock: TextIO | None = None

    def __enter__(self) -> "Ledger":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path.with_name(".lock"), "w")
        _held.add(self)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise RequestError(
                f"{self.path.parent}: another search is at work on this study; wait for it, or give this one another --name"
            ) from None
        try:
            self.read(repair=True)
            with storage(self.path):
                self._file = open(self.path, "ab", buffering=0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        _held.discard(self)
        for file in (self._file, self._lock):
            if file is not None:
                file.close()
        self._file = self._lock = None

    def read(self, repair: bool = False) -> None:
        """Read what is on disk; with `repair`, rewrite the file without lines that are no records."""
        self.records.clear()
        if not self.path.exists():
            return
        good, bad = [], []
        for line in self.path.read_bytes().split(b"\n"):
            if not line.strip():
                continue
            try:
                self._take(record_of(line))
                good.append(line)
            except (ValueError, RecursionError):
                bad.append(line)
        torn = bool(good) and not self.path.read_bytes().endswith(b"\n")
        if bad:
            what = "were set aside in records.torn; their runs are done again"
            if not repair:
                what = "are left where they are; the study's command sets them aside and does their runs again"
            self.warnings.append(f"{self.path.name}: {len(bad)} line(s) that are no records (a torn write, or edited?) {what}")
        if repair and (bad or torn):
            if bad:
                with storage(self.path), open(self.path.with_name("records.torn"), "ab") as aside:
                    aside.write(b"".join(line + b"\n" for line in bad))
                    aside.flush()
                    os.fsync(aside.fileno())
            write_atomically(self.path, lambda path: path.write_bytes(b"".join(line + b"\n" for line in good)))

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record and force it to disk. ValueError if a number in it is not finite: such a run is `diverged`, with words.
        StorageFault where the disk does not take it whole; the file is then as it was."""
        if self._file is None:
            raise RuntimeError("the ledger is not open")
        line = seal(json.dumps(dict(record), allow_nan=False).encode()) + b"\n"
        failpoint("ledger.append")
        before = os.fstat(self._file.fileno()).st_size
        with storage(self.path):
            try:
                if armed("ledger.half"):
                    self._file.write(line[: len(line) // 2])
                    die("ledger.half")
                rest = memoryview(line)
                while rest:
                    rest = rest[self._file.write(rest) :]
                failpoint("ledger.written")
                os.fsync(self._file.fileno())
            except OSError:
                os.ftruncate(self._file.fileno(), before)  # half a line would swallow the next one
                raise
        failpoint("ledger.synced")
        self._take(dict(record))

    def _take(self, record: dict[str, Any]) -> None:
        """The newest record of a key stands, but what was completed stays so: what can fail after it is the evaluation on the test part."""
        old = self.records.get(record["key"])
        if old is None or old["status"] != "completed" or record["status"] == "completed":
            self.records[record["key"]] = record
