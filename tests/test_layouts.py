"""Folders as laboratories have them: each is read rightly, or refused or warned of with a sentence that names the thing."""

import codecs
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.data_commands import check
from trainables.data.check import inspect_folder
from trainables.data.find import list_folder
from trainables.data.listing import Listing, settled
from trainables.data.words import KARYOTYPE, as_karyotype, class_order, part_of, same, shown
from trainables.parts.errors import RequestError

CLASSES = ("instance", "overlapping", "touching")


def picture(i, side=40):
    """uint8 (side, side): a bent band of its own on black."""
    rng = np.random.default_rng(i)
    gray = np.zeros((side, side), np.uint8)
    y, x = rng.integers(5, 12, 2)
    gray[y : y + rng.integers(8, 22), x : x + rng.integers(8, 22)] = 120
    gray[gray > 0] += rng.integers(0, 120, int((gray > 0).sum())).astype(np.uint8)
    return gray


def put(path, i, image=None, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(i) if image is None else image).save(path, **how)


def plain(folder, classes=CLASSES, n=8, below="{c}/{i}.png", patients=4):
    """`n` images of each class; `below`: where each lies, of class c, number i, patient p, part s."""
    for k, c in enumerate(classes):
        for i in range(n):
            part = ("train", "train", "val", "test")[i % patients % 4]
            put(folder / below.format(c=c, i=i, p=f"P{i % patients:02d}", s=part, S=part.upper()), 100 * k + i)
    return folder


def table(folder, text, name="manifest.csv", encoding="utf-8"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return folder


def rows(head="file,label,patient", classes=CLASSES, n=8, row="{c}/{i}.png,{c},p{p}"):
    return "\n".join([head, *(row.format(c=c, i=i, p=i % 4) for c in classes for i in range(n))]) + "\n"


def words(found):
    return "\n".join([*found.faults, *found.warnings, *found.notes, *found.leaks])


def counted(found, patients=None, classes=CLASSES, n=8):
    assert found.ok, words(found)
    assert found.counts == dict.fromkeys(classes, n)
    assert found.patients == patients


# ---- what the levels of folders are


@pytest.mark.parametrize("below", ["{s}/{c}/{i}.png", "{S}/{c}/{i}.png", "{c}/{s}/{i}.png", "{s}_set/{c}/{p}/{i}.png"])
def test_parts_of_a_split_are_the_split_and_no_classes(tmp_path, below):
    found = inspect_folder(plain(tmp_path, below=below))
    counted(found, 4 if "{p}" in below else None)
    assert found.given_parts == {"train": 12, "val": 6, "test": 6} and any(line.startswith("part: ") for line in found.levels)


@pytest.mark.parametrize("below", ["{c}/{p}/{i}.png", "{p}/{c}/{i}.png", "{c}/{p}/images/{i}.png"])
def test_patients_are_told_from_classes_by_their_names(tmp_path, below):
    counted(inspect_folder(plain(tmp_path, below=below)), 4)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["train/0.png", "train/1.png", "test/0.png", "test/1.png"], "parts of a split and not classes"),
        (["train/a/0.png", "test/a/0.png", "extra/a/0.png"], "look like parts of a split and not like classes, beside extra"),
        ([f"fold{f}/{c}/{i}.png" for f in range(1, 6) for c in "ab" for i in (0, 1)], "look like folds of a cross-validation"),
        (["red/x/0.png", "red/y/1.png", "blue/x/0.png", "blue/y/1.png"], "which folders are the classes cannot be told"),
        (["a/0.png", "a/1.png", "b/0.png", "b/deep/1.png"], "equally many folders"),
        (["set/a/0.png", "set/b/1.png"], "holds one folder, set"),
        (["a/0.png", "a/1.png"], "at least two classes"),
        (["masks/a.png", "images/b.png"], "folders of masks have no image of their name"),
    ],
)
def test_what_cannot_be_told_is_refused_with_what_to_do(tmp_path, files, says):
    for k, name in enumerate(files):
        put(tmp_path / name, k)
    found = inspect_folder(tmp_path)
    assert not found.ok and says in words(found), words(found)


def test_a_layout_in_words_decides_and_can_be_written_down(tmp_path):
    folder = plain(tmp_path / "data", classes=("red", "blue"), below="{i}x/{c}/{p}.png", n=4)
    for k, name in enumerate(("one", "two", "three")):
        for i in range(4):
            put(folder / name / f"w{i}" / "0.png", 900 + 10 * k + i)
    assert (
        check(folder, out=lambda _: None, layout="class/patient", fix=tmp_path / "m.csv") == 2
    )  # one image in some classes: said, and written down
    assert (tmp_path / "m.csv").read_text().splitlines()[0] == "file,label,patient"
    assert "--layout names each level" in words(inspect_folder(folder, layout="class/kind"))
    with pytest.raises(RequestError, match="is there already"):
        check(folder, out=lambda _: None, layout="class/patient", fix=tmp_path / "m.csv")


