"""What names of files say: that one is a copy of another, and whose they are.
Comes in: names of images. Goes out: pairs of an original and its copy; the word of each that may name a patient. Exists because programs
and people write into a file's name what no folder and no table says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from trainables.data.mixed_names import ACCESSION, MARKER, PATIENT_WORDS
from trainables.data.series import again
from trainables.data.words import part_of, same

CHANGE = (
    r"(?:rot|rotated?|aug|augmented|flip|flipped|hflip|vflip|fliph|flipv|hf|vf|lr|ud|mirror|mirrored|copy|kopie|copie|copia|scaled|jpe?g"
    r"|bright|brightness|contrast|gamma|noise|noisy|blur|blurred|shift|shifted|crop|cropped|zoom|resized|elastic|r(?=\d)|v(?=\d))"
)
# What programs and people make of x: x_rot25, x - Copy (2), aug_x, Copy of x, x_0_1234 (Keras), class_original_x.png_<uuid> (Augmentor).
COPY = (
    re.compile(rf"(?P<of>.+?)(?:[ _.-]*\(\d+\)|[ _.-]+{CHANGE}[ _.-]*\d*)+", re.IGNORECASE),
    re.compile(rf"(?:{CHANGE}[ _.-]*\d*[ _.-]+(?:of[ _]|de[ _]|von[ _])?)+(?P<of>.+)", re.IGNORECASE),
    re.compile(r"(?P<of>.+)_\d+_\d{2,5}"),
    re.compile(r".*?_original_(?P<of>.+?)\.(?:png|jpe?g|tiff?|bmp)_[0-9a-f-]{6,}", re.IGNORECASE),
)
_SAVED = r"(?:copy|kopie|copie|copia|backup|bak|old|alt|aug|augmented|augmentation|rot(?:ated)?\d*|[hv]?flip(?:ped)?|mirror(?:ed)?)"
FOLDER_COPY = (
    re.compile(rf"(?P<of>.+?)(?:[ _.-]*\(\d+\)|[ _.-]+{_SAVED}[ _.-]*\d*)+", re.IGNORECASE),
    re.compile(rf"(?:{_SAVED}[ _.-]*\d*[ _.-]+(?:of[ _]|de[ _]|von[ _])?)+(?P<of>.+)", re.IGNORECASE),
)  # tumour - Copy, tumour (2), tumour_augmented, old_tumour
_OF_AN_IMAGE = (
    r"(?:cp[ _.\-]+masks?|cp[ _.\-]+outlines?|masks?|segs?|(?:simple[ _.\-]+)?segmentations?|segmented|overlays?|thumbs?|thumbnails?|gts?"
    r"|previews?|(?:object[ _.\-]+)?(?:probabilit(?:y|ies)|predictions?|identities)|preds?|uncertainty|thresh(?:old)?|heat[ _.\-]?maps?"
    r"|grad[ _.\-]?cam"
    r"|ground[ _.\-]?truth|labels?|labell?ed|outlines?|contours?|bw|binary|annotated|annotations?|rois?)"
)
BESIDE = (
    re.compile(rf"(?P<of>.+?)[ _.\-]+{_OF_AN_IMAGE}(?:[ _.\-]*\d+)?", re.IGNORECASE),
    re.compile(rf"(?P<of>.+?)(?:[ _.\-]+{_OF_AN_IMAGE}){{2}}", re.IGNORECASE),
    re.compile(rf"{_OF_AN_IMAGE}[ _.\-]+(?P<of>.+)", re.IGNORECASE),
    re.compile(r"(?P<of>.*[a-z\d])(?:Mask|Masks|Seg|Overlay|Outline|Label|GT)\d*"),
)  # x_mask, x_cp_outlines, x_mask_1, x_seg_mask, mask_x, xMask
CALLED = PATIENT_WORDS - {"cell", "sample", "id", "sub", "ind", "specimen"}  # wherever they stand in a name
CALLED_SO = re.compile(rf"(?:{'|'.join(sorted(CALLED))})\d+[a-z]?")
NUMBERED = {
    "", "cell", "img", "image", "im", "x", "file", "crop", "frame", "tile", "patch", "object", "obj", "nucleus", "snap", "scan", "pic",
}  # fmt: skip
INITIALS = re.compile(r"[A-Z]{2,3}")
FEWEST_INITIALS = 4  # fewer are as well conditions, WT and KO
REPEATS = 0.5  # of the images: so many share their first word with another one where it names whose they are


def named_pairs(files: Sequence[str]) -> list[tuple[int, int]]:
    """Originals and their copies, the first of the list first."""
    return [(min(pair), max(pair)) for pair in _copies(files)]


def _copies(files: Sequence[str]) -> list[tuple[int, int]]:
    """(original, copy) by their names: x_rot25, x_aug1, x (1), x_flip beside an x of the same kind of place."""
    stems = {PurePosixPath(name).with_suffix("").as_posix().casefold(): i for i, name in reversed(list(enumerate(files)))}
    by_name: dict[str, list[int]] = {}
    for i, name in enumerate(files):
        by_name.setdefault(PurePosixPath(name).stem.casefold(), []).append(i)
    pairs = []
    for i, name in enumerate(files):
        path = PurePosixPath(name)
        for original in (match["of"].casefold() for way in COPY if (match := way.fullmatch(path.stem))):
            own = stems.get((path.parent / original).as_posix().casefold())
            found = [own] if own is not None else by_name.get(original, [])[:1]
            pairs += [(j, i) for j in found if j != i]
    return pairs


def copied_folders(names: Iterable[str]) -> dict[str, str]:
    """Copy -> original, of folders one of which is called as a copy of another is."""
    known = {same(name): name for name in names}
    pairs = [(name, known.get(same(match["of"]))) for name in known.values() for way in FOLDER_COPY if (match := way.fullmatch(name))]
    return {name: original for name, original in pairs if original is not None}


def originals_of(word: str) -> list[str]:
    """What a name would belong to if it were a mask's, an outline's or a thumbnail's."""
    return [match["of"] for way in BESIDE if (match := way.fullmatch(word))]


