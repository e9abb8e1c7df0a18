"""A disk that is full, a folder that cannot be written, a signal, a clock that jumps, a run that hangs: words, and nothing lost."""

import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from driving import END
from test_ledger import record

from search import cli, endings, home, mirror, queue, verdict
from search import ledger as record_keeping
from search import lines as writing
from search import record as recording
from search.history import check
from search.ledger import Ledger
from trainables.parts import checkpoint, execution
from trainables.parts.checkpoint import load_state, save_state
from trainables.parts.errors import StorageFault

WORDS = ("--trials", "0", "--repeats", "1", "--tables", "1")


@pytest.fixture(autouse=True)
def heard():
    """In the background of a shell SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """It takes seconds."""
    import analysis
    from analysis import Report

    monkeypatch.setattr(analysis, "write_report", lambda folder: Report((), 0.0))


def full(*arguments, **more):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_at_second_line(monkeypatch, name):
    """The disk is full when the second line of a ledger's file is forced to it."""
    real, calls = os.fsync, []

    def fsync(handle):
        if os.readlink(f"/proc/self/fd/{handle}").endswith(name):
            calls.append(handle)
            if len(calls) == 2:
                full()
        return real(handle)

    monkeypatch.setattr(writing.os, "fsync", fsync)


def records(study):
    return [json.loads(line) for line in (study / "records.jsonl").read_text().splitlines()]


def violations(inside):
    """Without those about the report, which these tests do not write."""
    return [words for words in check(inside.study, inside.toy).violations if "table-" not in words]


def test_a_disk_that_is_full_when_a_record_is_written_ends_the_study_with_words_and_it_goes_on_later(inside, monkeypatch, capsys):
    full_at_second_line(monkeypatch, "records.jsonl")
    assert inside(*WORDS) == 1
    fault = capsys.readouterr().err
    assert "records.jsonl could not be written: No space left on device; nothing that was recorded is lost" in fault
    assert len(records(inside.study)) == 1, "half a line would swallow the next one"
    trained = list(inside.trained)
    assert inside(*WORDS) == 0
    assert len(records(inside.study)) == 3 and not violations(inside) and len(inside.trained) == len(trained) + 2
    assert all(
        len(record["lives"]) <= 2 and sum("tune" in life["epochs"] for life in record["lives"]) == 1 for record in records(inside.study)
    )


def test_a_disk_that_is_full_when_a_checkpoint_is_written_ends_the_study_and_no_run_counts_as_failed(inside, monkeypatch, capsys):
    real = checkpoint.save_file

    def save(tensors, name, **more):
        if "flight" in name:
            full()
        real(tensors, name, **more)

    monkeypatch.setattr(checkpoint, "save_file", save)
    assert inside(*WORDS) == 1
    assert "flight.safetensors could not be written: No space left" in capsys.readouterr().err
    assert not (inside.study / "records.jsonl").read_text() and not list(inside.study.rglob("*.tmp"))
    monkeypatch.setattr(checkpoint, "save_file", real)
    assert inside(*WORDS) == 0 and not violations(inside)


def test_a_disk_that_is_full_when_a_trial_is_asked_ends_the_study_and_it_goes_on_later(inside, monkeypatch, capsys):
    real = os.fsync
    full_at_second_line(monkeypatch, "trials.jsonl")
    assert inside("--trials", "3", "--repeats", "1", "--tables", "none") == 1
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.setattr(writing.os, "fsync", real)
    assert inside("--trials", "3", "--repeats", "1", "--tables", "none") == 0 and not violations(inside)


def test_a_disk_that_refuses_the_copy_for_the_dashboard_alone_costs_a_note_and_not_the_study(inside, monkeypatch, capsys):
    monkeypatch.setattr(mirror.JournalFileBackend, "append_logs", full)
    assert inside("--trials", "2", "--repeats", "1", "--tables", "none") == 0
    assert "optuna.journal could not be written (No space left on device); the search goes on" in capsys.readouterr().out


def test_a_disk_that_is_full_when_the_report_is_written_says_so_and_all_records_are_there(inside, monkeypatch, capsys):
    import analysis

    monkeypatch.setattr(analysis, "write_report", full)
    assert inside(*WORDS) == 1
    assert "No space left on device" in capsys.readouterr().err and len(records(inside.study)) == 3


