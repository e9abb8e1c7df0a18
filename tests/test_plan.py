"""A request becomes unique runs and unique stages, or all of its faults at once."""

import functools
from collections import Counter
from dataclasses import fields, replace

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search import registry
from search.declared import choose_tables
from search.plan import applies, make_plan, parse_settings, parse_value, planned_run, point_of, search_config
from trainables.parts.errors import RequestError
from trainables.parts.procedure import config_values

SUPCAM = registry.load("supcam")


def faults(**request) -> list[str]:
    with pytest.raises(RequestError) as caught:
        make_plan(SUPCAM, **({"preset": "quick", "data_hash": "d", "code": "c"} | request))
    return caught.value.faults


def test_the_full_method_stands_in_six_tables_and_is_one_run_per_seed():
    plan = make_plan(SUPCAM, preset="paper", data_hash="d", code="c", tables=["2", "3", "4", "5", "6", "S2"], repeats=3)
    full = [run for run in plan.runs if "2/SupCAM (full)" in run.arms]
    assert [run.seed for run in full] == [0, 1, 2]
    for run in full:
        assert set(run.arms) == {"2/SupCAM (full)", "3/equal", "4/middle", "5/m = 0.2", "6/self-margin", "S2/P = 200"}
    assert plan.asked == 3 * (6 + 3 + 4 + 5 + 7 + 7)
    assert len(plan.runs) == 3 * (6 + 2 + 3 + 4 + 6 + 6)


def test_scratch_of_as_many_epochs_has_those_of_the_pre_training_too_and_its_rate_falls_as_late():
    found = {}
    for preset in ("quick", "small", "paper"):
        runs = make_plan(SUPCAM, preset=preset, data_hash="d", code="c", tables=["S6"], repeats=1).runs
        (long,) = (run.config for run in runs if "S6/Scratch, as many epochs" in run.arms)
        found[preset] = (long.pretrain_epochs, long.finetune_epochs, long.rate_drops)
    assert found == {"quick": (0, 16, (10, 14)), "small": (0, 75, (40, 60)), "paper": (0, 215, (115, 172))}
    lin = make_plan(SUPCAM, preset="quick", data_hash="d", code="c", tables=["S6"], repeats=1, overrides={"method": "lin2021"}).runs
    assert len(lin) == 1, "a method without pre-training has no epochs of one to be given in addition"


def test_keys_of_runs_are_unique_and_every_arm_has_a_run_for_each_seed():
    plan = make_plan(SUPCAM, preset="paper", data_hash="d", code="c", tables=["all"], repeats=2)
    assert len({run.key for run in plan.runs}) == len(plan.runs)
    held = Counter((arm, run.seed) for run in plan.runs for arm in run.arms)
    assert set(held.values()) == {1}
    assert set(held) == {(f"{table.number}/{arm.name}", seed) for table in plan.tables for arm in table.arms for seed in (0, 1)}


def test_all_arms_of_the_first_seed_come_before_the_second():
    plan = make_plan(SUPCAM, preset="quick", data_hash="d", code="c", repeats=3)
    assert [run.seed for run in plan.runs] == sorted(run.seed for run in plan.runs)


def test_runs_that_differ_after_the_pre_training_share_it_and_others_do_not():
    def stages(seed=0, data="d", **changes):
        return planned_run(SUPCAM.procedure, replace(SUPCAM.procedure.config(), **changes), seed, data, "c").stages

    first = stages()
    for later in ({"finetune_rate": 0.5}, {"finetune_epochs": 3}, {"rotation": 10.0}, {"finetune_encoder": "key"}):
        other = stages(**later)
        assert other["pretrain"] == first["pretrain"] and other["finetune"] != first["finetune"]
    for earlier in ({"temperature": 0.1}, {"margin": 0.3}, {"seed": 1}, {"data": "e"}, {"backbone": "resnet18"}, {"weights": "imagenet"}):
        other = stages(**earlier)
        assert other["pretrain"] != first["pretrain"] and other["finetune"] != first["finetune"]
    assert "pretrain" not in stages(pretrain_epochs=0)


