"""The ledger: one row per ended run, and the only writer of it.
Comes in: records, and the points that trials were asked for. Goes out: `records.jsonl` and `trials.jsonl`, appended and flushed to disk
before anything else is told. Exists because these two, and no state of Ray or Optuna, are the truth of a study. What is bulky in a record
(its history) stays on the disk: 2,000 runs of 500 epochs are 550 MB in memory."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from search.home import home
from search.lines import Lines, Row, Span, row_of
from trainables.parts.errors import RequestError

SCHEMA = 1
BULK = ("history", "predictions", "lives")  # of a record; on the disk alone


class Record(Row):
    """An ended run, as far as whoever reads it relies on it."""

    key: str
    status: Literal["completed", "pruned", "diverged", "collapsed", "failed"]
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
    """What early stopping had seen of a trial. It stands beside the record, which is another one once a table has had the run's end
    trained."""

    scores: list[float]
    rungs: dict[str, float]


class Asked(Row):
    """A trial that was asked for. search: '' for the study's own, else the retuned arm's."""

    search: str
    trial: int
    point: dict[str, Any]
    pruned: Pruned | None = None  # where early stopping ended it


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def record_of(line: bytes) -> dict[str, Any]:
    """The record that a line holds, without its check sum. ValueError if it holds none of this schema, or another one than was written; a
    line without check sum is taken as it is where it is of a version that wrote none."""
    record, sealed = row_of(line, Record)
    if not sealed and ("check" in record or "lives" in record):
        raise ValueError("a record without its check sum")
    return record


def _asked_of(line: bytes) -> dict[str, Any]:
    asked, sealed = row_of(line, Asked)
    if not sealed:
        raise ValueError("a trial without its check sum")
    return asked


class Ledger:
    """The records and trials of one study, written while it is used as a context, by the process that holds the study (`study.held`).

    `records`: the record of each key that stands, see `_take`, without what is bulky. `asked`: the point of each trial that was asked for,
    by search and number. `pruned`: what was seen of those that were stopped early, see `Pruned`. `warnings`: what was damaged; a run can be
    done again, but not guessed."""

    def __init__(self, folder: Path) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.asked: dict[tuple[str, int], dict[str, Any]] = {}
        self.pruned: dict[tuple[str, int], dict[str, Any]] = {}
        self.warnings: list[str] = []
        self.path = folder / "records.jsonl"
        keep = partial(home(folder).append, "records"), partial(home(folder).append, "trials")
        self._records = Lines(self.path, record_of, "records", "their runs are done again", "ledger", keep[0])
        self._trials = Lines(folder / "trials.jsonl", _asked_of, "trials", "what they asked for is asked anew", None, keep[1])
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
        """Write one record, as `Lines.append` does it. A run with a number that is not finite is `diverged`, with words."""
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