def test_a_written_manifest_reads_as_the_folder_did(tmp_path):
    folder = plain(tmp_path, below="{c}/{p}/{i}.png")
    lines = []
    assert check(folder, out=lines.append, fix=folder / "manifest.csv", html=tmp_path.parent / f"{tmp_path.name}.html") == 0
    counted(inspect_folder(folder), 4)
    page = (tmp_path.parent / f"{tmp_path.name}.html").read_text()
    assert page.count("<img ") >= 2 * 6 * 3 and "patient P01" in page and "Sizes by class" in page
    assert "patient is" in lines[0]


def test_a_split_that_comes_with_the_data_is_the_studys(tmp_path):
    from trainables.data.read import read_folder
    from trainables.data.split import given_split

    pack = read_folder(plain(tmp_path, below="{s}/{c}/{i}.png"), 40, 40)
    parts = given_split(pack, (0.6, 0.1, 0.3))
    assert {name: {pack.files[i].split("/")[0] for i in chosen} for name, chosen in parts.items()} == {
        n: {n} for n in ("train", "val", "test")
    }
    put(tmp_path / "test" / "instance" / "again.png", 0)
    with pytest.raises(RequestError, match="equal images must stand on one side"):
        read_folder(tmp_path, 40, 40)


def test_without_a_part_for_validation_it_is_drawn_from_train(tmp_path):
    from trainables.data.read import read_folder
    from trainables.data.split import given_split

    for k, c in enumerate("ab"):
        for i in range(24):
            put(tmp_path / ("train" if i < 18 else "test") / c / f"{i}.png", 100 * k + i)
    pack = read_folder(tmp_path, 40, 40)
    parts = given_split(pack, (0.6, 0.1, 0.3))
    assert {name: len(chosen) for name, chosen in parts.items()} == {"train": 30, "val": 6, "test": 12}
    assert all(pack.parts[i] == "train" for i in parts["val"])


# ---- what lies beside images


def test_folders_and_files_of_systems_are_passed_over(tmp_path):
    folder = plain(tmp_path)
    for name in ("lost+found", "$RECYCLE.BIN", "System Volume Information", "instance/@eaDir", "__MACOSX", ".thumbnails"):
        put(folder / name / "x.png", 1)
    for name in ("Thumbs.db", "instance/._0.png", "touching/desktop.ini"):
        (folder / name).write_bytes(b"x")
    counted(inspect_folder(folder))


@pytest.mark.parametrize("name", ["instance/0_mask.png", "instance/0_thumb.png", "masks/0.png", "instance/masks/0.png"])
def test_masks_and_thumbnails_of_images_are_passed_over_and_that_is_said(tmp_path, name):
    put(plain(tmp_path) / name, 500)
    found = inspect_folder(tmp_path)
    counted(found)
    assert "taken as masks, overlays or thumbnails of others and passed over" in words(found)


@pytest.mark.parametrize("suffix", [".webp", ".svs", ".npy", ".zip", ".zvi"])
def test_images_of_a_kind_that_is_not_read_are_a_fault(tmp_path, suffix):
    (plain(tmp_path) / "instance" / f"more{suffix}").write_bytes(b"x")
    found = inspect_folder(tmp_path)
    assert not found.ok and f"of a kind that is not read ({suffix}): instance/more{suffix}" in words(found)


@pytest.mark.parametrize("name", [".{}.icloud", "{}.crdownload", "{}.part", "{} - Shortcut.lnk"])
def test_what_stands_for_an_image_that_is_not_here_is_a_fault(tmp_path, name):
    image = plain(tmp_path) / "instance" / "0.png"
    image.unlink()
    (image.parent / name.format(image.name)).write_bytes(b"x")
    found = "".join(list_folder(tmp_path).faults)
    assert "1 are unfinished downloads, stand-ins of a cloud or shortcuts: instance/" + name.format("0.png") in found


def test_an_empty_class_folder_is_named(tmp_path):
    (plain(tmp_path) / "empty").mkdir()
    assert "class folders have none: empty" in words(inspect_folder(tmp_path))


def test_links_to_folders_are_followed_and_loops_are_not(tmp_path):
    plain(tmp_path / "real")
    (tmp_path / "data").mkdir()
    for name in CLASSES:
        (tmp_path / "data" / name).symlink_to(tmp_path / "real" / name)
    counted(inspect_folder(tmp_path / "data"))
    (tmp_path / "real" / "touching" / "up").symlink_to(tmp_path / "data")
    found = inspect_folder(tmp_path / "data")
    counted(found)
    assert "links to folders that are read already, passed over: touching/up" in words(found)


def test_links_that_lead_nowhere_are_named(tmp_path):
    (plain(tmp_path) / "instance" / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "more").symlink_to(tmp_path / "nothing either")
    found = inspect_folder(tmp_path)
    assert not found.ok and "2 lead nowhere: instance/gone.png, more" in words(found)


def test_a_folder_that_cannot_be_entered_is_named(tmp_path):
    folder = plain(tmp_path)
    (folder / "touching").chmod(0)
    code = (
        "import os, sys\n"
        "from trainables.data.find import list_folder\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print('\\n'.join(list_folder(sys.argv[1]).faults))\n"
    )
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and len(path.parts) > 2:
            path.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    (folder / "touching").chmod(0o755)
    assert "1 cannot be entered: touching (Permission denied)" in done.stdout, done.stderr


