"""The toy procedure, a study driven by hand without Ray, and the command line as a user calls it."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from search.compose import compose_study
from search.director import Director
from search.ledger import Ledger
from search.plan import make_plan
from search.registry import Entry
from search.retune import make_searches, retunings
from search.stages import Stages
from search.study import External, code_of, external_names, external_packs, read_study, store_data, store_external, write_study
from trainables.parts.errors import Diverged
from trainables.parts.execution import MODEL, execute, parameters_of

ROOT = Path(__file__).parent.parent
TOY = Path(__file__).parent / "toy"
TIMM = {"trials": 2, "repeats": 1, "tables": ["1"], "overrides": {"network": "test_resnet"}}  # the request of `finished`
QUIET = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "200"}


def _module(path: Path, name: str):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def toy_entry() -> Entry:
    """The toy procedure, loaded beside the registry."""
    study = _module(TOY / "search_spaces" / "toy.py", "toy_space").STUDY
    return Entry(study, _module(TOY / "trainables" / "toy.py", "toy_training").PROCEDURE)


class Bench:
    """A study in a folder, driven by hand: `start` is what a new driver does, `train` what a worker does."""

    def __init__(self, entry: Entry, folder: Path, pack=None, **request) -> None:
        self.entry, self.folder, self.pack = entry, folder, pack
        self.external = {slug: External("elsewhere", other) for slug, other in request.pop("external", {}).items()}
        self.request = {"preset": "quick"} | request
        self.trained: list[str] = []
        self.ledgers: list[Ledger] = []

    def plan(self):
        data_hash = self.pack.hash if self.pack else "d" * 64
        return make_plan(self.entry, data_hash=data_hash, code=code_of(self.folder), **self.request)

    def open(self, *, with_search=True, retuned=False, judged=None, warm=None, **more) -> tuple[Ledger, Director]:
        """A ledger, held, and a director over it. retuned: each arm's search too."""
        plan = self.plan()
        self.close()
        ledger = Ledger(self.folder)
        self.ledgers.append(ledger.__enter__())
        if self.pack is not None:
            old = read_study(self.folder)
            study = compose_study(
                self.entry, plan, name="bench", preset="quick", source={"source": "synthetic"}, pack=self.pack, command="bench", old=old,
                external=self.external,
            )  # fmt: skip
            if old is None:
                store_data(self.folder, self.pack, {"split": self.entry.procedure.parts(plan.baseline, self.pack, 0)})
            store_external(self.folder, self.external)
            write_study(self.folder, study)
            more.setdefault("external", external_names(study))
        arms = retunings(self.entry, plan) if retuned else ()
        searches = partial(make_searches, arms=arms, own=with_search, warm=warm, judged=judged)
        return ledger, Director(self.entry, plan, ledger, self.folder, name="bench", searches=searches, **more)

    def close(self) -> None:
        """What the death of a driver does to its ledger."""
        while self.ledgers:
            self.ledgers.pop().__exit__()

    def train(self, director, active) -> None:
        """Run it in this process, as a worker would."""
        key, job = active.run.key, director.job(active)
        self.trained.append(key)

        def report(row):
            if director.row(key, row):
                raise StopIteration

        ending = {"end": "completed"}
        try:
            outcome = execute(
                self.entry.procedure, active.run.config, seed=active.run.seed, pack=self.pack, folder=self.folder / active.folder,
                store=Stages(self.folder), report=report, evaluate_test=job["evaluate_test"], checkpoint_seconds=0.0,
                external=external_packs(self.folder, job["external"]), code=job["key_code"],
            )  # fmt: skip
            ending |= {"outcome": asdict(outcome), "parameters": parameters_of(self.folder / active.folder / MODEL)}
        except StopIteration:
            return
        except Diverged as fault:
            ending = {"end": "diverged", "kind": "not_finite", "message": str(fault)}
        director.row(key, ending | END)

    def finish(self, director) -> None:
        while not director.finished():
            self.train(director, director.next())


END = {
    "started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:00:09+00:00", "worker": "host:1", "device": "cpu", "peak_memory_bytes": 1 << 20,
}  # fmt: skip


