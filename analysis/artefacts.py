"""What a run left beside its record: predictions, embedding, heat maps, and the images they are of. In: a Study and a run's key. Out: arrays.

All of it may be absent (None) or damaged (`Damaged`, in words): a report without it is whole. Nothing is unpickled, and no name from a
file leads out of the study folder."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.study import Study, mapping

UNKNOWN = "unknown: "  # as trainables/data/listing.py has it
MISSING = "no predictions"  # of a run that left none
_SHAPES = {  # array -> (number of axes, whole numbers); what is of another shape is left out with a word
    "embedding": (2, False),
    "index": (1, True),
    "label": (1, True),
    "cluster": (1, True),
    "heat": (3, True),
    "heat_index": (1, True),
    "heat_label": (1, True),
    "heat_prediction": (1, True),
    "nearest_index": (2, True),
    "cluster_by_type": (2, True),
}
_PICTURES = {"heat_image": (3, 4), "nearest_image": (4, 5)}
MOST_POINTS = 1_000
_MOST_BYTES = 256 * 2**20  # of artefacts.npz unpacked; what a run leaves is a few MB
_MOST_GROUPS = 10_000  # classes or clusters: a number above it would have a name for each built
_MOST_ROWS = 200  # of a matrix that is drawn


class Damaged(ValueError):
    """A file that is there and cannot be read; the message names it."""


@dataclass(frozen=True)
class Predictions:
    """index (n,): into the pack; label (n,): class index of the truth; probability (n, C), rows sum to 1 within rounding."""

    index: np.ndarray
    label: np.ndarray
    probability: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """(n,) class index."""
        return np.asarray(self.probability.argmax(axis=1))

    @property
    def confidence(self) -> np.ndarray:
        """(n,) probability of the predicted class."""
        return np.asarray(self.probability.max(axis=1))


GROUPS, GUESSES = ("index", "label", "cluster", "tile"), ("probe", "neighbours")  # what a clustering says of each image, and may say


@dataclass(frozen=True)
class Groups:
    """Of a procedure that clusters: index (n,) into the pack; label (n,): class index of the truth; cluster and tile (n,) from 0; probe and
    neighbours (n,): the class that a linear probe and the nearest training cells give, None where there was none."""

    index: np.ndarray
    label: np.ndarray
    cluster: np.ndarray
    tile: np.ndarray
    probe: np.ndarray | None
    neighbours: np.ndarray | None = None


@dataclass(frozen=True)
class Images:
    """The images of a data set (memory-mapped, uint8, (N, S, S) or (N, S, S, 3)) and their file names by index."""

    pixels: np.ndarray
    files: tuple[str, ...]


def run_folder(study: Study, key: str) -> Path | None:
    """checkpoints/<key>; None where it is missing or the key is no plain name."""
    folder = study.folder / "checkpoints" / key
    return folder if re.fullmatch(r"[A-Za-z0-9_-]+", key) and folder.is_dir() else None


def _judged(study: Study, key: str, part: str) -> Mapping[str, Any] | None:
    """What checkpoints/<key>/result.json says of the images of a part."""
    folder = run_folder(study, key)
    if folder is None:
        return None
    given = mapping(mapping(_json(folder / "result.json", f"checkpoints/{key[:12]}/result.json")).get("predictions")).get(part)
    return None if given is None else mapping(given)


def groups(study: Study, key: str, part: str = "test") -> Groups | None:
    """The clusters of a part of the data; None also where classes were predicted, or by a version that kept no tiles."""
    entry = _judged(study, key, part)
    if entry is None or not {"cluster", "tile"} <= entry.keys():
        return None
    try:
        columns = {name: np.asarray(entry[name]) for name in (*GROUPS, *GUESSES) if name in entry}
        length = len(columns["index"])
        fits = all(a.ndim == 1 and a.dtype.kind in "iu" and len(a) == length > 0 and a.min() >= 0 for a in columns.values())
        if not fits or max(int(columns[name].max()) for name in ("label", "cluster", "tile")) > _MOST_GROUPS:
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError):
        raise Damaged(f"the clusters of run {key[:12]} are damaged") from None
    return Groups(*(columns[name] for name in GROUPS), *(columns.get(name) for name in GUESSES))


def predictions(study: Study, key: str, part: str = "test") -> Predictions | None:
    """Of a part of the data, from checkpoints/<key>/result.json; None also where cells were clustered, see `groups`."""
    entry = _judged(study, key, part)
    if entry is None or ("cluster" in entry and "probability" not in entry):
        return None
    try:
        index, label = (np.asarray(entry[k]) for k in ("index", "label"))
        probability = np.asarray(entry["probability"], dtype=np.float64)
        whole = all(a.ndim == 1 and a.dtype.kind in "iu" for a in (index, label))
        fits = whole and probability.ndim == 2 and len(index) == len(label) == len(probability) > 0 and probability.shape[1] > 0
        if not fits or not ((probability >= 0) & (probability <= 1 + 1e-6)).all() or label.min() < 0 or label.max() >= probability.shape[1]:
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError):
        raise Damaged(f"the predictions of run {key[:12]} are damaged") from None
    return Predictions(index, label, probability)


def images(study: Study, slug: str = "") -> Images | None:
    """data/ of the study, or of its external set `slug`."""
    if slug and not re.fullmatch(r"[a-z0-9_]+", slug):
        return None
    folder, name = (study.folder / "external" / slug, f"external/{slug}") if slug else (study.folder / "data", "data")
    try:
        pixels = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, OverflowError):
        raise Damaged(f"{name}/images.npy cannot be read") from None
    if not (isinstance(pixels, np.ndarray) and is_picture(pixels[None], (4, 5))):
        raise Damaged(f"{name}/images.npy holds no 8-bit images")
    files = mapping(_json(folder / "data.json", f"{name}/data.json")).get("files")
    return Images(pixels, tuple(map(str, files)) if isinstance(files, list) else ())


def patients(study: Study, slug: str = "") -> tuple[str, ...]:
    """Of each image of data/ or of the external set `slug`, by index; '' where one is not known, () where none is."""
    given = _about(study, slug).get("patients")
    return tuple(map(known, given)) if isinstance(given, list) else ()


def known(patient: object) -> str:
    """A patient as a packed set names it; '' of an image whose patient is not known, which the set calls by the image (`unknown: a/1.png`)."""
    return "" if patient is None or str(patient).startswith(UNKNOWN) else str(patient)


def files(study: Study, slug: str = "") -> tuple[str, ...]:
    """File names of the images of data/ or of the external set `slug`, by index; () where they are not kept."""
    given = _about(study, slug).get("files")
    return tuple(map(str, given)) if isinstance(given, list) else ()


def described(study: Study, slug: str = "") -> bool:
    """Whether data.json of the data or of an external set is there: without it nothing is known of patients."""
    return (study.folder / "external" / slug / "data.json" if slug else study.folder / "data" / "data.json").is_file()


def tiles_are_patients(study: Study, slug: str = "") -> bool:
    """Whether each tile counts as a patient of its own: cells are `tile.png#cell`, and their patient is `tile`."""
    about = _about(study, slug)
    files, owners = about.get("files"), about.get("patients")
    return isinstance(files, list) and isinstance(owners, list) and names_tiles(files, owners)


def names_tiles(files: Sequence[object], patients: Sequence[object]) -> bool:
    """The same of a set's files and patients, by index."""
    if not files or len(files) != len(patients):
        return False
    return all(str(file).rpartition("#")[0].rpartition(".")[0] == str(owner) != "" for file, owner in zip(files, patients, strict=True))


