"""Images in a folder: whatever is odd in it is named.
Comes in: a folder. Goes out: a `Listing` with all that is wrong with it. Exists so that all faults of a folder are said at once and none
of its images is left out without a word."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from trainables.data.annotated import contradicted
from trainables.data.listing import MANIFEST, Listing, settled
from trainables.data.manifest import from_manifest
from trainables.data.masks import without_masks
from trainables.data.open import SUFFIXES
from trainables.data.series import tied_series
from trainables.data.shape import from_folders
from trainables.data.stand_ins import text_link
from trainables.data.stems import owners
from trainables.data.tree import IN_CLOUD, Tree, walk
from trainables.data.which_table import choose_tables
from trainables.data.words import class_order, count, few, is_missing, shown, them

IMAGES_NOT_READ = (
    ".webp", ".gif", ".jp2", ".j2k", ".jpx", ".svs", ".ndpi", ".czi", ".nd2", ".lif", ".vsi", ".mrxs", ".scn", ".oib", ".oif", ".lsm",
    ".dcm", ".npy", ".npz", ".mat", ".h5", ".hdf5", ".zarr", ".nii", ".nrrd", ".mha", ".raw", ".heic", ".heif", ".avif", ".psd", ".dng",
    ".cr2", ".nef", ".jfif", ".jpe", ".jxl", ".pgm", ".ppm", ".pbm", ".pnm", ".tga", ".dib", ".ico", ".pcx", ".sgi", ".xcf", ".fits",
    ".emf", ".wmf", ".zip", ".rar", ".7z", ".tar", ".tgz", ".gz",
    ".zvi", ".stk", ".lei", ".ims", ".bif", ".dv", ".mrc", ".qptiff", ".btf", ".exr", ".arw",
)  # fmt: skip
OF_A_SLIDE = re.compile(
    r"(?i).+[\W_](?:macro|label|overview|barcode|thumbnail|slide ?preview)(?: ?image)?"
)  # that scanners write beside it
ELSEWHERE = (IN_CLOUD, ".crdownload", ".part", ".partial", ".download", ".opdownload", ".aria2", ".filepart", ".lnk", ".webloc")
MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM", b"GIF8")
LISTS = (".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".parquet", ".pkl", ".db", ".sqlite")  # that may name images
LOOKED_INTO = 1 << 20  # bytes of a file that may name images


def list_folder(folder: str | Path, group: str = "patient", layout: str = "") -> Listing:
    """Files and labels of a folder of class folders; a table with file and label, where there is one, decides over the folders' names.
    layout: what the levels of folders are, such as class/patient; '': what they look like."""
    folder = Path(folder)
    if fault := no_folder(folder):
        return Listing(faults=[fault])
    tree = walk(folder)
    listing = Listing()
    _odd(tree, listing)
    _text_links(folder, tree, listing)
    tables = choose_tables(folder, tree.others, tree.images, listing)
    images = without_masks(tree.images, shown(str(folder)), bool(layout or tables), listing)
    if 0 < len(beside := [name for name in images if OF_A_SLIDE.fullmatch(PurePosixPath(name).stem)]) < len(images):
        listing.warnings.append(
            f"{count(len(beside))} called as what scanners write beside a slide, its label or an overview of it, taken as objects: "
            f"{few([shown(name) for name in beside], 3)}; move them out of the data"
        )
    if {"data.json", "images.npy"} <= set(tree.others):
        listing.faults.append(
            f"'{shown(str(folder))}' is a packed set, which a study reads as it is; inspect the folder of images that it was made of"
        )
        return listing
    if not tables and not layout and (kind := prepared_as(tree)):
        listing.faults.append(
            f"'{shown(str(folder))}' holds whole tiles with their cells ({kind}), and no folder per class; "
            f"cut the cells out first: python -m search data prepare {kind} {shlex.quote(shown(str(folder)))} OUT"
        )
        return listing
    if not images and not tables:
        if not listing.faults:
            inside = f"it holds {few([shown(name) for name in tree.others])}" if tree.others else "it is empty"
            step = "save these as PNG or TIFF (unpack archives)" if unread_images(folder, tree.others) else "put them there"
            listing.faults.append(f"'{shown(str(folder))}' must hold images ({' '.join(SUFFIXES)}), {inside}; {step}, a folder per class")
        return listing
    if tables and layout:
        listing.faults.append(
            f"{few([shown(name) for name in tables])} names the images, and --layout says what the folders are; leave --layout out, or "
            "move the table out of the data"
        )
    elif tables:
        from_manifest(folder, tables, images, group, listing)
    else:
        from_folders(folder, images, tree, layout, listing)
    if group == "patient" and listing.owned is not None and listing.files and not (tables and "patient" in listing.columns):
        patients, where = listing.owned
        listing.patients = [patients.get(name, "") for name in listing.files]
        listing.levels = [line for line in listing.levels if not line.startswith("patient:")] + [f"patient: {where}, by folder"]
    if group == "patient" and (listing.patients is None or all(map(is_missing, listing.patients))):
        _owners(listing)
    _others(folder, tree, tables, listing)
    listing = settled(listing, group)
    series, said = tied_series(listing.names, listing.labels, listing.patients, listing.parts)
    listing.series = [*series, *listing.slides]
    listing.warnings += said
    listing.warnings += contradicted(folder, tree.others, listing)
    return listing


def _owners(listing: Listing) -> None:
    """Warns of patients that stand in the files' names alone: nobody else says that a split parts them."""
    listing.owners = owners(listing.names, listing.labels)
    if words := class_order(listing.owners):
        listing.warnings.append(
            f"no patient is named, and the files' names hold {len(words)} words that repeat ({few(words, 3)}): if they are patients, "
            f"a split parts them; --fix MANIFEST writes them into a column patient, in which you can correct them"
        )


