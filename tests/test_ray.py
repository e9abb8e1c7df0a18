"""The engine on a real Ray cluster, through the command line: processes are killed, runs fail, studies go on."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search.mirror import JOURNAL
from trainables.parts.checkpoint import load_state
from trainables.parts.execution import MODEL, execute

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

SMALL = ("--repeats", "1", "--trials", "0", "--tables", "1")


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def wait_for(condition, seconds=300.0):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise TimeoutError("it did not come about")


def check(done, status=0):
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    return done


def test_a_study_runs_shares_and_reuses_and_the_same_command_again_does_nothing(shell):
    """Search, two tables that share arms, two seeds; one process for each slot; then again, and again with more."""
    done = check(shell("toy", "--storage", "s"))
    study = shell.home / "s" / "toy-quick-synthetic"
    rows = records(study)
    finals = {row["key"]: row for row in rows}
    assert {row["status"] for row in finals.values()} == {"completed"}
    by_arm = Counter((arm, row["seed"]) for row in finals.values() for arm in row["arms"] if not arm.startswith("search/"))
    arms = ("1/plain", "1/bent, a little", "1/slow", "2/none", "2/a little")
    assert by_arm == Counter({(arm, seed): 1 for arm in arms for seed in (0, 1)})
    # nothing was trained twice: each stage of each seed once
    asked = json.loads((study / "study.json").read_text())
    warm = {(row["params"]["rate"], row["seed"]) for row in finals.values()}
    began = Counter((stage, epoch) for _, stage, epoch, _ in shell.epochs())
    assert began["warm", "1"] == len(warm)
    kept = {path.name for path in (study / "stages").iterdir()}  # those that tables or the best need, no others of the search
    tabled = {row["stage_hashes"]["warm"] for row in finals.values() if any(not arm.startswith("search/") for arm in row["arms"])}
    assert tabled <= kept and len(kept) <= len(warm)
    assert began["tune", "1"] == len(finals)
    # processes are reused
    assert len({pid for pid, *_ in shell.epochs()}) <= (os.cpu_count() or 1)
    # a search cannot see test metrics
    trials = optuna.load_study(study_name=study.name, storage=JournalStorage(JournalFileBackend(str(study / JOURNAL)))).trials
    assert [trial.number for trial in trials] == [0, 1] and asked["trials"] == 2
    assert trials[0].params == {"form": "plain", "rate": 0.02}
    for trial in trials:
        record = finals[trial.user_attrs["key"]]
        assert trial.state == TrialState.COMPLETE and trial.value == record["metrics"]["val_accuracy"]
        assert list(trial.intermediate_values.values()) == [row["val_early"] for row in record["history"] if "val_early" in row]
    assert not (study / "ray").exists()
    for path in ("best/model.safetensors", "best/karyotune.json", "tables/table-1.csv", "report.html", "report.md", "splits", "log.txt"):
        assert (study / path).exists(), path
    assert "8 runs (8 completed), 8 of them now" in done.stdout

    before = {path: path.stat().st_mtime_ns for path in study.rglob("*.safetensors")}
    epochs = shell.epochs()
    again = check(shell("toy", "--storage", "s"))
    assert "0 of them now" in again.stdout and "starting" not in again.stdout
    assert shell.epochs() == epochs and records(study) == rows
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*.safetensors")} == before

    refused = shell("toy", "--storage", "s", "--set", "rate=0.5")
    assert refused.returncode == 2 and "settings.rate: the study has 0.02, asked for 0.5" in refused.stderr
    assert records(study) == rows

    more = check(shell("toy", "--storage", "s", "--repeats", "3", "--trials", "3"))
    assert "Traceback" not in more.stderr
    new = [row for row in records(study)[len(rows) :] if "test_accuracy" in row["metrics"] or row["trial"] == 2]
    assert {row["seed"] for row in new if row["trial"] is None} >= {2}
    tuned = sum((stage, epoch) == ("tune", "1") for _, stage, epoch, _ in shell.epochs())
    assert tuned == len({row["key"] for row in records(study) if row["status"] == "completed"})


def test_a_killed_worker_is_replaced_its_run_ends_with_the_same_weights_and_meanwhile_no_second_command_is_let_in(
    shell, toy, toy_pack, tmp_path
):
    words = ("toy", *SMALL, "--arms", "plain", "--set", "pause=0.5", "--set", "warm_epochs=30")
    driver = shell.start(*words, "--storage", "killed")
    wait_for(shell.epochs)
    second = shell(*words, "--storage", "killed")
    assert second.returncode == 2 and "another search is at work on this study" in second.stderr
    wait_for(lambda: len(shell.epochs()) >= 26)  # a checkpoint every 10 s; this is 12 s at least
    os.kill(int(shell.epochs()[-1][0]), signal.SIGKILL)
    assert driver.wait(600) == 0
    epochs = shell.epochs()
    assert len({pid for pid, *_ in epochs}) == 2
    after = [int(epoch) for pid, stage, epoch, _ in epochs if pid == epochs[-1][0] and stage == "warm"]
    assert after[0] > 1, "it went on from its checkpoint"
    killed = shell.home / "killed" / "toy-quick-synthetic"
    (row,) = records(killed)
    assert row["status"] == "completed" and row["interruptions"] == 1
    assert [(r["stage"], r["epoch"]) for r in row["history"]] == [("warm", n + 1) for n in range(30)] + [("tune", 1), ("tune", 2)]
    torch.set_num_threads(1)
    execute(toy.procedure, toy.procedure.config(warm_epochs=30), seed=0, pack=toy_pack, folder=tmp_path / "calm")
    straight, _ = load_state(tmp_path / "calm" / MODEL)
    resumed, _ = load_state(killed / row["checkpoint"])
    assert straight.keys() == resumed.keys() and all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_every_way_to_fail_is_recorded_with_its_reason_and_the_study_goes_on(shell):
    done = check(shell("toy", "--repeats", "1", "--trials", "0", "--tables", "T", "--storage", "s"), status=4)
    study = shell.home / "s" / "toy-quick-synthetic"
    found = {
        row["arms"][0]: (row["status"], (row["error"] or {}).get("kind"), (row["error"] or {}).get("message")) for row in records(study)
    }
    assert found == {
        "T/fine": ("completed", None, None),
        "T/memory": ("failed", "out_of_memory", "no room for 3 toys"),
        "T/error": ("failed", "error", "KeyError: 'toy box'"),
        "T/nan": ("diverged", "not_finite", "the loss was not finite at epoch 1, step 1"),
        "T/exit": ("failed", "worker_killed", "the worker process died repeatedly (killed, or out of host memory)"),
        "T/weights": ("failed", "unreachable_weights", "the toy shop does not answer"),
    }
    assert "1 completed" in done.stdout and "4 failed" in done.stdout and "no room for 3 toys" in done.stdout
    assert sum(stage == "warm" for _, stage, *_ in shell.epochs()) == 3, "the shared stage was trained once"
    text = (study / "report.md").read_text()
    assert all(words in text for words in ("out of memory", "worker killed", "weights unreachable", "KeyError: 'toy box'", "diverged"))


def test_two_workers_for_each_run_end_with_one_worker_s_result_though_one_dies_and_what_fails_says_why(shell, toy, toy_pack, tmp_path):
    words = ("toy", "--repeats", "1", "--trials", "0", "--tables", "T", "--arms", "fine,memory")
    two = shell.home / "two" / "toy-quick-synthetic"
    driver = shell.start(
        *words, "--set", "pause=0.5", "--workers-per-run", "2", "--storage", "two", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_for(shell.epochs)
    os.kill(int(shell.epochs()[-1][0]), signal.SIGKILL)
    out, fault = driver.communicate(timeout=600)
    assert driver.returncode == 4 and "no room for 3 toys" in out + fault and "Traceback" not in out + fault, out + fault
    found = {row["arms"][0]: row for row in records(two)}
    assert found["T/memory"]["error"]["kind"] == "out_of_memory"
    assert {len(row["lives"]) for row in found.values()} == {2}, "one for its worker's death, one to try it again"
    assert found["T/fine"]["status"] == "completed"
    torch.set_num_threads(1)
    one = execute(toy.procedure, toy.procedure.config(), seed=0, pack=toy_pack, folder=tmp_path / "one")
    for a, b in zip(found["T/fine"]["history"], one.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)


def test_a_time_limit_ends_cleanly_and_the_rest_follows(shell):
    words = ("toy", *SMALL, "--set", "pause=0.5", "--storage", "s")
    none = check(shell(*words, "--max-hours", "1e-9"), status=3)
    assert "too short for a run" in none.stdout and not shell.epochs()
    part = check(shell(*words, "--max-hours", str(9 / 3600)), status=3)
    study = shell.home / "s" / "toy-quick-synthetic"
    count = len(records(study)) if (study / "records.jsonl").exists() else 0
    assert count < 3
    assert "the limit of hours was reached" in part.stdout or count == 0
    check(shell(*words))
    assert len(records(study)) == 3


def test_a_killed_process_of_ray_ends_the_command_and_the_same_one_goes_on(shell):
    """Tune itself would ask its dead raylet for ever, and with a dead GCS the command would end without a word."""
    words = ("toy", *SMALL, "--arms", "plain", "--set", "pause=0.5", "--set", "warm_epochs=20", "--storage", "s")
    for kind in ("raylet", "gcs_server"):
        before = len(shell.epochs())
        driver = shell.start(*words, stderr=subprocess.PIPE)
        wait_for(lambda before=before: len(shell.epochs()) > before)
        children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
        (pid,) = (pid for pid in children if f"/{kind} ".encode() in Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" "))
        os.kill(int(pid), signal.SIGKILL)
        _, fault = driver.communicate(timeout=120)
        assert driver.returncode == 1 and "Ray's own processes have ended" in fault and "the same command continues" in fault
    check(shell(*words))
    assert [row["status"] for row in records(shell.home / "s" / "toy-quick-synthetic")] == ["completed"]


@pytest.fixture
def disk(shell):
    """The storage is a file system of 64 MB, where this user may mount one."""
    place = shell.home / "s"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this user may not mount a file system: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))


def test_a_disk_that_fills_up_while_runs_train_ends_the_command_and_the_same_one_goes_on(shell, disk):
    words = ("toy", *SMALL, "--arms", "plain", "--set", "pause=0.3", "--set", "warm_epochs=40", "--storage", "s")
    driver = shell.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: len(shell.epochs()) >= 3)
    fill(disk / "filler")
    out, fault = driver.communicate(timeout=120)
    assert (
        driver.returncode == 1 and "No space left on device; nothing that was recorded is lost" in fault and "Traceback" not in out + fault
    )
    study = disk / "toy-quick-synthetic"
    assert records(study) == []
    (disk / "filler").unlink()
    check(shell(*words))
    assert [row["status"] for row in records(study)] == ["completed"]
    check(shell("toy", "check", "--storage", "s"))


def test_a_run_whose_process_stands_still_is_started_again_from_its_last_checkpoint(shell):
    words = ("toy", *SMALL, "--arms", "plain", "--set", "pause=0.5", "--set", "warm_epochs=40", "--storage", "s")
    driver = shell.start(*words, "--stall-minutes", "0.05", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    study = shell.home / "s" / "toy-quick-synthetic"
    wait_for(lambda: list(study.glob("checkpoints/*/flight.safetensors")))
    still = int(shell.epochs()[-1][0])
    os.kill(still, signal.SIGSTOP)
    out, fault = driver.communicate(timeout=240)
    assert driver.returncode == 0, fault
    assert "no sign of life for" in out and "its process was killed to start it again" in out
    (row,) = records(study)
    assert row["status"] == "completed" and row["interruptions"] == 1
    after = [int(epoch) for pid, stage, epoch, _ in shell.epochs() if int(pid) != still and stage == "warm"]
    assert after[0] > 1, "it went on from its checkpoint"
