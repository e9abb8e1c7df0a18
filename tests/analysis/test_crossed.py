"""Seeds and patients together: against sums written out, against leaving each patient out by the training code's own metrics, and in simulation."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import fake
import numpy as np
import pytest
from scipy import stats

import analysis
from analysis import artefacts, beside, crossed, headline, levels
from trainables.data import listing
from trainables.parts.evaluation import auc_macro, classification_metrics, confusion_matrix


def drawn(images: int = 200, classes: int = 5, patients: int = 23, seed: int = 0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, images)
    probability = rng.random((images, classes)).round(1)  # ties
    probability[np.arange(images), label] += 0.1
    case = np.unique(rng.integers(0, patients, images), return_inverse=True)[1]
    return label, probability, case


@pytest.mark.parametrize("name", ["accuracy", "precision", "sensitivity", "recall", "specificity", "f1", "auc"])
def test_pseudo_values_are_those_of_leaving_each_patient_out_by_the_metric_of_training(name):
    label, probability, case = drawn()
    label[case == 3] = 4  # one class more in one patient

    def metric(kept):
        if name == "auc":
            return auc_macro(label[kept], probability[kept])
        return classification_metrics(confusion_matrix(label[kept], probability[kept].argmax(1), 5))[
            "sensitivity" if name == "recall" else name
        ]

    whole = metric(np.ones(len(label), bool))
    m = case.max() + 1
    plain = np.array([m * whole - (m - 1) * metric(case != one) for one in range(m)])
    value, pseudo = crossed.pseudo_values(name, label, probability, case)
    assert value == pytest.approx(whole, abs=1e-12)
    assert pseudo == pytest.approx(plain - plain.mean() + whole, abs=1e-9)


def test_a_class_of_one_patient_is_left_out_with_him_as_the_metric_of_training_does():
    label, probability, case = drawn()
    label[:] = np.where(case == 3, 4, label % 4)
    value, pseudo = crossed.pseudo_values("auc", label, probability, case)
    m = case.max() + 1
    plain = [m * value - (m - 1) * auc_macro(label[case != one], probability[case != one]) for one in range(m)]
    assert pseudo == pytest.approx(np.array(plain) - np.mean(plain) + value, abs=1e-9)


def test_a_metric_that_is_not_known_has_no_pseudo_values():
    assert crossed.pseudo_values("ami", *drawn()) is None


@pytest.mark.parametrize("name", ["specificity", "auc"])
def test_a_metric_that_one_class_alone_leaves_undefined_has_no_pseudo_values_and_no_value_of_0(name):
    label, probability, case = drawn()
    assert crossed.pseudo_values(name, np.zeros_like(label), probability, case) is None
    two = np.where(case == 3, 1, 0)  # without that patient it is undefined
    assert crossed.pseudo_values(name, two, probability, case) is None
    assert crossed.pseudo_values("sensitivity", two, probability, case) is not None


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"), [(0, 10, 0.0, 0.30850), (10, 10, 0.69150, 1.0), (5, 10, 0.18709, 0.81291), (81, 263, 0.2527, 0.3676)]
)
def test_the_interval_of_a_share_of_independent_images_is_clopper_and_pearson_s(hits, n, low, high):
    found = crossed.share_values(np.arange(n) < hits, np.arange(n))
    assert found[0] == hits / n
    assert crossed.share_interval(crossed.of_cases(100 * found[1], "images"), n) == pytest.approx((100 * low, 100 * high), abs=1e-2)


def test_the_interval_of_a_share_is_by_patient_and_has_ends_where_all_patients_are_alike():
    rng = np.random.default_rng(0)
    case = np.repeat(np.arange(16), 20)
    hit = rng.random(320) < rng.uniform(0.2, 0.8, 16)[case]

    def interval(hit):
        return crossed.share_interval(crossed.of_cases(100 * crossed.share_values(hit, case)[1]), len(case))

    def width(ends):
        return ends.high - ends.low

    alone = crossed.share_interval(crossed.of_cases(100 * crossed.share_values(hit, np.arange(320))[1]), 320)
    assert width(interval(hit)) > 1.5 * width(alone)
    assert interval(np.ones(320, bool)) == pytest.approx((100 * 0.025 ** (1 / 16), 100)), "each patient counts once"
    assert interval(np.zeros(320, bool)).low == 0
    assert math.isnan(crossed.share_interval(crossed.of_cases(np.array([50.0])), 9).low) and crossed.share_values(hit[:5], case[:5]) is None


def test_nominal_95_per_cent_of_one_run_s_share_cover_the_truth_over_patients_where_images_alone_do_not():
    rng, share, held = np.random.default_rng(0), 0.85, []
    middle = stats.norm.ppf(share) * math.sqrt(1.25)
    for _ in range(300):
        case = np.repeat(np.arange(16), rng.integers(5, 60, 16))
        hit = middle + rng.normal(0, 0.5, 16)[case] + rng.normal(0, 1, len(case)) > 0
        both = (case, "patients"), (np.arange(len(case)), "images")
        ends = [crossed.share_interval(crossed.of_cases(100 * crossed.share_values(hit, of)[1], unit), len(case)) for of, unit in both]
        held.append([low <= 100 * share <= high for low, high in ends])
    by_patient, by_image = np.mean(held, axis=0)
    assert 0.91 <= by_patient <= 0.99 and by_image < 0.8


def test_the_two_way_table_is_worked_out_as_an_analysis_of_variance():
    table = np.random.default_rng(1).normal(size=(4, 11)) + np.arange(4)[:, None] + np.arange(11)[None]
    mean = table.mean()
    ms_s = sum(11 * (table[i].mean() - mean) ** 2 for i in range(4)) / 3
    ms_c = sum(4 * (table[:, j].mean() - mean) ** 2 for j in range(11)) / 10
    ms_e = sum((table[i, j] - table[i].mean() - table[:, j].mean() + mean) ** 2 for i in range(4) for j in range(11)) / 30
    found = crossed.two_way(table)
    total = ms_s + ms_c - ms_e
    assert (found.value, found.error) == (pytest.approx(mean), pytest.approx(math.sqrt(total / 44)))
    share = max(ms_s, ms_e) / total
    for count in (1, 9):
        tail = 0.025 / count
        half = (share * stats.t.isf(tail, 3) + (1 - share) * stats.t.isf(tail, 10)) * found.error
        assert found.interval(count) == pytest.approx((mean - half, mean + half))
        edge = replace(found, value=half)
        assert edge.p(count) == pytest.approx(0.05) and edge.wrong == pytest.approx(tail), "p is 0.05 where the interval ends at 0"
    assert replace(found, value=0.0).wrong == pytest.approx(0.5) and replace(found, value=1e300).p() == 0


def test_with_equal_patients_only_the_seeds_count_and_with_equal_seeds_only_the_patients():
    rng = np.random.default_rng(3)
    seeds, patients = rng.normal(size=5), rng.normal(size=30)
    by_seed = crossed.two_way(np.repeat(seeds[:, None], 30, axis=1))
    assert by_seed.interval() == pytest.approx(stats.t.interval(0.95, 4, seeds.mean(), stats.sem(seeds)))
    by_patient = crossed.two_way(np.repeat(patients[None], 5, axis=0))
    assert by_patient.interval() == pytest.approx(stats.t.interval(0.95, 29, patients.mean(), stats.sem(patients)))


def test_the_interval_never_is_shorter_than_seeds_or_patients_alone_make_it():
    rng = np.random.default_rng(4)
    for _ in range(200):
        table = rng.normal(size=(3, 8))
        found = crossed.two_way(table)
        assert found.error >= max(stats.sem(table.mean(axis=1)), stats.sem(table.mean(axis=0))) - 1e-12


@pytest.mark.parametrize(("seeds", "patients"), [((0.3, 0.3), 0.05), ((0.05, 0.05), 0.5), ((0.05, 0.4), 0.3)])
def test_nominal_95_per_cent_cover_the_truth_in_about_95(seeds, patients):
    from benchmarks.coverage import covered

    share = covered(5, 20, seeds, patients, draws=300, rng=np.random.default_rng(6))
    assert 0.91 <= share <= 0.985


def test_three_seeds_that_spread_more_than_patients_cover_the_truth_in_95_per_cent():
    rng, held = np.random.default_rng(7), []
    for _ in range(2000):
        table = 2.4 * rng.normal(size=(3, 1)) + 3.4 * rng.normal(size=(1, 30)) + 3 * rng.normal(size=(3, 30))
        low, high = crossed.two_way(table).interval()
        held.append(low <= 0 <= high)
    assert 0.94 <= np.mean(held) <= 0.97


def test_a_lost_seed_makes_no_claim_of_what_all_three_leave_open():
    rng = np.random.default_rng(2)
    seeds = np.array([[0.0], [0.0], [2.0]])  # the first two agree by chance
    rest = rng.normal(size=(3, 400))
    table = 2.5 + seeds + 10 * (rest - rest.mean(axis=1, keepdims=True))
    whole, left = crossed.two_way(table).interval(9), crossed.two_way(table[:2]).interval(9)
    assert whole.low < 0 and left.low < 0, "nine comparisons of three seeds and of two of them"


@pytest.mark.parametrize(("seeds", "share", "draws"), [(2, 0.9, 200), (3, 0.9, 500)])
def test_nine_intervals_hold_together_where_few_seeds_make_most_of_the_variance(seeds, share, draws):
    from benchmarks.coverage import family

    assert family(seeds, 30, share, draws, rng=np.random.default_rng(3)) <= 0.05


def test_seeds_to_tell_shrinks_with_the_difference_and_is_none_where_the_patients_leave_too_much_open():
    table = np.random.default_rng(5).normal(size=(3, 40)) + 3 * np.random.default_rng(6).normal(size=(3, 1))
    found = crossed.two_way(table)
    small, large = crossed.seeds_to_tell(found, 2.0), crossed.seeds_to_tell(found, 4.0)
    assert large is not None and small is not None and large < small
    patients = crossed.two_way(np.repeat(10 * np.random.default_rng(7).normal(size=(1, 10)), 3, axis=0))
    assert crossed.seeds_to_tell(patients, 2.0) is None


def study(folder, patients=None, change=None):
    asked, records = fake.study_and_records(seeds=3, trials=0)
    fake.write(folder, asked, records)
    fake.leave(folder, asked, records)
    data = json.loads((folder / "data/data.json").read_text())
    data["patients"] = [patients(i) if patients else "" for i in range(600)]
    (folder / "data/data.json").write_text(json.dumps(data))
    for r in records:  # the record says what its predictions give
        file = folder / "checkpoints" / r["key"] / "result.json"
        if file.exists():
            given = json.loads(file.read_text())["predictions"]["test"]
            guess = np.argmax(given["probability"], axis=1)
            r["metrics"]["test_accuracy"] = float(np.mean(guess == np.array(given["label"])))
            r["confusion"]["test"] = confusion_matrix(np.array(given["label"]), guess, 4).tolist()
            if change:
                change(r, file)
    fake.write(folder, asked, records)
    return {s.table.number: s for s in analysis.summarize(analysis.load(folder))}["2"]


def test_a_table_of_runs_with_predictions_has_intervals_over_seeds_and_patients_and_says_so(tmp_path):
    summary = study(tmp_path, lambda i: f"p{i % 31}")
    cell = summary.rows[2].cells["test_accuracy"]
    assert (cell.level.seeds, cell.level.cases, cell.level.unit) == (3, 31, "patients")
    assert cell.level.value == pytest.approx(cell.mean)
    assert cell.difference_to.value == pytest.approx(
        np.mean([v - dict(summary.rows[0].cells["test_accuracy"].values)[s] for s, v in cell.values])
    )
    assert any("other seeds and other patients" in note for note in summary.notes)
    assert all("3 seeds, 31 patients" in words for words in summary.claims)


def test_without_patients_images_are_cases_and_it_is_said(tmp_path):
    summary = study(tmp_path)
    assert summary.rows[2].cells["test_accuracy"].level.unit == "images"
    assert any("taken for independent" in note for note in summary.notes)


def test_where_all_images_are_of_one_patient_that_is_said_and_not_that_predictions_are_gone(tmp_path):
    summary = study(tmp_path, lambda i: "p0")
    words = " ".join((*summary.notes, *summary.claims))
    assert "all images are of one patient" in words and "3 seeds, all of one patient" in words and "are kept" not in words


def test_a_class_of_one_patient_leaves_means_over_classes_without_an_interval_and_that_is_said(tmp_path):
    labels = []

    def change(r, file):
        given = json.loads(file.read_text())["predictions"]["test"]
        labels[:] = [dict(zip(given["index"], given["label"], strict=True)).get(i, 0) for i in range(600)]
        truth, guess = np.array(given["label"]), np.argmax(given["probability"], axis=1)
        r["metrics"]["test_f1"] = classification_metrics(confusion_matrix(truth, guess, 4))["f1"]

    study(tmp_path, lambda i: f"p{i % 31}", change)
    for held in (False, True):
        summary = study(tmp_path, lambda i, held=held: "p0" if held and labels[i] == 2 else f"p{i % 30 + 1}", change)
        f1, accuracy = (summary.rows[2].cells[m] for m in ("test_f1", "test_accuracy"))
        words = f"all images of {fake.CLASSES[2]} are of one patient, and nothing tells how others do"
        assert math.isnan(f1.interval.low) == math.isnan(f1.gain_interval.low) == held == (f1.level.lost == words)
        assert (
            math.isfinite(accuracy.interval.low)
            and any(n.startswith("No interval of") and "F1" in n and words in n for n in summary.notes) == held
        ), summary.notes
    by_class = {row.name: row.interval.low for row in beside.look(analysis.load(tmp_path)).classes}
    assert [name for name, low in by_class.items() if math.isnan(low)] == [fake.CLASSES[2]]


def test_images_without_a_patient_are_not_counted_as_patients(tmp_path):
    assert artefacts.UNKNOWN == listing.UNKNOWN
    summary = study(tmp_path, lambda i: f"p{i % 31}" if i % 5 == 0 else f"{listing.UNKNOWN}{i}.png" if i % 2 else "")
    level = summary.rows[2].cells["test_accuracy"].level
    said = f"{level.cases - level.lone} patients and {level.lone} images without one"
    assert level.lone > 50 and level.cases - level.lone <= 31 and all(said in words for words in summary.claims)
    assert any(said in note and "taken for independent" in note for note in summary.notes)


def spoil(kind):
    def change(r, file):
        given = json.loads(file.read_text())
        if kind == "absent of an arm" and r["arms"] == ["2/MoCo"]:
            file.unlink()
        if r["seed"] != 1:
            return
        if kind == "absent":
            file.unlink()
        elif kind == "damaged":
            file.write_text("{")
        elif kind == "other images":
            given["predictions"]["test"]["index"][0] += 1
            file.write_text(json.dumps(given))
        elif kind == "another score":
            r["metrics"]["test_accuracy"] -= 0.05
        elif kind == "another truth":
            test = given["predictions"]["test"]
            test["label"][0] = (test["label"][0] + 1) % 4
            file.write_text(json.dumps(given))
            r["metrics"]["test_accuracy"] = float(np.mean(np.argmax(test["probability"], axis=1) == np.array(test["label"])))
        elif kind == "whose images":
            (file.parents[2] / "data/data.json").unlink(missing_ok=True)

    return change


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("absent", "no predictions (seed 1, run "),
        ("absent of an arm", "no predictions (seed 0, run "),
        ("damaged", "result.json cannot be read"),
        ("other images", "judged on other images (seed 1, run "),
        ("another score", "and not the recorded"),
        ("another truth", "another truth of 1 image (seed 1, run "),
        ("whose images", "predictions without data.json"),
    ],
)
def test_predictions_that_are_lost_or_contradict_leave_no_interval_no_claim_and_the_reason(tmp_path, kind, word):
    summary = study(tmp_path, lambda i: f"p{i % 31}", spoil(kind))
    cell = summary.rows[2].cells["test_accuracy"]
    assert cell.level.value == pytest.approx(cell.mean) and math.isnan(cell.interval.low)
    assert math.isnan(cell.gain_interval.low) and math.isnan(cell.p) and cell.shown == ""
    assert any(f"No interval of {summary.rows[2].arm.name}: " in note and word in note for note in summary.notes)
    claim = next(words for words in summary.claims if words.startswith("MoCo against"))
    assert "undecided" in claim and word in claim and "interval, since" in claim


def test_of_a_metric_that_does_not_rank_it_is_said_that_it_lost_its_interval_or_has_one_over_seeds_alone(tmp_path, monkeypatch):
    def moved(r, file):
        r["metrics"]["test_f1"] -= 0.05 * (r["seed"] == 1)

    known = crossed.pseudo_values
    monkeypatch.setattr(crossed, "pseudo_values", lambda name, *args: None if name == "precision" else known(name, *args))
    summary = study(tmp_path, lambda i: f"p{i % 31}", moved)
    assert math.isfinite(summary.rows[2].cells["test_accuracy"].interval.low)
    assert math.isnan(summary.rows[2].cells["test_f1"].interval.low)
    [gone] = [n for n in summary.notes if n.startswith("No interval of F1 of ")]
    assert "MoCo; " in gone and "and not the recorded" in gone
    assert "Intervals of Precision are over seeds alone: they say nothing of other patients." in summary.notes
    analysis.write_report(tmp_path, "light")
    page, text = ((tmp_path / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    assert "its 95 % interval, over seeds and patients." in page and "its 95 % interval, over seeds." in page
    assert "Intervals of Precision are over seeds alone" in text


def test_the_changes_of_classes_have_no_interval_where_predictions_of_one_run_are_lost(tmp_path):
    study(tmp_path, lambda i: f"p{i % 31}")
    whole = analysis.load(tmp_path)
    assert all(math.isfinite(row.interval.low) for row in beside.look(whole).classes)
    (tmp_path / "checkpoints" / whole.winner.keys[1] / "result.json").unlink()
    assert all(math.isnan(row.interval.low) for row in beside.look(analysis.load(tmp_path)).classes)


def test_of_one_seed_table_page_and_card_have_one_interval_by_patient(tmp_path):
    study(tmp_path, lambda i: f"p{i % 31}")
    whole = analysis.load(tmp_path)
    fake.write(tmp_path, {**whole.asked, "seeds": [0]}, [whole.detail(key) for key in whole.records["key"]])
    one = analysis.load(tmp_path)
    name = one.winner.config_hash
    cell = next(row for summary in one.summaries for row in summary.rows if row.arm.config_hash == name).cells["test_accuracy"]
    card, page = levels.levels(one, name)["test_accuracy"], headline.headline(one)
    assert cell.interval == card.interval == page.interval and math.isfinite(cell.interval.low)
    rests = "by patient, one training: 31 patients"
    assert page.rests == f"{rests}, 180 images" and card.words.endswith(rests)
    assert set(one.results["interval_over"].dropna()) == {"patients, one training"}
    assert any("intervals are by patient, of that one training" in note for note in one.summaries[0].notes)
    assert not any("no interval" in words for words in (*one.warnings, *one.summaries[0].notes))


def test_the_headline_s_difference_is_the_one_of_its_table_s_cell(tmp_path):
    study(tmp_path, lambda i: f"p{i % 31}")
    whole, told = analysis.load(tmp_path), crossed.Estimate(7.0, 1.0, 9.0, 3)

    def marked(row):
        return replace(row, cells={m: replace(c, difference_to=c.difference_to and told) for m, c in row.cells.items()})

    whole.__dict__["summaries"] = tuple(replace(s, rows=tuple(map(marked, s.rows))) for s in whole.summaries)
    found = headline.headline(whole)
    assert found.over and (found.gain, found.gain_interval) == (7.0, told.interval(3))


def test_a_model_card_of_another_time_than_the_page_is_named_on_it(tmp_path):
    study(tmp_path, lambda i: f"p{i % 31}")
    whole = analysis.load(tmp_path)
    found = headline.headline(whole)
    level = levels.levels(whole, whole.winner.config_hash)[found.metric]
    for by, words in ((0.0, ""), (0.02, f"The model card in best/ has {found.mean:.2f} % ({level.interval.low - 2:.2f} to ")):
        told = {"mean": found.mean / 100, "low": level.interval.low / 100 - by, "high": level.interval.high / 100}
        (tmp_path / "best").mkdir(exist_ok=True)
        (tmp_path / "best/metrics.json").write_text(json.dumps({"over_seeds": {found.metric: told}}))
        assert headline.other_card(whole, found)[: len(words)] == words and bool(headline.other_card(whole, found)) == bool(words)
        analysis.write_report(tmp_path)
        for name in ("report.html", "report.md"):
            assert ("The model card in best/" in (tmp_path / name).read_text()) == bool(words), name


def test_a_headline_whose_baseline_lost_a_seed_to_divergence_says_so_and_has_no_interval(tmp_path):
    study(tmp_path, lambda i: f"p{i % 31}")
    whole = analysis.load(tmp_path)
    over, rows = headline.headline(whole).over, [whole.detail(key) for key in whole.records["key"]]
    for row in rows:
        if f"2/{over}" in row["arms"] and row["seed"] == 2:
            row |= {"status": "diverged", "metrics": {}, "error": {"kind": "NonFinite", "message": "loss is nan"}}
    fake.write(tmp_path, whole.asked, rows)
    found = headline.headline(analysis.load(tmp_path))
    assert found.over == over and math.isnan(found.gain_interval.low) and f"{over}: 1 of 3 runs diverged" in found.broke
    analysis.write_report(tmp_path)
    for name in ("report.html", "report.md"):
        assert "is no claim (" + over + ": 1 of 3 runs diverged" in (tmp_path / name).read_text(encoding="utf-8")
