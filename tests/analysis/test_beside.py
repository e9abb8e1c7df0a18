"""What runs leave beside their records: calibration, classes, embedding maps, heat maps; and that none of it can hurt a report."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import fake
import numpy as np
import pytest
from scipy import stats

import analysis
from analysis import artefacts, beside, figures, inside, run_figures
from analysis import statistics as st
from analysis.crossed import of_seeds, two_way
from analysis.summary import of_external, summarize, title

ASKED, RECORDS = fake.study_and_records()
MANY = fake.many_classes()
EVIL = "<script>alert(1)</script>\"'&"


def test_the_interval_of_a_class_is_within_what_a_change_of_a_share_can_be():
    ends = beside._within([of_seeds(np.array([-30.0, 45.0])), of_seeds(np.array([4.0, 4.5]))] * 12)
    assert ends[0] == (-100, 100) and all(-100 <= low < 4 < high <= 100 for low, high in ends)


def study_with(folder: Path, asked: dict = ASKED, records: list = RECORDS, **left: object) -> analysis.Study:
    fake.write(folder, asked, records)
    fake.leave(folder, asked, records, **left)
    return analysis.load(folder)


def look(study: analysis.Study) -> beside.Beside:
    return beside.look(study)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 24 classes with everything, reported in full."""
    folder = tmp_path_factory.mktemp("many") / "study"
    study_with(folder, *MANY)
    analysis.write_report(folder, pdf=True)
    return folder


# --- calibration ----------------------------------------------------------------------------------------------------------------------


def test_the_calibration_error_of_a_hand_made_case_is_exact():
    # bin (0.5, 0.6]: 4 predictions of 0.6, 1 right: gap 0.35; bin (0.9, 1.0]: 6 of 0.95, 6 right: gap 0.05
    found = st.reliability([0.6] * 4 + [0.95] * 6, [True, False, False, False] + [True] * 6)
    assert found.ece == pytest.approx(0.4 * 0.35 + 0.6 * 0.05)
    assert found.count.tolist() == [0, 0, 0, 0, 0, 4, 0, 0, 0, 6]
    assert (found.accuracy[5], found.confidence[9], found.mean_accuracy) == pytest.approx((0.25, 0.95, 0.7))
    assert np.isnan(found.accuracy[0])


def test_a_confidence_on_the_edge_of_a_bin_belongs_to_the_bin_that_ends_there():
    found = st.reliability([0.1, 0.3, 0.7, 1.0, 0.0], [True] * 5)
    assert found.count.tolist() == [2, 0, 1, 0, 0, 0, 1, 0, 0, 1]
    assert np.isnan(st.reliability([], []).ece)


def test_the_reported_error_is_the_mean_over_the_winners_runs(tmp_path):
    study = study_with(tmp_path)
    found = look(study)
    errors = []
    for key in analysis.best(study).keys:
        given = json.loads((tmp_path / "checkpoints" / key / "result.json").read_text())["predictions"]["test"]
        p, label = np.array(given["probability"]), np.array(given["label"])
        top, right = p.max(axis=1), p.argmax(axis=1) == label
        bins = np.ceil(top * 10 - 1e-12).astype(int)
        errors.append(100 * sum(abs(right[bins == b].mean() - top[bins == b].mean()) * (bins == b).mean() for b in set(bins.tolist())))
    assert found.calibration.errors == pytest.approx(errors)
    assert f"{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f} points over 3 runs" in beside.calibration_words(found.calibration)


# --- what is damaged ------------------------------------------------------------------------------------------------------------------


