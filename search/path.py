"""Where modules are looked for: ours first, then, for procedures, the folder that a command is called in.
Comes in: sys.path. Goes out: sys.path, such that a user's `analysis.py` or `trainables.py` is never taken for ours, here or in a worker.
(`python -m search` takes a `search.py` that lies there before anything of ours can say a word: that is what `karyotune` is for.)"""

import io
import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).parent.parent)
FOLDER = "KARYOTUNE_FOLDER"  # the user's, for workers: they are started in another one


def settle(folder: str) -> None:
    """The user's folder goes last, after the one that we are in."""
    if folder != ROOT:
        sys.path[:] = [path for path in sys.path if path not in ("", folder)]
        sys.path += [path for path in (ROOT, folder) if path not in sys.path]


def start(program: str = "karyotune") -> None:
    """A command of this process, from its first import to its end."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="backslashreplace")  # a terminal's locale may have no sign for what a file is called
    os.environ[FOLDER] = os.getcwd()
    settle(os.environ[FOLDER])
    from search.cli import leave, run_as

    leave(run_as(program))