def prepared_as(tree: Tree) -> str:
    """The word for `data prepare`, where a folder holds whole tiles and files of their cells; ''."""
    names = [PurePosixPath(name.casefold()) for name in (*tree.images, *tree.others)]
    there = {(path.parent.parent, path.parent.name, path.suffix) for path in names}
    for kind, pictures, labels, ending in (("consep", "images", "labels", ".mat"), ("nucls", "rgb", "csv", ".csv")):
        for place, word, suffix in there:
            if (word, suffix) == (labels, ending) and any((place, pictures, image) in there for image in SUFFIXES):
                return kind
    if {"images.npy", "masks.npy"} <= {path.name for path in names}:
        return "pannuke"
    stems = {path.stem for path in names if path.suffix in SUFFIXES}
    drawn = [path for path in names if path.name.endswith((".geojson", ".geojson.gz"))]
    return "qupath" if any(path.name.partition(".")[0] in {stem.partition(".")[0] for stem in stems} for path in drawn) else ""


def _text_links(folder: Path, tree: Tree, listing: Listing) -> None:
    """Links that a copy made text of: what they named is not there, and nothing else would say so."""
    found = [(name, target) for name in tree.others if not PurePosixPath(name).suffix and (target := text_link(folder / name))]
    if found:
        listing.faults.append(
            f"every link must lead to something, {len(found)} were copied as text: {few([f'{shown(n)} (to {t})' for n, t in found])}; "
            "copy the folder with its links (cp -a, tar, git with core.symlinks), or what they name"
        )
        tree.others = [name for name in tree.others if name not in dict(found)]


def no_folder(folder: Path) -> str:
    """Why a path is no folder; '' where it is one."""
    name = shown(str(folder))
    try:
        if folder.is_dir():
            return ""
        there = folder.exists()
    except OSError as fault:
        return f"the data must be a folder, '{name}' cannot be looked at ({fault.strerror}); check the path and the rights"
    if there:
        return (
            f"the data must be a folder, '{name}' is a file; name the folder that holds the class folders (an archive must be "
            "unpacked first)"
        )
    if folder.is_symlink():
        return f"the data must be a folder, '{name}' is a link that leads nowhere ({shown(os.readlink(folder))}); restore what it names"
    parent = next((p for p in folder.parents if p.is_dir()), Path("."))
    near: list[str] = []
    if parent == folder.parent:
        try:
            near = difflib.get_close_matches(folder.name, [p.name for p in parent.iterdir() if p.is_dir()], 1)
        except OSError:  # a folder that may be entered and not listed: there is no hint to give
            near = []
    hint = f"did you mean '{shown(str(parent / near[0]))}'?" if near else "check the path"
    return f"the data must be a folder, there is none at '{name}'; {hint}"


