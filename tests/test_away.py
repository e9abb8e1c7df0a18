"""A study in a bucket under the real command on a real Ray: machines that share no folder, one of them lost, and a command that is killed."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from buckets import client, names, served
from driving import Shell
from test_machine_faults import Command, Machines, command, hurry, start, token  # noqa: F401 (fixtures)

from search.home import CACHE

pytestmark = [
    pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # see test_machine_faults
]  # fmt: skip


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its settings are in the environment of all that the test starts; what each machine copies is at one place, which is another folder on
    each."""
    with served("lab") as settings:
        for name, value in (settings | {CACHE: str(tmp_path / "copies")}).items():
            monkeypatch.setenv(name, value)
        (tmp_path / "copies").mkdir()
        yield settings


def test_machines_that_share_no_folder_train_each_stage_once_and_a_killed_command_goes_on_from_another_machine(
    shell: Shell,
    bucket: dict[str, str],
    start: Callable[[], Machines],  # noqa: F811
    command: Callable[..., Command],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machines, words = start(), ("toy", "--repeats", "2", "--trials", "0", "--tables", "1", "--storage", "s3://lab/studies")
    first = machines.add("first", empty=tmp_path / "copies")
    machines.add("second", empty=tmp_path / "copies")

    def there(ending: str) -> list[str]:
        return [name for name in names(bucket, "lab", "studies/toy-quick-synthetic/") if name.endswith(ending)]

    driver = command(*words, "--set", "pause=1", "--address", machines.address)
    driver.wait_for(lambda: there("stage.safetensors") and len({pid for pid, *_ in shell.epochs()}) >= 3)
    os.kill(driver.process.pid, signal.SIGKILL)
    driver.process.wait()
    machines.remove(first)
    hurry(shell)

    monkeypatch.setenv(CACHE, str(tmp_path / "another"))
    again = command(*words, "--set", "pause=1", "--address", machines.address)
    assert again.status() == 0, again.said
    s3, prefix = client(bucket), "studies/toy-quick-synthetic/"
    records = [json.loads(s3.get_object(Bucket="lab", Key=prefix + name)["Body"].read()) for name in there(".json") if "records/" in name]
    assert Counter(record["status"] for record in records) == {"completed": 6} and len({record["key"] for record in records}) == 6
    assert len({record["host"] for record in records}) >= 2
    assert len(there("stage.safetensors")) == 4, "two rates, two seeds"
    monkeypatch.setenv(CACHE, str(tmp_path / "third"))
    checked = shell("check", "s3://lab/studies/toy-quick-synthetic")
    assert checked.returncode == 0 and "6 runs (6 completed) in 6 records" in checked.stdout, checked.stdout + checked.stderr