class Shell:
    """`python -m search ...` in a folder of its own, where the toy procedure lies, as a user's would."""

    def __init__(self, home: Path) -> None:
        for part in ("search_spaces", "trainables"):
            shutil.copytree(TOY / part, home / part, ignore=shutil.ignore_patterns("__pycache__"))
        self.home = home
        self.log = home / "epochs.log"

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.home), str(ROOT)])
        return os.environ | QUIET | {"PYTHONPATH": path, "TOY_LOG": str(self.log)}

    def start(self, *words: str, module: str = "search", **more) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-m", module, *words], cwd=self.home, env=self.environment, text=True, **more)

    def __call__(self, *words: str, module: str = "search", timeout: float = 600) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", module, *words], cwd=self.home, env=self.environment, text=True, capture_output=True, timeout=timeout, check=False
        )  # fmt: skip

    def epochs(self) -> list[tuple[str, ...]]:
        """(pid, stage, epoch, seed) of each epoch that any worker began."""
        return [tuple(line.split()) for line in self.log.read_text().splitlines()] if self.log.exists() else []


class Inside:
    """`python -m search toy ...` in this process and without Ray: runs train here, one after another, as a worker would train them."""

    def __init__(self, monkeypatch, toy, storage: Path) -> None:
        from search import api, exported, invariance, registry
        from search.signals import SIGNALS, first_saves
        from search.stopping import heed

        monkeypatch.setattr(invariance, "SECONDS", 0.0)  # copies of images are half of such a study's time
        for module in (registry, exported):
            monkeypatch.setattr(module, "load", lambda name: toy)
        monkeypatch.setattr(registry, "declared", lambda name: toy.study)
        monkeypatch.setattr(registry, "names", lambda: ["toy"])
        inside = self

        def carry_out(work, director):
            def say(words):
                work.console.print(words, markup=False)

            with (
                first_saves(director, say),
                heed(director, say, lambda: SIGNALS.last is not None or inside.most is not None) as work.asked,
            ):
                inside.drive(director)

        monkeypatch.setattr(api, "_carry_out", carry_out)
        self.toy, self.storage, self.trained = toy, storage, []
        self.study = storage / "toy-quick-synthetic"
        self.checkpoint_seconds = 0.0
        self.most: int | None = None  # runs of one command, after which it ends as at a limit of hours

    def __call__(self, *words: str) -> int:
        from search import cli

        return cli.main(["toy", *words, "--storage", str(self.storage)])

    def drive(self, director: Director) -> None:
        """What Tune does with the bridge of `search.tune`, without its processes."""
        from search.tune import _Scheduler, _Searcher

        searcher, scheduler = _Searcher(director, {}), _Scheduler(director, {})
        before = len(self.trained)
        while (job := searcher.suggest(str(len(self.trained)))) != _Searcher.FINISHED:
            if job is not None:
                self.work(director, scheduler, job)
            if self.most is not None and len(self.trained) - before >= self.most:
                director.stop()

    def work(self, director: Director, scheduler, job: dict) -> None:
        from types import SimpleNamespace

        from search.home import home
        from trainables.data.pack import load_pack
        from trainables.parts.errors import Interrupted, RequestError, StorageFault
        from trainables.parts.procedure import config_from

        def report(row):
            home(folder).put_run(folder / job["folder"])
            if scheduler.on_trial_result(None, SimpleNamespace(config=job), {"row": json.dumps(row)}) == "STOP":
                raise StopIteration

        folder = director.folder
        self.trained.append(job["key"])
        try:
            outcome = execute(
                self.toy.procedure, config_from(self.toy.procedure.config, job["config"]), seed=job["seed"], pack=load_pack(folder / "data"),
                folder=folder / job["folder"], store=Stages(folder), report=report, evaluate_test=job["evaluate_test"],
                checkpoint_seconds=self.checkpoint_seconds, stopping=home(folder).stopped, code=job["key_code"],
            )  # fmt: skip
            home(folder).put_run(folder / job["folder"])
            size = parameters_of(folder / job["folder"] / MODEL)
            ending = {"end": "completed", "outcome": asdict(outcome), "parameters": size}
        except StopIteration:
            return
        except Interrupted:
            ending = {"end": "stopped"}
        except StorageFault as fault:
            ending = {"end": "stopped", "message": str(fault)}
        except RequestError as fault:
            ending = {"end": "failed", "kind": "request", "message": str(fault)}
        except MemoryError as fault:
            ending = {"end": "failed", "kind": "out_of_memory", "message": str(fault)}
        with suppress(StopIteration):
            report(ending | END)
