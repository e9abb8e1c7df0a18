"""State files cut off, with flipped bits, empty, foreign or gone: detected, set aside with a word, done again or refused with words.
Never a traceback, and never a record lost without a word. Nothing that is read executes anything."""

import io
import json
import os
import pickle  # noqa: TID251 (the attacker's)
import random
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from search.director import Director
from search.history import check
from search.ledger import Ledger, record_of
from search.mirror import JOURNAL
from search.plan import make_plan
from search.retune import make_searches
from search.stages import Stages
from search.study import read_study
from trainables.data.pack import load_pack
from trainables.parts.checkpoint import load_state, save_state
from trainables.parts.code import fingerprint
from trainables.parts.errors import RequestError
from trainables.parts.execution import ARTEFACTS, FLIGHT, MODEL, RESULT, _flight, read_lives, read_outcome

REQUEST = {"trials": 3, "repeats": 2, "tables": ["1"]}
WORDS = ("--trials", "3", "--repeats", "2", "--tables", "1")


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """A study that has ended."""
    from driving import Inside

    import analysis

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "write_report", lambda folder: analysis.Report((), 0.0))
        inside = Inside(patch, toy, tmp_path_factory.mktemp("made"))
        assert inside(*WORDS) == 0
    return inside.study


class Damage:
    """One way to spoil a file, drawn from a seed."""

    KINDS = ("cut", "flip", "empty", "zeros", "foreign", "gone")

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.kind = self.KINDS[seed % len(self.KINDS)]

    def __call__(self, path: Path) -> bytes:
        """Spoil it; what it holds now."""
        content, chance = path.read_bytes(), self.chance
        if self.kind == "cut":
            content = content[: chance.randrange(len(content))]
        elif self.kind == "flip":
            place = chance.randrange(len(content))
            content = content[:place] + bytes([content[place] ^ (1 << chance.randrange(8))]) + content[place + 1 :]
        elif self.kind == "zeros":
            place = chance.randrange(len(content))
            length = min(chance.randrange(1, 600), len(content) - place)
            content = content[:place] + bytes(length) + content[place + length :]
        elif self.kind == "empty":
            content = b""
        elif self.kind == "foreign":
            foreign = [
                b"[]",
                b"null\n",
                b"{}\n",
                b'"text"',
                b"\xff\xfe" * 50,
                b"1e999",
                b"{" * 5000,
                chance.randbytes(300),
                b'{"schema": 1}\n',
            ]
            content = chance.choice(foreign)
        path.unlink()  # the copies are hard links
        if self.kind != "gone":
            path.write_bytes(content)
            return content
        return b""


@pytest.fixture(scope="module")
def copies(made, tmp_path_factory):
    """Copies of the study, or of a part of it; only what is spoilt or written costs anything."""
    place = tmp_path_factory.mktemp("copies")

    def link(source, target):
        if Path(source).suffix in (".jsonl", ".journal"):  # appended to
            shutil.copy(source, target)
        else:
            os.link(source, target)

    def make(part="."):
        shutil.rmtree(place / made.name, ignore_errors=True)
        shutil.copytree(made / part, place / made.name / part, copy_function=link, dirs_exist_ok=True)
        return place / made.name

    return make


@pytest.fixture(scope="module")
def reopened(toy, toy_pack):
    """What a new driver finds: (ledger's words and director's words, ledger, director)."""
    plan = make_plan(toy, preset="quick", data_hash=toy_pack.hash, code=fingerprint(), **REQUEST)

    def reopen(folder):
        with Ledger(folder) as ledger:
            director = Director(toy, plan, ledger, folder, name=folder.name, searches=partial(make_searches, arms=()))
            return [*ledger.warnings, *director.notes], ledger, director

    return reopen


def whole(content: bytes) -> list[dict]:
    """Records that stand in a file as they were written."""
    found = []
    for line in content.split(b"\n"):
        try:
            found += [record_of(line)] if line.strip() else []
        except (ValueError, RecursionError):
            continue
    return found


@pytest.mark.slow
def test_no_record_is_lost_without_a_word_in_300_spoilt_ledgers(made, copies, reopened):
    original = {json.dumps(record) for record in whole((made / "records.jsonl").read_bytes())}
    for seed in range(300):
        damage = Damage(seed)
        folder = copies()
        content = damage(folder / "records.jsonl")
        words, ledger, director = reopened(folder)
        stand = whole(content)
        assert {json.dumps(record) for record in stand} <= original, f"{damage.kind} {seed}: a changed record was taken for a true one"
        assert {record["key"] for record in stand} == set(ledger.records), f"{damage.kind} {seed}: a whole record was lost"
        lost = len(original) - len({json.dumps(record) for record in stand})
        assert words or not lost, f"{damage.kind} {seed}: {lost} records lost without a word"
        if {record["key"] for record in whole((made / "records.jsonl").read_bytes())} != set(ledger.records):
            assert not director.complete(), f"{damage.kind} {seed}: the lost run is not asked for again"