def spoil(folder: Path, how: str) -> None:
    runs = list((folder / "checkpoints").iterdir())
    for run in runs:
        if how == "no predictions":
            (run / "result.json").write_text("{}")
        elif how == "result.json is no JSON":
            (run / "result.json").write_text('{"predictions": ')
        elif how == "predictions of another shape":
            (run / "result.json").write_text(json.dumps({"predictions": {"test": {"index": [1], "label": [0, 1], "probability": [["x"]]}}}))
        elif how == "probabilities that are none":
            (run / "result.json").write_text('{"predictions": {"test": {"index": [1], "label": [0], "probability": [[NaN, 3, 0, 0]]}}}')
        elif how == "index outside the pack":
            (run / "result.json").write_text(
                '{"predictions": {"test": {"index": [99999], "label": [0], "probability": [[0.1, 0.9, 0, 0]]}}}'
            )
        elif how == "artefacts of 0 bytes":
            (run / "artefacts.npz").write_bytes(b"")
        elif how == "artefacts cut":
            (run / "artefacts.npz").write_bytes((run / "artefacts.npz").read_bytes()[:500])
        elif how == "artefacts with a spoilt stream":
            np.savez_compressed(run / "artefacts.npz", embedding=np.random.default_rng(0).normal(size=(9, 4)))
            content = bytearray((run / "artefacts.npz").read_bytes())
            content[200:260] = b"\xff" * 60
            (run / "artefacts.npz").write_bytes(content)
        elif how == "artefacts of odd shapes":
            np.savez(
                run / "artefacts.npz", embedding=np.zeros(3), index=np.zeros((2, 2)), heat=np.array(["a"]), nearest_image=np.zeros((2, 2))
            )
        elif how == "artefacts with objects":
            np.savez(run / "artefacts.npz", embedding=np.array([{}, None], dtype=object))
        elif how == "artefacts that unpack to 300 MB":
            with zipfile.ZipFile(run / "artefacts.npz", "w", zipfile.ZIP_DEFLATED) as file, file.open("heat.npy", "w") as entry:
                for _ in range(300):
                    entry.write(bytes(2**20))
        elif how == "heat of 64 bits, a cluster of 2 billion and a matrix of 500 rows":
            arrays = dict(np.load(run / "artefacts.npz"))
            arrays |= {"heat": arrays["heat"].astype(np.int64), "cluster": arrays["label"] + 2_000_000_000}
            np.savez(run / "artefacts.npz", **arrays | {"cluster_by_type": np.ones((500, 4), dtype=np.int64)})
        elif how == "embedding not finite":
            np.savez(run / "artefacts.npz", embedding=np.full((9, 4), np.nan), index=np.arange(9), label=np.zeros(9, dtype=np.int64))
    if how == "no images":
        (folder / "data/images.npy").unlink()
    elif how == "images of 0 bytes":
        (folder / "data/images.npy").write_bytes(b"")
    elif how == "images of floats":
        np.save(folder / "data/images.npy", np.zeros((4, 2, 2)))
    elif how == "no data":
        shutil.rmtree(folder / "data")
    elif how == "no checkpoints":
        shutil.rmtree(folder / "checkpoints")


