"""Which code trains: what changes the fingerprint, what a difference is called, and that a result of other code is never taken for one's own."""

import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from driving import END, ROOT
from test_director import begin, end, lines, row

from search import group, trial
from search.endings import write_down
from search.record import ending_of_driver
from trainables.parts import code
from trainables.parts.errors import OtherCode


def seen_from(*folders: Path, program: str = "print(code.fingerprint())") -> str:
    """What a new process with these folders on its path says."""
    words = [sys.executable, "-c", f"import json\nfrom trainables.parts import code\n{program}"]
    path = ":".join(map(str, [*folders, ROOT]))
    done = subprocess.run(words, env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def added(tmp_path):
    """A folder that adds a procedure."""
    (tmp_path / "trainables").mkdir()
    (tmp_path / "trainables" / "mine.py").write_text("loss = 1\n")
    return tmp_path


@pytest.fixture
def installed(tmp_path):
    """A folder with a library of another version, as an environment that was upgraded has."""

    def make(name: str, version: str) -> Path:
        place = tmp_path / f"{name}-{version}" / f"{name}-{version}.dist-info"
        place.mkdir(parents=True)
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        return place.parent

    return make


def test_the_fingerprint_changes_with_a_file_its_name_and_its_place_and_with_nothing_else(added):
    mine = added / "trainables" / "mine.py"
    first = seen_from(added)
    assert len(first) == 32 and first == seen_from(added) != seen_from()
    (mine.parent / "notes.txt").write_text("no code")
    (mine.parent / "__pycache__").mkdir()
    (mine.parent / "__pycache__" / "mine.cpython-311.pyc").write_text("no code")
    assert seen_from(added) == first
    mine.write_text("loss = 2\n")
    changed = seen_from(added)
    mine.rename(mine.with_name("yours.py"))
    assert len({first, changed, seen_from(added)}) == 3


def test_the_fingerprint_changes_with_the_version_of_a_library_and_not_with_its_build(added, installed):
    several = [seen_from(installed("timm", version)) for version in ("9.8.7", "9.8.8", "9.8.8+cpu", "9.8.8+cu130")]
    assert several[0] != several[1] == several[2] == several[3]
    assert seen_from(installed("optuna", "99.0")) == seen_from()


def test_of_two_files_of_one_name_the_one_that_python_imports_counts(added, tmp_path):
    other = tmp_path / "other" / "trainables"
    other.mkdir(parents=True)
    (other / "mine.py").write_text("loss = 3\n")
    program = "import trainables.mine; print(trainables.mine.loss, code.files()['mine.py'])"
    (one, first), (two, second) = (
        seen_from(*folders, program=program).split() for folders in ((added, other.parent), (other.parent, added))
    )
    assert (one, two) == ("1", "3") and first != second


def test_the_commit_is_that_of_the_code_and_none_outside_of_a_checkout(tmp_path, monkeypatch):
    head, dirty = code.commit()
    assert head is None or len(head) == 40
    assert isinstance(dirty, bool)
    monkeypatch.setattr(code, "__file__", str(tmp_path / "code.py"))
    assert code.commit.__wrapped__() == (None, False)


def test_versions_name_what_the_numbers_depend_on():
    assert {"python", "torch", "timm", "optuna", "ray", "numpy"} <= set(code.versions())


def test_a_difference_names_each_file_and_each_library():
    old = {"files": {"a.py": "1", "b.py": "1", "c.py": "1"}, "versions": {"torch": "2.15.0", "timm": "1.0", "ray": "2.60"}}
    new = {"files": {"a.py": "2", "b.py": "1", "d.py": "1"}, "versions": {"torch": "2.16.0", "timm": "1.0", "ray": "2.61"}}
    assert code.difference(old, new) == [
        "trainables/a.py: changed", "trainables/c.py: removed", "trainables/d.py: added", "torch 2.15.0 -> 2.16.0",
    ]  # fmt: skip
    assert code.difference(old, old) == []
    many = {"files": {f"{number}.py": "1" for number in range(20)}, "versions": {}}
    assert len(code.difference({}, many)) == 9 and code.difference({}, many)[-1] == "and 12 more files"


# -- workers -----------------------------------------------------------------------------------------------------------------------------


def test_a_worker_of_other_code_does_not_train(bench, monkeypatch):
    one = bench(trials=0, tables=["1"], arms=["plain"], repeats=1)
    _, c = one.open()
    job = c.job(c.next()) | {"cpus": 1, "gpus": 0, "workers": 1, "checkpoint_seconds": 0.0}
    sent = []
    monkeypatch.setattr(trial.tune, "report", lambda metrics: sent.append(json.loads(metrics["row"])))
    monkeypatch.setattr(trial, "_local", lambda job, send: trial._work(job, send, trial.Workers(), lambda: False))
    monkeypatch.setattr(trial.registry, "load", lambda name: one.entry)
    monkeypatch.setattr(trial, "_freeze", lambda: None)
    with monkeypatch.context() as other:
        other.setattr(code, "fingerprint", lambda: "0" * 32)
        with pytest.raises(trial._Leaves):  # Tune replaces its process: what is imported is imported
            trial.run_trial(job)
    began, ending = sent
    assert began.keys() == {"origin"}
    assert (ending["end"], ending["kind"]) == ("misplaced", "other_code") and "has other code than the command" in ending["message"]
    assert not (one.folder / "checkpoints").exists()
    sent.clear()
    trial.run_trial(job)
    origin = code.origin("cpu") | {"node": "", "worker": f"{socket.gethostname()}:{os.getpid()}", "device_memory": 0}
    assert sent[0]["origin"] == origin and not any("origin" in row for row in sent[1:])
    assert sent[-1]["end"] == "completed" and {name: sent[-1][name] for name in origin} == origin


def test_what_a_group_s_worker_raised_for_its_code_is_known_as_such():
    assert isinstance(group._as_exception({"raised": "OtherCode", "message": "x"}), OtherCode)


ELSEWHERE = {
    "code": "e" * 32, "versions": {"torch": "9.9"}, "commit": "f" * 40, "dirty": True, "host": "node7", "device": "H100",
    "processor": "Xeon (AVX512)",
}  # fmt: skip


@pytest.mark.parametrize("status", ["completed", "diverged", "pruned", "killed"])
def test_a_record_says_who_trained_and_not_who_commanded(bench, monkeypatch, status):
    one = bench(pack=None, trials=0, tables=["1"], arms=["plain"], repeats=1)
    _, c = one.open()
    active = c.next()
    c.row(active.run.key, row(origin=ELSEWHERE))
    if status == "pruned":
        write_down(c, active, ending_of_driver("pruned", active.facts))
    elif status == "killed":
        for _ in range(4):
            c.row(active.run.key, row(origin=ELSEWHERE))
            c.lost(active.run.key)
            c.next()
    else:
        end(one, c, active, status)
    (record,) = lines(one)
    assert {name: record[name] for name in ELSEWHERE} == ELSEWHERE
    assert "origin" not in record["history"][0]


def test_a_record_of_a_run_that_only_said_its_end_has_the_words_of_that_end(bench):
    one = bench(pack=None, trials=0, tables=["1"], arms=["plain"], repeats=1)
    _, c = one.open()
    active = c.next()
    c.row(active.run.key, {"end": "failed", "kind": "request", "message": "x"} | END | ELSEWHERE)
    (record,) = lines(one)
    assert {name: record[name] for name in ELSEWHERE} == ELSEWHERE


def test_a_record_of_a_run_that_never_spoke_names_the_command_s_code_and_no_machine(bench):
    one = bench(pack=None, trials=0, tables=["1"], arms=["plain"], repeats=1)
    _, c = one.open()
    active = c.next()
    for _ in range(4):
        begin(one.folder / active.folder)
        c.lost(active.run.key)
        active = c.next() or active
    (record,) = lines(one)
    assert record["error"]["kind"] == "worker_killed"
    assert (record["code"], *(record[name] for name in ("host", "device", "processor"))) == (code.fingerprint(), "", "", "")


def test_a_processor_is_its_model_and_the_instructions_in_use_and_a_machine_that_does_not_say_is_of_its_architecture(tmp_path):
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: AMD EPYC 7B13: x\nprocessor\t: 1\nmodel name\t: AMD EPYC 7B13: x\n")
    uses = f" ({torch.backends.cpu.get_cpu_capability()})"
    assert code.processor(told) == "AMD EPYC 7B13: x" + uses and code.processor(tmp_path / "none") == platform.machine() + uses


# -- stages ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_another_loss_does_not_take_over_the_old_one_s_pre_training(inside, monkeypatch):
    """After a loss was changed, the next arm used the old code's pre-training without a word."""
    words = ("--trials", "0", "--repeats", "1", "--tables", "1", "--arms")
    assert inside(*words, "plain") == 0
    monkeypatch.setattr(code, "fingerprint", lambda: "0" * 32)
    assert inside(*words, "plain,bent*") == 2
    assert len(inside.trained) == 1
    assert inside(*words, "plain,bent*", "--name", "anew") == 0
    assert len(inside.trained) == 3
    records = [json.loads(line) for line in (inside.storage / "anew" / "records.jsonl").read_text().splitlines()]
    old = json.loads((inside.study / "records.jsonl").read_text().splitlines()[0])
    assert {record["code"] for record in records} == {"0" * 32} != {old["code"]}
    assert not {record["stage_hashes"]["warm"] for record in records} & {old["stage_hashes"]["warm"]}
