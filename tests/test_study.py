"""A study folder is made once, extended by larger requests, and refuses those that contradict it."""

import csv
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from search.compose import compose_study, unused, with_confirmation
from search.plan import make_plan
from search.sampling import Strategy
from search.study import check_writable, held, read_study, store_data, write_study
from trainables.data.pack import load_pack
from trainables.parts import code
from trainables.parts.code import fingerprint
from trainables.parts.errors import RequestError
from trainables.parts.execution import digest


@pytest.fixture
def compose(toy, toy_pack):
    """study.json of a request."""

    def make(old=None, pack=toy_pack, preset="quick", accept_code=False, **request):
        used = fingerprint() if old is None else old.get("code", "")
        plan = make_plan(toy, preset=preset, data_hash=pack.hash, code=used, **request)
        return compose_study(
            toy, plan, name="s", preset=preset, source={"source": "synthetic"}, pack=pack, command="c", old=old, accept_code=accept_code
        )

    return make


def test_a_new_study_says_what_was_asked(compose, toy_pack):
    study = compose(tables=["1"], repeats=2, trials=3)
    assert json.loads(json.dumps(study, allow_nan=False)) == study
    assert (study["seeds"], study["repeats"], study["trials"], study["seed"]) == ([0, 1], 2, 3, 0)
    assert study["data"]["hash"] == toy_pack.hash and study["data"]["counts"] == {"dark": 30, "bright": 30}
    assert sum(study["data"]["parts"].values()) == study["data"]["images"] == 60
    assert study["baseline"]["rate"] == 0.02 and study["objective"]["metric"] == "val_accuracy"
    (table,) = study["tables"]
    assert [arm["name"] for arm in table["arms"]] == ["plain", "bent, a little", "slow"] and table["metric"] == "test_accuracy"
    assert table["baseline_arm"] == "plain" and len({arm["config_hash"] for arm in table["arms"]}) == 3
    assert study["space"]["bend"]["when"] == {"form": ["bent"]} and study["space"]["rate"]["log"] is True


def test_the_same_request_again_changes_nothing(compose):
    study = compose(tables=["1"], repeats=2, trials=3)
    assert compose(old=json.loads(json.dumps(study)), tables=["1"], repeats=2, trials=3) == json.loads(json.dumps(study))


def test_a_larger_request_extends_and_keeps_what_was_there(compose):
    first = compose(tables=["2"], arms=["a little"], repeats=1, trials=2)
    second = compose(old=first, tables=["1"], repeats=3, trials=4)
    assert [table["number"] for table in second["tables"]] == ["1", "2"]
    assert second["tables"][1] == first["tables"][0]
    assert (second["seeds"], second["trials"], second["created"], second["command"]) == ([0, 1, 2], 4, first["created"], "c")
    third = compose(old=second, tables=["2"], repeats=3, trials=4)
    assert [arm["name"] for arm in third["tables"][1]["arms"]] == ["none", "a little"], "in the order of the declaration"
    assert third["tables"][0] == second["tables"][0]


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ({"seed": 1}, "seed: the study has 0, asked for 1"),
        ({"overrides": {"rate": 0.5}}, "settings.rate: the study has 0.02, asked for 0.5"),
        ({"strategy": Strategy("random")}, "search.sampler: the study has tpe, asked for random"),
        ({"strategy": Strategy(scheduler="hyperband")}, "search.scheduler: the study has asha, asked for hyperband"),
        ({"strategy": Strategy(grace=5)}, "search.grace: the study has 2, asked for 5"),
        ({"strategy": Strategy(source="other")}, "search.source: the study has None, asked for other"),
    ],
)
def test_a_contradiction_is_refused_with_the_difference(compose, request_, line):
    with pytest.raises(RequestError) as caught:
        compose(old=compose(), **request_)
    assert caught.value.faults[1:] == [f"  {line}"] and "--name" in caught.value.faults[0]


def test_how_a_study_is_searched_may_be_said_when_it_first_is(compose):
    """Its tables came first, or it is older than these words."""
    other = Strategy("random", "none", second="parameters")
    found = compose(old=compose(trials=0), trials=2, strategy=other)
    assert found["search"]["sampler"] == "random" and found["objective"]["second"] == {"metric": "parameters", "direction": "minimize"}
    old = {name: value for name, value in compose().items() if name != "search"}
    assert compose(old=old, strategy=other)["search"]["sampler"] == "random"


