"""What names of files and folders say beside the classes: patients, masks, parts."""

import csv

import numpy as np
import pytest
from PIL import Image

from search.data_commands import check
from trainables.data.cells import read_cells
from trainables.data.check import inspect_folder
from trainables.data.find import list_folder
from trainables.data.listing import Listing, settled
from trainables.data.read import read_folder
from trainables.data.split import split

CLASSES = ("normal", "tumour")


def made(folder, *names):
    """Images of these names, each another one."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (12, 12), np.uint8)).save(path)
    return folder


def of_both(name, n=8):
    """The names of `n` images of each class."""
    return [name.format(c=c, i=i, p=i % 4, w=("KM", "AB", "ZS", "TR")[i % 4]) for c in CLASSES for i in range(n)]


@pytest.mark.parametrize(
    "name",
    [
        "{c}/patient_{p}_cell_{i}.png",
        "{c}/g10{p}-m3 {i}.png",
        "{c}/{c}_{i}_P0{p}.png",
        "{c}/H12-104{p} {i}.png",
        "{c}/CG19-42{p} m{i} c1.png",
        "{c}/19.042{p}.0{i}.png",
        "{c}/UID_{p}_{i}_1_all.png",
        "{c}/TCGA-A1-A0S{p}-01Z-00-DX1_{i}_448.png",
        "{c}/SOB_B-14-2254{p}AB-40-{i}.png",
        "{c}/{w}_{i:02d}.png",
    ],
)
@pytest.mark.parametrize("with_table", [False, True])
def test_patients_in_names_of_files_are_warned_of_and_can_be_written_down(tmp_path, name, with_table):
    folder = made(tmp_path / "data", *of_both(name))
    if with_table:
        (folder / "labels.csv").write_text("\n".join(["file,label", *(f"{file},{file.split('/')[0]}" for file in of_both(name))]))
    found = list_folder(folder)
    assert not found.faults and any("names hold 4 words that repeat" in line for line in found.warnings)
    check(folder, out=lambda _: None, fix=tmp_path / "manifest.csv")
    with (tmp_path / "manifest.csv").open() as stream:
        assert len({row["patient"] for row in csv.DictReader(stream)}) == 4


@pytest.mark.parametrize(
    "name",
    [
        "{c}/{i}.png",
        "{c}/cell_{i}.png",
        "{c}/P{p}/{p}_{i}.png",
        "{c}/{c}1_{i}.png",
        "{c}/{p}0x_{i}.png",
        "{c}/{i}-1.png",
        "{c}/cell_{i}_1.png",
        "{c}/IMG_{i:04d}.png",
    ],
)
def test_names_of_files_that_say_nothing_of_patients_are_left_alone(tmp_path, name):
    found = list_folder(made(tmp_path, *of_both(name)))
    assert not found.faults and not found.owners and not found.warnings


def test_copies_by_their_names_make_no_patients(tmp_path):
    found = list_folder(made(tmp_path, *of_both("{c}/x{i}.png"), *of_both("{c}/x{i}_aug1.png")))
    assert not found.owners


@pytest.mark.parametrize("name", ["{c}/P0{p}/{i}.png", "P0{p}/{c}/{i}.png"])
def test_a_list_of_patients_beside_folders_that_may_be_the_classes_is_refused(tmp_path, name):
    made(tmp_path, *of_both(name))
    text = "patient,sex,age,diagnosis\n" + "".join(f"P0{p},f,{50 + p},{('AML', 'MDS')[p % 2]}\n" for p in range(4))
    (tmp_path / "clinical.csv").write_text(text)
    found = list_folder(tmp_path)
    assert len(found.faults) == 1 and "or the folders normal, tumour: move clinical.csv out of the data" in found.faults[0]
    (tmp_path / "clinical.csv").rename(tmp_path / "manifest.csv")
    found = list_folder(tmp_path)
    assert not found.faults and set(found.labels) == {"AML", "MDS"}


def test_a_table_of_kinds_of_classes_is_refused_and_makes_no_patients_of_the_classes(tmp_path):
    kinds = dict(zip(("naevus", "melanoma", "akiec"), ("benign", "malignant", "malignant"), strict=True))
    made(tmp_path, *(f"{name}/{i}.png" for name in kinds for i in range(3)))
    (tmp_path / "classes.csv").write_text("name,type\n" + "".join(f"{name},{kind}\n" for name, kind in kinds.items()))
    assert "or the folders akiec, melanoma, naevus: move classes.csv out" in list_folder(tmp_path).faults[0]
    (tmp_path / "classes.csv").rename(tmp_path / "manifest.csv")
    found = list_folder(tmp_path)
    assert not found.faults and set(found.labels) == {"benign", "malignant"} and found.patients is None


def test_a_list_of_patients_whose_labels_are_the_folders_is_no_question(tmp_path):
    made(tmp_path, *(f"{CLASSES[p % 2]}/P0{p}/{i}.png" for p in range(4) for i in range(3)))
    (tmp_path / "clinical.csv").write_text("patient,diagnosis\n" + "".join(f"P0{p},{CLASSES[p % 2]}\n" for p in range(4)))
    found = list_folder(tmp_path)
    assert not found.faults and set(found.labels) == set(CLASSES) and len(set(found.patients)) == 4


ENDS = (
    "_cp_masks",
    "_cp_outlines",
    "_gt",
    "_labels",
    "_outline",
    "_bw",
    "_binary",
    "_annotated",
    "_roi",
    "_mask_1",
    "-mask-1",
    "_mask2",
    "Mask",
    "_Simple Segmentation",
    "_Object Predictions",
    "_seg_mask",
    "_gradcam",
)


@pytest.mark.parametrize(
    "name", [*("x{i}" + end for end in ENDS), *(start + "x{i}" for start in ("mask_", "seg_", "gt_", "overlay_", "thumb_"))]
)
def test_masks_beside_their_images_are_no_images_of_the_class_whatever_program_named_them(tmp_path, name):
    images = of_both("{c}/x{i}.png", 2)
    found = list_folder(made(tmp_path, *images, *of_both("{c}/" + name + ".png", 2)))
    assert not found.faults and found.files == sorted(images) and "4 images taken as masks" in found.warnings[0]


@pytest.mark.parametrize("name", ["{c}/x{k}_roi{i}.png", "{c}/x{k}_mask_{i}.png"])
def test_several_regions_of_one_image_are_asked_for(tmp_path, name):
    images = of_both("{c}/x{i}.png", 2)
    cut = [name.format(c=c, k=k, i=i) for c in CLASSES for k in range(2) for i in (1, 2)]
    made(tmp_path, *images, *cut)
    assert "8 images may be masks, several of one image, or objects" in list_folder(tmp_path).faults[0]
    check(tmp_path, out=lambda _: None, layout="class", fix=tmp_path / "manifest.csv")
    assert list_folder(tmp_path).files == sorted([*images, *cut])
    (tmp_path / "manifest.csv").write_text("\n".join(["file,label", *(f"{file},{file.split('/')[0]}" for file in images)]))
    found = list_folder(tmp_path)
    assert not found.faults and found.files == images and "names none of them" in found.warnings[0]


@pytest.mark.parametrize("name", ["GT", "overlay"])
def test_a_class_that_is_called_as_masks_are_is_asked_for(tmp_path, name):
    found = list_folder(made(tmp_path, *of_both("{c}/00{i}.png"), *(f"{name}/00{i}.png" for i in range(8))))
    assert f"the folder {name} may hold masks" in found.faults[0] and not found.warnings


def test_names_of_masks_without_their_images_are_images(tmp_path):
    images = of_both("{c}/mask_{i}.png", 2)
    assert list_folder(made(tmp_path, *images)).files == sorted(images)


@pytest.mark.parametrize("ends", ["_mask", " GT", "Masks"])
@pytest.mark.parametrize("below", ["", "train/"])
def test_a_folder_of_a_class_s_masks_is_no_class(tmp_path, ends, below):
    made(tmp_path, *of_both(below + "{c}/{i}.png", 2), *of_both(below + "{c}" + ends + "/{i}.png", 2))
    found = list_folder(tmp_path)
    assert f"{below}normal{ends}, {below}tumour{ends} may hold masks" in found.faults[0]
    assert not list_folder(tmp_path, layout="-/class" if below else "class").faults


@pytest.mark.parametrize("name", ["{c}_{s}/{i}.png", "{s}{C}/{i}.png", "{S}{C}/{i}.png", "{c}{S}/{i}.png"])
def test_a_part_at_either_end_of_a_class_s_name_is_refused(tmp_path, name):
    files = [name.format(c=c, C=c.title(), s=s, S=s.title(), i=i) for c in CLASSES for s in ("train", "test") for i in (0, 1)]
    assert "part (test, train) and class in one name" in list_folder(made(tmp_path, *files)).faults[0]


@pytest.mark.parametrize(
    ("head", "values"),
    [("is_train", ("TRUE", "FALSE")), ("test", "01"), ("cohort", ("train", "test", "external")), ("Usage", ("Training", "PublicTest"))],
)
def test_a_column_that_is_a_split_in_other_words_is_refused(tmp_path, head, values):
    files = of_both("{c}/{i}.png")
    made(tmp_path, *files)
    lines = [f"{file},{file.split('/')[0]},{values[i % len(values)]}" for i, file in enumerate(files)]
    (tmp_path / "manifest.csv").write_text("\n".join([f"file,label,{head}", *lines]))
    assert f"its column {head} looks like a split" in list_folder(tmp_path).faults[0]


@pytest.mark.parametrize(("head", "values"), [("stained", "01"), ("result", ("test failed", "ok")), ("sex", ("m", "f"))])
def test_a_column_that_is_no_split_is_left_alone(tmp_path, head, values):
    files = of_both("{c}/{i}.png")
    made(tmp_path, *files)
    lines = [f"{file},{file.split('/')[0]},{values[i % len(values)]}" for i, file in enumerate(files)]
    (tmp_path / "manifest.csv").write_text("\n".join([f"file,label,{head}", *lines]))
    assert not list_folder(tmp_path).faults


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("grade 1", "grade 2"), ("40x", "100x", "200x")),
        (("40x", "100x"), ("class 1", "class 2")),
        (("rot0", "rot90"), ("chr1", "chr2")),
        (("chr1", "chr2"), ("aug1", "aug2")),
        (("0h", "24h"), ("type1", "type2")),
        (("2019", "2020"), CLASSES),
        (CLASSES, ("10", "50", "90")),
    ],
)
def test_a_word_with_a_number_is_no_patient(tmp_path, first, second):
    found = list_folder(made(tmp_path, *(f"{a}/{b}/{i}.png" for a in first for b in second for i in (0, 1))))
    assert "which folders are the classes cannot be told" in found.faults[0]


@pytest.mark.parametrize(
    "patients",
    [
        ("P01", "P02"),
        ("1017", "1022"),
        ("patient 1", "patient 2"),
        ("患者1", "患者2"),
        ("Patientin 1", "Patientin 2"),
        ("10", "31", "44", "57", "61", "90"),
    ],
)
def test_patients_are_still_patients(tmp_path, patients):
    found = list_folder(made(tmp_path, *(f"{c}/{p}/{i}.png" for c in CLASSES for p in patients for i in (0, 1))))
    assert found.layout == "class/patient"


@pytest.mark.parametrize("numbers", [("2001", "2002", "2003", "2004"), ("5", "10", "15", "20"), ("1", "2", "3", "4")])
def test_numbers_that_stand_in_one_class_each_are_patients(tmp_path, numbers):
    of = {number: CLASSES[i % 2] for i, number in enumerate(numbers)}
    found = list_folder(made(tmp_path / "own", *(f"{of[n]}/{n}/{i}.png" for n in numbers for i in (0, 1))))
    assert found.layout == "class/patient" and set(found.patients) == set(numbers)
    assert list_folder(made(tmp_path / "all", *(f"{c}/{n}/{i}.png" for c in CLASSES for n in numbers for i in (0, 1)))).faults


@pytest.mark.parametrize("name", ["{k}/P0{p}/{i}.png", "P0{p}/{k}/{i}.png"])
@pytest.mark.parametrize("first", [0, 1])
def test_numbers_from_0_beside_patients_are_classes(tmp_path, name, first):
    made(tmp_path, *(name.format(k=k, p=p, i=i) for k in (first, first + 1) for p in range(3) for i in (0, 1)))
    found = list_folder(tmp_path)
    assert not found.faults and set(found.labels) == {str(first), str(first + 1)} and len(set(found.patients)) == 3


def test_folders_of_other_things_are_no_classes_and_empty_ones_are_refused(tmp_path):
    made(tmp_path, *of_both("{c}/{i}.png"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.txt").write_text("x")
    assert not list_folder(tmp_path).faults
    (tmp_path / "atypical").mkdir()
    assert "1 class folders have none: atypical" in list_folder(tmp_path).faults[0]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (("normal/a.png ",), "of a kind that is not read (.png ): normal/a.png ;"),
        (("normal/a.tif_", "normal/b.PNG.~"), "2 files of a kind that is not read"),
        (("normal/S1_macro.jpg", "tumour/S1 label.png"), "2 images called as what scanners write beside a slide"),
        (("1. Feb/1.png", "1. Feb/2.png"), "class names that are days of a month: 1. Feb;"),
        (("Mar-05/1.png", "Mar-05/2.png"), "class names that are days of a month: Mar-05;"),
        (("Marginal-5/1.png", "Marginal-5/2.png", "normal/macrophage.png", "normal/x.bak"), ""),
    ],
)
def test_what_scanners_and_spreadsheets_leave_behind_is_named(tmp_path, files, says):
    made(tmp_path, *of_both("{c}/{i}.png"))
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = list_folder(tmp_path)
    assert bool(found.faults + found.warnings) == bool(says) and says in "".join(found.faults + found.warnings)


@pytest.mark.parametrize("name", ["{s}_{i}", "{c}_{s}_{i}", "{i}{s}"])
def test_parts_in_the_files_names_are_refused(tmp_path, name):
    files = [f"{c}/{name.format(c=c, s=s, i=i)}.png" for c in CLASSES for s in ("train", "test") for i in range(3)]
    assert "names say a part of a split each (test, train)" in list_folder(made(tmp_path, *files)).faults[0]
    assert not list_folder(tmp_path, layout="class").faults


def test_a_packed_set_is_called_so(tmp_path):
    for name in ("data.json", "images.npy", "masks.npy"):
        (tmp_path / name).write_bytes(b"")
    assert "is a packed set" in list_folder(tmp_path).faults[0]


@pytest.mark.parametrize(
    ("head", "values", "says"),
    [
        ("animal", ("rat", "mouse"), "holds mouse, rat alone"),
        ("case", ("case", "control"), "holds case, control alone"),
        ("patient", ("P1", "", "", ""), "as merged cells do"),
        ("patient", ("Q1", "", "", "Q2", "", ""), "as merged cells do"),
        ("patient", ("Q1", "Q1", "", "Q2", "", ""), ""),
        ("animal", ("rat 1", "rat 2"), ""),
        ("patient", ("Ada", "Eve"), ""),
    ],
)
def test_a_column_that_may_not_be_the_patients_is_warned_of(tmp_path, head, values, says):
    files = of_both("{c}/{i}.png")
    made(tmp_path, *files)
    cells = [values[i % len(values)] for i in range(len(files))]
    cells = [cell and cell.replace("P1", f"P{i}") for i, cell in enumerate(cells)]
    (tmp_path / "manifest.csv").write_text(
        "\n".join([f"file,label,{head}", *(f"{f},{f.split('/')[0]},{c}" for f, c in zip(files, cells, strict=True))])
    )
    found = list_folder(tmp_path)
    assert not found.faults and len(found.warnings) == bool(says) and all(says in line for line in found.warnings)


SERIES = (
    "{o}_z{k}",
    "{o}_t{k}_c001",
    "{o}-ch{k}sk1fk1fl1",
    "{o}c{k}",
    "{o}_DAPI{k}",
    "z{k}_{o}",
    "{o} frame {k}",
    "{o}_{k}0x",
    "ch{k}/{o}",
    "C{k}-{o}",
    "{o} [d=2,x={k},y=0,w=512,h=512]",
    "{o}_x{k}_y0",
    "{o}_r{k}_c2",
    "{o}_jpg.rf.{k:032x}",
)


@pytest.mark.parametrize("name", SERIES)
def test_images_of_one_object_are_tied_by_their_names(tmp_path, name):
    of = {f"{c}/{name.format(o=f'{c[-1]}{o}', k=k)}.png": f"{c}{o}" for c in CLASSES for o in range(4) for k in (1, 2, 4)}
    found = list_folder(made(tmp_path, *of, "normal/n9.png", "tumour/t9.png"), layout="class")
    assert not found.faults and "24 images are planes, times, channels, magnifications, copies or tiles of 8 objects" in found.warnings[-1]
    pairs = [{of[found.files[i]] for i in pair} for pair in found.series]
    assert len(pairs) == 16 and all(len(pair) == 1 for pair in pairs) and set().union(*pairs) == set(of.values())


@pytest.mark.parametrize("name", ["cell_{k}", "slide_c{k}", "{c}_t{k}", "k0{k}_a", "t{k}", "x{k}_rot90"])
def test_names_that_number_the_objects_make_no_series(tmp_path, name):
    files = [f"{c}/{name.format(c=c, k=k)}.png" for c in CLASSES for k in range(6)]
    assert list_folder(made(tmp_path, *files)).series == []


VIEWS = (
    ("{o}_{v}", ("raw", "proc")),
    ("{o}_{v}", ("SpectrumOrange", "SpectrumGreen", "Aqua")),
    ("exp1_B02_s{o}_{v}000000{o:02d}-0000-4000-8000-00000000000a", ("w1", "w2", "w3")),
    ("plate_B02_T0001F{o}L01{v}", ("A01Z01C01", "A02Z01C02", "A03Z01C03")),
    ("img_channel{v}_position0{o}_time000_z000", ("000", "001")),
    ("VID123_{o}_1_{v}", ("00d00h00m", "00d06h00m", "00d12h00m")),
    ("scan_p00_0_A{o}f00{v}", ("d0", "d1", "d2")),
    ("r01c{o}f01p{v}-ch1sk1fk1fl1", ("01", "02", "03")),
    ("case{o}_{v}", ("0000", "0001")),
    ("p{v}_{o:02d}_a", ("16", "40", "53")),
    ("A{o}_{v}_001", ("01_1_1_DAPI", "02_2_1_CY5")),
)


@pytest.mark.parametrize(("name", "views"), VIEWS)
def test_views_are_told_by_their_names_crossing_those_of_the_objects(tmp_path, name, views):
    names = {f"{c}/{name.format(o=o + 10 * k, v=v)}.png": o + 10 * k for k, c in enumerate(CLASSES) for o in range(10) for v in views}
    found = list_folder(made(tmp_path, *names))
    assert len(found.series) == 20 * (len(views) - 1) and all(names[found.files[i]] == names[found.files[j]] for i, j in found.series)


@pytest.mark.parametrize("name", ["{c}/P{p}_{i}.png", "{c}/{p}_x{i}.png", "{c}/{w}_0{i}.png"])
def test_patients_and_places_that_cross_as_well_are_no_views(tmp_path, name):
    files = [name.format(c=c, p=p, i=i, w=("KM", "AB", "ZS", "TR")[p]) for c in CLASSES for p in range(4) for i in range(6)]
    assert list_folder(made(tmp_path, *files)).series == []


def test_patients_decide_over_the_names_of_a_series_and_a_given_split_that_parts_one_is_warned_of(tmp_path):
    files = [f"{c}/{c[0]}{o}_z{k}.png" for c in CLASSES for o in range(4) for k in (0, 1)]
    made(tmp_path, *files)
    for column, value, says in (("patient", "p{i}", ""), ("split", "{part}", "parts 8 objects of several images")):
        lines = [f"{f},{f.split('/')[0]}," + value.format(i=i, part=("train", "test")[i % 2]) for i, f in enumerate(files)]
        (tmp_path / "manifest.csv").write_text("\n".join([f"file,label,{column}", *lines]))
        found = list_folder(tmp_path)
        assert (found.series == []) == (column == "patient") and says in "".join(found.warnings)


def test_all_who_split_keep_a_series_together(tmp_path):
    made(tmp_path, *(f"{c}/{c[0]}{o}_z{k}.png" for c in CLASSES for o in range(3) for k in range(8)))
    assert inspect_folder(tmp_path).parts == {"train": 16, "val": 16, "test": 16}
    for pack in (read_folder(tmp_path, 12, 12), read_cells(tmp_path)):
        assert {name: len(part) for name, part in split(pack).items()} == {"train": 16, "val": 16, "test": 16}


@pytest.mark.parametrize("name", ["{c} - Copy", "{c} (2)", "Copy of {c}", "{c}_augmented", "{c}-rot90", "old_{c}"])
def test_a_copy_of_a_class_s_folder_is_no_class_and_one_of_a_patient_s_is_the_patient(tmp_path, name):
    copy = name.format(c="tumour")
    made(tmp_path / "a", *of_both("{c}/{i}.png", 2), f"{copy}/0.png", f"{copy}/1.png")
    assert f"{copy} may be a copy of tumour" in list_folder(tmp_path / "a").faults[0]
    assert not list_folder(tmp_path / "a", layout="class").faults
    found = list_folder(made(tmp_path / "b", *of_both("{c}/P0{p}/{i}.png"), f"normal/{name.format(c='P01')}/x.png"))
    assert not found.faults and set(found.patients) == {"P00", "P01", "P02", "P03"}


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ((*CLASSES, "test"), "a folder called test beside classes is none of them"),
        ((*CLASSES, "unlabeled"), "a folder called unlabeled beside"),
        ((*CLASSES, "Results"), "a folder called Results beside"),
        ((*CLASSES, "QC fail"), "a folder called QC fail beside"),
        ((*CLASSES, "New folder (2)"), "a folder called New folder (2) beside"),
        ((*CLASSES, "Papierkorb"), "a folder called Papierkorb beside"),
        ((*CLASSES, "nicht auswertbar"), "a folder called nicht auswertbar beside"),
        ((*CLASSES, "zu klären", "heatmaps"), "a folder called heatmaps, zu klären beside"),
        ((*CLASSES, "old"), "a folder called old beside"),
        (("young", "old"), ""),
        ((*CLASSES, "?", "+"), ""),
        (("export1", "export2"), "as batches of images are"),
        (("Charge 1", "Charge 2", "Charge 3"), "as batches of images are"),
        (("患者01", "患者02"), "as patients are"),
        (("DAPI", "GFP"), "as views of one object are"),
        (("Metaphase", "Karyogram"), "as views of one object are"),
        (("metaphase", "interphase"), ""),
        (("40x", "100x"), "as views of one object are"),
        (("rot0", "rot90"), "as views of one object are"),
        (("T1", "T2"), ""),
        (("testis", "result-like"), ""),
    ],
)
def test_folders_that_are_no_classes_are_refused_unless_they_are_said_to_be(tmp_path, names, says):
    made(tmp_path, *(f"{name}/{i}.png" for name in names for i in (0, 1)))
    faults = list_folder(tmp_path).faults
    assert len(faults) == bool(says) and all(says in fault and "--layout class" in fault for fault in faults)
    assert not list_folder(tmp_path, layout="class").faults


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("{c}/P0{p}/slide{i}/x.png", "class/patient/-"),
        ("P0{p}/{c}/roi {i}/x.png", "patient/class/-"),
        ("{c}/P0{p}/2024-01-1{i}/x.png", "class/patient/-"),
        ("P0{p}/side{i}/{c}/x.png", ""),
        ("{c}/P0{p}/{i}/x.png", ""),
    ],
)
def test_of_three_levels_one_within_patients_means_nothing(tmp_path, name, layout):
    found = list_folder(made(tmp_path, *of_both(name)))
    assert found.layout == layout and bool(found.faults) == (not layout)


@pytest.mark.parametrize("few", [False, True])
def test_tiles_of_a_slide_are_one_object_in_whatever_classes_they_lie(tmp_path, few):
    names = [f"{c}/slide{s}_x{x + 256 * k}_y0.png" for k, c in enumerate(CLASSES) for s in range(2 if few else 4) for x in (0, 512)]
    found = list_folder(made(tmp_path, *names))
    assert len(found.series) == (0 if few else 12) and found.warnings
    assert not few or "as planes, times, channels or tiles of one object are" in found.warnings[-1]


@pytest.mark.parametrize(
    ("one", "other", "numbers", "alike"),
    [
        ("tumor", "tumuor", (9, 9), True),
        ("overlapping", "ovelapping", (9, 9), True),
        ("touching overlapping", "touching_overlaping", (9, 9), True),
        ("leukemia", "leukaemia", (9, 9), True),
        ("neutrophil", "neutrofil", (90, 5), True),
        ("carcinoma", "carsinoma", (90, 90), False),
        ("1", "11", (9, 1), False),
        ("X", "Y", (9, 1), False),
        ("AML1", "AML2", (9, 1), False),
        ("touching", "touching_overlapping", (9, 1), False),
        ("type a", "type b", (9, 1), False),
        ("typea", "typeb", (9, 1), False),
        ("normal", "abnormal", (9, 1), False),
        ("colon", "colony", (9, 1), False),
        ("macrocyte", "microcyte", (9, 1), False),
        ("hyperdiploid", "hypodiploid", (9, 1), False),
        ("mitosis", "meiosis", (9, 1), False),
        ("dicentric", "tricentric", (9, 1), False),
        ("myeloblast", "myelocyte", (9, 1), False),
    ],
)
def test_classes_that_a_slip_of_the_pen_made_two_are_named(one, other, numbers, alike):
    listing = settled(Listing([], [one] * numbers[0] + [other] * numbers[1]))
    assert any("slip of the pen" in line for line in listing.warnings) == alike and len(set(listing.labels)) == 2


@pytest.mark.parametrize(
    ("names", "fault", "warning"),
    [
        (("0", "1", "2", "normal", "tumour", "stroma"), True, False),
        (("benign", "3", "4", "5"), False, False),
        (("normal", "reactive", "2", "5"), False, False),
        (("0.1", "0.9"), False, True),
        (("0,25", "1"), False, True),
        (("1", "2", "X", "Y"), False, False),
        (("10", "50"), False, False),
    ],
)
def test_classes_that_stand_in_two_ways_are_refused_and_measured_values_warned_of(names, fault, warning):
    found = settled(Listing([], [*names] * 2))
    assert any("as if each stood in two ways" in line for line in found.faults) == fault
    assert any("as measured values" in line for line in found.warnings) == warning


@pytest.mark.parametrize(
    ("samples", "patients"),
    [
        (("TCGA-A1-A0S{p}-01A", "TCGA-A1-A0S{p}-11A-01-TSA"), "TCGA-A1-A0S{p}"),
        (("P0{p}_T", "P0{p}_N"), "P0{p}"),
        (("H12-1045{p}", "H12-1045{p} B"), "H12-1045{p}"),
        (("t_{p}1", "n_{p}2"), ""),
    ],
)
def test_samples_of_one_patient_are_one(samples, patients):
    def read(parts, few=False):
        kinds = [(label, p, i) for i, label in enumerate(CLASSES) for p in range(1, 3 if few else 5)]
        owners = [samples[i].format(p=p) for _, p, i in kinds]
        return settled(Listing([f"{label}{p}" for label, p, _ in kinds], [label for label, _, _ in kinds], owners, parts))

    found = read(None)
    assert set(found.patients) == (
        {patients.format(p=p) for p in range(1, 5)} if patients else {s.format(p=p) for s in samples for p in range(1, 5)}
    )
    for other in (read(["train"] * 8), read(None, few=True)):  # too few, or split already: it is said, and nothing is joined
        assert len(set(other.patients)) == len(other.files) and bool(other.warnings) == bool(patients)


@pytest.mark.parametrize(("ending", "text"), [(".xml", "<object>\n<name>{}</name>"), (".json", '{{"shapes": [{{"label": "{}"}}]}}')])
def test_an_annotation_of_another_class_than_its_folder_is_named(tmp_path, ending, text):
    made(tmp_path, *of_both("{c}/{c}{i}.png"))
    for c in CLASSES:
        for i in range(4):
            said = "Tumour" if i == 1 else "nucleus" if i == 2 else c
            (tmp_path / c / f"{c}{i}{ending}").write_text(text.format(said))
    wrong = [line for line in list_folder(tmp_path).warnings if "annotation" in line]
    assert len(wrong) == 1 and wrong[0].startswith(
        f"1 annotation file of another class than was taken: normal/normal1{ending} (Tumour, taken"
    )


@pytest.mark.parametrize(
    ("cells", "taken"),
    [
        (lambda i: (f"p{i % 4}", f"c{i % 8}"), "patient_id"),
        (lambda i: (f"c{i % 8}", f"p{i % 4}"), "case_id"),
        (lambda i: ("hospital", f"p{i % 4}"), "case_id"),
        (lambda i: (f"p{i % 4}", f"c{i % 3}"), ""),
    ],
)
def test_of_two_columns_of_patients_that_one_is_taken_within_which_the_other_lies(tmp_path, cells, taken):
    files = of_both("{c}/{i}.png")
    made(tmp_path, *files)
    lines = [",".join([file, file.split("/")[0], *cells(i)]) for i, file in enumerate(files)]
    (tmp_path / "manifest.csv").write_text("\n".join(["file,label,patient_id,case_id", *lines]))
    found = list_folder(tmp_path)
    assert len(found.faults) == (not taken) and (not taken or f"patient: its column {taken}" in found.levels)
    assert ("seem to, and none holds the others" in found.faults[0]) if found.faults else len(set(found.patients)) == 4
