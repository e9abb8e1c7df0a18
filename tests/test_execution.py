"""Whole runs: killed and resumed, equal by configuration and seed alone, stages shared, the test part left alone, canonical forms proven
by training."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from search.stages import Stages
from trainables import supcam
from trainables.data.synthetic_clusters import cluster_set
from trainables.parts import execution
from trainables.parts.checkpoint import load_state, save_state
from trainables.parts.errors import Diverged, RequestError
from trainables.parts.execution import EPOCHS, FLIGHT, MODEL, RESULT, config_hash, execute, stage_hashes
from trainables.supcam import PROCEDURE, SupcamConfig

TINY = SupcamConfig(
    input_size=32, backbone="test_resnet", pretrain_epochs=2, warmup_epochs=1, pretrain_batch=8, pretrain_rate=0.1, queue_size=20,
    embedding_dim=8, ema_decay=0.9, finetune_epochs=2, finetune_batch=8, rate_drops=(1,),
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pack():
    return cluster_set(8, size=32, seed=0)


class Store(dict):
    """Shared stages in memory; as on disk, what comes out is a copy."""

    def get(self, key):
        found = dict.get(self, key)
        return found and ({name: tensor.clone() for name, tensor in found[0].items()}, json.loads(found[1]))

    def put(self, key, tensors, values):
        self[key] = (tensors, json.dumps(values))


class Stop(Exception):
    pass


def run(folder, pack, config=TINY, seed=0, **more):
    outcome = execute(PROCEDURE, config, seed=seed, pack=pack, folder=folder, **more)
    return outcome, load_state(folder / MODEL)[0]


def stopper(stage, epoch):
    """A reader that ends the run after this epoch, as the search's early stopping does."""

    def report(row):
        if (row["stage"], row["epoch"]) == (stage, epoch):
            raise Stop

    return report


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def places(outcome):
    return [(row["stage"], row["epoch"]) for row in outcome.history]


def timeless(outcome):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in outcome.history]


EVERY_PLACE = [("pretrain", 1), ("pretrain", 2), ("finetune", 1), ("finetune", 2)]


@pytest.fixture(scope="module")
def straight(pack, tmp_path_factory):
    """The undisturbed run: (outcome, weights)."""
    return run(tmp_path_factory.mktemp("straight"), pack)


# ------------------------------------------------------------------------------------------------------ the same weights again


def test_equal_configuration_and_seed_give_equal_weights_whatever_the_process_did_before(pack, straight, tmp_path):
    run(tmp_path / "before", pack, replace(TINY, margin_form="none"), seed=7)
    torch.manual_seed(123)
    np.random.default_rng(5).random(3)
    torch.rand(17)
    outcome, weights = run(tmp_path / "again", pack)
    assert equal(weights, straight[1]) and outcome.metrics == straight[0].metrics and timeless(outcome) == timeless(straight[0])


def test_another_seed_gives_other_weights(pack, straight, tmp_path):
    outcome, weights = run(tmp_path, pack, seed=1)
    assert not any(torch.equal(tensor, weights[name]) for name, tensor in straight[1].items() if name.endswith("conv1.weight"))
    assert timeless(outcome) != timeless(straight[0])


def test_a_run_leaves_the_process_as_it_was(pack, tmp_path):
    state = torch.random.get_rng_state()
    run(tmp_path, pack, replace(TINY, pretrain_epochs=0))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_memory_mapped_pack_trains_as_one_in_memory(pack, straight, tmp_path):
    from trainables.data.pack import load_pack, save_pack

    save_pack(pack, tmp_path / "data")
    assert equal(run(tmp_path / "run", load_pack(tmp_path / "data"))[1], straight[1])


