"""Words for numbers and lists in messages.
Comes in: names and counts. Goes out: pieces of sentences. Exists so that every message counts and cuts long lists in one way."""

from __future__ import annotations

from collections.abc import Sequence


def few(names: Sequence[str], shown: int = 5) -> str:
    """The first few of a long list and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def count(number: int, noun: str = "image") -> str:
    """1 image, 2,000 images."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"