# ---- tables


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Manifest.csv", rows()),
        ("MANIFEST.CSV", rows("File,Label,Patient")),
        ("labels.csv", rows("FILE,LABEL,PATIENT")),
        ("manifest.csv", rows("file;label;patient", row="{c}/{i}.png;{c};p{p}")),
        ("manifest.tsv", rows("file\tlabel\tpatient", row="{c}/{i}.png\t{c}\tp{p}")),
        ("manifest.csv", "sep=;\n" + rows("file;label;patient", row="{c}/{i}.png;{c};p{p}")),
        ("manifest.csv", codecs.BOM_UTF8 + rows().encode()),
        ("manifest.csv", rows().encode("utf-16")),
        ("manifest.csv", rows().replace("\n", "\r\n")),
        ("manifest.csv", rows("file,label,patient,,", row="{c}/{i}.png,{c},p{p},,")),
        ("manifest.csv", rows(row='"{c}/{i}.png","{c}","p{p}"')),
        ("manifest.csv", rows("file,label,patient,remark", row='{c}/{i}.png,{c},p{p},"pale, bent"')),
        ("manifest.csv", rows(row="{c}\\{i}.PNG,{c},p{p}")),
        ("manifest.csv", rows(row="{c}/{i}.png,{c},P-0{p}")),
        ("manifest.csv", rows("file,label,case_id")),
        ("manifest.csv", rows("file,label,PatientID")),
        ("manifest.csv", rows(",file,label,subject", row="0,{c}/{i}.png,{c},p{p}")),
        ("manifest.csv", rows(row="{c}/{i},{c},p{p}")),
        ("manifest.csv", rows(row="{i}.png,{c},p{p}")),
        ("manifest.csv", rows(row="{c}/{i}.jpg,{c},p{p}")),
        ("manifest.csv", rows(row="/home/me/set/{c}/{i}.png,{c},p{p}")),
        ("manifest.csv", rows(row="C:\\data\\{c}\\{i}.png,{c},p{p}")),
        ("manifest.csv", rows(row="set/{c}/{i}.png,{c},p{p}")),
    ],
)
def test_a_table_of_any_dialect_is_read(tmp_path, name, text):
    counted(inspect_folder(table(plain(tmp_path), text, name)), 4)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("manifest.xlsx", b"PK\x03\x04", "cannot be read as a spreadsheet"),
        ("images.xlsx", b"PK\x03\x04", "cannot be read as a spreadsheet"),
        ("Befunde.csv", rows("Bild;Klasse;Fall", row="{c}/{i}.png;{c};p{p}"), "looks like a table of the images"),
        ("fiches.txt", rows("nom\tespece", row="{i}\t{c}"), "looks like a table of the images"),
        ("manifest.csv", rows().encode("utf-16-le"), "UTF-16"),
        ("manifest.csv", rows(row="{c}/{i}.png,{c},M\xfcller").encode("latin-1"), "UTF-8"),
        ("labels.csv", rows("filename,class,patient"), "looks like a table of the images and has no columns file and label"),
        ("manifest.csv", rows(row="../data/x{i}.png,{c},p{p}"), "named relative to the folder"),
        ("manifest.csv", rows(row="C:\\other\\{i}.png,all,p{p}"), "named relative to the folder"),
        ("train.txt", rows("instance/0.png", row="{c}/{i}.png"), "looks like a table of the images"),
        ("onehot.csv", rows("image,MEL,NV", row="{c}/{i}.png,1.0,0.0").replace("0.png,1.0,0.0", "0.png,0.0,1.0"), "looks like a table"),
        (
            "onehot.csv",
            rows("image,MEL,NV", row="{c}/{i}.png,1,0").replace("0.png,1,0", "0.png,0,1"),
            "MEL, NV hold 1 for a class and 0 for the others: write the class's word into one column label",
        ),
        ("manifest.csv", rows() + "Total: 24,,\n", "1 name neither: Total: 24; a sum or a remark? remove it"),
        ("manifest.csv", rows() + "Summe,24,\n", "1 name neither: Summe; a sum or a remark? remove it"),
        ("manifest.csv", rows(row="{c}/{i}.png,patient {p},p{p}"), "its labels are called patient 0, patient 1, patient 2"),
        (
            "manifest.csv",
            rows(row="{i},{c}ed,p{p}"),
            "8 fit several: 0 (instance/0.png, overlapping/0.png and 1 more)",
        ),
        ("sizes.csv", rows("file,width,Fall", row="{c}/{i}.png,40,{p}"), "looks like a table of the images"),
        ("manifest.csv", rows().replace("instance/0.png,instance", "instance/0.png,nan"), "every file needs a label, 1 have none"),
    ],
)
def test_a_table_that_cannot_be_read_stops_the_command(tmp_path, name, text, says):
    found = inspect_folder(table(plain(tmp_path), text, name))
    assert not found.ok and says in words(found), words(found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("predictions.csv", rows("file,prediction,instance,touching", row="{c}/{i}.png,{c},0.9,0.1")),
        ("sizes.csv", rows("file,width,height", row="{c}/{i}.png,40,40")),
        ("Results.csv", " ,Label,Area,Mean\n" + "".join(f"{i + 1},{i % 8}.png,200,33.5\n" for i in range(24))),
        ("filelist.txt", rows("instance/0.png", row="{c}/{i}.png")),
        ("Image.csv", rows("FileName_DNA,PathName_DNA,Metadata_Well,Count_Nuclei", row="{c}/{i}.png,/x,B0{i},{i}")),
        ("clinical.csv", rows("file,age,sex", row="{c}/{i}.png,5{i},m")),
        ("measurements.tsv", rows("Image\tObject ID\tClass\tParent", row="{c}/{i}.png\tu{i}{c}\t{c}\tRoot")),
        ("sha256sums.txt", rows("ab" * 32 + "  ./instance/0.png", row="ab" * 32 + "  ./{c}/{i}.png")),
    ],
)
def test_a_table_that_says_nothing_of_classes_and_patients_is_passed_over_and_that_is_said(tmp_path, name, text):
    found = inspect_folder(table(plain(tmp_path), text, name))
    counted(found)
    assert f"{name} names " in words(found) and "and is not read" in words(found)
    for path in tmp_path.glob("*/*.png"):
        path.rename(tmp_path / f"{path.parent.name}_{path.name}")
    assert not inspect_folder(tmp_path).ok, "no folder says the classes"