SPOILT = {  # what is wrong -> the word that must stand in the report, '' where it is simply absent
    "no predictions": "",
    "result.json is no JSON": "result.json cannot be read as JSON",
    "predictions of another shape": "predictions of run",
    "probabilities that are none": "predictions of run",
    "index outside the pack": "",
    "artefacts of 0 bytes": "artefacts.npz of run",
    "artefacts cut": "artefacts.npz of run",
    "artefacts with a spoilt stream": "artefacts.npz of run",
    "artefacts of odd shapes": "",
    "artefacts with objects": "artefacts.npz of run",
    "artefacts that unpack to 300 MB": "would unpack to more than 256 MB and is not read",
    "heat of 64 bits, a cluster of 2 billion and a matrix of 500 rows": "",
    "embedding not finite": "",
    "no images": "",
    "images of 0 bytes": "data/images.npy cannot be read",
    "images of floats": "holds no 8-bit images",
    "no data": "",
    "no checkpoints": "",
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_is_absent_or_damaged_beside_a_record_is_a_word_or_nothing_and_the_report_is_made(tmp_path, how):
    made = fake.record({}, 0, 0.85)
    other = fake.record({"pretrain_epochs": 0}, 0, 0.74)
    asked = {**ASKED, "tables": [{**ASKED["tables"][0], "arms": [ASKED["tables"][0]["arms"][i] for i in (0, 5)]}], "seeds": [0]}
    study_with(tmp_path, asked, [made, other])
    spoil(tmp_path, how)
    analysis.write_report(tmp_path, figures="light")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert SPOILT[how] in text
    assert not re.search(r">\s*nan", text)
    assert "Traceback" not in text and str(tmp_path) not in text


def test_a_key_that_is_a_path_opens_nothing_outside_the_study(tmp_path):
    study = study_with(tmp_path / "study")
    (tmp_path / "result.json").write_text(json.dumps({"predictions": {"test": {"index": [0], "label": [0], "probability": [[1.0]]}}}))
    assert artefacts.predictions(study, "../..") is None
    assert artefacts.arrays(study, "../..") == {}
    assert artefacts.images(study, "../data") is None


# --- classes --------------------------------------------------------------------------------------------------------------------------


def test_recall_by_class_compares_the_winner_with_the_comparison_arm_over_common_seeds(tmp_path):
    study = study_with(tmp_path)
    found = look(study)
    pairing = found.pairing
    assert pairing.reference.name == "Training from scratch"
    assert pairing.other.config_hash == analysis.best(study).config_hash
    by = {r["key"]: np.array(r["confusion"]["test"]) for r in RECORDS if "test" in r["confusion"]}
    a = sum(by[pairing.reference.runs[s]] for s in (0, 1, 2))
    b = sum(by[pairing.other.runs[s]] for s in (0, 1, 2))
    for i, row in enumerate(found.classes):
        assert row.name == fake.CLASSES[i]
        assert (row.reference, row.other, row.images) == pytest.approx((100 * a[i, i] / a[i].sum(), 100 * b[i, i] / b[i].sum(), 45))
        assert row.change == pytest.approx(row.other - row.reference)
    said = "over the 4 classes of this pair, and not over other arms too"
    assert found.together.endswith(said), "a winner that no table has beside its baseline arm is not judged as a whole"
    for row in study.summaries[0].rows[4:6]:
        other = beside.Side(row.arm.name, row.arm.config_hash, {})
        whole = beside._together(study.summaries, beside.Pairing(pairing.reference, other), found.classes)
        shown = row.cells["test_accuracy"].shown
        assert f"as a whole {other.name} is {f'shown {shown}' if shown else 'undecided'} beside {pairing.reference.name}" in whole
    text = (analysis.write_report(tmp_path, figures="light") and (tmp_path / "tables/per-class.csv")).read_text()
    assert said in (tmp_path / "report.html").read_text() and said in (tmp_path / "report.md").read_text()
    assert [line["class"] for line in csv.DictReader(io.StringIO(text))] == fake.CLASSES
    off = np.maximum(a, b) - np.diag(np.diag(np.maximum(a, b)))
    i, j = np.unravel_index(off.argmax(), off.shape)
    assert found.confused[0] == f"{fake.CLASSES[i]} taken for {fake.CLASSES[j]}: {a[i, j]} → {b[i, j]} of {b[i].sum()}"


def test_the_change_of_a_class_has_an_interval_over_seeds_and_that_of_all_classes_holds_together(tmp_path):
    asked, records = fake.study_and_records()
    study = analysis.load(fake.write(tmp_path, asked, records))
    pairing = beside.pair(study, analysis.summarize(study), analysis.best(study))
    by_key = {r["key"]: np.array(r["confusion"]["test"]) for r in records if "test" in r["confusion"]}
    for i, row in enumerate(beside.recall_by_class(study, pairing)):
        a, b = (
            np.array([by_key[side.runs[s]][i, i] / by_key[side.runs[s]][i].sum() for s in pairing.seeds])
            for side in (pairing.reference, pairing.other)
        )
        d = 100 * (b - a)
        assert row.interval == pytest.approx(stats.t.interval(1 - 0.05 / 4, len(d) - 1, d.mean(), stats.sem(d)))


def test_with_predictions_the_change_of_a_class_has_an_interval_over_seeds_and_the_patients_that_have_it(tmp_path):
    asked, records = fake.study_and_records()
    fake.write(tmp_path, asked, records)
    fake.leave(tmp_path, asked, records)
    data = json.loads((tmp_path / "data/data.json").read_text())
    people = [f"p{i % 37}" for i in range(600)]
    (tmp_path / "data/data.json").write_text(json.dumps(data | {"patients": people}))
    given = {}
    for r in records:
        file = tmp_path / "checkpoints" / r["key"] / "result.json"
        if file.exists():
            one = json.loads(file.read_text())["predictions"]["test"]
            given[r["key"]] = (np.array(one["label"]), np.argmax(one["probability"], axis=1), [people[i] for i in one["index"]])
            r["confusion"]["test"] = np.array(
                [[int(((given[r["key"]][0] == i) & (given[r["key"]][1] == j)).sum()) for j in range(4)] for i in range(4)]
            ).tolist()
    study = analysis.load(fake.write(tmp_path, asked, records))
    pairing = beside.pair(study, analysis.summarize(study), analysis.best(study))
    for i, row in enumerate(beside.recall_by_class(study, pairing)):
        table = []
        for seed in pairing.seeds:
            pseudo = []
            for side in (pairing.reference, pairing.other):
                label, guess, who = given[side.runs[seed]]
                own = [(w, g == i) for w, g, y in zip(who, guess, label, strict=True) if y == i]
                names = sorted({w for w, _ in own})
                without = np.array([np.mean([hit for w, hit in own if w != name]) for name in names])
                whole = np.mean([hit for _, hit in own])
                values = len(names) * whole - (len(names) - 1) * without
                pseudo.append(values - values.mean() + whole)
            table.append(100 * (pseudo[1] - pseudo[0]))
        expected = two_way(np.array(table))
        assert expected.value == pytest.approx(row.change) and row.interval == pytest.approx(expected.interval(4))


def test_no_change_is_claimed_where_the_two_arms_were_tested_on_different_images(tmp_path):
    records = copy.deepcopy(RECORDS)
    arm = ASKED["tables"][0]["arms"][0]["config_hash"]
    for r in records:
        if r["config_hash"] == arm:
            r["confusion"]["test"][0][0] += 7
    found = look(study_with(tmp_path, records=records))
    assert all(np.isnan(row.reference) for row in found.classes)
    assert "→" not in found.confused[0]


@pytest.mark.slow
def test_a_table_of_24_classes_has_a_sortable_row_for_each(many):
    text = (many / "report.html").read_text(encoding="utf-8")
    table = text[text.index("(recall)") :]
    table = table[: table.index("</table>")]
    assert table.count("<tr>") == 25
    assert re.findall(r'scope="row"><bdi>([^<]+)<', table) == MANY[0]["data"]["classes"]


# --- external sets and baselines ------------------------------------------------------------------------------------------------------


def test_a_metric_of_an_external_set_has_a_heading_that_can_be_read():
    assert title("external_qband_accuracy") == "External qband: accuracy"
    assert title("external_q_band_2_knn_accuracy") == "External q band 2: kNN accuracy"
    assert title("external_a_f1") == "External a: F1"
    assert (of_external("test_f1"), of_external("external_f1")) == (None, None)


def test_external_columns_stand_beside_the_published_values_of_the_external_data_set(tmp_path):
    asked, records = copy.deepcopy(MANY)
    asked["procedure"] = "scl"
    table = asked["tables"][0]
    table |= {"number": "1", "dataset": "OGH-Fudan (internal)", "external_dataset": "ChrmNet (external)"}
    table["arms"][0]["published"] = "resnet50/with_scl"
    for r in records:
        r["procedure"] = "scl"
    study = analysis.load(fake.write(tmp_path, asked, records))
    cells = summarize(study)[0].rows[0].cells
    from analysis.published import published_values

    values = published_values()
    for metric, dataset in (("test_accuracy", "OGH-Fudan (internal)"), ("external_qband_accuracy", "ChrmNet (external)")):
        assert cells[metric].published == values["scl", "1", "resnet50/with_scl", dataset, "accuracy"]
    assert cells["external_qband_accuracy"].published.mean != cells["test_accuracy"].published.mean


def test_an_external_column_without_a_published_set_claims_no_published_value(many):
    cells = summarize(analysis.load(many))[0].rows[0].cells
    assert cells["external_qband_accuracy"].published is None
    assert cells["test_accuracy"].published is not None


def test_the_report_of_an_external_set_has_its_matrix_the_baselines_and_the_kmeans_spread_apart(many):
    text = (many / "report.html").read_text(encoding="utf-8")
    assert (many / "figures/confusion-external-qband.pdf").exists()
    assert "raw pixels, PCA, K-means" in text and ">31.00<" in text
    assert "standard deviation over K-means seeds of one trained encoder" in text and "Training from scratch 0.40" in text
    for ending in ("md", "tex", "csv"):
        assert "kmeans" not in (many / f"tables/table-2.{ending}").read_text(encoding="utf-8").split("K-means")[0].lower()
    assert "raw pixels" in (many / "report.md").read_text(encoding="utf-8")


# --- training curves ------------------------------------------------------------------------------------------------------------------


def drawn(study: analysis.Study) -> dict[str, figures.Drawing]:
    """The figures of a paper at full width, by name."""
    found = []
    for name, words, rows in figures.curve_pages(study, study.summaries):
        found.append(figures.training(study, name, words, rows, study.history(k for r in rows for k in r.keys)))
    return {one.name: one for one in [*found, *run_figures.of_artefacts(study, look(study))] if one is not None}


def test_no_arm_is_without_its_curve_where_a_table_has_more_than_eight(tmp_path):
    asked, records = copy.deepcopy(ASKED), copy.deepcopy(RECORDS)
    arms = [(f"m = {m / 100:.2f}", {"margin": m / 100}) for m in range(1, 20)]
    asked["tables"] = [asked["tables"][1] | {"arms": [{"name": n, "config_hash": fake.digest({**fake.BASELINE, **o})} for n, o in arms]}]
    records = [fake.record(o, 0, 0.8) for _, o in arms]
    pages = [one.svg() for one in drawn(analysis.load(fake.write(tmp_path, asked, records))).values()]
    assert len(pages) == 3
    for name, _ in arms:
        assert sum(f">{name}<" in page for page in pages) == 1, name


# --- files ----------------------------------------------------------------------------------------------------------------------------


def test_a_figure_that_can_live_at_the_width_of_a_column_is_a_pdf_of_that_width_too(many):
    names = {p.name for p in (many / "figures").iterdir() if p.is_file()}
    assert {"table-2.pdf", "training-5.pdf", "confusion.pdf", "calibration.pdf", "embedding.pdf", "heat.pdf"} <= names
    for name in ("table-2", "training-5", "confusion", "calibration"):
        pdf = (many / f"figures/{name}-column.pdf").read_bytes()
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", pdf)
        assert float(box[1]) == pytest.approx(3.3 * 72, abs=0.5), name


def test_every_relative_link_of_the_page_leads_to_a_file_that_is_there(many):
    text = (many / "report.html").read_text(encoding="utf-8")
    links = set(re.findall(r'href="((?:tables|log|study|records)[^"]*)"', text)) | set(re.findall(r'"(checkpoints/[^"]*)"\]', text))
    assert [a for a in sorted(links) if not (many / a).exists()] == []
    run = analysis.best(analysis.load(many)).key
    assert {f"checkpoints/{run}/", f"checkpoints/{run}/model.safetensors", f"checkpoints/{run}/result.json"} <= links


def test_a_checkpoint_that_points_elsewhere_is_shown_and_never_linked(tmp_path):
    records = copy.deepcopy(RECORDS[:3])
    for r, path in zip(records, ("../../secret", "javascript:alert(1)", "/etc/passwd"), strict=True):
        r["checkpoint"] = path
    study_with(tmp_path, records=records)
    analysis.write_report(tmp_path, figures="light")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'href="(?:\.\./\.\.|javascript|/etc)', text)


