"""The numbers of a paper: macros that are current, numbers typed by hand that a record gives or not, methods, checklists, bundles."""

from __future__ import annotations

import copy
import csv
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import fake
import numpy as np
import pandas as pd
import pytest
from test_tables import missing_for_latex, odd_study

import analysis
from analysis import bundle, methods, paper
from analysis.__main__ import main
from analysis.study import StudyError

ASKED, RECORDS = fake.study_and_records()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = fake.write(tmp_path_factory.mktemp("made") / "study", ASKED, RECORDS)
    fake.leave(made, ASKED, RECORDS)
    data = json.loads((made / "data/data.json").read_text())
    (made / "data/data.json").write_text(json.dumps(data | {"patients": [f"person-{i // 10}" for i in range(600)]}))
    (made / "splits").mkdir()
    rows = [f"{file},{file.split('/')[0]},{('train', 'val', 'test')[i // 10 % 3]}" for i, file in enumerate(data["files"])]
    (made / "splits/60-10-30.csv").write_text("\n".join(["file,label,part", *rows]) + "\n")
    analysis.write_report(made)
    return made


@pytest.fixture(scope="module", autouse=True)
def read_once(folder):
    """The study that most tests hold a paper against is read and reckoned once."""
    study, patched = analysis.load(folder), pytest.MonkeyPatch()
    patched.setattr(paper, "load", lambda given: study if Path(given) == folder else analysis.load(given))
    yield
    patched.undo()


def said(folder: Path, tmp_path: Path, body: str, head: str = "", study: bool = True) -> paper.Checked:
    (tmp_path / "paper.tex").write_text(
        f"\\documentclass{{article}}{head}\\begin{{document}}\n{body}\n\\end{{document}}\n", encoding="utf-8"
    )
    return paper.check(tmp_path / "paper.tex", folder if study else None)


def mean(folder: Path, key: str = "2/moco/accuracy") -> float:
    return float(analysis.load(folder).results.set_index("key").loc[key, "mean"])


def test_every_cell_has_a_macro_with_the_number_that_its_table_shows(folder):
    text = (folder / "tables/numbers.tex").read_text(encoding="utf-8")
    macros = dict(re.findall(r"\\@namedef\{kt@([^}]*)\}\{(.*)\}", text))
    for row in analysis.load(folder).results.to_dict("records"):
        if row["n"]:
            assert macros[f"{row['key']}/mean"] == f"{row['mean']:.2f}"
            assert macros[f"{row['key']}/n"] == str(row["n"])
        else:
            assert f"{row['key']}/mean" not in macros
    assert (macros["study/images"], macros["study/patients"], macros["study/seeds"]) == ("600", "60", "3")


def test_a_macro_that_no_record_gives_is_refused_and_the_nearest_is_named(folder, tmp_path):
    found = said(folder, tmp_path, r"SupCAM reaches \kt{2/moco/accuracy/mean} \% and \kt{2/mocko/accuracy/mean} \%.")
    assert found.macros == 2 and len(found.refused) == 1
    assert r"paper.tex:2: no record gives \kt{2/mocko/accuracy/mean}; did you mean \kt{2/moco/accuracy/mean}?" in found.refused[0]


def test_a_number_typed_by_hand_that_no_record_gives_is_refused_with_its_line(folder, tmp_path):
    right = f"{mean(folder):.2f}"
    wrong = f"{mean(folder) + 0.37:.2f}"
    found = said(folder, tmp_path, f"It has {right}~\\%.\nIt has {wrong}\\,\\%, or 98.765 points.")
    assert [words.split(" is typed")[0] for words in found.refused] == [f"paper.tex:3: {wrong}", "paper.tex:3: 98.765"]
    assert len(found.notes) == 1 and "\\kt{2/moco/accuracy/" in found.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        r"\qty{98.76}{\percent}",
        r"\SI{199}{\percent}",
        r"a & 98.76 & b \\",
        r"$98.76$",
        r"33~per cent",
        r"33 points",
        r"($-98.76$ to 2)",
        r"98.76\%.",
        r"98,76 \%",
        r"98,76~Prozent erreicht es.",
        r"$98{,}7$",
        r"\num{98,76}",
        r"a & 98,76 & b \\",
        r"98,7 percentage points",
        r"accuracy of .9876",
        r"\newcommand{\acc}{98.76}\acc\,\%",
        r"\newcommand\acc{199}It has \acc{}~\%.",
        r"\def\acc#1{#1,76~\%}It has \acc{98}.",
        r"\newcommand{\best}{\acc}\newcommand{\acc}{98.76}\best",
        r"\textcolor{red}{We reach 98.76 \%}",
        r"\href{https://a.org/1.5%20x}{98.76 \%}",
        r"\begin{center}{98.76 \%}\end{center}",
        "It reaches 199\n\\% of them.",
        r"\verb|%| 98.76 \%",
        r"98{.}76 \%",
        r"a 199-point gain",
        r"a 199 percentage-point gain",
        r"MoCo & 99 \\",
        r"MoCo & 3 & \textbf{99}$^\dagger$ & x \\",
        r"MoCo & $\mathbf{99}$ \tabularnewline",
    ],
)
def test_a_result_is_seen_however_it_is_written(folder, tmp_path, text):
    assert len(said(folder, tmp_path, text).refused) == 1


