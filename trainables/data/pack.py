"""A data set as training sees it, in memory and on disk, where every run of a node maps it without a copy.
Comes in: images and what is known of them. Goes out: a `Pack` with its hash, `images.npy` and `data.json`; where outlines are known,
`masks.npy`. Exists so that each image is decoded once and a changed set is another set."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trainables.parts.errors import RequestError
from trainables.parts.failpoints import failpoint
from trainables.parts.sealing import sealed, set_mode, unsealed

SCHEMA = 2
READ = (1, SCHEMA)  # 1: before masks were kept; all else is the same


@dataclass(frozen=True, eq=False)
class Masks:
    """Which pixels of the original image belong to each object, a bit a pixel within the object's own box."""

    bits: np.ndarray  # uint8 (B,): the rows of box after box, each box from a byte of its own
    sizes: np.ndarray  # int64 (N, 2): height and width of each box

    @classmethod
    def of(cls, masks: Sequence[np.ndarray]) -> Masks:
        """masks: N of (height, width), bool."""
        bits = [np.packbits(np.asarray(mask, bool).ravel()) for mask in masks]
        sizes = np.array([np.shape(mask) for mask in masks], np.int64).reshape(-1, 2)
        return cls(np.concatenate(bits) if bits else np.zeros(0, np.uint8), sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def each(self, chosen: np.ndarray) -> Iterator[np.ndarray]:
        """(height, width) bool of each of the chosen objects, in their order."""
        ends = np.cumsum((self.sizes.prod(1) + 7) // 8)
        for i in chosen:
            height, width = self.sizes[i]
            bits = self.bits[(ends[i - 1] if i else 0) : ends[i]]
            yield np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.sizes.tolist()).encode() + np.ascontiguousarray(self.bits).tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Pack:
    """A data set as training sees it. Image i is images[i], of class classes[labels[i]]."""

    images: np.ndarray  # uint8 (N, S, S), background exactly 0; or (N, S, S, 3)
    labels: np.ndarray  # int64 (N,)
    classes: tuple[str, ...]
    files: tuple[str, ...]  # relative to the folder, with forward slashes
    patients: tuple[str, ...] | None  # None where unknown for all
    hash: str  # sha256, see `make_pack`
    notes: tuple[str, ...]  # what was done to the images, in words
    areas: np.ndarray  # float64 (N, 2): image area and foreground area, in pixels of the original file
    ties: tuple[tuple[int, int], ...] = ()  # pairs that show the same thing: a split keeps them on one side
    parts: tuple[str, ...] | None = None  # train, val or test of each image, where the data come with a split
    masks: Masks | None = None  # None where no outline is known
    metaphases: tuple[str, ...] | None = None  # of chromosomes, within a patient; '' where one is not known, None where none is
    copy_of: str = ""  # hash of the set whose images these are, image by image, seen otherwise; '' of a set of its own

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def keys(self) -> list[bytes]:
        """See `pixel_keys`; worked out once."""
        return pixel_keys(self.images)

    def tied(self, ties: Iterable[tuple[int, int]]) -> Pack:
        """The same with these ties alone."""
        pack = replace(self, ties=tuple(ties))
        vars(pack)["keys"] = self.keys  # of the same images
        return pack

    @property
    def counts(self) -> dict[str, int]:
        """Images per class, in the order of the classes."""
        return dict(zip(self.classes, np.bincount(self.labels, minlength=len(self.classes)).tolist(), strict=True))


def make_pack(
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    classes: Sequence[str],
    files: Sequence[str],
    patients: Sequence[str] | None,
    areas: np.ndarray,
    notes: Sequence[str] = (),
    parts: Sequence[str] | None = None,
    masks: Masks | None = None,
) -> Pack:
    """Pack with its hash: sha256 over shape, classes, labels, patients, files, the parts of a given split, masks, and pixels. Notes,
    areas and metaphases are not part of it."""
    labels = np.asarray(labels, dtype=np.int64)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(f"images must be uint8 of shape (N, S, S) or (N, S, S, 3), got {images.dtype} {images.shape}")
    if not len(images) == len(labels) == len(files) == len(areas) or (patients is not None and len(patients) != len(labels)):
        raise ValueError(
            f"images, labels, files, areas and patients must have one length, got {len(images)}, {len(labels)}, {len(files)}, {len(areas)}"
        )
    head = [list(images.shape), list(classes), labels.tolist(), None if patients is None else list(patients), list(files)]
    head += [] if parts is None else [list(parts)]
    if masks is not None and len(masks) != len(labels):
        raise ValueError(f"masks must be as many as images, got {len(masks)} for {len(labels)}")
    head += [] if masks is None else [{"masks": masks.digest}]
    digest = hashlib.sha256(json.dumps(head, ensure_ascii=True, separators=(",", ":")).encode())
    for image in images:
        digest.update(np.ascontiguousarray(image).data)
    return Pack(
        images,
        labels,
        tuple(classes),
        tuple(files),
        None if patients is None else tuple(patients),
        digest.hexdigest(),
        tuple(notes),
        np.asarray(areas, dtype=np.float64).reshape(len(labels), 2),
        parts=None if parts is None else tuple(parts),
        masks=masks,
    )


def save_pack(pack: Pack, folder: str | Path) -> Path:
    """images.npy and data.json in `folder`, written under a temporary name and renamed, so that a reader sees all or nothing.
    The same pack again changes nothing; another one in its place is a RequestError."""
    folder = Path(folder)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            arrays = {"images.npy": pack.images} | ({} if pack.masks is None else {"masks.npy": pack.masks.bits})
            for name, array in arrays.items():
                with (building / name).open("wb") as stream:
                    np.save(stream, array, allow_pickle=False)
                    stream.flush()
                    os.fsync(stream.fileno())
            about = {
                "schema": SCHEMA,
                "hash": pack.hash,
                "shape": list(pack.images.shape),
                "classes": pack.classes,
                "labels": pack.labels.tolist(),
                "files": pack.files,
                "patients": pack.patients,
                "notes": pack.notes,
                "areas": pack.areas.tolist(),
                "ties": pack.ties,
                "parts": pack.parts,
                "metaphases": pack.metaphases,
                "mask_sizes": None if pack.masks is None else pack.masks.sizes.tolist(),
                "copy_of": pack.copy_of,
            }
            with (building / "data.json").open("w", encoding="utf-8") as stream:
                json.dump(sealed(about), stream)
                stream.flush()
                os.fsync(stream.fileno())
            set_mode(building, 0o755)
            failpoint("data.written")
            building.rename(folder)
            failpoint("data.renamed")
            return folder
        except OSError:
            if not (folder / "data.json").exists():
                raise
            # another writer was first; what it wrote is compared below
        finally:
            shutil.rmtree(building, ignore_errors=True)
    there = _read_about(folder)["hash"]
    if there != pack.hash:
        raise RequestError(
            f"'{folder}' must be free or hold the same data, it holds {there[:12]} and this is {pack.hash[:12]}; choose another folder"
        )
    return folder


def _read_about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        if isinstance(about, dict) and about.get("schema") in READ:
            about = unsealed(about)
            if missing := {"hash", "shape", "classes", "labels", "files", "patients", "notes", "areas", "ties"} - about.keys():
                raise ValueError(f"{', '.join(sorted(missing))} missing")
    except FileNotFoundError:
        raise RequestError(f"packed data must have a data.json, '{folder}' has none; read the images again") from None
    except ValueError as error:
        raise RequestError(f"data.json must be readable, '{folder / 'data.json'}' is not ({error}); read the images again") from None
    if not isinstance(about, dict) or about.get("schema") not in READ:
        given = about.get("schema") if isinstance(about, dict) else None
        raise RequestError(f"packed data must have schema {' or '.join(map(str, READ))}, '{folder}' has {given}; read the images again")
    return about


def load_pack(folder: str | Path, verify: bool = False) -> Pack:
    """What `save_pack` wrote, its images and masks mapped read-only: all processes of a node share the pages. verify: compute the hash
    anew."""
    folder = Path(folder)
    about = _read_about(folder)
    images = _mapped(folder / "images.npy", about["shape"])
    sizes = about.get("mask_sizes")
    masks = None
    if sizes is not None:
        boxes = np.asarray(sizes, np.int64).reshape(-1, 2)
        masks = Masks(_mapped(folder / "masks.npy", [int(((boxes.prod(1) + 7) // 8).sum())]), boxes)
    patients = None if about["patients"] is None else tuple(about["patients"])
    pack = Pack(
        images,
        np.asarray(about["labels"], np.int64),
        tuple(about["classes"]),
        tuple(about["files"]),
        patients,
        about["hash"],
        tuple(about["notes"]),
        np.asarray(about["areas"], np.float64).reshape(-1, 2),
        tuple((int(i), int(j)) for i, j in about["ties"]),
        parts=None if about.get("parts") is None else tuple(about["parts"]),  # sets packed before these were kept have none
        masks=masks,
        metaphases=None if about.get("metaphases") is None else tuple(about["metaphases"]),
        copy_of=about.get("copy_of", ""),
    )
    if (
        verify
        and make_pack(images, pack.labels, pack.classes, pack.files, patients, pack.areas, parts=pack.parts, masks=masks).hash != pack.hash
    ):
        raise RequestError(f"packed data must agree with its hash, '{folder}' does not; read the images again")
    return pack


def _mapped(path: Path, shape: list[int]) -> np.ndarray:
    """The uint8 array of this shape in a file, mapped read-only."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an archive")
    except Exception as error:  # noqa: BLE001 (a damaged header fails in NumPy in any of a dozen ways, TokenError and TypeError among them)
        raise RequestError(f"{path.name} must be a readable array, '{path}' is not ({error}); read the images again") from None
    if list(array.shape) != shape or array.dtype != np.uint8:
        raise RequestError(f"{path.name} must be uint8 {shape}, '{path}' is {array.dtype} {list(array.shape)}; read the images again")
    return array


def judged_on(other: Pack, own: Pack, test: np.ndarray) -> np.ndarray:
    """Which images of an external set a run is judged on: all, but where it shows the run's own set, of which those of its test part."""
    return test if other.copy_of == own.hash else np.arange(len(other))


def pixel_keys(images: np.ndarray) -> list[bytes]:
    """16 bytes per image; equal where all pixels are equal."""
    return [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images]
