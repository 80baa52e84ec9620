"""The error tree keeps its exit codes, its remedy and its way through a pickle."""

from __future__ import annotations

import pickle

import pytest

from rooftrace.core import errors
from rooftrace.core.errors import MissingExtraError, RooftraceError

EXIT_CODES = {
    "RooftraceError": 1,
    "ConfigError": 2,
    "DataError": 3,
    "LayoutError": 3,
    "LabelError": 3,
    "GeoreferenceError": 3,
    "TooLargeError": 3,
    "ServiceError": 3,
    "BundleError": 4,
    "BandMismatch": 4,
    "GsdMismatch": 4,
    "PredictError": 5,
    "DeadlineError": 5,
    "StoppingError": 5,
    "ExportError": 5,
    "TrainError": 5,
    "BusyError": 5,
    "OutOfMemoryError": 5,
    "DefectError": 1,
    "MissingExtraError": 6,
}


def test_every_public_error_is_in_the_table() -> None:
    assert set(errors.__all__) == set(EXIT_CODES)


@pytest.mark.parametrize("name", EXIT_CODES)
def test_exit_code_and_worker_process(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, RooftraceError)
    error = kind("The thing is broken.", remedy="Mend it.")
    assert error.exit_code == EXIT_CODES[name]
    assert str(error) == "The thing is broken. Mend it."
    assert error.to_json() == {
        "type": name,
        "message": "The thing is broken.",
        "remedy": "Mend it.",
    }
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (back.message, back.remedy) == (error.message, error.remedy)


def test_missing_extra_says_what_to_install() -> None:
    error = MissingExtraError.of("train", "rooftrace train", "torch")
    assert "'torch'" in error.message
    assert "rooftrace[train]" in error.remedy


@pytest.mark.parametrize("name", EXIT_CODES)
def test_what_another_process_reported_is_the_same_error(name: str) -> None:
    error = getattr(errors, name)("The thing is broken.", remedy="Mend it.")
    back = RooftraceError.from_json(error.to_json())
    assert type(back) is type(error)
    assert (back.message, back.remedy) == ("The thing is broken.", "Mend it.")


@pytest.mark.parametrize("name", ["KeyError", "_rebuild", "annotations", ""])
def test_a_type_that_is_none_of_ours_is_of_the_data(name: str) -> None:
    back = RooftraceError.from_json({"type": name, "message": "Odd.", "remedy": ""})
    assert type(back) is errors.DataError
