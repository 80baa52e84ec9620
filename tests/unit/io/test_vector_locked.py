"""A vector file that another program holds is a sentence of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyogrio
import pytest

from rooftrace.io.vector_read import VectorFile, VectorLockedError


def test_the_reason_of_gdal_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: Any, **__: Any) -> None:
        # The words of GDAL, which waits five seconds before it says them.
        raise RuntimeError("sqlite3_prepare_v2(SELECT 1) failed: database is locked")

    monkeypatch.setattr(pyogrio, "list_layers", locked)
    with pytest.raises(VectorLockedError, match=r"town\.gpkg is held by another program") as caught:
        VectorFile(Path("town.gpkg")).read()
    assert "Close the file" in caught.value.remedy
