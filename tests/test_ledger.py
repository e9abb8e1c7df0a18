"""The ledger: what is in it is on the disk, whatever else is damaged, and one driver writes it."""

import errno
import json
import os
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search import lines as writing
from search.ledger import Ledger
from trainables.parts.errors import RequestError, StorageFault


def record(key, status="completed", **more):
    return {
        "schema": 1, "key": key, "status": status, "metrics": {}, "seed": 0, "params": {}, "config_hash": "c", "data_hash": "d", "arms": [],
        "stage_hashes": {}, "history": [], "trial": None, "error": None,
    } | more  # fmt: skip


def slim(*arguments, **more):
    """What a ledger keeps in memory of it."""
    return {name: value for name, value in record(*arguments, **more).items() if name != "history"}


def test_what_is_appended_is_read_again_and_the_newest_of_a_key_stands(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.append(record("a", "failed"))
        ledger.append(record("b"))
        ledger.append(record("a", seconds=3.5))
    again = Ledger(tmp_path)
    again.read()
    assert again.records == {"a": slim("a", seconds=3.5), "b": slim("b")}
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
        assert ledger.records == {"a": slim("a", seconds=6)}
    again = Ledger(tmp_path)
    again.read()
    assert again.records == ledger.records


def test_a_record_is_on_the_disk_before_append_returns(tmp_path, monkeypatch):
    events = []
    real = os.fsync
    monkeypatch.setattr(writing.os, "fsync", lambda handle: (events.append(os.fstat(handle).st_size), real(handle)))
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


def test_what_is_bulky_stays_on_the_disk_and_is_read_from_there(tmp_path):
    rows = [{"stage": "warm", "epoch": epoch, "loss": 0.1 * epoch} for epoch in range(1, 4)]
    lives = [{"worker": "host:1", "epochs": {"warm": [1, 3]}, "saved": {}}]
    with Ledger(tmp_path) as ledger:
        ledger.append(record("a", "failed", history=rows[:1]))
        ledger.append(record("b", note="ü" * 100))
        ledger.append(record("a", history=rows, lives=lives))
        ledger.append(record("a", "failed", history=rows[:2]))
        again = Ledger(tmp_path)
        again.read()
        for one in (ledger, again):
            assert not {"history", "lives"} & one.records["a"].keys()
            assert one.history("a") == rows and one.whole("a") == record("a", history=rows, lives=lives)
            assert one.whole("b") == record("b", note="ü" * 100)
        with pytest.raises(KeyError):
            ledger.whole("c")
        assert [(one["key"], len(one["history"])) for one in again.every()] == [("a", 1), ("b", 0), ("a", 3), ("a", 2)]


def test_a_record_that_lacks_what_the_ledger_left_on_the_disk_is_not_written(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.append(record("a", history=[{"stage": "warm", "epoch": 1}]))
        with pytest.raises(ValueError, match="history"):
            ledger.append(ledger.records["a"])
        ledger.append(ledger.whole("a") | {"seconds": 2.0})
        assert ledger.history("a") and ledger.records["a"]["seconds"] == 2.0


def test_a_long_study_takes_little_memory(tmp_path):
    rows = [{"stage": "warm", "epoch": epoch, "loss": 0.1 * epoch, "val_early": 0.2, "seconds": 1.0} for epoch in range(500)]
    line = writing.seal(json.dumps(record("a", history=rows, metrics={"val_accuracy": 0.5})).encode())
    unsealed = json.dumps(record("KEY", history=rows)).encode()
    (tmp_path / "records.jsonl").write_bytes(b"".join(writing.seal(unsealed.replace(b"KEY", b"%032d" % key)) + b"\n" for key in range(50)))
    ledger = Ledger(tmp_path)
    tracemalloc.start()
    try:
        ledger.read()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(ledger.records) == 50 and held < 50 * len(line) / 5


def test_places_are_those_of_the_mended_file(tmp_path):
    good = [json.dumps(record(key, history=[{"of": key}])).encode() for key in "abc"]
    (tmp_path / "records.jsonl").write_bytes(good[0] + b"\nnonsense\n\n" + good[1] + b"\n" + good[2])
    with Ledger(tmp_path) as ledger:
        assert all(ledger.history(key) == [{"of": key}] for key in "abc")
        ledger.append(record("d", history=[{"of": "d"}]))
        assert ledger.history("d") == [{"of": "d"}] and ledger.history("c") == [{"of": "c"}]


def test_a_line_that_was_damaged_while_the_ledger_was_open_is_no_other_run_s_history(tmp_path):
    with Ledger(tmp_path) as ledger:
        for key in "ab":
            ledger.append(record(key, history=[{"of": key}]))
        one, two = ledger.path.read_bytes().splitlines(keepends=True)
        for content in (two + one, one[:40], one.replace(b'"of": "a"', b'"of": "c"')):
            ledger.path.write_bytes(content)
            with pytest.raises(RequestError, match="was changed while it was in use"):
                ledger.history("a")
        ledger.path.unlink()
        with pytest.raises(RequestError):
            ledger.history("b")


def test_a_record_with_a_file_s_name_that_is_no_utf_8_is_read_again(tmp_path):
    error = {"kind": "error", "message": "x\udcff.png"}
    with Ledger(tmp_path) as ledger:
        ledger.append(record("a", "failed", error=error))
    again = Ledger(tmp_path)
    again.read()
    assert again.records["a"]["error"] == error and not again.warnings


# -- trials ------------------------------------------------------------------------------------------------------------------------------

POINT = {"rate": 0.1 + 0.2, "form": "bent", "depth": 3, "flip": True, "crop": None}


def test_a_trial_that_was_asked_is_on_the_disk_and_is_read_again_by_its_search(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    with Ledger(tmp_path) as ledger:
        monkeypatch.setattr(writing.os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_size), real(handle)))
        ledger.ask("", 0, POINT)
        assert synced == [(tmp_path / "trials.jsonl").stat().st_size]
        ledger.ask("", 0, POINT)
        assert len(synced) == 1, "the same again is not written again"
        ledger.ask("arm", 0, {"rate": 0.5})
        ledger.ask("", 1, {})
        with pytest.raises(ValueError, match="JSON"):
            ledger.ask("", 2, {"rate": float("nan")})
    wanted = {("", 0): POINT, ("arm", 0): {"rate": 0.5}, ("", 1): {}}
    assert ledger.asked == wanted
    again = Ledger(tmp_path)
    again.read()
    assert again.asked == wanted and not again.warnings
    with pytest.raises(RuntimeError, match="not open"):
        again.ask("", 3, {})


@pytest.mark.parametrize("spoil", ["torn", "flipped", "foreign", "unsealed", "gone"])
def test_a_damaged_trial_is_set_aside_with_words_and_the_others_stand(tmp_path, spoil):
    with Ledger(tmp_path) as ledger:
        ledger.append(record("a"))
        for trial in range(3):
            ledger.ask("", trial, {"rate": trial / 10})
    path = tmp_path / "trials.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    bad = {
        "torn": lines[2][:-20], "flipped": lines[2].replace(b"0.2", b"0.3"), "foreign": b'{"schema": 1, "search": 3}\n',
        "unsealed": b'{"schema": 1, "search": "", "trial": 2, "point": {}}\n', "gone": b"",
    }[spoil]  # fmt: skip
    if spoil == "gone":
        path.unlink()
    else:
        path.write_bytes(b"".join(lines[:2]) + bad)
    only_read = Ledger(tmp_path)
    only_read.read()
    before = {("", 0): {"rate": 0.0}, ("", 1): {"rate": 0.1}} if spoil != "gone" else {}
    assert only_read.asked == before and bool(only_read.warnings) == (spoil != "gone")
    with Ledger(tmp_path) as again:
        assert again.asked == before and list(again.records) == ["a"]
        assert [("trials.jsonl: 1 line(s)" in words and "trials.torn" in words) for words in again.warnings] == [True] * (spoil != "gone")
        again.ask("", 2, {"rate": 0.9})
    with Ledger(tmp_path) as last:
        assert last.asked == before | {("", 2): {"rate": 0.9}} and not last.warnings
    if spoil != "gone":
        assert (tmp_path / "trials.torn").read_bytes().rstrip(b"\n") == bad.rstrip(b"\n")


def test_a_disk_that_is_full_when_a_trial_is_asked_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Ledger(tmp_path) as ledger:
        ledger.ask("", 0, POINT)
        before = (tmp_path / "trials.jsonl").read_bytes()
        monkeypatch.setattr(writing.os, "fsync", full)
        with pytest.raises(StorageFault, match=r"trials\.jsonl could not be written: No space left on device"):
            ledger.ask("", 1, POINT)
        monkeypatch.undo()
        assert (tmp_path / "trials.jsonl").read_bytes() == before and list(ledger.asked) == [("", 0)]
