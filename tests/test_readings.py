"""What tables and names of folders are read as: as they were meant, or refused or warned of by name. No pixel is read."""

import pytest

from search.data_commands import manifest_of
from trainables.data.check import Findings
from trainables.data.find import list_folder
from trainables.data.read import said_first

CLASSES = ("normal", "tumour")
PARTS = ("train", "train", "val", "test")


def files(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def named(below="{c}/{i}.png", classes=CLASSES, n=8):
    return [below.format(c=c, i=i, p=f"P{i % 4:02d}", s=PARTS[i % 4]) for c in classes for i in range(n)]


def table(folder, head, lines, name="manifest.csv"):
    (folder / name).write_text("\n".join([head, *lines] if head else lines) + "\n")
    return folder


def words(listing):
    return "\n".join([*listing.faults, *listing.warnings, *listing.notes])


# ---- a table whose rows are folders


def of_patients(folder):
    return files(folder, *(f"P{p:02d}/{i}.png" for p in range(6) for i in range(3)))


@pytest.mark.parametrize("head", ["patient,diagnosis", "file,label", "folder,class", "Case ID,Label"])
def test_a_table_with_a_row_for_each_folder_gives_its_images_their_labels(tmp_path, head):
    table(of_patients(tmp_path), f"{head},age", [f"p{p},{CLASSES[p % 2]},{p}" for p in range(6)], "patients.csv")
    listing = list_folder(tmp_path)
    assert not listing.faults and listing.labels == [CLASSES[int(name[2]) % 2] for name in listing.files] and len(listing.files) == 18
    assert len(set(listing.patients)) == 6 and "a row for each folder of its column" in listing.levels[0]


def test_a_row_for_a_folder_that_is_not_there_is_named(tmp_path):
    table(of_patients(tmp_path), "patient,diagnosis", [f"P{p:02d},{CLASSES[p % 2]}" for p in range(7)], "patients.csv")
    assert "1 are not: P06" in words(list_folder(tmp_path))


def test_a_table_of_classes_folders_makes_no_patients_of_them(tmp_path):
    table(files(tmp_path, *named()), "file,label", ["normal,healthy", "tumour,ill"])
    listing = list_folder(tmp_path)
    assert not listing.faults and set(listing.labels) == {"healthy", "ill"} and listing.patients is None


def test_a_table_of_folders_without_labels_is_named(tmp_path):
    table(files(tmp_path, *named("{c}/{p}/{i}.png")), "patient,age", [f"P{p:02d},{p}" for p in range(4)], "who.csv")
    assert "who.csv names folders in its column patient and is not read" in words(list_folder(tmp_path))


# ---- spaces between cells, no head


def test_a_table_with_spaces_between_its_cells_is_read(tmp_path):
    table(files(tmp_path, *named()), "file label", [f"{name} of_{name[0]}" for name in named()], "labels.txt")
    assert set(list_folder(tmp_path).labels) == {"of_n", "of_t"}


@pytest.mark.parametrize("mark", [" ", ","])
def test_a_table_without_a_head_is_refused_with_what_to_write_above_it(tmp_path, mark):
    table(files(tmp_path, *named()), "", [f"{name}{mark}x" for name in named()], "labels.txt")
    assert "labels.txt looks like a table of the images and its first line names none of its columns" in words(list_folder(tmp_path))


def test_a_text_with_the_words_file_and_label_is_no_table(tmp_path):
    table(files(tmp_path, *named()), "each file has one label", ["made by me", "in May"], "README.txt")
    assert not list_folder(tmp_path).faults


# ---- what folders say beside a table


def test_patients_and_parts_that_folders_name_are_kept_beside_a_table_without_them(tmp_path):
    images = named("{s}/{c}/{p}/{i}.png")
    listing = list_folder(table(files(tmp_path, *images), "file,label", [f"{name},{name.split('/')[1]}" for name in images]))
    assert not listing.faults and set(listing.patients) == {"P00", "P01", "P02", "P03"}
    assert sorted({(part, name.split("/")[0]) for part, name in zip(listing.parts, listing.files, strict=True)}) == [
        (part, part) for part in ("test", "train", "val")
    ]


def test_folders_that_may_be_patients_beside_a_table_are_named(tmp_path):
    images = named(classes=("Kiel", "Ulm", "Bonn"))
    listing = list_folder(table(files(tmp_path, *images), "file,label", [f"{name},{len(name) % 2 + int(name[-5]) % 2}" for name in images]))
    assert "the images lie in folders called Bonn, Kiel, Ulm" in words(listing) and listing.patients is None


def test_folders_that_are_the_classes_in_other_words_say_nothing_else(tmp_path):
    listing = list_folder(table(files(tmp_path, *named()), "file,label", [f"{name},{int(name[0] == 't')}" for name in named()]))
    assert not listing.faults and not listing.warnings


# ---- a split


@pytest.mark.parametrize("column", ["set", "subset", "fold", "whatever"])
@pytest.mark.parametrize("blank", [True, False])
def test_a_column_of_parts_is_the_split_and_its_blanks_are_named(tmp_path, column, blank):
    parts = ("train", "val", "test", "" if blank else "train")
    listing = list_folder(
        table(files(tmp_path, *named()), f"file,label,{column}", [f"{n},{n[0]},{parts[int(n[-5]) % 4]}" for n in named()])
    )
    assert ("4 are not: normal/3.png (empty)" in words(listing)) == blank and listing.parts is not None


def test_a_column_of_folds_is_refused_and_of_sets_that_are_no_parts_warned_of(tmp_path):
    table(files(tmp_path, *named()), "file,label,fold,set", [f"{name},{name[0]},{int(name[-5]) % 4},{name[-5]}" for name in named()])
    listing = list_folder(tmp_path)
    assert any("its column fold holds 0, 1, 2, 3: a study has one split and no folds" in fault for fault in listing.faults)
    assert any("its column set holds" in warning and "is not taken as the split" in warning for warning in listing.warnings)


# ---- names of folders that say something else than a class


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (("2024-03-01", "2024-03-02"), "as days are"),
        (("20240301", "20240415"), "as days are"),
        (("1.3.2024", "02.03.2024"), "as days are"),
        (("2024-03-01_normal", "2024-03-02_tumour"), "day and class in one name"),
        (("patient1_normal", "patient2_tumor"), "patient and class in one name"),
        (("normal P01", "tumor P02"), "patient and class in one name"),
        (("AML1", "AML2", "CTRL1", "CTRL2"), "perhaps patients of each class"),
        (("normal_batch1", "normal_batch2", "tumour_batch1", "tumour_batch2"), "perhaps patients of each class"),
        (("H12-10457", "H13-2254"), "as a pathologist's cases are"),
        (("2019", "2020", "2021"), "as years are"),
        (("seg", "band"), "seg may hold masks of the images beside it, or a class"),
    ],
)
def test_folders_that_say_something_else_are_refused_and_a_layout_decides(tmp_path, classes, says):
    listing = list_folder(files(tmp_path / "a set", *named(classes=classes)))
    assert len(listing.faults) == 1 and says in listing.faults[0]
    assert "--layout class --fix '" in listing.faults[0] and "a set' --layout" in listing.faults[0]  # a path with a space is quoted
    assert set(list_folder(tmp_path / "a set", layout="class").labels) == set(classes)


