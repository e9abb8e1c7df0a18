"""A real S3 server on this machine, for tests: moto's, in a process of its own."""

import http.client
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


Rule = Callable[[BaseHTTPRequestHandler], tuple[int, str] | None]  # a status and S3's word for it; None: the server is asked


@contextmanager
def between(settings: dict[str, str], rule: Rule) -> Iterator[str]:
    """The address of a server in front of the one of `settings`, with faults."""
    behind = settings["AWS_ENDPOINT_URL"].rpartition("/")[2]

    class Between(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            refused = rule(self)
            if refused is not None:
                self._answer(refused[0], [], f"<Error><Code>{refused[1]}</Code><Message>{refused[1]}</Message></Error>".encode())
                return
            server = http.client.HTTPConnection(behind)
            server.request(self.command, self.path, body, {k: v for k, v in self.headers.items() if k != "connection"})
            answer = server.getresponse()
            content = answer.read()
            ours = ("content-length", "transfer-encoding", "connection", "server", "date")
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in ours]
            self._answer(answer.status, headers, content, answer.getheader("Content-Length"))
            server.close()

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, length: str | None = None) -> None:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_one  # noqa: N815 (http.server's names)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Between)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