def test_rows_are_reported_as_they_stand_in_the_history(pack, straight, tmp_path):
    rows = []
    outcome, _ = run(tmp_path, pack, report=rows.append)
    assert rows == outcome.history and places(outcome) == EVERY_PLACE
    assert outcome.epochs == {"pretrain": 2, "finetune": 2} and outcome.interruptions == 0 and outcome.stages_reused == []
    assert set(outcome.stage_seconds) == {"pretrain", "finetune"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([MODEL, RESULT, EPOCHS])


# ------------------------------------------------------------------------------------------------------ resume


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "with a store"])
@pytest.mark.parametrize("place", EVERY_PLACE, ids=lambda place: f"{place[0]} {place[1]}")
def test_a_run_that_is_stopped_goes_on_to_the_straight_runs_weights_and_history(pack, straight, tmp_path, place, shared):
    store = Store() if shared else None
    with pytest.raises(Stop):
        run(tmp_path, pack, store=store, report=stopper(*place), checkpoint_seconds=0)
    torch.rand(3)
    rows = []
    outcome, weights = run(tmp_path, pack, store=store, report=rows.append)
    assert equal(weights, straight[1])
    assert timeless(outcome) == timeless(straight[0])
    assert [(row["stage"], row["epoch"]) for row in rows] == EVERY_PLACE
    assert outcome.interruptions == 1 and outcome.stages_reused == [] and outcome.epochs == {"pretrain": 2, "finetune": 2}


def test_a_run_stopped_before_its_first_checkpoint_starts_anew(pack, straight, tmp_path):
    with pytest.raises(Stop):
        run(tmp_path, pack, report=stopper("pretrain", 1), checkpoint_seconds=1000)
    assert not (tmp_path / FLIGHT).exists()
    outcome, weights = run(tmp_path, pack)
    assert equal(weights, straight[1]) and places(outcome) == EVERY_PLACE


def test_a_shared_stage_that_got_lost_is_trained_again_without_double_rows(pack, straight, tmp_path):
    with pytest.raises(Stop):
        run(tmp_path, pack, store=Store(), report=stopper("finetune", 1), checkpoint_seconds=0)
    outcome, weights = run(tmp_path, pack, store=Store())
    assert equal(weights, straight[1]) and timeless(outcome) == timeless(straight[0])


def test_a_checkpoint_of_another_configuration_is_not_gone_on_from(pack, straight, tmp_path):
    with pytest.raises(Stop):
        run(tmp_path, pack, replace(TINY, temperature=0.5), report=stopper("pretrain", 1), checkpoint_seconds=0)
    outcome, weights = run(tmp_path, pack)
    assert equal(weights, straight[1]) and timeless(outcome) == timeless(straight[0])