def test_a_search_that_found_nothing_better_is_a_sentence_and_no_table(tmp_path):
    asked = copy.deepcopy(ASKED)
    asked["tables"].append(
        {
            **asked["tables"][1],
            "number": "search",
            "title": "Best",
            "arms": [asked["tables"][0]["arms"][5] | {"name": "baseline settings"}],
        }
    )
    analysis.write_report(fake.write(tmp_path, asked, RECORDS), figures="light")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    part = text[text.index('id="table-search"') :]
    part = part[: part.index("</section>")]
    assert "found nothing better than <strong><bdi>baseline settings</bdi></strong>" in part
    assert "<table" not in part


# --- artefacts ------------------------------------------------------------------------------------------------------------------------


def test_the_map_is_the_same_again_from_its_cache_and_changes_with_its_input(tmp_path):
    points = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float16)
    assert inside.coordinates(tmp_path, points, compute=False) is None
    first = inside.coordinates(tmp_path, points, compute=True)
    assert np.array_equal(inside.coordinates(tmp_path, points, compute=False), first)
    assert inside.coordinates(tmp_path, points + np.float16(1), compute=False) is None
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    assert np.array_equal(inside.coordinates(tmp_path, points, compute=True), first)
    assert (first.shape, first.min(), first.max()) == ((40, 2), 0, 1)


