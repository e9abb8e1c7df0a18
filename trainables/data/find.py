"""Images in a folder per class, with or without a manifest.
Comes in: a folder. Goes out: a `Listing` with all that is wrong with it. Exists so that all faults of a folder are said at once."""

from __future__ import annotations

import difflib
import os
from pathlib import Path, PurePosixPath

from trainables.data.listing import MANIFEST, Listing, class_order
from trainables.data.manifest import from_manifest
from trainables.data.open import SUFFIXES
from trainables.data.words import count, few, them


def list_folder(folder: str | Path, group: str = "patient") -> Listing:
    """Files and labels of a folder of class folders; a manifest.csv, where there is one, decides over the folders' names."""
    folder = Path(folder)
    empty = Listing([], [], None, None, [], [], [])
    if not folder.exists():
        parent = next((p for p in folder.parents if p.is_dir()), Path("."))
        near = difflib.get_close_matches(
            folder.name, [p.name for p in parent.iterdir() if p.is_dir()] if parent == folder.parent else [], 1
        )
        hint = f"did you mean '{parent / near[0]}'?" if near else "check the path"
        empty.faults.append(f"the data must be a folder, there is none at '{folder}'; {hint}")
        return empty
    if not folder.is_dir():
        empty.faults.append(
            f"the data must be a folder, '{folder}' is a file; name the folder that holds the class folders (an archive must be unpacked first)"
        )
        return empty
    found, skipped = _images_in(folder)
    manifest = folder / MANIFEST
    if not found and not manifest.is_file():
        inside = f"it holds {few(sorted(skipped))}" if skipped else "it is empty"
        empty.faults.append(f"'{folder}' must hold images ({' '.join(SUFFIXES)}), {inside}; put them there, a folder per class")
        return empty
    listing = from_manifest(manifest, found, group) if manifest.is_file() else _from_folders(folder, found)
    if skipped:
        kinds = class_order(PurePosixPath(name).suffix.lower() or "no ending" for name in skipped)
        listing.notes.append(f"{len(skipped)} other file{'s' if len(skipped) != 1 else ''} skipped ({few(kinds)})")
    return listing


def _images_in(folder: Path) -> tuple[list[str], list[str]]:
    """Relative names of the images below a folder and of the other files in it, sorted; hidden ones are passed over."""
    images: list[str] = []
    others: list[str] = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        for name in files:
            relative = (Path(root) / name).relative_to(folder).as_posix()
            if name.startswith(".") or relative == MANIFEST or name.lower() in ("thumbs.db", "desktop.ini"):
                continue
            (images if name.lower().endswith(SUFFIXES) else others).append(relative)
    return sorted(images), sorted(others)


def _from_folders(folder: Path, found: list[str]) -> Listing:
    loose = [name for name in found if "/" not in name]
    faults = []
    if len(loose) == len(found):
        faults.append(
            f"'{folder}' must hold a folder per class, it has {count(len(found))} and no class folders; make them, or add a {MANIFEST} (file,label,patient)"
        )
    elif loose:
        faults.append(
            f"every image must lie in a class folder, {len(loose)} lie beside them: {few(loose)}; move {them(loose)} or add a {MANIFEST}"
        )
    filled = {name.split("/")[0] for name in found if "/" in name}
    void = [p.name for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith((".", "__")) and p.name not in filled]
    if void and filled:
        faults.append(f"a class needs images, {len(void)} class folders have none: {few(void)}; fill or remove {them(void)}")
    files = [name for name in found if "/" in name]
    return Listing(files, [name.split("/")[0] for name in files], None, None, [], [], faults)
