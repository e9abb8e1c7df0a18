"""What the rows of a table say about significance, the paper and the number of seeds, and that its LaTeX is compiled by a real LaTeX."""

from __future__ import annotations

import copy
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import fake
import numpy as np
import pytest
from scipy import stats

import analysis
from analysis.headline import headline
from analysis.statistics import NONE, Interval
from analysis.summary import phrase
from analysis.tables import tex, to_tex

ASKED, RECORDS = fake.study_and_records(seeds=10, trials=0)


def summaries(folder: Path, asked: dict = ASKED, records: list = RECORDS) -> dict[str, object]:
    return {s.table.number: s for s in analysis.summarize(analysis.load(fake.write(folder, asked, records)))}


def cells(summary) -> dict[str, object]:
    return {r.arm.name: r.cells["test_accuracy"] for r in summary.rows}


def test_bold_is_the_best_mean_and_nothing_else(tmp_path):
    for i, (asked, records) in enumerate(((ASKED, RECORDS), fake.study_and_records(seeds=3), (ASKED, with_only("MoCo", 1)))):
        summary = summaries(tmp_path / str(i), asked, records)["2"]
        for metric in summary.table.metrics:
            means = {r.arm.name: r.cells[metric].mean for r in summary.rows if r.cells[metric].n}
            assert {r.arm.name for r in summary.rows if r.cells[metric].bold} == {n for n, m in means.items() if m == max(means.values())}


def test_an_arm_is_marked_only_where_the_simultaneous_interval_excludes_zero(tmp_path):
    summary = summaries(tmp_path)["2"]
    for name, cell in cells(summary).items():
        low, high = cell.gain_interval
        assert bool(cell.shown) == (low > 0 or high < 0), name
        assert bool(cell.shown) == (cell.p < 0.05)
    assert cells(summary)["MoCo + SupCon + CatVar"].shown == "better"


def test_intervals_of_the_differences_of_a_table_are_bonferronis(tmp_path):
    cell = cells(summaries(tmp_path)["2"])["MoCo"]
    other = dict(cells(summaries(tmp_path)["2"])["Training from scratch"].values)
    differences = np.array([value - other[seed] for seed, value in cell.values])
    half = stats.t.ppf(1 - 0.05 / (2 * 4), 9) * stats.sem(differences)  # four arms with runs beside the baseline
    assert cell.gain_interval == pytest.approx((differences.mean() - half, differences.mean() + half))
    assert cell.p == pytest.approx(min(1, 4 * stats.ttest_1samp(differences, 0).pvalue))


def test_equal_differences_of_few_seeds_are_no_proof(tmp_path):
    asked, records = fake.study_and_records(seeds=2, trials=0)
    for r in records:
        if r["status"] == "completed":
            r["metrics"]["test_accuracy"] = 0.8 if r["params"] == fake.BASELINE else 0.7
    found = cells(summaries(tmp_path, asked, records)["2"])["MoCo + SupCon + CatVar + self-margin"]
    assert found.gain == pytest.approx(10) and not found.shown and math.isnan(found.p)


def test_one_seed_has_no_interval_and_the_claim_says_that_nothing_can_be_said(tmp_path):
    summary = summaries(tmp_path, *fake.study_and_records(seeds=1))["2"]
    assert all("nothing can be said" in words for words in summary.claims)
    assert any("no interval" in note for note in summary.notes)


def test_an_undecided_row_says_how_many_more_seeds_would_tell_and_their_price(tmp_path):
    tmp_path.joinpath("request.toml").touch()
    summary = summaries(tmp_path, *fake.study_and_records(seeds=3))["2"]
    undecided = [words for words in summary.claims if "undecided" in words]
    assert undecided and all("in four of five" in words for words in undecided)
    assert any(words.endswith("worker-minutes for the two arms.") for words in undecided) and "--repeats" not in "".join(undecided)
    more = sorted({3 + int(words.split(" more seed")[0].split()[-1]) for words in undecided if " more seed" in words})
    lines, prices = zip(*summary.commands, strict=True)
    assert list(lines) == [f"karyotune supcam --request {tmp_path.name}/request.toml --repeats {n}" for n in more] and more
    analysis.write_report(tmp_path)
    arms = {arm["config_hash"] for table in ASKED["tables"] for arm in table["arms"]}
    assert [words.partition(":")[0] for words in prices] == [f"{len(arms) * (n - 3)} runs of {len(arms)} arms" for n in more]
    assert all(f'<pre class="command">{line}</pre>' in (tmp_path / "report.html").read_text() for line in lines)
    assert all(f"\n# {price}\n{line}\n" in (tmp_path / "report.md").read_text() for line, price in summary.commands)
    asked, records = fake.study_and_records(seeds=3)
    waiting = summaries(tmp_path, {**asked, "seeds": list(range(max(more)))}, records)["2"]
    assert waiting.commands == () and any("and the study is asked for as many" in words for words in waiting.claims), (
        "no command for 0 runs"
    )
    shown = [r.arm.name for r in summary.rows if r.cells["test_accuracy"].shown]
    assert {words.partition(" gains")[0] for words in summary.claims if " gains " in words} == set(shown)


