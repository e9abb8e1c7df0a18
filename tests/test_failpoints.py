"""A study that dies at each place where something is written, one after another, ends as if nothing had happened."""

import os
import re
import signal
from pathlib import Path

import pytest
from driving import Inside

from search.history import check
from trainables.parts import failpoints
from trainables.parts.checkpoint import load_state
from trainables.parts.execution import MODEL

ROOT = Path(__file__).parent.parent
WORDS = ("--trials", "4", "--repeats", "2", "--tables", "1")


def test_every_failpoint_stands_in_the_code_and_every_one_in_the_code_is_known():
    code = "\n".join(path.read_text() for folder in ("search", "trainables") for path in (ROOT / folder).rglob("*.py"))
    placed = set(re.findall(r'(?:failpoint|armed)\("([\w.]+)"\)', code))
    files = {word for word in re.findall(r', "(\w+)"\)|"(model)",\n', code) for word in word if word}
    placed |= {f"{file}.{moment}" for file in files for moment in ("written", "renamed") if f"{file}.{moment}" in failpoints.NAMES}
    moments = [*re.findall(r'self\._pass\("(\w+)"\)', code), "half"]  # of the ledger's lines
    placed |= {f"{name}.{moment}" for name in re.findall(r'Lines\(.*, "(\w+)", keep\[\d\]\)\n', code) for moment in moments}
    assert placed == set(failpoints.NAMES) and len(placed) == len(failpoints.NAMES)


def test_a_failpoint_that_there_is_not_is_refused_with_those_there_are(inside, monkeypatch, capsys):
    monkeypatch.setenv(failpoints.VARIABLE, "ledger.writen")
    assert inside("--plan") == 2
    assert "got 'ledger.writen'; known: run.started" in capsys.readouterr().err


@pytest.fixture
def died(monkeypatch):
    """Failpoints at which a process would have ended."""
    found = []
    monkeypatch.setattr(failpoints, "die", found.append)
    monkeypatch.setattr(failpoints, "_passes", {})
    return found


def test_a_failpoint_fires_at_the_pass_that_was_named_and_without_the_variable_never(monkeypatch, died):
    failpoints.failpoint("run.started")
    monkeypatch.setenv(failpoints.VARIABLE, "ledger.append:3,run.started")
    for _ in range(5):
        failpoints.failpoint("ledger.append")
    failpoints.failpoint("optuna.ask")
    assert died == ["ledger.append"]
    failpoints.failpoint("run.started")
    assert died == ["ledger.append", "run.started"]


def in_a_child(call) -> int:
    """The wait status of a child that does it."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = call()
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside threads: the children use none
def test_a_study_that_dies_at_every_failpoint_ends_with_the_tables_and_weights_of_an_undisturbed_one(toy, inside, tmp_path, monkeypatch):
    calm = Inside(monkeypatch, toy, tmp_path / "calm")
    assert calm(*WORDS) == 0
    disturbed = Inside(monkeypatch, toy, tmp_path / "disturbed")
    (tmp_path / "fired").mkdir()
    monkeypatch.setenv(failpoints.FIRED, str(tmp_path / "fired"))
    last = ("export", "report")
    first = ("splits", "data", "study", "optuna")
    rank = {word: number for number, word in enumerate([*first, "", *last])}
    for name in sorted(failpoints.NAMES, key=lambda name: rank.get(name.split(".")[0], rank[""])):
        monkeypatch.setenv(failpoints.VARIABLE, name)
        status = in_a_child(lambda: disturbed(*WORDS))
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"{name} was never passed"
    monkeypatch.delenv(failpoints.VARIABLE)
    assert disturbed(*WORDS) == 0
    assert {path.name for path in (tmp_path / "fired").iterdir()} == set(failpoints.NAMES)
    assert not [path for path in disturbed.study.rglob(".*") if path.name not in (".lock",)], "what was half written is gone"
    for study in (calm.study, disturbed.study):
        history = check(study, toy)
        assert history.violations == (), history
    for path in (calm.study / "tables").iterdir():
        assert path.read_bytes() == (disturbed.study / "tables" / path.name).read_bytes(), path.name
    models = {path.parent.name: load_state(path)[0] for path in calm.study.glob(f"checkpoints/*/{MODEL}")}
    others = {path.parent.name: load_state(path)[0] for path in disturbed.study.glob(f"checkpoints/*/{MODEL}")}
    assert models.keys() == others.keys()
    assert all(bool((tensor == others[key][name]).all()) for key, tensors in models.items() for name, tensor in tensors.items())
