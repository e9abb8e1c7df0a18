"""Cells out of PanNuke's arrays and QuPath's objects, made here as those programs write them."""

import gzip
import json

import numpy as np
import pytest
from PIL import Image

from trainables.data.crops import Cell, crop, window
from trainables.data.labels import CONSEP_CLASSES
from trainables.data.pack import load_pack
from trainables.data.pannuke import PLANES
from trainables.data.prepare import PREPARE
from trainables.data.qupath import kind_of

SIDE = 64
OTHER, INFLAMMATORY, EPITHELIAL, SPINDLE = range(4)


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def prepared(kind, source, tmp_path, capsys):
    """(exit status, pack or None, stdout, stderr)"""
    status = PREPARE[kind](source, tmp_path / "packed")
    said = capsys.readouterr()
    return status, load_pack(tmp_path / "packed") if status < 2 else None, said.out, said.err


# ---- PanNuke


BOXES = ((4, 4, 12, 10), (30, 30, 40, 44), (50, 2, 60, 12), (2, 40, 9, 50), (20, 50, 30, 60))  # one of each plane


def fold(folder, n=3, places=("images", "masks", "types"), kind=np.float64):
    masks = np.zeros((n, SIDE, SIDE, 6), kind)
    for plane, (top, left, bottom, right) in enumerate(BOXES):
        masks[:, top:bottom, left:right, plane] = 10 + plane
    masks[..., 5] = masks[..., :5].sum(3) == 0
    arrays = (np.stack([picture(i) for i in range(n)]).astype(kind), masks, np.array(["Breast", "Colon", "Bile-duct"] * n)[:n])
    for word, place, values in zip(("images", "masks", "types"), places, arrays, strict=True):
        (folder / place).mkdir(parents=True, exist_ok=True)
        np.save(folder / place / f"{word}.npy", values)
    return folder


@pytest.mark.parametrize("places", [("images/fold1", "masks/fold1", "images/fold1"), (".", ".", "."), ("images", "masks", "types")])
def test_pannukes_arrays_are_found_wherever_they_lie_and_their_five_types_become_ours(tmp_path, capsys, places):
    status, pack, out, err = prepared("pannuke", fold(tmp_path / "Fold 1", places=places), tmp_path, capsys)
    assert (status, err) == (0, "")
    assert pack.classes == CONSEP_CLASSES and pack.counts == dict(zip(CONSEP_CLASSES, (3, 3, 6, 3), strict=True))
    assert len(set(pack.patients)) == 3 and "tissues: Bile duct 1, Breast 1, Colon 1" in out
    assert "dead 3 = miscellaneous" in out and "connective 3 = spindle" in out
    for i, name in enumerate(pack.files):
        plane = PLANES.index(name.partition("#")[2].rstrip("0123456789"))
        seen = crop(picture(i // 5), *window(Cell("", 0, *BOXES[plane], 0.0), 2))
        assert np.array_equal(pack.images[i], seen)
        assert pack.areas[i, 1] == np.prod(np.subtract(BOXES[plane][2:], BOXES[plane][:2]))


def test_three_folds_are_one_set_and_a_damaged_one_costs_itself(tmp_path, capsys):
    source = tmp_path / "set"
    for k in (1, 2, 3):
        fold(source / f"Fold {k}", places=(f"images/fold{k}", f"masks/fold{k}", f"images/fold{k}"))
    damaged = source / "Fold 2/masks/fold2/masks.npy"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    status, pack, _, err = prepared("pannuke", source, tmp_path, capsys)
    assert status == 1 and len(pack) == 30 and err.startswith("fold 2-fold2: masks.npy cannot be read")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "masks.npy").unlink(), "masks.npy is missing"),
        (lambda f: np.save(f / "masks.npy", np.zeros((3, SIDE, SIDE, 4))), "5 or 6 planes"),
        (lambda f: np.save(f / "images.npy", np.zeros((3, SIDE, SIDE))), "shape (N, height, width, 3)"),
        (lambda f: np.save(f / "images.npy", np.full((3, SIDE, SIDE, 3), 0.5)), "pixels must be 0 to 255"),
        (lambda f: np.save(f / "images.npy", np.array([{}], object), allow_pickle=True), "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_fold_is_said(tmp_path, capsys, spoil, says):
    source = fold(tmp_path / "f", places=(".", ".", "."))
    spoil(source)
    status, _, _, err = prepared("pannuke", source, tmp_path, capsys)
    assert status == 2 and says in err


def flat(source):
    """Masks that say where cells of a type are: 1 in each plane. A second cell of each type stands in each image."""
    masks = np.load(source / "masks.npy")
    masks[..., :5] = np.maximum(masks[..., :5], np.roll(masks[..., :5], 33, 1)) > 0
    np.save(source / "masks.npy", masks)


def in_order(*planes):
    return lambda source: np.save(source / "masks.npy", np.load(source / "masks.npy")[..., planes])


def empty_first(source):
    masks = np.load(source / "masks.npy")
    masks[..., 5] = 0
    np.save(source / "masks.npy", np.roll(masks, 1, 3))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (flat, "must give each cell a number of its own"),
        (in_order(5, 0, 1, 2, 3, 4), "plane 1 is the background in 3 of 3 images"),
        (in_order(5, 0, 1, 2, 3), "plane 1 is the background in 3 of 3 images"),
        (empty_first, "the last plane holds numbers of cells in 3 of 3 images"),
    ],
)
def test_masks_that_number_no_cells_or_stand_in_another_order_are_refused(tmp_path, capsys, spoil, says):
    source = fold(tmp_path / "f", places=(".", ".", "."))
    spoil(source)
    status, _, _, err = prepared("pannuke", source, tmp_path, capsys)
    assert status == 2 and says in err


