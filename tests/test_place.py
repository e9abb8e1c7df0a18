"""Where a process finds itself, and what it says of a card that it cannot use."""

import json
from types import SimpleNamespace

import pytest
import torch

from search import place, trial
from search.study import STUDY


def test_a_card_on_which_nothing_can_be_computed_is_its_machine_s_fault_and_is_told_in_its_own_words(tmp_path, monkeypatch):
    """As where others have filled it, so that no process can so much as begin there."""

    def full(*_):
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ...")

    for name in ("mem_get_info", "current_device", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, full)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    rows = []
    monkeypatch.setattr(trial.tune, "report", lambda row: rows.append(json.loads(row["row"])))
    monkeypatch.setattr(trial, "_local", lambda job, send: trial._work(job, send, None, lambda: False))
    (tmp_path / STUDY).touch()
    job = {"study": str(tmp_path), "folder": "x", "gpus": 1.0, "workers": 1, "cards": []}
    with pytest.raises(trial._Leaves):
        trial.run_trial(job)
    assert (rows[-1]["end"], rows[-1]["kind"]) == ("misplaced", "card_hidden") and rows[-1]["host"]
    assert "PyTorch cannot use it (CUDA error: out of memory); nvidia-smi" in rows[-1]["message"]


@pytest.mark.parametrize(("there", "told"), [("node", ("node", "box")), ("other", ("node", "")), (None, ("", ""))])
def test_a_machine_that_went_with_its_processes_is_told_from_one_that_nobody_knows(tmp_path, monkeypatch, there, told):
    def actors(actor):
        return {"Address": {"NodeID": "node"}} if there else {}

    monkeypatch.setattr(place.ray._private.state, "actors", actors)
    monkeypatch.setattr(place, "alive", lambda: [{"NodeID": there, "NodeManagerHostname": "box"}])
    (tmp_path / "error").write_text(f"The actor died. actor_id: {'a' * 32}, namespace")
    assert place.placed_on(SimpleNamespace(error_file=str(tmp_path / "error"))) == told
