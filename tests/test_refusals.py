"""Requests that a first user made and that must be refused in words: nothing outside of the study, nothing without end, nothing lost."""

import json

import pytest

from search import cli


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["supcam", "--name", ".."], "must be the name of one folder"),
        (["supcam", "--name", "."], "must be the name of one folder"),
        (["supcam", "--plan", "--repeats", "1000000000"], "--repeats must be at most 1000"),
        (["supcam", "--plan", "--trials", "1000000000"], "--trials must be at most 100000"),
        (["data", "synth", "supcam", "out", "--seed", "-5"], "must be between 0"),
    ],
)
def test_a_request_out_of_bounds_is_refused_at_once(words, said, capsys, tmp_path, monkeypatch):
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["inside"]


def test_a_study_file_with_parts_missing_is_damaged_and_the_export_beside_it_stays(capsys, tmp_path):
    study = tmp_path / "mine"
    (study / "best").mkdir(parents=True)
    (study / "best" / "README.md").write_text("kept")
    (study / "study.json").write_text(json.dumps({"schema": 1}))
    assert cli.main(["supcam", "export", "--name", "mine", "--storage", str(tmp_path)]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert (study / "best" / "README.md").read_text() == "kept"
