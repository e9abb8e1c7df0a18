"""What is said of an environment or of Amazon's settings that give no way into a bucket. No request leaves this machine."""

import pytest

from search import cli, objects

pytest.importorskip("boto3", reason="the extra s3 is not installed")


@pytest.fixture
def plain(monkeypatch, tmp_path):
    """An environment that says nothing of Amazon, and a folder for its settings."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "ENDPOINT_URL", "ENDPOINT_URL_S3", "ENDPOINT"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("KARYOTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_package_that_lacks_is_installed_from_this_project(monkeypatch, capsys):
    """No registry has it: whoever takes its name there could send anything."""
    monkeypatch.setattr(objects, "find_spec", lambda name: None)
    assert cli.main(["ls", "--storage", "gs://lab/x"]) == 2
    assert "in this project's folder: pip install -c constraints.txt -e '.[gcs]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "config", "words"),
    [
        ({"AWS_PROFILE": "lab"}, "", "(The config profile (lab) could not be found); mend ~/.aws/config"),
        ({}, "[default]\ncredential_process = /bin/false\n", "(Error when retrieving credentials from custom-process); mend"),
        ({}, "[default\nfoo", "(Unable to parse config file: "),
        (
            {}, "[default]\nsso_session=s\nsso_account_id=1\nsso_role_name=r\n[sso-session s]\nsso_region=us-east-1\nsso_start_url=https://x.test\n",
            "(Error loading SSO Token: Token for s does not exist); mend ~/.aws/config, name another AWS_PROFILE, or log in again",
        ),
        ({"AWS_ACCESS_KEY_ID": "k"}, "", "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not; set both, or neither"),
        ({"AWS_SECRET_ACCESS_KEY": "s"}, "", "AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not; set both, or neither"),
        ({"AWS_ENDPOINT_URL": "minio:9000"}, "", "AWS_ENDPOINT_URL must begin with http:// or https:// and name a host, got minio:9000"),
        ({"AWS_ENDPOINT_URL": "http://"}, "", "AWS_ENDPOINT_URL must begin with http:// or https:// and name a host, got http://"),
    ],
)  # fmt: skip
def test_settings_that_give_no_way_into_a_bucket_are_one_sentence_and_status_2(plain, monkeypatch, capsys, settings, config, words):
    (plain / "config").write_text(config)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["ls", "--storage", "s3://lab/x"]) == 2
    fault = capsys.readouterr().err
    assert fault.startswith("search: ") and words in fault and len(fault.splitlines()) == 1
