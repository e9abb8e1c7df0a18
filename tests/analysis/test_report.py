"""Tables, figures and report: the numbers in them, that they are the same for the same records, and that they survive bad input."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import fake
import numpy as np
import pytest
from scipy import stats

import analysis
from analysis import page
from analysis.__main__ import main
from analysis.headline import headline

ASKED, RECORDS = fake.study_and_records()
EVIL = "<script>alert(1)</script>\"'&|`*_$%#{}\\"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = fake.make(tmp_path_factory.mktemp("made") / "study")
    analysis.write_report(made)
    return made


def lines(folder: Path, number: str) -> dict[tuple[str, str], dict[str, str]]:
    text = (folder / f"tables/table-{number}.csv").read_text(encoding="utf-8")
    return {(r["arm"], r["metric"]): r for r in csv.DictReader(io.StringIO(text))}


def test_every_file_is_written_and_nothing_is_left_over(folder):
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    tables = {f"tables/table-{n}.{e}" for n in "25" for e in ("csv", "md", "tex")}
    assert names >= {"report.html", "report.md"} | tables
    assert not [n for n in names if "partial" in n]
    assert not [n for n in names if n.startswith("figures/")], "on demand only"


@pytest.mark.slow
def test_figures_for_a_paper_are_written_on_demand_also_at_the_width_of_a_column(tmp_path):
    made = fake.make(tmp_path / "study")
    assert main([str(made), "--figures"]) == 0
    names = {p.name for p in (made / "figures").iterdir()}
    assert {"table-2.pdf", "table-2-column.pdf", "training-2.pdf", "confusion-column.pdf"} <= names
    assert {n for n in names if not n.endswith(".pdf")} == set()


def test_a_row_has_the_mean_the_sample_deviation_and_the_t_interval_of_its_seeds(folder):
    row = lines(folder, "2")["MoCo + SupCon", "test_accuracy"]
    runs = [r for r in RECORDS if r["config_hash"] == ASKED["tables"][0]["arms"][3]["config_hash"]]
    values = 100 * np.array([r["metrics"]["test_accuracy"] for r in runs])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    found = [float(row[k]) for k in ("n", "mean", "std", "ci95_low", "ci95_high", "difference_to_published")]
    assert found == pytest.approx([3, values.mean(), values.std(ddof=1), low, high, values.mean() - 91.65], rel=1e-12), "full precision"
    assert (row["published_mean"], row["published_std"], row["best"], row["is_baseline"]) == ("91.65", "0.32", "False", "False")


def test_the_gain_over_the_baseline_arm_is_paired_by_seed(folder):
    row = lines(folder, "5")["m = 0.1", "test_accuracy"]
    by = {(r["config_hash"], r["seed"]): 100 * r["metrics"]["test_accuracy"] for r in RECORDS if "test_accuracy" in r["metrics"]}
    arms = ASKED["tables"][1]["arms"]
    differences = np.array([by[arms[0]["config_hash"], s] - by[arms[1]["config_hash"], s] for s in range(3)])
    compared = int(row["comparisons"])
    assert compared == 3  # of the arms beside the baseline one has diverged
    low, high = stats.t.interval(1 - 0.05 / compared, 2, differences.mean(), stats.sem(differences))
    assert float(row["gain_over_baseline"]) == pytest.approx(differences.mean(), rel=1e-9)
    assert (float(row["gain_simultaneous95_low"]), float(row["gain_simultaneous95_high"])) == pytest.approx((low, high), rel=1e-9)


def test_a_seed_that_only_one_arm_has_makes_no_pair(tmp_path):
    gone = next(r["key"] for r in RECORDS if r["config_hash"] == ASKED["tables"][1]["arms"][0]["config_hash"] and r["seed"] == 1)
    made = fake.write(tmp_path, ASKED, [r for r in RECORDS if r["key"] != gone])
    analysis.write_report(made, figures="light")
    row = lines(made, "5")["m = 0.1", "test_accuracy"]
    assert (row["n"], row["pairs"], row["waiting"]) == ("2", "2", "1")


def test_a_seed_that_the_baseline_arm_lacks_makes_no_pair_either(tmp_path):
    gone = next(r["key"] for r in RECORDS if r["config_hash"] == ASKED["tables"][1]["arms"][1]["config_hash"] and r["seed"] == 1)
    made = fake.write(tmp_path, ASKED, [r for r in RECORDS if r["key"] != gone])
    analysis.write_report(made, figures="light")
    row = lines(made, "5")["m = 0.1", "test_accuracy"]
    assert (row["n"], row["pairs"]) == ("3", "2")
    assert abs(float(row["gain_over_baseline"])) < 20


@pytest.mark.parametrize("status", ["pruned", "diverged", "failed"])
def test_a_run_that_did_not_complete_is_counted_and_never_averaged_even_with_metrics(tmp_path, status):
    records = copy.deepcopy(RECORDS)
    run = next(r for r in records if r["config_hash"] == ASKED["tables"][1]["arms"][0]["config_hash"] and r["seed"] == 0)
    run["status"] = status
    made = fake.write(tmp_path, ASKED, records)
    analysis.write_report(made, figures="light")
    row = lines(made, "5")["m = 0.1", "test_accuracy"]
    others = [100 * r["metrics"]["test_accuracy"] for r in records if r["config_hash"] == run["config_hash"] and r["seed"] > 0]
    assert (row["n"], row[status], float(row["mean"])) == ("2", "1", pytest.approx(np.mean(others)))


def test_an_arm_without_a_result_shows_the_reason_and_never_a_number(folder):
    unreachable = lines(folder, "2")["ImageNet weights", "test_accuracy"]
    assert (unreachable["mean"], unreachable["failed"], unreachable["reason"]) == ("", "3", "weights unreachable (3 runs)")
    assert unreachable["difference_to_published"] == ""
    diverged = lines(folder, "5")["m = 0.5", "test_f1"]
    assert (diverged["mean"], diverged["diverged"], diverged["published_word"]) == ("", "3", "did not converge")
    for name in ("tables/table-5.md", "tables/table-5.tex", "report.html", "report.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "did not converge" in text, name
        assert not re.search(r"\bnan\b", text, re.IGNORECASE), name


def test_the_same_records_in_another_order_give_the_same_bytes(folder, tmp_path):
    other = fake.write(tmp_path / "study", ASKED, random.Random(3).sample(RECORDS, len(RECORDS)))
    analysis.write_report(other)
    written = [p for p in folder.rglob("*") if p.is_file() and p.name != "records.jsonl"]
    assert len(written) > 15
    different = [p.name for p in written if p.read_bytes() != (other / p.relative_to(folder)).read_bytes()]
    assert different == []


def test_half_a_character_in_any_name_or_note_becomes_a_question_mark(tmp_path):
    asked, half = copy.deepcopy(ASKED), "x\ud800y"
    asked["study"] = asked["data"]["classes"][0] = asked["tables"][0]["arms"][0]["name"] = asked["tables"][0]["baseline_arm"] = half
    asked["data"]["notes"] = [half]
    fake.write(tmp_path, asked, RECORDS)
    fake.leave(tmp_path, asked, RECORDS, heat=False)
    (tmp_path / "data/data.json").write_text(json.dumps({"files": [half] * 600}))
    assert analysis.write_report(tmp_path, figures="light").warnings == ()
    for name in ("report.html", "report.md", "tables/table-2.csv", "tables/per-class.csv"):
        assert "x?y" in (tmp_path / name).read_text(encoding="utf-8"), name


def test_whole_numbers_of_hundreds_of_digits_are_missing_values(tmp_path):
    asked, records, huge = copy.deepcopy(ASKED), copy.deepcopy(RECORDS), 10**400
    asked["data"] |= {"baselines": [{"name": "pixels", "metrics": {"test_f1": huge, "test_accuracy": 0.31}}]}
    asked["data"]["size_baseline"] = {"accuracy": huge, "low": 0, "high": 1}
    asked["data"]["parts"]["train"] = asked["trials"] = huge
    asked |= {"seeds": [0, 1, 2, huge], "space": {**asked["space"], "margin": {"low": 0, "high": huge}}}
    for r in records:
        r["confusion"] = {"test": [[huge, 0], [0, 1]]}
        r["stage_seconds"] = {"pretrain": huge}
    analysis.write_report(fake.write(tmp_path, asked, records), figures="light")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| pixels | 31.00 |" in text and "foreground alone" not in text


def test_the_gain_of_the_winner_is_corrected_where_splits_are_redrawn(tmp_path):
    width = []
    for redrawn in (False, True):
        asked, records = copy.deepcopy(ASKED), copy.deepcopy(RECORDS)
        for r in records:
            r["params"]["split_per_seed"] = redrawn
        study = analysis.load(fake.write(tmp_path / str(redrawn), asked, records))
        found = headline(study)
        assert found.pairs == 3
        width.append(found.gain_interval.high - found.gain_interval.low)
    assert width[1] / width[0] == pytest.approx((1 + 3 * 180 / 360) ** 0.5)  # judged on the test part


def test_the_page_is_one_file_without_network_and_of_modest_size(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert len(text) < 250_000
    assert "<svg" not in text, "figures are drawn in the browser"
    loads = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(a.startswith(("#", "tables/", "data:", "${")) or a in ("study.json", "records.jsonl") for a in loads), sorted(set(loads))
    assert not re.search(r"@import|url\((?!#|\$\{given\.sheet\})", text)


class _Ids(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.ids += [v for k, v in attrs if k == "id" and v]
        self.links += [v[1:] for k, v in attrs if k in ("href", "xlink:href") and v and v.startswith("#")]


def test_ids_are_unique_and_every_inner_link_has_its_target(folder):
    page = _Ids()
    page.feed((folder / "report.html").read_text(encoding="utf-8"))
    assert len(page.ids) == len(set(page.ids))
    assert set(page.links) <= set(page.ids)
    assert sum(i.startswith("run-") for i in page.ids) == len(RECORDS)


def test_names_from_outside_are_escaped_everywhere(tmp_path):
    asked, records = copy.deepcopy(ASKED), copy.deepcopy(RECORDS)
    asked["study"] = asked["tables"][0]["title"] = asked["tables"][0]["arms"][0]["name"] = asked["data"]["classes"][0] = EVIL
    asked["command"] = asked["preset"] = EVIL
    for r in records:
        r["params"][EVIL] = EVIL
        r["device"] = EVIL
        if r["error"]:
            r["error"] = {"kind": "error", "message": EVIL}
    analysis.write_report(fake.write(tmp_path, asked, records), figures="light")
    page = _Ids()
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page.feed(text)
    assert page.scripts == 2
    assert "alert(1)" in text
    for name in ("report.md", "tables/table-2.md"):
        outside_code = (tmp_path / name).read_text(encoding="utf-8").split("```")[0]
        assert "<script" not in outside_code
    tex = (tmp_path / "tables/table-2.tex").read_text(encoding="utf-8")
    assert "\\textless{}script\\textgreater{}" in tex
    assert "\\_\\$\\%\\#\\{\\}\\textbackslash{}" in tex


def test_no_path_of_the_machine_reaches_the_report(tmp_path):
    asked, records = copy.deepcopy(ASKED), copy.deepcopy(RECORDS)
    asked["data"]["source"] = "/home/someone/private/clusters"
    asked["command"] = "python -m search supcam --data /home/someone/private/clusters --storage '/mnt/big disk/runs'"
    records[0] |= {"status": "failed", "error": {"kind": "error", "message": "no such file: /home/someone/private/x.png"}}
    analysis.write_report(fake.write(tmp_path / "s", asked, records))
    for path in (tmp_path / "s").rglob("*"):
        if path.is_file() and path.name not in ("study.json", "records.jsonl"):
            content = path.read_bytes()
            assert b"/home/" not in content, path.name
            assert str(tmp_path).encode() not in content, path.name
    assert "clusters" in (tmp_path / "s/report.html").read_text(encoding="utf-8")


ODD_TABLES = [None, {"number": "x"}, {"number": "1", "metric": "test_f1", "arms": [3, {"name": "a"}]}]
ODD_HISTORY = [3, {}, {"stage": "s", "epoch": "x"}, {"stage": "s", "epoch": 1, "loss": None}]
ODD_FIELDS = {"metrics": [], "confusion": "x", "history": {"a": 1}, "params": None, "error": "x", "seconds": "long", "stages_reused": 3}
ODD_FIELDS |= {"stage_hashes": 1, "trial": "two", "worker": 4, "ended": 5}
BARE = ("schema", "key", "status", "config_hash", "seed")
BAD = {
    "empty study": (ASKED, []),
    "no tables": ({**ASKED, "tables": []}, RECORDS),
    "tables of another shape": ({**ASKED, "tables": ODD_TABLES}, RECORDS),
    "nothing asked": ({"schema": 1}, RECORDS),
    "every field of another type": (dict.fromkeys(ASKED, "x") | {"schema": 1}, RECORDS),
    "one record": (ASKED, RECORDS[:1]),
    "only failures": (ASKED, [r for r in RECORDS if r["status"] == "failed"]),
    "bare records": (ASKED, [{k: r[k] for k in BARE} for r in RECORDS]),
    "fields of another type": (ASKED, [r | ODD_FIELDS for r in RECORDS]),
    "ragged confusion": (ASKED, [{**r, "confusion": {"test": [[1, 2], [3]]}} for r in RECORDS]),
    "confusion of text": (ASKED, [{**r, "confusion": {"test": [["a"]]}} for r in RECORDS]),
    "history of odd entries": (ASKED, [{**r, "history": ODD_HISTORY} for r in RECORDS]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_report_is_made_of_whatever_there_is(tmp_path, case):
    asked, records = BAD[case]
    report = analysis.write_report(fake.write(tmp_path, asked, records), figures="light")
    assert (tmp_path / "report.html").stat().st_size > 3000
    assert (tmp_path / "report.md") in report.paths


def test_warnings_stand_in_the_report(tmp_path):
    fake.write(tmp_path, ASKED, RECORDS)
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"schema": 1, "torn')
    report = analysis.write_report(tmp_path, figures="light")
    assert any("torn" in w for w in report.warnings)
    for name in ("report.html", "report.md"):
        assert "is torn" in (tmp_path / name).read_text(encoding="utf-8")


def test_a_failed_write_leaves_the_old_file_whole(folder, monkeypatch):
    before = (folder / "report.md").read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        analysis.write_report(folder)
    assert (folder / "report.md").read_bytes() == before
    assert not [p for p in folder.rglob("*") if "partial" in p.name]


def test_the_command_writes_the_report_and_says_where_without_torch_or_ray(tmp_path):
    made = fake.make(tmp_path / "study")
    code = (
        "import sys; from analysis.__main__ import main; status = main(sys.argv[1:]);"
        "assert not {'torch', 'ray', 'optuna', 'sklearn'} & set(sys.modules); sys.exit(status)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(made)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "report.html" in ran.stdout


def test_the_command_refuses_a_folder_without_a_study_in_one_line(tmp_path):
    ran = subprocess.run([sys.executable, "-m", "analysis", str(tmp_path / "none")], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (2, "", 1)
    assert "no study folder" in ran.stderr


def test_shared_stages_are_counted_as_saved_work(tmp_path):
    records = copy.deepcopy(RECORDS[:2])
    for r in records:
        r |= {"seconds": 100.0, "stage_hashes": {"pretrain": "same"}, "stage_seconds": {"pretrain": 80.0, "finetune": 20.0}}
    records[1] |= {"seconds": 20.0, "stages_reused": ["pretrain"], "stage_seconds": {"finetune": 20.0}}
    analysis.write_report(fake.write(tmp_path, ASKED, records), figures="light")
    assert "shared stages saved 40 % of the work" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_fake_records_have_the_keys_of_the_contract():
    assert json.loads(json.dumps(RECORDS[0]))["schema"] == 1
    assert {r["status"] for r in RECORDS} == {"completed", "pruned", "diverged", "failed"}


def test_what_a_killed_report_left_half_written_is_removed_and_what_another_is_writing_is_not(tmp_path):
    folder = fake.make(tmp_path / "study")
    (folder / "figures").mkdir()
    old, new = folder / ".report.html.1.partial", folder / "figures" / ".a.svg.2.partial"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (0, 0))
    analysis.write_report(folder, figures="light")
    assert not old.exists() and new.exists()


def test_a_difference_that_rounds_to_nothing_is_written_without_a_minus(tmp_path):
    records = copy.deepcopy(RECORDS)
    arms = ASKED["tables"][1]["arms"]
    for r in records:
        if r["config_hash"] in (arms[0]["config_hash"], arms[1]["config_hash"]):
            r["metrics"]["test_accuracy"] = 0.8 + 0.01 * r["seed"] - (4e-7 if r["config_hash"] == arms[0]["config_hash"] else 0)
    analysis.write_report(fake.write(tmp_path, ASKED, records), figures="light")
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "+0.00" in text and "-0.00" not in text, name


def test_the_winner_is_worked_out_once_for_a_whole_report(tmp_path, monkeypatch):
    from analysis import choice

    asked, whole = [], choice.best
    monkeypatch.setattr(choice, "best", lambda study: asked.append(study) or whole(study))
    analysis.write_report(fake.make(tmp_path / "study"), figures="light")
    assert len(asked) == 1


def test_metrics_of_an_external_set_are_a_table_of_their_own():
    metrics = ("test_accuracy", "test_f1", "external_far_off_accuracy", "external_far_off_f1")
    summary = SimpleNamespace(table=SimpleNamespace(metrics=metrics))
    assert page.column_groups(summary) == [("", metrics[:2]), ("far_off", metrics[2:])]
    ten = tuple(f"test_{letter}" for letter in "abcdefghij")
    assert page.column_groups(SimpleNamespace(table=SimpleNamespace(metrics=ten))) == [("", ten[:5]), ("", ten[5:])], (
        "ten do not fit a page"
    )