@pytest.mark.parametrize("content", [b"", b"nonsense", None], ids=["empty", "nonsense", "cut off"])
def test_a_damaged_checkpoint_is_set_aside_and_the_run_starts_anew(pack, straight, tmp_path, content):
    with pytest.raises(Stop):
        run(tmp_path, pack, report=stopper("pretrain", 1), checkpoint_seconds=0)
    whole = (tmp_path / FLIGHT).read_bytes()
    (tmp_path / FLIGHT).write_bytes(whole[: len(whole) // 2] if content is None else content)
    outcome, weights = run(tmp_path, pack)
    assert equal(weights, straight[1]) and places(outcome) == EVERY_PLACE and list(tmp_path.glob("*.damaged"))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"nothing": 1}', "\udcff"], ids=["empty", "torn", "list", "foreign", "no text"])
def test_a_damaged_result_is_set_aside_and_the_run_done_again(pack, straight, tmp_path, content):
    config = replace(TINY, pretrain_epochs=0, finetune_epochs=1)
    outcome, weights = run(tmp_path, pack, config)
    (tmp_path / RESULT).write_bytes(content.encode(errors="surrogateescape"))
    again, its = run(tmp_path, pack, config)
    assert equal(its, weights) and again.metrics == outcome.metrics and (tmp_path / (RESULT + ".damaged")).exists()


def test_a_finished_run_is_not_trained_again_and_gets_its_test_metrics_later(pack, tmp_path, monkeypatch):
    first, weights = run(tmp_path, pack)
    assert set(first.confusion) == {"val"} and not any(name.startswith("test_") for name in first.metrics)
    monkeypatch.setattr(execution, "_train", None)  # a call would fail
    assert execute(PROCEDURE, TINY, seed=0, pack=pack, folder=tmp_path) == first
    second = execute(PROCEDURE, TINY, seed=0, pack=pack, folder=tmp_path, evaluate_test=True)
    assert set(second.confusion) == {"val", "test"} and second.metrics["test_accuracy"] <= 1
    assert {name: value for name, value in second.metrics.items() if name.startswith("val_")} == first.metrics
    judged = supcam.evaluate(TINY, weights, pack, supcam.split_of(TINY, pack, 0)["test"], torch.device("cpu"))
    assert {name.removeprefix("test_"): value for name, value in second.metrics.items() if name.startswith("test_")} == judged.metrics
    assert execution.read_outcome(tmp_path) == second


SCRIPT = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    import test_execution as own
    from trainables.data.synthetic_clusters import cluster_set
    kind, number, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    count = 0
    def die_at(this):
        global count
        count += this == kind
        if this == kind and count == number:
            os.kill(os.getpid(), signal.SIGKILL)
    torch.rand(number)
    own.run(folder / "run", cluster_set(8, size=32, seed=0), store=own.Stages(folder), report=lambda row: die_at("report"), checkpoint_seconds=0)
    """
)


def killed(folder, kind, number):
    """Whether the run in a process of its own, to be killed at the number-th moment of this kind, was; False when it came to its end."""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind, str(number), str(folder)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode in (0, -signal.SIGKILL), process.stderr
    return process.returncode != 0


@pytest.mark.slow
def test_a_process_killed_in_both_stages_ends_with_the_straight_runs_weights(pack, straight, tmp_path):
    # each life of the run reports its earlier rows again: the third row of the second life is the first of stage 2
    for number in (1, 3):
        assert killed(tmp_path, "report", number)
    outcome, weights = run(tmp_path / "run", pack, store=Stages(tmp_path))
    assert equal(weights, straight[1]) and timeless(outcome) == timeless(straight[0])
    assert outcome.interruptions == 2 and outcome.metrics == straight[0].metrics


# ------------------------------------------------------------------------------------------------------ shared stages


def test_a_stage_from_the_store_gives_the_weights_of_training_it(pack, straight, tmp_path):
    store = Store()
    run(tmp_path / "a", pack, replace(TINY, finetune_rate=0.5), store=store)
    rows = []
    outcome, weights = run(tmp_path / "b", pack, store=store, report=rows.append)
    assert len(store) == 1 and outcome.stages_reused == ["pretrain"]
    assert equal(weights, straight[1]) and timeless(outcome) == timeless(straight[0])
    assert rows == outcome.history and "pretrain" not in outcome.stage_seconds and outcome.epochs == {"pretrain": 2, "finetune": 2}


def test_stage_hashes_change_with_all_that_a_stage_depends_on_and_with_nothing_else():
    base = stage_hashes(PROCEDURE, TINY, 0, "data", "c")
    both = [
        stage_hashes(PROCEDURE, TINY, 1, "data", "c"),
        stage_hashes(PROCEDURE, TINY, 0, "other", "c"),
        stage_hashes(PROCEDURE, replace(TINY, margin=0.3), 0, "data", "c"),
    ]
    for other in both:
        assert other["pretrain"] != base["pretrain"] and other["finetune"] != base["finetune"]
    later = stage_hashes(PROCEDURE, replace(TINY, finetune_rate=0.3), 0, "data", "c")
    assert later["pretrain"] == base["pretrain"] and later["finetune"] != base["finetune"]
    assert set(stage_hashes(PROCEDURE, replace(TINY, pretrain_epochs=0), 0, "data", "c")) == {"finetune"}


def test_every_field_of_the_configuration_belongs_to_a_stage():
    declared = {name for stage in PROCEDURE.stages for name in stage.fields}
    assert declared == {entry.name for entry in fields(SupcamConfig)}


def test_a_configuration_without_any_epoch_is_refused(pack, tmp_path):
    with pytest.raises(RequestError, match="every stage has 0 epochs"):
        execute(PROCEDURE, replace(TINY, pretrain_epochs=0, finetune_epochs=0), seed=0, pack=pack, folder=tmp_path)


# ------------------------------------------------------------------------------------------------------ the end at nonsense


@pytest.mark.parametrize("field", ["pretrain_rate", "finetune_rate"])
def test_an_enormous_rate_ends_as_diverged_and_not_with_a_number(pack, tmp_path, field):
    config = replace(TINY, **{field: 1e38}, warmup_epochs=0, finetune_epochs=6, rate_drops=())
    with pytest.raises(Diverged, match="not finite"):
        run(tmp_path, pack, config)
    assert not (tmp_path / RESULT).exists() and not (tmp_path / MODEL).exists()


def test_a_diverged_stage_is_not_shared(pack, tmp_path):
    store = Store()
    with pytest.raises(Diverged):
        run(tmp_path, pack, replace(TINY, pretrain_rate=1e38, warmup_epochs=0), store=store)
    assert not store


# ------------------------------------------------------------------------------------------------------ the test part


def test_a_search_never_sees_the_test_part(pack, straight, tmp_path):
    images, labels, parts = pack.images.copy(), pack.labels.copy(), supcam.split_of(TINY, pack, 0)
    noise = np.random.default_rng(0)
    images[parts["test"]] = noise.integers(0, 256, images[parts["test"]].shape)
    labels[parts["test"]] = noise.permutation(labels[parts["test"]])
    poisoned = replace(pack, images=images, labels=labels)
    fixed = replace(PROCEDURE, parts=lambda config, given, seed: parts)  # the split itself looks at all images, for duplicates
    outcome = execute(fixed, TINY, seed=0, pack=poisoned, folder=tmp_path)
    assert equal(load_state(tmp_path / MODEL)[0], straight[1])
    assert outcome.metrics == straight[0].metrics and timeless(outcome) == timeless(straight[0])
    assert set(outcome.predictions) == {"val"}


def test_validation_images_do_not_enter_the_training(pack, straight, tmp_path):
    parts = supcam.split_of(TINY, pack, 0)
    images = pack.images.copy()
    images[parts["val"]] = np.random.default_rng(0).integers(0, 256, images[parts["val"]].shape)
    fixed = replace(PROCEDURE, parts=lambda config, given, seed: parts)
    outcome = execute(fixed, TINY, seed=0, pack=replace(pack, images=images), folder=tmp_path)
    assert equal(load_state(tmp_path / MODEL)[0], straight[1])
    assert [row["loss"] for row in outcome.history] == [row["loss"] for row in straight[0].history]


# ------------------------------------------------------------------------------------------------------ canonical, proven by training

SHORT = replace(TINY, pretrain_epochs=1, warmup_epochs=0, finetune_epochs=1)
ONE_TRAINING = {
    "no pre-training: its settings": ({"pretrain_epochs": 0}, {"pretrain_epochs": 0, "temperature": 0.5, "margin": 0.1, "views": "moco_v2", "queue_size": 3, "finetune_encoder": "key", "composition": "off", "crop_min": 0.5}),
    "no margin: its size and continuation": ({"margin_form": "none"}, {"margin_form": "none", "margin": 0.5, "beyond_pi": "monotone"}),
    "no centres: their average": ({}, {"center_decay": 0.1}),
    "no composition: blend, threshold, contact": ({"composition": "off"}, {"composition": "off", "blend": "maximum", "overlap_threshold": 5.0, "require_contact": True}),
    "the candidate itself: blend, threshold": ({"composition": "no"}, {"composition": "no", "blend": "lambda", "overlap_threshold": 1.0, "require_contact": True}),
    "keys as they are: parts, own old keys": ({}, {"key_parts": 2, "mask_own": True}),
    "whole numbers where fractions are meant": ({"overlap_threshold": 200.0}, {"overlap_threshold": 200}),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_TRAINING)
def test_configurations_that_canonical_merges_train_the_same_weights(pack, tmp_path, name):
    first, second = (replace(SHORT, **overrides) for overrides in ONE_TRAINING[name])
    assert config_hash(PROCEDURE, first) == config_hash(PROCEDURE, second)
    plain = replace(PROCEDURE, canonical=lambda config: config)  # train what is asked for, not the canonical form
    for number, config in enumerate((first, second)):
        execute(plain, config, seed=0, pack=pack, folder=tmp_path / str(number))
    assert equal(load_state(tmp_path / "0" / MODEL)[0], load_state(tmp_path / "1" / MODEL)[0])


MATTERS = {
    "temperature": 0.2, "margin": 0.4, "margin_form": "none", "contrast": "info_nce", "composition": "heavy", "blend": "maximum",
    "overlap_threshold": 2.0, "composition_draws": 3, "views": "moco_v2", "crop_min": 0.6, "crop_max": 0.7, "embedding_dim": 6, "queue_size": 9,
    "ema_decay": 0.5, "key_batch": "running", "pretrain_batch": 6, "pretrain_rate": 0.2, "warmup_epochs": 1, "pretrain_epochs": 2, "sgd_momentum": 0.5, "weight_decay": 0.01,
    "backbone": "test_efficientnet", "split": (0.5, 0.2, 0.3), "split_seed": 1, "split_per_seed": True, "finetune_encoder": "key",
    "finetune_epochs": 2, "finetune_batch": 6, "finetune_rate": 0.02, "label_smoothing": 0.0, "rotation": 10.0, "rate_drops": (0,),
}  # fmt: skip


@pytest.fixture(scope="module")
def short(pack, tmp_path_factory):
    store = Store()
    return *run(tmp_path_factory.mktemp("short"), pack, SHORT, store=store), store


@pytest.mark.parametrize("field", MATTERS)
def test_a_field_that_counts_changes_the_hash_and_the_weights(pack, short, tmp_path, field):
    changes = {field: MATTERS[field]} | ({"margin_form": "none"} if field == "contrast" else {})
    config = replace(SHORT, **changes)
    assert config_hash(PROCEDURE, config) != config_hash(PROCEDURE, SHORT)
    assert not equal(run(tmp_path, pack, config, store=short[2])[1], short[1])


@pytest.mark.parametrize(
    ("base", "field", "value"),
    [
        ({"margin_form": "cluster_margin"}, "center_decay", 0.1),
        ({"margin_form": "parametric_margin", "margin": 1.5}, "beyond_pi", "monotone"),
        ({"composition": "heavy"}, "require_contact", True),
        ({"rate_drops": (0,)}, "rate_drop", 0.5),
        ({"key_batch": "split"}, "key_parts", 2),
        ({"contrast": "info_nce", "margin_form": "none"}, "mask_own", True),
    ],
)
def test_a_field_counts_where_what_it_belongs_to_is_on(pack, tmp_path, base, field, value):
    first = replace(TINY, warmup_epochs=0, **base)
    second = replace(first, **{field: value})
    assert config_hash(PROCEDURE, first) != config_hash(PROCEDURE, second)
    assert not equal(run(tmp_path / "0", pack, first)[1], run(tmp_path / "1", pack, second)[1])


def test_canonical_is_idempotent_and_leaves_the_published_method_as_it_is():
    assert supcam.canonical(SupcamConfig()) == SupcamConfig()
    for overrides, others in ONE_TRAINING.values():
        for one in (overrides, others):
            once = supcam.canonical(replace(SHORT, **one))
            assert supcam.canonical(once) == once


def test_values_survive_the_way_through_json():
    from trainables.parts.procedure import config_from, config_values

    config = replace(TINY, split=(0.8, 0.1, 0.1), rate_drops=(), views="moco_v2")
    assert config_from(SupcamConfig, json.loads(json.dumps(config_values(config)))) == config


def test_saved_state_of_a_model_names_its_configuration(pack, straight, tmp_path):
    run(tmp_path, pack, SHORT)
    values = load_state(tmp_path / MODEL)[1]
    assert values["procedure"] == "supcam" and values["seed"] == 0 and tuple(values["classes"]) == pack.classes
    assert values["config"]["backbone"] == "test_resnet"
    save_state(tmp_path / "copy", *load_state(tmp_path / MODEL))
    assert equal(load_state(tmp_path / "copy")[0], load_state(tmp_path / MODEL)[0])
