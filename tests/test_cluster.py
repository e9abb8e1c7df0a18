"""cluster.yaml by Ray's own schema and by what the schema misses, its storage scripts with a stand-in for the bucket, how a cluster is divided
into runs, and --address against two nodes on this machine."""

import base64
import gc
import json
import logging
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from search import cluster, tune
from search.machines import RUN_BYTES, Machines, run_bytes, share_out, to_come
from search.signals import Signals
from search.tune import _Scheduler, _Searcher
from search.watch import Left, has_left
from trainables.parts.errors import ClusterLost, RequestError

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "cluster.yaml").read_text()
CONFIG = yaml.safe_load(TEXT)
COMMANDS = [command for name, commands in CONFIG.items() if name.endswith("_commands") for command in commands]


# -- cluster.yaml ---------------------------------------------------------------------------------------------------------------------


def test_the_cluster_file_is_valid_by_rays_own_schema() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load(TEXT)))


def test_workers_are_spot_machines_that_come_and_go_and_the_head_is_on_demand_and_without_runs() -> None:
    types = dict(CONFIG["available_node_types"])
    head = types.pop(CONFIG["head_node_type"])
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0} and head["max_workers"] == 0
    for kind in types.values():
        assert kind["min_workers"] == 0 and kind["resources"]["GPU"] >= 1 and kind["resources"]["CPU"] >= 1
        assert kind["max_workers"] <= CONFIG["max_workers"]
        assert kind["resources"] == types["gpu"]["resources"], "a run must fit on each"
    spot = {name for name, kind in types.items() if kind["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}}
    assert len({types[name]["node_config"]["InstanceType"] for name in spot}) == 2, "where one kind cannot be had there is another"
    (full,) = set(types) - spot
    assert types[full]["max_workers"] == 0, "nobody pays the full price unasked"


def test_what_ray_needs_to_copy_files_is_there_before_sshd_is() -> None:
    """Ray 2.60 copies files before it runs `initialization_commands`; cloud-init's bootcmd comes before sshd."""
    for kind in CONFIG["available_node_types"].values():
        first, *rest = kind["node_config"]["UserData"].splitlines()
        assert first == "#cloud-config"
        (command,) = yaml.safe_load("\n".join(rest))["bootcmd"]
        assert {"rsync", "tmux"} <= set(command.split())


def test_all_machines_stand_in_one_zone() -> None:
    assert re.fullmatch(CONFIG["provider"]["region"] + "[a-z]", CONFIG["provider"]["availability_zone"])


def test_ray_is_started_with_token_authentication_everywhere_and_its_shells_agree() -> None:
    starts = [command for command in COMMANDS if "ray start" in command]
    assert len(starts) == 2 and all("RAY_AUTH_MODE=token ray start" in command for command in starts)
    assert "RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token ray start --head" in starts[0]  # over what `ray up` exports
    assert any("RAY_AUTH_MODE=token" in command and "export" in command for command in CONFIG["setup_commands"])
    assert CONFIG["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in CONFIG["setup_commands"]


def test_the_dashboard_listens_on_the_loopback_alone_and_ports_stay_out_of_the_workers_range() -> None:
    (head,) = (command for command in CONFIG["head_start_ray_commands"] if "ray start" in command)
    assert "--dashboard-host=127.0.0.1" in head
    for start in (head, CONFIG["worker_start_ray_commands"][-1]):
        ports = {name: int(port) for name, port in re.findall(r"--([a-z-]*port)=(\d+)", start)}
        low, high = ports.pop("min-worker-port"), ports.pop("max-worker-port")
        assert all(not low <= port <= high for port in ports.values())


def test_the_environment_is_pinned_and_every_file_that_is_copied_exists() -> None:
    installs = [command for command in COMMANDS if "pip install" in command]
    assert installs and all("-c constraints.txt" in command for command in installs)
    local = [name for name in CONFIG["file_mounts"].values() if not name.startswith("~")]
    assert local and all((ROOT / name).exists() for name in local)
    packages = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert {f"./{name}" for name in packages} <= set(local)


def test_the_cluster_file_holds_no_secret_no_address_and_nothing_of_ours() -> None:
    assert not re.search(r"AKIA|ASIA|aws_access_key|aws_secret|BEGIN [A-Z ]*PRIVATE KEY|[0-9a-fA-F]{32,}|\b\d{12}\b", TEXT)
    assert set(re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", TEXT)) <= {"127.0.0.1"}
    assert not re.search(r"https?://|index-url|\bami-[0-9a-f]{8,}", TEXT)


def test_what_must_be_changed_is_refused_unchanged_and_stands_in_one_place() -> None:
    assert len(re.findall(r"^[^#\n]*s3://", TEXT, re.MULTILINE)) == 1
    node_types = CONFIG["available_node_types"].values()
    assert {kind["node_config"]["ImageId"] for kind in node_types} == {"ami-CHANGE-ME"}
    check = next(number for number, command in enumerate(CONFIG["setup_commands"]) if "CHANGE-ME" in command and "exit 1" in command)
    assert not any("dnf" in command or "pip" in command for command in CONFIG["setup_commands"][: check + 1]), "said at once"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[:40])
def test_every_command_is_a_whole_one_in_the_shell_that_ray_puts_around_it(command: str) -> None:
    wrapped = f"source ~/.bashrc; export A=1 && (export RAY_HEAD_IP=head; {command})"
    checked = subprocess.run(["bash", "-n", "-c", wrapped], capture_output=True, text=True, check=False)
    assert checked.returncode == 0 and not checked.stderr, checked.stderr


@pytest.mark.slow
def test_amazon_takes_the_machines_as_the_file_describes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own bootstrap and its node provider, against moto's EC2, IAM and S3."""
    moto = pytest.importorskip("moto", reason="moto, of the extra dev, is not installed")
    import boto3
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".ssh").mkdir()
    with moto.mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        ec2 = boto3.client("ec2", "us-east-1")
        image = ec2.describe_images()["Images"][0]["ImageId"]
        config = prepare_config(yaml.safe_load(TEXT.replace("ami-CHANGE-ME", image)))
        config = AWSNodeProvider.bootstrap_config(config)
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for kind, wanted in (("head", "m7i.xlarge"), ("gpu", "g6.2xlarge"), ("gpu-other", "g5.2xlarge"), ("gpu-on-demand", "g6.2xlarge")):
            provider.create_node(config["available_node_types"][kind]["node_config"], {"ray-user-node-type": kind}, 1)
            (made,) = (
                one
                for held in ec2.describe_instances()["Reservations"]
                for one in held["Instances"]
                if {"Key": "ray-user-node-type", "Value": kind} in one["Tags"]
            )
            assert made["InstanceType"] == wanted and made["Placement"]["AvailabilityZone"] == CONFIG["provider"]["availability_zone"]
            assert (made.get("InstanceLifecycle") == "spot") == (kind in ("gpu", "gpu-other"))
            text = boto3.client("ec2", "us-east-1").describe_instance_attribute(InstanceId=made["InstanceId"], Attribute="userData")
            assert base64.b64decode(text["UserData"]["Value"]).startswith(b"#cloud-config\nbootcmd:")


# -- clusters/ ------------------------------------------------------------------------------------------------------------------------

RECIPES = {path.name: path.read_text() for path in sorted((ROOT / "clusters").iterdir())}
LAUNCHED = {name: yaml.safe_load(text) for name, text in RECIPES.items() if name in ("gcp.yaml", "onprem.yaml")}


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_recipe_for_rays_launcher_is_valid_copies_the_same_code_and_starts_ray_behind_the_token(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = LAUNCHED[name]
    validate_config(prepare_config(yaml.safe_load(RECIPES[name])))
    assert config["file_mounts"] == CONFIG["file_mounts"] and config["rsync_exclude"] == CONFIG["rsync_exclude"]
    starts = [config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]]
    assert all("RAY_AUTH_MODE=token" in start and "ray start" in start for start in starts)
    assert re.search(
        r"RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token ray start --head\b.*--dashboard-host=127\.0\.0\.1", starts[0], re.DOTALL
    )
    assert ("RAY_enable_autoscaler_v2=0" in starts[0]) == (name == "onprem.yaml")
    commands = [command for key, several in config.items() if key.endswith("_commands") for command in several]
    assert "chmod 600 ~/.ray/auth_token" in commands
    assert any("pip install" in command and "-c constraints.txt" in command for command in commands)
    for command in commands:
        wrapped = f"source ~/.bashrc; export A=1 && (export RAY_HEAD_IP=head; {command})"
        checked = subprocess.run(["bash", "-n", "-c", wrapped], capture_output=True, text=True, check=False)
        assert checked.returncode == 0 and not checked.stderr, (command, checked.stderr)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_the_cluster_the_data_and_the_storage_and_says_what_to_change(name: str) -> None:
    text = RECIPES[name]
    assert {"RAY_ADDRESS", "KARYOTUNE_DATA", "KARYOTUNE_STORAGE", "RAY_USAGE_STATS_ENABLED"} <= set(re.findall(r"[A-Z]+(?:_[A-Z]+)+", text))
    for line in text.splitlines():
        if "-CHANGE-ME" in line and not line.lstrip().startswith("#"):
            assert "# CHANGE" in line, line
    assert not re.search(r"[0-9a-fA-F]{32,}|BEGIN [A-Z ]*PRIVATE KEY|https?://|index-url", text)
    assert set(re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", text)) <= {"127.0.0.1", "127.0.1.1", "0.0.0.0"}
    assert f"clusters/{name}" in text and f"clusters/{name}" in (ROOT / "docs/cluster.md").read_text()


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith(".sh")])
def test_a_batch_script_is_whole_and_asks_for_the_signal_and_the_queue(name: str) -> None:
    checked = subprocess.run(["bash", "-n", ROOT / "clusters" / name], capture_output=True, text=True, check=False)
    assert checked.returncode == 0 and not checked.stderr
    asked = {line.partition("  #")[0] for line in RECIPES[name].splitlines() if line.startswith("#SBATCH")}
    assert {"#SBATCH --signal=B:TERM@300", "#SBATCH --requeue", "#SBATCH --open-mode=append"} <= asked


def test_the_job_for_kubernetes_has_fields_that_kuberay_documents() -> None:
    """By name; with KARYOTUNE_KUBERAY_CRD, its ray.io_rayjobs.yaml, by the whole schema."""
    job = yaml.safe_load(RECIPES["kuberay.yaml"])
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec, cluster_spec = job["spec"], job["spec"]["rayClusterSpec"]
    assert set(spec) <= {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit", "rayClusterSpec"}
    assert (
        cluster_spec["authOptions"] == {"mode": "token"} and f"ray=={cluster_spec['rayVersion']}" in (ROOT / "constraints.txt").read_text()
    )
    groups = [cluster_spec["headGroupSpec"], *cluster_spec["workerGroupSpecs"]]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/shared", "/dev/shm"}
    assert groups[0]["rayStartParams"]["num-cpus"] == "0" and "replicas" in groups[1]
    if crd := os.environ.get("KARYOTUNE_KUBERAY_CRD"):
        import jsonschema

        (version,) = (one for one in yaml.safe_load(Path(crd).read_text())["spec"]["versions"] if one["name"] == "v1")
        schema = version["schema"]["openAPIV3Schema"]
        schema["properties"]["metadata"] = {"type": "object"}
        jsonschema.validate(job, _closed(schema))


def stub(path: Path, says: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (1, 1), (2, 0), (3, 0), (4, 0), (143, 1)])
def test_a_job_on_kubernetes_is_begun_anew_where_its_cluster_broke_alone(tmp_path: Path, status: int, expected: int) -> None:
    """A request that is refused, a limit that was reached and runs that have failed would take the GPUs again, five times, for the same."""
    entrypoint = yaml.safe_load(RECIPES["kuberay.yaml"])["spec"]["entrypoint"].replace("/home/ray/karyotune", str(tmp_path))
    assert "--preset" in entrypoint, "its head has no GPU to guess one from"
    stub(tmp_path / "python", f'echo "$@" > said; exit {status}')
    done = subprocess.run(shlex.join(shlex.split(entrypoint)), shell=True, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=False)
    assert done.returncode == expected and (tmp_path / "said").read_text().startswith("-m search supcam ")


def test_own_machines_run_the_code_that_was_copied_last_and_install_anew_what_changed(tmp_path: Path) -> None:
    (command,) = (one for one in LAUNCHED["onprem.yaml"]["setup_commands"] if "pip install" in one)
    words = next(one for one in LAUNCHED["onprem.yaml"]["setup_commands"] if "karyotune.sh <<'END'" in one)
    (settings,) = re.findall(r"<<'END'\n(.*?)^END$", words, re.DOTALL | re.MULTILINE)
    project, asked = tmp_path / "karyotune", tmp_path / "asked"
    write(tmp_path / "karyotune.sh", settings)
    stub(tmp_path / "venv/bin/python", f'echo "$@" >> {asked}')
    for name in ("constraints.txt", "pyproject.toml"):
        write(project / name, "one\n")

    def up() -> list[str]:
        asked.write_text("")
        subprocess.run(["bash", "-c", command], env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]}, check=True)
        return asked.read_text().splitlines()

    install = "-m pip install --quiet -c constraints.txt -e "
    assert up() == [f"{install}."], "-e: without it `karyotune` would stay as it was installed once"
    assert up() == []
    for name in ("constraints.txt", "pyproject.toml"):
        write(project / name, "other\n")
        assert up() == [f"{install}."] and up() == []
    write(tmp_path / "karyotune.sh", settings.replace("PACKAGE=.  #", "PACKAGE=.[s3]  #"))
    assert up() == [f"{install}.[s3]"] and up() == []


