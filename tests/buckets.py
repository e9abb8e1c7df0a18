"""A real S3 server on this machine, for tests: moto's, in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import boto3

SETTINGS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
SERVE = """from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
input()"""


@contextmanager
def served(bucket: str) -> Iterator[dict[str, str]]:
    """What the environment of a command must have to use it."""
    process = subprocess.Popen([sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        settings = SETTINGS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(process.stdout.readline())}"}
        client(settings).create_bucket(Bucket=bucket)
        yield settings
    finally:
        process.kill()
        process.communicate()


def client(settings: dict[str, str]):
    return boto3.client(
        "s3", endpoint_url=settings["AWS_ENDPOINT_URL"], aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"], region_name=settings["AWS_REGION"],
    )  # fmt: skip


def names(settings: dict[str, str], bucket: str, prefix: str = "") -> list[str]:
    pages = client(settings).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [one["Key"].removeprefix(prefix) for page in pages for one in page.get("Contents", [])]


def without(environment: dict[str, str]) -> dict[str, str]:
    """An environment in which no cloud is set."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GOOGLE_"))} | environment