def test_all_differences_are_shown_at_once(compose, toy):
    other = toy.procedure.synthesize(toy.procedure.config(), images=40, seed=1)
    with pytest.raises(RequestError) as caught:
        compose(old=compose(), pack=other, seed=3, overrides={"rate": 0.5, "bend": 0.9})
    assert [line.split(":")[0].strip() for line in caught.value.faults[1:]] == [
        "data hash",
        "seed",
        "settings.bend",
        "settings.rate",
    ]


def test_what_is_written_is_read_again_whole_or_not_at_all(compose, tmp_path, monkeypatch):
    assert read_study(tmp_path) is None
    study = compose()
    write_study(tmp_path, study)
    assert read_study(tmp_path) == json.loads(json.dumps(study))

    def die(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("trainables.parts.checkpoint.os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_study(tmp_path, study | {"study": "other"})
    assert read_study(tmp_path)["study"] == "s" and [path.name for path in tmp_path.iterdir()] == ["study.json"]


@pytest.mark.parametrize("content", ["{", '"x"', "[1]", '{"schema": 2}', "{}", "\udcff"])
def test_a_damaged_or_foreign_study_is_refused(tmp_path, content):
    (tmp_path / "study.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(RequestError, match="give the study another --name"):
        read_study(tmp_path)


def test_data_and_splits_are_stored_as_they_were_used(toy, toy_pack, tmp_path):
    parts = toy.procedure.parts(toy.procedure.config(), toy_pack, 0)
    stored = store_data(tmp_path, toy_pack, {"60-20-20": parts})
    assert isinstance(stored.images, np.memmap) and not stored.images.flags.writeable
    assert stored.hash == toy_pack.hash == load_pack(tmp_path / "data", verify=True).hash
    with open(tmp_path / "splits" / "60-20-20.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    for part, index in parts.items():
        assert {row["file"] for row in rows if row["part"] == part} == {toy_pack.files[i] for i in index}
    assert all(row["label"] == row["file"].split("/")[0] for row in rows)


def test_a_folder_that_cannot_be_made_is_refused_and_one_that_can_holds_nothing_after(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="--storage must be a folder that can be written"):
        check_writable(tmp_path / "file" / "study")
    check_writable(tmp_path / "new" / "study")
    assert list((tmp_path / "new" / "study").iterdir()) == []


def test_the_best_of_the_search_stands_beside_the_published_settings(compose):
    study = compose(tables=["1"])
    new = with_confirmation(study, "a" * 32, "b" * 32, "trial 1", {"rate": 0.05})
    assert [table["number"] for table in new["tables"]] == ["1", "search"] and len(study["tables"]) == 1
    assert [(arm["name"], arm["overrides"]) for arm in new["tables"][1]["arms"]] == [
        ("baseline settings", {}),
        ("trial 1", {"rate": 0.05}),
    ]
    again = with_confirmation(new, "a" * 32, "a" * 32, "trial 0", {})
    assert [arm["name"] for arm in again["tables"][1]["arms"]] == ["baseline settings"], "the best point is the published one"
    assert [table["number"] for table in again["tables"]] == ["1", "search"]
    assert [table["number"] for table in compose(old=again, tables=["2"])["tables"]] == ["1", "2", "search"]


# -- the lock ----------------------------------------------------------------------------------------------------------------------------


def test_a_second_driver_is_refused_and_let_in_once_the_first_has_gone_or_died(tmp_path):
    with held(tmp_path), pytest.raises(RequestError, match="another search is at work"):
        held(tmp_path).__enter__()
    program = f"import sys, time\nfrom search.study import held\nfrom pathlib import Path\nholding = held(Path({str(tmp_path)!r}))\nholding.__enter__()\nprint('held', flush=True)\ntime.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RequestError):
            held(tmp_path).__enter__()
        holder.kill()
    with held(tmp_path):
        pass


def test_a_process_that_was_forked_off_does_not_hold_a_dead_command_s_study(tmp_path):
    program = (
        "import os, time\nfrom pathlib import Path\nfrom search.study import held\n"
        f"holding = held(Path({str(tmp_path)!r}))\nholding.__enter__()\n"
        "child = os.fork()\nif not child:\n    time.sleep(60)\nprint(child, flush=True)\ntime.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with holder:
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(RequestError):
                held(tmp_path).__enter__()
            holder.kill()
            holder.wait()
            os.kill(child, 0)  # it lives
            with held(tmp_path):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSYS, "Function not implemented.*has no locks.*-o flock"),
        (errno.ENOLCK, "No locks available.*has no locks"),
        (errno.EOPNOTSUPP, "has no locks"),
        (errno.ENOSPC, "No space left on device.*make room"),
        (errno.EIO, "Input/output error.*another --storage"),
    ],
)
def test_a_lock_that_cannot_be_had_is_told_by_its_cause(tmp_path, monkeypatch, number, words):
    def refuse(handle, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RequestError, match=words) as caught, held(tmp_path):
        pass
    assert "another search" not in str(caught.value)
    monkeypatch.undo()
    with held(tmp_path):
        pass


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EMFILE, "Too many open files.*ulimit -n"),
        (errno.EACCES, "Permission denied.*change its permissions"),
        (errno.EROFS, "Read-only file system.*change its permissions"),
    ],
)
def test_a_lock_file_that_cannot_be_opened_is_told_by_its_cause(tmp_path, monkeypatch, number, words):
    real = os.open

    def refuse(path, *arguments, **more):
        if str(path).endswith(".lock"):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RequestError, match=words) as caught, held(tmp_path):
        pass
    assert "another search" not in str(caught.value)


