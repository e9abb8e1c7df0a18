"""Runs in TensorBoard, MLflow and Weights & Biases, and a study that none of them can break."""

import json
import os
import subprocess
import sys
import threading

import pytest
from test_director import end, row

from search import loggers
from search.loggers import Loggers, chosen
from trainables.parts.errors import RequestError


def record(key="a" * 32, status="completed", **metrics):
    rows = [{"stage": "warm", "epoch": epoch, "loss": 2.0 / epoch, "learning_rate": 0.1, "seconds": 1.0} for epoch in (1, 2, 3)]
    return {
        "key": key, "seed": 0, "status": status, "trial": 3, "arms": ["1/plain"], "params": {"form": "plain", "rate": 0.02, "split": [0.6, 0.4]},
        "metrics": {"val_accuracy": 0.8} | metrics, "history": rows,
    }  # fmt: skip


def test_tensorboard_is_on_by_default_and_others_are_asked_for(monkeypatch):
    assert chosen([]) == ("tensorboard",)
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    assert chosen([]) == () == chosen(["none"])
    with pytest.raises(RequestError) as caught:
        chosen(["wandb", "comet"])
    assert caught.value.faults == [
        "--log must be one of tensorboard, mlflow, wandb, none, got 'comet'",
        "--log wandb needs a package that is not installed; in this project's folder: pip install -c constraints.txt -e '.[wandb]'",
    ]


def test_tensorboard_s_files_hold_each_epoch_and_the_metrics(tmp_path):
    tensorboard = pytest.importorskip("tensorboardX.proto.event_pb2")
    one = Loggers("s", tmp_path, ["tensorboard"])
    one(record())
    one(record(test_accuracy=0.7))  # evaluated later: written anew, not beside
    one.stop()
    assert not one.thread.is_alive()
    files = list((tmp_path / "tensorboard" / ("a" * 12)).iterdir())
    assert len(files) == 1
    content, place, seen = files[0].read_bytes(), 0, []
    while place < len(content):  # TFRecord: length, its checksum, data, its checksum
        length = int.from_bytes(content[place : place + 8], "little")
        event = tensorboard.Event.FromString(content[place + 12 : place + 12 + length])
        seen += [
            (value.tag, event.step, round(value.simple_value, 3)) for value in event.summary.value if not value.tag.startswith("_hparams_")
        ]
        place += 16 + length
    assert {("warm_loss", 1, 2.0), ("warm_loss", 2, 1.0), ("val_accuracy", 0, 0.8), ("test_accuracy", 0, 0.7)} <= set(seen)


def test_a_logger_that_fails_is_one_warning_and_the_others_go_on(tmp_path, monkeypatch):
    told, words = [], []

    def broken(study, folder, record):
        raise ConnectionError("no server\nat all")

    monkeypatch.setitem(loggers.WRITERS, "wandb", broken)
    monkeypatch.setitem(loggers.WRITERS, "mlflow", lambda study, folder, record: told.append(record["key"]))
    one = Loggers("s", tmp_path, ["wandb", "mlflow"], words.append)
    for key in "abc":
        one(record(key * 32))
    one.stop()
    assert words == ["wandb is not written any more: ConnectionError: no server"]
    assert told == ["a" * 32, "b" * 32, "c" * 32]


def test_what_is_written_is_not_written_again_by_the_next_command(tmp_path, monkeypatch):
    told = []
    monkeypatch.setitem(loggers.WRITERS, "mlflow", lambda study, folder, record: told.append(len(record["metrics"])))
    for _ in range(2):
        one = Loggers("s", tmp_path, ["mlflow"])
        one(record())
        one(record(test_accuracy=0.7))
        one.stop()
    assert told == [1, 2]


def test_a_study_does_not_wait_for_a_logger_that_hangs(tmp_path, bench, monkeypatch):
    monkeypatch.setattr(loggers, "PATIENCE", 0.2)
    hold = threading.Event()
    monkeypatch.setitem(loggers.WRITERS, "mlflow", lambda study, folder, record: hold.wait(20))
    one = bench(pack=None, trials=0, repeats=1, tables=["1"], folder=tmp_path / "bench")
    _, c = one.open()
    c.on_record = watcher = Loggers("s", tmp_path, ["mlflow"])
    while (active := c.next()) is not None:
        c.row(active.run.key, row())
        end(one, c, active)
    assert c.complete()
    watcher.stop()
    hold.set()


def in_a_process(code, tmp_path):
    """Run `code` where records may be written, with no network to be found."""
    head = f"import json, sys\nfrom pathlib import Path\nfrom search.loggers import Loggers\nrecords = json.loads({json.dumps(json.dumps([record(), record(test_accuracy=0.7), record('b' * 32, 'failed')]))})\nfolder = Path({str(tmp_path)!r})\n"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", head + code], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_mlflow_s_local_store_holds_each_run_once(tmp_path):
    code = """
one = Loggers("s", folder, ["mlflow"], lambda words: sys.exit(words) or print(words))
for record in records: one(record)
one.stop()
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=(folder / "mlflow").as_uri())
runs = client.search_runs([client.get_experiment_by_name("s").experiment_id])
print(json.dumps(sorted([run.data.tags["key"][0], run.info.status, run.data.metrics.get("test_accuracy"), run.data.params["rate"],
    len(client.get_metric_history(run.info.run_id, "warm_loss"))] for run in runs)))
"""
    assert json.loads(in_a_process(code, tmp_path).splitlines()[-1]) == [
        ["a", "FINISHED", 0.7, "0.02", 3],
        ["b", "FAILED", None, "0.02", 3],
    ]


@pytest.mark.slow
def test_weights_and_biases_writes_offline_runs(tmp_path):
    code = """
said = []
one = Loggers("s", folder, ["wandb"], said.append)
for record in records: one(record)
one.stop()
print(json.dumps(said))
"""
    assert json.loads(in_a_process(code, tmp_path).splitlines()[-1]) == []
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert {file.name for file in files} == {f"run-{'a' * 16}.wandb", f"run-{'b' * 16}.wandb"}
    assert all(b"warm_loss" in file.read_bytes() for file in files)
