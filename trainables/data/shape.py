"""What the levels of a tree of folders mean: parts, classes, patients.
Comes in: names of images with their folders. Goes out: labels, patients and parts in a `Listing`; a fault with both readings where two
fit. Exists because train/, a patient's folder and a fold are no classes, and a score of them is worth nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from trainables.data.listing import MANIFEST, Listing
from trainables.data.mixed_names import DATE, MARKER, PATIENT_WORDS, PEOPLE, YEAR, said_beside_class
from trainables.data.no_classes import not_classes
from trainables.data.stems import copied_folders, parts_of_files
from trainables.data.tree import Tree
from trainables.data.words import MOST_OF_A_KARYOTYPE as MOST
from trainables.data.words import as_karyotype, class_order, count, few, is_missing, part_in, part_of, same, shown, them

LEVELS = ("class", "patient", "part", "-")
SURELY_PATIENTS = {
    "pat", "patient", "patients", "case", "subject", "donor", "individual", "person", "proband", "karyotype", "metaphase", "tcga", *PEOPLE,
}  # fmt: skip
CLASS_WORDS = {"class", "type", "cls", "c", "chr", "chrom", "chromosome", "group", "label", "category", "grade", "stage", "klasse"}
MASKS = {
    "mask", "masks", "seg", "segs", "segmentation", "segmentations", "segmentation masks", "overlay", "overlays", "preview", "previews",
    "label", "labels", "annotation", "annotations", "gt", "ground truth", "groundtruth",
}  # fmt: skip
MAGNIFICATIONS = {"4", "5", "10", "20", "40", "60", "63", "100", "200", "400", "630", "1000"}  # of objectives, and with eyepieces
FEW_VALUES = 5  # round numbers, up to which they are as well angles, doses or exposures as patients
OWN = 4  # numbers, from which on it is no chance that none stands in two classes
FROM_0 = set(map(str, range(10)))  # numbers of classes, beside a level of words for patients
WITHIN = re.compile(  # what a patient has several of
    r"(?:slide|roi|cell|field|fov|image|img|tile|section|series|stack|day|visit|session|block|region|well|pos|position|core|spot|scan"
    r"|acquisition|experiment|exp|run|batch|plate|z|\d+x)[ ]?\d*"
)
FOLD = re.compile(r"(?:fold|folds|split|cv|kfold|round|rep|repeat)[ ]?\d+")


def from_folders(folder: Path, images: Sequence[str], tree: Tree, layout: str, listing: Listing) -> None:
    """Fills the listing from the folders' names. layout: `class/patient` and the like; '': what the names look like."""
    root = shown(str(folder))
    loose = [name for name in images if "/" not in name]
    if len(loose) == len(images):
        listing.faults.append(
            f"'{root}' must hold a folder per class, it has {count(len(images))} and no class folders; "
            f"make them, or add a {MANIFEST} (file,label,patient)"
        )
        return
    if loose:
        listing.faults.append(
            f"every image must lie in a class folder, {len(loose)} lie beside them: {few([shown(name) for name in loose])}; "
            f"move {them(loose)} or add a {MANIFEST}"
        )
    files = [name for name in images if "/" in name]
    levels = [tuple(name.split("/")[:-1]) for name in files]
    chosen, faults = _asked(layout, levels) if layout else _looks_like(levels, root)
    if faults:
        listing.faults += faults
        return
    if not layout and "part" not in chosen and (said := parts_of_files(files)):
        listing.faults.append(f"{said}; put the files into folders called so, {_write_down(root, '/'.join(chosen))}")
    depth = len(chosen)
    filled = {"/".join(level[:i]) for level in levels for i in range(1, len(level) + 1)}
    upto = chosen.index("class") + 1
    others = {above.as_posix() for name in tree.others for above in PurePosixPath(name).parents}  # docs/ and scripts/ are not meant
    void = [
        shown(name)
        for name in tree.folders
        if name.count("/") < upto and name not in filled and not MASKS & set(map(same, name.split("/"))) and name not in others
    ]
    if void:
        listing.faults.append(f"a class needs images, {len(void)} class folders have none: {few(void)}; fill or remove {them(void)}")
    columns = {word: [level[i] for level in levels] for i, word in enumerate(chosen) if word != "-"}
    if not layout and (why := not_classes(set(columns["class"]))):
        listing.faults.append(f"{why}; or, if it is meant so, {_say(root, '/'.join(chosen))}")
    if "patient" in columns and (copied := copied_folders(columns["patient"])):
        columns["patient"] = [copied.get(name, name) for name in columns["patient"]]
        listing.notes.append(
            f"patients' folders taken for copies: {few([f'{shown(n)} = {shown(of)}' for n, of in sorted(copied.items())])}"
        )
    listing.files, listing.labels = files, columns["class"]
    listing.patients, listing.parts = columns.get("patient"), columns.get("part")
    listing.layout = "/".join(chosen)
    for word in (word for word in chosen if word != "-"):
        found = class_order(map(shown, columns[word]))
        listing.levels.append(f"{word}: the {ORDINAL[chosen.index(word)]} folder ({len(found)}: {few(found, 4)})")
    if depth > 1 and "-" in chosen:
        listing.notes.append(
            f"folders that were taken to mean nothing: level {', '.join(str(i + 1) for i, w in enumerate(chosen) if w == '-')}"
        )
    classes = set(columns["class"])
    if (
        "patient" not in chosen
        and not layout
        and kind_of_level(classes) == "patient"
        and any(re.search(r"[^\W\d]", name) for name in classes)
    ):
        listing.warnings.append(
            f"classes are called {few([shown(name) for name in class_order(classes)], 3)}, as patients or cells are; if they are patients, "
            f"put a folder per class into each, or write a {MANIFEST} (file,label,patient); if they are classes, {_say(root, 'class')}"
        )
    if "patient" in columns and not layout and all(DATE.fullmatch(name) for name in columns["patient"]):
        listing.warnings.append("folders are called as days are and taken as the patients: what was recorded on one day stays on one side")
    if words := [shown(name) for name in class_order(columns["class"]) if is_missing(name)]:
        listing.warnings.append(
            f"a class is called {few(words)}, as if nothing was known: it is taken as a class; move it away if it is none"
        )