@pytest.mark.parametrize(
    "text",
    [
        r"Three seeds, 2 networks, section 4, in 2024, Table~2.",
        r"A 95 \% interval, a 95\% confidence interval, the simultaneous 95\,\% intervals.",
        r"\includegraphics[width=0.48\linewidth]{a-98.76.pdf}\vspace{1.23cm} \cite{x2019.77} \label{sec:98.76} 3.3in wide",
        r"% 98.76 \% in a comment",
        r"Luo reports 98.76 \%. % not a result",
        r"The temperature is 0.07 and the margin 0.2, at a rate of 0.03.",
        r"\renewcommand{\arraystretch}{1.25}\newcommand{\unused}{98.76}\newcommand{\ours}{SupCAM}\ours{} in 4,000 images, 12,500 points.",
        r"Refs [12,13], Eqs. (12,13), seeds 0,1,2, tables 2,5, $x \in \{10,20\}$, 1,024 keys, \foreach \x in {10,20}.",
        r"Table & 2 & 180 & 60 & 1024 & 2024 \\ 99 & x & a 99 b & 31 May \\ A \& 99 \\",
        r"at $p < .05$, $\alpha = 0.05$, a level of 0.05",
        "\\newcommand{\\luo}{98.76} % not a result\nLuo reports \\luo.",
    ],
)
def test_what_is_no_result_and_what_is_a_setting_is_not_refused(folder, tmp_path, text):
    assert said(folder, tmp_path, text).refused == ()


def test_a_sign_that_is_written_must_be_the_record_s_and_a_dash_of_a_range_is_none(folder, tmp_path):
    rows = analysis.load(folder).results.dropna(subset=["gain_simultaneous95_low"])
    gain = next(v for v in rows["gain_over_baseline"] if v > 3)
    low, high = (f"{v:.2f}" for v in rows.iloc[-1][["ci95_low", "ci95_high"]])
    sound = rf"It gains {gain:.2f}, $+{gain:.2f}$ points ({low}--{high}, {low} - {high}, ${low}-{high}$, {low}$-${high})."
    assert said(folder, tmp_path, sound).refused == ()
    for wrong in (rf"$-{gain:.2f}$", rf"a & -{gain:.2f} \\", rf"$-${gain:.2f}", rf"(−{gain:.2f} points)"):
        refused = said(folder, tmp_path, wrong).refused
        assert len(refused) == 1 and f"-{gain:.2f} is typed" in refused[0], wrong
    loss = next(v for v in rows["gain_over_baseline"] if v < 0)
    assert said(folder, tmp_path, f"It loses {-loss:.2f} points, ${loss:.2f}$.").refused == ()
    assert len(said(folder, tmp_path, f"It has $+{-loss:.2f}$ points.").refused) == 1


def test_a_right_number_in_a_command_or_with_a_comma_or_without_a_zero_is_found(folder, tmp_path):
    value = mean(folder)
    comma, fraction = f"{value:.2f}".replace(".", ","), f"{value / 100:.4f}"[1:]
    found = said(folder, tmp_path, rf"\acc\,\%, {comma} \%, {fraction}.", rf"\newcommand{{\acc}}{{{value:.2f}}}")
    assert (found.refused, found.typed) == ((), 3)
    found = said(folder, tmp_path, r"\acc{} points", r"\newcommand{\acc}{\kt{2/mocko/accuracy/mean}}")
    assert "did you mean" in found.refused[0]


def test_a_whole_number_is_not_backed_by_the_end_of_some_interval(folder, tmp_path):
    results = analysis.load(folder).results
    points = {f"{abs(v):.0f}" for c in ("mean", "published_mean", "gain_over_baseline") for v in results[c].dropna()}
    ends = {f"{abs(v):.0f}" for c in ("ci95_low", "ci95_high", "gain_simultaneous95_low") for v in results[c].dropna()}
    only = sorted(ends - points, key=int)[-1]
    assert len(said(folder, tmp_path, f"It gains {only} points.").refused) == 1
    low, high = (f"{v:.0f}" for v in results.dropna(subset=["ci95_low"]).iloc[0][["ci95_low", "ci95_high"]])
    for ends in ("{} to {}", "({}, {})", "$[{}$--${}]$", "from {} to {}", ": {}–{}"):
        for a, b, count in ((low, high, 0), ("198", "199", 2), (low, "199", 2)):
            assert len(said(folder, tmp_path, rf"It is 95\,\% CI {ends.format(a, b)}.").refused) == count, ends
    assert said(folder, tmp_path, "A 95 \\% interval (3 seeds), intervals of 12 arms, CI, 12 to 19 of them.").refused == ()


def test_a_number_is_backed_only_by_a_value_of_what_it_is_said_to_be(folder, tmp_path):
    study = analysis.load(folder)
    rows, p = study.results, {f"{v:.3f}" for v in study.results["p_adjusted"].dropna()}
    every = [f"0.{i:03d}" for i in range(1, 50)]
    refused = said(folder, tmp_path, "\n".join(f"at $p = {number}$" for number in every)).refused
    assert {words.split()[1] for words in refused} == set(every) - p
    gains = rows["gain_over_baseline"].dropna()
    loss = next(v for v in gains if v < -1 and not any(f"{w:.2f}" == f"{-v:.2f}" for w in gains))
    mean_, std = (next(v for v in rows[c].dropna() if v > 0) for c in ("mean", "std"))
    sound = rf"It loses {-loss:.2f} points and is at {mean_:.2f}~\%, {mean_ / 100:.4f}, with a standard deviation of {std:.2f} points."
    assert said(folder, tmp_path, sound).refused == ()
    for wrong in (
        f"It gains {-loss:.2f} points.",
        f"It gains {mean_:.2f} points.",
        rf"at $p = {std / 100:.4f}$",
        f"of {std / 100:.5f}",
        rf"{int(study.asked['baseline']['queue_size']) / 100:.2f} points",
        rf"{len(study.seeds)}.00 \%",
    ):
        assert len(said(folder, tmp_path, wrong).refused) == 1, wrong