def _closed(schema: Any) -> Any:
    """A schema of Kubernetes that takes no field it does not name, and numbers or words where it says so."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        closed.setdefault("additionalProperties", False)
    return closed


# -- the bucket -----------------------------------------------------------------------------------------------------------------------

AWS = """#!{python}
# Stands for `aws s3 sync [--exclude PATTERN]... FROM TO`: copies files, notes each.
import fnmatch, pathlib, shutil, sys
words, excluded, places = sys.argv[3:], [], []
while words:
    word = words.pop(0)
    if word == "--exclude":
        excluded.append(words.pop(0))
    elif not word.startswith("--"):
        places.append(pathlib.Path(word.replace("s3:/", "{bucket}")))
source, target = places
for file in sorted(source.rglob("*")):
    name = str(file.relative_to(source))
    if file.is_file() and not any(fnmatch.fnmatch(name, pattern) for pattern in excluded):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target / name)
        with open("{bucket}.log", "a") as log:
            log.write(name + "\\n")
"""


@pytest.fixture
def head(tmp_path: Path) -> Any:
    """A home with the scripts that cluster.yaml writes and a stand-in for aws; call it with a script's name."""
    home, bucket = tmp_path / "home", tmp_path / "bucket"
    (home / "bin").mkdir(parents=True)
    (home / "bucket.sh").write_text("export BUCKET=s3://laboratory/karyotune\n")
    (home / "bin" / "aws").write_text(AWS.format(python=sys.executable, bucket=bucket))
    (home / "bin" / "aws").chmod(0o755)
    (home / "bin" / "wall").write_text(f'#!/bin/sh\necho "$*" >> {tmp_path / "told"}\n')
    (home / "bin" / "wall").chmod(0o755)
    (home / "bin" / "python").symlink_to(sys.executable)
    for command in COMMANDS:
        for name, body in re.findall(r"cat > ~/(\w+\.sh) <<'END'\n(.*?)^END$", command, re.DOTALL | re.MULTILINE):
            (home / name).write_text(body)

    def call(name: str) -> None:
        environment = {"HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
        subprocess.run(["bash", str(home / name), str(tmp_path / "shared")], env=environment, check=True)

    return call


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_new_head_brings_the_studies_back_and_an_old_one_is_left_alone(head: Any, tmp_path: Path) -> None:
    write(tmp_path / "bucket/laboratory/karyotune/a/records.jsonl", "one\n")
    head("restore.sh")
    records = tmp_path / "shared/runs/a/records.jsonl"
    assert records.read_text() == "one\n"
    records.write_text("one\ntwo\n")  # the head went on, and is set up again before the next copy
    head("restore.sh")
    assert records.read_text() == "one\ntwo\n"


def test_a_restore_that_broke_off_is_not_taken_for_a_whole_one(head: Any, tmp_path: Path) -> None:
    write(tmp_path / "bucket/laboratory/karyotune/a/records.jsonl", "one\n")
    write(tmp_path / "bucket/laboratory/karyotune/b/records.jsonl", "two\n")
    write(tmp_path / "shared/runs.coming/a/records.jsonl", "one\n")
    head("restore.sh")
    assert sorted(path.parent.name for path in tmp_path.glob("shared/runs/*/records.jsonl")) == ["a", "b"]


def test_ledgers_reach_the_bucket_after_all_that_they_name(head: Any, tmp_path: Path) -> None:
    study = tmp_path / "shared/runs/a"
    names = ("checkpoints/x/model.safetensors", "optuna.journal", "records.jsonl", "stages/z/stage.safetensors", "study.json")
    for name in (*names, "checkpoints/y/flight.safetensors", "ray/tune/state", ".study.json.7.tmp"):
        write(study / name, name)
    head("save.sh")
    write(tmp_path / "shared/data/images/0.png", "image")
    head("save.sh")
    copied = [name.removeprefix("a/") for name in (tmp_path / "bucket.log").read_text().splitlines()][len(names) :]
    assert sorted(copied) == sorted([*names, "images/0.png"])
    assert (tmp_path / "bucket/laboratory/karyotune-data/images/0.png").read_text() == "image"
    assert set(copied[-2:]) == {"optuna.journal", "records.jsonl"}


def test_saving_before_the_first_study_is_no_error(head: Any, tmp_path: Path) -> None:
    (tmp_path / "bucket/laboratory/karyotune").mkdir(parents=True)
    head("restore.sh")
    head("save.sh")
    assert not (tmp_path / "bucket.log").exists() and (tmp_path / "home/saved").exists()


def test_images_come_back_with_the_studies(head: Any, tmp_path: Path) -> None:
    write(tmp_path / "bucket/laboratory/karyotune-data/images/0.png", "image")
    head("restore.sh")
    assert (tmp_path / "shared/data/images/0.png").read_text() == "image"


def test_a_copy_to_the_bucket_that_fails_is_told_to_whoever_is_there(head: Any, tmp_path: Path) -> None:
    head("restore.sh")
    write(tmp_path / "home/bin/aws", "#!/bin/sh\nexit 1\n")
    write(tmp_path / "shared/data/0.png", "image")
    with pytest.raises(subprocess.CalledProcessError):
        head("save.sh")
    assert "copy to the bucket fails" in (tmp_path / "told").read_text() and not (tmp_path / "home/saved").exists()
    shell = subprocess.run(["bash", "-c", ". ~/karyotune.sh"], env={"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]}, capture_output=True,
                           text=True, check=True)  # fmt: skip
    assert "nothing was copied to the bucket for five minutes" in shell.stderr


@pytest.mark.parametrize(("failed", "most"), [(2, 4), (3, 1)])
def test_no_more_machines_are_asked_for_once_three_could_not_be_set_up(head: Any, tmp_path: Path, failed: int, most: int) -> None:
    write(tmp_path / "shared/setup-failed", "PyTorch cannot use the GPU\n" * failed)
    write(tmp_path / "home/ray_bootstrap_config.yaml", TEXT)
    write(tmp_path / "home/bin/ray", """#!/bin/sh\nprintf '[{"node_id": "head"}, {"node_id": "worker"}]'\n""")
    (tmp_path / "home/bin/ray").chmod(0o755)
    head("guard.sh")
    assert yaml.safe_load((tmp_path / "home/ray_bootstrap_config.yaml").read_text()) == CONFIG | {"max_workers": most}
    assert (tmp_path / "told").exists() == (most < 4)
    head("guard.sh")  # once only


def test_a_bucket_that_cannot_be_reached_ends_the_setup_of_the_head_in_its_first_second(head: Any, tmp_path: Path) -> None:
    write(tmp_path / "home/ray_bootstrap_config.yaml", TEXT)
    (check,) = (command for command in CONFIG["setup_commands"] if "head-bucket" in command)

    def tried(bucket: str, aws: str) -> subprocess.CompletedProcess[str]:
        write(tmp_path / "home/bucket.sh", f"export BUCKET={bucket}\n")
        write(tmp_path / "home/bin/aws", f"#!/bin/sh\n[ \"$*\" = 's3api head-bucket --bucket laboratory' ] && {aws}\n")
        environment = {"HOME": str(tmp_path / "home"), "PATH": f"{tmp_path / 'home/bin'}:{os.environ['PATH']}"}
        return subprocess.run(["bash", "-c", check], env=environment, capture_output=True, text=True, check=False)

    assert tried("s3://laboratory/karyotune", "true").returncode == tried("none", "false").returncode == 0
    assert "cannot reach the bucket laboratory" in tried("s3://laboratory/karyotune", "false").stdout
    assert "set BUCKET in setup_commands" in tried("s3://CHANGE-ME/karyotune", "true").stdout


# -- dividing a cluster ---------------------------------------------------------------------------------------------------------------

GPU_NODE = {"CPU": 8.0, "GPU": 1.0}
HEAD = {"node:__internal_head__": 1.0}


@pytest.mark.parametrize(
    ("nodes", "gpus_per_run", "workers", "expected"),
    [
        ([{"CPU": 2.0}], None, 1, (1, 0.0, 2)),
        ([{"CPU": 1.0}, {"CPU": 1.0}], None, 1, (1, 0.0, 2)),
        ([{"CPU": 2.0}], None, 2, (1, 0.0, 1)),
        ([{"CPU": 16.0, "GPU": 1.0}], None, 1, (16, 1.0, 1)),
        ([{"CPU": 16.0, "GPU": 1.0}], 0.25, 1, (4, 0.25, 4)),
        ([{"CPU": 16.0, "GPU": 1.0}], 0.0, 1, (1, 0.0, 16)),
        ([{"CPU": 4.0}, GPU_NODE, GPU_NODE], None, 1, (8, 1.0, 2)),  # the CPUs of a node without a GPU are of no use to a run
        ([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 1.0}], None, 1, (4, 1.0, 2)),  # a run must fit on either
        ([GPU_NODE] * 4, None, 2, (8, 1.0, 2)),
        ([{"CPU": 4.0, "GPU": 1.0}], 0.1, 1, (0.4, 0.1, 10)),  # more runs on a GPU than CPUs: each has a part of one
        ([{"CPU": 16.0, "memory": 8e9}], None, 1, (2, 0.0, 6)),  # not 16 runs of 1.3 GB on 8 GB
        ([{"CPU": 2.0, "memory": 1e9}], None, 1, (2, 0.0, 1)),  # what a run takes is a guess: one may always try
    ],
)
def test_runs_take_what_a_node_has(
    nodes: list[dict[str, float]], gpus_per_run: float | None, workers: int, expected: tuple[int, float, int]
) -> None:
    share = share_out(Machines(tuple(nodes)), gpus_per_run, workers)
    assert (share.cpus, share.gpus, share.slots) == expected
    assert share.held == (share.gpus or 1.0) * workers


@pytest.mark.parametrize(
    ("nodes", "gpus_per_run", "workers", "words"),
    [
        ([{"CPU": 2.0}], 1.0, 1, "1 GPU"),
        ([{"CPU": 2.0}], None, 3, "3 worker"),
        ([HEAD], None, 1, "room for 0"),
        ([GPU_NODE], 2.0, 1, "2 GPU"),
    ],
)
def test_a_run_that_no_node_could_ever_take_is_refused(
    nodes: list[dict[str, float]], gpus_per_run: float | None, workers: int, words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        share_out(Machines(tuple(nodes)), gpus_per_run, workers)


def test_machines_that_the_autoscaler_may_add_count_as_long_as_they_are_not_there(tmp_path: Path) -> None:
    bootstrap = tmp_path / "ray_bootstrap_config.yaml"
    bootstrap.write_text(TEXT)
    assert to_come(tmp_path / "absent.yaml", [HEAD]) == ()
    coming = to_come(bootstrap, [HEAD])
    assert coming == (GPU_NODE,) * 4
    assert share_out(Machines((HEAD,), coming, True), None, 1).slots == 4
    assert len(to_come(bootstrap, [HEAD, GPU_NODE])) == 3


def test_a_run_takes_the_memory_that_others_of_its_study_took_and_a_fifth_more() -> None:
    assert run_bytes({}) == RUN_BYTES
    assert run_bytes({"a": {"peak_memory_bytes": 1e9}, "b": {"peak_memory_bytes": None}, "c": {"peak_memory_bytes": 2e9}}) == 2.4e9


def test_a_ray_that_does_not_start_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(**words: Any) -> None:
        raise Exception("The current node timed out\nduring startup.")  # as Ray does where its raylet is killed meanwhile

    monkeypatch.setattr(cluster.ray, "init", start)
    with (
        pytest.raises(ClusterLost, match=r"^Ray did not start \(The current node timed out during startup\.\)$"),
        cluster.open_cluster(Signals(), None),
    ):
        pass


class Heard:
    """A Director as Tune's side of the bridge sees it."""

    def __init__(self, *keys: str, told: bool = False) -> None:
        self.runs, self.told = iter([*(SimpleNamespace(run=SimpleNamespace(key=key)) for key in keys), None, None]), told
        self.queue = SimpleNamespace(active={}, node_of=lambda key: "node of " + key, handed_back=lambda: 0)
        self.slots, self.halt = 9, None
        self.gone: list[Any] = []
        self.rows: list[Any] = []

    def next(self) -> Any:
        return next(self.runs)

    def job(self, active: Any) -> dict[str, Any]:
        return {"key": active.run.key, "placement": 1, "avoid": []}

    def lost(self, key: str, placement: int, *, node_lives: bool, placed: Any) -> None:
        self.gone.append((key, placement, node_lives))

    def finished(self) -> bool:
        return False

    def row(self, key: str, row: dict[str, Any], placement: int) -> bool:
        self.rows.append((key, row, placement))
        return self.told


def trial(key: str, name: str = "1") -> Any:
    return SimpleNamespace(trial_id=name, status="RUNNING", config={"key": key, "placement": 1})


def test_a_run_is_lost_with_its_process_and_it_is_said_whether_its_machine_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "alive", lambda: [{"NodeID": "node of a"}])
    director: Any = Heard("a", "b")
    searcher = _Searcher(director, {"cpus": 1})
    scheduler = _Scheduler(director, searcher.trials)
    for name, key in (("1", "a"), ("2", "b")):
        assert searcher.suggest(name) == {"key": key, "placement": 1, "avoid": [], "cpus": 1}
        scheduler.on_trial_add(None, trial(key, name))
    searcher.on_trial_complete("1", error=True)
    searcher.on_trial_complete("2", error=True)
    assert director.gone == [("a", 1, True), ("b", 1, False)]


def test_a_run_that_tune_gives_up_without_a_word_is_lost_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the process of a stopped run does not come free: Tune marks the next run as failed, and tells no searcher."""
    monkeypatch.setattr(cluster, "alive", list)
    director: Any = Heard("a", "b")
    searcher = _Searcher(director, {})
    scheduler = _Scheduler(director, searcher.trials)
    trials = [trial("a", "1"), trial("b", "2")]
    for one in trials:
        searcher.suggest(one.trial_id)
        scheduler.on_trial_add(None, one)
    trials[0].status = trials[1].status = "ERROR"
    searcher.on_trial_complete("2", error=True)  # of this one it was told
    searcher.suggest("3")
    searcher.suggest("3")
    assert [key for key, *_ in director.gone] == ["b", "a"]


def test_a_run_is_placed_on_no_machine_that_it_is_to_avoid_while_there_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [{"NodeID": name, "Alive": name != "c"} for name in "abc"])
    bundles = [{"CPU": 1.0}]
    assert tune.placed(bundles, ["a", "c"])._bound.kwargs["bundle_label_selector"] == [{"ray.io/node-id": "!in(a)"}]
    assert "bundle_label_selector" not in tune.placed(bundles, ["a", "b"])._bound.kwargs, "it would wait for ever"
    assert "bundle_label_selector" not in tune.placed(bundles, [])._bound.kwargs


@pytest.mark.parametrize(
    ("row", "told", "decision"),
    [({"epoch": 1}, False, "CONTINUE"), ({"epoch": 1}, True, "STOP"), ({"end": "completed"}, False, "STOP"), ({"end": "stopped"}, False, "STOP"),
     ({"end": "failed", "leaves": True}, False, "CONTINUE")],
)  # fmt: skip
def test_a_process_is_free_for_the_next_run_with_the_last_word_of_the_one_before(row: dict[str, Any], told: bool, decision: str) -> None:
    director: Any = Heard(told=told)
    assert _Scheduler(director, {}).on_trial_result(None, trial("k"), {"row": json.dumps(row)}) == decision
    assert director.rows == [("k", row, 1)]


def test_a_run_whose_record_the_disk_refuses_ends_and_stays_to_be_taken_up() -> None:
    dropped: list[Any] = []

    def row(*words: Any) -> bool:
        raise OSError("full")

    director: Any = SimpleNamespace(row=row, halt=None, drop=lambda *words: dropped.append(words))
    assert _Scheduler(director, {}).on_trial_result(None, trial("k"), {"row": '{"end": "completed"}'}) == "STOP"
    assert dropped == [("k", "full")]


# -- --address ------------------------------------------------------------------------------------------------------------------------


def search(*words: str, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-m", "search", "supcam", *words], cwd=ROOT, env=environment, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


SMALL = ["--set", "pretrain_epochs=1", "--set", "finetune_epochs=1", "--repeats", "1", "--tables", "2"]


def refused(*words: str) -> str:
    """The one line of a request that is refused, with status 2 and no traceback."""
    process = search(*SMALL, "--trials", "0", "--arms", "Scratch", *words)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    (line,) = errors.strip().splitlines()
    return line


@pytest.fixture
def refused_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The same in this process."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def line(*words: str) -> str:
        from search import cli

        assert cli.main(["supcam", *SMALL, "--trials", "0", "--arms", "Scratch", *words]) == 2
        (told,) = capsys.readouterr().err.strip().splitlines()
        return told

    return line


@pytest.mark.slow
@pytest.mark.parametrize("answers", [False, True])
def test_an_address_without_a_cluster_is_refused_at_once(tmp_path: Path, refused_here: Callable[..., str], answers: bool) -> None:
    with socket.socket() as port:  # bound, and so nobody else's; answers, if it listens, without saying a word
        port.bind(("127.0.0.1", 0))
        if answers:
            port.listen()
        line = refused_here("--address", f"127.0.0.1:{port.getsockname()[1]}", "--storage", str(tmp_path))
    assert "no Ray cluster answers there within 5 s" in line


@pytest.mark.parametrize("address", ["nonsense", "ray://127.0.0.1:10001"])
def test_an_address_of_another_form_is_refused_with_the_forms_there_are(
    tmp_path: Path, refused_here: Callable[..., str], address: str
) -> None:
    line = refused_here("--address", address, "--storage", str(tmp_path))
    assert line.startswith(f"search: --address {address}: ") and "HOST:PORT" in line


def on_a_cluster(test: Any) -> Any:
    """Marks. Ray leaves the sockets with which it looks for free ports to the garbage collector."""
    for mark in (
        pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
    ):  # fmt: skip
        test = mark(test)
    return test


@on_a_cluster
def test_tune_holds_no_run_that_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where another version of Ray keeps them elsewhere: see `search.tune.KEPT`. Runs that end and runs that break off."""
    from ray import tune as rays
    from ray.tune.experiment import Trial

    class Many(Heard):
        def finished(self) -> bool:
            return len(self.rows) + len(self.gone) == 12

    class Counting(_Scheduler):
        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            gc.collect()
            held.append(sum(type(one) is Trial for one in gc.get_objects()))
            super().on_trial_add(tune_controller, trial)

    def run(job: dict[str, Any]) -> None:
        if job["key"] in ("2", "3"):
            raise RuntimeError
        rays.report({"row": json.dumps({"end": "completed"}), "epoch": 0})

    held: list[int] = []
    monkeypatch.setattr(logging.getLogger("ray.tune.execution.tune_controller"), "disabled", True)  # pytest keeps what a traceback holds
    director: Any = Many(*map(str, range(12)))
    director.runs, director.slots = (SimpleNamespace(run=SimpleNamespace(key=str(key))) if key < 12 else None for key in range(1000)), 2
    with cluster.open_cluster(Signals(), None, gpus=0):
        searcher = _Searcher(director, {})
        rays.Tuner(
            rays.with_resources(run, {"cpu": 1}),
            tune_config=rays.TuneConfig(
                search_alg=searcher, scheduler=Counting(director, searcher.trials), num_samples=99, reuse_actors=True
            ),
            run_config=rays.RunConfig(storage_path=str(tmp_path), verbose=0, failure_config=rays.FailureConfig(max_failures=0)),
        ).fit()
    assert len(director.rows) == 10 and len(director.gone) == 2
    assert len(held) == 12 and max(held) <= 6, held


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head and a worker with one CPU each, as two Ray nodes on this machine, behind a token as cluster.yaml has it."""
    from ray._private.utils import get_ray_address_file
    from ray.cluster_utils import Cluster

    from search.cluster import _read_authentication

    with monkeypatch.context() as settings:
        settings.setenv("RAY_AUTH_MODE", "token")
        settings.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        settings.setenv("RAY_USAGE_STATS_ENABLED", "0")
        _read_authentication()
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            cluster.worker = cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            yield cluster
        finally:
            cluster.shutdown()
            Path(get_ray_address_file(None)).unlink(missing_ok=True)  # left behind, it would be taken for a running cluster
            gc.collect()
    _read_authentication()


def children(node: Any) -> set[int]:
    """Processes that a node's raylet has started."""
    raylet = node.all_processes["raylet"][0].process.pid
    try:
        return {int(word) for word in Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()}
    except OSError:
        return set()


def records(study: Path) -> list[dict[str, Any]]:
    path = study / "records.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(process: subprocess.Popen[str], look: Any, seconds: float = 240) -> None:
    """Look four times a second until the process ends, or `look` says so."""
    end = time.monotonic() + seconds
    while process.poll() is None and not look():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.25)