@pytest.mark.parametrize(
    "classes",
    [
        ("class1_a", "class2_b"),
        ("grade 1", "grade 2"),
        ("1", "2"),
        ("1000", "2000"),
        ("t1_n0", "t2_n1"),
        ("CIN1", "CIN2", "CIN3", "normal"),
        ("1p", "1q", "2p", "2q"),
        ("A1", "A2", "B4", "B5"),
        ("B1", "B2", "AB"),
        ("grade 1", "grade 2", "stage 1"),
    ],
)
def test_folders_that_are_classes_stay_so(tmp_path, classes):
    assert not list_folder(files(tmp_path, *named(classes=classes))).faults


def test_days_beside_classes_are_said_to_be_taken_as_patients(tmp_path):
    listing = list_folder(files(tmp_path, *(f"{c}/2024-03-0{i}/{i}.png" for c in CLASSES for i in range(1, 5))))
    assert not listing.faults and "folders are called as days are and taken as the patients" in words(listing)


@pytest.mark.parametrize("classes", [("-1", "0", "1"), ("CD4-", "CD4", "CD4+"), ("A-", "A", "B")])
def test_a_sign_tells_two_classes_apart(tmp_path, classes):
    listing = list_folder(files(tmp_path, *named(classes=classes)))
    assert set(listing.labels) == set(classes) and not listing.warnings


