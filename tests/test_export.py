"""An export proves that it gives what was recorded, is judged on the test part once, and loads with one line of timm."""

import json
import shutil
from dataclasses import replace

import numpy as np
import optuna
import pytest
import scipy.stats
import timm
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from safetensors.torch import load_file, save_file

from search import export as exporting
from search.card import Described, _scores
from search.exported import exported_key, open_export
from search.mirror import JOURNAL
from search.study import read_study, write_study
from trainables.data.pack import make_pack
from trainables.parts.errors import NotProven, RequestError
from trainables.parts.evaluation import classification_metrics
from trainables.parts.procedure import Evaluation


def test_the_export_holds_the_best_run_s_weights_metrics_and_card(exported):
    record = exported()
    best = exported.folder / "best"
    assert sorted(path.name for path in best.iterdir()) == [
        "README.md", "config.json", "confusion_test.csv", "karyotune.json", "loader.py", "metrics.json", "model.safetensors",
    ]  # fmt: skip
    told = json.loads((best / "metrics.json").read_text())
    assert told["metrics"] == record["metrics"] and told["confusion"] == record["confusion"] and "validation accuracy" in told["chosen_by"]
    rows = (best / "confusion_test.csv").read_text().splitlines()
    assert rows[0].split(",")[1:] == ["dark", "bright"] and len(rows) == 3
    assert [[int(cell) for cell in row.split(",")[1:]] for row in rows[1:]] == record["confusion"]["test"]
    card = (best / "README.md").read_text()
    for words in (
        "No test data took part",
        f"seed {record['seed']}",
        "timm.create_model",
        "python -m search predict",
        f"{100 * record['metrics']['test_accuracy']:.2f} %",
    ):
        assert words in card
    assert exported_key(best) == record["key"]
    assert not [path for path in exported.folder.iterdir() if path.name.startswith(".best")]


def test_the_card_s_line_of_timm_loads_the_model_that_gives_the_recorded_accuracy(exported, toy, toy_pack):
    record = exported()
    best = exported.folder / "best"
    line = next(line for line in (best / "README.md").read_text().splitlines() if "timm.create_model" in line)
    model = eval(line.partition("=")[2].strip().replace("PATH/TO/best", str(best)), {"timm": timm}).eval()
    settings = model.pretrained_cfg
    assert settings["label_names"] == ["dark", "bright"] or tuple(settings["label_names"]) == ("dark", "bright")
    test = toy.procedure.parts(toy.procedure.config(), toy_pack, 0)["test"]
    pixels = (torch.from_numpy(toy_pack.images[test]).float()[:, None] / 255 - settings["mean"][0]) / settings["std"][0]
    with torch.no_grad():
        hits = (model(pixels).argmax(1).numpy() == toy_pack.labels[test]).mean()
    assert hits == pytest.approx(record["metrics"]["test_accuracy"])


def test_the_card_s_headline_is_the_test_score_with_its_interval_and_the_seed_of_the_weights(exported, toy_pack, toy):
    record = exported()
    best = exported.folder / "best"
    test = toy.procedure.parts(toy.procedure.config(), toy_pack, 0)["test"]
    hits = round(record["metrics"]["test_accuracy"] * len(test))
    exact = scipy.stats.binomtest(hits, len(test)).proportion_ci(0.95, method="exact")
    line = (best / "README.md").read_text().splitlines()[2]
    for words in (
        f"**Test accuracy {100 * hits / len(test):.2f} % (95 % interval {100 * exact.low:.2f} to {100 * exact.high:.2f}; by image, one training: ",
        f"{len(test)} test images, patients not known",
        f"of seed {record['seed']}, the only one",
    ):
        assert words in line
    told = json.loads((best / "metrics.json").read_text())
    of = told["over_seeds"]["test_accuracy"]
    assert (of["seeds"], of["cases"], of["cases_are"], told["test_images"]) == (1, len(test), "images", len(test))
    assert (of["low"], of["high"]) == pytest.approx((exact.low, exact.high), abs=1e-6)
    card = (best / "README.md").read_text()
    assert "Always the commonest class" in card and "## By class" in card and "| dark | 6 |" in card and "inverted" in card
    assert json.loads((best / "config.json").read_text())["images"]["words"]["ground"] in card


