"""The first line of a page: of an unfinished, failed or empty study what it is, and no final-looking answer; a study at work says so."""

from __future__ import annotations

import copy
from pathlib import Path

import fake
import pytest

import analysis
from analysis import methods
from analysis.standing import standing

ASKED, RECORDS = fake.study_and_records()


def page(folder: Path) -> str:
    analysis.write_report(folder, figures="light")
    return (folder / "report.html").read_text(encoding="utf-8")


def first(folder: Path, records: list, asked: dict = ASKED) -> str:
    return standing(analysis.load(fake.write(folder, asked, records))).first


def test_an_unfinished_study_says_how_many_of_how_many_runs_have_ended_and_shows_no_score_as_an_answer(tmp_path):
    some = [r for r in RECORDS if r["seed"] == 0 and r["status"] == "completed"]
    whole = len(
        {(r["config_hash"], r["seed"]) for r in RECORDS if r["arms"]}
        | {(r["config_hash"], r["seed"]) for r in RECORDS if r["trial"] is not None}
    )
    said = first(tmp_path, some)
    assert said.startswith(f"Unfinished: {len(some)} of ") and int(said.split(" of ")[1].split(" ")[0]) >= whole
    text = page(tmp_path)
    assert "leads so far" in text and "this is no answer yet" in text and 'class="score"' not in text
    assert text.index(said) < text.index("<h1>")
    assert "leads so far" in (tmp_path / "report.md").read_text(encoding="utf-8")
    first(tmp_path / "one", some[:1])
    assert "leads so far" not in page(tmp_path / "one") and "</strong> so far has" in page(tmp_path / "one"), "nothing is behind it"
    study = analysis.load(tmp_path)
    assert f"{len(some)} of {len(some) + standing(study).waiting} runs have ended, {standing(study).waiting} are missing" in said
    for text in (methods.methods_md(study), *(methods.checklist_md(study, name) for name in methods.CHECKLISTS)):
        assert text.splitlines()[2] == f"**{said}**"


def test_one_missing_run_is_said_in_the_singular(tmp_path):
    whole = fake.study_and_records(trials=0)
    arms = {a["config_hash"] for t in whole[0]["tables"] for a in t["arms"]}
    last = next(r for r in whole[1] if r["config_hash"] in arms)
    said = first(tmp_path, [r for r in whole[1] if r["key"] != last["key"]], whole[0] | {"trials": 0})
    assert "1 is missing" in said


def test_a_study_of_which_all_failed_says_why_and_its_exit_status(tmp_path):
    asked = copy.deepcopy(ASKED) | {"trials": 0}
    asked["tables"] = [{**asked["tables"][0], "arms": [asked["tables"][0]["arms"][1]]}]
    failed = [r for r in RECORDS if r["status"] == "failed"]
    assert first(tmp_path, failed, asked) == "Failed: none of the 3 runs that ended has completed (weights unreachable: 3). Exit status 1."
    assert "No answer yet" in page(tmp_path)


def test_an_empty_study_says_so(tmp_path):
    assert first(tmp_path, []) == "Empty: no run has ended yet, so there is nothing to report."
    assert "Empty: no run has ended yet" in page(tmp_path)


def test_a_finished_study_of_which_some_failed_says_which_and_one_that_went_well_says_nothing(tmp_path):
    assert first(tmp_path / "some", RECORDS) == "Finished, but 3 runs of 35 failed (weights unreachable: 3). Exit status 4."
    asked = copy.deepcopy(ASKED)
    asked["tables"][0]["arms"].pop(1)
    well = [r for r in RECORDS if r["status"] != "failed"]
    assert first(tmp_path / "well", well, asked) == ""
    assert 'class="standing"' not in page(tmp_path / "well")
    assert not methods.methods_md(analysis.load(tmp_path / "well")).splitlines()[2].startswith("**Unfinished")


@pytest.mark.parametrize(("kind", "left", "live"), [("light", 5, True), ("full", 5, False), ("light", 0, False)])
def test_only_the_page_of_a_study_at_work_looks_for_news(tmp_path, kind, left, live):
    records = RECORDS[: len(RECORDS) - left]
    analysis.write_report(fake.write(tmp_path, ASKED, records), figures=kind)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    told = [f"karyotune report {tmp_path.name}" in (tmp_path / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")]
    assert told == [live, live], "who meets it later learns how old it is, and what renews it"
    assert ("data-live" in text.split("<main>")[0]) == ('http-equiv="refresh"' in text) == live
