"""Masks, overlays, thumbnails and regions that lie beside the images that they were made of.
Comes in: names of images. Goes out: the images without them; warnings and faults. Exists because programs write them into the same folders,
and neither a mask that counts as an image nor an image that counts as a mask may pass without a word."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from trainables.data.listing import MANIFEST, Listing
from trainables.data.shape import MASKS
from trainables.data.stems import originals_of
from trainables.data.words import count, few, same, shown

MASKS_OR_CLASS = {"seg", "segs"}  # segmented granulocytes are called so
CLASS_AS_WELL = {
    "gt", "label", "labels", "overlay", "overlays", "preview", "previews", "annotation", "annotations",
}  # fmt: skip


def without_masks(images: list[str], root: str, decided: bool, listing: Listing) -> list[str]:
    """The images without masks, overlays and thumbnails that lie beside them, by name (x_mask.png beside x.png) or in a folder of their own
    (masks/x.png). A folder whose word is a class's too is refused, unless a layout or a table decides."""
    stems = Counter(_stem(name) for name in images)
    there = {PurePosixPath(name).with_suffix("").as_posix().casefold() for name in images}
    folders = {same(above.as_posix()) for place in {PurePosixPath(name).parent for name in images} for above in (place, *place.parents)}
    kept, dropped, lonely, doubtful = list[str](), list[str](), list[str](), set[str]()
    cut = set(regions(images))
    for name in images:
        path = PurePosixPath(name)
        originals = originals_of(path.stem)
        level = next((i for i, word in enumerate(path.parts[:-1]) if same(word) in MASKS), None)
        several = stems[_stem(name)] > 2 and same(path.parts[0]) in CLASS_AS_WELL  # 000.png in every class
        if name in cut:
            kept.append(name)
        elif level == 0 and (several or same(path.parts[0]) in MASKS_OR_CLASS):
            kept.append(name)
            if not decided:
                doubtful.add(path.parts[0])
        elif level is not None:
            known = stems[_stem(name)] > 1 or any(stems[word.casefold()] for word in originals)
            (dropped if known else lonely).append(name)
        elif any((path.parent / word).as_posix().casefold() in there for word in originals):
            dropped.append(name)
        else:
            kept.append(name)
            if not decided:
                doubtful |= {
                    above.as_posix()
                    for above in path.parents
                    for word in originals_of(above.name)
                    if same((above.parent / word).as_posix()) in folders
                }
    if dropped:
        listing.warnings.append(
            f"{count(len(dropped))} taken as masks, overlays or thumbnails of others and passed over: "
            f"{few([shown(name) for name in dropped], 3)}"
        )
    if cut and not decided:
        listing.faults.append(
            f"{several_regions(sorted(cut))}; move them out of the data, or the whole images if these are the objects; or say that all are "
            f"images: python -m search data check {shlex.quote(root)} --layout class --fix {shlex.quote(f'{root}/{MANIFEST}')}"
        )
    if doubtful:
        listing.faults.append(
            f"the folder {few([shown(name) for name in sorted(doubtful)])} may hold masks of the images beside it, or a class (segmented "
            "cells); move it out of the data or call it masks, or say that it is a class: "
            f"python -m search data check {shlex.quote(root)} --layout class --fix {shlex.quote(f'{root}/{MANIFEST}')}"
        )
    if lonely:
        listing.faults.append(
            f"{count(len(lonely))} in folders of masks have no image of their name: {few([shown(name) for name in lonely], 3)}; "
            "move them out of the data, or rename the folder if it is a class"
        )
    return kept


def regions(images: Sequence[str]) -> list[str]:
    """Images that are numbered as parts of one beside them, several of one image: its masks, or objects that were cut out of it."""
    there = {PurePosixPath(name).with_suffix("").as_posix().casefold() for name in images}
    found: dict[str, list[str]] = {}
    for name in images:
        path = PurePosixPath(name)
        if re.search(r"\d$", path.stem):
            places = {(path.parent / word).as_posix().casefold() for word in originals_of(path.stem)} & there
            if places:
                found.setdefault(min(places), []).append(name)
    return [name for names in found.values() if len(names) > 1 for name in names]


def several_regions(names: Sequence[str]) -> str:
    """What such images may be, in words."""
    return (
        f"{count(len(names))} may be masks, several of one image, or objects cut out of one that lies beside them: "
        f"{few([shown(name) for name in names], 3)}"
    )


def _stem(name: str) -> str:
    return PurePosixPath(name).stem.casefold()
