"""A name that is taken is never taken over; a name that is not there says which are near."""

from __future__ import annotations

import pytest

from rooftrace.core.errors import ConfigError
from rooftrace.core.registry import Registry


@pytest.fixture
def shapes() -> Registry[int]:
    registry: Registry[int] = Registry("shape")
    registry.add("square", 4)
    registry.add("triangle", 3)
    return registry


def test_reads_like_a_mapping(shapes: Registry[int]) -> None:
    assert dict(shapes) == {"square": 4, "triangle": 3}
    assert len(shapes) == 2
    assert "square" in shapes
    assert "circle" not in shapes


def test_a_double_is_refused_and_leaves_the_first(shapes: Registry[int]) -> None:
    with pytest.raises(ValueError, match="shape 'square' is registered already"):
        shapes.add("square", 5)
    with pytest.raises(ValueError, match="square"):
        shapes.register("square")(6)
    assert shapes["square"] == 4


def test_register_gives_the_entry_back() -> None:
    registry: Registry[object] = Registry("thing")

    @registry.register("made")
    def made() -> int:
        return 7

    assert made() == 7
    assert registry["made"] is made


def test_an_unknown_name_is_a_config_error_that_names_the_near_and_the_known(
    shapes: Registry[int],
) -> None:
    with pytest.raises(ConfigError, match=r"no shape named 'squares'.*'square'") as caught:
        shapes["squares"]
    assert caught.value.remedy == "Known: square, triangle."
    with pytest.raises(ConfigError) as caught:
        shapes["zzz"]
    assert "Did you mean" not in caught.value.message
