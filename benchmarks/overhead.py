"""What the engine itself costs: seconds a run beyond its training, for plans of 100 and of 10,000 runs. In: nothing. Out: seconds, ratios.

`python benchmarks/overhead.py [--runs 100 10000] [--trials 100 1000] [--ray 100 10000]`: a procedure that trains nothing, driven through
the Director by hand (no worker, so all of the time is the engine's: plan, decision, record, Optuna, progress); and with `--ray` by the
command itself, through Ray with reused processes. The aims: 0.1 s a run with Ray, and 10,000 runs within 1.2 of 100 a run."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from pathlib import Path

import search_spaces
import trainables
from search import registry
from search.director import Director
from search.ledger import Ledger
from search.plan import make_plan
from search.registry import Entry
from search.retune import make_searches
from search.sampling import Strategy
from trainables.parts.execution import RESULT, Outcome

END = {"end": "completed", "started": "s", "ended": "e", "worker": "w:1", "device": "cpu", "peak_memory_bytes": 1}


HOME = Path(__file__).parent / "nothing"


def entry(arms: int) -> Entry:
    known = registry.load("nothing")
    return Entry(replace(known.study, tables=(import_module("search_spaces.nothing").table(arms),)), known.procedure)


def by_hand(runs: int, trials: int, sampler: str) -> float:
    """Seconds of processor a run, as far as the engine is concerned (the wait for the disk depends on the disk). 10 seeds to an arm; a look at the progress every 50 runs, as the live view takes one a second."""
    one = entry(max(1, runs // 10))
    plan = make_plan(
        one, preset="quick", data_hash="d", code="c", trials=trials, repeats=10 if runs else 1, tables=["1"] if runs else ["none"],
        strategy=Strategy(sampler=sampler, finalists=1),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name, Ledger(Path(name)) as ledger:
        folder = Path(name)
        began = time.process_time()
        c = Director(one, plan, ledger, folder, name="n", slots=8, searches=partial(make_searches, arms=()))
        prepared, count = 0.0, 0
        while not c.finished():
            active = c.next()
            assert active is not None
            score = active.run.config.x
            clock = time.process_time()  # what a worker would do is not counted
            place = folder / active.folder
            place.mkdir(parents=True)
            outcome = Outcome(metrics={"val_accuracy": score, "test_accuracy": score}, stage_seconds={"only": 0.0}, epochs={"only": 1})
            (place / RESULT).write_text(json.dumps(asdict(outcome)))
            prepared += time.process_time() - clock
            c.row(active.run.key, {"stage": "only", "epoch": 1, "loss": 0.0, "learning_rate": 0.0, "seconds": 0.0, "val_accuracy": score})
            c.row(active.run.key, END | {"outcome": asdict(outcome)})
            count += 1
            if count % 50 == 0:
                c.progress()
        return (time.process_time() - began - prepared) / count


def through_ray(runs: int) -> float:
    """Seconds by the clock that a run keeps its process, from the end of one to the end of the next: all of it is the engine's, Ray's and the
    disk's. The runs in which a process starts are not counted."""
    with tempfile.TemporaryDirectory() as storage:
        words = ["nothing", "ablate", "--tables", "1", "--repeats", str(max(1, runs // 100)), "--storage", storage, "--name", "n"]
        path = os.pathsep.join([str(HOME), str(HOME.parents[1])])
        done = subprocess.run(
            [sys.executable, "-m", "search", *words], cwd=storage, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(done.stderr)
        study, ended = Path(storage) / "n", defaultdict(list)
        for record in map(json.loads, (study / "records.jsonl").read_text().splitlines()):  # whose times are whole seconds
            ended[record["worker"]].append((study / "checkpoints" / record["key"] / RESULT).stat().st_mtime)
    gaps = [(max(times) - sorted(times)[1], len(times) - 2) for times in ended.values() if len(times) > 2]
    return sum(gap for gap, _ in gaps) / sum(count for _, count in gaps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="*", default=[100, 10_000])
    parser.add_argument("--trials", type=int, nargs="*", default=[100, 1_000])
    parser.add_argument("--ray", type=int, nargs="*", default=[])
    given = parser.parse_args()
    for package in (search_spaces, trainables):
        package.__path__.append(str(HOME / package.__name__))
    for title, sizes, ask in (
        ("runs of tables", given.runs, lambda size: by_hand(size, 0, "random")),
        ("trials, random", given.trials, lambda size: by_hand(0, size, "random")),
        ("trials, TPE", given.trials, lambda size: by_hand(0, size, "tpe")),
        ("runs through Ray, reused processes", given.ray, through_ray),
    ):
        found = []
        for size in sizes:
            found.append(ask(size))
            print(f"{title}: {size:>6} at {1000 * found[-1]:.2f} ms each beyond training", flush=True)
        if len(found) > 1:
            print(f"{title}: {sizes[-1]} / {sizes[0]} = {found[-1] / found[0]:.2f} a run")


if __name__ == "__main__":
    main()