@pytest.mark.parametrize("name", [field.name for field in fields(SUPCAM.procedure.config)])
def test_every_field_of_a_configuration_changes_the_key_where_it_matters(name):
    """A field that no stage depends on would hand one run's weights to another."""
    settings = {
        "center_decay": {"margin_form": "cluster_margin"}, "key_parts": {"key_batch": "split"},
        **{key: {"method": "lin2021", "frozen_epochs": 5} for key in ("frozen_epochs", "frozen_rate", "head_rate", "body_rate")},
        "mask_own": {"contrast": "info_nce", "margin_form": "none"},
    }.get(name, {})  # fmt: skip
    config = replace(SUPCAM.procedure.config(), **settings)
    old = getattr(config, name)
    new = {
        bool: lambda: not old, int: lambda: old + 1, float: lambda: old * 0.5 or 1.0, tuple: lambda: (*old[:-1], old[-1] + 1),
        str: lambda: {"weights": "imagenet", "contrast": "info_nce", "margin_form": "none", "beyond_pi": "monotone", "views": "moco_v2",
                      "blend": "lambda", "finetune_encoder": "key", "composition": "light", "backbone": "resnet18",
                      "key_batch": "split", "classifier": "probe", "method": "lin2021"}[name],
    }[type(old)]()  # fmt: skip
    one = planned_run(SUPCAM.procedure, config, 0, "d", "c")
    two = planned_run(SUPCAM.procedure, replace(config, **{name: new}), 0, "d", "c")
    assert one.key != two.key
    assert one.stages["finetune"] != two.stages["finetune"]


def test_a_run_of_an_arm_is_the_run_of_the_point_that_equals_it():
    plan = make_plan(SUPCAM, preset="quick", data_hash="d", code="c")
    point = point_of(plan.baseline, plan.space)
    assert point is not None
    run = planned_run(SUPCAM.procedure, search_config(plan.baseline, plan.space, point), 0, "d", "c")
    assert "2/SupCAM (full)" in next(planned for planned in plan.runs if planned.key == run.key).arms


def test_the_published_settings_are_a_point_of_the_space_in_every_preset():
    for preset in SUPCAM.study.presets:
        plan = make_plan(SUPCAM, preset=preset, data_hash="d", code="c")
        assert point_of(plan.baseline, plan.space) is not None, preset


def test_a_configuration_outside_of_the_space_is_no_point():
    plan = make_plan(SUPCAM, preset="quick", data_hash="d", code="c", overrides={"temperature": 5.0})
    assert point_of(plan.baseline, plan.space) is None


@functools.cache
def paper_plan():
    return make_plan(SUPCAM, preset="paper", data_hash="d", code="c")


