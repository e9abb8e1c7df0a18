"""Where a command's time goes before its first step and after its last. In: words of the command. Out: seconds from its start, per mark.

`python -m benchmarks timeline [WORDS ...]` (default: supcam --preset quick --tables none --trials 1 --repeats 1): the command as a user types it,
twice into fresh studies, the second one counts (files of the libraries are in memory by then). Nothing is measured from inside: a mark is the
moment at which a file of the study says so, looked for every 20 ms. The aims: at most 12 s to the first step, at most 5 s after the last."""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

Mark = tuple[str, Callable[[Path], bool]]
STEPS = ["supcam", "--preset", "quick", "--tables", "none", "--trials", "1", "--repeats", "1"]


def said(folder: Path, pattern: str) -> int:
    """Lines of any run's epochs.log that match."""
    return sum(len(re.findall(pattern, log.read_text(), re.MULTILINE)) for log in folder.glob("checkpoints/*/epochs.log"))


MARKS: tuple[Mark, ...] = (
    ("request read, study begun", lambda folder: (folder / "study.json").exists()),
    ("images read and split", lambda folder: any(folder.glob("splits/*"))),
    ("Ray is up, a process began the first run", lambda folder: said(folder, "^life") > 0),
    ("first epoch ended", lambda folder: said(folder, "^epoch") > 0),
    ("first record written", lambda folder: (folder / "records.jsonl").exists() and (folder / "records.jsonl").stat().st_size > 0),
    ("best checkpoint exported", lambda folder: (folder / "best" / "README.md").exists()),
)


def watch(words: list[str], storage: Path) -> list[tuple[str, float]]:
    """The command, and (mark, seconds from its start) in the order of their coming; the last epoch's end is the last that was seen."""
    folder = storage / "timed"
    command = [sys.executable, "-m", "search", *words, "--storage", str(storage), "--name", folder.name]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seen: dict[str, float] = {}
    epochs, last = 0, 0.0
    reports: list[tuple[float, float]] = []  # of each page: its file's time, when it was seen
    while process.poll() is None:
        now = time.perf_counter() - began
        for name, holds in MARKS:
            if name not in seen and holds(folder):
                seen[name] = now
        if (count := said(folder, "^epoch")) != epochs:
            epochs, last = count, now
        page = folder / "report.html"
        if page.exists() and (not reports or page.stat().st_mtime != reports[-1][0]):
            reports.append((page.stat().st_mtime, now))
        time.sleep(0.02)
    end = time.perf_counter() - began
    if process.returncode:
        sys.exit(process.stderr.read().decode() if process.stderr else "failed")
    whole = next(at for _, at in reports if at > seen["best checkpoint exported"])  # the next ones say what else is known: of copies
    ends = (
        ("last epoch ended", last),
        ("report of all runs written", whole),
        ("last report written", reports[-1][1]),
        ("command ended", end),
    )
    return sorted([*seen.items(), *ends], key=lambda mark: mark[1])


def main() -> None:
    words = sys.argv[1:] or STEPS
    with tempfile.TemporaryDirectory() as cold, tempfile.TemporaryDirectory() as warm:
        watch(words, Path(cold))
        marks = watch(words, Path(warm))
    print(f"python -m search {' '.join(words)}\n\n| mark | s from the start | s since the mark before |\n|---|---|---|")
    before = 0.0
    for name, at in marks:
        print(f"| {name} | {at:.1f} | {at - before:.1f} |")
        before = at
    at = dict(marks)
    step = at["first epoch ended"]
    print(f"\nto the end of the first epoch {step:.1f} s; from the last epoch to the report {at['report of all runs written'] - at['last epoch ended']:.1f} s, "
          f"to the end {at['command ended'] - at['last epoch ended']:.1f} s")  # fmt: skip


if __name__ == "__main__":
    main()
