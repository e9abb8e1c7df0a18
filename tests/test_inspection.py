"""Behaviour of the inspection of a folder: duplicates, conflicts, leaks, and the size-only baseline."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.data.check import inspect_folder
from trainables.data.copies import SURE, near_duplicates
from trainables.data.pack import make_pack
from trainables.data.read import read_folder
from trainables.data.size import size_baseline
from trainables.data.split import split
from trainables.data.synthetic_clusters import cluster_set
from trainables.parts.errors import RequestError

CLUSTERS = cluster_set(6, size=224, seed=1).images  # 24 different pictures


@pytest.fixture
def folder(tmp_path):
    """Two classes of 10 different images each; patient p0 .. p4 has two of each; returns a function that writes files and manifest."""
    rows = {f"{c}/{i}.png": [c, f"p{i // 2}", ""] for c in "ab" for i in range(10)}
    for k, name in enumerate(rows):
        (tmp_path / name[0]).mkdir(exist_ok=True)
        Image.fromarray(CLUSTERS[k]).save(tmp_path / name)

    def make(images=(), patients=True, parts=None):
        for name, image, label, patient in images:
            (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(tmp_path / name)
            rows[name] = [label, patient, ""]
        for name, part in (parts or {}).items():
            rows[name][2] = part
        with (tmp_path / "manifest.csv").open("w", newline="") as stream:
            table = csv.writer(stream)
            keep = [True, True, patients, parts is not None]
            for row in (["file", "label", "patient", "split"], *([name, *rest] for name, rest in rows.items())):
                table.writerow([cell for cell, kept in zip(row, keep, strict=True) if kept])
        return inspect_folder(tmp_path)

    make.rows = rows
    make.path = tmp_path
    return make


def test_a_sound_folder_is_described_and_has_nothing_against_it(folder):
    found = folder()
    assert found.ok and found.faults == [] and found.leaks == [] and found.warnings == []
    assert found.counts == {"a": 10, "b": 10} and found.patients == 5
    assert (found.black, found.white, found.deep) == (20, 0, 0)
    assert found.sizes["width"] == (224, 224, 224) and 0 < found.sizes["foreground"][0] < found.sizes["foreground"][2] < 1
    assert found.duplicates == [] and found.near == [] and sum(found.parts.values()) == 20


def test_equal_pixels_are_found_whatever_the_file_and_its_polarity(folder):
    found = folder([("a/copy.bmp", CLUSTERS[3], "a", "p1"), ("a/white.tif", 255 - CLUSTERS[3], "a", "p1")])
    assert found.duplicates == [("a/3.png", "a/copy.bmp", "a/white.tif")] and found.near == [] and found.conflicts == []
    assert found.white == 1 and "the 1 with a white one: a/white.tif" in found.warnings[0]


def test_one_image_with_two_labels_is_a_conflict(folder):
    found = folder([("b/copy.png", CLUSTERS[3], "b", "p1")])
    assert found.conflicts == [("a/3.png (a)", "b/copy.png (b)")]
    pack = read_folder(folder.path, 224, 32)
    assert any("one image, two labels, 1 set: a/3.png (a) = b/copy.png (b)" in note for note in pack.notes), "a study says it too"
    one, other = pack.files.index("a/3.png"), pack.files.index("b/copy.png")
    for seed in range(8):
        sides_of = split(replace(pack, patients=None), seed=seed).values()
        assert any({one, other} <= set(part.tolist()) for part in sides_of), "both labels stand on one side"


def test_a_folder_of_all_images_beside_the_classes_is_no_class_in_an_inspection_and_in_a_study(folder):
    (folder.path / "all").mkdir()
    found = folder([(f"all/{c}{i}.png", CLUSTERS[10 * "ab".index(c) + i], "all", "p1") for c in "ab" for i in range(10)])
    assert len(found.faults) == 1 and found.faults[0].startswith("each image of all stands in another class too (a, b)")
    with pytest.raises(RequestError, match="each image of all stands in another class too"):
        read_folder(folder.path, 224, 32)


def test_a_study_s_split_parts_no_slide_where_a_table_names_no_patients(folder):
    slides = {name: f"S{name[0]}{int(name[2]) // 2}" for name in folder.rows}
    (folder.path / "manifest.csv").write_text("file,label,slide\n" + "".join(f"{name},{name[0]},{of}\n" for name, of in slides.items()))
    pack = read_folder(folder.path, 224, 32)

    def torn(pack, seed):
        side = {pack.files[i]: name for name, part in split(pack, seed=seed).items() for i in part}
        return sum(side[f"{c}/{i}.png"] != side[f"{c}/{i + 1}.png"] for c in "ab" for i in range(0, 10, 2))

    assert not any(torn(pack, seed) for seed in range(4)) and all(torn(replace(pack, ties=()), seed) for seed in range(4))


def test_files_of_another_kind_than_their_names_say_are_named(folder):
    with (folder.path / "a" / "3.png").open("wb") as stream:
        Image.fromarray(CLUSTERS[3]).save(stream, "JPEG2000")
    found = folder()
    assert any("1 image of another kind than their names end in (JPEG2000): a/3.png" in line for line in found.warnings)


def test_many_classes_of_few_images_raise_no_warning_of_a_library():
    many = make_pack(
        np.arange(48, dtype=np.uint8).reshape(48, 1, 1),
        [*range(24)] * 2,
        [*map(str, range(24))],
        [*map(str, range(48))],
        None,
        np.ones((48, 2)),
    )
    assert size_baseline(many)["folds"] == 2


def test_one_image_with_two_labels_on_two_sides_of_a_given_split_is_refused(folder):
    found = folder([("b/copy.png", CLUSTERS[3], "b", "p9")], parts=sides(**{"b/copy.png": "test", "a/3.png": "train"}))
    assert any("equal images must stand on one side" in leak for leak in found.leaks)
    with pytest.raises(RequestError, match="equal images must stand on one side"):
        read_folder(folder.path, 224, 32)


def test_one_image_under_two_patients_is_said_and_keeps_them_together(folder):
    found = folder([("a/copy.png", CLUSTERS[3], "a", "p4")])
    assert any("the same image under two patients, 1 times: a/3.png = a/copy.png" in warning for warning in found.warnings)
    assert found.leaks == []


def altered(image, how):
    picture = Image.fromarray(image)
    if how == "dimmed":
        return (image * 0.8).astype(np.uint8)
    if how == "shifted":
        return np.roll(image, (9, -7), (0, 1))
    if how == "scaled":
        return picture.resize((168, 168), Image.Resampling.BOX)
    if how == "cropped":
        return picture.crop(picture.getbbox())
    if how == "mirrored":
        return np.ascontiguousarray(image[:, ::-1])
    return np.ascontiguousarray(np.rot90(image))


@pytest.mark.parametrize("how", ["dimmed", "shifted", "scaled", "cropped", "mirrored", "quarter turn"])
def test_an_altered_copy_is_a_near_duplicate(folder, how):
    found = folder([("a/copy.png", altered(CLUSTERS[3], how), "a", "p1")])
    (pair,) = found.near
    assert (pair.first, pair.second) == ("a/3.png", "a/copy.png") and pair.correlation > 0.99
    assert pair.turned == (how in ("mirrored", "quarter turn")) and found.duplicates == []


def test_a_jpeg_of_an_image_is_a_near_duplicate(folder):
    Image.fromarray(CLUSTERS[3]).save(folder.path / "a" / "copy.jpg", quality=85)
    folder.rows["a/copy.jpg"] = ["a", "p1", ""]
    assert [(pair.first, pair.second) for pair in folder().near] == [("a/3.png", "a/copy.jpg")]


def test_different_clusters_are_no_near_duplicates():
    assert near_duplicates(cluster_set(60, size=64, seed=2).images) == []


def test_near_duplicates_of_a_pack_can_tie_its_split():
    images = np.concatenate([CLUSTERS, (CLUSTERS * 0.8).astype(np.uint8)])
    pack = make_pack(images, np.tile(np.repeat([0, 1], 12), 2), ["a", "b"], [f"{i}" for i in range(48)], None, np.ones((48, 2)))
    pairs = near_duplicates(pack.images)
    assert sorted(pair[:2] for pair in pairs) == [(i, i + 24) for i in range(24)]
    side = {int(i): name for name, part in split(pack, ties=[pair[:2] for pair in pairs]).items() for i in part}
    assert all(side[i] == side[i + 24] for i in range(24))


def sides(**changes):
    """A sound split column of the folder: p0, p1, p2 in train, p3 in val, p4 in test."""
    parts = {f"{c}/{i}.png": ("train", "train", "train", "val", "test")[i // 2] for c in "ab" for i in range(10)}
    return {**parts, **changes}


def test_a_sound_split_column_is_counted_and_its_other_spellings_are_understood(folder):
    found = folder(parts={name: {"val": "Validation", "train": "training"}.get(part, part) for name, part in sides().items()})
    assert found.ok and found.given_parts == {"train": 12, "val": 4, "test": 4}


def test_a_patient_on_two_sides_of_the_split_column_is_a_leak(folder):
    found = folder(parts=sides(**{"a/9.png": "train"}))
    assert not found.ok and found.leaks == [
        "the split that comes with the data: a patient must stand on one side, 1 patient on two: p4 (train, test); split by patient, or drop the column"
    ]


def test_equal_images_on_two_sides_of_the_split_column_are_a_leak(folder):
    found = folder([("a/copy.png", CLUSTERS[3], "a", "p4")])
    assert found.ok
    found = folder(parts=sides(**{"a/copy.png": "test"}))
    assert (
        len(found.leaks) == 1
        and "equal images must stand on one side, 1 set of them on two: a/3.png (train) = a/copy.png (test)" in found.leaks[0]
    )


def test_a_near_duplicate_on_two_sides_is_a_warning(folder):
    folder([("a/copy.png", altered(CLUSTERS[3], "dimmed"), "a", "p4")])
    found = folder(parts=sides(**{"a/copy.png": "test"}))
    assert found.ok and any(
        "the split that comes with the data: near duplicates on two sides, 1 pair: a/3.png (train) ~ a/copy.png (test)" in warning
        for warning in found.warnings
    )


def test_a_part_that_does_not_exist_is_a_fault(folder):
    found = folder(parts=sides(**{"a/0.png": "elsewhere"}))
    assert found.faults == ["the manifest's split must be train, val or test, 1 are not: a/0.png ('elsewhere'); correct them"]


def test_faults_of_the_folder_and_of_its_images_come_together(folder):
    folder()
    (folder.path / "a" / "0.png").write_bytes(b"")
    (folder.path / "c").mkdir()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder.path / "c" / "extra.png")
    found = inspect_folder(folder.path)
    assert found.unreadable == ["a/0.png (empty file)"] and len(found.faults) == 2 and found.counts == {"a": 10, "b": 10}
    assert "c/extra.png" in found.faults[0] and "a/0.png (empty file)" in found.faults[1]


def test_a_folder_that_is_not_there_is_a_fault_and_no_exception(tmp_path):
    found = inspect_folder(tmp_path / "none")
    assert len(found.faults) == 1 and found.counts == {} and found.size_baseline is None


# ---- size baseline


def sized(areas, labels, patients=None):
    n = len(labels)
    images = np.arange(n, dtype="<u4").view(np.uint8).reshape(-1, 2, 2)
    return make_pack(images, labels, ["a", "b"], [str(i) for i in range(n)], patients, np.column_stack([areas, areas]))


def test_size_tells_everything_when_the_classes_differ_in_size_and_nothing_when_they_do_not():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    told = size_baseline(sized(np.where(labels, 1000, 100) * rng.uniform(0.9, 1.1, 400), labels))
    assert told["accuracy"] == 1.0 and told["low"] == told["high"] == 1.0 and told["folds"] == 5
    untold = size_baseline(sized(rng.uniform(100, 1000, 400), labels))
    assert untold["low"] < 0.5 < untold["high"] or abs(untold["accuracy"] - 0.5) < 0.08


def test_its_interval_is_the_binomial_one_for_single_images_and_wider_for_patients_who_agree():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 300)
    areas = np.where(rng.random(600) < 0.75, np.where(labels, 1000, 100), np.where(labels, 100, 1000))
    single = size_baseline(sized(areas, labels))
    accuracy = single["accuracy"]
    assert accuracy == pytest.approx(0.75, abs=0.04)
    assert single["high"] - accuracy == pytest.approx(1.96 * np.sqrt(accuracy * (1 - accuracy) / 600), rel=0.02)
    flip = np.repeat(rng.random(60) < 0.75, 10)
    areas = np.where(flip, np.where(labels, 1000, 100), np.where(labels, 100, 1000))
    grouped = size_baseline(sized(areas, labels, [str(i // 10) for i in range(600)]))
    assert grouped["high"] - grouped["low"] > 2 * (single["high"] - single["low"])


def test_a_patient_never_helps_to_predict_himself():
    # Each patient has one size and one label, drawn independently: only someone who has seen the patient can be right.
    rng = np.random.default_rng(1)
    label, size = rng.integers(2, size=60), rng.uniform(100, 10000, 60)
    pack = sized(np.repeat(size, 5), np.repeat(label, 5), [str(i // 5) for i in range(300)])
    assert size_baseline(pack)["accuracy"] < 0.62


def test_it_is_none_where_a_class_cannot_be_divided():
    assert size_baseline(sized(np.ones(20), np.repeat([0, 1], 10), ["p"] * 10 + [str(i) for i in range(10)])) is None


REAL = os.environ.get("KARYOTUNE_REAL_DATA")
real = pytest.mark.skipif(not REAL, reason="KARYOTUNE_REAL_DATA does not name a folder with clusters/ and chromosomes/")


@real
def test_the_copies_in_the_real_clusters_are_found_and_size_tells_part_of_the_type():
    found = inspect_folder(Path(REAL) / "clusters")
    sure = [pair for pair in found.near if pair.correlation > SURE]
    assert found.ok and len(found.duplicates) == 1 and len(sure) == 8 and len(found.near) - 8 <= 4  # one in a thousand
    assert 0.6 < found.size_baseline["low"] < found.size_baseline["high"] < 0.67


@real
@pytest.mark.slow
def test_the_copies_in_fourteen_thousand_chromosomes_are_found_and_at_most_one_in_a_thousand_beside_them():
    found = inspect_folder(Path(REAL) / "chromosomes")
    twice = [pair for pair in found.near if "m1057701" in pair.first and "m1057702" in pair.second]  # one field of view, recorded as two
    assert found.ok and len(twice) == 37 and len(found.near) - 37 <= 14
    assert not any(pair.correlation > SURE for pair in found.near if pair not in twice)