@given(seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_a_proposed_point_has_no_value_that_does_not_apply_and_comes_back_from_its_configuration(seed):
    plan = paper_plan()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    trial, values = study.ask(), config_values(plan.baseline)
    from search.ranking import suggest

    for name, dimension in plan.space.items():
        if applies(dimension, values):
            values[dimension.field] = suggest(trial, name, dimension.distribution)
    point = trial.params
    form = point["margin_form"]
    assert ("margin.self" in point) == (form == "self_margin")
    assert ("margin.class" in point) == (form in ("parametric_margin", "cluster_margin"))
    for name in ("blend", "overlap_threshold", "require_contact"):
        assert (name in point) == (point["composition"] in ("light", "middle", "heavy"))
    config = search_config(plan.baseline, plan.space, point)
    assert SUPCAM.procedure.faults(config, None, None) == []
    assert point_of(config, plan.space) == point


def test_without_supervised_contrast_no_margin_is_asked_for():
    plan = make_plan(
        SUPCAM, preset="quick", data_hash="d", code="c", tables=["none"], overrides={"contrast": "info_nce", "margin_form": "none"}
    )
    point = point_of(plan.baseline, plan.space)
    assert point is not None and not [name for name in point if name.startswith("margin")]


def test_all_faults_of_a_request_come_at_once():
    found = faults(preset="quick", trials=-1, repeats=0, seed=-1, tables=["2", "9"], arms=["nobody"], overrides={"temperature": 0.0})
    assert [line.split()[0] for line in found] == ["--trials", "--repeats", "--seed", "temperature", "no", "no"]


def test_a_fault_of_an_arm_names_its_table_and_arm():
    found = faults(tables=["3"], overrides={"contrast": "info_nce", "margin_form": "none", "crop_min": 2.0})
    assert any(line.startswith("crop_min") for line in found)
    found = faults(tables=["5"], overrides={"contrast": "info_nce", "margin_form": "self_margin"})
    assert any("info_nce" in line for line in found)


def test_an_unknown_preset_is_refused_by_name():
    assert faults(preset="quik") == ["no preset 'quik'. Did you mean 'quick'? Known: quick, small, paper."]


def test_a_request_for_nothing_is_refused():
    assert faults(tables=["none"], trials=0) == ["nothing is asked for: no tables and --trials 0; name --tables, or at least one trial"]


def chosen(numbers, patterns) -> list[str]:
    tables, found = choose_tables(SUPCAM.study, numbers, patterns)
    assert not found
    return [f"{table.number}/{arm.name}" for table in tables for arm in table.arms]


def test_arms_are_narrowed_by_name_by_table_and_by_pattern():
    assert chosen(["2", "5"], ["Scratch"]) == ["2/Scratch"]
    assert chosen(["2", "5"], ["5/m = 0.2"]) == ["5/m = 0.2"]
    assert chosen(["2", "5"], ["m = 0.[12]", "2/S*"]) == ["2/Scratch", "2/SupCAM (full)", "5/m = 0.1", "5/m = 0.2"]


def test_a_name_with_a_comma_is_one_name():
    assert chosen(["1"], ["ImageNet", "ResNet-101"]) == ["1/ImageNet, ResNet-101"]
    assert chosen(["2", "6"], ["Scratch", "parametric margin", "m = 0.2", "cluster margin"]) == [
        "2/Scratch", "6/parametric margin, m = 0.2", "6/cluster margin",
    ]  # fmt: skip


def test_all_and_none_stand_for_tables():
    assert {name.split("/")[0] for name in chosen(["all"], [])} == {table.number for table in SUPCAM.study.tables}
    assert chosen(["none"], []) == []


@pytest.mark.parametrize(
    ("text", "example", "value"),
    [("0.5", 1.0, 0.5), ("3", 1, 3), ("true", False, True), ("No", True, False), ("a b", "x", "a b"), ("8,12", (1, 2), (8, 12)),
     ("(0.6, 0.1, 0.3)", (0.8,), (0.6, 0.1, 0.3)), ("1e-4", 1.0, 1e-4), ("", (1,), ())],
)  # fmt: skip
def test_a_word_becomes_a_value_of_the_field_s_type(text, example, value):
    assert parse_value(text, example, "x") == value and type(parse_value(text, example, "x")) is type(example)


@pytest.mark.parametrize(
    ("text", "example", "words"),
    [("x", 1.0, "must be a number"), ("1.5", 1, "must be a whole number"), ("nan", 1.0, "must be finite"), ("inf", 1.0, "must be finite"),
     ("maybe", True, "must be true or false"), ("1,x", (1,), "must be a whole number")],
)  # fmt: skip
def test_a_word_that_is_no_such_value_is_refused_with_the_rule(text, example, words):
    with pytest.raises(ValueError, match=words):
        parse_value(text, example, "x")


def test_settings_are_refused_all_at_once():
    with pytest.raises(RequestError) as caught:
        parse_settings(SUPCAM.procedure, ["temperture=1", "margin", "margin=x", "queue_size=8"])
    assert [line.split(",")[0] for line in caught.value.faults] == [
        "no setting 'temperture'. Did you mean 'temperature'? Known: backbone", "--set takes key=value", "margin must be a number",
    ]  # fmt: skip
    assert parse_settings(SUPCAM.procedure, ["queue_size=8", "rate_drops=1,2"]) == {"queue_size": 8, "rate_drops": (1, 2)}


def test_other_data_and_other_seeds_are_other_runs():
    config = SUPCAM.procedure.config()
    keys = {planned_run(SUPCAM.procedure, config, seed, data, "c").key for seed in (0, 1) for data in ("d", "e")}
    assert len(keys) == 4


def test_other_code_makes_other_keys_and_other_stages_of_the_same_configuration():
    config = SUPCAM.procedure.config()
    one, two, old = (make_plan(SUPCAM, preset="quick", data_hash="d", code=code).run_of(config, 0) for code in ("c", "e", ""))
    assert len({one.key, two.key, old.key}) == 3 and one.config_hash == two.config_hash
    assert not set(one.stages.values()) & set(two.stages.values())
    plan = make_plan(SUPCAM, preset="quick", data_hash="d", code="c")
    assert all(plan.run_of(run.config, run.seed, run.arms) == run for run in plan.runs)