ORDINAL = ("first", "second", "third", "fourth", "fifth", "sixth")


def _asked(layout: str, levels: Sequence[tuple[str, ...]]) -> tuple[list[str], list[str]]:
    """A layout in words."""
    chosen = [word.strip().casefold() for word in layout.split("/")]
    wrong = [word for word in chosen if word not in LEVELS]
    if wrong or chosen.count("class") != 1 or any(chosen.count(word) > 1 for word in ("patient", "part")):
        return [], [
            f"--layout names each level of folders once, class among them, with {', '.join(LEVELS)}, got '{layout}'; for example "
            "class/patient"
        ]
    short = sum(len(level) < len(chosen) for level in levels)
    if short:
        return [], [f"--layout {layout} has {len(chosen)} levels, {count(short)} lie in fewer folders; name fewer levels, or move them"]
    return chosen, []


def _looks_like(levels: Sequence[tuple[str, ...]], root: str) -> tuple[list[str], list[str]]:
    """What the levels are taken for, or why that cannot be told."""
    depths = {len(level) for level in levels}
    fewest, most = min(depths), max(depths)
    names = [sorted({level[i] for level in levels}) for i in range(fewest)]
    chosen = [""] * fewest
    for i, found in enumerate(names):
        parts = [name for name in found if part_of(name)]
        if parts and (len(parts) == len(found)) and (len(found) > 1 or fewest > 1):
            chosen[i] = "part"
        elif len({part_of(name) for name in parts}) > 1:
            rest = [shown(name) for name in found if not part_of(name)]
            return [], [
                f"folders called {few([shown(name) for name in parts])} look like parts of a split and not like classes, beside "
                f"{few(rest)}; "
                f"move {them(rest)} away, {_write_down(root, 'class')}"
            ]
        elif len(found) > 1 and all(FOLD.fullmatch(same(name)) for name in found):
            below = len({level[i + 1] for level in levels if len(level) > i + 1})
            return [], [
                f"folders called {few([shown(name) for name in found])} look like folds of a cross-validation and not like classes"
                + (f" ({below} names below them repeat)" if below else "")
                + f"; a study draws its own split: put them together, {_write_down(root, '-/class' if below else 'class')}"
            ]
    if chosen.count("part") > 1:
        return [], [f"two levels of folders look like parts of a split (train, val, test); keep one, {_write_down(root, 'part/-/class')}"]
    if chosen == ["part"] * fewest and fewest == 1 and most == 1:
        return [], [
            f"the folders of '{root}' are called {few([shown(name) for name in names[0]])}: these are parts of a split and not "
            "classes; put a folder "
            f"per class into each, {_write_down(root, 'class')}"
        ]
    if fewest != most:
        return [], [_uneven(levels, fewest, most, root)]
    for i, found in enumerate(names):
        if not chosen[i] and len(found) == 1 and sum(not word for word in chosen) > 1:
            if i == 0:
                return [], [
                    f"'{root}' holds one folder, {shown(found[0])}, and folders inside it; name '{root}/{shown(found[0])}' if the "
                    f"classes lie there, {_write_down(root, 'class/patient')}"
                ]
            chosen[i] = "-"  # images/ in every class
    free = [i for i, word in enumerate(chosen) if not word]
    if len(free) == 1:
        if (names_of := {level[free[0]] for level in levels}) and named_patients(names_of):
            return [], [
                f"the folders are called {few([shown(name) for name in class_order(names_of)], 3)}, as patients are, and nothing "
                f"else says what the classes are; put a folder per class into each, {_write_down(root, _fill(chosen, free, ('class',)))}"
            ]
        some = few([shown(name) for name in class_order(names_of)], 3)
        if fault := said_beside_class(names_of):
            return [], [
                f"the folders are called {some}, {fault}; put a folder per class into one per patient, or write a {MANIFEST} "
                f"(file,label,patient); or each is a class: {_say(root, _fill(chosen, free, ('class',)))}"
            ]
        if len(spoken := {part for name in names_of if (part := part_in(name))}) > 1 and all(map(part_in, names_of)):
            return [], [
                f"the folders are called {few([shown(name) for name in class_order(names_of)], 3)}: part ({', '.join(sorted(spoken))}) "
                f"and class in one name; put a folder per class into one per part (train/normal), or write a {MANIFEST} (file,label,split)"
            ]
        chosen[free[0]] = "class"
    elif len(free) == 2:
        order = _two(levels, *free)
        if order is None:
            a, b = (few([shown(name) for name in names[i]], 3) for i in free)
            ways = [_fill(chosen, free, words) for words in (("class", "patient"), ("patient", "class"), ("class", "-"), ("-", "class"))]
            return [], [f"which folders are the classes cannot be told: {a} or {b}, one inside the other; {_say(root, *ways)}"]
        chosen = _fill(chosen, free, order).split("/")
    elif len(
        upper := [i for i in free if not all(WITHIN.fullmatch(same(n)) or DATE.fullmatch(n) for n in names[i]) or i < free[1]]
    ) == 2 and (order := _two(levels, *upper)):
        chosen = [word or "-" for word in _fill(chosen, upper, order).split("/")]
    elif free:
        ways = [_fill(chosen, free, (*words, *["-"] * (len(free) - 2))) for words in (("class", "patient"), ("patient", "class"))]
        return [], [f"{len(free)} levels of folders, of which one must be the classes; {_write_down(root, *ways)}"]
    if "class" not in chosen:
        return [], [
            f"no level of the folders of '{root}' can be the classes: {few([shown(name) for name in names[0]])}; make a folder per class"
        ]
    return chosen, []


