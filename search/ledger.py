"""The ledger: one row per ended run, and the only writer of it.
Comes in: records, and the points that trials were asked for. Goes out: `records.jsonl` and `trials.jsonl`, appended and flushed to disk before
anything else is told. Exists because these two, and no state of Ray or Optuna, are the truth of a study. What is bulky in a record (its
history) stays on the disk: 2,000 runs of 500 epochs are 550 MB in memory."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainables.parts.checkpoint import storage, write_atomically
from trainables.parts.errors import RequestError
from trainables.parts.failpoints import armed, die, failpoint

SCHEMA = 1
STOP = ".stop"  # while this file stands in a study's folder, its runs save a checkpoint after the epoch they are in, and end
BULK = ("history", "predictions", "lives")  # of a record; on the disk alone


class _Row(BaseModel):
    """What a line of either file must have; what else stands in it is kept as it is."""

    model_config = ConfigDict(strict=True)

    schema_: Literal[1] = Field(alias="schema")


class Record(_Row):
    """An ended run, as far as whoever reads it relies on it."""

    key: str
    status: Literal["completed", "pruned", "diverged", "failed"]
    seed: int
    params: dict[str, Any]
    config_hash: str
    data_hash: str
    metrics: dict[str, float]
    arms: list[str]
    stage_hashes: dict[str, str]
    history: list[Any]
    trial: int | None
    error: dict[str, Any] | None


class Pruned(BaseModel):
    """What early stopping had seen of a trial. It stands beside the record, which is another one once a table has had the run's end trained."""

    scores: list[float]
    rungs: dict[str, float]


class Asked(_Row):
    """A trial that was asked for. search: '' for the study's own, else the retuned arm's."""

    search: str
    trial: int
    point: dict[str, Any]
    pruned: Pruned | None = None  # where early stopping ended it


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


SEAL = re.compile(rb', "check": "([0-9a-f]{16})"\}$')


def seal(line: bytes) -> bytes:
    """A line with a check sum over it as its last value: a flipped bit may leave JSON that is whole and wrong."""
    return line[:-1] + b', "check": "' + hashlib.sha256(line).hexdigest()[:16].encode() + b'"}'


def _row_of(line: bytes, shape: type[_Row]) -> tuple[dict[str, Any], bool]:
    """(a line's values without its check sum, whether it had one). ValueError if it is not as it was written, or not of that shape."""
    line = line.rstrip(b"\n")
    found = SEAL.search(line, max(0, len(line) - 40))
    if found is not None:
        line = line[: found.start()] + b"}"
        if hashlib.sha256(line).hexdigest()[:16].encode() != found[1]:
            raise ValueError("its check sum is not that of its content")
    try:
        values = orjson.loads(line)  # in a quarter of json's time
    except orjson.JSONDecodeError:
        values = json.loads(line)  # which takes a file's name that is no UTF-8, as we wrote it
    try:
        shape.model_validate(values)
    except ValidationError as fault:
        first = fault.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from None
    return values, found is not None


def record_of(line: bytes) -> dict[str, Any]:
    """The record that a line holds, without its check sum. ValueError if it holds none of this schema, or another one than was written; a
    line without check sum is taken as it is where it is of a version that wrote none."""
    record, sealed = _row_of(line, Record)
    if not sealed and ("check" in record or "lives" in record):
        raise ValueError("a record without its check sum")
    return record


def _asked_of(line: bytes) -> dict[str, Any]:
    asked, sealed = _row_of(line, Asked)
    if not sealed:
        raise ValueError("a trial without its check sum")
    return asked


Span = tuple[int, int]  # where a line begins, and how long it is