def test_one_difference_is_not_said_to_hold_together_with_others(tmp_path):
    asked, records = fake.study_and_records(seeds=3, trials=0)
    asked["tables"] = [
        {**asked["tables"][0], "arms": [arm for arm in asked["tables"][0]["arms"] if arm["name"] in ("MoCo", "Training from scratch")]}
    ]
    analysis.write_report(fake.write(tmp_path, asked, records), "light")
    page = (tmp_path / "report.html").read_text()
    assert "paired by seed, with its 95 % interval" in page and "intervals that hold together" not in page
    assert "paired by seed." in (text := (tmp_path / "methods.md").read_text()) and "hold together" not in text


def test_no_patients_are_blamed_where_seeds_alone_are_known_and_no_seed_is_asked_for_where_the_interval_excludes_the_difference(tmp_path):
    for spread, words in (
        (10.0, "As a rough guess, by the spread of 3 seeds, more than 100 seeds would be needed"),
        (0.001, "A difference of 3 points is excluded."),
    ):
        asked, records = fake.study_and_records(seeds=3, trials=0)
        for r in records:
            if r["status"] == "completed":
                r["metrics"]["test_accuracy"] = 0.5 + spread * (0.04 * (r["seed"] - 1) * (1 if r["params"] == fake.BASELINE else -1))
        summary = summaries(tmp_path / str(spread), asked, records)["2"]
        assert any(words in claim for claim in summary.claims) and not any("No number of seeds" in claim for claim in summary.claims)
        assert summary.commands == ()
        ends = [row.cells["test_accuracy"].gain_interval for row in summary.rows if not row.is_baseline]
        assert not any(low < -100 or high > 100 for low, high in ends)


def test_splits_drawn_anew_per_seed_widen_the_interval_and_are_said(tmp_path):
    records = copy.deepcopy(RECORDS)
    for r in records:
        r["params"]["split_per_seed"] = True
    plain, redrawn = (cells(summaries(tmp_path / str(i), ASKED, x)["5"])["m = 0.1"] for i, x in enumerate((RECORDS, records)))
    width = [c.gain_interval.high - c.gain_interval.low for c in (plain, redrawn)]
    assert width[1] / width[0] == pytest.approx((1 + 10 * 180 / 360) ** 0.5)
    assert any("Nadeau" in n for n in summaries(tmp_path / "1", ASKED, records)["5"].notes)


def test_a_row_of_a_split_of_its_own_has_the_ratio_of_its_split_and_the_table_says_that_splits_differ(tmp_path):
    asked, records = copy.deepcopy((ASKED, RECORDS))
    own = asked["tables"][1]["arms"][0]["config_hash"]
    for r in records:
        r["params"] |= {"split": [0.8, 0.1, 0.1] if r["config_hash"] == own else [0.6, 0.1, 0.3], "split_seed": 0}
        r["params"]["split_per_seed"] = r["config_hash"] == own
    study = analysis.load(fake.write(tmp_path, asked, records))
    rows = {r.arm.name: r for r in study.summaries[1].rows}
    plain = {r.arm.name: r for r in analysis.load(fake.write(tmp_path / "plain", ASKED, RECORDS)).summaries[1].rows}
    for name, ratio in (("m = 0.1", 0.1 / 0.8), ("m = 0.3", 0.0)):
        a, b = (rows_[name].cells["test_accuracy"].interval for rows_ in (rows, plain))
        assert (a.high - a.low) / (b.high - b.low) == pytest.approx((1 + 10 * ratio) ** 0.5), name
    notes = " ".join(study.summaries[1].notes)
    assert "Every seed of m = 0.1 draws its own split" in notes and "(1/n + 0.125)" in notes
    assert (
        "Rows are of different splits, so of different test images (60/10/30, seed 0: m = 0.2, m = 0.3, m = 0.4, m = 0.5; 80/10/10" in notes
    )
    results = study.results.set_index("key")
    assert results.loc["5/m-0-1/accuracy", "split"] == "80/10/10, drawn anew for each seed"


