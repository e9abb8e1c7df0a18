"""Objects of an object store (Amazon S3 and what speaks like it, Google Cloud Storage), below one address.
Comes in: an address, names, bytes or files. Goes out: the same; and StorageFault, in words, for whatever the store refuses. A put may be
conditional (`If-None-Match: *`, `If-Match`): of several writers the store lets one win. The only file that knows obstore."""

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from trainables.parts.errors import StorageFault
from trainables.parts.libraries import install

SCHEMES = {"s3": "s3", "gs": "gcs"}  # and the extra of this project that brings what is needed
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def _retries(seconds: float, pause: float) -> dict[str, Any]:
    """The time decides, not a number: the pauses are drawn from 0 up, so that many of them may be over in a second."""
    backoff = {"init_backoff": timedelta(seconds=pause), "max_backoff": timedelta(seconds=4 * pause)}
    return {"max_retries": 1000, "retry_timeout": timedelta(seconds=seconds), "backoff": backoff}


PATIENCE = _retries(60, 1.0)  # of a study at work: a minute without a network ends no run
AT_ONCE = _retries(6, 0.25)  # where somebody waits for the answer
ANSWER_SECONDS = 8.0  # for how long such a one waits for a store that took the question and is silent
CONFLICTS, CONFLICT_SECONDS = 60, 0.5  # how often, and how soon, a new object is put again that another of its name was in the way of
SILENCE_SECONDS = 120.0  # the same of a study at work; with it the store may not have taken all of a large object yet


@dataclass(frozen=True)
class Found:
    """name: below the address; modified: by the store's clock, whole seconds since 1970."""

    name: str
    size: int
    modified: int


