"""What the engine itself costs: seconds a run beyond its training, for plans of 100 and of 10,000 runs. In: nothing. Out: seconds, ratios.

`python benchmarks/overhead.py [--runs 100 10000] [--trials 100 1000] [--ray 100]`: a procedure that trains nothing, driven through the
Coordinator by hand (no worker, so all of the time is the engine's: plan, decision, record, Optuna, progress); and through Ray with reused
processes. The aims: 0.1 s a run with Ray, and 10,000 runs within 1.2 of 100 a run."""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from optuna.distributions import FloatDistribution

from search import coordinator as coordinating
from search.coordinator import Coordinator
from search.plan import make_plan
from search.recorder import Ledger
from search.registry import Entry
from search.sampling import Strategy
from search_spaces._declare import Arm, Dimension, Preset, Study, Table
from trainables.parts.execution import RESULT, Outcome
from trainables.parts.procedure import Procedure, Stage

END = {"end": "completed", "started": "s", "ended": "e", "worker": "w:1", "device": "cpu", "peak_memory_bytes": 1}


@dataclass(frozen=True)
class Nothing:
    """A configuration of which every value is another run."""

    x: float = 0.5
    number: int = 0
    epochs: int = 1
    batch: int = 1


def entry(arms: int) -> Entry:
    stage = Stage("only", "epochs", "batch", ("x", "number", "epochs", "batch"), build=None)  # type: ignore[arg-type]
    procedure = Procedure(
        name="nothing", config=Nothing, stages=(stage,), canonical=lambda config: config, faults=lambda config, pack, parts: [],
        synthesize=None, read=None, parts=None, evaluate=None, timm_settings=None, read_images=None, predict=None,
    )  # type: ignore[arg-type]  # fmt: skip
    table = Table("1", "Nothing", "", "0", tuple(Arm(str(number), {"number": number}) for number in range(arms)))
    space = {"x": Dimension("x", FloatDistribution(0.0, 1.0))}
    study = Study("nothing", "val_accuracy", "val_accuracy", ("accuracy",), space, (table,), {"quick": Preset("", {}, 0, 10, ("1",))})
    return Entry(study, procedure)


def by_hand(runs: int, trials: int, sampler: str) -> float:
    """Seconds of processor a run, as far as the engine is concerned (the wait for the disk depends on the disk). 10 seeds to an arm; a look at the progress every 50 runs, as the live view takes one a second."""
    one = entry(max(1, runs // 10))
    plan = make_plan(
        one, preset="quick", data_hash="d", trials=trials, repeats=10 if runs else 1, tables=["1"] if runs else ["none"],
        strategy=Strategy(sampler=sampler, finalists=1),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name, Ledger(Path(name)) as ledger:
        folder = Path(name)
        began = time.process_time()
        c = Coordinator(one, plan, ledger, folder, name="n", data_hash="d", slots=8)
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
            c.row(active.run.key, END)
            count += 1
            if count % 50 == 0:
                c.progress()
        return (time.process_time() - began - prepared) / count


def through_ray(runs: int) -> float:
    """Seconds of wall time a run and process, of the toy procedure of the tests with epochs that take milliseconds; first and last runs of
    a worker, in which it starts and stops, are not counted."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from driving import Shell

    with tempfile.TemporaryDirectory() as home:
        shell = Shell(Path(home) / "home")
        words = ("toy", "ablate", "--tables", "1", "--arms", "plain", "--repeats", str(runs), "--set", "warm_epochs=1", "--set", "epochs=1")
        done = shell(*words, "--storage", home, "--name", "n", timeout=3600)
        if done.returncode:
            raise SystemExit(done.stderr)
        records = [json.loads(line) for line in (Path(home) / "n" / "records.jsonl").read_text().splitlines()]
    workers = {record["worker"] for record in records}
    times = sorted(datetime.fromisoformat(record["ended"]).timestamp() for record in records)
    skipped = len(workers) * 2
    wall = times[-1] - times[skipped]
    trained = sum(record["seconds"] for record in sorted(records, key=lambda record: record["ended"])[skipped + 1 :])
    return (wall * len(workers) - trained) / (len(records) - skipped - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="*", default=[100, 10_000])
    parser.add_argument("--trials", type=int, nargs="*", default=[100, 1_000])
    parser.add_argument("--ray", type=int, default=0)
    given = parser.parse_args()
    coordinating.commit = lambda: ("c" * 40, False)  # type: ignore[assignment]
    for title, sizes, ask in (
        ("runs of tables", given.runs, lambda size: by_hand(size, 0, "random")),
        ("trials, random", given.trials, lambda size: by_hand(0, size, "random")),
        ("trials, TPE", given.trials, lambda size: by_hand(0, size, "tpe")),
    ):
        found = []
        for size in sizes:
            found.append(ask(size))
            print(f"{title}: {size:>6} at {1000 * found[-1]:.2f} ms each beyond training", flush=True)
        if len(found) > 1:
            print(f"{title}: {sizes[-1]} / {sizes[0]} = {found[-1] / found[0]:.2f} a run")
    if given.ray:
        print(f"through Ray, reused processes: {through_ray(given.ray):.3f} s a run beyond training")


if __name__ == "__main__":
    main()