# -- less than before, and other code --------------------------------------------------------------------------------------------------


def test_a_study_may_be_asked_for_less_and_for_more_again(compose):
    first = compose(trials=40, repeats=4)
    less = compose(old=first, trials=3, repeats=2)
    assert (less["trials"], less["repeats"], less["seeds"]) == (3, 2, [0, 1]) and less["most"] == {"trials": 40, "repeats": 4}
    ran = {str(seed): {"seed": seed, "trial": seed} for seed in range(4)}
    assert unused(first, ran) == []
    repeats, trials_ = unused(less, ran)
    assert repeats.startswith("2 of 4 repeats are asked for now; runs of seed 2, 3 are kept and stay unused")
    assert trials_.startswith("3 of 40 trials are asked for now; 4 have ended, and all of them count")
    more = compose(old=less, trials=50, repeats=4)
    assert more["most"] == {"trials": 50, "repeats": 4} and unused(more, ran) == []


def test_how_a_study_was_searched_stays_though_no_trial_is_asked_for_now(compose):
    none = compose(old=compose(trials=5), trials=0)
    with pytest.raises(RequestError, match=r"search\.sampler: the study has tpe, asked for random"):
        compose(old=none, trials=5, strategy=Strategy("random"))


def test_other_code_is_refused_with_the_difference_and_accepted_where_that_is_asked(compose, monkeypatch):
    first = compose()
    assert first["code"] == fingerprint() and [one["fingerprint"] for one in first["codes"]] == [fingerprint()]
    other = code.known() | {"fingerprint": "0" * 32, "versions": dict(code.versions()) | {"torch": "9.9"}}
    other["files"] = dict(code.files()) | {"supcam.py": "0" * 16, "new.py": "1" * 16}
    monkeypatch.setattr(code, "known", lambda: dict(other))
    with pytest.raises(RequestError) as caught:
        compose(old=first)
    torch = code.versions()["torch"]
    assert [line.strip() for line in caught.value.faults[2:]] == [
        "trainables/new.py: added", "trainables/supcam.py: changed", f"torch {torch} -> 9.9",
    ]  # fmt: skip
    assert "--accept-code" in caught.value.faults[1]
    accepted = compose(old=first, accept_code=True)
    assert accepted["code"] == first["code"] and [one["fingerprint"] for one in accepted["codes"]] == [fingerprint(), "0" * 32]
    assert compose(old=accepted)["codes"] == accepted["codes"], "what was accepted once is not asked again"
    monkeypatch.undo()
    assert compose(old=accepted)["codes"] == accepted["codes"]


def test_a_study_of_before_code_was_kept_goes_on_where_that_is_accepted_and_its_keys_stay(compose, toy, toy_pack):
    old = {name: value for name, value in compose().items() if name not in ("code", "codes", "most")}
    with pytest.raises(RequestError, match="begun by a version that did not keep which code trained"):
        compose(old=old)
    accepted = compose(old=old, accept_code=True)
    assert accepted["code"] == "" and [one["fingerprint"] for one in accepted["codes"]] == [fingerprint()]
    config = toy.procedure.config()
    run = make_plan(toy, preset="quick", data_hash=toy_pack.hash, code="").run_of(config, 0)
    assert run.key == digest(["toy", run.config_hash, 0, toy_pack.hash])