def test_the_number_of_test_images_of_a_row_is_its_own(tmp_path):
    records = copy.deepcopy(RECORDS)
    own = ASKED["tables"][1]["arms"][0]["config_hash"]
    for r in records:
        if r["config_hash"] == own:
            r["confusion"]["test"] = (np.eye(4, dtype=int) * 5).tolist()
    results = analysis.load(fake.write(tmp_path, ASKED, records)).results.set_index("key")
    assert (results.loc["5/m-0-1/accuracy", "images"], results.loc["5/m-0-3/accuracy", "images"]) == (20, 180)


@pytest.mark.parametrize("status", ["diverged", "collapsed"])
def test_an_arm_of_which_seeds_broke_is_first_a_failure_rate_and_neither_bold_nor_marked(tmp_path, status):
    asked, records = fake.study_and_records(seeds=10, trials=0)
    best = asked["tables"][0]["arms"][5]["config_hash"]
    for r in records:
        if r["config_hash"] == best:
            r["metrics"] = {k: min(1.0, v + 0.1) for k, v in r["metrics"].items()}
        if r["config_hash"] == best and r["seed"] < 4:
            r["status"], r["error"] = status, {"kind": "odd", "message": "x"}
    summary = summaries(tmp_path, asked, records)["2"]
    row = summary.rows[5]
    cell = row.cells["test_accuracy"]
    assert cell.mean == max(r.cells["test_accuracy"].mean for r in summary.rows if r.cells["test_accuracy"].n) and cell.n == 6
    assert not cell.bold and cell.difference_to.p(cell.comparisons) < 0.05 and math.isnan(cell.p) and cell.shown == ""
    low, high = stats.binomtest(4, 10).proportion_ci(method="exact")
    rate = f"4 of 10 runs {status} (40 %, 95 % interval {100 * low:.0f} to {100 * high:.0f} %)"
    claim = next(words for words in summary.claims if row.arm.name in words)
    assert (
        claim.startswith(f"{row.arm.name}: {rate}. ")
        and claim.endswith(f"that leaves out what {status} and is no claim.")
        and " gains " not in claim
    )
    assert any(rate in note for note in summary.notes)
    assert sum(r.cells["test_accuracy"].bold for r in summary.rows) == 1


def test_an_arm_of_the_baseline_s_settings_under_another_name_is_not_compared_with_itself(tmp_path):
    asked = copy.deepcopy(ASKED)
    asked["tables"][0]["arms"].append({**asked["tables"][0]["arms"][0], "name": "scratch again"})
    summary = summaries(tmp_path, asked)["2"]
    cell = summary.rows[-1].cells["test_accuracy"]
    assert summary.baseline == "Training from scratch" and summary.rows[-1].is_baseline
    assert cell.difference_to is None and cell.comparisons == 4 and not any("scratch again" in words for words in summary.claims)


def test_the_order_of_the_paper_is_compared_over_arms_that_have_both_numbers(tmp_path):
    found = summaries(tmp_path)
    assert (found["2"].ranked, found["5"].ranked) == (5, 4)
    assert found["2"].tau.tau > 0.5
    assert any("Kendall's tau" in n and "exact p" in n for n in found["2"].notes)


def test_a_diverged_arm_confirms_a_paper_that_says_it_did_not_converge(tmp_path):
    assert cells(summaries(tmp_path)["5"])["m = 0.5"].verdict.startswith("confirmed")


