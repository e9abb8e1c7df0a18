"""What a folder proves, and what it is accused of when it was meddled with."""

import errno
import json
import os
import shutil

import pytest

from search import cli
from search.history import check
from search.ledger import record_of
from search.lines import seal
from search.study import read_study
from trainables.parts import code
from trainables.parts.execution import MODEL


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """A study that has ended: a search, a table, two seeds."""
    from driving import Inside

    with pytest.MonkeyPatch.context() as patch:
        inside = Inside(patch, toy, tmp_path_factory.mktemp("made"))
        assert inside("--trials", "3", "--repeats", "2", "--tables", "1") == 0
    return inside.study


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / made.name)


def rewrite(folder, change):
    """Change records, and seal them again as one who forges would."""
    path = folder / "records.jsonl"
    records = [record_of(line) for line in path.read_bytes().splitlines()]
    records = change(records) or records
    path.write_bytes(b"".join(seal(json.dumps(record).encode()) + b"\n" for record in records))


def test_a_study_that_has_ended_is_without_violation_and_is_not_touched(toy, made):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    history = check(made, toy)
    assert history.violations == () and "no violation" in history.summary
    numbers = sum(len(table["arms"]) for table in read_study(made)["tables"])
    assert numbers > 3 and f"{numbers} numbers in tables" in history.summary
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


def completed(records, arm="1/plain"):
    return next(record for record in records if record["status"] == "completed" and arm in record["arms"])


def drop(records):
    return [record for record in records if record["key"] != completed(records, "1/slow")["key"]]


def nudge(records):
    completed(records)["metrics"]["test_accuracy"] += 0.1


def other_settings(records):
    completed(records)["params"]["rate"] = 0.5


def other_seed(records):
    completed(records)["seed"] = 7


def other_value(records):
    for record in records:
        if record["trial"] == 1:
            record["metrics"]["val_accuracy"] += 0.05


def twice(records):
    first = completed(records)
    return [*records, first | {"lives": first["lives"] * 2}]


def behind_a_checkpoint(records):
    lives = completed(records)["lives"]
    lives.append({"worker": "a:1", "epochs": {"tune": [1, 2]}, "saved": {"tune": 2}})


