"""What presets have in common: one look for every image, whatever the laboratory, and words on what of it is not the paper's."""

import io
from dataclasses import fields

import pytest
from rich.console import Console

from search import registry
from search.describe import page, show
from search.plan import make_plan
from trainables.parts.procedure import config_from

ENTRIES = {name: registry.load(name) for name in ("supcam", "scl")}


def preset(name, which):
    entry = ENTRIES[name]
    return config_from(entry.procedure.config, dict(entry.study.presets[which].overrides))


@pytest.mark.parametrize("name", ENTRIES)
def test_every_preset_brings_an_image_to_one_size_and_gray_and_judges_it_alike_however_it_lies(name):
    configs = [preset(name, which) for which in ENTRIES[name].study.presets]
    widths = [config.normal_width / config.canvas for config in configs]
    assert widths == pytest.approx(widths[:1] * 3, abs=0.001) and min(widths) > 0  # the same part of the canvas
    assert all(config.normal_gray == 190 for config in configs)
    turns = next(field.name for field in fields(configs[0]) if field.name in ("upright", "every_turn"))
    assert all(getattr(config, turns) for config in configs)


@pytest.mark.parametrize("name", ENTRIES)
def test_the_page_of_a_procedure_says_that_the_look_of_its_paper_preset_is_ours(name):
    [paper] = [one for one in page(ENTRIES[name])["presets"] if one["name"] == "paper"]
    assert "ours, not the paper's" in paper["title"] and paper["overrides"]["normal_width"]


def test_an_arm_of_more_epochs_has_so_many_times_those_of_its_preset_and_the_page_says_so():
    longer = "MoCo 0.99 x 1024, four times the epochs"
    for which, epochs in (("quick", 24), ("small", 240), ("paper", 800)):
        plan = make_plan(ENTRIES["supcam"], preset=which, data_hash="", code="c", tables=["S3"], arms=[longer])
        [arm] = [arm for arm in plan.tables[0].arms if arm.name == longer]
        assert arm.config.pretrain_epochs == arm.overrides["pretrain_epochs"] == epochs == 4 * plan.baseline.pretrain_epochs
    shown = Console(file=io.StringIO(), width=300)
    show(page(ENTRIES["supcam"]), shown)
    assert "pretrain_epochs=4 x the preset's" in shown.file.getvalue()


def test_scale_as_an_augmentation_is_searched_over_and_measured_in_a_table():
    study = ENTRIES["supcam"].study
    assert "zoom" in {dimension.field for dimension in study.space.values()}
    assert {arm.overrides["zoom"] for table in study.tables if table.number == "S5" for arm in table.arms if "zoom" in arm.overrides} == {
        1.25,
        1.5,
        2.0,
    }
