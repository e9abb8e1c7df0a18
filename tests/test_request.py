"""A request as a file, a narrower space, and what is refused by its words alone."""

import json

import pytest
from test_verbs import WORDS

from search import cli, registry
from search.declared import narrow
from search.request import Request, read_file, to_toml
from trainables.parts.errors import RequestError

SUPCAM = registry.declared("supcam")


def test_a_request_is_written_and_read_again_as_it_was(tmp_path):
    asked = Request(
        "supcam", data=tmp_path / 'a "b" \\ é', tables="2,5", settings=("margin=0.3",), spaces=("temperature=0.05:0.1",), max_hours=0.5,
        external=(tmp_path,), relabel=(tmp_path / "a.csv", tmp_path / "b.csv"), retune=True, storage=tmp_path / "runs", command="karyotune supcam",
    )  # fmt: skip
    (tmp_path / "request.toml").write_text(to_toml(asked))
    assert Request(**read_file(tmp_path / "request.toml")) == asked


def test_a_file_may_hold_tables_of_settings_and_lists_of_tables(tmp_path):
    (tmp_path / "r.toml").write_text(
        'tables = ["2", 5]\nretune = true\n[set]\nmargin = 0.3\nsplit = [0.8, 0.1, 0.1]\nrequire_contact = true\n'
    )
    assert read_file(tmp_path / "r.toml") == {
        "tables": "2,5", "retune": True, "settings": ("margin=0.3", "split=0.8,0.1,0.1", "require_contact=true"),
    }  # fmt: skip


def test_words_win_over_the_file_and_the_file_over_the_environment(inside, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KARYOTUNE_STORAGE", str(tmp_path / "environment"))
    file = tmp_path / "r.toml"
    file.write_text(f'storage = "{inside.storage}"\ntrials = 0\nrepeats = 2\ntables = [1]\n')
    assert cli.main(["toy", "--request", str(file), "--repeats", "1"]) == 0
    assert "environment" not in capsys.readouterr().out
    study = json.loads((inside.study / "study.json").read_text())
    assert (study["repeats"], study["trials"]) == (1, 0)
    again = inside.study / "request.toml"
    assert read_file(again)["repeats"] == 1 and cli.main(["toy", "--request", str(again)]) == 0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("tabels = '2'", "no use for 'tabels'; did you mean 'tables'?"),
        ("trials =", "must be a TOML file"),
        ("trials = 'many'", "argument --trials: must be a whole number, got 'many'"),
        ("procedure = 'scl'", "asks for scl, and the command for toy"),
    ],
)
def test_a_file_that_is_no_request_is_refused(inside, tmp_path, capsys, text, fault):
    (tmp_path / "r.toml").write_text(text + "\n")
    assert cli.main(["toy", "--request", str(tmp_path / "r.toml")]) == 2
    assert fault in capsys.readouterr().err and not inside.storage.exists()
    for nothing in (tmp_path / "none.toml", tmp_path, tmp_path / "r.toml" / "below"):
        assert cli.main(["toy", "--request", str(nothing)]) == 2
        assert f"--request must be a file, there is none at '{nothing}'" in capsys.readouterr().err


def test_a_space_is_narrowed_within_what_is_declared_and_keeps_scale_and_conditions():
    found = narrow(SUPCAM, "quick", ["pretrain_rate=0.01:", "blend=maximum,equal", "queue_size=512:1024"], ["margin.self=0.3"])
    space = found.study.space
    rate = space["pretrain_rate"].distribution
    assert (rate.low, rate.high, rate.log) == (0.01, 0.3, True)
    assert space["blend"].distribution.choices == ("equal", "maximum") and space["blend"].when == SUPCAM.space["blend"].when
    assert "margin.self" not in space and "margin.class" in space and "backbone" not in space, "the preset leaves it out"
    assert found.overrides == {"margin": 0.3} and found.fixed == {"margin.self": 0.3}
    assert found.space == {"pretrain_rate": "0.01:0.3", "blend": "equal,maximum", "queue_size": "512:1024"}
    both = narrow(SUPCAM, "paper", [], ["margin=0.6", "require_contact=true"])
    assert not {"margin.self", "margin.class"} & set(both.study.space) and both.overrides == {"margin": 0.6, "require_contact": True}


