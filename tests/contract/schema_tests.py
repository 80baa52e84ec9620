"""Tests made by Schemathesis, one function for each operation of an API."""

from collections.abc import Callable
from typing import Any

from hypothesis import settings


def operation_tests(
    schema: Any,
    check: Callable[[Any], None],
    options: settings,
    prefix: str | tuple[str, ...] = "/",
) -> dict[str, Any]:
    """Return a test function for each operation, by name.

    All tests of one function would have the same node id, and pytest-xdist would run only the
    first of them. So each operation gets its own function.

    Args:
        schema: Schema of Schemathesis.
        check: Test of one case.
        options: Settings of Hypothesis.
        prefix: Beginning of the paths to test, or several.
    """
    tests = {}
    for path, operations in schema.raw_schema["paths"].items():
        for method, operation in operations.items():
            if path.startswith(prefix):
                name = operation.get("operationId", f"{method}_{path}")
                tests[f"test_{name}"] = _operation_test(schema, path, method, check, options)
    return tests


def _operation_test(
    schema: Any, path: str, method: str, check: Callable[[Any], None], options: settings
) -> Any:
    @schema.include(path=path, method=method.upper()).parametrize()
    @options
    def test(case: Any) -> None:
        check(case)

    return test
