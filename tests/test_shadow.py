"""The installed script in a folder in which modules lie that are called as ours are."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def karyotune(shell, tmp_path):
    """The script as pip writes it, called where search.py, analysis.py, ... lie."""
    module, _, function = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["karyotune"].partition(":")
    script = tmp_path / "bin" / "karyotune"
    script.parent.mkdir()
    script.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    for name in ("search", "analysis", "plan"):
        (shell.home / f"{name}.py").write_text(f"raise RuntimeError('a {name}.py of the user was taken for ours')\n")
    environment = shell.environment | {"PYTHONPATH": str(ROOT)}

    def call(*words):
        return subprocess.run(
            [sys.executable, str(script), *words], cwd=shell.home, env=environment, text=True, capture_output=True, timeout=300, check=False
        )  # fmt: skip

    return call


@pytest.mark.slow
def test_the_script_finds_ours_and_the_procedures_of_the_folder(karyotune, shell):
    done = karyotune("plan", "toy", "--trials", "0", "--repeats", "1")
    assert done.returncode == 0, done.stderr
    assert "were taken" not in done.stderr and "5 runs stand in tables" in done.stdout
    (shell.home / "trainables.py").write_text("raise RuntimeError('the user own')\n")
    assert karyotune("describe", "supcam").returncode == 0


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_workers_and_its_report_find_ours_too(karyotune, shell):
    done = karyotune("toy", "--trials", "0", "--repeats", "1", "--tables", "1", "--arms", "plain")
    study = shell.home / "runs" / "toy-quick-synthetic"
    assert done.returncode == 0, done.stdout + done.stderr + (study / "log.txt").read_text()[-2000:]
    assert "1 runs (1 completed)" in done.stdout and "taken for ours" not in (study / "log.txt").read_text()
    assert "search: stopped" not in done.stderr and (study / "request.toml").exists()
