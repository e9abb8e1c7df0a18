"""A shared stage is there whole or not at all."""

import pytest
import torch

from search.stages import Stages


def test_what_is_put_comes_out_under_its_hash_alone(tmp_path):
    stages = Stages(tmp_path)
    assert stages.get("k") is None and not stages.has("k")
    weights = {"a.weight": torch.randn(3, 4), "count": torch.tensor(7)}
    stages.put("k", weights, {"epochs": 2, "history": [{"epoch": 1}]})
    tensors, values = Stages(tmp_path).get("k")
    assert stages.has("k") and not stages.has("j")
    assert values == {"epochs": 2, "history": [{"epoch": 1}]}
    assert tensors.keys() == weights.keys() and all(torch.equal(tensors[name], weights[name]) for name in weights)
    assert [path.name for path in stages.path("k").parent.iterdir()] == ["stage.safetensors"]


def test_a_damaged_stage_is_set_aside_and_counts_as_none(tmp_path):
    stages = Stages(tmp_path)
    stages.put("k", {"a": torch.ones(9)}, {})
    content = stages.path("k").read_bytes()
    for damaged in (content[:-5], content[:20], b"", b"x" * 100):
        stages.path("k").write_bytes(damaged)
        assert stages.get("k") is None and not stages.has("k")
        stages.put("k", {"a": torch.ones(9)}, {})
        assert stages.get("k") is not None
    assert stages.path("k").with_suffix(".damaged").exists()


def test_a_half_written_stage_is_never_seen(tmp_path, monkeypatch):
    stages = Stages(tmp_path)

    def die(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("trainables.parts.checkpoint.os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        stages.put("k", {"a": torch.ones(9)}, {})
    assert not stages.has("k") and stages.get("k") is None
    assert list(stages.path("k").parent.iterdir()) == []