def test_a_number_of_two_cells_costs_itself_and_a_cell_in_two_pieces_is_one(tmp_path, capsys):
    source = fold(tmp_path / "f", n=12, places=(".", ".", "."))
    masks = np.load(source / "masks.npy")
    masks[0, 50:58, 40:46, 0] = 10
    masks[1, 7:8, :, 0] = 0
    np.save(source / "masks.npy", masks)
    status, pack, _, err = prepared("pannuke", source, tmp_path, capsys)
    assert status == 1 and len(pack) == 59 and "fold-00-Breast: neoplastic 10: its pixels lie in 2 parts, which are no single cell" in err


# ---- QuPath


def feature(box, name="Tumor", kind="detection", **more):
    top, left, bottom, right = box
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    properties = {"objectType": kind} | ({"classification": {"name": name, "color": [200, 0, 0]}} if name else {})
    return {"type": "Feature", "id": "5f", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties} | more


def drawn(folder, features, name="a.geojson", wrap=True):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(0)).save(folder / "a.png")
    text = json.dumps({"type": "FeatureCollection", "features": features} if wrap else features).encode()
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return folder


FOUR = [feature(box, name) for box, name in zip(BOXES, ("Other", "Immune cells", "Tumor: Positive", "Stroma"), strict=False)]


@pytest.mark.parametrize(
    ("name", "wrap"),
    [("a.geojson", True), ("a.geojson", False), ("A.png.geojson", True), ("objects/a.geojson.gz", True), ("a_detections.json", True)],
)
def test_qupaths_objects_are_cut_out_of_the_image_of_their_name(tmp_path, capsys, name, wrap):
    status, pack, out, err = prepared("qupath", drawn(tmp_path / "q", FOUR, name, wrap), tmp_path, capsys)
    assert "Immune cells 1 = inflammatory, Tumor: Positive 1 = epithelial" in out
    assert (status, err) == (0, "") and pack.labels.tolist() == [OTHER, INFLAMMATORY, EPITHELIAL, SPINDLE]
    for i in range(4):
        assert np.array_equal(pack.images[i], crop(picture(0), *window(Cell("", 0, *BOXES[i], 0.0), 2)))
        assert pack.areas[i, 1] == np.prod(np.subtract(BOXES[i][2:], BOXES[i][:2]))


