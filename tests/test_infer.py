"""An exported model on other images: what it says of folders, and what it refuses."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from PIL import Image
from rich.console import Console

from search import exported as exporting
from search.infer import _confusion_table, _of_sizes, evaluate, predict
from trainables.data.normal import Normal
from trainables.parts.errors import RequestError
from trainables.parts.evaluation import classification_metrics


class Paper:
    """A console that keeps what is printed."""

    def __init__(self) -> None:
        self.console = Console(width=150, record=True, file=io.StringIO())

    def text(self) -> str:
        return self.console.export_text()


@pytest.fixture
def pictures(tmp_path, toy_pack, toy):
    """The study's test images as files."""
    chosen = toy.procedure.parts(toy.procedure.config(), toy_pack, 0)["test"]
    for index in chosen:
        path = tmp_path / "pictures" / toy_pack.files[index]
        path.parent.mkdir(parents=True, exist_ok=True)
        framed = np.zeros((16, 16), np.uint8)
        framed[:] = toy_pack.images[index]
        framed[[0, -1]] = framed[:, [0, -1]] = 0
        Image.fromarray(framed).save(path)
    return tmp_path / "pictures"


def test_evaluate_and_predict_agree_with_each_other(exported, known_toy, pictures, tmp_path):
    exported()
    best, paper = exported.folder / "best", Paper()
    assert evaluate(best, pictures, tmp_path / "out.json", paper.console) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert predict(best, [str(pictures)], tmp_path / "p.csv", paper.console) == 0
    text = paper.text()
    rows = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()]
    assert rows[0] == ["file", "prediction"] and len(rows) == 1 + report["images"]
    hits = np.mean([Path(file).parent.name == predicted for file, predicted in rows[1:]])
    assert report["metrics"]["accuracy"] == pytest.approx(hits)
    assert np.sum(report["confusion"]) == report["images"]
    assert "patients are not known" in text and f"{100 * hits:.2f} %" in text
    assert report["commonest_class"]["accuracy"] == pytest.approx(np.max(np.sum(report["confusion"], axis=1)) / report["images"])
    low, high = report["intervals"]["accuracy"]
    right = round(hits * report["images"])
    exact = scipy.stats.binomtest(right, report["images"]).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-6), "of independent images it is Clopper and Pearson's"
    assert (tmp_path / "out.confusion.csv").read_text().startswith("truth")


def test_classes_that_the_model_does_not_know_are_refused(exported, known_toy, pictures):
    exported()
    (pictures / "dark").rename(pictures / "grey")
    with pytest.raises(RequestError, match="grey"):
        evaluate(exported.folder / "best", pictures, None, Paper().console)


def test_names_that_lead_to_no_image_are_refused_before_anything_is_written(exported, known_toy, pictures, tmp_path):
    exported()
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError) as caught:
        predict(exported.folder / "best", ["gone.png", str(tmp_path / "empty"), "lost.png"], tmp_path / "p.csv", Paper().console)
    assert len(caught.value.faults) == 3
    assert not (tmp_path / "p.csv").exists()


def test_an_image_that_cannot_be_used_is_named_and_the_others_have_their_rows(exported, known_toy, pictures, tmp_path):
    exported()
    best, sound = exported.folder / "best", len(list(pictures.rglob("*.png")))
    (pictures / "dark" / "broken.png").write_bytes(b"")
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(pictures / "dark" / "empty.png")
    paper = Paper()
    assert predict(best, [str(pictures)], tmp_path / "p.csv", paper.console) == 4
    rows = (tmp_path / "p.csv").read_text()
    assert len(rows.splitlines()) == 1 + sound and "broken" not in rows and "empty" not in rows
    text = paper.text()
    assert "2 images without a prediction" in text and "broken.png (empty file)" in text
    with pytest.raises(RequestError, match=r"broken\.png"):
        predict(best, [str(pictures / "dark" / "broken.png")], tmp_path / "q.csv", Paper().console)


def test_what_a_folder_holds_beside_images_has_no_row_and_is_named(exported, known_toy, pictures, tmp_path):
    exported()
    best, sound = exported.folder / "best", sorted(pictures.rglob("*.png"))
    shutil.copy(sound[0], sound[0].with_name(f"{sound[0].stem}_mask.png"))
    paper = Paper()
    assert predict(best, [str(pictures), str(sound[0])], tmp_path / "p.csv", paper.console) == 0
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 1 + len(sound), "no row of the mask, and one of each image"
    assert "1 image taken as masks" in paper.text()
    for number in (1, 2):
        shutil.copy(sound[0], sound[0].with_name(f"{sound[0].stem}_roi{number}.png"))
    assert predict(best, [str(pictures)], tmp_path / "r.csv", paper.console) == 4
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 1 + len(sound) and "2 images may be masks, several" in paper.text()
    (pictures / "slide.czi").write_bytes(b"1")
    shutil.copy(sound[0], pictures / "bare")
    (pictures / "gone.png").symlink_to("nowhere.png")
    paper = Paper()
    assert predict(best, [str(pictures)], tmp_path / "q.csv", paper.console) == 4
    assert len((tmp_path / "q.csv").read_text().splitlines()) == 1 + len(sound)
    text = paper.text()
    assert all(word in text for word in ("3 files without a prediction", "gone.png", "slide.czi", "bare"))


