"""Images that show one object again: planes of a stack, times, channels, magnifications, by their files' names.
Comes in: names of images. Goes out: those of each object. Exists because the next plane of a stack looks unlike enough to be no copy, and a
score of an object that stood in the training is worth nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from trainables.data.crossed import crossed
from trainables.data.listing import UNKNOWN
from trainables.data.mixed_names import STAIN
from trainables.data.placed import placed_on
from trainables.data.words import count, few

_CHANNEL = rf"(?:{STAIN}|texas ?red|alexa ?\d*|af\d{{3}}|overlay|red|green|blue|rgb|h&?e|pas|ihc|masson|giemsa)"
_SURE = (
    r"(?:(?:z|t|ch|tp|slice|frame|time|time ?point|channel|plane|focus|layer|wavelength|view|angle|page|stack|section|exposure|scan|day)"
    rf"[ _.=-]?\d+|(?:w\d)?{_CHANNEL}\d*(?: \(rgb\))?|\d{{1,4}} ?(?:x|h|hrs?|min|sec|ms)|before|after|pre|post)"
)
_MAY = r"(?:[csw]\d+)"  # a cell, a colony, a sample as well as a channel, a section, a wavelength
_OPERA = r"(?:ch\d+sk\d+fk\d+fl\d+|c\d+_org)"  # Opera's and Operetta's names
_AT_END = re.compile(
    rf"(?P<of>.+?)(?P<by>(?:[ _.=-]+(?:{_OPERA}|{_SURE}|{_MAY})|[ _.-]*[(\[]{_SURE}[)\]]|(?<=\d)(?:z|t|ch|c|w)\d{{1,4}})+)", re.IGNORECASE
)
_FIJI = r"c\d+-|(?:max|min|avg|sum|std|med)_"  # channels that it split, stacks that it projected
_IN_FRONT = re.compile(rf"(?P<by>(?:(?:{_SURE})[ _.-]+|{_FIJI})+)(?P<of>.+)", re.IGNORECASE)
_FOLDER = re.compile(rf"(?:z|ch|slice|frame|channel|plane)[ _]?\d+|{_CHANNEL}|\d{{1,4}}x", re.IGNORECASE)  # in which objects have one name
_ONLY_MAY = re.compile(r"[ _.=-]*[csw]\d+", re.IGNORECASE)
_COPY = re.compile(r"(?P<of>.+?)(?:[_.](?:png|jpe?g|tiff?|bmp))?[._]rf[._][0-9a-f]{8,}", re.IGNORECASE)  # of Roboflow's, augmented
FEWEST = 3  # objects of a class, of which a split can give each part one


def _object(name: str, label: str) -> tuple[str, bool | None]:
    """What a name says beside plane, time and channel, and whether it surely says one of these; None where it says none."""
    path = PurePosixPath(name)
    folders = [word for word in path.parts[:-1] if not _FOLDER.fullmatch(word)]
    stem = path.stem
    sure: bool | None = None
    if match := _COPY.fullmatch(stem):
        stem, sure = match["of"], True
    if slide := placed_on(stem):  # whatever folders of classes its tiles lie in
        return slide.casefold(), True
    if len(folders) < len(path.parts) - 1:  # one number in two such folders; classes may be called red and green
        folders, sure = [label, *folders], True
    for way in (_AT_END, _IN_FRONT):
        if (match := way.fullmatch(stem)) and re.search(r"[^\W_]", match["of"]):
            stem, sure = match["of"], bool(sure) or not _ONLY_MAY.fullmatch(match["by"])
    return "/".join([*folders, stem]).casefold(), sure


def _found(files: Sequence[str], labels: Sequence[str]) -> list[tuple[list[int], bool]]:
    """The images of each object, and whether their names surely say so; an object of one image is one too."""
    objects: dict[str, list[int]] = {}
    said: dict[str, bool] = {}
    for i, (name, label) in enumerate(zip(files, labels, strict=True)):
        key, sure = _object(name, label)
        objects.setdefault(key, []).append(i)
        if sure is not None:
            said[key] = said.get(key, False) or sure
    if files and len(objects) == len(files) and (rests := crossed(files, labels)):
        objects = {}
        for i, rest in enumerate(rests):
            objects.setdefault(f"{labels[i]}/{rest}", []).append(i)
        said = dict.fromkeys(objects, True)
    return [
        (some, said.get(key, False)) for key, members in objects.items() for some in ([members] if key in said else [[i] for i in members])
    ]


def again(files: Sequence[str], labels: Sequence[str]) -> set[int]:
    """The images that show an object which another one shows already."""
    return {i for members, _ in _found(files, labels) for i in members[1:]}


def _of_one(patients: Sequence[str], members: Sequence[int]) -> bool:
    """Whether images may be one patient's, and nothing ties them yet."""
    owners = {patients[i] for i in members}
    return len(owners) > 1 >= sum(not owner.startswith(UNKNOWN) for owner in owners)


def tied_series(
    files: Sequence[str], labels: Sequence[str], patients: Sequence[str] | None, parts: Sequence[str] | None
) -> tuple[list[tuple[int, int]], list[str]]:
    """(pairs that a split keeps on one side, warnings). Where a class would have fewer than FEWEST objects, the names may number the
    objects themselves, and nothing is tied."""
    found = _found(files, labels)
    several = [(members, sure) for members, sure in found if len(members) > 1]
    objects: dict[str, int] = {}
    for members, _ in found:
        for label in {labels[i] for i in members}:
            objects[label] = objects.get(label, 0) + 1
    held = {labels[i] for members, _ in several for i in members}
    loose = [members for members, _ in several if patients is None or _of_one(patients, members)]
    if not loose:
        return [], []
    example = few([files[i] for i in loose[0]], 2)
    if few_of := [label for label in held if objects[label] < FEWEST]:
        names = [files[members[0]] for members, sure in several if sure]
        if not any(placed_on(PurePosixPath(name).stem) or re.search(r"\d", _object(name, "")[0].rpartition("/")[2]) for name in names):
            return [], []
        return [], [
            f"files are called as planes, times, channels or tiles of one object are ({example}), and class {few_of[0]} has "
            f"{count(objects[few_of[0]], 'object')} then, too few to split: if they show one object, a split parts it; "
            "write a column patient"
        ]
    total = sum(len(members) for members, _ in several)
    pairs = [(members[0], i) for members in loose for i in members[1:]]
    torn = sum(len({parts[i] for i in members}) > 1 for members, _ in several) if parts is not None else 0
    return pairs, [
        f"{count(total)} are planes, times, channels, magnifications, copies or tiles of {count(len(several), 'object')} by their names "
        f"({example}): a split keeps these together, and each object counts as often as it has images",
        *([f"the split that comes with the data parts {count(torn, 'object')} of several images; correct or drop it"] if torn else []),
    ]