def test_groups_that_lie_apart_stay_apart_on_the_map(tmp_path):
    centre = np.repeat([[0.0] * 8, [30.0] * 8], 30, axis=0)
    found = inside.coordinates(tmp_path, centre + np.random.default_rng(1).normal(size=centre.shape), compute=True)
    a, b = found[:30], found[30:]
    within = max(np.linalg.norm(g - g.mean(axis=0), axis=1).max() for g in (a, b))
    assert np.linalg.norm(a.mean(axis=0) - b.mean(axis=0)) > within


def block_of(folder: Path) -> dict:
    """What the page's script draws."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    return json.loads(text.split('id="data">')[1].split("</script>")[0])


def test_maps_and_heat_maps_show_both_arms_and_a_light_report_computes_no_map(tmp_path, many):
    winner = analysis.best(analysis.load(many)).name
    assert [panel["name"] for panel in block_of(many)["map"]["panels"]] == ["Training from scratch", winner]
    text = (many / "report.html").read_text(encoding="utf-8")
    assert text.count('src="data:image/jpeg') == 12 and f"the image, then Training from scratch, then {winner}" in text
    assert len(list((many / "figures/.cache").glob("tsne-*.npy"))) == 2
    study_with(tmp_path, *MANY)
    analysis.write_report(tmp_path, figures="light")
    assert not (tmp_path / "figures/.cache").exists() and block_of(tmp_path)["map"] is None
    assert 'src="data:image/jpeg' in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_clusters_have_a_matrix_by_type_their_nearest_cells_and_a_map_of_their_own(tmp_path):
    study = study_with(tmp_path, clusters=3)
    drawings = drawn(study)
    assert {"embedding", "heat", "clusters", "nearest"} <= set(drawings)
    assert drawings["embedding"].svg().count(": by cluster") >= 2
    matrix = artefacts.arrays(study, analysis.best(study).keys[0])["cluster_by_type"]
    analysis.write_report(tmp_path, figures="light")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for shown in (drawings["clusters"].svg(), text):
        assert all(f">{n}<" in shown for n in matrix.ravel())
        assert f"{100 * matrix[0, 0] / matrix[0].sum():.1f}" in shown
    assert "share of the cluster, %" in text and text.count('alt="cluster') == 3


def test_heat_lies_where_it_is_highest():
    heat = np.zeros((4, 4), dtype=np.uint8)
    heat[0, 3] = 255
    shown = inside.overlay(np.full((16, 16), 60, dtype=np.uint8), heat).astype(int)
    assert shown[1, 14].sum() > shown[14, 1].sum()
    assert shown[14, 1].tolist() == [60, 60, 60]
