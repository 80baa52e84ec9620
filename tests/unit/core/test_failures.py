"""Failures of libraries and of the system become errors of the tree."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from rooftrace.core import failures
from rooftrace.core.errors import (
    BundleError,
    ConfigError,
    DataError,
    DefectError,
    MissingExtraError,
    OutOfMemoryError,
    RooftraceError,
)
from rooftrace.core.failures import explained, is_out_of_memory, require_address_space

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


def test_links_that_lead_to_themselves_are_no_defect(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    error: Exception = RuntimeError(f"Symlink loop from {str(loop)!r}")
    try:
        loop.resolve()  # Python 3.13 raises nothing
    except RuntimeError as raised:
        error = raised
    shown = explained(error, "rooftrace convert")
    assert isinstance(shown, ConfigError)
    assert shown.message == f"{str(loop)!r} is a link that leads to itself."


def test_a_lack_of_memory_that_numpy_reports() -> None:
    with pytest.raises(MemoryError) as raised:
        np.empty(2**60, np.uint8)
    assert is_out_of_memory(raised.value)


@pytest.mark.parametrize("kind", [BundleError, MissingExtraError])
def test_a_model_and_a_package_are_not_blamed_for_a_lack_of_memory(
    kind: type[RooftraceError],
) -> None:
    error = kind("Blamed.")
    error.__cause__ = RuntimeError("std::bad_alloc")
    assert isinstance(explained(error, "it"), OutOfMemoryError)


def test_what_merely_sounds_so_is_no_lack_of_memory() -> None:
    others = [
        BundleError("out of memory.rooftrace has no model.onnx."),
        OSError(errno.ENOENT, "No such file", "out of memory.tif"),
        ImportError("libx.so: cannot open shared object file"),
        KeyError("a"),
    ]
    assert not any(map(is_out_of_memory, others))
    hidden = KeyError("a")
    hidden.__context__ = MemoryError()
    assert is_out_of_memory(hidden)
    hidden.__suppress_context__ = True
    assert not is_out_of_memory(hidden)


def test_an_error_of_the_tree_stays_what_it_is() -> None:
    error = DataError("a.tif: the tile is too large.", remedy="Cut it.")
    error.__cause__ = MemoryError()
    assert explained(error, "rooftrace predict") is error


def test_a_library_that_is_broken_is_named() -> None:
    shown = explained(ImportError("libcrypto.so.1.1: not found", name="cv2"), "rooftrace predict")
    assert isinstance(shown, MissingExtraError)
    assert "libcrypto.so.1.1" in shown.message
    assert "doctor" in shown.remedy


def test_a_module_of_ours_that_is_missing_is_a_defect() -> None:
    error = ImportError("cannot import name 'x'", name="rooftrace.core.types")
    assert isinstance(explained(error, "rooftrace predict"), DefectError)


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


def test_the_remedy_names_the_limit_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    require_address_space(2**60, "an image")
    monkeypatch.setattr(failures, "address_space_limit", lambda: 3 * 2**30)
    monkeypatch.setattr(failures, "_used_address_space", lambda: 2**30)
    require_address_space(2**20, "an image")
    with pytest.raises(OutOfMemoryError, match=r"3,072 MiB here \(ulimit -v 3145728\)"):
        require_address_space(3 * 2**30, "an image")
