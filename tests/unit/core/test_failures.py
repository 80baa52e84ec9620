"""Failures of libraries and of the system become errors of the tree."""

from __future__ import annotations

import errno

import pytest

from rooftrace.core import failures
from rooftrace.core.errors import (
    DataError,
    DefectError,
    MissingExtraError,
    OutOfMemoryError,
)
from rooftrace.core.failures import explained

LACKS = [
    MemoryError(),
    ImportError("libgdal.so.38: failed to map segment from shared object"),
    ImportError("libx.so: cannot allocate memory in static TLS block"),
    RuntimeError("Exception from src/inference:\nstd::bad_alloc"),
    RuntimeError("Failed to allocate 83593216 bytes of memory"),
    RuntimeError("can't start new thread"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError("libx.so: cannot allocate memory"),
]


@pytest.mark.parametrize("error", LACKS, ids=str)
def test_a_lack_of_memory_is_recognised_in_each_form(error: Exception) -> None:
    shown = explained(error, "rooftrace predict")
    assert isinstance(shown, OutOfMemoryError)
    assert shown.message == "There is not enough memory for rooftrace predict."


def test_an_error_of_the_tree_stays_what_it_is() -> None:
    error = DataError("a.tif: the tile is too large.", remedy="Cut it.")
    error.__cause__ = MemoryError()
    assert explained(error, "rooftrace predict") is error


def test_a_library_that_is_broken_is_named() -> None:
    shown = explained(ImportError("libcrypto.so.1.1: not found", name="cv2"), "rooftrace predict")
    assert isinstance(shown, MissingExtraError)
    assert "libcrypto.so.1.1" in shown.message
    assert "doctor" in shown.remedy


def test_a_defect_names_the_place_and_the_way_to_its_traceback() -> None:
    with pytest.raises(TypeError) as raised:
        failures.is_out_of_memory(*())  # type: ignore[call-arg]
    assert "outside of rooftrace" in explained(raised.value, "rooftrace predict").message
    with pytest.raises(AttributeError) as inside:
        list(failures._chain(1))  # type: ignore[arg-type]
    shown = explained(inside.value, "rooftrace predict")
    assert isinstance(shown, DefectError)
    assert shown.message.startswith("This is a defect: rooftrace predict failed in _chain (")
    assert "rooftrace/core/failures.py, line " in shown.message
    assert "AttributeError: 'int' object" in shown.message
    assert "ROOFTRACE_DEBUG=1" in shown.remedy