def test_the_card_and_metrics_are_written_anew_when_seeds_are_added_and_the_model_is_left_alone(exported, toy, toy_pack, monkeypatch):
    record = exported()
    best, study = exported.folder / "best", read_study(exported.folder)
    ledger, _ = exported.bench.open()
    metrics = record["metrics"] | {"val_accuracy": 0.1, "test_accuracy": 0.25}
    ledger.append(dict(ledger.whole(record["key"])) | {"key": "f" * 32, "seed": record["seed"] + 1, "metrics": metrics})
    study = dict(study) | {"seeds": [record["seed"], record["seed"] + 1], "repeats": 2}
    write_study(exported.folder, study)
    monkeypatch.setattr(exporting, "prove", lambda *arguments: pytest.fail("the model was exported again"))
    exporting.export_best(toy, exported.folder, study, ledger, toy_pack)
    card, told = (best / "README.md").read_text(), json.loads((best / "metrics.json").read_text())
    mean = (record["metrics"]["test_accuracy"] + 0.25) / 2
    assert (
        "over 2 seeds" in told["chosen_by"]
        and "over 2 seeds" in card
        and told["over_seeds"]["test_accuracy"]["mean"] == pytest.approx(mean)
    )
    assert f"**Test accuracy {100 * mean:.2f} %" in card and "2 seeds; says nothing of other patients" in card
    assert f"These weights are of seed {record['seed']}, which has {100 * record['metrics']['test_accuracy']:.2f} %" in card
    assert exported_key(best) == record["key"], "whole, with the sums of what was written anew"
    before = (best / "README.md").stat().st_mtime_ns
    exporting.export_best(toy, exported.folder, study, ledger, toy_pack)
    assert (best / "README.md").stat().st_mtime_ns == before, "nothing new, nothing written"


def test_a_metric_that_an_external_set_leaves_undefined_is_null_and_not_0():
    pack = make_pack(np.ones((2, 4, 4), np.uint8), [0, 1], ("a", "b"), ("a/0", "b/0"), None, np.ones((2, 2)))
    record = {"metrics": {"test_accuracy": 0.5, "test_specificity": 0.5, "external_one_ward_accuracy": 1.0}, "seed": 0, "confusion": {}}
    told = Described({}, record, "", pack, {"test": np.arange(2)}, ("accuracy", "specificity"), None, (), None, {}, ())
    assert told.metrics == record["metrics"] | {"external_one_ward_specificity": None}
    assert "| external one ward specificity | undefined |" in _scores(told)


def test_a_weight_that_was_changed_while_it_was_written_is_noticed(exported, monkeypatch):
    real = exporting.save_file

    def tamper(tensors, path, **more):
        name = next(name for name in tensors if name.endswith("weight"))
        noise = torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(0))
        real(tensors | {name: tensors[name] + 5 * noise}, path, **more)

    monkeypatch.setattr(exporting, "save_file", tamper)
    with pytest.raises(NotProven, match="the exported model gives"):
        exported()
    assert not (exported.folder / "best").exists()


def test_a_record_that_says_something_else_than_the_weights_is_noticed(exported):
    with pytest.raises(NotProven, match=r"the exported model gives test_accuracy .*, its record says 1\.2"):
        exported(lambda record: record["metrics"].update(test_accuracy=1.25))


def flipping(toy, count):
    """The toy as a processor sees it that rounds otherwise: so many images of each part fall into the other class."""

    def evaluate(config, tensors, pack, chosen, device):
        found = toy.procedure.evaluate(config, tensors, pack, chosen, device)
        rows = np.array(found.confusion)
        for _ in range(count):
            truth = int(rows.max(1).argmax())
            guess = int(rows[truth].argmax())
            rows[truth, guess] -= 1
            rows[truth, 1 - guess] += 1
        return Evaluation({"accuracy": classification_metrics(rows)["accuracy"]}, rows.tolist())

    return replace(toy, procedure=replace(toy.procedure, evaluate=evaluate))


def exported_by(other, exported, pack):
    """An export of the best run by another machine, which sees the images as `other` does; words on it."""
    ledger, _ = exported.bench.open()
    return exporting.export_best(other, exported.folder, read_study(exported.folder), ledger, pack)


def test_images_that_another_processor_classes_otherwise_are_counted_on_the_card(exported, toy, toy_pack):
    words = exported_by(flipping(toy, 1), exported, toy_pack)
    best = exported.folder / "best"
    lines = json.loads((best / "metrics.json").read_text())["differs_here"]
    assert len(lines) == 2 and all(" images are classed otherwise by the cpu of " in line and "1 of " in line for line in lines)
    assert all(line in (best / "README.md").read_text() for line in lines)
    assert [line.strip() for line in words[2:]] == lines and "proven equal" not in "".join(words)
    assert exported_key(best) is not None, "it is whole, with its sums"
    assert exported_by(flipping(toy, 1), exported, toy_pack) == words, "as it stands there"


