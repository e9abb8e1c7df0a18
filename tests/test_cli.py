"""What a user can get wrong: one line or a short list on standard error, status 2, no traceback, and nothing left behind."""

import json
import subprocess

import numpy as np
import pytest
from PIL import Image

from search import cli, registry

CLASSES = ("instance", "overlapping", "touching", "touching_overlapping")


@pytest.fixture
def say(capsys, tmp_path, monkeypatch):
    """Call the command line in an empty folder; (status, standard output, standard error)."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)

    def call(*words):
        status = cli.main([str(word) for word in words])
        told = capsys.readouterr()
        return status, told.out, told.err

    return call


@pytest.fixture
def refused(say, tmp_path):
    """The faults of a request: status 2, each line `search: ...`, and no study folder."""

    def call(*words):
        before = sorted((tmp_path / "home").rglob("*"))
        status, _, error = say(*words)
        assert status == 2 and "Traceback" not in error
        lines = error.splitlines()
        assert 1 <= len(lines) <= 12 and all(line.startswith("search: ") for line in lines)
        assert sorted((tmp_path / "home").rglob("*")) == before
        return [line.removeprefix("search: ") for line in lines]

    return call


@pytest.fixture
def images(tmp_path):
    """A folder of four classes of small gray images."""
    chance = np.random.default_rng(0)
    for number in range(40):
        picture = np.zeros((20, 20), np.uint8)
        picture[4:14, 4:16] = chance.integers(40, 255, (10, 12))
        path = tmp_path / "images" / CLASSES[number % 4] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["supcan"], "no procedure 'supcan'. Did you mean 'supcam'?"),
        (["supcam", "tun"], "argument step: invalid choice: 'tun'"),
        (["supcam", "--trails=3"], "unrecognized arguments: --trails=3"),
        (["supcam", "--preset", "quik"], "no preset 'quik'. Did you mean 'quick'? Known: quick, small, paper."),
        (["supcam", "--tables", "9"], "no table '9'. Known: 1, 2, 3, 4, 5, 6, S1, S2, S3, F, S4, S5, S6."),
        (["supcam", "--arms", "Scrach"], "no arm 'Scrach'"),
        (["supcam", "--set", "temperture=1"], "no setting 'temperture'. Did you mean 'temperature'?"),
        (["supcam", "--set", "temperature"], "--set takes key=value, got 'temperature'"),
        (["supcam", "--set", "temperature=warm"], "temperature must be a number, got 'warm'"),
        (["supcam", "--set", "temperature=0"], "temperature must be above 0"),
        (["supcam", "--set", "temperature=nan"], "temperature must be finite, got 'nan'"),
        (["supcam", "--set", "margin=7"], "margin must be between 0 and 3.14159, got 7"),
        (["supcam", "--set", "blend=soup"], "blend must be one of equal, lambda, maximum, got 'soup'"),
        (["supcam", "--set", "pretrain_batch=0"], "pretrain_batch must be between 2 and 65536, got 0"),
        (["supcam", "--trials", "-1"], "--trials must be at least 0, got -1"),
        (["supcam", "--trials", "many"], "argument --trials: must be a whole number, got 'many'"),
        (["supcam", "--repeats", "0"], "--repeats must be at least 1, got 0"),
        (["supcam", "--seed", "-3"], "--seed must be at least 0, got -3"),
        (["supcam", "--max-hours", "0"], "argument --max-hours: must be above 0, got 0"),
        (["scl", "--objective", "speed"], "scl has one objective alone (val_accuracy)"),
        (["ccrl", "--objective", "unsupervisd"], "no objective 'unsupervisd'. Did you mean 'unsupervised'?"),
        (
            ["data", "prepare", "conseb", ".", "out"],
            "no data set 'conseb'. Did you mean 'consep'? Known: consep, consep4, consep5, consep7, nucls, pannuke, qupath.",
        ),
        (["data", "prepare", "consep", "nowhere", "out"], "no folder nowhere; give the folder of the download"),
        (["data", "synth", "supcam", "out", "--images", "48", "--external", "other"], "no external set 'other'. Known: elsewhere."),
        (["data", "synth", "scl", "out", "--images", "48", "--external", "other"], "no external set 'other'. Known: reverse_stain."),
        (["supcam", "--external", "nowhere"], "--external nowhere: the data must be a folder, there is none at 'nowhere'"),
        (["supcam", "--max-hours", "inf"], "argument --max-hours: must be a finite number, got 'inf'"),
        (["supcam", "--workers-per-run", "0"], "argument --workers-per-run: must be at least 1, got 0"),
        (["supcam", "--gpus-per-run", "-1"], "argument --gpus-per-run: must not be below 0, got -1"),
        (["supcam", "--name", "../x"], "argument --name: must be the name of one folder, got '../x'"),
        (["supcam", "--tables", "none", "--trials", "0"], "nothing is asked for"),
        (["supcam", "--data", "nowhere"], "nowhere"),
        (["supcam", "report"], "no study in"),
        (["supcam", "export"], "no study in"),
        (["evaluate"], "the following arguments are required: best, --data"),
        (["evaluate", "nowhere", "--data", "."], "nowhere is no export"),
        (["predict", "nowhere", "a.png"], "nowhere is no export"),
        (["data"], "the following arguments are required: command"),
        (["data", "synth", "supcan", "out"], "no procedure 'supcan'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_request_that_cannot_be_is_refused_with_its_rule(refused, words, fault):
    found = refused(*words)
    assert fault in found[0], found


def test_all_faults_of_a_request_and_of_its_data_come_at_once(refused, images):
    (images / "touching" / "broken.png").write_bytes(b"")
    found = refused(
        "supcam", "--data", images, "--preset", "quick", "--tables", "2,9", "--set", "temperature=0", "--set", "margn=1", "--repeats", "0"
    )
    for word in ("margn", "--repeats", "temperature", "table '9'", "broken.png"):
        assert any(word in line for line in found), (word, found)


def test_folders_that_hold_no_set_are_refused(refused, images, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    refused("supcam", "--data", empty)
    for name in ("overlapping", "touching", "touching_overlapping"):
        (images / name).rename(tmp_path / name)
    found = refused("supcam", "--data", images)
    assert "class" in " ".join(found)
    (tmp_path / "touching").rename(images / "touching")
    for path in sorted((images / "touching").iterdir())[1:]:
        path.unlink()
    assert "touching" in " ".join(refused("supcam", "--data", images))


@pytest.mark.parametrize("broken", ["zero", "noise", "blank"])
def test_an_image_that_cannot_be_used_is_named(refused, images, broken):
    path = images / "touching" / "bad.png"
    if broken == "blank":
        Image.fromarray(np.zeros((20, 20), np.uint8)).save(path)
    else:
        path.write_bytes(b"" if broken == "zero" else b"x" * 300)
    assert "bad.png" in " ".join(refused("supcam", "--data", images))


def test_a_manifest_that_names_what_is_not_there_is_refused(refused, images):
    (images / "manifest.csv").write_text("file,label,patinet\ninstance/0.png,instance,a\ngone.png,touching,b\n")
    found = " ".join(refused("supcam", "--data", images))
    assert "gone.png" in found and "patinet" in found


def test_a_batch_larger_than_the_set_is_refused_with_a_size_that_fits(refused, images):
    found = refused("supcam", "--data", images, "--preset", "quick", "--set", "finetune_batch=999", "--trials", "0", "--tables", "2")
    assert "finetune_batch must not be above the number of training images, got 999 for 24; set finetune_batch=16" in found


def test_workers_must_divide_the_batch_and_be_there(refused, images, monkeypatch):
    monkeypatch.setattr("search.prepare.cpus", lambda: 4)
    words = ("supcam", "--data", images, "--preset", "quick", "--set", "pretrain_batch=16", "--tables", "none", "--trials", "1")
    assert refused(*words, "--workers-per-run", "3")[0] == "pretrain_batch must be a multiple of --workers-per-run, got 16 and 3"
    assert refused(*words, "--workers-per-run", "8")[0] == "--workers-per-run must not be above this machine's 4 CPUs, got 8"


def test_gpus_that_are_not_there_are_refused(refused, images, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    (found,) = refused("supcam", "--data", images, "--preset", "quick", "--set", "pretrain_batch=16", "--gpus-per-run", "1")
    assert found == "--gpus-per-run must not be above this machine's 0 GPUs, got 1; leave it out to use what is there"


def test_a_storage_that_cannot_be_written_is_refused(say, images, tmp_path):
    (tmp_path / "file").write_text("")
    for storage in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nothing"):
        status, _, error = say("supcam", "--data", images, "--preset", "quick", "--set", "pretrain_batch=16", "--storage", storage)
        assert status == 2 and error.startswith("search: --storage must be a folder that can be written"), error
    assert (tmp_path / "file").read_text() == ""


PLAN = (
    "--preset",
    "quick",
    "--set",
    "pretrain_batch=16",
    "--tables",
    "2,5",
    "--arms",
    "Scratch,MoCo,SupCAM*,m = 0.*",
    "--trials",
    "3",
    "--repeats",
    "2",
)


def test_a_plan_counts_shared_runs_and_stages_once_and_writes_nothing(say, images, tmp_path):
    status, out, error = say("supcam", "--data", images, *PLAN, "--plan")
    assert (status, error) == (0, "")
    assert "16 runs stand in tables, 14 of them are different; 0 are done." in out
    assert "to train: 26 stages (0 shared)" in out and "GPU-hours" in out and out.endswith("nothing was trained.\n")
    assert list((tmp_path / "home").iterdir()) == []
    assert say("supcam", "plan", "--data", images, *PLAN)[0] == 0


def study_of(folder, **changes):
    """A study folder as an earlier command left it."""
    entry = registry.load("supcam")
    from search.compose import compose_study
    from search.plan import make_plan
    from search.study import write_study
    from trainables.supcam import read

    plan = make_plan(entry, preset="quick", data_hash="", code="c", overrides={"pretrain_batch": 16}, tables=["2"], repeats=2, trials=3)
    pack = read(folder, plan.baseline)
    study = compose_study(entry, plan, name="supcam-quick-images", preset="quick", source={}, pack=pack, command="c", old=None)
    return study | changes, write_study


def test_a_command_that_contradicts_its_study_is_refused_with_every_difference(say, images, tmp_path):
    study, write = study_of(images)
    home = tmp_path / "home" / "runs" / "supcam-quick-images"
    write(home, study)
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    words = (
        "--data",
        images,
        "--preset",
        "quick",
        "--set",
        "pretrain_batch=8",
        "--set",
        "margin=0.3",
        "--seed",
        "1",
        "--repeats",
        "1",
        "--trials",
        "1",
    )
    for more in ([], ["--plan"]):
        status, _, error = say("supcam", *words, *more)
        assert status == 2
        for line in ("seed: the study has 0, asked for 1", "settings.pretrain_batch: the study has 16, asked for 8",
                     "settings.margin: the study has 0.2, asked for 0.3"):  # fmt: skip
            assert line in error
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_a_study_of_other_data_is_refused(say, images, tmp_path):
    study, write = study_of(images)
    write(tmp_path / "home" / "runs" / "supcam-quick-images", study)
    (images / "instance" / "0.png").unlink()
    status, _, error = say("supcam", "--data", images, "--preset", "quick", "--set", "pretrain_batch=16", "--tables", "2")
    assert status == 2 and "data hash: the study has" in error


@pytest.mark.parametrize(("content", "word"), [("{", "damaged"), ("[]", "schema ?"), ('{"schema": 7}', "schema 7")])
def test_a_study_that_cannot_be_read_is_refused(say, images, tmp_path, content, word):
    home = tmp_path / "home" / "runs" / "supcam-quick-images"
    home.mkdir(parents=True)
    (home / "study.json").write_text(content)
    status, _, error = say("supcam", "--data", images, "--preset", "quick", "--set", "pretrain_batch=16")
    assert status == 2 and word in error and "--name" in error
    assert [path.name for path in home.iterdir()] == ["study.json"]


def test_help_names_procedures_steps_and_examples(say):
    for words in ([], ["--help"], ["help"]):
        status, out, error = say(*words)
        assert status == 0 and not error
        assert "supcam" in out and "predict" in out and "tune" in out


def test_a_reader_that_goes_away_is_no_fault(shell):
    """`| head -1`"""
    words = f"exec {__import__('sys').executable} -m search --help | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", words],
        cwd=shell.home,
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("usage:") and "Traceback" not in done.stderr


def test_the_synthetic_set_is_written_as_a_folder_that_can_be_read_again(say, tmp_path):
    assert say("data", "synth", "supcam", "out", "--images", "8", "--seed", "1")[0] == 0
    assert len(list((tmp_path / "home" / "out").rglob("*.png"))) == 8
    status, out, _ = say("data", "check", "out")
    assert all(name in out for name in CLASSES) and status in (0, 2)


def test_an_empty_study_folder_reports_without_records(say, images, tmp_path):
    study, write = study_of(images)
    home = tmp_path / "home" / "runs" / "supcam-quick-images"
    write(home, study)
    status, _, error = say("supcam", "report", "--data", images, "--preset", "quick")
    assert status == 0 and (home / "report.html").exists() and not error
    left = json.loads((home / "study.json").read_text())
    assert {name: value for name, value in left.items() if name != "check"} == study
