"""Functions on the files of strangers run in a child process with limits of time and memory."""

import os
import sys
import time
from pathlib import Path

import pytest

from rooftrace.core.errors import BundleError, ConfigError, RooftraceError
from rooftrace.core.processes import run_limited

pytestmark = pytest.mark.campaign


def reverse(data: bytes) -> bytes:
    os.write(1, b"a library prints")
    assert not list(Path().iterdir()), "the child starts in an empty folder"
    return data[::-1]


def sleep(data: bytes) -> bytes:
    time.sleep(60)
    return data


def leave(data: bytes) -> bytes:
    os._exit(7)


def allocate(data: bytes) -> bytes:
    return bytes(2 * 2**30)[:1]


def refuse(data: bytes) -> bytes:
    raise ConfigError("No.", remedy="Ask again.")


def fail(data: bytes) -> bytes:
    raise KeyError("lost")


def run(function: object, seconds: float = 60) -> bytes:
    return run_limited(
        function,  # type: ignore[arg-type]
        b"abc",
        source="m.onnx",
        seconds=seconds,
        memory_bytes=2**30,
    )


def test_the_result_comes_back_alone() -> None:
    assert run(reverse) == b"cba"


@pytest.mark.parametrize(
    ("function", "seconds", "kind", "message"),
    [
        (sleep, 1, BundleError, r"m\.onnx was not loaded and run .* within 1 s"),
        (leave, 60, BundleError, r"m\.onnx ended the process .* exit code 7"),
        (refuse, 60, ConfigError, r"^No\. Ask again\.$"),
        (fail, 60, BundleError, r"cannot be run: .*lost"),
        pytest.param(
            allocate, 60, BundleError, "needs more than 1,024 MiB",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="limited on Linux alone"),
        ),
    ],
)  # fmt: skip
def test_a_child_that_fails_is_an_error(
    function: object, seconds: float, kind: type[RooftraceError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        run(function, seconds)
