"""States on disk: bit for bit there and back, refused when foreign or damaged, never half-written."""

import errno
import json
import os
import resource
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trainables.parts import checkpoint
from trainables.parts.checkpoint import (
    SCHEMA,
    load_state,
    optimizer_tensors,
    part,
    restore_optimizer,
    save_state,
    under,
    write_atomically,
)
from trainables.parts.errors import RequestError


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8) if tensor.numel() else tensor


def same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype and first[name].shape == second[name].shape, name
        assert torch.equal(bits(first[name]), bits(second[name])), name


def sample():
    chance = torch.Generator().manual_seed(0)
    base = torch.randn(6, 4, generator=chance)
    return {
        "float": base,
        "transposed view": base.T,
        "part of the same storage": base[2:4],
        "channels last": torch.randn(2, 3, 4, 4, generator=chance).to(memory_format=torch.channels_last),
        "half": torch.randn(5, generator=chance).bfloat16(),
        "double": torch.randn((), generator=chance, dtype=torch.float64),
        "count": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "empty": torch.zeros(0, 3),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "with gradient": torch.ones(2, requires_grad=True),
    }


def test_tensors_and_values_come_back_bit_for_bit(tmp_path):
    values = {"epoch": 3, "history": [{"loss": 0.1 + 0.2, "name": "ü"}], "none": None}
    save_state(tmp_path / "deep" / "state.safetensors", sample(), values)
    tensors, back = load_state(tmp_path / "deep" / "state.safetensors")
    same(tensors, {name: tensor.detach() for name, tensor in sample().items()})
    assert back == values


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        lambda parameters: torch.optim.AdamW(parameters, lr=0.01, amsgrad=True),
    ],
    ids=["momentum", "plain", "adam", "amsgrad"],
)
@pytest.mark.parametrize("before", [0, 3])
def test_an_optimiser_goes_on_from_its_file_as_if_never_interrupted(tmp_path, make, before):
    def steps(model, optimizer, numbers):
        for number in numbers:
            optimizer.zero_grad()
            data = torch.randn(8, 5, generator=torch.Generator().manual_seed(number))
            model(data).square().mean().backward()
            optimizer.step()

    def built():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
        return model, make(model.parameters())

    with torch.random.fork_rng():
        model, optimizer = built()
        steps(model, optimizer, range(before))
        save_state(tmp_path / "s", under("m", model.state_dict()) | under("o", optimizer_tensors(optimizer)), {})
        again, its = built()
    tensors, _ = load_state(tmp_path / "s")
    again.load_state_dict(part(tensors, "m"))
    restore_optimizer(its, part(tensors, "o"))
    same(optimizer_tensors(its), optimizer_tensors(optimizer))
    steps(model, optimizer, range(before, 6))
    steps(again, its, range(before, 6))
    same(again.state_dict(), model.state_dict())


def test_a_prefix_is_taken_off_as_it_was_put_on():
    tensors = sample()
    both = under("a", tensors) | under("ab", {"c": torch.ones(1)})
    same(part(both, "a"), tensors)
    assert set(part(both, "ab")) == {"c"}


@pytest.mark.parametrize("metadata", [None, {"schema": "karyotune-state-0", "values": "{}"}, {"format": "pt"}])
def test_a_file_of_another_schema_is_refused_by_name(tmp_path, metadata):
    save_file({"w": torch.ones(1)}, str(tmp_path / "s"), metadata=metadata)
    with pytest.raises(RequestError, match=SCHEMA) as caught:
        load_state(tmp_path / "s")
    assert repr((metadata or {}).get("schema")) in str(caught.value) and "delete it" in str(caught.value)


def test_values_that_are_missing_or_no_json_make_the_file_unreadable(tmp_path):
    for values in ({}, {"values": "{"}):
        save_file({"w": torch.ones(1)}, str(tmp_path / "s"), metadata={"schema": SCHEMA} | values)
        with pytest.raises(RequestError, match="not a readable checkpoint"):
            load_state(tmp_path / "s")


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    save_state(tmp_path / "s", {"w": torch.arange(20.0)}, {"epoch": 1})
    whole = (tmp_path / "s").read_bytes()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(RequestError, match="not a readable checkpoint"):
            load_state(tmp_path / "cut")


def test_a_damaged_head_is_refused(tmp_path):
    save_state(tmp_path / "s", {"w": torch.arange(20.0)}, {})
    whole = bytearray((tmp_path / "s").read_bytes())
    for place in (0, 7, 8, 20):
        damaged = whole.copy()
        damaged[place] ^= 0xFF
        (tmp_path / "bad").write_bytes(damaged)
        with pytest.raises(RequestError):
            load_state(tmp_path / "bad")


def test_a_missing_file_is_told_apart_from_a_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / "nothing")


def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path):
    victim = tmp_path / "victim"
    hostile = f"cos\nsystem\n(S'touch {victim}'\ntR.".encode()  # what pickle would run on loading
    (tmp_path / "plain").write_bytes(hostile)
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:  # as torch.save lays it out
        archive.writestr("archive/data.pkl", hostile)
        archive.writestr("archive/version", "3")
    for name in ("plain", "zip"):
        with pytest.raises(RequestError, match="not a readable checkpoint"):
            load_state(tmp_path / name)
    assert not victim.exists()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    save_state(tmp_path / "s", {"w": torch.ones(3)}, {"epoch": 1})
    before = (tmp_path / "s").read_bytes()

    def fails(path):
        path.write_bytes(b"half of")
        raise OSError("no space left on device")

    for name in ("s", "new"):
        with pytest.raises(OSError, match="no space"):
            write_atomically(tmp_path / name, fails)
    assert (tmp_path / "s").read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["s"]


def test_values_that_json_does_not_hold_are_refused_before_the_old_file_is_touched(tmp_path):
    save_state(tmp_path / "s", {}, {"epoch": 1})
    with pytest.raises(TypeError):
        save_state(tmp_path / "s", {}, {"epoch": object()})
    assert load_state(tmp_path / "s")[1] == {"epoch": 1} and len(list(tmp_path.iterdir())) == 1


def test_a_file_is_flushed_to_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = checkpoint.os.fsync, checkpoint.os.replace
    monkeypatch.setattr(checkpoint.os, "fsync", lambda number: (order.append("fsync"), fsync(number)))
    monkeypatch.setattr(checkpoint.os, "replace", lambda old, new: (order.append("replace"), replace(old, new)))
    write_atomically(tmp_path / "s", lambda path: path.write_text(json.dumps(1)))
    assert order[:2] == ["fsync", "replace"] and (tmp_path / "s").read_text() == "1"


def test_saving_does_not_hold_on_to_the_tensors(tmp_path):
    weight = torch.ones(3)
    save_state(tmp_path / "s", {"w": weight}, {})
    weight.zero_()
    assert torch.equal(load_state(tmp_path / "s")[0]["w"], torch.ones(3))


def test_what_the_system_does_not_let_be_read_is_no_damage(tmp_path):
    path = tmp_path / "a.safetensors"
    save_state(path, {"x": torch.zeros(2)}, {"a": 1})
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)  # the lowest number that is free: the limit is one of numbers, and there may be free ones below the highest
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(OSError, match="open files") as fault:
            load_state(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert fault.value.errno == errno.EMFILE
    assert load_state(path)[1] == {"a": 1}