def test_a_cells_nucleus_is_cut_out_and_regions_and_ignored_objects_are_left_out(tmp_path, capsys):
    nucleus = feature((10, 10, 20, 20))["geometry"]
    hole = feature((30, 30, 50, 50))
    hole["geometry"]["coordinates"].append([[35, 35], [40, 35], [40, 40], [35, 40], [35, 35]])
    objects = [
        feature((5, 5, 30, 30), "Tumor", "cell", nucleusGeometry=nucleus),
        hole,
        feature((0, 0, 60, 60), "Tumor", "annotation"),
        feature((0, 0, 9, 9), "Ignore*"),
        feature((0, 0, 9, 9), ""),
        feature((0, 0, 64, 64), "Tumor", "tile"),
    ]
    status, pack, out, _ = prepared("qupath", drawn(tmp_path / "q", objects), tmp_path, capsys)
    assert status == 0 and pack.areas[:, 1].tolist() == [100, 375]
    assert np.array_equal(pack.images[0], crop(picture(0), *window(Cell("", 0, 10, 10, 20, 20, 0.0), 2)))
    assert "1 annotation left out as regions" in out and "2 objects without a class" in out


def test_a_nucleus_that_was_detected_twice_is_one_cell_and_one_of_two_types_is_said(tmp_path, capsys):
    again = [feature(tuple(np.add(box, (1, 0, 1, 0)).tolist()), name) for box, name in ((BOXES[0], "Other"), (BOXES[2], "Stroma"))]
    touching = feature((30, 40, 40, 54), "Immune cells")
    status, pack, out, err = prepared("qupath", drawn(tmp_path / "q", [*FOUR, *again, touching]), tmp_path, capsys)
    assert status == 1 and pack.labels.tolist() == [OTHER, INFLAMMATORY, EPITHELIAL, SPINDLE, INFLAMMATORY]
    assert "1 object left out, each of which lies on another one" in out and "Other 1 = miscellaneous" in out
    assert "a: object 6: it lies on object 3, which is of another type" in err


def test_annotations_alone_are_cells_as_are_those_of_old_files(tmp_path, capsys):
    old = feature(BOXES[0], kind="")
    old["id"] = "PathAnnotationObject"
    del old["properties"]["objectType"]
    status, pack, _, _ = prepared("qupath", drawn(tmp_path / "q", [old, feature(BOXES[1], kind="annotation")]), tmp_path, capsys)
    assert status == 0 and len(pack) == 2


def on_slide(folder, of, step=2, called="s1 [d={d},x={x},y={y},w={w},h={w}]"):
    """Four tiles of a slide, each pixel two of the slide's, with an object in each at its place on the slide (of: tile, slide) or in the
    tile (inside)."""
    folder.mkdir()
    features = {}
    for i, (x, y) in enumerate(((0, 0), (SIDE, 0), (0, SIDE), (SIDE, SIDE))):
        name = called.format(d=step, x=step * x, y=step * y, w=step * SIDE)
        Image.fromarray(picture(i)).save(folder / f"{name}.png")
        top, left, bottom, right = BOXES[i]
        inside = of == "inside"
        box = BOXES[i] if inside else (step * (top + y), step * (left + x), step * (bottom + y), step * (right + x))
        features[name] = [feature(box)]
    files = {"s1": [objects[0] for objects in features.values()]} if of == "slide" else features
    for name, objects in files.items():
        (folder / f"{name}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": objects}))
    return folder


@pytest.mark.parametrize("of", ["tile", "slide", "inside"])
def test_objects_are_cut_out_at_their_places_on_the_slide_whose_tiles_are_one_patient(tmp_path, capsys, of):
    status, pack, out, err = prepared("qupath", on_slide(tmp_path / "q", of), tmp_path, capsys)
    assert (status, err) == (0, "") and len(pack) == 4 and set(pack.patients) == {"s1"}
    assert ("lie in the tiles" if of == "inside" else "lie on the slide") in out
    for i, name in enumerate(sorted(((0, 0), (SIDE, 0), (0, SIDE), (SIDE, SIDE)), key=lambda place: f"x={2 * place[0]},y={2 * place[1]},")):
        number = ((0, 0), (SIDE, 0), (0, SIDE), (SIDE, SIDE)).index(name)
        assert np.array_equal(pack.images[i], crop(picture(number), *window(Cell("", 0, *BOXES[number], 0.0), 2)))
        assert pack.areas[i, 1] == np.prod(np.subtract(BOXES[number][2:], BOXES[number][:2]))