def test_numbers_in_a_text_are_no_names_of_images(tmp_path):
    for k, c in enumerate(CLASSES):
        for i in range(8):
            put(tmp_path / c / f"{8 * k + i}.png", 8 * k + i)
    table(tmp_path, "Version 2\n", "README.txt")
    assert not list_folder(table(tmp_path, "0 instance\n1 overlapping\n2 touching\n", "classes.txt")).faults


def test_a_table_for_each_part_is_the_split(tmp_path):
    parts = {"train": range(5), "val": (5,), "test_labels": (6, 7)}
    for name, some in parts.items():
        table(plain(tmp_path), "\n".join(["file,label", *(f"{c}/{i}.png,{c}" for c in CLASSES for i in some)]), f"{name}.csv")
    found = inspect_folder(tmp_path)
    counted(found)
    assert found.given_parts == {"train": 15, "val": 3, "test": 6} and "part: the names of the tables" in found.levels
    (tmp_path / "splits").mkdir()
    for name in parts:
        (tmp_path / f"{name}.csv").rename(tmp_path / "splits" / f"{name}.csv")
    assert "called as parts of a split" in "".join(inspect_folder(tmp_path).faults)


def test_a_table_of_folders_and_their_patients_names_the_patients(tmp_path):
    folder = plain(tmp_path, below="{c}/{p}/{i}.png")
    found = inspect_folder(table(folder, "folder,patient\n" + "".join(f"P{i:02d},Q{i // 2}\n" for i in range(4)), "who.csv"))
    assert (set(found.listing.patients), found.patients) == ({"Q0", "Q1"}, 2)
    assert "patient: the column patient of who.csv, by folder" in found.levels


def test_a_column_of_parts_is_the_split_whatever_it_is_called(tmp_path):
    parts = ("train", "val", "test", "train")
    lines = ["file,label,patient,set", *(f"{c}/{i}.png,{c},p{i % 4},{parts[i % 4]}" for c in CLASSES for i in range(8))]
    found = inspect_folder(table(plain(tmp_path), "\n".join(lines)))
    assert found.given_parts == {"train": 12, "val": 6, "test": 6} and "part: its column set" in found.levels


def test_two_columns_that_may_be_the_patients_or_the_split_are_named(tmp_path):
    lines = [
        "file,label,case,donor,set,subset",
        *(f"{c}/{i}.png,{c},a{i % 4},b{i % 3},{'train' if i else 'test'},{'train' if i else 'val'}" for c in CLASSES for i in range(8)),
    ]
    said = words(inspect_folder(table(plain(tmp_path), "\n".join(lines))))
    assert "one column may name the patients, case, donor seem to" in said and "one column may hold the split, set, subset do" in said


def test_folders_of_patients_alone_are_no_classes(tmp_path):
    found = inspect_folder(plain(tmp_path, ("Patient 01", "Patient 02", "Patient 03")))
    assert not found.ok and "as patients are, and nothing else says what the classes are" in words(found)
    assert inspect_folder(tmp_path, layout="class").ok


@pytest.mark.parametrize("name", ["labels.json", "metadata.jsonl", "notes.xml"])
def test_a_list_of_another_kind_that_names_images_is_named(tmp_path, name):
    text = "\n".join(f'<i name="{c}/{i}.png" patient="{i}"/>' for c in CLASSES for i in range(8))
    assert f"{name} names images and is not read" in words(inspect_folder(table(plain(tmp_path), text, name)))
    assert "is not read" not in words(inspect_folder(table(tmp_path, "made by me", name)))


@pytest.mark.parametrize("names", [("original", "augmented"), ("images", "labels"), ("Images", "masks"), ("raw", "cropped")])
def test_folders_of_what_was_done_to_images_are_no_classes(tmp_path, names):
    for name in names:
        for i in range(8):
            put(tmp_path / name / f"{i}.png", i)
    found = inspect_folder(tmp_path)
    assert not found.ok and "which are no classes of objects" in words(found)


