"""Ended runs, told to the tools that people watch: TensorBoard, MLflow, Weights & Biases.
Comes in: records, after they stand in the ledger. Goes out: event files below the study, and runs in a local MLflow store or an offline
W&B folder. Exists apart from the study, in a thread of its own: whatever such a tool does, a study goes on; its first failure is one
warning, and it is asked no more. What it had not written when a command ended is written by the next one.
Ray's own callbacks (MLflowLoggerCallback, WandbLoggerCallback, TBXLoggerCallback; tried with Ray 2.60) follow Tune's trials and not runs:
one that was placed again is a failed and a finished run in MLflow, and two folders in TensorBoard, in Tune's folder, which is deleted; what
one command had no time for no other writes. They work in Tune's thread: an MLflow server that does not answer held a study of a
second for as long as it was watched (90 s), and an error in W&B's was the end of the study."""

import os
import queue
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from search.home import home
from trainables.parts.errors import RequestError
from trainables.parts.libraries import install

Record = Mapping[str, Any]
KNOWN = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}  # and the module that writes
PATIENCE = 60.0  # seconds that the end of a command waits for what is not written yet


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """What `--log` asks for; TensorBoard without it, where Ray has brought its writer along. RequestError with all faults."""
    if not names:
        return ("tensorboard",) if find_spec(KNOWN["tensorboard"]) else ()
    if "none" in names:
        return ()
    faults = [f"--log must be one of {', '.join(KNOWN)}, none, got {name!r}" for name in names if name not in KNOWN]
    faults += [
        f"--log {name} needs a package that is not installed; {install(name)}"
        for name in names
        if name in KNOWN and find_spec(KNOWN[name]) is None
    ]
    if faults:
        raise RequestError(*faults)
    return tuple(dict.fromkeys(names))


class Loggers:
    """Takes records at once and hands them on one after the other. Call `stop` at the end."""

    def __init__(self, study: str, folder: Path, names: Sequence[str], warn: Callable[[str], None] = warnings.warn) -> None:
        self.study, self.folder, self.warn = study, folder, warn
        self.names = list(names)
        self.waiting: queue.Queue[Record | None] = queue.Queue()
        self.written = {name: self._read(name) for name in names}
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def __call__(self, record: Record) -> None:
        """Of a record that is written already with as many metrics, nothing is written again."""
        if self.names:
            self.waiting.put(dict(record))

    def lacks(self, record: Record) -> bool:
        """Whether some tool has not been told of it."""
        return any(_mark(record) not in self.written[name] for name in self.names)

    def stop(self) -> None:
        self.waiting.put(None)
        self.thread.join(PATIENCE)

    def _file(self, name: str) -> Path:
        return self.folder / f"logged-{name}.txt"

    def _read(self, name: str) -> set[str]:
        return set(self._file(name).read_text().splitlines()) if self._file(name).exists() else set()

    def _work(self) -> None:
        while (record := self.waiting.get()) is not None:
            mark = _mark(record)
            for name in list(self.names):
                if mark in self.written[name]:
                    continue
                try:
                    WRITERS[name](self.study, self.folder, record)
                    with open(self._file(name), "a") as file:
                        file.write(mark + "\n")
                    self.written[name].add(mark)
                except Exception as fault:  # noqa: BLE001 (another's tool: whatever it raises must not touch the study)
                    self.names.remove(name)
                    self.warn(f"{name} is not written any more: {type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}")


def _mark(record: Record) -> str:
    return f"{record['key']} {record['status']} {len(record['metrics'])}"


def _scalars(record: Record) -> Iterator[tuple[str, float, int]]:
    """(name, value, epoch) of a run's history; epochs count within their stage."""
    for row in record["history"]:
        for name, value in row.items():
            if name not in ("stage", "epoch") and isinstance(value, int | float):
                yield f"{row['stage']}_{name}", float(value), int(row["epoch"])


def _words(record: Record) -> dict[str, Any]:
    """A run's settings and what it is, as tools show them."""
    own = {"key": record["key"], "seed": record["seed"], "status": record["status"], "arms": "; ".join(record["arms"])}
    return {
        name: value if isinstance(value, int | float | str | bool) else str(value) for name, value in {**record["params"], **own}.items()
    }


def _name(record: Record) -> str:
    what = f"trial {record['trial']}" if record.get("trial") is not None else next(iter(record["arms"]), "run")
    return f"{what}, seed {record['seed']}, {record['key'][:8]}"


def _tensorboard(study: str, folder: Path, record: Record) -> None:
    """Event files in tensorboard/<key>: `tensorboard --logdir STUDY/tensorboard`."""
    from tensorboardX import SummaryWriter
    from tensorboardX.summary import hparams

    place = folder / "tensorboard" / record["key"][:12]
    shutil.rmtree(place, ignore_errors=True)
    with SummaryWriter(str(place)) as writer:
        for name, value, epoch in _scalars(record):
            writer.add_scalar(name, value, epoch)
        for name, value in record["metrics"].items():
            writer.add_scalar(name, value, 0)
        for summary in hparams(_words(record), {name: float(value) for name, value in record["metrics"].items()}):
            writer.file_writer.add_summary(summary)
    home(folder).replaced(place)


def _mlflow(study: str, folder: Path, record: Record) -> None:
    """A run in the store that MLFLOW_TRACKING_URI names, or in mlflow/ of the study."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks whether a folder is meant
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or (folder / "mlflow").as_uri())
    known = client.get_experiment_by_name(study)
    experiment = known.experiment_id if known is not None else client.create_experiment(study)
    found = client.search_runs([experiment], f"tags.key = '{record['key']}'")
    run = found[0].info.run_id if found else client.create_run(experiment, run_name=_name(record), tags={"key": record["key"]}).info.run_id
    metrics = [] if found else [Metric(name, value, 0, epoch) for name, value, epoch in _scalars(record)]
    metrics += [Metric(name, float(value), 0, 0) for name, value in record["metrics"].items()]
    params = [] if found else [Param(name, str(value)) for name, value in _words(record).items()]
    for first in range(0, len(metrics), 900):  # of one call, at most 1,000
        client.log_batch(run, metrics=metrics[first : first + 900])
    for first in range(0, len(params), 90):
        client.log_batch(run, params=params[first : first + 90])
    client.set_terminated(run, "FINISHED" if record["status"] in ("completed", "pruned") else "FAILED")


def _wandb(study: str, folder: Path, record: Record) -> None:
    """An offline run in wandb/ of the study, which `wandb sync` sends; WANDB_MODE=online sends it at once."""
    import wandb

    with wandb.init(
        project=study, id=record["key"][:16], name=_name(record), config=_words(record), dir=str(folder), resume="allow",
        mode="online" if os.environ.get("WANDB_MODE") == "online" else "offline", settings=wandb.Settings(silent=True, console="off"),
    ) as run:  # fmt: skip
        for row in record["history"]:
            run.log({f"{row['stage']}_{name}": value for name, value in row.items() if name != "stage" and isinstance(value, int | float)})
        run.summary.update(dict(record["metrics"]))


WRITERS: dict[str, Callable[[str, Path, Record], None]] = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