@pytest.mark.parametrize(
    ("ranges", "values", "fault"),
    [
        (["margn=0:1"], [], "no dimension 'margn'. Did you mean 'margin_form'?"),
        (["temperature=0.01:0.1"], [], "temperature must lie within the declared 0.03:0.5, got 0.01"),
        (["temperature=0.1:0.05"], [], "must go from low to high"),
        (["temperature=0.1"], [], "one value is --fix temperature=0.1"),
        (["temperature"], [], "--space takes name=low:high"),
        (["queue_size=512:700.5"], [], "queue_size must be a whole number"),
        (["blend=soup"], [], "--space blend takes some of equal, lambda, maximum, got soup"),
        (["margin=0:0.1"], [], "several dimensions; name one of margin.self, margin.class"),
        (["temperature=0.1:0.2"], ["temperature=0.1"], "narrowed twice"),
        ([], ["blend=soup"], "--fix blend takes one of equal, lambda, maximum, got 'soup'"),
        ([], ["margin=0.9"], "margin must lie within the declared 0.0:0.8, got 0.9"),
        ([], ["temperature=nan"], "must lie within"),
        ([], ["temperature"], "--fix takes name=value"),
    ],
)
def test_a_space_that_was_not_declared_is_refused(ranges, values, fault):
    with pytest.raises(RequestError) as caught:
        narrow(SUPCAM, "paper", ranges, values)
    assert fault in caught.value.faults[0]


def test_a_narrowed_search_stays_inside_and_is_compared_when_it_goes_on(inside, capsys):
    words = ("--trials", "4", "--repeats", "1", "--tables", "none", "--scheduler", "none")
    less = ("--space", "rate=0.01:0.03", "--fix", "form=bent")
    assert inside(*words, *less) == 0
    study = json.loads((inside.study / "study.json").read_text())
    assert study["search"]["space"] == {"rate": "0.01:0.03"} and study["search"]["fixed"] == {"form": "bent"}
    records = map(json.loads, (inside.study / "records.jsonl").read_text().splitlines())
    rows = list({record["key"]: record["params"] for record in records}.values())
    assert len(rows) == 4 and all(row["form"] == "bent" and 0.01 <= row["rate"] <= 0.03 for row in rows)
    assert len({row["rate"] for row in rows}) > 1
    assert inside(*words, "--space", "rate=1e-2:.03", "--fix", "form=bent") == 0, "the same in other words"
    capsys.readouterr()
    assert inside(*words) == 2
    error = capsys.readouterr().err
    assert "search.space: the study has {'rate': '0.01:0.03'}, asked for {}" in error and "settings.form: the study has bent" in error


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--storage", "https://host/runs"), "argument --storage: addresses must be of s3:// or gs://, got https://host/runs"),
        (("--data", "ftp://host/images"), "argument --data: addresses must be of s3:// or gs://, got ftp://host/images"),
        (("--external", "https://host/images"), "argument --external: addresses must be"),
        (("--from", "s3://"), "argument --from: s3:// must name a bucket"),
        (("--gpus-per-run", "1.5"), "--gpus-per-run must be a whole number above 1 (a part of a GPU is for runs that share one), got 1.5"),
        (("--gpus-per-run", "2"), "wastes one: a worker computes on one GPU; give --workers-per-run 2, or --gpus-per-run 1"),
        (("--gpus-per-run", "4", "--workers-per-run", "2"), "with 2 workers wastes 2"),
        (("--slots", "0"), "argument --slots: must be at least 1"),
    ],
)
def test_what_could_never_be_is_refused_with_words(inside, capsys, words, fault):
    assert inside(*WORDS, *words) == 2 or words[0] == "--storage"
    if words[0] == "--storage":
        assert cli.main(["toy", *WORDS, *words]) == 2
    assert fault in capsys.readouterr().err
