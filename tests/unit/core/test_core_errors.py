"""The error tree keeps its exit codes, its remedy and its way through a pickle."""

import errno
import pickle

import pytest

from rooftrace.core import errors
from rooftrace.core.errors import (
    DataError,
    DefectError,
    MissingExtraError,
    OutOfMemoryError,
    RooftraceError,
    explained,
)

EXIT_CODES = {
    "RooftraceError": 1, "ConfigError": 2, "DataError": 3, "LayoutError": 3, "LabelError": 3,
    "GeoreferenceError": 3, "TooLargeError": 3, "ServiceError": 3, "SplitError": 3,
    "BundleError": 4, "BandMismatch": 4, "GsdMismatch": 4, "PredictError": 5, "DeadlineError": 5,
    "StoppingError": 5, "ExportError": 5, "TrainError": 5, "BusyError": 5, "OutOfMemoryError": 5,
    "DefectError": 1, "MissingExtraError": 6,
}  # fmt: skip


def test_every_public_error_is_in_the_table() -> None:
    assert set(errors.__all__) == set(EXIT_CODES)


@pytest.mark.parametrize("name", EXIT_CODES)
def test_exit_code_and_worker_process(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, RooftraceError)
    error = kind("The thing is broken.", remedy="Mend it.")
    assert error.exit_code == EXIT_CODES[name]
    assert str(error) == "The thing is broken. Mend it."
    said = {"message": "The thing is broken.", "remedy": "Mend it."}
    assert error.to_json() == said | {"type": name}
    for back in (pickle.loads(pickle.dumps(error)), RooftraceError.from_json(error.to_json())):
        assert type(back) is kind
        assert (back.message, back.remedy) == (error.message, error.remedy)


@pytest.mark.parametrize(
    ("failure", "kind", "said"),
    [(ModuleNotFoundError("No torch", name="torch._C"), MissingExtraError,
      "'torch', which is not installed.rooftrace[train]"),
     (ImportError("libcudart.so: not found", name="torch"), MissingExtraError,
      "'torch', which cannot be loaded: libcudart.so: not found.doctor"),
     (ImportError("cannot import name 'fit'", name="rooftrace.train"), ImportError, "'fit'"),
     (ImportError("libc10.so: cannot allocate memory"), ImportError, "memory")],
)  # fmt: skip
def test_what_an_import_failed_on(failure: ImportError, kind: type, said: str) -> None:
    with pytest.raises(kind) as raised, MissingExtraError.on_import("train", "Training", "torch"):
        raise failure
    whole = str(raised.value) + getattr(raised.value, "remedy", "")
    assert all(one in whole for one in said.split("."))


@pytest.mark.parametrize("name", ["KeyError", "_rebuild", "annotations", ""])
def test_a_type_that_is_none_of_ours_is_of_the_data(name: str) -> None:
    back = RooftraceError.from_json({"type": name, "message": "Odd.", "remedy": ""})
    assert type(back) is errors.DataError


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
        errors.is_out_of_memory(*())  # type: ignore[call-arg]
    assert "outside of rooftrace" in explained(raised.value, "rooftrace predict").message
    with pytest.raises(AttributeError) as inside:
        list(errors._chain(1))  # type: ignore[arg-type]
    shown = explained(inside.value, "rooftrace predict")
    assert isinstance(shown, DefectError)
    assert shown.message.startswith("This is a defect: rooftrace predict failed in _chain (")
    assert "rooftrace/core/errors.py, line " in shown.message
    assert "AttributeError: 'int' object" in shown.message
    assert "ROOFTRACE_DEBUG=1" in shown.remedy