@pytest.mark.slow
def test_150_spoilt_optuna_studies_are_made_again_from_the_records(made, copies, reopened):
    for seed in range(150):
        damage = Damage(seed)
        folder = copies()
        damage(folder / JOURNAL)
        _, ledger, director = reopened(folder)
        trials = director.searches[0].study.get_trials(deepcopy=False)
        for record in ledger.records.values():
            if record["trial"] is not None:
                trial = trials[record["trial"]]
                told = {"completed": "COMPLETE", "pruned": "PRUNED"}[record["status"]]
                if trial.state.is_finished():
                    assert trial.user_attrs["key"] == record["key"] and trial.state.name == told, f"{damage.kind} {seed}"
        finished = sum(trial.state.is_finished() for trial in trials)
        assert finished == 3 or not director.complete(), f"{damage.kind} {seed}"
        storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
        shown = optuna.load_study(study_name=folder.name, storage=storage).trials
        assert [(one.state, one.values) for one in shown] == [(one.state, one.values) for one in trials], f"{damage.kind} {seed}"


@pytest.mark.slow
def test_150_spoilt_study_files_are_refused_with_words_or_as_they_were(made, tmp_path):
    original = read_study(made)
    for seed in range(150):
        damage = Damage(seed)
        shutil.copy(made / "study.json", tmp_path / "study.json")
        damage(tmp_path / "study.json")
        said = "give the study another --name"
        try:
            assert read_study(tmp_path) in (None, original), f"{damage.kind} {seed}"
        except RequestError as fault:
            said = str(fault)
        assert "give the study another --name" in said


def test_300_spoilt_stages_checkpoints_models_and_results_are_set_aside_or_as_they_were(toy, made, tmp_path):
    source = next(path.parent for path in made.glob(f"checkpoints/*/{MODEL}"))
    record = next(record for record in whole((made / "records.jsonl").read_bytes()) if record["key"] == source.name)
    stage = next(made.glob("stages/*/stage.safetensors"))
    tensors, values = load_state(source / MODEL)
    flight = {"history": [], "epochs": {}, "stages_reused": [], "stage_seconds": {}, "started": "", "interruptions": 0, "epoch": 1}
    save_state(tmp_path / "first", {"fitting.a": torch.arange(200.0)}, flight | {"stage": record["stage_hashes"]["tune"]})
    outcome = read_outcome(source)
    spoilt = tmp_path / "run"
    for seed in range(300):
        damage = Damage(seed // 4)
        shutil.rmtree(spoilt, ignore_errors=True)
        spoilt.mkdir()
        if seed % 4 == 0:
            shutil.copy(source / RESULT, spoilt / RESULT)
            damage(spoilt / RESULT)
            assert read_outcome(spoilt, record["stage_hashes"]) in (None, outcome), f"{damage.kind} {seed}"
        elif seed % 4 == 1:
            shutil.copy(tmp_path / "first", spoilt / FLIGHT)
            damage(spoilt / FLIGHT)
            found = _flight(spoilt, record["stage_hashes"])
            assert found is None or bool((found[0]["fitting.a"] == torch.arange(200.0)).all())
        elif seed % 4 == 2:
            path = Stages(spoilt).path(stage.parent.name)
            path.parent.mkdir(parents=True)
            shutil.copy(stage, path)
            damage(path)
            found = Stages(spoilt).get(stage.parent.name)
            assert found is None or found[1]["epochs"] == 3
            assert found is not None or damage.kind == "gone" or path.with_suffix(".damaged").exists()
        else:
            shutil.copy(source / MODEL, spoilt / MODEL)
            damage(spoilt / MODEL)
            try:
                again, its = load_state(spoilt / MODEL)
                assert its == values and all(torch.equal(again[name], tensor) for name, tensor in tensors.items()), f"{damage.kind} {seed}"
            except (RequestError, FileNotFoundError):
                continue


def test_100_spoilt_packed_images_are_refused_with_words_or_as_they_were(made, tmp_path):
    original = load_pack(made / "data", verify=True)
    for seed in range(100):
        damage = Damage(seed // 2)
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        shutil.copytree(made / "data", tmp_path / "data")
        damage(tmp_path / "data" / ("data.json", "images.npy")[seed % 2])
        said = "read the images again"
        try:
            pack = load_pack(tmp_path / "data", verify=True)
        except RequestError as fault:
            pack, said = original, str(fault)
        assert "read the images again" in said
        assert pack.hash == original.hash and pack.ties == original.ties and (pack.images == original.images).all(), f"{damage.kind} {seed}"


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))], ids=Damage.KINDS)
def test_a_study_with_every_file_spoilt_goes_on_to_its_end_by_the_same_command(toy, made, inside, monkeypatch, seed, capsys):
    """All but study.json, whose loss is another case: refused, or written anew."""
    import analysis

    monkeypatch.setattr(analysis, "write_report", lambda folder: analysis.Report((), 0.0))
    shutil.copytree(made, inside.study)
    damage = Damage(seed)
    kept = whole((made / "records.jsonl").read_bytes())
    damage(inside.study / "records.jsonl")
    damage(inside.study / JOURNAL)
    damage(next(inside.study.glob("stages/*/stage.safetensors")))
    damage(inside.study / "data" / ("images.npy" if seed % 2 else "data.json"))
    for path in [*inside.study.glob(f"checkpoints/*/{RESULT}")][::2] + [*inside.study.glob(f"checkpoints/*/{MODEL}")][::2]:
        damage(path)
    assert inside(*WORDS) == 0
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err and "note: " in said.out
    after = {record["key"] for record in whole((inside.study / "records.jsonl").read_bytes())}
    assert {record["key"] for record in kept if any(not arm.startswith("search/") for arm in record["arms"])} <= after
    if damage.kind != "gone":  # who deletes a result by hand leaves no trace of it, and its run looks trained twice
        assert not [words for words in check(inside.study, toy).violations if "table-" not in words and "model is gone" not in words]