@on_a_cluster
def test_a_study_uses_both_nodes_of_a_running_cluster(two_nodes: Any, tmp_path: Path) -> None:
    seen: tuple[set[int], set[int]] = (set(), set())

    def look() -> bool:
        for node, found in zip((two_nodes.head_node, two_nodes.worker), seen, strict=True):
            found |= children(node)
        return False

    process = search(
        *SMALL,
        "--address",
        two_nodes.address,
        "--storage",
        str(tmp_path),
        "--name",
        "s",
        "--trials",
        "1",
        "--arms",
        "Scratch,MoCo,MoCo + SupCon",
    )
    wait_for(process, look)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "4 runs (4 completed)" in output
    pids = {int(record["worker"].rpartition(":")[2]) for record in records(tmp_path / "s")}
    assert pids <= seen[0] | seen[1]
    assert pids & seen[0] and pids & seen[1]


@pytest.fixture
def taken(two_nodes: Any) -> Iterator[None]:
    """One of the cluster's two CPUs is at work for somebody else."""
    other = subprocess.Popen(
        [
            sys.executable, "-c",
            "import ray, sys, time; ray.init(address=sys.argv[1], log_to_driver=False)\n"
            "@ray.remote\ndef work(): time.sleep(600)\n"
            "task = work.remote()\nwhile ray.available_resources().get('CPU') != 1: time.sleep(0.1)\nprint('busy', flush=True); time.sleep(600)",
            two_nodes.address,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert other.stdout is not None and other.stdout.readline() == "busy\n"
        yield
    finally:
        other.kill()
        other.communicate()


@on_a_cluster
def test_a_signal_while_machines_are_awaited_ends_the_command_at_once(two_nodes: Any, tmp_path: Path) -> None:
    write(tmp_path / "home/ray_bootstrap_config.yaml", TEXT)  # machines with a GPU may come, and do not
    words = [*SMALL, "--address", two_nodes.address, "--storage", str(tmp_path), "--name", "s", "--trials", "0", "--arms", "Scratch"]
    process = search(*words, HOME=str(tmp_path / "home"))
    wait_for(process, lambda: "View detailed results" in text(tmp_path / "s/log.txt"))
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.startswith("search: stopped; the same command continues: python -m search supcam")
    assert "saves its checkpoint" not in output and "Traceback" not in output + errors + text(tmp_path / "s/log.txt")


@on_a_cluster
def test_a_signal_saves_what_runs_and_does_not_wait_for_what_has_no_machine(two_nodes: Any, taken: None, tmp_path: Path) -> None:
    words = [*SMALL, "--address", two_nodes.address, "--storage", str(tmp_path), "--name", "s", "--trials", "0", "--arms", "Scratch,MoCo"]
    process = search(*words, "--set", "pretrain_epochs=500", "--set", "finetune_epochs=500")
    wait_for(process, lambda: any("epoch" in text(path) for path in tmp_path.glob("s/checkpoints/*/epochs.log")))
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 143 and "what runs saves its checkpoint after this epoch" in output, errors
    assert len(list(tmp_path.glob("s/checkpoints/*/flight.safetensors"))) == len(list(tmp_path.glob("s/checkpoints/*"))) == 1


def text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


@on_a_cluster
def test_a_cluster_that_others_use_in_full_is_refused_and_so_is_one_that_is_too_small_or_wants_a_token(
    two_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--address", two_nodes.address, "--storage", str(tmp_path)]
    with monkeypatch.context() as settings:
        settings.setenv("RAY_AUTH_MODE", "disabled")
        assert "set RAY_AUTH_MODE as the cluster has it" in refused(*words)
    assert "room for 0" in refused(*words, "--gpus-per-run", "1")
    other = subprocess.Popen(
        [
            sys.executable, "-c",
            "import ray, sys, time; ray.init(address=sys.argv[1], log_to_driver=False)\n"
            "@ray.remote\ndef work(): time.sleep(600)\n"
            "tasks = [work.remote() for _ in range(2)]\nwhile ray.available_resources().get('CPU'): time.sleep(0.1)\nprint('busy', flush=True); time.sleep(600)",
            two_nodes.address,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert other.stdout is not None and other.stdout.readline() == "busy\n"
        assert "no free resources: a worker takes 1 CPU, and 0 CPU are free in all" in refused(*words)
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()


def test_a_study_that_is_left_is_left_in_order_though_ray_makes_another_exception_of_it() -> None:
    """As `CoreWorker.wait` does: "returned a result with an exception set"."""
    fault = SystemError("returned a result with an exception set")
    fault.__cause__ = Left()
    assert has_left(fault) and has_left(Left()) and not has_left(SystemError()) and not has_left(None)
