"""The report of a study at work.
Comes in: the news that a run has ended. Goes out: report.html, rewritten by a process of its own at low priority."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from search.path import ROOT


class Reporter:
    """At most one process, and never more than a tenth of the time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.began = self.next = 0.0

    def __call__(self, director: Any) -> None:
        if self.process is not None and self.process.poll() is None:
            return
        clock = time.monotonic()
        if self.process is not None:
            self.process = None
            self.next = max(self.next, clock + 9 * (clock - self.began))
        if clock < self.next:
            return
        self.began = clock
        self.next = clock + 30
        command = ["nice", "-n", "15", sys.executable, "-m", "analysis", str(self.folder), "--light"]
        # Ctrl-C is not for it; and an analysis.py in the user's folder must not be taken for ours
        with suppress(OSError):  # no process to be had now: the next ended run asks again, and the last report is written here
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, cwd=ROOT)

    def stop(self) -> None:
        """None is at work afterwards: an older report must not be written over the last one. Its writes are whole or not at all."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)  # the process that draws beside it too
            self.process.wait()