def test_an_output_that_cannot_be_written_is_refused(exported, known_toy, pictures, tmp_path):
    exported()
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "p.csv", tmp_path):
        with pytest.raises(RequestError, match="--out must be a file that can be written"):
            predict(exported.folder / "best", [str(pictures)], out, Paper().console)
        with pytest.raises(RequestError, match="--out must be a file that can be written"):
            evaluate(exported.folder / "best", pictures, out, Paper().console)


def test_many_classes_are_told_one_by_one_and_a_few_as_a_matrix():
    confusion = np.diag(np.arange(9))
    confusion[3, [1, 5]] = 2, 4
    paper = Paper()
    paper.console.print(_confusion_table(confusion, [f"c{i}" for i in range(9)]))
    said = paper.text()
    assert "most often taken for" in said and "c5 (4), c1 (2)" in said and "3 (33.3 %)" in said
    paper = Paper()
    paper.console.print(_confusion_table(np.eye(2, dtype=int), ["a", "b"]))
    assert "truth \\ predicted" in paper.text()


def test_the_data_that_a_model_was_trained_on_is_no_new_test_and_that_is_said(exported, toy, toy_pack, pictures, monkeypatch):
    exported()
    again = replace(toy, procedure=replace(toy.procedure, read=lambda folder, config, classes=None: toy_pack))
    for entry, said in ((toy, False), (again, True)):
        monkeypatch.setattr(exporting, "load", lambda name, entry=entry: entry)
        paper = Paper()
        evaluate(exported.folder / "best", pictures, None, paper.console)
        assert ("was trained on" in paper.text()) == said


def test_intervals_are_by_patient_where_patients_are_known_and_single_patients_are_told(exported, known_toy, pictures, tmp_path):
    exported()
    files = sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.png"))
    reports = []
    for people in (len(files), 3):
        rows = "".join(f"{file},{Path(file).parent.name},p{number % people}\n" for number, file in enumerate(files))
        (pictures / "manifest.csv").write_text("file,label,patient\n" + rows)
        paper = Paper()
        evaluate(exported.folder / "best", pictures, tmp_path / "out.json", paper.console)
        reports.append(json.loads((tmp_path / "out.json").read_text()))
    each, three = (report["intervals"]["accuracy"] for report in reports)
    assert reports[0]["metrics"] == reports[1]["metrics"] and reports[1]["cases"] == 3 and reports[1]["interval_over"] == "patients"
    assert three != each and "for other patients, from 3" in paper.text()
    assert [one["images"] for one in reports[1]["classes"]] == np.sum(reports[1]["confusion"], axis=1).tolist()
    share = [row[i] / sum(row) for i, row in enumerate(reports[1]["confusion"])]
    assert [one["sensitivity"] for one in reports[1]["classes"]] == pytest.approx(share)
    assert all(one["interval"][0] <= one["sensitivity"] <= one["interval"][1] for one in reports[1]["classes"])


def test_a_metric_that_one_class_alone_leaves_undefined_is_no_0_per_cent(exported, known_toy, toy, pictures, tmp_path, monkeypatch):
    exported()
    shutil.rmtree(pictures / "bright")

    def judged(config, tensors, pack, chosen, device):
        found = toy.procedure.evaluate(config, tensors, pack, chosen, device)
        return replace(found, metrics=classification_metrics(found.confusion))

    entry = replace(toy, procedure=replace(toy.procedure, evaluate=judged))
    monkeypatch.setattr(exporting, "load", lambda name: entry)
    paper = Paper()
    evaluate(exported.folder / "best", pictures, tmp_path / "out.json", paper.console)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["metrics"]["specificity"] is None and report["intervals"]["specificity"] is None
    assert report["classes"][1] == {"name": "bright", "images": 0, "cases": 0, "sensitivity": None, "interval": None}
    text = paper.text()
    assert "specificity is undefined: all images are of one class" in text
    assert [line for line in text.splitlines() if "specificity" in line and "undefined" in line and "0.00" not in line]


def test_objects_of_another_size_than_those_of_training_are_warned_of_unless_the_model_scales_them(exported, known_toy, pictures, tmp_path):
    exported()
    paper = Paper()
    evaluate(exported.folder / "best", pictures, None, paper.console)
    assert "times as long as those of training" in paper.text()
    settings = json.loads((exported.folder / "best" / "karyotune.json").read_text())
    assert settings["areas"] == {"dark": 256.0, "bright": 256.0}
    assert _of_sizes(0.6, Normal()).startswith("warning: objects are 0.60 times as long") and "warning" not in _of_sizes(1.1, Normal())
    assert "brings each image to one width" in _of_sizes(0.6, Normal(width=12.0))