def test_objects_on_a_slide_of_whose_tiles_nobody_knows_the_places_are_refused(tmp_path, capsys):
    status, _, _, err = prepared("qupath", on_slide(tmp_path / "q", "tile", called="s1_{x}_{y}"), tmp_path, capsys)
    assert status == 2 and err.startswith("objects must lie in their images, 3 lie outside: where QuPath exported them on the slide")


def test_faults_of_object_files_are_told_and_the_rest_goes_on(tmp_path, capsys):
    point = feature(BOXES[0])
    point["geometry"] = {"type": "Point", "coordinates": [3, 3]}
    merged = feature(BOXES[0])
    merged["geometry"] = {"type": "MultiPolygon", "coordinates": [feature(box)["geometry"]["coordinates"] for box in BOXES[:3]]}
    objects = [FOUR[0], point, feature((500, 500, 510, 510)), feature(BOXES[1], "Zelle A"), feature(BOXES[2], "Zelle A"), merged]
    source = drawn(tmp_path / "q", objects)
    (source / "b.geojson").write_text('{"features": 3}')
    Image.fromarray(picture(1)).save(source / "b.png")
    (source / "c.geojson").write_text("[]")
    Image.fromarray(picture(1)).save(source / "d.png")
    status, pack, _, err = prepared("qupath", source, tmp_path, capsys)
    assert status == 1 and len(pack) == 1
    for words in (
        "a: object 2: a Point has no size",
        "a: object 6: its pixels lie in 3 parts, which are no single cell",
        "a: object 3: 500, 500 to 510, 510 lies outside of the image (64 x 64)",
        "a: unknown type 'Zelle A', 2 objects; rename it in QuPath",
        "b: not a readable GeoJSON file",
        "c: no image of this name",
        "d: no label file *.geojson of this name",
    ):
        assert words in err, err


def test_a_folder_without_objects_says_what_lies_there(tmp_path, capsys):
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    status, _, _, err = prepared("qupath", tmp_path, tmp_path, capsys)
    assert status == 2 and "no objects of QuPath" in err and "it holds 1 file (.png)" in err


@pytest.mark.parametrize(
    ("name", "kind"),
    [("Tumor", 2), ("Immune cells", 1), ("lymphocytes", 1), ("Stroma: Negative", 3), ("Necrosis", 0), ("Positive", None), ("T-cell", 1)],
)
def test_a_classification_is_known_by_its_words(name, kind):
    assert kind_of(name) == kind


def test_annotations_that_are_regions_are_no_cells(tmp_path, capsys):
    large = [feature((0, 0, 40, 40), kind="annotation"), feature((30, 10, 62, 60), "Stroma", kind="annotation")]
    status, _, _, err = prepared("qupath", drawn(tmp_path / "q", large), tmp_path, capsys)
    assert status == 2 and "a: no cell: 2 annotations of more than 256 pixels, of more than 25% of the image, or around others" in err
    small = [feature((4 * i, 4, 4 * i + 3, 7), kind="annotation") for i in range(3)]
    around = feature((0, 0, 16, 16), "Stroma", kind="annotation")
    status, pack, out, _ = prepared("qupath", drawn(tmp_path / "q", [*small, around]), tmp_path, capsys)
    assert status == 0 and len(pack) == 3 and "1 annotation left out as regions" in out and "labels: Tumor 3 = epithelial" in out
    assert "a: annotations and no detection, each taken as a cell" in out


def test_two_files_of_objects_for_one_image_are_refused(tmp_path, capsys):
    source = drawn(tmp_path / "q", FOUR)
    drawn(source, FOUR[:1], "a_detections.geojson")
    status, _, _, err = prepared("qupath", source, tmp_path, capsys)
    assert status == 2 and "a: 2 files of objects for one image, a.geojson, a_detections.geojson; keep the one" in err


def test_objects_that_are_no_cells_are_counted(tmp_path, capsys):
    status, _, out, _ = prepared("qupath", drawn(tmp_path / "q", [*FOUR, *[feature(BOXES[0], kind="tile")] * 5]), tmp_path, capsys)
    assert status == 0 and "objects that are no cells left out: tile 5" in out
