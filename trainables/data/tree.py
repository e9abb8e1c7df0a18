"""One walk through a folder, in which links are followed and systems' own files passed over.
Comes in: a folder. Goes out: a `Tree` of relative names. Exists so that whoever reads a folder sees the same files in it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from trainables.data.open import SUFFIXES
from trainables.data.words import shown

SYSTEM = {"lost+found", "$recycle.bin", "system volume information", "@eadir", "#recycle", "#snapshot", "thumbnails", "thumbs", "found.000"}
IN_CLOUD = ".icloud"  # .x.png.icloud: what macOS leaves of x.png on this machine
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "picasa.ini"}


@dataclass
class Tree:
    """What lies below a folder, as relative names."""

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # other files, hidden and systems' own ones left out
    folders: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)  # folders of the system
    again: list[str] = field(default_factory=list)  # links to a folder that is read under another name
    closed: list[str] = field(default_factory=list)  # "folder (why)"
    nowhere: list[str] = field(default_factory=list)  # links that lead nowhere


def is_system(name: str) -> bool:
    """Whether a folder is the system's or a program's, and never the user's."""
    return name.startswith(".") or bool(re.fullmatch(r"__macosx|__\w+__", name.casefold())) or name.casefold() in SYSTEM


def walk(folder: Path) -> Tree:
    """One walk. Links are followed; a folder that was read already, above or beside, is not entered again."""
    tree, entered, waiting = Tree(), set[tuple[int, int]](), [""]
    links: list[str] = []
    while waiting or links:
        here = waiting.pop() if waiting else links.pop(0)  # real folders first: they keep their own names
        path = os.path.join(folder, here) if here else str(folder)
        try:
            about = os.stat(path)
            if (about.st_dev, about.st_ino) in entered:
                tree.again.append(here)
                continue
            entered.add((about.st_dev, about.st_ino))
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as fault:
            tree.closed.append(f"{shown(here) or shown(str(folder))} ({fault.strerror})")
            continue
        if here:
            tree.folders.append(here)
        for entry in entries:
            name = f"{here}/{entry.name}" if here else entry.name
            try:
                if entry.is_dir():
                    if is_system(entry.name):
                        tree.passed.append(name)
                    else:
                        (links if entry.is_symlink() else waiting).append(name)
                elif (entry.name.startswith(".") and not entry.name.lower().endswith(IN_CLOUD)) or entry.name.casefold() in SYSTEM_FILES:
                    continue
                elif entry.is_file():
                    (tree.images if entry.name.lower().endswith(SUFFIXES) else tree.others).append(name)
                elif entry.is_symlink():
                    tree.nowhere.append(name)
                else:
                    tree.others.append(name)
            except OSError as fault:
                tree.closed.append(f"{shown(name)} ({fault.strerror})")
    for names in (tree.images, tree.others, tree.folders, tree.passed, tree.again, tree.nowhere):
        names.sort()
    return tree