def test_a_pointer_in_place_of_an_image_is_called_so(tmp_path):
    plain(tmp_path)
    (tmp_path / "instance" / "0.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12\n")
    assert "instance/0.png (a pointer of Git LFS; git lfs pull brings the image)" in words(inspect_folder(tmp_path))


def test_classes_that_are_called_as_patients_are_warned_of(tmp_path):
    assert "classes are called P01, P02, as patients or cells are" in words(inspect_folder(plain(tmp_path / "p", ("P01", "P02"))))
    assert "as patients" not in words(inspect_folder(plain(tmp_path / "n", ("0", "1", "2"))))
    assert "as patients" not in words(inspect_folder(plain(tmp_path / "c", ("class 1", "class 2"))))


def test_an_image_without_an_ending_is_named(tmp_path):
    plain(tmp_path)
    os.rename(tmp_path / "instance" / "3.png", tmp_path / "instance" / "IMG3")
    (tmp_path / "instance" / "IM4").write_bytes(bytes(128) + b"DICM" + bytes(9))
    found = inspect_folder(tmp_path)
    assert not found.ok and "2 files of a kind that is not read (no ending): instance/IM4, instance/IMG3" in words(found)


def test_a_folder_that_is_one_image_is_named_once(tmp_path):
    plain(tmp_path)
    for chunk in ("0.0", "0.1", "labels/1.0"):
        (tmp_path / "touching" / "b.zarr" / chunk).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "touching" / "b.zarr" / chunk).write_bytes(b"x")
    found = inspect_folder(tmp_path)
    assert "1 file of a kind that is not read (.zarr): touching/b.zarr;" in words(found) and "skipped" not in words(found)


@pytest.mark.parametrize(("white", "frame"), [(True, 1), (True, 12), (False, 1), (False, 12)])
def test_a_frame_or_a_padding_of_another_ground_is_cut_away(tmp_path, white, frame):
    for k, c in enumerate(CLASSES):
        for i in range(6):
            gray = np.pad(picture(100 * k + i), 4)
            put(tmp_path / "plain" / c / f"{i}.png", 0, 255 - gray if white else gray)
            put(tmp_path / "framed" / c / f"{i}.png", 0, np.pad(255 - gray if white else gray, frame, constant_values=0 if white else 255))
    own, found = inspect_folder(tmp_path / "plain"), inspect_folder(tmp_path / "framed")
    assert found.ok and "18 images in a frame or on a padding of another ground" in words(found)
    assert (own.white, found.white) == ((18, 18) if white else (0, 0)) and own.near == found.near == []
    assert [s[2] for sizes in own.class_sizes.values() for s in sizes[2:]] == [
        s[2] for sizes in found.class_sizes.values() for s in sizes[2:]
    ]


def test_files_of_unlike_exposures_and_an_overview_among_crops_are_warned_of(tmp_path):
    for k, c in enumerate(CLASSES):
        for i in range(6):
            put(tmp_path / c / f"{i}.tif", 0, picture(100 * k + i).astype(np.uint16) * (1 + 60 * k))
    put(tmp_path / "touching" / "overview.png", 0, picture(5, side=600))
    found = inspect_folder(tmp_path)
    assert any("though their highest values differ" in line for line in found.warnings)
    assert any("1 image more than 50 times as large as the middle one: touching/overview.png" in line for line in found.warnings)


def test_a_set_that_is_saved_twice_is_warned_of(tmp_path):
    plain(tmp_path)
    for path in list(tmp_path.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".jpg"), quality=95)
    assert "24 images of 48 are copies of others" in words(inspect_folder(tmp_path))


def xlsx(**sheets):
    """The bytes of a workbook: {name: rows of words and numbers}."""
    stream, names = io.BytesIO(), list(sheets)
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    main, package = "http://schemas.openxmlformats.org/spreadsheetml/2006/main", "http://schemas.openxmlformats.org/package/2006"

    def cell(value):
        return f"<c><v>{value}</v></c>" if isinstance(value, int | float) else f'<c t="inlineStr"><is><t>{value}</t></is></c>'

    def relations(kinds):
        of = "".join(f'<Relationship Id="r{i}" Type="{office}/{kind}" Target="{to}"/>' for i, (kind, to) in enumerate(kinds))
        return f'<Relationships xmlns="{package}/relationships">{of}</Relationships>'

    with zipfile.ZipFile(stream, "w") as book:
        book.writestr("[Content_Types].xml", f'<Types xmlns="{package}/content-types"/>')
        book.writestr("_rels/.rels", relations([("officeDocument", "xl/workbook.xml")]))
        listed = "".join(f'<sheet name="{name}" sheetId="{i + 1}" r:id="r{i}"/>' for i, name in enumerate(names))
        book.writestr("xl/workbook.xml", f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>{listed}</sheets></workbook>')
        book.writestr("xl/_rels/workbook.xml.rels", relations([("worksheet", f"worksheets/{i}.xml") for i in range(len(names))]))
        for i, name in enumerate(names):
            lines = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in sheets[name])
            book.writestr(f"xl/worksheets/{i}.xml", f'<worksheet xmlns="{main}"><sheetData>{lines}</sheetData></worksheet>')
    return stream.getvalue()


