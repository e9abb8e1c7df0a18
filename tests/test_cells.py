"""Cells cut out of hand-made downloads, with every fault that a download can have; drawn cells."""

import os
import shutil
import signal

import numpy as np
import pytest
import references
import scipy.io
from PIL import Image

from trainables.data.cells import read_any, read_cells
from trainables.data.crops import Cell, crop, dark_part, window
from trainables.data.downloads import DOWNLOADS, find_tiles, patient_of
from trainables.data.labels import CONSEP_CLASSES, NUCLS_CLASSES
from trainables.data.pack import load_pack
from trainables.data.prepare import PREPARE
from trainables.data.split import split
from trainables.data.synthetic_cells import SHARES, cell_set
from trainables.parts.errors import RequestError

HEIGHT, WIDTH = 120, 100


def picture(height=HEIGHT, width=WIDTH, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mask_of(*boxes, height=HEIGHT, width=WIDTH):
    """An instance map: cell i + 1 fills boxes[i] = (top, left, bottom, right)."""
    mask = np.zeros((height, width))
    for number, (top, left, bottom, right) in enumerate(boxes, 1):
        mask[top:bottom, left:right] = number
    return mask


BOXES = ((40, 40, 50, 46), (0, 0, 6, 8), (100, 80, 118, 99), (60, 10, 68, 18))


def consep(folder, tiles, boxes=BOXES):
    """A download: {name: types}."""
    (folder / "Images").mkdir(parents=True)
    (folder / "Labels").mkdir()
    for seed, (name, types) in enumerate(tiles.items()):
        Image.fromarray(picture(seed=seed)).save(folder / "Images" / f"{name}.png")
        save_mat(folder, name, inst_map=mask_of(*boxes), inst_type=np.array(types, float)[:, None])
    return folder


def save_mat(folder, name, **arrays):
    scipy.io.savemat(folder / "Labels" / f"{name}.mat", arrays)


HEAD = ",raw_classification,main_classification,super_classification,type,xmin,ymin,xmax,ymax"
NUCLS_TILE = "TCGA-A1-A0SP-DX1_id-5ea4_left-7053_top-53807"


def nucls(folder, tiles):
    """A download: {name: lines below the head}."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "csv").mkdir()
    for seed, (name, lines) in enumerate(tiles.items()):
        Image.fromarray(picture(seed=seed)).save(folder / "rgb" / f"{name}.png")
        (folder / "csv" / f"{name}.csv").write_text("\n".join([HEAD, *lines]) + "\n")
    return folder


def line(raw, box=(10, 20, 30, 36), main="", upper=""):
    return f"0,{raw},{main},{upper},rectangle,{','.join(map(str, box))}"


def prepare(name, source, tmp_path, capsys):
    """(exit status, pack or None, lines of stdout, lines of stderr)"""
    out = tmp_path / "packed"
    status = PREPARE[name](source, out)
    said = capsys.readouterr()
    return status, load_pack(out) if out.exists() else None, said.out.splitlines(), said.err.splitlines()


# ------------------------------------------------------------------------------------------------------ windows


@pytest.mark.parametrize(("name", "factor"), [("consep", 2), ("nucls", 1)])
def test_the_window_is_a_square_of_the_cells_longer_side_twice_in_consep_once_in_nucls(name, factor):
    assert DOWNLOADS[name].factor == factor
    cell = Cell("1", 1, top=40, left=60, bottom=50, right=64, area=40.0)
    top, left, side = window(cell, DOWNLOADS[name].factor)
    assert side == 10 * factor and (top + side / 2, left + side / 2) == (45, 62)


@pytest.mark.parametrize(("top", "left"), [(30, 40), (-5, 40), (30, -31), (100, 80), (-10, 90), (110, -20)])
def test_a_window_of_32_pixels_is_the_image_itself_reflected_where_it_leaves_the_tile(top, left):
    image = picture()
    wanted = np.array(
        [[image[references.reflected(top + i, HEIGHT), references.reflected(left + j, WIDTH)] for j in range(32)] for i in range(32)]
    )
    assert np.array_equal(crop(image, top, left, 32), wanted)
    padded = np.pad(image, ((64, 64), (64, 64), (0, 0)), mode="reflect")
    assert np.array_equal(wanted, padded[64 + top : 96 + top, 64 + left : 96 + left])


def test_a_window_larger_than_the_tile_is_reflected_again_and_again():
    image = picture(7, 5)
    padded = np.pad(image, ((100, 100), (100, 100), (0, 0)), mode="reflect")
    assert np.array_equal(crop(image, -12, -13, 32), padded[88:120, 87:119])
    assert (crop(picture(1, 1), -3, -3, 32) == picture(1, 1)[0, 0]).all()


def test_a_large_window_is_averaged_and_a_small_one_interpolated():
    checks = np.zeros((64, 64, 3), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 255
    assert np.abs(crop(checks, 0, 0, 64)[2:-2, 2:-2].astype(int) - 128).max() <= 1
    half = np.zeros((8, 8, 3), np.uint8)
    half[:, 4:] = 240
    enlarged = crop(half, 0, 0, 8).astype(int)
    assert enlarged.shape == (32, 32, 3) and (np.diff(enlarged, axis=1) >= 0).all() and enlarged[0, 0, 0] == 0 and enlarged[0, -1, 0] == 240


# ------------------------------------------------------------------------------------------------------ CoNSeP


def test_a_download_becomes_a_packed_set_of_crops_with_types_tiles_and_areas(tmp_path, capsys):
    source = consep(tmp_path / "CoNSeP" / "Train", {"train_1": (1, 2, 3, 4), "train_2": (4, 4, 3, 3)}).parent
    status, pack, out, err = prepare("consep", source, tmp_path, capsys)
    assert (status, err) == (0, []) and pack.classes == CONSEP_CLASSES and pack.images.shape == (8, 32, 32, 3)
    assert [pack.classes[label] for label in pack.labels[:4]] == ["miscellaneous", "inflammatory", "epithelial", "spindle"]
    assert pack.files[:2] == ("Train/train_1.png#1", "Train/train_1.png#2") and set(pack.patients) == {"Train/train_1", "Train/train_2"}
    assert pack.areas[:4].tolist() == [[400, 60], [256, 48], [38**2, 18 * 19], [256, 64]]
    assert [mask.shape for mask in pack.masks.each(range(4))] == [(b - t, r - le) for t, le, b, r in BOXES]
    assert all(mask.all() for mask in pack.masks.each(range(8)))
    for i, (top, left, bottom, right) in enumerate(BOXES):
        cell = Cell("", 0, top, left, bottom, right, 0.0)
        assert np.array_equal(pack.images[i], crop(picture(seed=0), *window(cell, 2)))
    assert any("8   published: 24,319" in text for text in out) and any("2   published: 41" in text for text in out)
    assert any("patient" in note for note in pack.notes)


def test_the_crop_of_a_cell_at_the_border_is_reflected(tmp_path, capsys):
    _, pack, _, _ = prepare(
        "consep", consep(tmp_path / "data", {"a": (1, 2, 3, 4)}, ((0, 0, 16, 16), *BOXES[2:], BOXES[0])), tmp_path, capsys
    )
    tile = picture(seed=0)
    assert np.array_equal(pack.images[0][8:24, 8:24], tile[:16, :16])  # window of 32: the cell lies in its middle, not scaled
    assert np.array_equal(pack.images[0][:8], pack.images[0][16:8:-1]) and np.array_equal(pack.images[0][:, :8], pack.images[0][:, 16:8:-1])


def test_seven_types_become_four_once_and_merged_files_stay_as_they_are(tmp_path, capsys):
    seven = consep(tmp_path / "seven", {"a": (1, 2, 3, 4), "b": (5, 6, 7, 3)})
    status, pack, out, _ = prepare("consep", seven, tmp_path / "1", capsys)
    assert status == 0 and pack.labels.tolist() == [0, 1, 2, 2, 3, 3, 3, 2] and "the seven published types, merged to four" in out[0]
    five = consep(tmp_path / "five", {"a": (1, 2, 3, 4), "b": (5, 5, 3, 3)})  # CoNSeP's or PanNuke's: a guess would be wrong in silence
    status, pack, _, err = prepare("consep", five, tmp_path / "5", capsys)
    assert status == 0 and "where they are PanNuke's say consep5" in err[0]
    assert prepare("consep5", five, tmp_path / "55", capsys)[1].labels.tolist() == [2, 1, 3, 0, 2, 2, 3, 3]
    four = consep(tmp_path / "four", {"a": (1, 2, 3, 4), "b": (4, 4, 3, 3)})
    status, pack, out, _ = prepare("consep", four, tmp_path / "2", capsys)
    assert status == 0 and pack.labels.tolist() == [0, 1, 2, 3, 3, 3, 2, 2] and "four types, merged already" in out[0]


def test_the_whole_set_decides_how_a_tile_is_read_and_a_word_decides_otherwise(tmp_path, capsys):
    source = consep(tmp_path / "data", {"a": (3, 4, 3, 4)})
    assert prepare("consep", source, tmp_path / "1", capsys)[1].labels.tolist() == [2, 3, 2, 3]
    assert prepare("consep7", source, tmp_path / "2", capsys)[1].labels.tolist() == [2, 2, 2, 2]
    source = consep(tmp_path / "more", {"a": (3, 4, 3, 4), "b": (7, 1, 2, 3)})
    pack = prepare("consep", source, tmp_path / "3", capsys)[1]
    assert pack.labels.tolist()[:4] == [2, 2, 2, 2] and "1 cell in b, of 2 tiles" in pack.notes[-1]
    status, pack, _, err = prepare("consep4", source, tmp_path / "4", capsys)
    assert status == 1 and pack.labels.tolist() == [2, 3, 2, 3, 0, 1, 2] and err == ["b: cell 1: type must be 1 to 4, got 7"]


@pytest.mark.parametrize("given", ["inst_type by row", "inst_type by number", "type_map alone"])
def test_types_are_found_however_the_file_gives_them(tmp_path, capsys, given):
    source = consep(tmp_path / "data", {"a": (1, 2, 3, 4)})
    mask = mask_of(*BOXES)
    mask[mask == 2] = 9  # numbers with gaps: 1, 3, 4, 9
    types = {1: 1, 3: 3, 4: 4, 9: 2}
    arrays = {
        "inst_type by row": {"inst_type": np.array([1.0, 3, 4, 2])},
        "inst_type by number": {"inst_type": np.array([1.0, 2, 3, 4, 1, 1, 1, 1, 2])},
        "type_map alone": {"type_map": np.vectorize(lambda number: types.get(int(number), 0))(mask).astype(float)},
    }[given]
    save_mat(source, "a", inst_map=mask, **arrays)
    status, pack, _, err = prepare("consep", source, tmp_path, capsys)
    assert {file.split("#")[1]: int(label) + 1 for file, label in zip(pack.files, pack.labels, strict=True)} == {
        str(k): v for k, v in types.items()
    }
    assert status == (1 if given == "inst_type by number" else 0)
    assert err == [f"a: cell {n}: no pixel of inst_map belongs to it" for n in (2, 5, 6, 7, 8)] * (given == "inst_type by number")


def broken_files(folder):
    """Tiles b ... of a download, each with another fault; what is said of each."""
    labels = folder / "Labels"
    (labels / "b.mat").unlink()
    (labels / "c.mat").write_bytes(b"")
    (labels / "d.mat").write_bytes(b"not a mat file" * 30)
    whole = (labels / "e.mat").read_bytes()
    (labels / "e.mat").write_bytes(whole[: len(whole) // 2])
    (labels / "f.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    save_mat(folder, "g", inst_map=mask_of(*BOXES, height=HEIGHT + 1), inst_type=np.ones(4))
    save_mat(folder, "h", inst_map={"a": 1}, inst_type=np.ones(4))
    save_mat(folder, "i", inst_type=np.ones(4))
    save_mat(folder, "j", inst_map=mask_of(*BOXES))
    save_mat(folder, "k", inst_map=mask_of(*BOXES), inst_type=np.ones(3))
    save_mat(folder, "l", inst_map=mask_of(*BOXES) + 0.5, inst_type=np.ones(4))
    save_mat(folder, "m", inst_map=mask_of(*BOXES), inst_type=np.array([1, 0, 9, 1.5]))
    (folder / "Images" / "n.png").write_bytes(b"no image")
    (folder / "Images" / "o.png").unlink()
    save_mat(folder, "p", inst_map=mask_of(*BOXES), type_map=np.ones((3, 3)))
    return {
        "b": "no label file Labels/*.mat of this name", "c": "not a readable .mat file", "d": "not a readable .mat file",
        "e": "not a readable .mat file", "f": "MATLAB 7.3", "g": "inst_map must have the tile's 120 x 100 pixels, it has 121 x 100",
        "h": "inst_map must hold numbers", "i": "inst_map is missing", "j": "inst_type and type_map are missing",
        "k": "inst_type must have a row for each cell, it has 3 for 4", "l": "inst_map must hold 0 and the numbers of cells",
        "m": "cell 2: type must be 1 to 7, got 0", "n": "the image cannot be read (not an image)", "o": "no image of this name in Images",
        "p": "type_map must have inst_map's size",
    }  # fmt: skip


def test_every_fault_is_told_by_file_and_cell_and_the_rest_goes_on(tmp_path, capsys):
    source = consep(tmp_path / "data", {name: (1, 2, 3, 4) for name in "abcdefghijklmnopq"})
    wanted = broken_files(source)
    status, pack, out, err = prepare("consep", source, tmp_path, capsys)
    assert status == 1 and {text.split(":")[0] for text in err} == set(wanted)
    for name, words in wanted.items():
        assert any(text.startswith(f"{name}: ") and words in text for text in err), (name, err)
    assert [text for text in err if text.startswith("m:")][1:] == [
        "m: cell 3: type must be 1 to 7, got 9",
        "m: cell 4: type must be 1 to 7, got 1.5",
    ]
    assert [file for file in pack.files if file[0] in "aq"] == [f"{name}.png#{number}" for name in "aq" for number in range(1, 5)]
    assert len(pack) == 9 and out[-1].endswith("packed, 17 faults; use it with --data")


@pytest.mark.parametrize("of", ["1 for all", "types for all"])
def test_label_files_that_number_no_cells_are_refused(tmp_path, capsys, of):
    source = consep(tmp_path / "data", {"a": (1, 2, 1, 2), "b": (1, 2, 1, 2)})
    for name in "ab":
        mask = mask_of(*BOXES)
        save_mat(source, name, inst_map=np.where(mask > 0, 1 if of == "1 for all" else 1 + mask % 2, 0), inst_type=np.array([1, 2, 1, 2]))
    status, pack, _, err = prepare("consep", source, tmp_path, capsys)
    assert status == 2 and pack is None and err[0].startswith("a mask must give each cell a number of its own")


@pytest.mark.slow
def test_no_damage_to_a_label_file_is_a_traceback(tmp_path, capsys):
    source = consep(tmp_path / "data", {"a": (1, 2, 3, 4)})
    path = source / "Labels" / "a.mat"
    whole, chance = path.read_bytes(), np.random.default_rng(0)
    for number in range(60):
        damaged = bytearray(whole[: chance.integers(len(whole))] if number % 2 else whole)
        for place in chance.integers(0, len(damaged), 6) if damaged else ():
            damaged[place] = chance.integers(256)
        path.write_bytes(bytes(damaged))
        assert PREPARE["consep"](source, tmp_path / f"{number}") in (0, 1, 2)
    capsys.readouterr()


@pytest.mark.parametrize("kind", [ZeroDivisionError, UnboundLocalError])  # what SciPy raises for one flipped byte of a tag
def test_whatever_scipy_raises_is_a_fault_of_its_file(tmp_path, capsys, monkeypatch, kind):
    source = consep(tmp_path / "data", {"a": (1, 2, 3, 4), "b": (1, 2, 3, 4)})
    whole = scipy.io.loadmat

    def tripping(path, **more):
        if path.stem == "a":
            raise kind("damaged")
        return whole(path, **more)

    monkeypatch.setattr(scipy.io, "loadmat", tripping)
    status, pack, _, err = prepare("consep", source, tmp_path, capsys)
    assert status == 1 and len(pack) == 4 and err == ["a: not a readable .mat file (damaged)"]


def test_where_nothing_can_be_packed_nothing_is_written(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    status, pack, _, err = prepare("consep", tmp_path / "empty", tmp_path, capsys)
    assert status == 2 and pack is None and "no folder Images with Labels beside it" in err[0]
    source = consep(tmp_path / "data", {"a": (9, 9, 9, 9)})
    status, pack, _, err = prepare("consep", source, tmp_path, capsys)
    assert status == 2 and pack is None and err[-1] == "no cell could be packed; 4 faults above"


def test_an_empty_folder_may_stand_where_the_packed_set_goes(tmp_path, capsys):
    (tmp_path / "packed").mkdir()
    assert prepare("consep", consep(tmp_path / "data", {"a": (1, 2, 3, 4)}), tmp_path, capsys)[0] == 0


# ------------------------------------------------------------------------------------------------------ NuCLS


def test_nucls_types_are_grouped_to_five_and_cells_without_a_type_left_out(tmp_path, capsys):
    groups = {
        "tumor": ("tumor", "mitotic_figure", "correction_tumor"),
        "stromal": ("fibroblast", "vascular_endothelium", "macrophage", "correction_macrophage"),
        "sTILs": ("lymphocyte", "plasma_cell"),
        "apoptotic": ("apoptotic_body", "correction_apoptotic_body"),
        "other": ("myoepithelium", "neutrophil", "ductal_epithelium", "eosinophil"),
    }
    words = [(name, word) for name, some in groups.items() for word in some]
    lines = [line(word) for _, word in words] + [line("unlabeled", main="AMBIGUOUS", upper="AMBIGUOUS"), line("correction_unlabeled")]
    status, pack, out, err = prepare("nucls", nucls(tmp_path / "data", {NUCLS_TILE: lines}), tmp_path, capsys)
    assert (status, err) == (0, []) and pack.classes == NUCLS_CLASSES == tuple(groups)
    assert [pack.classes[label] for label in pack.labels] == [name for name, _ in words]
    assert set(pack.patients) == {"TCGA-A1-A0SP"} and "note: 2 cells without a type (unlabeled, ambiguous) left out" in out
    assert np.array_equal(pack.images[0], crop(picture(seed=0), 18, 10, 20)) and pack.areas[0].tolist() == [400, 320]
    assert np.array_equal(next(pack.masks.each(np.array([0]))), dark_part(picture(seed=0)[20:36, 10:30]))  # a box has no outline of its own
    assert any("published: 51,986" in text for text in out)


@pytest.mark.parametrize(("main", "upper", "kind"), [("tumor_mitotic", "", "tumor"), ("nonTILnonMQ_stromal", "", "stromal"), ("", "sTIL", "sTILs"), ("other_nucleus", "x", "other"), ("", "nonTIL_stromal", "stromal")])  # fmt: skip
def test_without_a_raw_type_the_main_or_super_classification_decides(tmp_path, capsys, main, upper, kind):
    _, pack, _, _ = prepare("nucls", nucls(tmp_path / "data", {"t": [line("", main=main, upper=upper)]}), tmp_path, capsys)
    assert pack.classes[pack.labels[0]] == kind and pack.patients == ("t",)


def test_faults_of_nucls_tables_are_told_by_file_and_cell(tmp_path, capsys):
    lines = [
        line("tumor"), line("tumour"), line("", main="strange"), line("tumor", (10, 20, 10, 30)), line("tumor", (30, 20, 10, 36)), line("tumor", ("x", 1, 2, 3)),
        line("tumor", (100, 20, 130, 40)), line("tumor", (-30, 20, 0, 40)), line("tumor", ("nan", 20, 30, 40)), line("tumor", (-4, -4, 20, 20)), line("tumor")[:-6],
    ]  # fmt: skip
    source = nucls(tmp_path / "data", {"a": lines, "b": [line("tumor")], "c": [], "d": [line("tumor")], "e": [line("tumor")]})
    (source / "csv" / "b.csv").unlink()
    (source / "csv" / "d.csv").write_text("type,xmin\nx,3\n")
    (source / "csv" / "e.csv").write_bytes(b"\xff\xfe\x00bad")
    status, pack, out, err = prepare("nucls", source, tmp_path, capsys)
    assert status == 1 and pack.files == ("a.png#1", "a.png#10") and "note: 1 box that reached beyond the tile cut at its border" in out
    told = {" ".join(part for part in text.split(": ")[:2] if part in "abcde" or part.startswith("cell")): text for text in err}
    assert set(told) == {
        "a cell 2",
        "a cell 3",
        "a cell 4",
        "a cell 5",
        "a cell 6",
        "a cell 7",
        "a cell 8",
        "a cell 9",
        "a cell 11",
        "b",
        "c",
        "d",
        "e",
    }
    for key, words in {
        "a cell 2": "unknown type 'tumour'", "a cell 3": "unknown type 'strange'", "a cell 4": "size above 0", "a cell 5": "size above 0",
        "a cell 6": "four numbers", "a cell 7": "outside of the tile (100 x 120)", "a cell 8": "outside of the tile", "a cell 9": "size above 0",
        "b": "no label file csv/*.csv", "c": "no cell", "d": "columns missing: ymin, xmax, ymax, raw_classification", "e": "not a readable table",
    }.items():  # fmt: skip
        assert words in told[key]
    assert np.array_equal(pack.images[1], crop(picture(seed=0), 0, 0, 20))


def test_the_patient_is_the_participant_in_a_tcga_name():
    assert patient_of("fold/TCGA-A1-A0SP-DX1_id-5ea4") == "TCGA-A1-A0SP" and patient_of("tile_7") == "tile_7"
    for name in ("S 12 [d=4,x=0,y=512,w=256,h=256]", "S 12_x512_y0", "S 12 [x=1,y=2].ome"):
        assert patient_of(f"a/{name}") == "a/S 12"


def test_tiles_are_found_in_every_part_of_a_download_in_the_order_of_their_numbers(tmp_path):
    for part in ("Train", "Test"):
        consep(tmp_path / "CoNSeP" / part, {f"t_{number}": (1, 2, 3, 4) for number in (10, 9, 1)})
    names = [name for name, _, _ in find_tiles(tmp_path, DOWNLOADS["consep"])]
    assert names == [f"CoNSeP/{part}/t_{number}" for part in ("Test", "Train") for number in (1, 9, 10)]


def test_a_part_whose_labels_are_missing_as_a_whole_is_told_tile_by_tile(tmp_path, capsys):
    for part in ("Train", "Test"):
        consep(tmp_path / "data" / part, {"a": (1, 2, 3, 4)})
    shutil.rmtree(tmp_path / "data" / "Test" / "Labels")
    status, pack, _, err = prepare("consep", tmp_path / "data", tmp_path, capsys)
    assert status == 1 and len(pack) == 4 and err == ["Test/a: no label file Labels/*.mat of this name"]
    assert find_tiles(tmp_path / "data" / "Test", DOWNLOADS["consep"]) == []


# ------------------------------------------------------------------------------------------------------ sets and files


def test_a_packed_set_is_read_as_it_is_and_a_raw_download_names_the_command(tmp_path, capsys):
    source = consep(tmp_path / "data", {"a": (1, 2, 3, 4)})
    with pytest.raises(RequestError, match="python -m search data prepare consep"):
        read_cells(source)
    pack = prepare("consep", source, tmp_path, capsys)[1]
    assert read_cells(tmp_path / "packed").hash == pack.hash == read_cells(tmp_path / "packed", CONSEP_CLASSES).hash
    turned = read_cells(tmp_path / "packed", (*CONSEP_CLASSES[::-1], "fifth"))
    assert turned.labels.tolist() == [3, 2, 1, 0] and "no cell of type fifth" in turned.notes
    with pytest.raises(RequestError, match="has others: spindle"):
        read_cells(tmp_path / "packed", CONSEP_CLASSES[:3])
    with pytest.raises(RequestError, match="prepare nucls"):
        read_cells(nucls(tmp_path / "other", {"t": [line("tumor")]}))


def test_a_folder_per_type_of_crops_is_read_in_colour(tmp_path):
    for number in range(4):
        path = tmp_path / "crops" / ("a", "b")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(32, 32, number)).save(path)
    pack = read_cells(tmp_path / "crops")
    assert pack.classes == ("a", "b") and np.array_equal(pack.images[1], picture(32, 32, 2)) and pack.areas[0].tolist() == [1024, 1024]
    assert read_cells(tmp_path / "crops", ("b", "a", "c")).notes[1] == "no cell of type c"
    (tmp_path / "crops" / "b" / "1.png").write_bytes(b"")
    with pytest.raises(RequestError) as caught:
        read_cells(tmp_path / "crops", ("b",))
    assert len(caught.value.faults) == 2 and "unknown: a" in caught.value.faults[0] and "b/1.png" in caught.value.faults[1]
    with pytest.raises(RequestError, match="there is none"):
        read_cells(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["{i}_rot25", "other{i}"])
def test_copies_of_crops_stand_on_one_side_of_the_split_of_a_study(tmp_path, name, monkeypatch):
    for i, image in enumerate(cell_set(60, seed=3).images[:24]):
        folder = tmp_path / "crops" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(image)
        picture.save(folder / f"{i}.png")
        picture.rotate(25, resample=Image.Resampling.BILINEAR).save(folder / f"{name.format(i=i)}.png")  # its corners become black
        picture.transpose(Image.Transpose.ROTATE_90).save(folder / f"{i}_aug2.png")
    opened, really = [], Image.open
    monkeypatch.setattr(Image, "open", lambda stream: opened.append(stream.name) or really(stream))
    pack = read_cells(tmp_path / "crops")
    assert len(opened) == len(set(opened)) == 72, "each file is decoded once"
    side = {pack.files[i]: part for part, some in split(pack).items() for i in some}
    ends = ("{i}", "{i}_aug2", name)
    assert all(len({side[f"{'ab'[i % 2]}/{end.format(i=i)}.png"] for end in ends}) == 1 for i in range(24))
    assert not read_cells(tmp_path / "crops", pack.classes).ties, "of images that are only asked about nothing is split"


def test_a_crop_that_is_not_square_is_reflected_not_stretched(tmp_path):
    tall = picture(32, 20)
    (tmp_path / "set" / "a").mkdir(parents=True)
    for name in ("1", "2"):
        Image.fromarray(tall).save(tmp_path / "set" / "a" / f"{name}.png")
    image = read_any([tmp_path / "set" / "a" / "1.png"])[0][0]
    assert np.array_equal(image, np.pad(tall, ((0, 0), (6, 6), (0, 0)), mode="reflect"))


def test_a_tile_with_its_label_file_gives_a_row_for_each_cell_and_any_other_image_one(tmp_path):
    source = consep(tmp_path / "data", {"a": (1, 2, 3, 4)})
    boxes = nucls(tmp_path / "more", {"t": [line("tumor"), line("unlabeled"), line("macrophage", (2, 4, 6, 10))]})
    Image.fromarray(picture(32, 32)).save(tmp_path / "one.png")
    paths = [source / "Images" / "a.png", tmp_path / "one.png", boxes / "rgb" / "t.png"]
    images, columns, _, faults = read_any(paths)
    assert faults == [] and images.shape == (8, 32, 32, 3) and all(len(column) == 8 for column in columns.values())
    assert columns["file"] == [str(paths[0])] * 4 + [str(paths[1])] + [str(paths[2])] * 3
    assert (
        columns["cell"] == ["1", "2", "3", "4", "", "1", "2", "3"] and columns["x"][:2] == [43.0, 4.0] and columns["y"][:2] == [45.0, 3.0]
    )
    assert (columns["x"][4], columns["y"][4]) == ("", "") and (columns["x"][7], columns["y"][7]) == (4.0, 7.0)
    assert np.array_equal(images[4], picture(32, 32))
    (source / "Labels" / "a.mat").write_bytes(b"")
    assert len(read_any(paths[:1])[3]) == 1
    (source / "Labels" / "a.mat").unlink()
    images, columns, _, faults = read_any(paths[:1])
    assert len(images) == 0 and columns["file"] == [] and "no label file Labels/*.mat" in faults[0]


def test_what_is_done_to_tiles_and_crops_is_counted_and_a_whole_tile_is_not_taken_for_a_cell_in_silence(tmp_path, capsys):
    source = consep(tmp_path / "data", {"a": (1, 2, 3, 4)})
    shutil.move(source / "Images", source / "IMAGES")
    tile = source / "IMAGES" / "a.png"
    Image.fromarray(np.rot90(picture()).copy()).save(tile, exif=orientation(6))
    _, columns, notes, faults = read_any([tile])
    assert len(columns["cell"]) == 4 and faults == [] and notes == ["1 image turned upright, as the file says (EXIF orientation)"]
    status, pack, out, _ = prepare("consep", source, tmp_path, capsys)
    assert status == 0 and any("1 image turned upright" in line for line in out)
    assert np.array_equal(pack.images[0], crop(picture(), *window(Cell("", 0, *BOXES[0], 0.0), 2)))
    Image.fromarray(picture(600, 500)).save(tmp_path / "whole.png")
    assert "taken as one cell each" in read_any([tmp_path / "whole.png"])[2][0]


def orientation(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def test_cells_of_which_nobody_knows_the_type_are_predicted_like_others(tmp_path):
    source = consep(tmp_path / "data", {"a": (1, 2, 3, 4)})
    known = read_any([source / "Images" / "a.png"])
    save_mat(source, "a", inst_map=mask_of(*BOXES))  # what a segmentation gives
    alone = read_any([source / "Images" / "a.png"])
    assert alone[2:] == ([], []) and np.array_equal(alone[0], known[0]) and alone[1] == known[1]
    save_mat(source, "a", inst_map=mask_of(*BOXES), inst_type=np.array((9, 0, 1, 2), float)[:, None])  # types of another scheme
    assert np.array_equal(read_any([source / "Images" / "a.png"])[0], known[0])
    boxes = nucls(tmp_path / "more", {"t": []})
    (boxes / "csv" / "t.csv").write_text("xmin,ymin,xmax,ymax\n10,20,30,36\n2,4,6,10\n")
    images, columns, _, faults = read_any([boxes / "rgb" / "t.png"])
    assert faults == [] and len(images) == 2 and columns["cell"] == ["1", "2"]


# ------------------------------------------------------------------------------------------------------ drawn cells


def test_drawn_cells_are_unbalanced_in_colour_by_tile_and_the_same_for_equal_seeds():
    pack = cell_set(120, seed=3)
    assert pack.hash == cell_set(120, seed=3).hash != cell_set(120, seed=4).hash
    assert pack.classes == CONSEP_CLASSES and list(pack.counts.values()) == [round(120 * share) for share in SHARES]
    mean = pack.images.reshape(-1, 3).mean(0)
    assert mean[1] < mean[0] and mean[1] < mean[2]  # pink and violet: green is absorbed most
    assert len(set(pack.patients)) == 6
    parts = split(pack, (0.6, 0.1, 0.3))
    owners = [{pack.patients[i] for i in some} for some in parts.values()]
    assert not owners[0] & owners[1] and not owners[1] & owners[2] and not owners[0] & owners[2]


def test_drawn_types_differ_in_size_and_each_image_does_not_depend_on_the_others():
    pack = cell_set(200)
    sizes = [np.sqrt(pack.areas[pack.labels == kind, 0]).mean() / 2 for kind in range(4)]
    assert sizes[1] < sizes[0] < sizes[2] < sizes[3]
    dark = [pack.images[pack.labels == kind][:, 12:20, 12:20].mean() for kind in range(4)]
    assert dark[1] < dark[2]
    with pytest.raises(RequestError, match="at least 60"):
        cell_set(40)


def test_a_label_file_that_ends_the_reader_itself_is_a_fault_of_its_tile_and_the_rest_goes_on(tmp_path, capsys, monkeypatch):
    """One changed byte in an uncompressed file crashes SciPy's reader; whichever byte that is in a version of SciPy, the process dies."""
    consep(tmp_path / "set", {name: (1, 2, 3, 4) for name in "123"})
    real = scipy.io.loadmat

    def dying(path, **more):
        if path.stem == "2":
            os.kill(os.getpid(), signal.SIGKILL)
        return real(path, **more)

    monkeypatch.setattr(scipy.io, "loadmat", dying)
    status, pack, _, errors = prepare("consep", tmp_path / "set", tmp_path, capsys)
    assert status == 1 and len(errors) == 1 and errors[0].startswith("2: its files are damaged")
    assert len(pack) == 8 and set(pack.patients) == {"1", "3"}


def test_a_download_in_small_letters_is_found_and_of_another_one_it_is_said_what_lies_there(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "LABELS").mkdir()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "images" / "t1.png")
    assert [name for name, image, _ in find_tiles(tmp_path, DOWNLOADS["consep"])] == ["t1"]
    other = tmp_path / "other"
    (other / "fold1").mkdir(parents=True)
    np.save(other / "fold1" / "masks.npy", np.zeros(3))
    assert PREPARE["consep"](other, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "it holds 1 file (.npy) in fold1: to be read as pannuke?" in said
