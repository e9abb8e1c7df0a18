"""What is declared fits what is trained, what was published, and what Optuna is given."""

from dataclasses import fields, replace

import optuna
import pytest

from analysis.published import find_published
from search import registry
from search.compose import table_json
from search.plan import applies, arm_config, make_plan
from search.retune import retuned_table, space_of
from search_spaces._declare import Study
from trainables.parts.procedure import config_from, config_values

ENTRIES = {name: registry.load(name) for name in registry.names()}
ARMS = [
    pytest.param(name, table, arm, id=f"{name}-{table.number}-{arm.name}")
    for name, entry in ENTRIES.items()
    for table in entry.study.tables
    for arm in table.arms
]
PRESETS = [(name, preset) for name, entry in ENTRIES.items() for preset in entry.study.presets]


def baseline(name, preset):
    procedure = ENTRIES[name].procedure
    return config_from(procedure.config, dict(ENTRIES[name].study.presets[preset].overrides))


@pytest.mark.parametrize(("name", "table", "arm"), ARMS)
def test_an_arm_overrides_fields_that_exist_with_values_that_can_be_trained_in_every_preset(name, table, arm):
    procedure = ENTRIES[name].procedure
    assert set(arm.overrides) <= {field.name for field in fields(procedure.config)}
    for preset in ENTRIES[name].study.presets:
        config = arm_config(procedure, baseline(name, preset), arm)
        assert procedure.faults(config, None, None) == []
        for field, value in arm.overrides.items():
            assert type(value) is type(getattr(procedure.config(), field)), f"{field} is of another type than its default"


@pytest.mark.parametrize(
    ("name", "table", "arm"), [p for p in ARMS if p.values[2].name.startswith(("drawn weights", "untrained", "Scratch"))]
)
def test_an_arm_that_is_called_untrained_is_so_whatever_the_others_begin_with(name, table, arm):
    assert arm_config(ENTRIES[name].procedure, replace(baseline(name, "quick"), weights="imagenet"), arm).weights == "random"


@pytest.mark.parametrize(("name", "table", "arm"), [p for p in ARMS if p.values[2].published])
def test_a_published_key_stands_in_the_published_tables_of_its_data_set(name, table, arm):
    found = find_published(
        name, table.published_number or table.number, table.dataset or None, arm.published, ENTRIES[name].study.metrics[0]
    )
    assert found is not None


@pytest.mark.parametrize("name", ENTRIES)
def test_tables_and_their_arms_have_names_of_their_own_and_a_baseline_among_them(name):
    tables = ENTRIES[name].study.tables
    assert len({table.number for table in tables}) == len(tables)
    for table in tables:
        assert len({arm.name for arm in table.arms}) == len(table.arms)
        assert table.compare_with in {arm.name for arm in table.arms}
        keys = [arm.published for arm in table.arms if arm.published]
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", ENTRIES)
def test_arms_of_one_table_train_different_things(name):
    for preset in ENTRIES[name].study.presets:
        plan = make_plan(ENTRIES[name], preset=preset, data_hash="", code="c", tables=["all"])
        for table in plan.tables:
            assert len({arm.config_hash for arm in table.arms}) == len(table.arms), table.number


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_preset_and_its_space_name_only_what_there_is(name, preset):
    entry = ENTRIES[name]
    chosen, study, procedure = entry.study.presets[preset], entry.study, entry.procedure
    names = {field.name for field in fields(procedure.config)}
    assert set(chosen.overrides) <= names
    assert set(chosen.tables) <= {table.number for table in study.tables}
    assert {key for key, value in chosen.space.items() if value is None} <= set(study.space)
    assert procedure.faults(baseline(name, preset), None, None) == []
    for dimension in make_plan(entry, preset=preset, data_hash="", code="c").space.values():
        assert dimension.field in names
        assert set(dimension.when) <= names


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_condition_hangs_on_what_is_decided_before_it(name, preset):
    space = make_plan(ENTRIES[name], preset=preset, data_hash="", code="c").space
    decided: set[str] = set()
    varied = {dimension.field for dimension in space.values()}
    for dimension in space.values():
        assert set(dimension.when) & varied <= decided
        decided.add(dimension.field)


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_every_corner_of_a_space_can_be_trained_and_every_choice_leads_somewhere(name, preset):
    """Each dimension at its bounds or choices, the others as in the baseline where they apply."""
    entry = ENTRIES[name]
    plan = make_plan(entry, preset=preset, data_hash="", code="c")
    for dimension in plan.space.values():
        distribution = dimension.distribution
        values = distribution.choices if hasattr(distribution, "choices") else (distribution.low, distribution.high)
        given = {field: allowed[-1] for field, allowed in dimension.when.items()}
        made = {entry.procedure.canonical(replace(plan.baseline, **given, **{dimension.field: value})) for value in values}
        assert all(entry.procedure.faults(config, None, None) == [] for config in made)
        assert len(made) == len(values), f"{dimension.field}: two values train the same thing"