SHEET = [["File", "Label", "Patient"], *([f"{c}/{i}.png", c, i % 4 + 1] for c in CLASSES for i in range(8))]


@pytest.mark.parametrize(
    ("name", "sheets"),
    [
        ("manifest.xlsx", {"Sheet1": SHEET}),
        ("images.xlsx", {"Readme": [["made by", "me"]], "data": SHEET}),
        ("manifest.csv", {"Sheet1": SHEET}),
        ("Manifest.XLSX", {"t": [["Study of 2024"], ["", ""], *SHEET]}),
    ],
)
def test_a_spreadsheet_is_a_table_too_whatever_its_ending(tmp_path, name, sheets):
    found = inspect_folder(table(plain(tmp_path), xlsx(**sheets), name))
    counted(found, 4)
    assert set(found.listing.patients) == {"1", "2", "3", "4"}


def test_a_head_of_two_lines_is_read_where_cells_are_merged_over_them(tmp_path):
    two = [
        ["file", "Befund", "", "patient"],
        ["", "label", "remark", ""],
        *([f"{c}/{i}.png", c, "x", i % 4] for c in CLASSES for i in range(8)),
    ]
    counted(inspect_folder(table(plain(tmp_path), xlsx(Tabelle1=two), "Liste.xlsx")), 4)


def test_a_title_above_a_tables_head_is_passed_over(tmp_path):
    counted(inspect_folder(table(plain(tmp_path), "Export of 3 May\n\n" + rows(), "images.csv")), 4)


def test_of_two_sheets_that_name_files_none_is_chosen(tmp_path):
    found = inspect_folder(table(plain(tmp_path), xlsx(a=SHEET, b=SHEET), "manifest.xlsx"))
    assert "2 sheets with file and label, a, b" in words(found) and not found.ok


@pytest.mark.parametrize("column", ["patient", "split"])
def test_patients_or_parts_on_a_sheet_of_their_own_are_refused(tmp_path, column):
    labels = [row[:2] for row in SHEET]
    book = xlsx(labels=labels, more=[["file", column], *([row[0], "train"] for row in SHEET[1:])], sizes=[["file", "px"], [SHEET[1][0], 4]])
    found = list_folder(table(plain(tmp_path), book, "labels.xlsx"))
    assert f"has a sheet more that names the files again, with their {column}" in "".join(found.faults)


@pytest.mark.parametrize(("head", "more"), [("file,patient", "patient"), ("name;Case ID", "patient"), ("file,split", "split")])
def test_patients_or_parts_in_a_table_beside_the_manifest_are_refused(tmp_path, head, more):
    table(plain(tmp_path), rows("file,label", row="{c}/{i}.png,{c}"))
    table(tmp_path, rows(head, row="{c}/{i}.png" + (";" if ";" in head else ",") + "train"), "more.csv")
    assert list_folder(tmp_path).faults == [
        f"more.csv holds the {more} of images and manifest.csv does not, which alone is read; write them into a column of manifest.csv, "
        "or move more.csv out of the data"
    ]
    table(tmp_path, rows("file,label,patient,split", row="{c}/{i}.png,{c},p{p},train"))
    assert not list_folder(tmp_path).faults


@pytest.mark.parametrize("name", ["labels.csv", "manifest.csv"])
def test_patients_of_folders_are_taken_beside_a_table_of_labels(tmp_path, name):
    table(plain(tmp_path, below="S{i}/{c}.png"), rows("file,label", row="S{i}/{c}.png,{c}"), name)
    found = list_folder(table(tmp_path, "slide,patient\n" + "".join(f"S{i},Q{i // 2}\n" for i in range(8)), "slides.csv"))
    assert not found.faults and set(found.patients) == {"Q0", "Q1", "Q2", "Q3"}


@pytest.mark.parametrize("cell", ["NA", "#REF!"])
def test_a_column_of_no_patients_is_warned_of(tmp_path, cell):
    found = list_folder(table(plain(tmp_path), rows(row="{c}/{i}.png,{c}," + cell)))
    assert found.patients is None and not any("patient" in line for line in found.levels)
    assert f"column patient names no patient in any line ({cell})" in found.warnings[0]


@pytest.mark.parametrize("column", ["exclude", "use", "QC", "consensus", "label2", "Rater 2"])
def test_columns_that_are_not_read_are_named_and_those_that_would_change_the_score_warned_of(tmp_path, column):
    found = list_folder(table(plain(tmp_path), rows(f"file,label,patient,age,{column}", row="{c}/{i}.png,{c},p{p},50,1")))
    assert f"manifest.csv: columns that are not read: age, {column}" in found.notes
    assert f"its column {column} may leave images out or give other labels" in found.warnings[0]


def test_a_table_of_images_below_the_root_is_named(tmp_path):
    table(plain(tmp_path), rows("name,who", row="{i}.png,p{p}"), "instance/who.csv")
    assert "read at the root alone, instance/who.csv is not read" in words(inspect_folder(tmp_path))