def test_what_is_not_tested_has_no_p_no_mark_and_no_verdict_in_any_output(tmp_path):
    analysis.write_report(fake.write(tmp_path, ASKED, RECORDS))
    frame = analysis.load(tmp_path).results
    other = frame[frame["metric"] != "test_accuracy"]
    assert other["gain_over_baseline"].notna().any()
    for column in ("p_adjusted", "probability_of_other_sign", "shown", "verdict"):
        assert other[column].isna().all() and frame.loc[frame["metric"] == "test_accuracy", column].notna().any(), column
    macros = re.findall(r"kt@(.*)/p}", (tmp_path / "tables/numbers.tex").read_text(encoding="utf-8"))
    assert macros and {name.split("/")[2] for name in macros} == {"accuracy"}
    assert "dagger" in (tmp_path / "tables/table-2.tex").read_text() and "dagger" not in (tmp_path / "tables/table-2-f1.tex").read_text()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    heads = [part for part in page.split('<table class="tight">') if "gain over Training from scratch" in part.split("</caption>")[0]]
    said = [('scope="col">p</th>' in part.split("</thead>")[0], "Not tested" in part.split("</caption>")[0]) for part in heads]
    assert said == [(True, False)] + 4 * [(False, True)]


def test_sentences_name_metrics_in_words_and_say_below_of_a_loss(tmp_path):
    study = analysis.load(fake.write(tmp_path, ASKED, RECORDS))
    assert study.winner.words.startswith("highest mean validation accuracy over 10 seeds")
    assert [phrase(m) for m in ("test_f1", "val_knn_accuracy", "external_qband_auc")] == [
        "test F1",
        "validation kNN accuracy",
        "external qband: AUC",
    ]
    told = headline(study)
    for gain, words in ((1.2, "1.20 points above"), (-0.94, "0.94 points below")):
        for ends, more in ((Interval(-1.0, 3.0), ", undecided"), (Interval(gain, 2 * gain), ""), (NONE, "")):
            assert replace(told, gain=gain, gain_interval=ends).beside == f"{words} {told.over}{more}"
    analysis.write_report(tmp_path)
    for name in ("report.html", "report.md", "methods.md"):
        text = (tmp_path / name).read_text(encoding="utf-8").partition('<script type="application/json"')[0]
        assert told.beside in text or name == "methods.md"
        assert not re.findall(r"[^`\w](?:val|test)\\?_(?:accuracy|f1)", text), name


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


def missing_for_latex() -> str:
    """What a machine lacks to compile our tables; '' if nothing."""
    if shutil.which("pdflatex") is None or shutil.which("kpsewhich") is None:
        return "no LaTeX on this machine"
    found = subprocess.run(["kpsewhich", "siunitx.sty", "threeparttable.sty", "booktabs.sty"], capture_output=True, text=True, check=False)
    return (
        "" if found.returncode == 0 else "LaTeX has no siunitx, threeparttable or booktabs (Debian: texlive-science, texlive-latex-extra)"
    )


def odd_study(folder: Path) -> Path:
    """Ten seeds, names that LaTeX would take for commands, and a table of one arm."""
    asked = copy.deepcopy(ASKED)
    asked["tables"][1]["arms"][0]["name"] = 'm_1 & 50 % of #{x} ~ ^ \\ "q" <b> | λ ≥ µ é 漢 «x» ÐđąŁħŋ'
    for arm, name in zip(asked["tables"][0]["arms"], ("[0.1] x", "*[2pt]"), strict=False):
        arm["name"] = name
    asked["tables"][0]["baseline_arm"] = "[0.1] x"
    asked["tables"].append({**asked["tables"][0], "number": "9", "metrics": ["test_accuracy"], "title": "Narrow 100 %"})
    return fake.write(folder, asked, RECORDS)


