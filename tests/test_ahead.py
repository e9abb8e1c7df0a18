"""What a command imports before its first step, and beside what it waits for."""

import subprocess
import sys
import threading

import pytest

from search import ahead
from search.path import ROOT


def test_a_command_begins_without_what_it_needs_at_its_end():
    code = "import sys, search.api; print([name for name in ('analysis', 'pandas', 'scipy.stats', 'ray', 'timm') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=280)
    assert found.stdout.strip() == "[]"


def test_what_is_imported_beside_has_ended_with_the_block_and_its_fault_is_left_to_who_asks(monkeypatch):
    seen, go = [], threading.Event()

    def load(name):
        seen.append(name)
        go.wait(60)
        if name == "broken":
            raise ImportError(name)

    monkeypatch.setattr(ahead.importlib, "import_module", load)
    with ahead.ahead("first", "broken", "after it"):
        go.set()
        while len(seen) < 2:
            pass
    with ahead.ahead("never", after=600):
        pass
    with pytest.raises(KeyError), ahead.ahead("never", after=600):
        raise KeyError
    assert seen == ["first", "broken"] and not [thread for thread in threading.enumerate() if thread.name == "imports"]