def test_links_that_were_copied_as_text_are_named(tmp_path):
    folder = tmp_path / "set"
    plain(folder, CLASSES[:2])
    (folder / "touching").write_text("../real/touching")
    found = inspect_folder(folder)
    assert "1 were copied as text: touching (to ../real/touching)" in words(found) and not found.ok
    (folder / "touching").unlink()
    (folder / "instance" / "x.png").write_text("../../real/x.png")
    assert "instance/x.png (a link that was copied as text, to ../../real/x.png)" in words(inspect_folder(folder))


def test_a_folder_of_whole_tiles_names_the_command_that_cuts_them(tmp_path):
    consep, fold, drawn = tmp_path / "c", tmp_path / "p", tmp_path / "q"
    put(consep / "Train" / "Images" / "train_1.png", 1)
    table(consep, "", "Train/Images/x.txt")
    (consep / "Train" / "Labels").mkdir()
    table(consep, "", "Train/Labels/train_1.mat")
    for place in (fold / "fold1" / "images", fold / "fold1" / "masks"):
        place.mkdir(parents=True)
        np.save(place / f"{place.name}.npy", np.zeros(3))
    put(drawn / "tiles" / "a.png", 1)
    table(drawn, "{}", "tiles/a.geojson")
    for folder, kind in ((consep, "consep"), (fold, "pannuke"), (drawn, "qupath")):
        assert f"python -m search data prepare {kind} {folder} OUT" in words(inspect_folder(folder))


def test_two_tables_are_not_chosen_between(tmp_path):
    folder = table(table(plain(tmp_path), rows(), "a.csv"), rows(), "b.csv")
    assert "one table may name the images, there are 2: a.csv, b.csv" in words(inspect_folder(folder))
    assert "a.csv, b.csv is not read: manifest.csv names the images" in words(inspect_folder(table(folder, rows())))


@pytest.mark.parametrize("word", ["nan", "NA", "unknown", "-", "None", "N/A", "n.a.", "k. A.", ""])
def test_words_for_nothing_known_are_no_patient(tmp_path, word):
    text = (
        rows()
        .replace("instance/0.png,instance,p0", f"instance/0.png,instance,{word}")
        .replace("touching/0.png,touching,p0", f"touching/0.png,touching,{word}")
    )
    found = inspect_folder(table(plain(tmp_path), text))
    counted(found, 6)
    assert "2 images without a patient: each counts as a patient of its own" in words(found)


def test_minus_beside_plus_is_a_class(tmp_path):
    text = "file,label\n" + "".join(f"{c}/{i}.png,{'-' if c == 'touching' else '++'}\n" for c in CLASSES for i in range(8))
    assert inspect_folder(table(plain(tmp_path), text)).counts == {"++": 16, "-": 8}


def test_a_label_in_several_spellings_is_one_class_and_that_is_said(tmp_path):
    text = (
        rows().replace("touching/0.png,touching", "touching/0.png,Touching").replace("touching/1.png,touching", "touching/1.png,TOUCHING ")
    )
    found = inspect_folder(table(plain(tmp_path), text))
    counted(found, 4)
    assert "in more than one spelling" in words(found) and "TOUCHING, Touching = touching" in words(found)


def test_marks_that_nobody_sees_make_no_class(tmp_path):
    text = rows().replace("touching/0.png,touching", "touching/0.png,touching\u200b")
    assert set(list_folder(table(plain(tmp_path), text)).labels) == set(CLASSES)


@pytest.mark.parametrize("ends", [("a", "b"), (".1", ".2"), (" L", " R")])
def test_two_homologues_are_one_chromosome_and_two_names_of_a_few_are_not(ends):
    named = [f"{chromosome}{end}" for chromosome in KARYOTYPE for end in ends]
    found = settled(Listing([], [name for name in named for _ in (0, 1)]))
    assert class_order(found.labels) == [*KARYOTYPE] and "taken as chromosomes" in found.notes[0]
    assert not as_karyotype(named[:6]), "grades 1a, 1b, 2a ..."


@pytest.mark.parametrize("spelt", ["{:02d}", "chr{}", "CHR {}", "{}.0", "Chromosome_{:02d}"])
def test_chromosomes_in_any_spelling_are_the_karyotypes(tmp_path, spelt):
    folder = plain(tmp_path, classes=[spelt.format(i) for i in range(1, 21)], n=2)
    found = inspect_folder(folder)
    assert list(found.counts) == [str(i) for i in range(1, 21)]
    assert "4 are missing: 21, 22, X, Y" in words(found)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Müller", "mu\u0308ller"),
        ("p 01", "P_1"),
        ("7.0", "07"),
        ("chrX", "x"),
        ("touching  overlapping", "Touching-Overlapping"),
        ("CIN 1", "cin1"),
        ("P-01", "P01"),
        ("HER2 +", "HER2+"),
        ("46, XX", "46,XX"),
        ("Burkitt\u2019s", "Burkitt's"),
        ("non\u2013tumour", "non-tumour"),
        ("normal\u200b", "normal"),
        ("\u200etumour", "tumour"),
        ("CD4 \u2212", "CD4-"),
    ],
)
def test_two_spellings_are_the_same_name(one, other):
    assert same(one) == same(other)


