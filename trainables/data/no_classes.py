"""Names of folders that are no classes of objects, though images lie in them.
Comes in: the names of a level that was taken for the classes. Goes out: why they, or one of them, are none. Exists because a class called
results or test takes part in every number of a table."""

from __future__ import annotations

import re

from trainables.data.mixed_names import STAIN
from trainables.data.stems import copied_folders
from trainables.data.words import class_order, few, part_of, same, shown

NO_CLASSES = {
    "image", "images", "img", "imgs", "picture", "pictures", "original", "originals", "orig", "augmented", "aug", "augmentation",
    "jpegimages", "tissue images", "tissue image", "raw images",
    "raw", "processed", "preprocessed", "cropped", "crops", "resized", "data", "dataset", "input", "output", "results", "png",
    "jpg", "tif", "tiff",
}  # fmt: skip
BESIDE_CLASSES = {
    "unlabeled", "unlabelled", "unsorted", "todo", "to do", "trash", "discarded", "discard", "excluded", "exclude", "duplicates", "tmp",
    "temp", "backup", "result", "figure", "figures", "plots", "prediction", "predictions", "pred", "preds", "thumb", "examples", "example",
    "demo", "inference", "rejected", "reject", "rejects", "bad", "qc fail", "qc failed", "failed qc", "junk", "garbage", "rubbish",
    "deleted", "recycled", "new folder", "neuer ordner", "nouveau dossier", "nueva carpeta", "papierkorb", "corbeille", "papelera",
    "unsortiert", "aussortiert", "ausschuss", "non classe", "non trie", "a trier", "unassigned", "unusable", "unbrauchbar",
    "to check", "to review", "müll", "abfall", "verworfen", "nicht auswertbar", "nicht verwertbar", "not evaluable", "not analysable",
    "not analyzable", "non analysable", "archive", "archiv", "archives", "heatmap", "heatmaps", "heat maps", "gradcam", "grad cam",
    "saliency", "saliency maps", "zu klären", "zu klaeren", "zu prüfen", "à vérifier", "a verifier", "à revoir", "por revisar", "sicherung",
    "alte bilder", "old images", "kopie", "kopien", "copies", "copy", "copie", "originale", "qc", "misc images", "待定", "未分类",
}  # fmt: skip
# A stain, a channel, a magnification, a plane, a turn, or a cell before and after karyotyping: each object lies in all of them. T1 is a
# stage, layer 2 a layer.
VIEWS = re.compile(
    rf"(?:{STAIN}|texas red|alexa ?\d+"
    r"|(?:ch|channel|z|slice|frame|plane) ?\d+|\d{1,4}x|rot(?:at(?:ed|ion))? ?\d+|aug(?:mented)? ?\d+"
    r"|metaphases?(?: spreads?)?|karyograms?|karyotypes?)"
)

OLD, YOUNG = {"old", "alt", "vieux", "antiguo"}, {"young", "new", "jung", "neu", "middle", "juvenile", "adult"}
BATCHES = re.compile(  # how images came, not what they show
    r"(?:batch|charge|lot|lieferung|export|import|upload|download|delivery|scan|session|sitzung|plate|tray|folder|ordner|dossier|carpeta"
    r"|archive?|disk|disc|drive|usb|box|set|data ?set|part|teil|partie) ?\d+"
)


def not_classes(names: set[str]) -> str:
    """What is wrong with names of classes, and what to do; ''."""
    some = few([shown(name) for name in class_order(names)], 3)
    if all(same(name) in NO_CLASSES for name in names):
        return f"the folders are called {some}, which are no classes of objects; put a folder per class into one of them and name that"
    if len(names) > 1 and all(VIEWS.fullmatch(same(name)) for name in names):
        return f"the folders are called {some}, as views of one object are and no classes; put a folder per class into each, or keep one"
    if len(names) > 1 and all(BATCHES.fullmatch(same(name)) for name in names):
        return f"the folders are called {some}, as batches of images are and no classes; put a folder per class into each"
    if copied := copied_folders(names):
        said = few([f"{shown(name)} may be a copy of {shown(of)}" for name, of in sorted(copied.items())])
        return f"{said}, which is no class of its own: move it out of the data"
    kinds = set(map(same, names))
    odd = class_order(
        shown(name)
        for name in names
        if (part_of(name) and len(name) > 2)
        or (same(name) in OLD and not YOUNG & kinds)
        or re.sub(r" ?\(?\d+\)?$", "", same(name)) in NO_CLASSES | BESIDE_CLASSES
    )
    return f"a folder called {few(odd)} beside classes is none of them: move it out of the data" if odd else ""
