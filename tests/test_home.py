"""A study in an object store: records that one writer wins, a lock that outlives no command, copies that go, and words for what is refused.
Against a real S3 server."""

import json
import os
import shutil
import socket
import time
from dataclasses import replace
from zipfile import ZipFile

import pytest
from buckets import between, client, names, served
from test_ledger import record

from analysis.__main__ import main as python_m_analysis
from search import cli, home, objects
from search.home import CACHE, Away, here, place_of
from search.ledger import Ledger
from search.stages import Stages
from search.study import held
from search.takeup import complete_log
from trainables.parts.checkpoint import save_state
from trainables.parts.errors import RequestError, StorageFault
from trainables.parts.execution import EPOCHS, FLIGHT, read_lives

WORDS = ("--trials", "0", "--repeats", "1", "--tables", "1", "--arms", "plain,slow")


@pytest.fixture(scope="module")
def server():
    with served("lab") as settings:
        yield settings


@pytest.fixture
def away(server, tmp_path, monkeypatch):
    """An address of this test's own, and this machine's copies in a folder of their own."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(CACHE, str(tmp_path / "copies"))
    return f"s3://lab/{tmp_path.name}"


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """It takes seconds."""
    import analysis
    from analysis import Report

    monkeypatch.setattr(analysis, "write_report", lambda folder: Report((), 0.0))


def on(machine, url):
    """The study as a machine has it that has copies of its own."""
    return Away(machine / "study", f"{url}/study")


@pytest.fixture
def two(away, tmp_path):
    machines = [on(tmp_path / name, away) for name in ("one", "other")]
    for one in machines:
        one.folder.mkdir(parents=True)
    return machines


def test_an_address_and_its_copy_stand_for_each_other(away):
    folder = here(f"{away}/study")
    assert place_of(folder) == f"{away}/study" and here(folder) == folder and place_of(folder.parent) == away
    assert here("s3:/lab/x") == here("s3://lab/x/"), "a Path has lost a slash"
    with pytest.raises(RequestError, match=r"must be of s3:// or gs://, got https://host/x"):
        here("https://host/x")
    with pytest.raises(RequestError, match="must name a bucket"):
        here("gs://")
    with pytest.raises(RequestError, match=r"must be said without '\.\.', got s3://lab/\.\./other"):
        here("s3://lab/../other")


def test_of_two_writers_of_a_record_one_wins_and_the_other_writes_no_more(two):
    one, other = two
    one.append("records", b"first\n")
    other._next["records"] = 0  # as it was when both began
    with pytest.raises(StorageFault, match="written by another command meanwhile"):
        other.append("records", b"second\n")
    with pytest.raises(StorageFault, match="written by another command"):
        other.append("records", b"third\n")
    one.append("records", b"fourth\n")
    other.bring()
    assert (other.folder / "records.jsonl").read_bytes() == b"first\nfourth\n"


def test_a_record_whose_answer_was_lost_on_the_way_counts_as_written(two):
    one, _ = two
    one.objects.put_new("records/00000000.json", b"mine\n")
    one._next["records"] = 0
    one.append("records", b"mine\n")  # the client asks again


def test_a_study_is_one_commands_until_that_ends_or_is_killed(two, monkeypatch, capsys):
    monkeypatch.setattr(home, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(home, "_dead", lambda other: False)  # as on two machines
    one, other = two
    one.objects.put("study.json", b"{}")
    with one.held():
        assert other.at_work()
        with pytest.raises(RequestError, match="another search is at work on this study"), other.held():
            pass
    assert f"looking for 30 s whether the command that holds it ({socket.gethostname()}) lives" in capsys.readouterr().err
    assert not other.at_work()
    with one.held():
        one.objects.put(".lock", json.dumps({"host": "gone"}).encode())  # it does not say any more that it is there
        monkeypatch.setattr(home, "LEASE_SECONDS", 0.5)
        with other.held():
            for _ in range(100):
                if one.lost:
                    break
                time.sleep(0.05)
            with pytest.raises(StorageFault, match="taken over by another command"):
                one.append("records", b"late\n")
            one.stop()  # as a study that cannot record any more
            one.remove(one.folder / "study.json")
            assert one.stopped() and not other.stopped() and other.has(other.folder / "study.json")
        assert not other.lost
    assert "study/.lock" not in names(os.environ, "lab", place_of(here(one.url)).removeprefix("s3://lab/"))


def test_a_lock_of_a_command_that_was_killed_here_is_taken_at_once(two):
    one, other = two
    dead = home._owner() | {"pid": 2**22, "start": "1"}
    one.objects.put(".lock", json.dumps(dead).encode())
    began = time.monotonic()
    with other.held():
        assert time.monotonic() - began < home.LEASE_SECONDS


def test_a_run_goes_on_elsewhere_from_what_was_put_and_a_file_that_is_freed_is_gone_everywhere(two):
    one, other = two
    (one.folder / "study.json").write_text("{}")
    (one.folder / "data").mkdir()
    (one.folder / "data" / "images.npy").write_bytes(b"pixels")
    one.put()
    run, there = one.folder / "checkpoints" / "key", other.folder / "checkpoints" / "key"
    run.mkdir(parents=True)
    (run / EPOCHS).write_text("life a 1 0\n")
    one.put_run(run)
    assert not one.objects.below("checkpoints/"), "a log without a checkpoint says nothing that could be gone on from"
    (run / FLIGHT).write_bytes(b"state")
    one.put_run(run)
    other.take_up(there, ["data"])
    assert (there / FLIGHT).read_bytes() == b"state" and (there / EPOCHS).exists() and (other.folder / "data" / "images.npy").exists()
    (there / FLIGHT).write_bytes(b"after")
    other.put_run(there)
    one.take_up(run, ["data"])
    assert (run / FLIGHT).read_bytes() == b"after"
    assert one.has(run / FLIGHT)
    one.remove(run / FLIGHT)
    (there / EPOCHS).write_text("of the first worker, which is in this folder too")
    other.take_up(there, [], first=False)
    assert not (there / FLIGHT).exists() and (there / EPOCHS).read_text().startswith("of the first")
    other.take_up(there, [])
    assert (there / EPOCHS).read_text() == "life a 1 0\n"
    other.leave(there)
    assert not there.exists() and one.has(run / EPOCHS)


@pytest.mark.parametrize("log", ["life a 1 0\nepoch warm 1\nsaved warm 1\n", ""])
def test_a_log_that_was_not_put_any_more_is_completed_by_the_checkpoint_that_was(tmp_path, log):
    save_state(tmp_path / FLIGHT, {}, {"history": [{"stage": "warm", "epoch": 3}]})
    (tmp_path / EPOCHS).write_text(log)
    for _ in range(2):
        complete_log(tmp_path)
        (life,) = read_lives(tmp_path)
        assert life["epochs"] == {"warm": [1, 3]} and life["saved"] == {"warm": 3}


def test_data_reach_a_machine_once(two, monkeypatch):
    one, other = two
    (one.folder / "study.json").write_text("{}")
    (one.folder / "data").mkdir()
    (one.folder / "data" / "images.npy").write_bytes(b"pixels")
    one.put()
    loaded = []
    real = Away._download
    monkeypatch.setattr(Away, "_download", lambda self, name: loaded.append(name) or real(self, name))
    for key in ("a", "b", "c"):
        other.take_up(other.folder / "checkpoints" / key, ["data"])
    assert loaded == ["data/images.npy", "study.json"]


def test_a_stage_that_one_machine_has_trained_is_there_for_another_and_stays_the_firsts(two):
    import torch

    one, other = two
    first, second = Stages(one.folder), Stages(other.folder)
    first.home, second.home = one, other
    assert not second.has("k") and second.get("k") is None
    first.put("k", {"w": torch.ones(2)}, {"epochs": 1})
    second.home._stages = (0.0, set())
    assert second.has("k")
    tensors, values = second.get("k")
    assert torch.equal(tensors["w"], torch.ones(2)) and values["epochs"] == 1
    shutil.rmtree(other.folder / "stages")  # as where it trained it too, before that was there
    second.put("k", {"w": torch.zeros(2)}, {"epochs": 1})
    shutil.rmtree(one.folder / "stages")
    assert torch.equal(first.get("k")[0]["w"], torch.ones(2))
    assert first.home.stages() == {"k"}
    first.home.remove(first.path("k").parent)
    second.get("other")
    second.home.take_up(other.folder / "checkpoints" / "x", [])
    assert not second.path("k").exists() and second.get("k") is None, "freed everywhere"


@pytest.mark.slow
def test_a_study_is_done_in_a_bucket_shown_and_gone_on_with_from_another_machine(inside, away, server, tmp_path, monkeypatch, capsys):
    inside.storage = away
    assert inside(*WORDS, "--max-cost", "1e-6", "--price-per-hour", "1") == 3
    out = capsys.readouterr().out
    assert "what --max-cost pays for is spent; the same command with more goes on" in out and f"kept at  {away}/toy" in out
    kept = names(server, "lab", f"{tmp_path.name}/toy-quick-synthetic/")
    assert {"study.json", "records/00000000.json", "request.toml", "data/images.npy", "splits/split-seed0.csv"} <= set(kept)
    assert ".lock" not in kept and "records.jsonl" not in kept
    monkeypatch.setenv(CACHE, str(tmp_path / "elsewhere"))
    assert cli.main(["ls", "--storage", away]) == 0 and "toy-quick-synthetic: unfinished, 1 completed" in capsys.readouterr().out
    assert cli.main(["show", f"{away}/toy-quick-synthetic", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == {"completed": 1}
    best = f"{tmp_path.name}/toy-quick-synthetic/best/"
    client(server).put_object(Bucket="lab", Key=f"{best}confusion_external_old.csv", Body=b"of the export before")
    assert inside(*WORDS) == 0 and len(inside.trained) == 2
    assert "2 runs (2 completed), 1 of them now" in capsys.readouterr().out
    assert "model.safetensors" in (exported := names(server, "lab", best)) and "confusion_external_old.csv" not in exported
    ledger = Ledger(here(f"{away}/toy-quick-synthetic"))
    ledger.read()
    assert len(ledger.records) == 2
    monkeypatch.setenv(CACHE, str(tmp_path / "third"))
    study, kept = f"{away}/toy-quick-synthetic", set(names(server, "lab", f"{tmp_path.name}/toy-quick-synthetic/"))
    assert inside("report") == 0 and cli.main(["report", study, "--bundle", str(tmp_path / "bundle.zip")]) == 0
    bundled = [name.partition("/")[2] for name in ZipFile(tmp_path / "bundle.zip").namelist()]
    assert {"splits", "checkpoints"} <= {name.partition("/")[0] for name in bundled}, "with predictions"
    assert cli.main(["report", study, "--checklist", "claim"]) == 0 and cli.main(["show", study]) == 0
    now = set(names(server, "lab", f"{tmp_path.name}/toy-quick-synthetic/"))
    assert now == kept | {"checklist-claim.md"} and (here(study) / "checklist-claim.md").exists()
    capsys.readouterr()
    assert cli.main(["predict", f"{study}/best", "none.png"]) == 2 and capsys.readouterr().err == "search: no such image: none.png\n"
    assert python_m_analysis([study]) == 2 and f"`karyotune report {study}` brings that study" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("search.folders.at_work", lambda folder: True)
        assert cli.main(["stop", study]) == 0 and capsys.readouterr().out.endswith(f"It goes on with: resume {study}\n")
    assert cli.main(["rm", study, "--yes"]) == 0
    assert not names(server, "lab", f"{tmp_path.name}/")


def test_images_in_a_bucket_are_brought_once_and_are_the_same_data(away, server, tmp_path, monkeypatch, capsys):
    from PIL import Image

    for number, name in enumerate(("a", "b")):
        for index in range(4):
            path = tmp_path / f"{index}.png"
            Image.new("L", (16, 16), 40 * number + index).save(path)
            client(server).upload_file(str(path), "lab", f"{tmp_path.name}/images/{name}/{index}.png")
    for folder in ("images/", "images/a/"):  # as a console makes them
        client(server).put_object(Bucket="lab", Key=f"{tmp_path.name}/{folder}", Body=b"")
    loaded = []
    real = Away._download
    monkeypatch.setattr(Away, "_download", lambda self, name: loaded.append(name) or real(self, name))
    for _ in range(2):
        cli.main(["data", "check", f"{away}/images"])
        assert "8 images" in capsys.readouterr().out.replace("images          8", "8 images")
    assert len(loaded) == 8
    assert cli.main(["data", "check", f"{away}/nothing"]) == 2 and f"there is nothing at {away}/nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "url", "words"),
    [
        ({}, "s3://nolab/x", "cannot be used: there is no bucket nolab; make it, or name another --storage"),
        ({"AWS_ENDPOINT_URL": "nobody"}, "s3://lab/x", "cannot be reached"),
        ({"AWS_ENDPOINT_URL": "refuses"}, "s3://lab/x", "cannot be used: these credentials may not (access denied)"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_one_sentence_and_status_2(inside, away, server, monkeypatch, capsys, settings, url, words):
    monkeypatch.setattr(objects, "AT_ONCE", {"max_retries": 0})
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with between(server, lambda request: (403, "AccessDenied")) as refuses:
        for name, value in settings.items():
            monkeypatch.setenv(name, {"nobody": nobody, "refuses": refuses}[value])
        assert cli.main(["toy", *WORDS, "--storage", url]) == 2
        fault = capsys.readouterr().err
        assert fault.startswith(f"search: {url}") and words in fault and len(fault.splitlines()) == 1
        assert cli.main(["ls", "--storage", url]) == 2 and f"{url} {words}" in capsys.readouterr().err
    assert not inside.trained


@pytest.mark.slow
def test_a_network_that_goes_while_a_study_is_at_work_ends_it_with_words_and_what_was_recorded_stays(inside, away, monkeypatch, capsys):
    inside.storage = away
    real = Away.append

    def gone(self, ledger, line):
        if self._next.get(ledger):
            raise StorageFault(
                f"{self.url} cannot be reached (error sending request); look at the network, then the same command continues"
            )
        real(self, ledger, line)

    monkeypatch.setattr(Away, "append", gone)
    assert inside(*WORDS) == 1
    assert "cannot be reached" in (fault := capsys.readouterr().err) and "nothing that was recorded is lost" in fault
    monkeypatch.setattr(Away, "append", real)
    assert inside(*WORDS) == 0
    assert "2 runs (2 completed), 1 of them now" in capsys.readouterr().out


def test_a_ledger_away_holds_what_was_appended(away):
    folder = here(f"{away}/study")
    with held(folder), Ledger(folder) as ledger:
        ledger.append(record("a"))
    shutil.rmtree(folder)
    home.home(folder).bring()
    ledger = Ledger(folder)
    ledger.read()
    assert list(ledger.records) == ["a"]


def study(one, **files):
    """A study as a command leaves it: what every machine brings, and an exported model, which none needs."""
    for name in ("study.json", "data/images.npy", "best/model.safetensors", "best/karyotune.json", "report.html"):
        (one.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (one.folder / name).write_bytes(b"{}")
    one.put()


def there(one):
    return {found.name for found in one.objects.below()}


def test_what_a_copy_lacks_stays_in_the_bucket(two):
    one, other = two
    study(one)
    every = there(one)
    other.bring()
    assert not (other.folder / "best" / "model.safetensors").exists(), "large, and not needed"
    (other.folder / "data" / "images.npy").unlink()  # a sweeper of old files, which brought ones seem to be
    (other.folder / "study.json").unlink()
    (other.folder / "report.html").write_text("anew")
    with other.held():
        other.put()
    assert there(one) == every and one.objects.get("report.html")[0] == b"anew"


def test_an_export_takes_the_place_of_the_one_before_with_all_its_files(two):
    one, other = two
    study(one)
    other.bring()
    (other.folder / "best" / "karyotune.json").unlink()
    (other.folder / "best" / "config.json").write_text("{}")
    other.replaced(other.folder / "best")
    assert {name for name in there(one) if name.startswith("best/")} == {"best/config.json"}


def test_a_file_that_was_put_anew_from_elsewhere_is_not_put_back_as_it_was(two):
    one, other = two
    study(one)
    other.bring()
    of_before = int(time.time()) - 60
    os.utime(other.folder / "data" / "images.npy", (of_before, of_before))  # as brought; stores tell time by the second
    one.objects.put("data/images.npy", b"anew")
    other.put()
    assert one.objects.get("data/images.npy")[0] == b"anew"


def test_an_address_a_level_too_high_touches_no_study_that_is_at_work(away):
    folder = here(f"{away}/up/studies/one")
    with held(folder):
        one = home.home(folder)
        study(one)
        (folder / "log.txt").write_text("of now")
        (folder / "data" / "data.json").write_text("of now, and not put yet")
        (folder / "checkpoints" / "k").mkdir(parents=True)
        (folder / "checkpoints" / "k" / FLIGHT).write_bytes(b"of now")
        one.objects.put("log.txt", b"of a minute ago")

        def files():
            return {path: path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}

        before = files()
        home.ready(here(f"{away}/up"), "images")
        with pytest.raises(RequestError, match="studies is no study, it holds some"):
            home.ready(here(f"{away}/up/studies"))
        home.ready(here(f"{away}/up/studies/one/data"), "images")
        assert files() == before


@pytest.mark.parametrize("name", ["images#2", "images?2", "images%202", "images 2"])
def test_names_that_a_url_would_cut_or_join_are_studies_of_their_own(away, server, tmp_path, name):
    for word in ("images", "images 2", "images%202"):
        home.home(here(f"{away}/{word}")).objects.put("study.json", word.encode())
    mine = home.home(here(f"{away}/{name}"))
    mine.objects.put("study.json", name.encode())
    assert client(server).get_object(Bucket="lab", Key=f"{tmp_path.name}/{name}/study.json")["Body"].read() == name.encode()
    mine.objects.delete(*there(mine))
    assert home.home(here(f"{away}/images")).objects.get("study.json")[0] == b"images"


def test_a_store_that_is_not_there_for_a_while_is_asked_until_its_time_is_over(two, server, monkeypatch):
    monkeypatch.setattr(objects, "PATIENCE", objects._retries(60, 0.005))
    asked = []

    def busy(request):
        asked.append(request.command)
        return (503, "SlowDown") if len(asked) <= 20 else None

    with between(server, busy) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        two[0].objects.put("log.txt", b"x")
    assert len(asked) == 21


def test_a_conditional_put_that_amazon_wants_again_is_made_again(two, server, monkeypatch):
    monkeypatch.setattr(objects, "CONFLICT_SECONDS", 0.0)
    monkeypatch.setattr(objects, "PATIENCE", objects._retries(60, 0.005))
    refused = []

    def under_way(request):
        if request.command == "PUT" and refused.count(request.path) < 2:
            refused.append(request.path)
            return 409, "ConditionalRequestConflict"
        return None

    one, other = two
    other.objects.put(".lock", b"before")
    with between(server, under_way) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        one.append("records", b"mine")
        assert one.objects.put_over(".lock", b"after", one.objects.get(".lock")[1])
        assert len(refused) == 4 and other.objects.get("records/00000000.json")[0] == b"mine"


def test_an_outage_does_not_end_who_asks_for_the_word_to_stop(two, monkeypatch):
    from search.stopping import heed

    one, other = two
    monkeypatch.setattr(home, "STOP_SECONDS", 0.0)
    monkeypatch.setattr("search.stopping.LOOK_SECONDS", 0.01)
    real, asked = objects.Objects.head, []

    def head(self, name):
        asked.append(name)
        if len(asked) < 4:
            raise StorageFault("no network")
        return real(self, name)

    class Study:
        folder, halt = one.folder, None

        def stop(self, why=None):
            self.told = True

    monkeypatch.setattr("search.stopping.home", lambda folder: one)
    monkeypatch.setattr(objects.Objects, "head", head)
    study, said = Study(), []
    with heed(study, said.append, lambda: False):
        other.stop()
        for _ in range(500):
            if said:
                break
            time.sleep(0.01)
    assert study.told and "another command asked" in said[0]


def test_a_signal_is_not_held_up_by_a_store_that_is_silent(two, monkeypatch):
    import threading

    one, other = two
    real, network = objects.Objects.put, threading.Event()
    with one.held():
        monkeypatch.setattr(objects.Objects, "put", lambda self, name, content: network.wait(10) and real(self, name, content))
        one.stop(wait=False)
        assert one.stopped() and not other.objects.head(".stop")
        threading.Timer(0.2, network.set).start()
    assert other.stopped(), "said before the command has ended"


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_store_that_takes_no_heed_of_conditions_is_refused(two, server, monkeypatch, header):
    def heedless(request):
        del request.headers[header]

    with between(server, heedless) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(StorageFault, match="takes no heed of conditional writes"):
            two[0].check()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server["AWS_ENDPOINT_URL"])
    two[1].check()
    assert not there(two[1])


def test_a_store_that_takes_a_question_and_is_silent_is_given_up(away, server, monkeypatch, capsys):
    import threading

    monkeypatch.setattr(objects, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(objects, "AT_ONCE", objects._retries(0.1, 0.01))
    over = threading.Event()
    with between(server, lambda request: (over.wait(5), None)[1]) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        assert cli.main(["ls", "--storage", away]) == 2
        assert not over.is_set() and f"{away} cannot be reached" in capsys.readouterr().err
        over.set()


def test_whether_a_command_is_at_work_is_told_by_the_stores_clock(two, monkeypatch):
    one, other = two
    real, head = time.time, objects.Objects.head
    one.objects.put(".lock", json.dumps({"host": "elsewhere"}).encode())

    def killed(self, name):
        found = head(self, name)
        return replace(found, modified=found.modified - 60) if name == ".lock" else found

    for hours in (-1, 1):
        monkeypatch.setattr(home.time, "time", lambda hours=hours: real() + 3600 * hours)
        assert other.at_work()
        with monkeypatch.context() as patch:
            patch.setattr(objects.Objects, "head", killed)
            assert not other.at_work()
    assert there(one) == {".lock"}


def test_a_study_that_was_deleted_elsewhere_is_listed_no_more(away, capsys):
    home.home(here(f"{away}/one")).objects.put("study.json", b"{}")
    assert cli.main(["ls", "--storage", away]) == 0 and "one: damaged" in capsys.readouterr().out
    home.home(here(f"{away}/one")).objects.delete("study.json")
    assert cli.main(["ls", "--storage", away]) == 0 and capsys.readouterr().out == f"no study in {away}\n"


def test_an_object_that_no_folder_can_hold_is_named(away, server, tmp_path, capsys):
    client(server).put_object(Bucket="lab", Key=f"{tmp_path.name}/images/a/../b.png", Body=b"x")
    assert cli.main(["data", "check", f"{away}/images"]) == 2
    fault = capsys.readouterr().err
    assert "images/a/../b.png" in fault and "rename or delete it there" in fault and "network" not in fault


def test_a_bucket_that_fails_while_its_speed_is_measured_says_why(two, monkeypatch):
    from search import examine

    def fails(self, name, content):
        raise StorageFault(f"{self.url} cannot be reached (SlowDown)")

    monkeypatch.setattr(objects.Objects, "put", fails)
    found = examine.Findings("node", wrote="node-1")
    examine._speed(examine.Expected(two[0].url, "", {}, probe=True), found)
    assert [fault.words for fault in found.faults] == [f"node: {two[0].url} cannot be reached (SlowDown)"]