def test_more_images_than_rounding_explains_are_a_fault_in_one_line(exported, toy, toy_pack):
    with pytest.raises(
        NotProven, match=r"^the exported model gives val_accuracy .*; 3 of \d+ val images are classed otherwise by the cpu of .*"
    ):
        exported_by(flipping(toy, 3), exported, toy_pack)
    assert not (exported.folder / "best").exists()


def test_images_are_compared_one_by_one_where_the_run_has_said_how_it_classed_them():
    before = {"index": [4, 7, 9], "probability": [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]}
    assert exporting._flips(before, before) == 0
    assert exporting._flips(before, before | {"probability": [[0.1, 0.9], [0.9, 0.1], [0.6, 0.4]]}) == 2, "though the matrix is the same"
    assert exporting._flips({"index": [1, 2], "cluster": [0, 1]}, {"index": [1, 2], "cluster": [0, 0]}) == 1
    assert exporting._flips({}, before) is None and exporting._flips(before | {"index": [4, 7, 8]}, before) is None


def test_a_study_whose_best_model_is_not_proven_is_reported_all_the_same(inside, monkeypatch, capsys):
    def prove(*words):
        raise NotProven("the exported model gives other numbers")

    monkeypatch.setattr(exporting, "prove", prove)
    assert inside("--trials", "0", "--tables", "1", "--repeats", "1") == 1
    output = capsys.readouterr().out
    assert "best     was not exported: the exported model gives other numbers" in output
    assert (inside.study / "report.html").exists() and not (inside.study / "best").exists()
    assert inside("export") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "search: the exported model gives other numbers; nothing that was recorded is lost"


def test_a_timm_that_loads_other_weights_is_noticed(exported, monkeypatch):
    real = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **more: real("test_resnet", in_chans=1, num_classes=2))
    with pytest.raises(NotProven, match="loaded by timm"):
        exported()


def test_an_export_that_fails_leaves_the_old_one(exported, monkeypatch):
    exported()
    before = {path.name: path.read_bytes() for path in (exported.folder / "best").iterdir()}

    def fail(*arguments):
        raise RuntimeError("no")

    monkeypatch.setattr(exporting, "prove", fail)
    with pytest.raises(RuntimeError):
        exported()
    assert {path.name: path.read_bytes() for path in (exported.folder / "best").iterdir()} == before


def test_the_test_part_is_judged_once_and_goes_into_the_ledger(exported, toy, monkeypatch):
    """A configuration that only the search asked for has no test metrics; they are computed at its export, and never again."""
    judged = []
    real = toy.procedure.evaluate
    counted = type(toy)(
        toy.study,
        type(toy.procedure)(
            **{**vars(toy.procedure), "evaluate": lambda c, t, p, chosen, d: (judged.append(len(chosen)), real(c, t, p, chosen, d))[1]}
        ),
    )
    ledger, _ = exported.bench.open()
    record = next(record for record in ledger.records.values() if "test_accuracy" in record["metrics"])
    bare = record | {
        "metrics": {k: v for k, v in record["metrics"].items() if not k.startswith("test")},
        "confusion": {"val": record["confusion"]["val"]},
    }
    ledger.records[bare["key"]] = bare
    lines = len(ledger.path.read_text().splitlines())
    exporting.export(counted, exported.folder, read_study(exported.folder), ledger, exported.bench.pack, bare, "words")
    assert ledger.records[bare["key"]]["metrics"] == record["metrics"] and ledger.records[bare["key"]]["confusion"] == record["confusion"]
    assert len(ledger.path.read_text().splitlines()) == lines + 1
    first = len(judged)
    exporting.export(
        counted, exported.folder, read_study(exported.folder), ledger, exported.bench.pack, ledger.records[bare["key"]], "words"
    )
    assert len(ledger.path.read_text().splitlines()) == lines + 1
    assert first == 3 and len(judged) == 5, "once for the record; each proof reads both parts"


def test_a_checkpoint_that_is_gone_is_said_with_the_way_out(exported):
    shutil.rmtree(exported.folder / "checkpoints")
    with pytest.raises(RequestError, match="the checkpoint of the chosen run is gone"):
        exported()
    assert not (exported.folder / "best").exists()