def _fill(chosen: Sequence[str], free: Sequence[int], words: Sequence[str]) -> str:
    by_level = dict(zip(free, words, strict=True))
    return "/".join(by_level.get(i, word) for i, word in enumerate(chosen))


def _write_down(root: str, *ways: str) -> str:
    """What else to do where the folders do not say it themselves."""
    return f"or {_say(root, *ways)}"


def _say(root: str, *ways: str) -> str:
    options = " or ".join(f"--layout {way}" for way in ways)
    place = shlex.quote(root)
    return f"say what they are and write it down: python -m search data check {place} {options} --fix {shlex.quote(f'{root}/{MANIFEST}')}"


def _uneven(levels: Sequence[tuple[str, ...]], fewest: int, most: int, root: str) -> str:
    shallow = ["/".join(level) for level in levels if len(level) == fewest]
    if fewest == 1 and all(part_of(name) and any(part_of(level[0]) and level[0] != name for level in levels) for name in set(shallow)):
        return (
            f"{count(len(shallow))} in {few([shown(name) for name in class_order(shallow)])} lie in no class folder, beside parts with "
            "class folders: without their classes nothing can be learned from them and nothing tested on them; move them out of the data "
            "(predict reads them with the finished model)"
        )
    deep = class_order("/".join(level) for level in levels if len(level) > fewest)
    return (
        f"all images must lie in equally many folders, {len(shallow)} lie in {fewest} "
        f"({few([shown(n) for n in class_order(shallow)], 3)}) and "
        f"{len(levels) - len(shallow)} in up to {most} ({few([shown(name) for name in deep], 3)}); move them, {_write_down(root, 'class')}"
    )


