"""What lies where an image should: a link that became text, a pointer of Git LFS.
Comes in: a path. Goes out: what it stands for. Exists so that "not an image" says what to do."""

from __future__ import annotations

import re
from pathlib import Path

from trainables.data.words import shown


def text_link(path: Path) -> str:
    """What a symbolic link names that became a small text file, as git, zip and shares without links leave them; '' for other files."""
    try:
        if path.stat().st_size > 1024:
            return ""
        words = path.read_bytes().decode("utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError):
        return ""
    if "\n" in words or "\0" in words or not re.search(r"[/\\]", words):
        return ""
    is_path = words.startswith(("../", "./", "/", "..\\")) or (path.parent / words).exists()
    return shown(words) if is_path else ""


def is_pointer(path: Path) -> bool:
    """Whether Git LFS has left its note in a file's place. A file that cannot be read is none: its own error says why."""
    try:
        with path.open("rb") as stream:
            return stream.read(23) == b"version https://git-lfs"
    except OSError:
        return False
