"""Where a process finds itself, and what it says of a card that it cannot use."""

import json
from types import SimpleNamespace

import pytest
import torch

from search import place, trial
from search.study import STUDY


@pytest.mark.parametrize(
    ("fault", "ending"),
    [
        ("uncorrectable ECC error encountered", {"end": "misplaced", "kind": "card_hidden"}),
        ("out of memory", {"end": "failed", "kind": "out_of_memory", "neighbours": True}),  # no process can so much as begin beside them
    ],
)
def test_a_card_that_is_broken_is_its_machine_s_fault_and_one_that_is_full_its_neighbours(tmp_path, monkeypatch, fault, ending):
    def fails(*_):
        raise RuntimeError(f"CUDA error: {fault}\nCUDA kernel errors might be ...")

    for name in ("mem_get_info", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, fails)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)  # asks nothing of the card
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(total_memory=8e9, name="card", uuid="1"))
    monkeypatch.setattr(trial, "load_pack", fails)  # in the place of the first tensor
    rows = []
    monkeypatch.setattr(trial.tune, "report", lambda row: rows.append(json.loads(row["row"])))
    monkeypatch.setattr(trial, "_local", lambda job, send: trial._work(job, send, None, lambda: False))
    (tmp_path / STUDY).touch()
    job = {
        "study": str(tmp_path), "folder": "x", "gpus": 1.0, "workers": 1, "cards": [], "cpus": 1, "procedure": "supcam", "external": [],
        "code": trial.code.fingerprint(),
    }  # fmt: skip
    with pytest.raises(trial._Leaves):
        trial.run_trial(job)
    assert {name: rows[-1].get(name) for name in ending} == ending and rows[-1]["host"]
    if ending["kind"] == "card_hidden":
        assert f"PyTorch cannot use it (CUDA error: {fault}); nvidia-smi" in rows[-1]["message"]


@pytest.mark.parametrize(("there", "told"), [("node", ("node", "box")), ("other", ("node", "")), (None, ("", ""))])
def test_a_machine_that_went_with_its_processes_is_told_from_one_that_nobody_knows(tmp_path, monkeypatch, there, told):
    def actors(actor):
        return {"Address": {"NodeID": "node"}} if there else {}

    monkeypatch.setattr(place.ray._private.state, "actors", actors)
    monkeypatch.setattr(place, "alive", lambda: [{"NodeID": there, "NodeManagerHostname": "box"}])
    (tmp_path / "error").write_text(f"The actor died. actor_id: {'a' * 32}, namespace")
    assert place.placed_on(SimpleNamespace(error_file=str(tmp_path / "error"))) == told