def test_a_ledger_in_which_half_a_line_was_written_is_cut_back(tmp_path, monkeypatch):
    with Ledger(tmp_path) as ledger:
        ledger.append(record("a"))
        before = ledger.path.read_bytes()
        monkeypatch.setattr(writing.os, "fsync", full)
        with pytest.raises(StorageFault, match="No space left on device"):
            ledger.append(record("b"))
        monkeypatch.undo()
        assert ledger.path.read_bytes() == before and list(ledger.records) == ["a"]
        ledger.append(record("c"))
    with Ledger(tmp_path) as again:
        assert list(again.records) == ["a", "c"] and not again.warnings


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB, where this user may mount one."""
    place = tmp_path / "small"
    place.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False)
    except OSError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_on_a_disk_that_is_really_full_a_state_is_there_whole_or_not_at_all(small_disk):
    import torch

    save_state(small_disk / "a", {"w": torch.zeros(1000)}, {})
    with pytest.raises(StorageFault, match="No space left on device"):
        save_state(small_disk / "a", {"w": torch.ones(500_000)}, {})
    assert load_state(small_disk / "a")[0]["w"].sum() == 0 and [path.name for path in small_disk.iterdir()] == ["a"]


def test_a_folder_that_may_only_be_read_is_refused_with_words(small_disk, inside, capsys):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert cli.main(["toy", *WORDS, "--storage", str(small_disk / "runs")]) == 2
    assert "--storage must be a folder that can be written" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_saves_a_checkpoint_and_the_command_that_continues_is_named(inside, monkeypatch, capsys, number, status):
    real, rows, usual = execution._note, [], signal.getsignal(number)

    def note(folder, line):
        rows.append(line)
        if line == "epoch warm 2":
            os.kill(os.getpid(), number)
        real(folder, line)

    monkeypatch.setattr(execution, "_note", note)
    inside.checkpoint_seconds = 1000.0
    assert inside(*WORDS) == status
    captured = capsys.readouterr()
    assert "stopping; what runs saves its checkpoint" in captured.out
    assert (
        captured.err.strip()
        == f"search: stopped; the same command continues: python -m search toy {' '.join(WORDS)} --storage {inside.storage}"
    )
    assert rows[-2:] == ["epoch warm 2", "saved warm 2"] and not records(inside.study)
    assert signal.getsignal(number) == usual, "as before"
    monkeypatch.setattr(execution, "_note", real)
    assert inside(*WORDS) == 0 and not violations(inside)
    first = next(record for record in records(inside.study) if record["interruptions"])
    assert [life["epochs"] for life in first["lives"]] == [{"warm": [1, 2]}, {"warm": [3, 3], "tune": [1, 2]}]
    assert not (inside.study / home.STOP).exists()


def test_the_second_signal_ends_the_command_at_once(inside, monkeypatch, capsys):
    real = execution._note

    def note(folder, line):
        real(folder, line)
        if line == "epoch warm 2":
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(execution, "_note", note)
    assert inside(*WORDS) == 130
    assert "stopped; the same command continues" in capsys.readouterr().err
    monkeypatch.setattr(execution, "_note", real)
    assert inside(*WORDS) == 0 and not violations(inside)


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing_but_the_times_that_are_written_down(inside, monkeypatch):
    days = iter(range(1, 10_000))

    def jumping():
        day = next(days)
        return f"{2100 - day if day % 2 else 1970 + day % 30}-01-01T00:00:00+00:00"

    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + (-1) ** next(days) * 1e8)
    for module in (record_keeping, recording):
        monkeypatch.setattr(module, "now", jumping)
    assert inside("--trials", "2", "--repeats", "1", "--tables", "1") == 0
    assert not violations(inside) and all(record["seconds"] >= 0 for record in records(inside.study))


# -- runs that hang, and processes that die before they begin ------------------------------------------------------------------------


def begin(folder: Path) -> None:
    """What a process does first."""
    folder.mkdir(parents=True, exist_ok=True)
    execution._note(folder, "\nlife host 123 0")


def test_a_run_of_which_nothing_is_heard_is_named_once_its_slowest_epoch_cannot_explain_it(bench, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(queue.time, "monotonic", lambda: clock[0])
    study = bench(pack=None, trials=0, repeats=1, tables=["1"])
    _, c = study.open(slots=2)
    one, two = c.next(), c.next()
    clock[0] += 1e6
    assert c.stalled(60) == [], "both still wait for a machine"
    begin(study.folder / one.folder)
    assert c.stalled(60) == []
    clock[0] += 239
    assert c.stalled(60) == [], "no epoch is known yet"
    clock[0] += 2
    assert [(active.run.key, silence) for active, silence in c.stalled(60)] == [(one.run.key, 241)]
    assert c.stalled(60) == []
    for epoch in (1, 2):
        c.row(one.run.key, {"stage": "warm", "epoch": epoch, "loss": 1.0, "seconds": 9.0})
        clock[0] += 20
    assert c.slowest == 20
    clock[0] += 175
    assert c.stalled(60) == [], "ten times 20 seconds"
    clock[0] += 10
    assert [active.run.key for active, _ in c.stalled(60)] == [one.run.key]
    assert execution.read_processes(study.folder / one.folder) == [("host", 123)] and two.heard is None


def test_a_process_that_dies_before_it_begins_with_a_run_does_not_cost_the_run(bench):
    study = bench(pack=None, trials=0, repeats=1, tables=["1"], arms=["plain"])
    ledger, c = study.open()
    for _ in range(endings.STARTS):
        assert not c.finished()
        c.lost(c.next().run.key)
        assert not ledger.records
    assert c.finished() and not c.complete() and "processes in a row died as they started" in c.halt


def test_a_process_that_dies_in_a_run_too_often_is_recorded(bench):
    study = bench(pack=None, trials=0, repeats=1, tables=["1"], arms=["plain"])
    ledger, c = study.open()
    for _ in range(verdict.DEATHS + 1):
        assert not ledger.records
        active = c.next()
        begin(study.folder / active.folder)
        c.lost(active.run.key)
    assert [record["error"]["kind"] for record in ledger.records.values()] == ["worker_killed"]
    assert ledger.whole(active.run.key)["lives"] == 4 * [{"worker": "host:123", "epochs": {}, "saved": {}}] and END
