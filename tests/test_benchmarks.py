"""The measurements that need a GPU, gone through once without one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def measure(*words):
    return subprocess.run([sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.slow
def test_the_devices_measurement_saves_each_row_and_names_what_there_was_no_time_for(tmp_path):
    done = measure("device", "--cpu", "--steps", "1", "--minutes", "0", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    first, *others = json.loads((tmp_path / "device.json").read_text())["rows"]
    assert first["case"] == "supcam quick pretrain" and first["full/bare"] == first["full_ms"] / first["bare_ms"]
    assert first["gflop"] > 1 and first["weights_mib"] > 1
    assert others and all(row["left out"] == "0 minutes were over" for row in others)
    assert "| supcam quick pretrain | test_resnet |" in (tmp_path / "device.md").read_text()


def test_an_unknown_measurement_is_refused_with_those_that_there_are():
    done = measure("devize")
    assert done.returncode == 1 and "no measurement 'devize'; known: " in done.stderr and "device" in done.stderr


def test_the_suites_bars_fall_with_what_is_shared_and_end_at_the_epochs_that_the_plan_trains():
    from benchmarks.suite import epochs_of

    each, rows, stages = epochs_of("ccrl", "quick", 1).values()
    assert each > rows > stages > 0  # ccrl's arms without ensembling share their training with the others
    assert epochs_of("ccrl", "quick", 2)["an equal stage of several rows once"] == 2 * stages
