"""Images with the same pixels, and what it means where they have two labels.
Comes in: keys, equal where pixels are. Goes out: sets of such images, and words. Exists so that an inspection and a study say one thing of
one folder, from keys that were worked out once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from trainables.data.words import class_order, few


def equal_sets(keys: Sequence[Hashable]) -> list[list[int]]:
    """The indices of each two or more with one key, in order."""
    members: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        members.setdefault(key, []).append(i)
    return [own for own in members.values() if len(own) > 1]


def with_two_labels(sets: Sequence[Sequence[int]], files: Sequence[str], labels: Sequence[str]) -> list[tuple[str, ...]]:
    """Each equal image as `file (label)`, of those sets that have more than one label."""
    return [tuple(f"{files[i]} ({labels[i]})" for i in own) for own in sets if len({labels[i] for i in own}) > 1]


def copied_classes(sets: Sequence[Sequence[int]], labels: Sequence[str]) -> list[str]:
    """The fault of classes of which every image stands in others too: a folder of all images, or one that was copied under another name. A
    class that another one copies is not named beside one that copies several."""
    beside: dict[str, set[str]] = {}
    twins: dict[str, int] = {}
    for own in sets:
        kinds = {labels[i] for i in own}
        for i in own if len(kinds) > 1 else ():
            twins[labels[i]] = twins.get(labels[i], 0) + 1
            beside.setdefault(labels[i], set()).update(kinds - {labels[i]})
    copied = [name for name, number in twins.items() if number == labels.count(name) > 1]
    copied = [name for name in copied if len(beside[name]) > 1] or copied
    if not copied:
        return []
    others = class_order({name for word in copied for name in beside[word]} - set(copied)) or class_order(copied)
    return [
        f"each image of {few(class_order(copied))} stands in another class too ({few(others)}), with the same pixels: a folder of "
        "all images, or one that was copied? it is no class of its own: move it out of the data"
    ]