@pytest.mark.parametrize(
    ("one", "other"), [("1", "10"), ("p1", "p11"), ("1.05", "1.5"), ("a", "b"), ("10", "1.0"), ("100", "1"), ("CD4-", "CD4"), ("1 2", "12")]
)
def test_two_names_are_not_the_same(one, other):
    assert same(one) != same(other)


def test_parts_have_many_names_and_other_words_are_none():
    assert [part_of(name) for name in ("Training", "01_TRAIN", "validation set", "Test", "valid")] == [
        "train",
        "train",
        "val",
        "test",
        "val",
    ]
    assert not any(part_of(name) for name in ("instance", "testis", "trained", "contest", "train test"))
    others = {
        "train": ("Trainingsdaten", "entraînement", "apprentissage", "Entrenamiento", "训练集", "学習データ"),
        "val": ("Validierung", "Validierungsdaten", "validación", "验证集", "検証"),
        "test": ("Testdaten", "essai", "évaluation", "prueba", "测试集", "тест"),
    }
    assert all(part_of(name) == part for part, names in others.items() for name in names)


# ---- names


def test_names_of_any_bytes_are_read_and_printed_in_any_locale(tmp_path):
    plain(tmp_path)
    os.rename(tmp_path / "instance" / "0.png", os.fsencode(tmp_path / "instance") + b"/P\xfc 0.png")
    os.rename(os.fsencode(tmp_path / "touching"), os.fsencode(tmp_path) + b"/t\xe9")
    (tmp_path / "overlapping" / "0.png").rename(tmp_path / "overlapping" / "line\nbreak ü.png")
    for locale in ("C", "C.UTF-8"):
        done = subprocess.run(
            [sys.executable, "-m", "search", "data", "check", str(tmp_path)],
            env=os.environ | {"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, capture_output=True, cwd=Path(__file__).parent.parent, check=False,
        )  # fmt: skip
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
        assert b"24 images, 3 classes" in done.stdout and b"t\\xe9" in done.stdout
        assert b"of bytes that are no UTF-8" in done.stdout and b"P\\xfc 0.png" in done.stdout
    assert shown("a\udcfcb") == "a\\xfcb" and shown("a\nb") == "a\\nb"


# ---- what a hostile reader found: two readings fit, and one was taken


def crossed(folder, first, second, n=2):
    """n images of each name of the second level in each of the first."""
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            for k in range(n):
                put(folder / a / b / f"{k}.png", 100 * i + 10 * j + k)
    return folder


@pytest.mark.parametrize(("first", "second"), [
    (("M0", "M1", "M2"), ("donorA", "donorB", "donorC")),  # macrophages
    (("Bonn", "Kiel", "Ulm"), ("pT1", "pT2", "pT3")),  # a tumour's stage
    (("CD4", "CD8", "CD19"), ("1", "2", "3", "4")),
    (("1", "2", "3", "4"), ("CD4", "CD8", "CD19")),
    (("Set1", "Set2", "Set3"), ("1", "2")),
    (("normal", "tumour"), ("40", "100", "400")),  # magnifications
    (("0", "1"), ("1", "2", "3", "4", "5")),
])  # fmt: skip
def test_two_levels_of_which_neither_says_what_it_is_are_refused_with_both_readings(tmp_path, first, second):
    found = inspect_folder(crossed(tmp_path, first, second))
    assert len(found.faults) == 1 and "which folders are the classes cannot be told" in found.faults[0], words(found)
    assert "--layout class/patient" in found.faults[0] and "--layout patient/class" in found.faults[0]


def test_parts_and_classes_in_one_name_are_refused(tmp_path):
    found = inspect_folder(plain(tmp_path, ("train_normal", "train_tumour", "test_normal", "test_tumour")))
    assert len(found.faults) == 1 and "part (test, train) and class in one name" in found.faults[0]


def test_train_beside_eval_are_parts(tmp_path):
    found = inspect_folder(plain(tmp_path, ("train", "eval")))
    assert len(found.faults) == 1 and "these are parts of a split and not classes" in found.faults[0]


def test_folders_whose_names_begin_with_two_underscores_are_the_user_s(tmp_path):
    found = inspect_folder(plain(tmp_path, ("__normal", "__tumour", "other")))
    assert set(found.counts) == {"__normal", "__tumour", "other"}


def test_two_manifests_are_refused_whatever_their_endings(tmp_path):
    folder = table(table(plain(tmp_path), rows()), rows().replace(",", "\t"), "manifest.tsv")
    assert any("one table may name the images, there are 2" in fault for fault in inspect_folder(folder).faults)


def test_a_layout_beside_a_manifest_is_refused(tmp_path):
    found = inspect_folder(table(plain(tmp_path), rows()), layout="class")
    assert any("leave --layout out" in fault for fault in found.faults)


def test_the_separator_is_the_one_by_which_the_head_names_files_and_labels(tmp_path):
    text = "\n".join(
        ["file;label;patient;size, width, height, all, in, pixels", *(f"{c}/{i}.png;{c};p{i % 4};40" for c in CLASSES for i in range(8))]
    )
    counted(inspect_folder(table(plain(tmp_path), text)), patients=4)