@pytest.mark.parametrize("name", ENTRIES)
def test_a_dimension_is_asked_for_only_where_it_matters(name):
    """Where a condition does not hold, the field is moot: whatever it is, the same thing is trained."""
    entry = ENTRIES[name]
    space = entry.study.space
    for key, dimension in space.items():
        others = [other for other in space.values() if other.field == dimension.field]
        for field, allowed in dimension.when.items():
            varied = next((d.distribution.choices for d in space.values() if d.field == field), ())
            for value in (choice for choice in varied if choice not in allowed):
                config = replace(entry.procedure.config(), **{field: value})
                if any(applies(other, config_values(config)) for other in others):
                    continue
                far = dimension.distribution.choices[-1] if hasattr(dimension.distribution, "choices") else dimension.distribution.high
                moved = replace(config, **{dimension.field: far})
                assert entry.procedure.canonical(moved) == entry.procedure.canonical(config), key


@pytest.mark.parametrize("name", ENTRIES)
def test_a_search_is_led_by_validation_metrics_alone(name):
    study: Study = ENTRIES[name].study
    assert study.objective.startswith("val_") and study.intermediate.startswith("val_")
    assert all("/" not in metric and not metric.startswith(("val_", "test_")) for metric in study.metrics)
    assert study.direction in ("maximize", "minimize")


@pytest.mark.parametrize("name", ENTRIES)
def test_a_space_holds_distributions_of_optuna_itself(name):
    for dimension in ENTRIES[name].study.space.values():
        assert isinstance(
            dimension.distribution,
            optuna.distributions.FloatDistribution | optuna.distributions.IntDistribution | optuna.distributions.CategoricalDistribution,
        )


def test_every_table_of_ccrl_has_each_yardstick_table_2_others_rows_too_and_a_study_marks_them_and_never_searches_over_them():
    entry = ENTRIES["ccrl"]
    everywhere = {"colours", "tile", "area", "untrained", "pixels", "histograms"}
    of_others = {"backbone", "morphology", "texture"}
    plan = make_plan(entry, preset="quick", data_hash="", code="c", tables=["all"])
    for table in plan.tables:
        features = everywhere | (of_others if table.number.startswith("2") else {"backbone"} if table.number == "F" else set())
        assert {arm.overrides["features"] for arm in table.arms if arm.yardstick} == features, table.number
        assert not any("features" in arm.overrides for arm in table.arms if not arm.yardstick)
        trained = [arm.name for arm in table.arms if arm.overrides.get("method", "ccrl") != "ccrl" and not arm.yardstick]
        assert len(trained) == (2 if table.number.startswith("2") else 0), table.number
        words = table_json(table, entry.study.metrics)["arms"]
        assert [word.get("yardstick", False) for word in words] == [arm.yardstick for arm in table.arms]
        winners = {(table.number, arm.name): (arm.config_hash, arm.config) for arm in table.arms}
        words = retuned_table(table, {}, winners, plan)["arms"]
        assert [word.get("yardstick", False) for word in words] == [arm.yardstick for arm in table.arms]
    of_yardsticks = {arm.config_hash for table in plan.tables for arm in table.arms if arm.yardstick}
    assert len(of_yardsticks) == len(everywhere | of_others) + 4  # five backbones; the same runs in every table
    for arm in plan.tables[0].arms:
        assert bool(space_of(entry, plan, arm)) != arm.yardstick, arm.name