class Objects:
    """What stands below `url`. quick: a question whose answer somebody waits for."""

    def __init__(self, url: str, quick: bool = False) -> None:
        from obstore.store import GCSStore, S3Store

        self.url = url.rstrip("/")
        scheme, _, rest = self.url.partition("://")
        self.bucket, _, prefix = rest.partition("/")  # not to be read as a URL, in which # and ? end the path
        plain = scheme == "s3" and endpoint().startswith("http://")
        whole, silent = (ANSWER_SECONDS, ANSWER_SECONDS) if quick else (600.0, SILENCE_SECONDS)
        times = {"connect_timeout": 4.0, "timeout": whole, "read_timeout": silent}
        client: Any = {name: timedelta(seconds=value) for name, value in times.items()} | {"allow_http": plain}
        retry: Any = AT_ONCE if quick else PATIENCE
        kind: Any = {"s3": S3Store, "gs": GCSStore}[scheme]
        with self._told():
            self._store: Any = kind(self.bucket, prefix=prefix or None, client_options=client, retry_config=retry, **_credentials(scheme))

    def put(self, name: str, content: bytes | Path) -> None:
        import obstore

        with self._told():
            obstore.put(self._store, name, content)

    def put_new(self, name: str, content: bytes | Path) -> bool:
        """Whether it was written: not where another one is there already. One of the same content is ours: its answer was lost, and the
        client asked again. Amazon also says that one is there while another put of that name is under way, or has just failed."""
        import obstore

        for _ in range(CONFLICTS):
            with self._told():
                try:
                    obstore.put(self._store, name, content, mode="create")
                    return True
                except obstore.exceptions.AlreadyExistsError:
                    if (there := self.get(name)) is not None:
                        return there[0] == (content if isinstance(content, bytes) else content.read_bytes())
            time.sleep(CONFLICT_SECONDS)
        raise StorageFault(f"{self.url} neither takes {name} nor has it; look at its server, then the same command continues")

    def put_over(self, name: str, content: bytes, version: dict[str, str]) -> dict[str, str] | None:
        """The new version; None where the object is not of `version` any more."""
        import obstore

        with self._told():
            try:
                return _version(obstore.put(self._store, name, content, mode=version))  # type: ignore[arg-type]
            except obstore.exceptions.PreconditionError:
                there = self.get(name)
                return there[1] if there is not None and there[0] == content else None
            except FileNotFoundError as fault:
                if self._no_bucket(fault):
                    raise
                return None

    def get(self, name: str) -> tuple[bytes, dict[str, str]] | None:
        """(content, version); None where there is none."""
        import obstore

        with self._told():
            try:
                found = obstore.get(self._store, name)
                return bytes(found.bytes()), _version(found.meta)
            except FileNotFoundError as fault:
                if self._no_bucket(fault):
                    raise
        return None

    def head(self, name: str) -> Found | None:
        import obstore

        with self._told():
            try:
                return _found(obstore.head(self._store, name))
            except FileNotFoundError:
                return None

    def download(self, name: str, path: Path) -> Found | None:
        """Into a file, whole or not at all; None where there is none."""
        import obstore

        temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._told():
                try:
                    found = obstore.get(self._store, name)
                    with temporary.open("wb") as file:
                        for piece in found.stream():
                            file.write(piece)
                except FileNotFoundError:
                    return None
            os.replace(temporary, path)
            return _found(found.meta)
        finally:
            temporary.unlink(missing_ok=True)

    def below(self, name: str = "") -> list[Found]:
        """All that stands in what would be a folder; without the empty objects that consoles make to stand for one."""
        import obstore

        with self._told():
            found = [_found(meta) for page in obstore.list(self._store, name or None) for meta in page]
        above = {str(folder) for one in found for folder in PurePosixPath(one.name).parents}
        return [one for one in found if one.name and (one.size or one.name not in above)]

    def folders(self, below: str = "") -> list[str]:
        """Names of what would be folders, one level down."""
        import obstore

        with self._told():
            return [one.rpartition("/")[2] for one in obstore.list_with_delimiter(self._store, below or None)["common_prefixes"]]

    def beside(self, below: str = "") -> list[Found]:
        """The objects of one level."""
        import obstore

        with self._told():
            return [_found(meta) for meta in obstore.list_with_delimiter(self._store, below or None)["objects"]]

    def delete(self, *names: str) -> None:
        """What is not there is deleted already."""
        import obstore

        with self._told():
            for name in names:
                try:
                    obstore.delete(self._store, name)
                except FileNotFoundError as fault:
                    if self._no_bucket(fault):
                        raise

    def _no_bucket(self, fault: Exception) -> bool:
        return "NoSuchBucket" in str(fault) or "bucket does not exist" in str(fault)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the store refuses, in words. Of its own words the first line is for people."""
        import obstore

        try:
            yield
        except StorageFault:
            raise
        except (obstore.exceptions.BaseError, FileNotFoundError, PermissionError) as fault:
            if isinstance(fault, OSError) and fault.filename is not None:
                raise  # a file of ours
            raise StorageFault(f"{self.url} {self._why(fault)}") from fault

    def _why(self, fault: Exception) -> str:
        from obstore.exceptions import InvalidPathError, PermissionDeniedError, UnauthenticatedError

        words = str(fault)
        if isinstance(fault, InvalidPathError):
            return f"holds what no folder can ({words.splitlines()[0]}); rename or delete it there, or give an address without it"
        refused = isinstance(fault, PermissionError | PermissionDeniedError | UnauthenticatedError)
        if self._no_bucket(fault):
            return f"cannot be used: there is no bucket {self.bucket}; make it, or name another --storage"
        if "169.254.169.254" in words or "credential" in words.lower() or "metadata.google" in words:
            return (
                "cannot be used: this machine has no credentials for it; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (Google: "
                "GOOGLE_APPLICATION_CREDENTIALS), or give the machine a role"
            )
        if "AuthorizationHeaderMalformed" in words or "redirect" in words.lower() or "PermanentRedirect" in words:
            return "cannot be used: its bucket is in another region; set AWS_REGION"
        if refused or any(code in words for code in ("403 Forbidden", "401 Unauthorized", "InvalidAccessKeyId", "SignatureDoesNotMatch")):
            return (
                "cannot be used: these credentials may not (access denied); let them list, read, write and delete there, or name another "
                "--storage"
            )
        first = " ".join(words.split("Debug source")[0].split())[-160:]
        return (
            f"cannot be reached ({first}); look at the network" + (" and AWS_ENDPOINT_URL" if endpoint() else "") + ", then the same "
            "command continues"
        )


def needs(url: str) -> str:
    """Words on what is missing to use an address; '' where nothing is."""
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        return f"addresses must be of {' or '.join(f'{one}://' for one in SCHEMES)}, got {url}"
    if find_spec("obstore") is None:
        return f"{scheme}:// needs a package that is not installed; {install(SCHEMES[scheme])}"
    parts = url.partition("://")[2].strip("/").split("/")
    if ".." in parts:
        return f"{scheme}:// must be said without '..', got {url}; a bucket has no folder above another"
    if not parts[0]:
        return f"{scheme}:// must name a bucket, got {url}"
    return _settings() if scheme == "s3" else ""


def _settings() -> str:
    """Words on what the environment says by halves."""
    if endpoint() and not re.match(r"https?://[^/]", endpoint()):
        return f"AWS_ENDPOINT_URL must begin with http:// or https:// and name a host, got {endpoint()}"
    set_, unset = (sorted(name for name in KEYS if bool(os.environ.get(name)) is there) for there in (True, False))
    return f"{set_[0]} is set and {unset[0]} is not; set both, or neither" if set_ and unset else ""


def endpoint() -> str:
    """Of a store that speaks like S3 and is not Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""


def _credentials(scheme: str) -> dict[str, Any]:
    """obstore itself reads the environment, Google's files and a machine's role; profiles and logins of Amazon's are boto3's to read."""
    if scheme != "s3":
        return {}
    own: dict[str, Any] = {"endpoint": endpoint()} if endpoint() else {}
    if os.environ.get("AWS_ACCESS_KEY_ID") or find_spec("boto3") is None:
        return own
    import boto3
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        session = boto3.Session()
        found = session.get_credentials()
        if found is not None:
            found.get_frozen_credentials()  # a login that has run out shows here, not in the middle of a study
    except BotoCoreError as fault:
        raise StorageFault(
            f"s3:// cannot be used: Amazon's settings on this machine give no credentials ({' '.join(str(fault).split()).rstrip(':.')}); "
            "mend ~/.aws/config, name another AWS_PROFILE, or log in again (`aws sso login`)"
        ) from None
    if found is None:
        raise StorageFault(
            "s3:// cannot be used: this machine has no credentials for it; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, log in with "
            "`aws configure`, or give the machine a role"
        )
    return own | {"credential_provider": Boto3CredentialProvider(session)}


def _version(meta: Any) -> dict[str, str]:
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}


def _found(meta: Any) -> Found:
    return Found(meta["path"], int(meta["size"]), int(meta["last_modified"].timestamp()))