def stage_again(records):
    other = completed(records, "1/bent, a little")
    assert other["stages_reused"] == ["warm"]
    other["lives"][0]["epochs"]["warm"] = [1, 3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop, "1, slow, seed 0 has no record"),
        (nudge, "table 1, plain, test_accuracy: the table says"),
        (other_settings, "its key is not that of its settings"),
        (other_seed, "its key is not that of its settings"),
        (other_value, "trial 1 was told"),
        (twice, "was trained a second time after it had completed"),
        (behind_a_checkpoint, "was trained again, though a checkpoint"),
        (stage_again, "was trained by 2 runs"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_forged_ledger_is_found_out(toy, folder, change, words):
    rewrite(folder, change)
    assert any(words in violation for violation in check(folder, toy).violations), check(folder, toy)


@pytest.mark.parametrize(
    ("meddle", "words"),
    [
        (lambda folder: (folder / "optuna.journal").unlink(), "optuna.journal is missing"),
        (lambda folder: (folder / "optuna.journal").write_text("nonsense\n"), "optuna.journal cannot be read"),
        (lambda folder: (folder / "tables" / "table-1.csv").unlink(), "table-1.csv is missing"),
        (lambda folder: shutil.copytree(next((folder / "checkpoints").glob("*")), folder / "checkpoints" / "0123456789abcdef"), "belongs to no record"),
        (lambda folder: [path.unlink() for path in folder.glob(f"checkpoints/*/{MODEL}")], "its model is gone"),
        (lambda folder: shutil.rmtree(folder / "best"), "best/ is missing"),
        (lambda folder: (folder / "best" / "metrics.json").write_text("{}"), "best/ is damaged"),
    ],
    ids=["journal gone", "journal damaged", "table gone", "foreign model", "models gone", "best gone", "best's metrics"],
)  # fmt: skip
def test_a_meddled_folder_is_found_out(toy, folder, meddle, words):
    meddle(folder)
    assert any(words in violation for violation in check(folder, toy).violations), check(folder, toy)


def test_the_command_line_says_it_and_ends_with_status_1(inside, made, capsys):
    shutil.copytree(made, inside.study)
    assert inside("check") == 0 and "no violation" in capsys.readouterr().out
    rewrite(inside.study, nudge)
    assert inside("check") == 1 and "violation: table 1, plain, test_accuracy" in capsys.readouterr().out


# -- studies that have not ended, or are searched otherwise ------------------------------------------------------------------------------


def test_a_search_by_two_objectives_is_looked_at_too(toy, inside):
    assert inside("--objective", "score,parameters", "--scheduler", "none", "--trials", "3", "--tables", "none", "--repeats", "1") == 0
    assert check(inside.study, toy).violations == ()

    def lighter(records):
        for record in records:
            record["metrics"]["parameters"] = 1.0

    rewrite(inside.study, lighter)
    assert any("was told" in words and "1.0" in words for words in check(inside.study, toy).violations)


@pytest.mark.slow
def test_a_search_by_two_objectives_starts_from_another_and_from_none_that_did_not_measure_both(toy, inside, capsys):
    common = ("--trials", "3", "--tables", "none", "--repeats", "1", "--scheduler", "none", "--sampler", "random")
    two = ("--objective", "score,parameters")
    assert inside("--name", "one", *common, *two) == 0
    assert inside("--name", "two", *common, *two, "--from", str(inside.study.parent / "one")) == 0
    assert check(inside.study.parent / "two", toy).violations == ()
    assert inside("--name", "two", *common, *two, "--from", str(inside.study.parent / "one")) == 0
    assert inside("--name", "plain", *common) == 0
    capsys.readouterr()
    assert inside("--name", "three", *common, *two, "--from", str(inside.study.parent / "plain")) == 2
    assert "were not measured by parameters" in capsys.readouterr().err


@pytest.mark.slow
def test_searches_of_arms_that_have_not_ended_are_named_until_they_have(toy, inside):
    words = ("--retune", "--tables", "1", "--trials", "2", "--repeats", "1")
    inside.most = 4
    inside(*words)
    history = check(inside.study, toy)
    assert any("trials were asked for" in violation and "the search of" in violation for violation in history.violations)
    assert any("1-retuned has no row" in violation for violation in history.violations)
    inside.most = None
    assert inside(*words) == 0
    assert check(inside.study, toy).violations == ()


def test_trials_that_came_from_another_study_are_none_of_this_one_s(toy, inside):
    common = ("--trials", "4", "--tables", "none", "--repeats", "1", "--scheduler", "none", "--sampler", "random")
    assert inside("--name", "one", *common) == 0
    inside.study = inside.storage / "two"
    inside.most = 1
    inside("--name", "two", "--from", str(inside.storage / "one"), *common)
    assert any("4 trials were asked for" in violation for violation in check(inside.study, toy).violations)


@pytest.mark.slow
def test_a_race_that_is_not_decided_is_named(toy, inside):
    words = ("--trials", "3", "--tables", "none", "--scheduler", "none", "--sampler", "random")
    assert inside(*words, "--repeats", "2") == 0
    assert check(inside.study, toy).violations == ()
    inside.most = 1
    inside(*words, "--repeats", "3")
    assert any("have not raced on all seeds" in violation for violation in check(inside.study, toy).violations)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text(path.read_text().replace(",", ";")),  # as Excel saves it in many countries
        lambda path: path.write_bytes(b"arm,metric,mean,n\n\xff\xfe,a,1,1\n"),
        lambda path: path.write_text("arm,metric,mean,n\nplain,test_accuracy,abc,2\n"),
        lambda path: path.write_text("arm,metric,mean,n\nplain\n"),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_table_that_another_program_saved_is_named(toy, folder, spoil):
    spoil(folder / "tables" / "table-1.csv")
    (words,) = check(folder, toy).violations
    assert words.startswith("tables/table-1.csv is damaged, or was saved by another program")


def test_a_flipped_bit_in_a_model_of_a_table_or_of_the_export_is_named(toy, folder):
    record = completed([record_of(line) for line in (folder / "records.jsonl").read_bytes().splitlines()])
    for path, words in (
        (folder / "checkpoints" / record["key"] / MODEL, "its model is damaged and cannot be used"),
        (folder / "best" / "model.safetensors", "best/ is damaged, or belongs to no record"),
    ):
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 4]))
        history = check(folder, toy)
        assert [words in found for found in history.violations + history.notes] == [True]
        path.write_bytes(before)
    (folder / "best" / "metrics.json").write_text('{"metrics": 5}')
    assert len(check(folder, toy).violations) == 1


def test_a_record_of_before_some_fields_were_kept_is_no_traceback(toy, folder):
    rewrite(folder, lambda records: records[0].pop("epochs") and records[0].pop("stages_reused") and None)
    assert isinstance(check(folder, toy).violations, tuple)


# -- other code, other versions, less than before ----------------------------------------------------------------------------------------


def test_runs_of_other_versions_are_named_and_code_that_was_not_accepted_is_a_violation(toy, folder):
    def upgrade(records):
        completed(records)["versions"]["torch"] = "9.9"

    rewrite(folder, upgrade)
    history = check(folder, toy)
    assert not history.violations and any("more than one version of torch" in note and "1 run 9.9" in note for note in history.notes)

    def foreign(records):
        completed(records)["code"] = "beef" * 8

    rewrite(folder, foreign)
    (words,) = check(folder, toy).violations
    assert "trained by code beefbeef, which the study does not know" in words


