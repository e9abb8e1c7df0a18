"""A fourth procedure is two files in a folder on the path: it is found, run, reported, exported and used, and nothing here is changed."""

import json

import numpy as np
import pytest
from PIL import Image


def check(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_a_procedure_in_a_folder_on_the_path_is_known_and_planned(shell):
    assert "supcam, toy" in check(shell("--help")).stdout
    done = check(shell("toy", "plan"))
    assert "10 runs stand in tables, 6 of them are different; 0 are done." in done.stdout
    assert not (shell.home / "runs").exists()
    wrong = shell("toys")
    assert wrong.returncode == 2 and "Did you mean 'toy'?" in wrong.stderr


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_runs_reports_exports_and_judges_other_images(shell):
    """tune, ablate, export, report as single words; then evaluate and predict on files."""
    request = ("--repeats", "1", "--tables", "1")
    check(shell("toy", "tune", *request))
    study = shell.home / "runs" / "toy-quick-synthetic"
    rows = [json.loads(line) for line in (study / "records.jsonl").read_text().splitlines()]
    assert {row["trial"] for row in rows} == {0, 1}
    check(shell("toy", "ablate", *request))
    rows = {row["key"]: row for row in (json.loads(line) for line in (study / "records.jsonl").read_text().splitlines())}
    assert {arm for row in rows.values() for arm in row["arms"]} >= {"1/plain", "1/bent, a little", "1/slow"}
    for path in (study / "report.html", study / "report.md", study / "tables" / "table-1.md"):
        path.unlink()
    check(shell("toy", "report"))
    assert "bent, a little" in (study / "tables" / "table-1.md").read_text() and (study / "report.html").exists()
    weights = (study / "best" / "model.safetensors").read_bytes()
    assert "proven equal" in check(shell("toy", "export")).stdout
    assert (study / "best" / "model.safetensors").read_bytes() == weights

    chance = np.random.default_rng(1)
    for number in range(10):
        picture = np.zeros((16, 16), np.uint8)
        picture[1:-1, 1:-1] = np.clip(chance.normal(70 + 50 * (number % 2), 20, (14, 14)), 1, 255)
        path = shell.home / "other" / ("dark", "bright")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    told = check(shell("evaluate", "runs/toy-quick-synthetic/best", "--data", "other", "--out", "out.json")).stdout
    assert "accuracy" in told and json.loads((shell.home / "out.json").read_text())["images"] == 10
    check(shell("predict", "runs/toy-quick-synthetic/best", "other", "--out", "p.csv"))
    assert len((shell.home / "p.csv").read_text().splitlines()) == 11
