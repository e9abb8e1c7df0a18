"""A file of sealed lines that only grows.
Comes in: rows, plain values. Goes out: lines, each with a check sum, on the disk before anything else is done; and the rows that were read
again, the damaged ones set aside. Exists because a crash tears the last line, and a disk may change any."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainables.parts.checkpoint import storage, write_atomically
from trainables.parts.failpoints import armed, die, failpoint


class Row(BaseModel):
    """What a line of either file must have; what else stands in it is kept as it is."""

    model_config = ConfigDict(strict=True)

    schema_: Literal[1] = Field(alias="schema")


SEAL = re.compile(rb', "check": "([0-9a-f]{16})"\}$')


def seal(line: bytes) -> bytes:
    """A line with a check sum over it as its last value: a flipped bit may leave JSON that is whole and wrong."""
    return line[:-1] + b', "check": "' + hashlib.sha256(line).hexdigest()[:16].encode() + b'"}'


def row_of(line: bytes, shape: type[Row]) -> tuple[dict[str, Any], bool]:
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


Span = tuple[int, int]  # where a line begins, and how long it is


class Lines:
    """A file of sealed lines that only grows. A torn last line (a crash while it was written) and a damaged one elsewhere are set aside in
    a file of their own when the study is next at work."""

    def __init__(
        self, path: Path, parse: Callable[[bytes], dict[str, Any]], what: str, then: str, point: str | None, keep: Callable[[bytes], None]
    ) -> None:
        """keep: told of each line before it is written here; where it raises, the line is not."""
        self.path, self.parse, self.what, self.then, self.point, self.keep = path, parse, what, then, point, keep
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
        """Write one line, force it to disk, and say where it stands. ValueError if a number in it is not finite. StorageFault where the
        disk does not take it whole; the file is then as it was."""
        if self._file is None:
            raise RuntimeError("the ledger is not open")
        line = seal(json.dumps(dict(values), allow_nan=False).encode()) + b"\n"
        self._pass("append")
        self.keep(line)
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
