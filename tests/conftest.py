"""What all tests share: real imagery where it is given, and one tiny model trained once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine must not fail a test that is right.
settings.register_profile(
    "rooftrace", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60
)
settings.load_profile("rooftrace")


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real imagery; its README says what lies in it."""
    folder = os.environ.get("ROOFTRACE_DATA")
    if not folder:
        pytest.skip("ROOFTRACE_DATA is not set: no real imagery to read")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"ROOFTRACE_DATA = {folder!r} is not a folder")
    return path