def test_a_table_of_an_article_has_n_mean_and_gain_with_intervals_and_is_never_scaled(tmp_path):
    study = analysis.load(fake.write(tmp_path, ASKED, RECORDS))
    summary = analysis.summarize(study)[0]
    text = to_tex(summary, study.results[study.results["table"] == "2"], "test_accuracy")
    assert "resizebox" not in text and "threeparttable" in text
    row = next(line for line in text.splitlines() if line.startswith("MoCo + SupCon + CatVar &"))
    cell = cells(summary)["MoCo + SupCon + CatVar"]
    numbers = [float(x.replace("$-$", "-")) for x in re.findall(r"(?:\$-\$|[+-])?\d+\.?\d*", row)]
    expected = [10, cell.mean, *cell.interval, cell.gain, *cell.gain_interval]
    assert numbers == pytest.approx(expected, abs=0.0051)
    best = next(r.arm.name for r in summary.rows if r.cells["test_accuracy"].bold)
    assert [line.split(" &")[0] for line in text.splitlines() if "bfseries" in line] == [best]
    assert all(
        ("tnote" in row) == bool(cells(summary)[row.split(" &")[0]].shown)
        for row in text.splitlines()
        if row.split(" &")[0] in cells(summary)
    )
    assert "\\item ImageNet weights: weights unreachable (10 runs)." in text
    assert "{sim.\\ 95 \\% interval}" in text and "n: seeds that ended; sim.: simultaneous" in text and "that both arms have" not in text
    fewer = [r for r in RECORDS if not (r["seed"] > 7 and "2/MoCo" in r["arms"])]
    study = analysis.load(fake.write(tmp_path, ASKED, fewer))
    [summary, *_] = analysis.summarize(study)
    text = to_tex(summary, study.results[study.results["table"] == "2"], "test_accuracy")
    assert "A gain is over the seeds that both arms have: MoCo 8." in text


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_for_latex()), reason=missing_for_latex())
def test_a_real_latex_compiles_every_table_and_figure_without_an_overfull_line(tmp_path):
    analysis.write_report(odd_study(tmp_path), pdf=True)
    files = sorted((tmp_path / "tables").glob("*.tex"))
    assert len(files) > 10
    inputs = "\n".join(f"\\input{{tables/{f.name}}}\\clearpage" for f in files)
    figures = sorted((tmp_path / "figures").glob("*.pdf"))
    assert len(figures) > 8
    inputs += "\n".join(
        f"\\includegraphics[width=\\linewidth,height=\\textheight,keepaspectratio]{{figures/{f.name}}}\\clearpage" for f in figures
    )
    packages = "\\usepackage[utf8]{inputenc}\\usepackage{booktabs,siunitx,threeparttable,graphicx}"
    page = f"\\documentclass{{article}}{packages}\\begin{{document}}{inputs}\\end{{document}}"
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert ran.returncode == 0, ran.stdout[-1500:]
    assert "Overfull" not in ran.stdout


def test_another_methods_row_stands_as_reported_only_until_an_arm_has_its_key(tmp_path):
    asked = copy.deepcopy(ASKED)
    table = asked["tables"][0] | {"number": "1", "dataset": "ChrCluster 80/10/10"}
    table["arms"] = [arm | {"published": key} for arm, key in zip(table["arms"], ("lin2021/densenet121/imagenet", "lin2021/resnet101/imagenet"), strict=False)]  # fmt: skip
    asked["tables"] = [table, table | {"number": "S1", "dataset": ""}]
    study = analysis.load(fake.write(tmp_path, asked, RECORDS))
    [summary, plain] = study.summaries
    names = [arm["name"] for arm in table["arms"]]
    reported = [
        "Lin et al. 2021: ResNeXt-101 32x8d from ImageNet",
        "Lin et al. 2021: ResNeXt-101 32x8d with a head of its own",
    ]
    assert [row.arm.name for row in summary.rows] == [*names, *reported] and [row.arm.name for row in plain.rows] == names
    row = summary.rows[-1]
    assert (row.state, row.keys, row.waiting, sum(row.counts.values()), row.is_baseline) == ("reported only", (), 0, 0, False)
    assert row.cells["test_accuracy"].published.mean == 94.09 and row.cells["test_f1"].published.mean == 92.84
    base = next(one for one in summary.rows if one.is_baseline).cells["test_accuracy"].published
    assert row.cells["test_accuracy"].paper_gain[0] == pytest.approx(94.09 - base.mean), "the paper's own gain is in the plot"
    assert not any("with a head of its own" in words for words in (*summary.claims, *summary.notes))
    assert any("micro average" in note for note in summary.notes) and any("fits F2" in note for note in summary.notes)
    assert not any("fits F2" in note for note in plain.notes)
    results = study.results
    mine = results[(results["arm"] == reported[1]) & (results["metric"] == "test_accuracy")].iloc[0]
    assert (mine["n"], mine["published_mean"], mine["reason"]) == (0, 94.09, "reported only") and math.isnan(mine["mean"])
    written = {
        path.name: path.read_text() for path in analysis.write_report(tmp_path).paths if path.suffix in (".md", ".tex", ".html", ".csv")
    }
    for name in ("table-1.md", "table-1.tex", "table-1.csv", "report.html", "report.md"):
        assert reported[1] in written[name] and "reported only" in written[name] and "94.09" in written[name], name
    assert "reported only" not in written["table-S1.md"]
