"""The short form of `python tests/chaos.py`, for CI. The long one takes `--kills 50` and every failpoint."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FAILPOINTS = "ledger.half,stage.renamed"  # one of the command, one of a run; tests/test_failpoints.py has all


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_study_that_is_killed_again_and_again_ends_as_if_undisturbed():
    words = ["--kills", "1", "--seed", "1", "--failpoints", FAILPOINTS, "--", "--trials", "2", "--repeats", "1", "--tables", "1"]
    done = subprocess.run([sys.executable, str(ROOT / "tests" / "chaos.py"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kills at random moments" in done.stdout and "2 failpoints" in done.stdout
