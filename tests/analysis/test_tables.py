"""What the rows of a table say about significance, the paper and the number of seeds, and that its LaTeX is compiled by a real LaTeX."""

from __future__ import annotations

import copy
import shutil
import subprocess
from pathlib import Path

import fake
import pytest

import analysis
from analysis import statistics as st
from analysis.tables import tex

ASKED, RECORDS = fake.study_and_records(seeds=10, trials=0)


def summaries(folder: Path, asked: dict = ASKED, records: list = RECORDS) -> dict[str, object]:
    return {s.table.number: s for s in analysis.summarize(analysis.load(fake.write(folder, asked, records)))}


def cells(summary) -> dict[str, object]:
    return {r.arm.name: r.cells["test_accuracy"] for r in summary.rows}


def test_with_ten_seeds_arms_far_below_the_best_are_not_bold_and_the_best_is(tmp_path):
    found = cells(summaries(tmp_path)["2"])
    assert found["MoCo + SupCon + CatVar + self-margin"].bold
    assert not found["Training from scratch"].bold
    assert not found["ImageNet weights"].bold
    assert found["MoCo + SupCon + CatVar + self-margin"].p_holm == pytest.approx(4 * 2 / 2**10)


def test_too_few_seeds_for_any_p_below_five_per_cent_is_said_in_words(tmp_path):
    few = summaries(tmp_path / "few", *fake.study_and_records(seeds=3))["2"]
    assert any("too few for any p below 0.05" in n and "0.25" in n and "8 seeds" in n for n in few.notes)
    many = summaries(tmp_path / "many")["2"]
    assert not any("too few" in n for n in many.notes)


def test_splits_drawn_anew_per_seed_widen_the_interval_and_are_said(tmp_path):
    records = copy.deepcopy(RECORDS)
    for r in records:
        r["params"]["split_per_seed"] = True
    plain, redrawn = (cells(summaries(tmp_path / str(i), ASKED, x)["5"])["m = 0.1"] for i, x in enumerate((RECORDS, records)))
    width = [c.gain_interval.high - c.gain_interval.low for c in (plain, redrawn)]
    assert width[1] / width[0] == pytest.approx((1 + 10 * 180 / 360) ** 0.5)
    assert any("Nadeau" in n for n in summaries(tmp_path / "1", ASKED, records)["5"].notes)


def test_the_order_of_the_paper_is_compared_over_arms_that_have_both_numbers(tmp_path):
    found = summaries(tmp_path)
    assert (found["2"].ranked, found["5"].ranked) == (5, 4)
    assert found["2"].tau.tau > 0.5
    assert any("Kendall's tau" in n for n in found["2"].notes)


def test_a_diverged_arm_confirms_a_paper_that_says_it_did_not_converge(tmp_path):
    assert cells(summaries(tmp_path)["5"])["m = 0.5"].verdict.startswith("confirmed")


def test_a_best_marked_in_a_table_of_one_arm_would_say_nothing(tmp_path):
    asked = copy.deepcopy(ASKED)
    asked["tables"] = [{**asked["tables"][1], "arms": asked["tables"][1]["arms"][:1], "baseline_arm": None}]
    summary = summaries(tmp_path, asked)["5"]
    assert not summary.rows[0].cells["test_accuracy"].bold
    assert summary.baseline is None


def test_published_values_of_the_right_table_and_data_set_are_taken(tmp_path):
    assert cells(summaries(tmp_path)["2"])["MoCo"].published.mean == 89.15
    asked = copy.deepcopy(ASKED)
    asked["tables"][0]["dataset"] = "another"
    assert cells(summaries(tmp_path / "b", asked)["2"])["MoCo"].published is None


def test_letters_that_the_font_of_plain_latex_lacks_are_mapped_or_a_question_mark():
    assert tex("«é» Ðą Ł") == "$\\ll$é$\\gg$ ?? Ł"


def with_only(name: str, kept: int, seeds: int = 10) -> list:
    """The records, of arm `name` of table 2 only so many seeds."""
    config_hash = next(a["config_hash"] for a in ASKED["tables"][0]["arms"] if a["name"] == name)
    return [r for r in fake.study_and_records(seeds=seeds, trials=0)[1] if r["config_hash"] != config_hash or r["seed"] < kept]


def test_one_arm_with_one_seed_is_not_testable_and_leaves_the_others_their_exact_test(tmp_path):
    summary = summaries(tmp_path, ASKED, with_only("MoCo", 1))["2"]
    notes = " ".join(summary.notes)
    assert "exact paired permutation test, Holm" in notes and "too few seeds for the exact" not in notes
    assert "not testable (too few seeds in common with the best): MoCo." in notes
    assert cells(summary)["MoCo"].bold  # far below the best, but nothing showed it
    assert not cells(summary)["Training from scratch"].bold


def test_with_one_seed_for_all_nothing_is_bold_and_the_grammar_is_right(tmp_path):
    summary = summaries(tmp_path, *fake.study_and_records(seeds=1))["2"]
    assert not any(c.bold for c in cells(summary).values())
    assert any("Nothing is bold" in n for n in summary.notes)
    assert any(n.startswith("1 seed is too few") for n in summary.notes)


def test_where_splits_are_redrawn_bold_is_by_the_corrected_t_test_even_with_ten_seeds(tmp_path):
    records = copy.deepcopy(RECORDS)
    for r in records:
        r["params"]["split_per_seed"] = True
    summary = summaries(tmp_path, ASKED, records)["2"]
    assert any("by the corrected Student's paired test" in n for n in summary.notes)
    found = {n: c for n, c in cells(summary).items() if c.n}
    top = max(found.values(), key=lambda c: c.mean)
    others = {n: st.t_p([dict(c.values)[s] - v for s, v in top.values], 0.5) for n, c in found.items() if c is not top}
    adjusted = dict(zip(others, st.holm(list(others.values())), strict=True))
    assert {n: found[n].bold for n in others} == {n: bool(p >= 0.05) for n, p in adjusted.items()}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_a_real_latex_compiles_every_table_without_an_overfull_line(tmp_path):
    asked = copy.deepcopy(ASKED)
    asked["tables"][1]["arms"][0]["name"] = 'm_1 & 50 % of #{x} ~ ^ \\ "q" <b> | λ ≥ µ é 漢 «x» ÐđąŁħŋ'
    for arm, name in zip(asked["tables"][0]["arms"], ("[0.1] x", "*[2pt]"), strict=False):
        arm["name"] = name
    asked["tables"].append({**asked["tables"][0], "number": "9", "metrics": ["test_accuracy"], "title": "Narrow 100 %"})
    analysis.write_report(fake.write(tmp_path, asked, RECORDS))
    files = sorted((tmp_path / "tables").glob("*.tex"))
    assert len(files) == 3
    inputs = "\n".join(f"\\input{{tables/{f.name}}}" for f in files)
    page = f"\\documentclass{{article}}\\usepackage[utf8]{{inputenc}}\\usepackage{{booktabs,graphicx}}\\begin{{document}}{inputs}\\end{{document}}"
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    ran = subprocess.run(
        ["pdflatex", "-halt-on-error", "page.tex"], cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False
    )
    assert ran.returncode == 0, ran.stdout[-1500:]
    assert "Overfull" not in ran.stdout