# ---- a written manifest


@pytest.mark.parametrize(
    "names", [(" a", "b ", "c"), ("None", "b"), ("unknown", "nan", "b"), ("a\\x", "b"), ("a:b", "c"), ("a,b", 'c"d'), ("-1", "1")]
)
def test_a_written_manifest_names_the_same_files_and_labels_whatever_they_are_called(tmp_path, names):
    files(tmp_path, *named(classes=names, n=3), f"{names[0]}/ first.png", f"{names[0]}/back\\slash.png", f"{names[1]}/last .png")
    first = list_folder(tmp_path)
    assert not first.faults
    (tmp_path / "manifest.csv").write_text(manifest_of(Findings("", listing=first)))
    again = list_folder(tmp_path)
    assert not again.faults and again.layout == "manifest.csv"
    assert sorted(zip(again.files, again.labels, strict=True)) == sorted(zip(first.files, first.labels, strict=True))


# ---- what a study says first


def test_a_studys_first_lines_say_what_class_patient_and_part_are_even_of_a_plain_folder(tmp_path):
    files(tmp_path, *named())
    assert said_first(list_folder(tmp_path)) == [
        "taken as class: the first folder (2: normal, tumour); patient: not named; part: not named"
    ]
    table(tmp_path, "file,label,patient", [f"{name},{name[0]},{name[-5]}" for name in named()])
    assert said_first(list_folder(tmp_path)) == [
        "taken as class: the column label of manifest.csv (2); patient: its column patient; part: not named"
    ]


@pytest.mark.parametrize("head", ["slide_id", "Slide", "specimen", "block id", "Metaphasen-Nr.", "karyogram", "sample_no"])
def test_a_slide_stays_on_one_side_where_a_table_names_no_patients(tmp_path, head):
    """And that patients are not known is said."""
    rows = [(name, name[0], f"S{i % 12 // 3 + 1}{name[0]}") for i, name in enumerate(named(classes="ab", n=12))]
    files(tmp_path, *(name for name, _, _ in rows))

    def listed(rows, *more):
        return list_folder(table(tmp_path, ",".join(("file", "label", head, *more)), [",".join(row) for row in rows]))

    found = listed(rows)
    slides = {frozenset(("a/3.png", "a/4.png")), frozenset(("b/10.png", "b/11.png"))}
    assert found.patients is None and slides <= {frozenset((found.files[i], found.files[j])) for i, j in found.series}
    assert len(found.series) == 16 and any(f"its column {head} 8 kinds: each stays on one side" in line for line in found.warnings)
    assert listed([(*row, f"p{i}") for i, row in enumerate(rows)], "patient").series == [], "where patients are named, they decide"
    scarce = listed([(file, label, f"S{len(file) % 2}") for file, label, _ in rows])
    assert not scarce.series and any("fewer than 3 in a, b" in line for line in scarce.warnings)
    kinds = listed([(file, label, ("tumour", "normal", "blood")[i % 3]) for i, (file, label, _) in enumerate(rows)])
    assert not kinds.series and any("has no column patient" in note for note in kinds.notes)
    given = listed([(*row, ("train", "test")[i % 12 % 2]) for i, row in enumerate(rows)], "split")
    assert not given.series and any("its split parts 8 of these (S1a, " in line for line in given.warnings)
