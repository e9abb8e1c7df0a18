"""The ledger: what is in it is on the disk, whatever else is damaged, and one driver writes it."""

import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search import recorder
from search.recorder import Ledger
from trainables.parts.errors import RequestError


def record(key, status="completed", **more):
    return {
        "schema": 1, "key": key, "status": status, "metrics": {}, "seed": 0, "params": {}, "config_hash": "c", "data_hash": "d", "arms": [],
        "stage_hashes": {}, "history": [], "trial": None, "error": None,
    } | more  # fmt: skip


def test_what_is_appended_is_read_again_and_the_newest_of_a_key_stands(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.append(record("a", "failed"))
        ledger.append(record("b"))
        ledger.append(record("a", seconds=3.5))
    again = Ledger(tmp_path)
    again.read()
    assert again.records == {"a": record("a", seconds=3.5), "b": record("b")}
    assert len(again.path.read_text().splitlines()) == 3


def test_what_was_completed_stays_completed(tmp_path):
    with Ledger(tmp_path) as ledger:
        for status, seconds in (
            ("pruned", 1),
            ("failed", 2),
            ("completed", 3),
            ("failed", 4),
            ("diverged", 5),
            ("completed", 6),
            ("failed", 7),
        ):
            ledger.append(record("a", status, seconds=seconds))
        assert ledger.records == {"a": record("a", seconds=6)}
    again = Ledger(tmp_path)
    again.read()
    assert again.records == ledger.records


def test_a_record_is_on_the_disk_before_append_returns(tmp_path, monkeypatch):
    events = []
    real = os.fsync
    monkeypatch.setattr(recorder.os, "fsync", lambda handle: (events.append(os.fstat(handle).st_size), real(handle)))
    with Ledger(tmp_path) as ledger:
        ledger.append(record("a"))
        assert events == [ledger.path.stat().st_size] and events[0] > 0


def test_a_number_that_is_not_finite_is_refused_and_leaves_the_file_as_it_was(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.append(record("a"))
        before = ledger.path.read_bytes()
        with pytest.raises(ValueError, match="JSON"):
            ledger.append(record("b", seconds=float("nan")))
        ledger.append(record("c"))
    assert ledger.path.read_bytes().startswith(before)
    assert [json.loads(line)["key"] for line in ledger.path.read_text().splitlines()] == ["a", "c"]


@given(cut=st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_a_torn_last_line_is_set_aside_wherever_it_is_torn(cut, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    with Ledger(folder) as ledger:
        ledger.append(record("a"))
        ledger.append(record("b", note="ü" * 30))
    whole = ledger.path.read_bytes()
    first = whole.index(b"\n") + 1
    ledger.path.write_bytes(whole[: max(first, len(whole) - cut)])
    with Ledger(folder) as again:
        again.append(record("c"))
        kept = set(again.records)
    lines = [json.loads(line)["key"] for line in again.path.read_text().splitlines()]
    assert lines == [*(["a", "b"] if "b" in kept else ["a"]), "c"]
    torn = whole[first : len(whole) - cut]
    if "b" not in kept and torn:
        assert (folder / "records.torn").read_bytes() == torn + b"\n" and again.warnings
    else:
        assert not (folder / "records.torn").exists()


def test_damaged_lines_in_the_middle_are_set_aside_and_the_rest_stands(tmp_path):
    bad = [b"\xff\xfe\x00", b"[]", b'{"schema": 2, "key": "x", "status": "completed"}', b'{"schema": 1, "status": "completed"}',
           b'{"schema": 1, "key": "x", "status": "running"}', b"null",
           b'{"schema": 1, "status": "completed", "key": "x"}']  # fmt: skip
    good = [json.dumps(record(key)).encode() for key in "ab"]
    (tmp_path / "records.jsonl").write_bytes(b"\n".join([good[0], *bad, b"", good[1]]) + b"\n")
    with Ledger(tmp_path) as ledger:
        assert list(ledger.records) == ["a", "b"]
        assert len(ledger.warnings) == 1 and f"{len(bad)} line(s)" in ledger.warnings[0]
    assert (tmp_path / "records.torn").read_bytes().splitlines() == bad
    assert (tmp_path / "records.jsonl").read_bytes().splitlines() == good
    with Ledger(tmp_path) as ledger:
        assert not ledger.warnings


def test_a_ledger_that_is_only_read_changes_nothing(tmp_path):
    (tmp_path / "records.jsonl").write_bytes(json.dumps(record("a")).encode() + b"\n{torn")
    before = (tmp_path / "records.jsonl").read_bytes()
    ledger = Ledger(tmp_path)
    ledger.read()
    assert list(ledger.records) == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]
    assert (tmp_path / "records.jsonl").read_bytes() == before
    with pytest.raises(RuntimeError, match="not open"):
        ledger.append(record("b"))


def test_a_second_driver_is_refused_and_let_in_once_the_first_has_gone_or_died(tmp_path):
    with Ledger(tmp_path), pytest.raises(RequestError, match="another search is at work"):
        Ledger(tmp_path).__enter__()
    program = f"import sys, time\nfrom search.recorder import Ledger\nfrom pathlib import Path\nheld = Ledger(Path({str(tmp_path)!r})).__enter__()\nprint('held', flush=True)\ntime.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RequestError):
            Ledger(tmp_path).__enter__()
        holder.kill()
    with Ledger(tmp_path) as ledger:
        ledger.append(record("a"))


def test_a_process_that_was_forked_off_does_not_hold_a_dead_command_s_study(tmp_path):
    program = (
        "import os, time\nfrom pathlib import Path\nfrom search.recorder import Ledger\n"
        f"held = Ledger(Path({str(tmp_path)!r})).__enter__()\n"
        "child = os.fork()\nif not child:\n    time.sleep(60)\nprint(child, flush=True)\ntime.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with holder:
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(RequestError):
                Ledger(tmp_path).__enter__()
            holder.kill()
            holder.wait()
            os.kill(child, 0)  # it lives
            with Ledger(tmp_path) as ledger:
                ledger.append(record("a"))
        finally:
            os.kill(child, signal.SIGKILL)
