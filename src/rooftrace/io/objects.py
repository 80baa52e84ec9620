"""Object storage: `s3://bucket/key`, read in parts, listed, and written.

Credentials come from where every S3 client looks for them (AWS_* variables, the shared files and
their profiles, the role of a container or a machine), and from nowhere else. They are in no
message, no record and no pickle. `AWS_ENDPOINT_URL` names another server than Amazon's.
"""

from __future__ import annotations

import configparser
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from rooftrace.core.errors import DataError, ExportError, MissingExtraError, RooftraceError

__all__ = [
    "ObjectAddress",
    "ObjectError",
    "ObjectFile",
    "is_object_url",
    "list_objects",
    "read_object",
    "upload",
]

T = TypeVar("T")

_SCHEME = "s3"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_TIMEOUT_S = 20.0
_ATTEMPTS = 6
_DELAY_S = 0.5
_LONGEST_WAIT_S = 30.0
_PART_BYTES = 8 * 2**20
_INSTANCE_ADDRESS = "169.254."
"""Where the role of a machine is asked for."""

_STATUS = re.compile(r"\b([45]\d\d)\b")


class ObjectError(Exception):
    """A store does not do what it was asked for.

    Args:
        reason: what it did instead; nothing of what was sent is in it.
        remedy: what the person can do.
        passing: whether it may be asked again.
    """

    def __init__(self, reason: str, remedy: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
        self.passing = passing


@dataclass(frozen=True)
class ObjectAddress:
    """Where an object is, or those that begin alike."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, url: str) -> ObjectAddress:
        """Of `s3://bucket/key`.

        Raises:
            DataError: it is none.
        """
        parts = urlsplit(url)
        if parts.scheme.lower() != _SCHEME or not _BUCKET.fullmatch(parts.netloc):
            raise DataError(
                f"{url.partition('?')[0]} is no address of an object; expected s3://BUCKET/KEY.",
                remedy="Check the address; a user's name or a key has no place in it.",
            )
        return cls(parts.netloc, unquote(parts.path).lstrip("/"))

    def __str__(self) -> str:
        return f"{_SCHEME}://{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> ObjectAddress:
        return ObjectAddress(self.bucket, f"{self.key.rstrip('/')}/{name}".lstrip("/"))


def is_object_url(text: str) -> bool:
    """Whether an address is one of object storage."""
    return text.lower().startswith(f"{_SCHEME}://")


class ObjectFile:
    """One object, of which parts are read.

    Args:
        url: `s3://bucket/key`.
    """

    def __init__(self, url: str) -> None:
        self.address = ObjectAddress.parse(url)
        self._store = _store_of(self.address.bucket)

    def ask(self, start: int, stop: int) -> tuple[bytes, int, str]:
        """The bytes [start, stop), fewer where it ends before; its size; what changes with it.

        Raises:
            ObjectError: the store refuses, or does not answer.
        """
        import obstore

        with _explaining():
            got = obstore.get(self._store, self.address.key, options={"range": (start, stop)})
            return bytes(got.bytes()), int(got.meta["size"]), str(got.meta.get("e_tag") or "")


def read_object(url: str, *, most_bytes: int = 512 * 2**20) -> bytes:
    """All of a small object.

    Raises:
        DataError: it is not there, may not be read, or is larger.
        MissingExtraError: the extra `s3` is not installed.
    """
    import_store()
    import obstore

    address = ObjectAddress.parse(url)
    store = _store_of(address.bucket)

    def get() -> bytes:
        with _explaining():
            size = int(obstore.head(store, address.key)["size"])
            if size > most_bytes:
                raise ObjectError(
                    f"it has {size / 1e6:.0f} MB, more than {most_bytes / 1e6:.0f}",
                    "Split it, or download it and name the file.",
                )
            return bytes(obstore.get(store, address.key).bytes())

    return _repeated(get, lambda error: _data_error(address, error))


def list_objects(url: str, endings: Sequence[str] = ()) -> list[str]:
    """The addresses of all objects that begin with one, sorted.

    Args:
        url: `s3://bucket/folder/`.
        endings: of those that are meant, in lower case; default all.

    Raises:
        DataError: the bucket is not there, or may not be read.
        MissingExtraError: the extra `s3` is not installed.
    """
    import_store()
    import obstore

    address = ObjectAddress.parse(url)
    store = _store_of(address.bucket)

    def find() -> list[str]:
        with _explaining():
            pages = obstore.list(store, prefix=address.key or None)
            return [str(one["path"]) for page in pages for one in page]

    found = sorted(_repeated(find, lambda error: _data_error(address, error)))
    kept = [key for key in found if not endings or key.lower().endswith(tuple(endings))]
    return [str(ObjectAddress(address.bucket, key)) for key in kept]


def upload(path: Path, address: ObjectAddress) -> None:
    """Write a file as an object, in parts where it is large; it is there whole or not at all.

    Raises:
        ExportError: the store refuses, or does not answer however often it is asked.
        MissingExtraError: the extra `s3` is not installed.
    """
    import_store()
    import obstore

    store = _store_of(address.bucket)

    def put() -> None:
        with _explaining():
            obstore.put(store, address.key, path, chunk_size=_PART_BYTES, max_concurrency=2)

    def explained(error: ObjectError) -> RooftraceError:
        return ExportError(
            f"{address} could not be written: {error.reason}.",
            remedy=f"{error.remedy} What was computed is kept: the same command sends the rest.",
        )

    _repeated(put, explained)


def import_store() -> None:
    """Raises MissingExtraError where the extra is not installed."""
    try:
        import obstore  # noqa: F401
    except ImportError as error:
        raise MissingExtraError.of("s3", "An s3:// address", error.name or "obstore") from error


def _repeated(work: Callable[[], T], explained: Callable[[ObjectError], RooftraceError]) -> T:
    delay_s = _DELAY_S
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return work()
        except ObjectError as error:
            if not error.passing or attempt == _ATTEMPTS:
                raise explained(error) from None
        time.sleep(min(delay_s, _LONGEST_WAIT_S))
        delay_s *= 2
    raise AssertionError("unreachable")


def _data_error(address: ObjectAddress, error: ObjectError) -> DataError:
    return DataError(f"{address} cannot be read: {error.reason}.", remedy=error.remedy)


@contextmanager
def _explaining() -> Iterator[None]:
    """What the store raises inside as an `ObjectError`, without a word of what was sent."""
    import obstore.exceptions as known

    try:
        yield
    except (FileNotFoundError, known.NotFoundError):
        raise ObjectError("there is no such object or bucket", "Check the address.") from None
    except (known.PermissionDeniedError, known.UnauthenticatedError, PermissionError):
        raise ObjectError(
            "access was denied",
            "Check the AWS_* variables, or AWS_PROFILE, and what they may do there.",
        ) from None
    except (known.BaseError, OSError) as error:
        raise _other(str(error)) from None


def _other(text: str) -> ObjectError:
    status = _STATUS.search(text)
    if "InvalidRange" in text or (status and status[1] == "416"):
        return ObjectError("it is empty", "Check that the file is not empty.")
    if "redirect" in text.lower() or "AuthorizationHeaderMalformed" in text:
        return ObjectError(
            "the bucket is in another region", "Set AWS_REGION to the bucket's region."
        )
    if "credential" in text.lower() or _INSTANCE_ADDRESS in text:
        return ObjectError(
            "no credentials were found",
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for a public "
            "bucket AWS_SKIP_SIGNATURE=true.",
        )
    told = f"the server answered {status[1]}" if status else "the server does not answer"
    passing = status is None or status[1] in ("408", "429", "500", "502", "503", "504")
    return ObjectError(told, "Run it again later.", passing=passing)


def _store_of(bucket: str) -> Any:
    import_store()
    from obstore.store import S3Store

    given = dict(_from_shared_files())
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    endpoint = endpoint or given.pop("endpoint", "")
    given.pop("endpoint", None)
    if endpoint:
        given["endpoint"] = endpoint
    return S3Store(
        bucket,
        client_options={"timeout": f"{_TIMEOUT_S:g}s", "allow_http": endpoint.startswith("http:")},
        # Asked again here, where it is counted.
        retry_config={"max_retries": 0},
        config=given,  # type: ignore[arg-type]
    )


def _from_shared_files() -> Iterator[tuple[str, str]]:
    """What ~/.aws says of the profile, where the environment says nothing itself."""
    home = Path.home() / ".aws"
    profile = os.environ.get("AWS_PROFILE", "default")
    files = (
        (os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials", profile),
        (os.environ.get("AWS_CONFIG_FILE") or home / "config",
         profile if profile == "default" else f"profile {profile}"),
    )  # fmt: skip
    wanted = {
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
        "region": "region",
        "endpoint_url": "endpoint",
    }
    named = {"access_key_id": "AWS_ACCESS_KEY_ID", "region": "AWS_REGION"}
    has_keys = "AWS_ACCESS_KEY_ID" in os.environ
    for path, section in files:
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            # Of a damaged file nothing may be told but that there are no credentials.
            continue
        for key, name in wanted.items():
            if not parser.has_option(section, key) or named.get(name, "") in os.environ:
                continue
            if has_keys and key.startswith("aws_"):
                continue
            yield name, parser.get(section, key)
