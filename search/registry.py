"""Procedures by file name: the project's only dynamic import.
Comes in: a name. Goes out: its declaration (search_spaces/<name>.py: STUDY) and its training (trainables/<name>.py: PROCEDURE).
Exists so that the engine names no procedure, and a new one is found because its two files exist. Imports neither torch nor Optuna before
a procedure is loaded: help and a misspelt name answer at once."""

import difflib
import importlib
import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import search_spaces
import trainables
from trainables.parts.errors import RequestError

if TYPE_CHECKING:
    from search_spaces._declare import Study
    from trainables.parts.procedure import Procedure


@dataclass(frozen=True)
class Entry:
    """A procedure as the engine sees it."""

    study: "Study"
    procedure: "Procedure"


def names() -> list[str]:
    """Procedures that have both files, sorted."""

    def of(package: object) -> set[str]:
        return {module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg and not module.name.startswith("_")}  # type: ignore[attr-defined]

    return sorted(of(search_spaces) & of(trainables))


def unknown(kind: str, given: str, known: list[str]) -> str:
    """One line for a name that is not known."""
    close = difflib.get_close_matches(given, known, n=1)
    return f"no {kind} {given!r}." + (f" Did you mean {close[0]!r}?" if close else "") + f" Known: {', '.join(known)}."


def declared(name: str) -> "Study":
    """The declaration alone, without PyTorch. RequestError for a name that is not known."""
    if name not in names():
        raise RequestError(unknown("procedure", name, names()))
    study: Study = importlib.import_module(f"search_spaces.{name}").STUDY
    return study


def load(name: str) -> Entry:
    """RequestError for a name that is not known."""
    study = declared(name)
    return Entry(study, importlib.import_module(f"trainables.{name}").PROCEDURE)