# -- nothing that is read executes anything ------------------------------------------------------------------------------------------


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.fixture
def bomb(tmp_path):
    """(what would make the marker when it is unpickled, whether it did)"""
    marker = tmp_path / "executed"
    load = pickle.dumps(Bomb(marker))
    yield load, marker
    assert not marker.exists(), "a file of a study was executed"


def test_the_bomb_would_go_off_where_something_is_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "executed")))  # noqa: S301 (ours)
    assert (tmp_path / "executed").exists()


def hostile(load: bytes, marker: Path) -> dict[str, bytes]:
    """Files that execute what they hold in the hands of a reader that unpickles."""
    torch_file, arrays, array = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"w": Bomb(marker)}, torch_file)
    objects = np.empty(1, object)
    objects[0] = Bomb(marker)
    np.savez(arrays, embedding=objects, allow_pickle=True)
    np.save(array, objects, allow_pickle=True)
    line = json.dumps({"schema": 1, "key": "k", "status": "completed", "metrics": {}, "py/reduce": load.hex()}).encode() + b"\n"
    return {"pickle": load, "torch": torch_file.getvalue(), "npz": arrays.getvalue(), "npy": array.getvalue(), "line": line + load}


@pytest.mark.parametrize("kind", ["pickle", "torch", "npz", "npy", "line"])
def test_a_hostile_file_in_any_place_of_a_study_executes_nothing(toy, made, copies, reopened, bomb, kind):
    content = hostile(*bomb)[kind]
    folder = copies()
    run = next(path.parent for path in folder.glob(f"checkpoints/*/{MODEL}"))
    stage = next(folder.glob("stages/*"))
    places = [run / MODEL, run / RESULT, run / FLIGHT, run / ARTEFACTS, run / "epochs.log", stage / "stage.safetensors"]
    places += [
        folder / "data" / "images.npy",
        folder / "data" / "data.json",
        folder / "records.jsonl",
        folder / JOURNAL,
        folder / "study.json",
    ]
    for place in places:
        place.unlink(missing_ok=True)
        place.write_bytes(content)
    for read in (lambda: read_study(folder), lambda: load_pack(folder / "data", verify=True), lambda: load_state(run / MODEL)):
        with pytest.raises(RequestError):
            read()
    assert read_outcome(run) is None and _flight(run, {}) is None and read_lives(run) == []
    assert Stages(folder).get(stage.name) is None
    with pytest.raises((ValueError, OSError, KeyError)), np.load(run / ARTEFACTS, allow_pickle=False) as arrays:
        arrays["embedding"].sum()
    reopened(folder)