def _two(levels: Sequence[tuple[str, ...]], a: int, b: int) -> tuple[str, str] | None:
    """(what level a is, what level b is): class and patient in some order, or None where both fit or neither does."""
    first, second = ({level[i] for level in levels} for i in (a, b))
    repeats = len({(level[a], level[b]) for level in levels}) > len(second)  # a name of the second level stands in two of the first
    kinds = kind_of_level(first), kind_of_level(second)
    if "class" not in kinds and not any(re.search(r"[^\W\d]", name) for name in first | second):
        return None  # numbers within numbers
    if "patient" not in kinds and not repeats and len(second) >= OWN and all(name.isdecimal() for name in second):
        kinds = kinds[0], "patient"  # doses, years and magnifications stand in each class, a patient's number in one
    if kinds == ("patient", "patient"):  # 0 and 1 beside P01
        kinds = ("" if first <= FROM_0 else kinds[0]), ("" if second <= FROM_0 else kinds[1])
    if kinds[0] != "patient" and kinds[1] == "patient":
        return "class", "patient"
    if kinds[0] == "patient" and kinds[1] != "patient" and repeats:
        return "patient", "class"
    if kinds == ("class", ""):
        return ("class", "patient") if _ids_alone(second) else None
    if kinds == ("", "class") and repeats:
        return ("patient", "class") if _ids_alone(first) else None
    return None


def kind_of_level(names: set[str]) -> str:
    """`patient` or `class`, where the names of a level say so; ''."""
    names = names - copied_folders(names).keys()
    if len(names) > 1 and as_karyotype(names):  # bare numbers are as well those of patients, cells or repeats, unless most of a karyotype
        return "class" if len(names) >= MOST or any(re.search(r"[^\W\d]", name) for name in names) else ""
    stems = {re.sub(r"[\d\W_]+", " ", same(name)).strip() for name in names}
    words = {word for stem in stems for word in stem.split()}
    if len(stems) == 1 and words and words <= CLASS_WORDS and not words & PATIENT_WORDS:
        return "class"
    stained = all(re.fullmatch(MARKER, name, re.IGNORECASE) for name in names)  # p16 and p53
    if words and words & PATIENT_WORDS and len(stems) == 1 and _ids(names) and not stained:
        return "patient"
    numbers = len(stems) == 1 and not words and _ids(names) and not as_karyotype(names)
    return "patient" if numbers and not names <= MAGNIFICATIONS and not _measured(names) else ""


def _measured(names: set[str]) -> bool:
    """Whether numbers may be years, angles, doses or exposures rather than patients."""
    return all(map(YEAR.fullmatch, names)) or (len(names) <= FEW_VALUES and all(name.isdecimal() and int(name) % 5 == 0 for name in names))


def _ids_alone(names: set[str]) -> bool:
    """Whether each name has a number and they have no word in common: 40x, rot90, aug1 and scope2 are no patients."""
    stems = {re.sub(r"[\d\W_]+", " ", same(name)).strip() for name in names}
    return _ids(names) and (len(stems) > 1 or stems == {""})


def named_patients(names: set[str]) -> bool:
    """Whether all names of a level say that they are patients: `Patient 3`, `TCGA-A1-A0SP`; P01 might be a class."""
    return kind_of_level(names) == "patient" and all(set(re.findall(r"[^\W\d_]+", same(name))) & SURELY_PATIENTS for name in names)


def _ids(names: set[str]) -> bool:
    """Whether each name has a number in it, as those of patients have."""
    return all(re.search(r"\d", name) for name in names)
