"""Without the extra, SAM names it."""

from __future__ import annotations

import sys

import pytest

from rooftrace.core.errors import MissingExtraError


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "rooftrace.models.sam", raising=False)
    with pytest.raises(MissingExtraError, match="needs the package 'transformers'") as caught:
        import rooftrace.models.sam  # noqa: F401
    assert caught.value.remedy == "Install it with: pip install 'rooftrace[sam]'"
