"""How long tables, figures and report of a large made study take, and how much memory. In: nothing. Out: seconds, MiB, and the growth.

`python benchmarks/report.py [RECORDS ...]`: each size in a process of its own, which is what a user starts; the last line is the ratio to the
limits, 10 s and 1 GB for 100,000 records on 2 cores. Making the study is not counted. `light` is the report that is rewritten while a study
runs; `full` also computes the embedding map, of which this study has none."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parents[1]
LIMIT_SECONDS, LIMIT_MIB = 10.0, 1e9 / 2**20


def make(folder: Path, count: int) -> None:
    """A study of `count` records: two tables of 3 seeds, the rest trials with parameters, metrics, confusion matrix and 8 epochs of history."""
    sys.path.insert(0, str(HERE / "tests" / "analysis"))
    import fake

    asked, records = fake.study_and_records(seeds=3, trials=0)
    folder.mkdir()
    (folder / "study.json").write_text(json.dumps({**asked, "trials": count}))
    with (folder / "records.jsonl").open("w") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")
        for trial in range(count - len(records)):
            overrides = {
                "margin": 0.05 + 0.45 * (trial % 997) / 997,
                "temperature": 0.02 + trial / count,
                "form": ("self_margin", "cluster_margin")[trial % 2],
            }
            accuracy = 0.5 + 0.3 * ((trial * 7919) % 1009) / 1009
            file.write(
                json.dumps(fake.record(overrides, 0, accuracy, status=("completed", "pruned")[trial % 3 == 2], trial=trial, test=False))
                + "\n"
            )


def measure(folder: Path, figures: str) -> None:
    """Writes the report and prints seconds and MiB of this process, imports included."""
    began = time.perf_counter()
    sys.path.insert(0, str(HERE))
    import analysis

    analysis.write_report(folder, figures=figures)
    print(json.dumps([time.perf_counter() - began, time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def main(sizes: list[int]) -> None:
    """One line per size and kind of report, then for each kind the growth and the ratio to the limits."""
    found: dict[str, list[tuple[int, float, float]]] = {"light": [], "full": []}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            study = Path(folder) / "study"
            make(study, size)
            megabytes = (study / "records.jsonl").stat().st_size / 1e6
            for figures, lines in found.items():
                command = [sys.executable, __file__, "--measure", str(study), figures]
                seconds, cpu, mib = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                lines.append((size, seconds, mib))
                page = (study / "report.html").stat().st_size / 1e6
                took = f"{seconds:6.2f} s ({cpu:.2f} s of processor), {mib:5.0f} MiB"
                print(f"{size:>8} records ({megabytes:.0f} MB), {figures:>5}: {took}, report.html {page:.2f} MB", flush=True)
    for figures, lines in found.items():
        (before, then, was), (size, seconds, mib) = lines[0], lines[-1]
        if len(lines) > 1:
            growth = f"{1e6 * (seconds - then) / (size - before):.0f} µs and {2**10 * (mib - was) / (size - before):.2f} KiB per record"
            print(f"{figures}: growth {growth}")
        print(f"{figures}: {seconds / LIMIT_SECONDS:.2f} of {LIMIT_SECONDS:.0f} s, {mib / LIMIT_MIB:.2f} of 1 GB at {size} records")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]), sys.argv[3])
    else:
        main([int(a) for a in sys.argv[1:]] or [1_000, 10_000, 100_000])