def test_an_export_that_timm_cannot_load_is_whole_without_timms_settings(exported, toy, toy_pack):
    record, best = exported(), exported.folder / "best"
    plain = replace(toy, procedure=replace(toy.procedure, timm_settings=lambda config, classes: None))
    ledger, _ = exported.bench.open()
    exporting.export(plain, exported.folder, read_study(exported.folder), ledger, toy_pack, record, "chosen")
    assert not (best / "config.json").exists() and exported_key(best) == record["key"]
    (best / "metrics.json").unlink()
    assert exported_key(best) is None


def test_half_an_export_counts_as_none(exported):
    record = exported()
    best = exported.folder / "best"
    for name in ("model.safetensors", "config.json", "metrics.json", "README.md", "karyotune.json"):
        content = (best / name).read_bytes()
        (best / name).unlink()
        assert exported_key(best) is None
        (best / name).write_bytes(content)
    assert exported_key(best) == record["key"]
    (best / "karyotune.json").write_text("{")
    assert exported_key(best) is None


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.json", "README.md", "config.json"])
def test_an_export_with_a_file_that_was_changed_is_not_taken_for_whole(exported, name):
    record = exported()
    best = exported.folder / "best"
    assert exported_key(best) == record["key"]
    before = (best / name).read_bytes()
    (best / name).write_bytes(before[:-2] + b"x" + before[-1:])
    assert exported_key(best) is None
    (best / name).write_bytes(before)
    settings = json.loads((best / "karyotune.json").read_text())
    (best / "karyotune.json").write_text(json.dumps({key: value for key, value in settings.items() if key != "files"}))  # of before
    assert exported_key(best) == record["key"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda best: (best / "model.safetensors").unlink(), "model.safetensors missing"),
        (lambda best: (best / "model.safetensors").write_bytes(b"x" * 99), "damaged"),
        (lambda best: (best / "karyotune.json").write_text("{"), "damaged"),
        (lambda best: (best / "karyotune.json").write_text('{"schema": "karyotune-export-9"}'), "says karyotune-export-9"),
        (lambda best: (best / "karyotune.json").write_text("[]"), "says ?"),
        (lambda best: (best / "karyotune.json").write_text('{"schema": "karyotune-export-1"}'), "does not fit this version"),
        (lambda best: (best / "karyotune.json").write_text('{"schema": "karyotune-export-1", "procedure": "toy", "config": {"x": 1}, "classes": []}'), "does not fit"),
    ],
)  # fmt: skip
def test_a_damaged_export_is_refused_with_what_to_do(exported, known_toy, damage, words):
    exported()
    damage(exported.folder / "best")
    with pytest.raises(RequestError) as caught:
        open_export(exported.folder / "best")
    assert words in caught.value.faults[0]


def test_what_is_opened_is_what_was_trained(exported, known_toy, toy):
    record = exported()
    found = open_export(exported.folder / "best")
    assert (found.entry, found.classes, found.data_hash) == (toy, ("dark", "bright"), record["data_hash"])
    assert found.config == toy.procedure.config(**record["params"])
    trained = load_file(str(exported.folder / record["checkpoint"]))
    assert all(torch.equal(found.tensors[name], trained[name]) for name in found.tensors)


def test_the_same_study_s_journal_opens_in_optuna_and_in_its_dashboard(finished):
    storage = JournalStorage(JournalFileBackend(str(finished / JOURNAL)))
    assert optuna.load_study(study_name="bench", storage=storage).trials_dataframe().shape[0] == 2
    dashboard = pytest.importorskip("optuna_dashboard")
    app = dashboard.wsgi(storage)
    told = {}
    body = b"".join(app(
        {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies", "SERVER_NAME": "x", "SERVER_PORT": "80", "wsgi.url_scheme": "http", "wsgi.input": None,
         "QUERY_STRING": "", "SCRIPT_NAME": ""},
        lambda status, headers, *rest: told.update(status=status),
    ))  # fmt: skip
    assert told["status"].startswith("200")
    assert [summary["study_name"] for summary in json.loads(body)["study_summaries"]] == ["bench"]


def test_a_checkpoint_of_another_schema_is_refused_by_name(exported):
    record = exported()
    path = exported.folder / record["checkpoint"]
    save_file(load_file(str(path)), str(path), metadata={"schema": "karyotune-state-0", "values": "{}"})
    with pytest.raises(RequestError, match="schema karyotune-state-1 is needed, this one says 'karyotune-state-0'"):
        exported()