def owners(files: Sequence[str], labels: Sequence[str]) -> list[str]:
    """A word of each file's name that may be its patient's, slide's or tile's: H12-10457 of `H12-10457 3`, the first (P01 of P01_03,
    patient 2 of patient_2_cell_5, initials: KM of KM_03), or one that is called as a patient is (P01 of normal_03_P01). [] where there is
    none."""
    stems = [PurePosixPath(name).stem for name in files]
    words = [[word for word in re.split(r"[\W_]+", stem) if word] for stem in stems]
    copies: set[int] | None = None
    for reading in (map(_accession, stems), map(_first, words), map(_patient, words), map(_initials, words)):
        found = list(reading)
        if all(found):
            copies = {copy for _, copy in _copies(files)} | again(files, labels) if copies is None else copies
            if _may_own(found, labels, copies):
                return found
    return []


def _accession(stem: str) -> str:
    match = ACCESSION.search(stem)
    return match[0] if match else ""


def _first(words: list[str]) -> str:
    """The first of several words, if it has a number; with the second where that is the number of a patient."""
    if len(words) > 2 and words[0].casefold() in PATIENT_WORDS:
        words = [" ".join(words[:2]), *words[2:]]
    return words[0] if len(words) > 1 and re.search(r"\d", words[0]) else ""


def _patient(words: list[str]) -> str:
    """P01 or patient 2 among several words; '' where none is called so."""
    for i, word in enumerate(words):
        if len(words) > 1 and CALLED_SO.fullmatch(word.casefold()):
            return word
        if len(words) > 2 and word.casefold() in CALLED and i + 1 < len(words) and re.search(r"\d", words[i + 1]):
            return f"{word} {words[i + 1]}"
    return ""


def _initials(words: list[str]) -> str:
    return words[0] if len(words) > 1 and INITIALS.fullmatch(words[0]) and words[1].isdecimal() else ""


def _may_own(found: Sequence[str], labels: Sequence[str], copies: set[int]) -> bool:
    """Whether words may be patients': most stand in several names (of one class, where they are but numbers), and they are not the classes
    in other words."""
    own = [i for i in range(len(found)) if i not in copies]
    numbered = all(re.sub(r"[\W\d_]+", "", found[i]).casefold() in NUMBERED for i in own)
    kinds = Counter((labels[i], found[i]) if numbered else found[i] for i in own)
    if len(set(found)) < 2 or sum(number for number in kinds.values() if number > 1) < REPEATS * len(own):
        return False
    if all(re.fullmatch(r"\d+x", word, re.IGNORECASE) for word in found) or all(
        re.fullmatch(MARKER, word, re.IGNORECASE) for word in found
    ):
        return False  # magnifications, stains
    if all(map(INITIALS.fullmatch, found)) and len(set(found)) < FEWEST_INITIALS:
        return False
    return not len(set(zip(found, labels, strict=True))) == len(set(found)) == len(set(labels))


def parts_of_files(files: Sequence[str]) -> str:
    """That the names of all files say a part of a split, in words; ''."""
    words = ([*filter(None, map(part_of, re.split(r"[\W_\d]+", PurePosixPath(name).stem)))] for name in files)
    parts = {said[0] if len(set(said)) == 1 else "" for said in words}
    if "" in parts or len(parts) < 2:
        return ""
    return f"the files' names say a part of a split each ({', '.join(sorted(parts))}), and a study draws its own"