def lines_refused(folder: Path, tmp_path: Path, lines: list[str], head: str = "") -> list[str]:
    """Those of the lines, a paragraph each, of which a number is refused."""
    found = said(folder, tmp_path, "\n\n".join(lines), head)
    return [lines[n // 2 - 1] for n in sorted({int(words.split(":")[1]) for words in found.refused})]


def test_a_gain_is_a_gain_and_a_p_is_that_arm_s_however_the_sentence_says_it(folder, tmp_path):
    rows = analysis.load(folder).results.set_index("key")
    reached, spread = rows.loc["2/moco/accuracy", ["mean", "std"]]
    loss, gain = (f"{abs(rows.loc[f'2/{key}/accuracy', 'gain_over_baseline']):.2f}" for key in ("moco", "moco-supcon-catvar"))
    wrong = [
        f"MoCo improves accuracy by {loss} points.",
        f"MoCo outperforms training from scratch by as much as {loss} points.",
        f"MoCo is superior by {loss} points.",
        f"It raises accuracy by {loss} points.",
        f"MoCo is {loss} points better than training from scratch.",
        f"An improvement of {loss} points is seen for MoCo.",
        f"Training from scratch loses {loss} points against MoCo.",
        f"MoCo + SupCon + CatVar worsens the accuracy by {gain} points.",
        f"MoCo + SupCon + CatVar is {gain} points below training from scratch.",
        f"A decrease by {gain} points.",
        r"MoCo is significantly worse ($p<0.05$).",
        r"The p-value of MoCo is below 0.01.",
        r"MoCo has $p < 10^{-5}$.",
        r"MoCo, $p<1\mathrm{e}{-5}$, p < 1e-5.",
        rf"It has a hazard ratio of {gain}.",
        rf"A Dice of {reached / 100:.2f} and a kappa {reached / 100:.2f}.",
        rf"MoCo reaches {reached:.2f} \% (99 \% interval).",
        r"MoCo reaches 89.15 \% in our hands.",
        r"In this paper, it reaches 89.15 \%.",
    ]
    sound = [
        f"MoCo loses {loss} points of accuracy against training from scratch (p > 0.05).",
        f"Training from scratch outperforms MoCo by {loss} points; it is {loss} points better than MoCo.",
        f"The accuracy of MoCo falls by {loss} points, a drop of {loss} points; MoCo raises the error by {loss} points.",
        f"With increased cost, MoCo + SupCon + CatVar improves accuracy by {gain} points over training from scratch.",
        f"The difference is {gain} points, MoCo and MoCo + SupCon + CatVar differ by {loss} and {gain}.",
        rf"MoCo & {reached:.2f} & {loss} & 89.15 \\",
        r"Differences with $p < 0.05$ were considered significant, with $\alpha = 0.05$.",
        r"Luo reports 89.15 \%. They reach 89.15 \%. MoCo is at 89.15 \% \cite{luo}.",
        rf"MoCo reaches {reached:.1f} $\pm$ {spread:.1f} \%.",
    ]
    report = (folder / "report.md").read_text(encoding="utf-8")  # what the report itself says may stand in a paper
    claims = [words.replace("%", "\\%") for words in re.findall(r"^- (.*(?:undecided|gains|loses).* points.*)$", report, re.M)]
    assert len(claims) > 4 and lines_refused(folder, tmp_path, wrong + sound + claims) == wrong


# Of the made study: 75.56 from scratch, MoCo -2.04 of that, with SupCon +0.19, with CatVar +8.89 (p 0.2502), with self-margin +10.74 (p 0.1318).
LIES = [
    r"On average, our arms gain 8.89 points over training from scratch.",
    r"MoCo + SupCon + CatVar gains 10.74 points over training from scratch.",
    r"MoCo + SupCon + CatVar + self-margin reaches 84.44 \%, MoCo + SupCon + CatVar 86.30 \%.",
    r"MoCo reaches 75.56 \% and training from scratch 73.52 \%.",
    r"MoCo and MoCo + SupCon reach 75.74 and 73.52 \%, respectively.",
    r"The difference is not due to chance for MoCo + SupCon + CatVar ($p = 0.1318$).",
    r"We find $p = 0.2502$ for MoCo + SupCon + CatVar + self-margin.",
    r"MoCo + SupCon + CatVar + self-margin gains 10.8 points over training from scratch.",
    r"MoCo + SupCon + CatVar + self-margin is significantly better than training from scratch (+10.74 points).",
    r"MoCo + SupCon + CatVar + self-margin significantly outperforms training from scratch.",
    r"MoCo + SupCon + CatVar + self-margin gains 10.74 \% over training from scratch.",
    r"MoCo + SupCon + CatVar + self-margin gains 10.74 points over MoCo.",
    r"MoCo + SupCon + CatVar + self-margin gains 10.74 points (95 \% interval 6.97 to 28.45).",
    r"MoCo + SupCon + CatVar + self-margin gains 10.74 points (95 \% interval --11.79 to 29.57).",
    r"MoCo + SupCon + CatVar gains up to 10.74 points.",
    r"Our variants gain up to 8.89 points over training from scratch.",
    r"Our variants gain at least 8.89 points over training from scratch.",
    r"MoCo outperforms training from scratch.",
    r"Training from scratch is worse than MoCo.",
    r"MoCo does not lose 2.04 points against training from scratch.",
    r"MoCo improves accuracy from 73.52 \% to 75.56 \%.",
    r"The gain of MoCo + SupCon + CatVar + self-margin is 28.45 points.",
    r"MoCo + SupCon + CatVar + self-margin reaches 86.30 $\pm$ 0.56 \%.",
    r"MoCo + SupCon + CatVar + self-margin reaches 95.49 \%.",
    r"MoCo + SupCon + CatVar + self-margin loses \kt{2/moco-supcon-catvar-self-margin/accuracy/gain} points.",
    r"MoCo gains \kt{2/moco-supcon-catvar/accuracy/gain} points over training from scratch.",
    r"MoCo improves accuracy by \kt{2/moco/accuracy/gain} points.",
    r"MoCo + SupCon ($p = \kt{2/moco-supcon-catvar/accuracy/p}$) gains little.",
    r"MoCo & 84.44 & 10.74 \\",
    r"MoCo & \kt{2/training-from-scratch/accuracy/mean} & x \\",
    r"We used 3 seeds and MoCo + SupCon + CatVar + self-margin reaches 86.30 \% over 12 seeds.",
    r"MoCo + SupCon + CatVar + self-margin reaches 86.30 \% on images of 124 patients.",
    r"MoCo + SupCon + CatVar + self-margin reaches 86.30 \%. It gains 8.89 points over training from scratch.",
    r"Compared with MoCo, MoCo + SupCon + CatVar gains 8.89 points.",
    r"MoCo + SupCon loses –2.04 points.",
    r"MoCo + SupCon + CatVar is superior to MoCo + SupCon + CatVar + self-margin.",
    r"m = 0.1 (p = 0.2391) is no better than m = 0.2.",
    r"$m = 0.4$ loses 3.52 points against $m=0.2$.",
    r"The published accuracy of MoCo is 93.24 \%.",
    r"The gains range from 2.04 to 8.89 points.",
    r"Eine Abnahme um 10,74 Punkte bei MoCo.",
    r"MoCo + SupCon + CatVar + self-margin has an accuracy of 86.4 \%.",
    r"The accuracy of MoCo never falls below 73.52 \%.",
    r"MoCo exceeds 73.52 \% in every seed, no less.",
    r"No seed of MoCo falls below 0.7352.",
    r"MoCo never exceeds \kt{2/moco/accuracy/mean} \%.",
    r"MoCo does not fall below 75.56 \%.",
    r"Accuracy never falls below 75.56 \%.",
    r"MoCo + SupCon + CatVar never gains less than 8.89 points.",
    r"MoCo never loses more than 2.04 points.",
    r"MoCo + SupCon always outperforms training from scratch.",
    r"MoCo + SupCon never falls below training from scratch.",
    r"Across all seeds MoCo + SupCon outperforms training from scratch.",
    r"MoCo + SupCon consistently outperforms training from scratch.",
    r"All arms outperform training from scratch.",
    r"MoCo + SupCon + CatVar achieves the highest accuracy.",
    r"MoCo + SupCon is the worst arm.",
    r"The best accuracy is reached by training from scratch.",
    r"Training from scratch performs best.",
    r"The error of MoCo is twice that of training from scratch.",
    r"MoCo + SupCon + CatVar halves the error of MoCo.",
    r"MoCo + SupCon + CatVar is 1.5 times as good as MoCo.",
    r"MoCo + SupCon + CatVar + self-margin doubles the gain of MoCo + SupCon + CatVar.",
    r"The test set has 420 images.",
    r"We trained on 181 images of 60 patients.",
    r"With seed 1 MoCo reaches 77.22 \%.",
    r"The worst seed of MoCo reaches 77.22 \%.",
    r"MoCo lies between 76.11 and 77.22 \% over the seeds.",
    r"MoCo reaches 77.22 \% over 3 seeds.",
    r"MoCo + SupCon + CatVar outperforms all other arms.",
    r"Among all arms, MoCo + SupCon + CatVar + self-margin has the best accuracy, MoCo the best F1.",
]
TRUTHS = [
    r"The gains over training from scratch were $-2.04$ (MoCo), $+0.19$ (MoCo + SupCon) and $+8.89$ points (MoCo + SupCon + CatVar).",
    r"In contrast to training from scratch with 75.56 \%, MoCo has 73.52 \%.",
    r"The mean accuracy drops from 75.56 \% (training from scratch) to 73.52 \% (MoCo).",
    r"MoCo + SupCon + CatVar + self-margin gains 10.74 points over training from scratch (simultaneous 95 \% interval -6.97 to +28.45; undecided).",
    r"MoCo reaches 73.52 \% and training from scratch 75.56 \%.",
    r"MoCo and MoCo + SupCon reach 73.52 and 75.74 \%, respectively.",
    r"An accuracy of 86.30 \% was reached by MoCo + SupCon + CatVar + self-margin, 10.74 points above training from scratch.",
    r"We find $p = 0.2502$ for MoCo + SupCon + CatVar and $p = 0.1318$ for MoCo + SupCon + CatVar + self-margin.",
    r"Training from scratch (75.56 \%) is 2.04 points better than MoCo (73.52 \%).",
    r"MoCo + SupCon + CatVar + self-margin improves accuracy from 75.56 \% to 86.30 \%.",
    r"MoCo + SupCon + CatVar + self-margin is not significantly better than training from scratch (+10.74 points, $p = 0.13$).",
    r"MoCo + SupCon + CatVar + self-margin did not significantly improve over training from scratch (10.74 points, --6.97 to 28.45).",
    r"MoCo loses 2.04 points against training from scratch (95 \% interval $-28.96$ to 33.03).",
    r"MoCo changes the accuracy by –2.04 points (–33.03 to 28.96).",
    r"Our variants gain up to 10.74 points over training from scratch.",
    r"Training from scratch outperforms MoCo, but the difference is undecided.",
    r"The lower bound of the gain of MoCo + SupCon + CatVar + self-margin is $-6.97$ points.",
    r"MoCo + SupCon + CatVar + self-margin erreicht 86,30 \% (77,11 bis 95,49).",
    r"MoCo + SupCon + CatVar + self-margin gains \kt{2/moco-supcon-catvar-self-margin/accuracy/gain} points over training from scratch ($p = \kt{2/moco-supcon-catvar-self-margin/accuracy/p}$).",
    r"MoCo loses \kt{2/moco/accuracy/gain} points (\kt{2/moco/accuracy/gain-low} to \kt{2/moco/accuracy/gain-high}).",
    r"With a margin of 0.2, $m = 0.2$ reaches 86.30 $\pm$ 3.70 \%.",
    r"$m = 0.1$ is 0.56 points below $m = 0.2$; $m=0.3$ loses 3.52 points.",
    r"MoCo & 73.52 & (59.91 to 87.13) & $-2.04$ \\",
    r"MoCo & \kt{2/moco/accuracy/mean} & \kt{2/moco/accuracy/low} & \kt{2/moco/accuracy/p} \\",
    r"MoCo + SupCon + CatVar + self-margin is best. It reaches 86.30 \% over 3 seeds on images of 59 patients.",
    r"MoCo + SupCon + CatVar + self-margin does not significantly outperform training from scratch.",
    r"Adding CatVar to MoCo + SupCon raises the accuracy to 84.44 \%.",
    r"The accuracy of training from scratch, 75.56 \%, is exceeded by MoCo + SupCon + CatVar, which has 84.44 \%.",
    r"The published gain of MoCo is small (89.15 \% against 88.38 \% of training from scratch).",
    r"Over the baseline, MoCo + SupCon + CatVar gains 8.89 points.",
    r"Accuracies lay between 73.52 and 86.30 \%.",
    r"The specificity of MoCo is 91.17 \%, its F1 73.54 \%.",
    r"The accuracy of MoCo never falls below 67.22 \%, nor below 60 \%.",
    r"On average, MoCo never falls below 73.52 \%; it does not fall below 73.52 \%.",
    r"No run of MoCo exceeds 77.22 \%, and MoCo never exceeds 80 \%.",
    r"MoCo + SupCon + CatVar gains at least 7.78 points in each seed.",
    r"MoCo never loses more than 8.89 points.",
    r"MoCo + SupCon + CatVar never falls below training from scratch.",
    r"Averaged over all 3 seeds, MoCo + SupCon is better than training from scratch.",
    r"MoCo + SupCon + CatVar + self-margin achieves the highest mean accuracy and performs best.",
    r"The lowest accuracy is that of MoCo; of MoCo and MoCo + SupCon, MoCo + SupCon has the best accuracy.",
    r"MoCo + SupCon + CatVar nearly halves the error of MoCo + SupCon + CatVar + self-margin in no way; MoCo is not twice as good as training from scratch.",
    r"The error of MoCo is twice that of MoCo + SupCon + CatVar + self-margin.",
    r"Across all seeds MoCo + SupCon + CatVar outperforms training from scratch, which is undecided.",
    r"MoCo ranges from 67.22 \% to 77.22 \% over the seeds; its best seed reaches 77.22 \%.",
    r"MoCo + SupCon + CatVar + self-margin outperforms every other arm of table 2, which is undecided.",
    r"The test set has 180 images; twice as many epochs were given to MoCo as to training from scratch.",
]


def test_a_number_is_of_the_arm_and_against_the_arm_that_its_sentence_names(folder, tmp_path):
    assert lines_refused(folder, tmp_path, LIES + TRUTHS) == LIES


def test_a_number_of_a_metric_that_does_not_rank_the_table_and_is_not_named_is_said(folder, tmp_path):
    unnamed = [
        r"MoCo reaches 91.17 \%.",
        r"MoCo reaches \kt{2/moco/f1/mean} \%.",
        r"The accuracy ranks arms. MoCo reaches 91.17 \%.",
    ]
    named = [
        r"MoCo reaches an F1 of 73.54 \%.",
        r"The F1 is as follows. MoCo reaches 73.54 \%.",
        r"MoCo & 91.17 \\",
        r"MoCo reaches 73.52 \%.",
    ]
    lines = unnamed + named
    notes = said(folder, tmp_path, "\n\n".join(lines)).notes
    assert [lines[int(words.split(":")[1]) // 2 - 1] for words in notes if "does not name" in words] == unnamed


def test_every_sentence_that_a_study_writes_of_itself_passes_its_own_check(folder, tmp_path):
    (folder / "best").mkdir(exist_ok=True)
    (folder / "best/README.md").write_text("Test accuracy 82.78 % on 180 test images. These weights are of seed 1, which has 83.89 %.\n")
    written = [(folder / name).read_text(encoding="utf-8") for name in ("report.md", "methods.md", "best/README.md")]
    lines = [line for text in written for line in re.sub(r"\\(?=_)|[*`]", "", text).splitlines() if line.strip() and line[0] not in "|#"]
    lines = [re.sub(r"([%_#&])", r"\\\1", line) for line in lines]
    assert len(lines) > 60 and lines_refused(folder, tmp_path, lines) == []
    other = next(line for line in lines if "slots were busy" in line).replace("slots", "graphics cards")
    assert lines_refused(folder, tmp_path, [other]) == [other], "a number of the report in other words is a claim of its own"


def test_a_claim_of_significance_is_held_against_the_test(folder, tmp_path, monkeypatch):
    def with_one_shown(path):
        study = analysis.load(path)
        here = study.results["key"] == "2/moco-supcon-catvar/accuracy"
        low, shown = study.results["gain_simultaneous95_low"].mask(here, 1.0), study.results["shown"].astype(object).mask(here, "better")
        study.__dict__["results"] = study.results.assign(gain_simultaneous95_low=low, shown=shown)
        return study

    monkeypatch.setattr(paper, "load", with_one_shown)
    one = "MoCo + SupCon + CatVar"
    wrong = [
        f"{one} does not significantly differ from training from scratch.",
        f"{one} is comparable to training from scratch.",
        f"{one} is significantly better than MoCo.",
        f"{one} does not outperform training from scratch.",
        f"{one} + self-margin is significantly better than the baseline.",
    ]
    sound = [
        f"{one} significantly outperforms training from scratch.",
        f"MoCo is not significantly worse than training from scratch, unlike {one}.",
    ]
    assert lines_refused(folder, tmp_path, wrong + sound) == wrong


def test_a_gain_that_is_undecided_and_claimed_is_said(folder, tmp_path):
    gain = f"{analysis.load(folder).results.set_index('key').loc['2/moco-supcon/accuracy', 'gain_over_baseline']:.2f}"
    notes = said(folder, tmp_path, f"It significantly improves by {gain} points.\n\nUndecided, $+{gain}$ points.").notes
    assert [words.split(":")[1] for words in notes if "its simultaneous interval holds 0" in words] == ["2"]


def test_a_number_of_the_paper_that_is_compared_with_is_a_number_of_a_table_too(folder, tmp_path):
    assert said(folder, tmp_path, r"Published are 89.15 \%.").refused == ()


def test_included_files_are_read_and_tables_of_an_older_report_are_refused(folder, tmp_path):
    study = shutil.copytree(folder, tmp_path / "study")
    (tmp_path / "results.tex").write_text("98.76 \\%\n", encoding="utf-8")
    body = r"\input{results}\input{study/tables/table-2}"
    head = r"\input{study/tables/numbers.tex}"
    found = said(study, tmp_path, body, head, study=False)
    assert [words.split(":")[0] for words in found.refused] == ["results.tex"]
    records = [json.loads(line) for line in (study / "records.jsonl").read_text().splitlines()]
    for r in records:
        r["metrics"] = {k: v - 0.01 for k, v in r["metrics"].items()}
    fake.write(study, ASKED, records)
    stale = [words for words in said(study, tmp_path, body, head, study=False).refused if "not what the records" in words]
    assert [Path(words.split(":")[0]).name for words in stale] == ["numbers.tex", "table-2.tex"]


@pytest.mark.parametrize("command", [r"\input hidden", r"\subfile{hidden}", r"\import{.}{hidden}", r"\include{hidden}"])
def test_an_included_file_is_read_however_it_is_included(folder, tmp_path, command):
    (tmp_path / "hidden.tex").write_text("\n98.76 \\%\n", encoding="utf-8")
    assert [words.split(": ")[0] for words in said(folder, tmp_path, command).refused] == ["hidden.tex:2"]


def test_a_number_beside_its_unit_is_seen_in_every_spelling_and_in_every_kind_of_command(folder, tmp_path):
    (tmp_path / "mine.sty").write_text(
        "\\newcommand{\\fromstyle}{99.8\\,\\%}\\newcommand{\\unused}{98.76}\n\\parindent 1.25\n", encoding="utf-8"
    )
    spelled = [
        rf"We reach {words}."
        for words in (
            *(r"199\ \%", r"199\thinspace\%", r"199\textpercent", r"199 \char37", r"199\symbol{37}", r"\frac{199}{100}", r"199(1)\,\%"),
            *(r"199\,($\pm$1)\,\%", r"$199\pm1$\,\%", r"\accA", r"\accB", r"\accC", r"\csuse{accD}", r"\csname accD\endcsname", r"\accE"),
            *(r"\accF", r"\accG", r"\accH{199}", r"\accI[x]{199}", r"\fromstyle"),
        )
    ]
    head = (
        r"\usepackage{xparse,mine}\NewDocumentCommand{\accA}{}{99.1\,\%}\DeclareRobustCommand{\accB}{99.2\,\%}\DeclareRobustCommand\accC{99.3}"
        r"\csdef{accD}{99.4}\let\accE\accB\pgfmathsetmacro{\accF}{99.6}\newcommand{\accG}{{{{{99.7}}}}\,\%}\newcommand{\accH}[2][best]{#2\% (#1)}"
        r"\NewDocumentCommand{\accI}{s O{best} m}{#3\% (#2)}"
    )
    assert lines_refused(folder, tmp_path, spelled, head) == spelled


def test_what_is_included_and_not_read_is_refused_and_a_title_in_the_preamble_is_read(folder, tmp_path):
    assert [said(folder, tmp_path, text).typed for text in (r"at 95 \%, CI 93 to 97", r"a 95 \% CI of 93 to 97")] == [3, 2]
    with pytest.raises(StudyError, match=r"paper\.tex:2: what .verbatiminput includes is not read"):
        said(folder, tmp_path, r"\verbatiminput{x.txt}")
    found = said(folder, tmp_path, "none", "\n\\usepackage[margin=1.25]{x}\n\\title{A gain\nof 98.76 points}\n")
    assert [words.split(" is typed")[0] for words in found.refused] == ["paper.tex:4: 98.76"]


def test_a_paper_that_names_no_study_is_told_to_and_a_missing_include_is_named(folder, tmp_path):
    with pytest.raises(StudyError, match="name the study"):
        said(folder, tmp_path, "nothing", study=False)
    with pytest.raises(StudyError, match=r"no file .*gone\.tex"):
        said(folder, tmp_path, r"\input{gone}")


def test_the_command_ends_with_one_for_a_refused_number_and_with_zero_for_a_sound_paper(folder, tmp_path, capsys):
    for body, status in ((r"\kt{2/moco/accuracy/mean}", 0), (r"98.76 \%", 1)):
        (tmp_path / "paper.tex").write_text(f"\\begin{{document}}{body}\\end{{document}}", encoding="utf-8")
        assert main(["check", str(tmp_path / "paper.tex"), str(folder)]) == status
    assert "refused: paper.tex:1: 98.76" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "none.tex"), str(folder)]) == 2


def test_the_methods_of_a_clustering_name_no_class_that_is_predicted_and_of_tiles_no_patients(folder, tmp_path):
    study = shutil.copytree(folder, tmp_path / "study")
    asked = json.loads((study / "study.json").read_text())
    for table in asked["tables"]:
        table["metric"], table["metrics"] = "test_ami", ["test_ami"]
    (study / "study.json").write_text(json.dumps(asked))
    data = json.loads((study / "data/data.json").read_text())
    tiles = [f"t{i // 10}" for i in range(600)]
    (study / "data/data.json").write_text(
        json.dumps(data | {"files": [f"{tile}.png#{i}" for i, tile in enumerate(tiles)], "patients": tiles})
    )
    text = methods.methods_md(analysis.load(study))
    assert "K-means" in text and "A probability for each class" not in text and "was trained with" not in text
    assert "of 60 tiles; patients are not known" in text and "disjoint by patient" not in text


def test_every_number_of_the_methods_is_one_of_the_study(folder):
    text = (folder / "methods.md").read_text(encoding="utf-8")
    assert "600 images of 4 classes (instance 150, overlapping 150" in text and "of 60 patients" in text
    assert "train 200, val 200, test 200 images; patients" in text and "none in more than one part" in text
    runs = analysis.load(folder).runs
    assert f"{len(runs)} runs: {(runs['status'] == 'completed').sum()} completed, {(runs['status'] == 'pruned').sum()} pruned" in text
    assert "temperature 0.02 to 0.5 (log)" in text and "queue_size 1024" in text and "torch 2.15.0" in text
    asked = copy.deepcopy(ASKED)
    asked["data"], asked["versions"], asked["space"] = {"hash": fake.DATA_HASH}, {}, {}
    bare = methods.methods_md(analysis.load(fake.write(folder.parent / "bare", asked, RECORDS)))
    assert "images" not in bare and "Software:" not in bare and "nan" not in bare, "what is not known is not said"


def test_what_was_asked_for_and_never_done_is_not_said_to_have_been_done(folder):
    asked, records = copy.deepcopy(ASKED), copy.deepcopy(RECORDS)
    asked["space"]["margin"]["when"] = {"form": ["none of them"]}
    for record in records:
        record["params"]["weights"] = "random" if record["status"] == "completed" else "imagenet"
    study = analysis.load(fake.write(folder.parent / "undone", asked, records))
    known = methods.answers(study)
    assert known["start"] == "Initial weights: random.", "the runs with others failed"
    assert "margin 0.05" not in known["search"] and "temperature 0.02" in known["search"], "no trial was asked for a margin"
    for number, arms in (("2", 5), ("5", 1)):
        assert known["performance"].count(f"in table {number}: ") == arms, (
            "of a table without the winner every arm, not the best of the test part"
        )
    assert "was run with 3 seeds" in known["repeats"]
    fewer = analysis.load(fake.write(folder.parent / "fewer", asked, [r for r in records if not (r["trial"] is None and r["seed"] == 2)]))
    assert "is asked for with 3 seeds" in methods.answers(fewer)["repeats"]


def test_a_patient_in_two_parts_is_said_and_disjoint_parts_are_not_claimed(folder, tmp_path):
    study = shutil.copytree(folder, tmp_path / "study")
    text = (study / "splits/60-10-30.csv").read_text().splitlines()
    text[1] = text[1].rpartition(",")[0] + ",test"
    (study / "splits/60-10-30.csv").write_text("\n".join(text) + "\n")
    said_now = methods.answers(analysis.load(study))
    assert "1 in more than one part" in said_now["division"] and said_now["disjoint"] == ""


@pytest.mark.parametrize(("name", "count"), [("claim", 44), ("tripod", 52), ("reforms", 32)])
def test_a_checklist_has_every_item_once_and_fills_only_what_the_study_knows(folder, capsys, name, count):
    assert main([str(folder), "--checklist", name]) == 0
    text = (folder / f"checklist-{name}.md").read_text(encoding="utf-8")
    filled, person = text.split("## For a person")
    numbers = re.findall(r"^- (?:\[ \] )?\*\*(\w+) ", text, re.M)
    assert len(numbers) == len(set(numbers)) == count == len(methods.items(name))
    whole, part, left = map(int, re.search(r"fills (\d+) and (\d+) in part; a person fills (\d+)", text).groups())
    assert (whole + part, left) == (len(re.findall(r"^- \*\*", filled, re.M)), len(re.findall(r"^- \[ \]", person, re.M)))
    known = methods.answers(analysis.load(folder))
    assert {by for item in methods.items(name) for by in item.by} <= known.keys(), "each answer that an item names exists"
    assert not re.search(r"(ethic|funding|consent).*\n?.*: .*karyotune", filled, re.I)


def test_external_data_are_no_filled_item_of_a_study_without_them(folder):
    text = methods.checklist_md(analysis.load(folder), "claim")
    assert "- [ ] **33 Test on external data.**" in text
    asked = copy.deepcopy(ASKED)
    asked["data"]["external"] = [{"slug": "qband", "images": 240}]
    other = methods.checklist_md(analysis.load(fake.write(folder.parent / "external", asked, RECORDS)), "claim")
    assert "- **33 Test on external data.** Tested once on qband (240 images)" in other
    asked["data"]["external"] = [{"slug": "simulated_elsewhere", "images": 180}]
    study = analysis.load(fake.write(folder.parent / "external", asked, RECORDS))
    assert "- [ ] **33 Test on external data.**" in methods.checklist_md(study, "claim")
    text = methods.methods_md(study)
    assert "Tested once on" not in text and "the test images as another laboratory might show them (180)" in text


def test_patients_of_an_external_set_are_not_said_of_the_test_part(folder):
    study = analysis.load(folder)
    row = study.results[study.results["cases"].notna()].iloc[:1]
    external = row.assign(metric="external_qband_accuracy", cases=9_999)
    study.__dict__["results"] = pd.concat([study.results, external])
    assert f"Test part: 180 images of {row['cases'].item()} patients." in methods.answers(study)["analysed"]


def test_a_backbone_that_a_method_does_not_use_is_not_named_as_its_network(tmp_path):
    asked, records = copy.deepcopy(ASKED), copy.deepcopy(RECORDS)
    asked["baseline"]["backbone"] = "tiny"
    for r in records:
        r["params"]["backbone"] = {"2/MoCo": "resnet18", "2/MoCo + SupCon": "wide"}.get("".join(r["arms"]), "tiny")
    next(a for a in asked["tables"][0]["arms"] if a["name"] == "MoCo + SupCon")["overrides"]["backbone"] = "wide"
    said = methods.answers(analysis.load(fake.write(tmp_path, asked, records)))["model"]
    assert said == "Procedure supcam; network tiny; in some arms wide; the method's own, if any, in MoCo."


def test_a_bundle_is_a_study_with_the_same_results_and_without_images_names_and_folders(folder, tmp_path):
    before = analysis.load(folder)
    assert main([str(folder), "--bundle", str(tmp_path / "lab.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "lab.zip") as archive:
        names = {n.partition("/")[2] for n in archive.namelist()}
        everything = b"".join(archive.read(n) for n in archive.namelist())
    assert {"study.json", "records.jsonl", "versions.json", "methods.md", "splits/60-10-30.csv", "data/data.json", "SHA256SUMS"} <= names
    assert not [n for n in names if n.endswith((".npy", ".png", ".safetensors", ".npz"))]
    assert b"person-" not in everything and b"cell00" not in everything and str(folder).encode() not in everything
    after = analysis.load(bundle.unpack(tmp_path / "lab.zip", tmp_path / "there"))
    for one, other in zip(before.results.to_dict("records"), after.results.to_dict("records"), strict=True):
        assert str(one) == str(other)
    assert set(before.results["interval_over"].dropna()) == set(after.results["interval_over"].dropna())
    assert len(after.predictions) == len(before.predictions) and after.predictions["file"].isna().all()
    again, _ = bundle.write_bundle(before, tmp_path / "again" / "lab.zip")
    assert again.read_bytes() == (tmp_path / "lab.zip").read_bytes()


def test_a_bundle_in_which_a_file_was_changed_is_refused(folder, tmp_path):
    bundle.write_bundle(analysis.load(folder), tmp_path / "lab.zip")
    with zipfile.ZipFile(tmp_path / "lab.zip") as old, zipfile.ZipFile(tmp_path / "other.zip", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'"seed": 0', b'"seed": 9'))
    with pytest.raises(StudyError, match=r"records\.jsonl is missing or not the file that was packed"):
        bundle.unpack(tmp_path / "other.zip", tmp_path / "there")


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "lab/../../out.txt"])
def test_a_bundle_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "lab.zip", "w") as archive:
        archive.writestr("lab/SHA256SUMS", "")
        archive.writestr(name, "x")
    with pytest.raises(StudyError, match="no bundle"):
        bundle.unpack(tmp_path / "lab.zip", tmp_path / "there")
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_for_latex()), reason=missing_for_latex())
def test_a_real_latex_shows_macros_and_stops_at_one_that_no_record_gives(tmp_path):
    analysis.write_report(odd_study(tmp_path))
    value = float(next(csv.DictReader((tmp_path / "tables/table-2.csv").read_text(encoding="utf-8").splitlines()))["mean"])
    for key, sound in (("2/0-1-x/accuracy/mean", True), ("2/none/accuracy/mean", False)):
        page = rf"\documentclass{{article}}\input{{tables/numbers}}\begin{{document}}\typeout{{HERE \kt{{{key}}} END}}\kt{{{key}}}\end{{document}}"
        (tmp_path / "page.tex").write_text(page, encoding="utf-8")
        command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
        assert (ran.returncode == 0) == sound, ran.stdout[-1500:]
        if sound:
            assert f"HERE {np.round(value, 2):.2f} END" in ran.stdout
        else:
            assert "no record gives `2/none/accuracy/mean'" in ran.stdout