def _odd(tree: Tree, listing: Listing) -> None:
    """Folders and links that could not be followed."""
    if tree.closed:
        listing.faults.append(
            f"every folder must be readable, {len(tree.closed)} cannot be entered: {few(tree.closed)}; "
            f"give yourself the right to read {them(tree.closed)}, or move {them(tree.closed)} away"
        )
    if tree.nowhere:
        listing.faults.append(
            f"every link must lead to something, {len(tree.nowhere)} lead nowhere: {few([shown(name) for name in tree.nowhere])}; "
            f"restore what {'it names' if len(tree.nowhere) == 1 else 'they name'} or remove {them(tree.nowhere)}"
        )
    if tree.again:
        listing.warnings.append(f"links to folders that are read already, passed over: {few([shown(name) for name in tree.again])}")
    if rewritten := [shown(name) for name in tree.images if shown(name) != name]:
        listing.notes.append(
            f"{count(len(rewritten), 'file name')} of bytes that are no UTF-8, or of control signs, written down as {few(rewritten, 2)}"
        )
    if odd := [shown(name) for name in tree.passed if not PurePosixPath(name).name.startswith((".", "__"))]:
        listing.notes.append(f"{count(len(odd), 'folder')} of the system passed over: {few(odd)}")


def _is_image(path: Path) -> bool:
    """Whether a file without an ending is an image all the same."""
    if path.suffix:
        return False
    try:
        with path.open("rb") as stream:
            head = stream.read(132)
            return head.startswith(MAGIC) or head.endswith(b"DICM")
    except OSError:
        return False


def unread_images(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of the files that are images of kinds which are not read; of a folder that is one image itself."""
    folders = {name: found[1] for name in names if (found := re.match(r"(?i)(.*?\.(?:zarr|n5))/", name))}
    single = [
        name
        for name in names
        if name not in folders
        and (
            name.lower().endswith(IMAGES_NOT_READ) or re.sub(r"[\s_.~]+$", "", name.lower()).endswith(SUFFIXES) or _is_image(folder / name)
        )
    ]
    return [*single, *dict.fromkeys(folders.values())]


def not_here(names: Sequence[str]) -> list[str]:
    """Those of the files that stand for one that is elsewhere or not yet here."""
    return [name for name in names if name.lower().endswith(ELSEWHERE)]


def _names(path: Path, images: Sequence[str]) -> bool:
    """Whether a file's beginning names two of the images."""
    try:
        with path.open("rb") as stream:
            head = stream.read(LOOKED_INTO)
    except OSError:
        return False
    found = set(re.findall(r"[^\s\"'/\\<>=,:;\[\]{}()]+", head.decode("utf-8", "replace")))
    return len(found & {PurePosixPath(name).name for name in images}) > 1


def _others(folder: Path, tree: Tree, tables: Sequence[str], listing: Listing) -> None:
    """Files that are not read: counted; named where they look like images or tables that were meant."""
    rest = [name for name in tree.others if name not in tables]
    absent = not_here(rest)
    if absent:
        listing.faults.append(
            f"every file must be here in whole, {len(absent)} are unfinished downloads, stand-ins of a cloud or shortcuts: "
            f"{few([shown(name) for name in absent], 3)}; download them, or copy what they stand for, or remove them"
        )
    unread = [name for name in unread_images(folder, rest) if name not in absent]
    if unread:
        kinds = class_order(PurePosixPath(name).suffix.lower() or "no ending" for name in unread)
        listing.faults.append(
            f"{count(len(unread), 'file')} of a kind that is not read ({few(kinds)}): {few([shown(name) for name in unread], 3)}; "
            "save them as PNG or TIFF (unpack archives), or move them out of the data"
        )
    if naming := [name for name in rest if name.lower().endswith(LISTS) and _names(folder / name, tree.images)]:
        listing.warnings.append(
            f"{few([shown(name) for name in naming])} names images and is not read: labels, patients and parts stand in a table "
            f"({MANIFEST}: "
            "file,label,patient,split)"
        )
    said = {*unread, *naming, *absent}
    plain = [name for name in rest if name not in said and not any(above.as_posix() in said for above in PurePosixPath(name).parents)]
    if plain:
        kinds = class_order(shown(PurePosixPath(name).suffix.lower()) or "no ending" for name in plain)
        stems = {PurePosixPath(name).stem for name in tree.images}
        beside = sum(PurePosixPath(name).stem in stems for name in plain)
        more = f", {beside} of them called as images are: labels in these are not read" if beside > 1 else ""
        listing.notes.append(f"{len(plain)} other file{'s' if len(plain) != 1 else ''} skipped ({few(kinds)}){more}")
