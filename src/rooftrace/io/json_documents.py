"""JSON documents on web servers, in object storage and on disk, with an error for each failure."""

from __future__ import annotations

import json
import logging
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import shapely

from rooftrace.core.errors import DataError
from rooftrace.core.text import json_kind, reason_of
from rooftrace.io.remote import (
    TRANSIENT_STATUSES,
    Retry,
    is_object_url,
    is_url,
    join_url,
    read_object,
    without_query,
)
from rooftrace.io.stac_item import Json, link_of

_MAX_WAIT_S = 30

_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""Errors of Python for documents that differ from their specification."""


class JsonReader:
    """Reads JSON documents from web servers, object storage and disk.

    Args:
        retry: Retries of transient failures.
    """

    def __init__(self, retry: Retry) -> None:
        self.web = _web_io(retry)

    def read(self, address: str, parameters: Json | None = None) -> Json:
        """Return a JSON object.

        Raises:
            DataError: It cannot be read, or is not a JSON object.
        """
        if "@" in urlsplit(address).netloc:
            raise DataError(
                f"{without_query(address)} was given with a user name.",
                remedy="Put the user name and password into the file ~/.netrc.",
            )
        if is_object_url(address):
            text: str | bytes = read_object(address)
        elif is_url(address):
            with request_errors(address):
                text = self.web.request(address, parameters=parameters)
        else:
            try:
                text = Path(address).read_bytes()
            except OSError as error:
                raise DataError(
                    f"{address} cannot be read: {reason_of(error)}.", remedy="Check the path."
                ) from error
        return _json_object(text, address)

    def tried(self, address: str) -> Json | None:
        """Return a JSON object; None if the server does not have it."""
        try:
            return self.read(address)
        except DataError:
            return None

    def pages(self, address: str, first: Json) -> Iterator[Json]:
        """Yield a page and those that follow it by GET links."""
        seen = {address}
        page: Json | None = first
        while page is not None:
            yield page
            after = link_of(page, "next")
            after = linked_address(address, after) if after else ""
            page = None if not after or after in seen else self.read(after)
            seen.add(after)

    def searched(self, address: str, query: Any) -> Iterator[Json]:
        """Yield the pages of a search of pystac_client."""
        with request_errors(address):
            yield from query.pages_as_dicts()


def _web_io(retry: Retry) -> Any:
    from pystac_client.stac_api_io import StacApiIO
    from requests.adapters import HTTPAdapter
    from urllib3 import Retry as HttpRetry

    class Adapter(HTTPAdapter):
        """Adapter that trusts what Python trusts, SSL_CERT_FILE too, besides certifi."""

        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs, ssl_context=ssl.create_default_context())

    # It would print whole URLs, which may hold keys, at each retry.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    attempts = retry.attempts - 1
    retries = HttpRetry(
        total=attempts, connect=min(1, attempts), read=min(2, attempts), status=attempts,
        backoff_factor=retry.delay_s, backoff_max=_MAX_WAIT_S, status_forcelist=TRANSIENT_STATUSES,
        allowed_methods=("GET", "POST"), raise_on_status=False,
    )  # fmt: skip
    web = StacApiIO(headers={"User-Agent": "rooftrace"}, timeout=retry.timeout_s)
    for scheme in ("http://", "https://"):
        web.session.mount(scheme, Adapter(max_retries=retries))
    return web


def _json_object(text: str | bytes, address: str) -> Json:
    shown = without_query(address)
    try:
        found = json.loads(text)
    except ValueError as error:
        start = text[:200].decode("latin-1") if isinstance(text, bytes) else text[:200]
        what = "a web page (HTML)" if re.match(r"\s*<", start) else "not JSON"
        raise DataError(
            f"{shown} is {what}; expected a JSON document of STAC.",
            remedy="Give the URL of the API's first page, which often ends with /stac or /v1, "
            "or of a catalog.json.",
        ) from error
    if not isinstance(found, dict):
        raise DataError(
            f"{shown} is a JSON document that holds {json_kind(found)}; expected an object of "
            "STAC.",
            remedy="Check the URL.",
        )
    return found


@contextmanager
def request_errors(address: str) -> Iterator[None]:
    """Raise the errors of requests as `DataError`."""
    from pystac_client.exceptions import APIError

    try:
        yield
    except APIError as error:
        shown = without_query(address)
        status = getattr(error, "status_code", None)
        if status is None:
            reason, remedy = _connection_reason(error)
        else:
            reason, remedy = f"the server answered {status}", _remedy_for(status, str(error))
        raise DataError(f"{shown} cannot be searched: {reason}.", remedy=remedy) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{without_query(address)} answers a search with a document that is not JSON.",
            remedy="Run the command again later; if that does not help, check the URL.",
        ) from error
    except (*_MALFORMED, shapely.errors.ShapelyError) as error:
        raise not_stac(address, error) from error


def _connection_reason(error: Exception) -> tuple[str, str]:
    """Return the reason why a server did not answer, and the remedy."""
    text = " ".join(str(error.__context__).split())
    if "certificate" in text.lower():
        detail = re.search(r"certificate verify failed: ([^(\"']+)", text)
        return (
            f"its certificate is not trusted ({detail[1].strip() if detail else 'TLS failed'})",
            "If you trust the server, set SSL_CERT_FILE to its authority's certificate file.",
        )
    if "timed out" in text:
        return "the server does not answer in time", "Run the command again later."
    return "the server cannot be reached", "Check the URL and the network connection."


def _remedy_for(status: int, text: str) -> str:
    if status in (401, 403):
        return (
            "The server requires an account: put its user name and password into ~/.netrc, or "
            "save the items that its own tool finds as a .json file and give that."
        )
    if status in TRANSIENT_STATUSES:
        return "Run the command again later."
    detail = "" if "<" in text[:50] else " ".join(text.split())[:200]
    return f"Check the URL and the search. The server says: {detail}" if detail else (
        "Check the URL."
    )  # fmt: skip


def not_stac(address: str, error: Exception) -> DataError:
    """Return the error for a document that differs from the STAC specification."""
    reason = " ".join(str(error).replace(address, without_query(address)).split())[:200]
    if isinstance(error, AttributeError | LookupError | TypeError) or not reason:
        # Python's words for a part of the document that was not found.
        reason = "a part of the document is missing, or of another type"
    return DataError(
        f"{without_query(address)} differs from the STAC specification: {reason.rstrip('.')}.",
        remedy="Check the document, and that a server supports STAC API 1.0.",
    )


def linked_address(parent: str, href: str) -> str:
    """Return the URL or path of a linked document.

    Raises:
        DataError: The URL is malformed, or a document on a server leads to a file of this machine.
    """
    try:
        scheme = urlsplit(href).scheme.lower()
        if not is_url(parent):
            if scheme == "file":
                return url2pathname(urlsplit(href).path)
            return href if is_url(href) else os.path.normpath(Path(parent).parent / href)
        if scheme in ("", "http", "https", "s3"):
            return href if is_url(href) else join_url(parent, href)
    except ValueError:
        # Brackets that enclose no IPv6 address.
        pass
    raise DataError(
        f"{without_query(parent)} links to {href[:200]!r}; expected a URL that begins with "
        "https://, http:// or s3://.",
        remedy="Correct the catalogue, or download it with its files, and give the copy.",
    )