def _about(study: Study, slug: str) -> Mapping[str, Any]:
    if slug and not re.fullmatch(r"[a-z0-9_]+", slug):
        return {}
    name = f"external/{slug}/data.json" if slug else "data/data.json"
    return mapping(_json(study.folder / name, name))


def arrays(study: Study, key: str) -> Mapping[str, np.ndarray]:
    """The arrays of checkpoints/<key>/artefacts.npz that have the shape they should; {} where there is none."""
    folder = run_folder(study, key)
    if folder is None or not (folder / "artefacts.npz").exists():
        return {}
    found: dict[str, np.ndarray] = {}
    try:
        # opened here: numpy leaves a file open that turns out to be no archive
        with (folder / "artefacts.npz").open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if sum(entry.file_size for entry in file.zip.infolist()) > _MOST_BYTES:
                raise Damaged(f"artefacts.npz of run {key[:12]} would unpack to more than {_MOST_BYTES // 2**20} MB and is not read")
            for name in file.files:
                if name in _SHAPES or name in _PICTURES:
                    found[name] = file[name]
    except Damaged:
        raise
    except (OSError, ValueError, EOFError, KeyError, AttributeError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error):
        raise Damaged(f"artefacts.npz of run {key[:12]} cannot be read") from None
    for name, array in list(found.items()):
        axes, whole = _SHAPES.get(name, (0, True))
        good = (
            is_picture(array, _PICTURES[name]) if name in _PICTURES else array.ndim == axes and array.dtype.kind in ("iu" if whole else "f")
        )
        if not good or not array.size or not _bounded(name, array):
            del found[name]
    return found


def _bounded(name: str, array: np.ndarray) -> bool:
    """Whether it can be drawn: 8-bit heat, groups numbered from 0 (-1 is none of them) and not without end, a matrix that fits a page."""
    if name == "heat":
        return array.dtype == np.uint8
    if name in ("label", "cluster"):
        return bool(int(array.min()) >= -1 and int(array.max()) <= _MOST_GROUPS)
    return name != "cluster_by_type" or max(array.shape) <= _MOST_ROWS


def is_picture(array: np.ndarray, axes: tuple[int, int]) -> bool:
    """Whether it is uint8 with that many axes: gray, or one more of 3 colours."""
    return array.dtype == np.uint8 and (array.ndim == axes[0] or (array.ndim == axes[1] and array.shape[-1] == 3))


def _json(path: Path, name: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        raise Damaged(f"{name} cannot be read as JSON") from None