class _Lines:
    """A file of sealed lines that only grows. A torn last line (a crash while it was written) and a damaged one elsewhere are set aside in a file
    of their own when the study is next at work."""

    def __init__(self, path: Path, parse: Callable[[bytes], dict[str, Any]], what: str, then: str, point: str | None) -> None:
        self.path, self.parse, self.what, self.then, self.point = path, parse, what, then, point
        self._file: BinaryIO | None = None

    def open(self) -> None:
        with storage(self.path):
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (see `close`)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def every(self) -> Iterator[tuple[Span, dict[str, Any] | None]]:
        """Each line's place and values; None for one that is damaged."""
        if not self.path.exists():
            return
        start = 0
        with open(self.path, "rb") as file:
            for line in file:
                span, start = (start, len(line)), start + len(line)
                if line.strip():
                    try:
                        yield span, self.parse(line)
                    except ValueError:
                        yield span, None

    def take(self, take: Callable[[dict[str, Any], Span], None], repair: bool) -> str | None:
        """Hand each line to `take`; words where some are damaged. repair: set these aside."""
        bad = 0
        for span, values in self.every():
            if values is None:
                bad += 1
            else:
                take(values, span)
        if repair and (bad or self._torn()):
            self._mend()
            for span, values in self.every():  # they stand elsewhere now
                if values is not None:
                    take(values, span)
        if not bad:
            return None
        what = f"were set aside in {self.aside.name}; {self.then}"
        if not repair:
            what = "are left where they are; the study's command sets them aside and goes on without them"
        return f"{self.path.name}: {bad} line(s) that are no {self.what} (a torn write, or edited?) {what}"

    @property
    def aside(self) -> Path:
        return self.path.with_suffix(".torn")

    def _torn(self) -> bool:
        """Whether the last line has no end: the next one would be appended to it."""
        if not self.path.exists() or not self.path.stat().st_size:
            return False
        with open(self.path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"

    def _mend(self) -> None:
        good: list[Span] = []
        bad: list[Span] = []
        for span, values in self.every():
            (good if values is not None else bad).append(span)
        if bad:
            with storage(self.path), open(self.aside, "ab") as aside:
                for span in bad:
                    aside.write(self.at(span).rstrip(b"\n") + b"\n")
                aside.flush()
                os.fsync(aside.fileno())

        def write(path: Path) -> None:
            with open(path, "wb") as file:
                for span in good:
                    file.write(self.at(span).rstrip(b"\n") + b"\n")

        write_atomically(self.path, write)

    def at(self, span: Span) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(span[0])
            return file.read(span[1])

    def append(self, values: Mapping[str, Any]) -> Span:
        """Write one line, force it to disk, and say where it stands. ValueError if a number in it is not finite. StorageFault where the disk does
        not take it whole; the file is then as it was."""
        if self._file is None:
            raise RuntimeError("the ledger is not open")
        line = seal(json.dumps(dict(values), allow_nan=False).encode()) + b"\n"
        self._pass("append")
        before = os.fstat(self._file.fileno()).st_size
        with storage(self.path):
            try:
                if self.point is not None and armed(f"{self.point}.half"):
                    self._file.write(line[: len(line) // 2])
                    die(f"{self.point}.half")
                rest = memoryview(line)
                while rest:
                    rest = rest[self._file.write(rest) :]
                self._pass("written")
                os.fsync(self._file.fileno())
            except OSError:
                os.ftruncate(self._file.fileno(), before)  # half a line would swallow the next one
                raise
        self._pass("synced")
        return before, len(line)

    def _pass(self, moment: str) -> None:
        if self.point is not None:
            failpoint(f"{self.point}.{moment}")


class Ledger:
    """The records and trials of one study, written while it is used as a context, by the process that holds the study (`study.held`).

    `records`: the record of each key that stands, see `_take`, without what is bulky. `asked`: the point of each trial that was asked for, by
    search and number. `pruned`: what was seen of those that were stopped early, see `Pruned`. `warnings`: what was damaged; a run can be done again, but not guessed."""

    def __init__(self, folder: Path) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.asked: dict[tuple[str, int], dict[str, Any]] = {}
        self.pruned: dict[tuple[str, int], dict[str, Any]] = {}
        self.warnings: list[str] = []
        self.path = folder / "records.jsonl"
        self._records = _Lines(self.path, record_of, "records", "their runs are done again", "ledger")
        self._trials = _Lines(folder / "trials.jsonl", _asked_of, "trials", "what they asked for is asked anew", None)
        self._places: dict[str, Span] = {}  # of the lines that stand

    def __enter__(self) -> "Ledger":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.read(repair=True)
        self._records.open()
        self._trials.open()
        return self

    def __exit__(self, *exception: object) -> None:
        self._records.close()
        self._trials.close()

    def read(self, repair: bool = False) -> None:
        """Read what is on disk; with `repair`, rewrite the files without lines that are damaged."""
        self.records.clear()
        self.asked.clear()
        self.pruned.clear()
        for lines, take in ((self._records, self._take), (self._trials, self._note)):
            words = lines.take(take, repair)
            if words is not None:
                self.warnings.append(words)

    def every(self) -> Iterator[dict[str, Any]]:
        """Each whole record on the disk, in order; several of one key where a run was done more than once."""
        return (record for _, record in self._records.every() if record is not None)

    def whole(self, key: str) -> dict[str, Any]:
        """All of a key's record, from the disk. KeyError where there is none, RequestError if it was damaged meanwhile."""
        try:
            record = record_of(self._records.at(self._places[key]))
            if record["key"] != key:
                raise ValueError("another record stands there")
        except (ValueError, FileNotFoundError) as fault:
            raise RequestError(f"{self.path} was changed while it was in use ({fault}); repeat the command") from None
        return record

    def history(self, key: str) -> list[dict[str, Any]]:
        """The epochs of a run, from the disk."""
        return list(self.whole(key)["history"])

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record, as `_Lines.append` does it. A run with a number that is not finite is `diverged`, with words."""
        Record.model_validate(record)
        self._take(dict(record), self._records.append(record))

    def ask(self, search: str, trial: int, point: Mapping[str, Any]) -> None:
        """Write what a trial was asked for, before a run of it may start. search: '' for the study's own, else the retuned arm's."""
        if self.asked.get((search, trial)) != dict(point):
            asked = {"schema": SCHEMA, "search": search, "trial": trial, "point": dict(point)}
            self._note(asked, self._trials.append(asked))

    def prune(self, search: str, trial: int, point: Mapping[str, Any], scores: Sequence[float], rungs: Mapping[str, float]) -> None:
        """Write that early stopping has ended a trial, once its record stands."""
        seen = {"scores": list(scores), "rungs": dict(rungs)}
        if self.pruned.get((search, trial)) != seen:
            row = {"schema": SCHEMA, "search": search, "trial": trial, "point": dict(point), "pruned": seen}
            self._note(row, self._trials.append(row))

    def _take(self, record: dict[str, Any], span: Span) -> None:
        """The newest record of a key stands, but what was completed stays so: what can fail after it is the evaluation on the test part."""
        old = self.records.get(record["key"])
        if old is None or old["status"] != "completed" or record["status"] == "completed":
            self.records[record["key"]] = {name: value for name, value in record.items() if name not in BULK}
            self._places[record["key"]] = span

    def _note(self, asked: dict[str, Any], span: Span) -> None:
        of = asked["search"], asked["trial"]
        self.asked[of] = asked["point"]
        if asked.get("pruned"):
            self.pruned[of] = asked["pruned"]
