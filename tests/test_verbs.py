"""Each verb does what its help says; exit statuses; what is taken from the environment; what is not done twice."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search import api, cli, prepare, registry
from search.folders import at_work
from search.home import STOP
from search.request import Request, read_file
from trainables.data.pack import save_pack

WORDS = ("--trials", "0", "--repeats", "1", "--tables", "1")


@pytest.fixture
def say(inside, capsys, monkeypatch):
    """(status, standard output, standard error) of a command beside the study of `inside`."""
    monkeypatch.setenv("KARYOTUNE_STORAGE", str(inside.storage))

    def call(*words):
        capsys.readouterr()
        status = cli.main([str(word) for word in words])
        told = capsys.readouterr()
        return status, told.out, told.err

    return call


@pytest.fixture
def packed(toy_pack, tmp_path):
    """A folder of images."""
    return save_pack(toy_pack, tmp_path / "packed")


def test_a_study_is_listed_shown_checked_reported_exported_and_removed(inside, say):
    assert say("ls")[:2] == (0, f"no study in {inside.storage}\n")
    assert inside(*WORDS) == 0
    status, out, _ = say("ls")
    assert status == 0 and out.startswith("toy-quick-synthetic: finished, 3 completed, best ")
    (listed,) = json.loads(say("ls", "--json")[1])
    shown = json.loads(say("show", "toy-quick-synthetic", "--json")[1])
    assert listed == shown and shown["runs"] == {"completed": 3} and shown["waiting"] == 0 and shown["state"] == "finished"
    assert say("show", inside.study)[1].splitlines()[0] == out.strip()
    assert say("watch", "toy-quick-synthetic")[0] == 0, "it ends with the study"
    found = json.loads(say("check", "toy-quick-synthetic", "--json")[1])
    assert found["violations"] == [] and "no violation" in found["summary"]
    (inside.study / "report.html").unlink()
    assert say("report", "toy-quick-synthetic")[0] == 0 and (inside.study / "report.html").exists()
    assert "proven equal" in say("export", "toy-quick-synthetic")[1]
    assert say("rm", "toy-quick-synthetic", "--yes")[0] == 0 and not inside.study.exists()


def test_a_study_that_is_not_there_is_refused_with_those_that_are(inside, say):
    assert "and none in" in say("show", "toy-quick")[2]
    assert inside(*WORDS) == 0
    status, _, error = say("show", "toy-quik-synthetic")
    assert status == 2 and "Did you mean 'toy-quick-synthetic'?" in error


def test_a_study_whose_file_cannot_be_read_is_damaged_and_not_finished(inside, say):
    bad = inside.storage / "bad"
    bad.mkdir(parents=True)
    (bad / "study.json").write_text('{"study": "bad", "trials')
    assert "bad: damaged, nothing has run" in say("ls", "--storage", str(inside.storage))[1]


def test_removing_asks_first(inside, say, monkeypatch):
    assert inside(*WORDS) == 0
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda prompt: "n")
    assert say("rm", "toy-quick-synthetic")[0] == 2 and inside.study.exists()


def test_a_study_at_work_is_not_removed_but_can_be_asked_to_stop(inside, say):
    assert inside(*WORDS) == 0
    assert "no command is at work" in say("stop", "toy-quick-synthetic")[2]
    with open(inside.study / ".lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert at_work(inside.study)
        assert "at work on" in say("rm", "toy-quick-synthetic", "--yes")[2] and inside.study.exists()
        assert json.loads(say("show", "toy-quick-synthetic", "--json")[1])["state"] == "at work"
        assert say("stop", "toy-quick-synthetic")[0] == 0 and (inside.study / STOP).exists()
    assert not at_work(inside.study)


def test_a_stop_that_another_command_asks_for_ends_a_study_in_order_with_status_3_and_resume_goes_on(inside, say, monkeypatch):
    from search import stopping

    monkeypatch.setattr(stopping, "LOOK_SECONDS", 0.01)
    real = inside.work

    def work(director, scheduler, job):
        real(director, scheduler, job)
        if len(inside.trained) == 1:
            (inside.study / STOP).touch()
            while not director.finished():
                time.sleep(0.01)

    monkeypatch.setattr(inside, "work", work)
    status, out, _ = say("toy", *WORDS)
    assert status == 3 and "stopping, as another command asked" in out and "it was stopped; the same command goes on" in out
    assert len(inside.trained) == 1
    status, out, _ = say("resume", "toy-quick-synthetic")
    assert status == 0 and "3 runs (3 completed), 2 of them now" in out


@pytest.mark.slow
def test_a_study_without_a_request_file_is_resumed_by_the_command_in_study_json(inside, say):
    assert inside(*WORDS) == 0
    (inside.study / "request.toml").unlink()
    status, out, _ = say("resume", inside.study)
    assert status == 0 and "3 runs (3 completed), 0 of them now" in out


def test_words_of_resume_win_over_what_was_asked(inside, say):
    assert inside(*WORDS, "--max-hours", "5") == 0
    assert say("resume", inside.study, "--max-hours", "2")[0] == 0
    assert read_file(inside.study / "request.toml")["max_hours"] == 2


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--tables", "1"), 0),
        (("--tables", "T", "--arms", "weights"), 1),
        (("--tables", "T", "--arms", "fine,weights"), 4),
        (("--tables", "1", "--max-hours", "1e-9"), 3),
    ],
)
def test_the_exit_status_says_how_the_study_stands(inside, monkeypatch, words, status):
    real = inside.work

    def work(director, scheduler, job):
        if job["config"]["trouble"] == "none":
            return real(director, scheduler, job)
        director.row(job["key"], {"end": "failed", "kind": "error", "message": "no toys"} | END)

    from driving import END

    monkeypatch.setattr(inside, "work", work)
    assert inside("--trials", "0", "--repeats", "1", *words) == status


def test_the_statuses_stand_in_the_help_and_each_verb_has_its_own(say):
    out = say("--help")[1]
    for status in ("0  all", "1  no run has completed", "2  the request", "3  unfinished", "4  some", "128 + n"):
        assert status in out
    for verb in (*cli.COMMANDS.commands, "toy"):
        status, out, _ = say(verb, "--help")
        assert status == 0 and out.startswith("Usage:")
    assert "--trials" not in say("show", "--help")[1] and "--yes" in say("rm", "--help")[1]


def test_a_procedure_is_described_on_one_page_with_the_units_of_its_settings(say, monkeypatch):
    monkeypatch.undo()
    out = say("describe", "supcam")[1]
    assert all(word in out for word in ("radians, added to the angle", "margin.self", "0.003:0.3, log", "P = 400", "--preset paper"))
    page = json.loads(say("describe", "supcam", "--json")[1])
    assert all(one["about"] for one in page["settings"] if one["name"] not in ("finetune_epochs", "rate_drop", "label_smoothing"))
    assert [table["number"] for table in page["tables"]] == ["1", "2", "3", "4", "5", "6", "S1", "S2", "S3", "F", "S4", "S5", "S6"]


def test_a_plan_is_a_verb_too_and_a_program_may_read_it(inside, say):
    status, out, _ = say("plan", "toy", *WORDS, "--json")
    found = json.loads(out)
    assert status == 0 and (found["asked"], found["different"], found["done"]) == (3, 3, 0) and found["guess"]["stages"] == 5
    assert json.loads(say("toy", "plan", *WORDS, "--json")[1]).keys() == found.keys() and not inside.study.exists()


@pytest.mark.slow
def test_what_is_taken_from_the_environment_is_said_first(inside, say, monkeypatch, packed):
    monkeypatch.setenv("KARYOTUNE_DATA", str(packed))
    status, out, error = say("toy", "--trials", "0", "--tables", "none")
    storage = f"storage {inside.storage} (KARYOTUNE_STORAGE)"
    assert status == 2 and out.splitlines()[0] == f"cluster of its own (default), data {packed} (KARYOTUNE_DATA), {storage}"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    status, out, error = say("toy", *WORDS)
    assert status == 2 and "no Ray cluster answers there" in error
    assert out.splitlines()[0] == f"cluster 127.0.0.1:1 (RAY_ADDRESS), data {packed} (KARYOTUNE_DATA), {storage}"
    monkeypatch.delenv("KARYOTUNE_DATA")
    line = say("toy", *WORDS, "--address", "127.0.0.1:1", "--storage", str(inside.storage))[1].splitlines()[0]
    assert line == f"cluster 127.0.0.1:1 (--address), data built-in set (default), storage {inside.storage} (--storage)"
    assert say("toy", *WORDS, "--address", "local")[0] == 0, "the word wins"


@pytest.mark.slow
def test_a_command_that_has_nothing_to_do_reads_no_image_again_unless_the_folder_was_touched(inside, toy_pack, tmp_path, monkeypatch):
    folder, read = tmp_path / "images", []
    folder.mkdir()
    (folder / "a.png").write_bytes(b"a")
    from dataclasses import replace

    def reading(*words):
        read.append(words)
        return toy_pack

    entry = replace(inside.toy, procedure=replace(inside.toy.procedure, read=reading))
    monkeypatch.setattr(registry, "load", lambda name: entry)
    words = ("--data", str(folder), *WORDS)
    assert inside(*words) == 0 and len(read) == 1
    assert inside(*words) == 0 and len(read) == 1
    os.utime(folder / "a.png", ns=(1, 1))
    assert inside(*words) == 0 and len(read) == 2
    assert inside(*words) == 0 and len(read) == 2, "the new times are kept"
    (inside.storage / "toy-quick-images" / "data" / "images.npy").write_bytes(b"")
    assert inside(*words) == 0 and len(read) == 3, "its own copy is damaged"


def test_a_notebook_runs_and_opens_a_study(inside):
    result = api.run(Request("toy", storage=inside.storage, trials=0, repeats=1, tables="1"))
    assert (result.status, result.runs, result.new) == (0, {"completed": 3}, 3)
    opened = api.open(result.folder)
    assert len(opened.records) == 3 and opened.best is not None and not opened.check().violations
    assert api.plan(Request("toy", storage=inside.storage, trials=0, repeats=1, tables="1")).done == 3


@pytest.mark.slow
def test_fewer_runs_at_once_are_asked_for_with_slots(inside, monkeypatch):
    seen = []
    monkeypatch.setattr(prepare, "machine_faults", lambda request: seen.append(request.slots) or [])
    assert inside(*WORDS, "--slots", "1") == 0 and seen == [1]


@pytest.mark.parametrize("words", [("supcam", "--tables", "9"), ("plan", "supcan"),
                                    ("supcam", "--arms", "Scrach"), ("supcam", "--preset", "quik"),
                                   ("supcam", "--space", "margn=0:1"), ("ls",), ("show", "nothing"), ("describe", "supcan")])  # fmt: skip
def test_a_misspelt_word_is_answered_without_torch(words, tmp_path):
    program = f"import sys\nfrom search.cli import main\nprint(main({words!r}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == ("0 False" if words == ("ls",) else "2 False"), done.stderr


def completed(words: str, cwd: Path) -> set[str]:
    """What a shell is offered after these words."""
    environment = os.environ | {"_KARYOTUNE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    program = "from search.path import start; start()"
    done = subprocess.run([sys.executable, "-c", program], env=environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=True)
    return {line.partition(",")[2] for line in done.stdout.splitlines()}


def test_a_shell_completes_procedures_verbs_tables_and_studies(tmp_path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "study.json").write_text("{}")
    assert {"supcam", "scl", "show", "stop"} <= completed("karyotune s", tmp_path)
    assert completed("karyotune plan sup", tmp_path) == {"supcam"}
    assert {"2,1", "2,S1"} <= completed("karyotune supcam --tables 2,", tmp_path)
    assert completed("karyotune show ", tmp_path) == {"mine"}
    assert completed("karyotune supcam --preset ", tmp_path) == {"quick", "small", "paper"}
    assert completed("karyotune nonsense --x", tmp_path) <= {""}


def test_what_another_command_changed_before_the_study_was_ours_is_not_undone(inside, monkeypatch):
    """Between the look at the request and the lock."""
    from search import api

    words = ("--trials", "0", "--repeats", "1", "--tables")
    real, ended = api.prepare, []

    def prepare(request, *more):
        prepared = real(request, *more)
        if not ended:
            ended.append(True)
            assert inside(*words, "2") == 0
        return prepared

    monkeypatch.setattr(api, "prepare", prepare)
    assert inside(*words, "1") == 0
    study = json.loads((inside.study / "study.json").read_text())
    assert [table["number"] for table in study["tables"]] == ["1", "2"]


def test_a_study_in_which_every_run_failed_ends_with_status_1_says_why_and_trains_nothing_again(inside, capsys):
    words = ("--repeats", "1", "--trials", "0", "--tables", "1", "--arms", "plain,slow", "--set", "trouble=memory")
    assert inside(*words) == 1
    said = capsys.readouterr().err
    assert "none of 2 runs completed" in said and "no room for 3 toys" in said and not (inside.study / "best").exists()
    tried = len(inside.trained)
    assert inside(*words) == 1 and len(inside.trained) == tried


def test_what_ended_a_command_is_its_last_sentence_and_stands_in_show_until_the_next_one_begins(inside, say, monkeypatch):
    from search import api
    from trainables.parts.errors import ClusterLost

    words = ("--trials", "0", "--repeats", "1", "--tables", "1")
    with monkeypatch.context() as patch:
        patch.setattr(api, "_carry_out", lambda work, director: director.stop("the cluster's head does not answer"))
        status, _, error = say("toy", *words, "--storage", str(inside.storage))
        assert status == 1 and error.splitlines()[-1].startswith("search: the cluster's head does not answer; ")
    assert "the last command was ended: the cluster's head does not answer" in say("show", str(inside.study))[1]

    def lose(work, director):
        raise ClusterLost("Ray is gone")

    with monkeypatch.context() as patch:
        patch.setattr(api, "_carry_out", lose)
        assert "Ray is gone" in say("toy", *words, "--storage", str(inside.storage))[2]
    assert "was ended: Ray is gone" in say("show", str(inside.study))[1]
    assert inside(*words) == 0
    assert "was ended" not in say("show", str(inside.study))[1]


def test_a_reader_that_goes_away_neither_ends_a_study_nor_changes_its_status(inside):
    """`| head`"""
    import os

    from search import cli

    words = ["toy", "--trials", "0", "--repeats", "1", "--tables", "1", "--storage", str(inside.storage)]
    kept, (reader, writer) = os.dup(1), os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    try:
        with open(1, "w", closefd=False) as stream, pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdout", stream)
            statuses = [cli.main([*words, "--max-hours", "0.0000001"]), cli.main(words)]
    finally:
        os.dup2(kept, 1)
    assert statuses == [3, 0]
    assert "runs (3 completed)" in (inside.study / "log.txt").read_text()


@pytest.mark.slow
def test_the_verb_report_takes_the_options_that_the_analysis_of_one_study_has(inside, say):
    assert inside(*WORDS) == 0
    for words, written in (
        (("--checklist", "claim"), "checklist-claim.md"),
        (("--bundle", str(inside.storage / "lab.zip")), "../lab.zip"),
        (("--light", "--price-per-hour", "3"), "report.md"),
    ):
        (inside.study / written).unlink(missing_ok=True)
        status, out, _ = say("report", "toy-quick-synthetic", *words)
        assert status == 0 and (inside.study / written).exists() and "written" in out
    assert "spent at 3 per" in (inside.study / "report.md").read_text()
    status, _, error = say("report", "toy-quick-synthetic", "--checklist", "none")
    assert status == 2 and "claim" in error and "Traceback" not in error