def test_a_stage_that_another_processor_trained_is_said_of_the_run_that_took_it(toy, inside, monkeypatch, capsys):
    words = ("--trials", "0", "--repeats", "1", "--tables", "1", "--arms")
    assert inside(*words, "plain") == 0
    own = code.processor()
    monkeypatch.setattr(code, "processor", lambda: "Another (AVX512)")
    capsys.readouterr()
    assert inside(*words, "plain,bent*") == 0
    assert f"1 run on {own}, 1 run on {' and '.join(sorted([own, 'Another (AVX512)']))}" in capsys.readouterr().out
    plain, bent = [record_of(line) for line in (inside.study / "records.jsonl").read_bytes().splitlines()]
    assert "stage_devices" not in plain and bent["processor"] == "Another (AVX512)"
    assert bent["stage_devices"] == {"warm": [own]}


def test_a_study_goes_on_with_other_code_where_that_is_accepted_and_report_and_check_say_so(toy, inside, monkeypatch, capsys):
    words = ("--trials", "0", "--repeats", "1", "--tables", "1", "--arms")
    assert inside(*words, "plain") == 0
    known = code.known()
    monkeypatch.setattr(code, "fingerprint", lambda: "beef" * 8)
    monkeypatch.setattr(code, "known", lambda: known | {"fingerprint": "beef" * 8, "files": known["files"] | {"supcam.py": "0" * 16}})
    capsys.readouterr()
    assert inside(*words, "plain,bent*") == 2
    assert "trainables/supcam.py: changed" in (said := capsys.readouterr().err) and "--accept-code" in said
    assert inside(*words, "plain,bent*", "--accept-code") == 0
    assert "more than one code" in capsys.readouterr().out
    assert len(inside.trained) == 2, "what had ended is not trained again"
    plain, bent = [record_of(line) for line in (inside.study / "records.jsonl").read_bytes().splitlines()]
    assert (plain["code"], bent["code"]) == (known["fingerprint"], "beef" * 8) and "stage_codes" not in plain
    assert bent["stage_codes"] == {"warm": [known["fingerprint"]]}, "its pre-training is the old code's, and says so"
    assert inside(*words, "plain,bent*") == 0, "accepted once"
    history = check(inside.study, toy)
    assert not history.violations and any("more than one code" in note for note in history.notes)
    assert "more than one code" in (inside.study / "report.html").read_text()
    assert "more than one code" in (inside.study / "tables" / "table-1.md").read_text()


def test_code_that_was_accepted_once_does_not_have_resume_accept_what_is_changed_later(inside, monkeypatch, capsys):
    words = ("--trials", "0", "--repeats", "1", "--tables", "1", "--arms")
    assert inside(*words, "plain") == 0
    known = code.known()

    def change(fingerprint):
        monkeypatch.setattr(code, "fingerprint", lambda: fingerprint)
        monkeypatch.setattr(code, "known", lambda: known | {"fingerprint": fingerprint})

    change("beef" * 8)
    assert inside(*words, "plain,bent*", "--accept-code") == 0
    change("dead" * 8)
    capsys.readouterr()
    assert cli.main(["resume", str(inside.study)]) == 2 and "--accept-code" in capsys.readouterr().err
    assert cli.main(["resume", str(inside.study), "--accept-code"]) == 0


@pytest.mark.slow
def test_a_study_that_is_asked_for_less_is_whole_exported_and_may_be_asked_for_more_again(toy, inside, capsys):
    common = ("--tables", "1", "--scheduler", "none", "--sampler", "random")
    inside.most = 5
    inside(*common, "--trials", "40", "--repeats", "3")
    inside.most = None
    capsys.readouterr()
    assert inside(*common, "--trials", "2", "--repeats", "1") == 0
    out = capsys.readouterr().out
    assert "1 of 3 repeats are asked for now" in out and "2 of 40 trials are asked for now" in out and "model " in out
    assert check(inside.study, toy).violations == ()
    assert inside("export") == 0 and inside("check") == 0
    before = len(inside.trained)
    assert inside(*common, "--trials", "2", "--repeats", "1") == 0 and len(inside.trained) == before
    assert inside(*common, "--trials", "6", "--repeats", "2") == 0 and len(inside.trained) > before
    assert check(inside.study, toy).violations == ()


def test_a_file_system_without_modes_is_no_fault(toy, inside, monkeypatch):
    def refuse(path, *arguments, **more):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    monkeypatch.setattr(os, "chmod", refuse)
    monkeypatch.setattr(os, "fchmod", refuse)
    assert inside("--trials", "0", "--repeats", "1", "--tables", "1", "--arms", "plain") == 0
    assert check(inside.study, toy).violations == () and (inside.study / "best").exists()
