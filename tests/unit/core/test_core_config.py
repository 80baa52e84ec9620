"""One ConfigError names all problems of a configuration; a registry never replaces a name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from rooftrace.core.config import Config, Registry, expand_path, load_config, parse_config
from rooftrace.core.errors import ConfigError


class Inner(Config):
    lr: float = 1e-3
    steps: tuple[int, ...] = ()


class Item(Config):
    path: str
    gsd_m: float | None = Field(default=None, gt=0)
    inner: Inner = Inner()


class Outer(Config):
    seed: int = 0
    name: str = ""
    flag: bool = False
    optimizer: Inner = Inner()
    extra: Inner | None = None
    items: tuple[Item, ...] = ()
    table: dict[str, Inner] = Field(default_factory=dict)
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    some: tuple[int, ...] = Field(default=(1,), min_length=1)


TEXT = """
seed = 3
[optimizer]
lr = 0.5
[[items]]
path = "a"
[[items]]
path = "b"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize(
    ("override", "where", "near"),
    [
        ("sead=1", "sead", "seed"), ("optimiser.lr=1", "optimiser", "optimizer"),
        ("optimizer.lrr=1", "optimizer.lrr", "lr"), ("extra.step=1", "extra.step", "steps"),
        ("items.1.gsd=1", "items.1.gsd", "gsd_m"),
        ("items.0.inner.stps=1", "items.0.inner.stps", "steps"),
    ],
)  # fmt: skip
def test_an_unknown_key_names_its_place_and_the_nearest(
    file: Path, override: str, where: str, near: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file, Outer, [override])
    assert f"unknown key {where!r}" in caught.value.message
    assert f"Did you mean {near!r}" in caught.value.message
    assert str(file) in caught.value.message
    assert caught.value.exit_code == 2


def test_where_nothing_is_near_the_known_keys_are_listed() -> None:
    with pytest.raises(ConfigError, match=r"'optimizer\.qqqq'. Known here: lr, steps"):
        parse_config({"optimizer": {"qqqq": 1}}, Outer, source="x")
    # What stands under a free key is known too.
    with pytest.raises(ConfigError, match=r"'table\.any\.qqqq'. Known here: lr, steps"):
        parse_config({"table": {"any": {"qqqq": 1}}}, Outer, source="x")


def test_all_that_is_wrong_is_said_at_once() -> None:
    raw = {"sead": 1, "name": 5, "items": [{"path": "a", "gsd_m": -1}]}
    with pytest.raises(ConfigError) as caught:
        parse_config(raw, Outer, source="x")
    for part in ("'sead'", "name: ", "received 5", "items.0.gsd_m", "received -1"):
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=7", {"seed": 7}), ("name=bare word", {"name": "bare word"}),
        ('name="a = b"', {"name": "a = b"}), ("name=a=b", {"name": "a=b"}),
        ("name=", {"name": ""}), ("flag=true", {"flag": True}),
        ("extra.lr=2", {"extra": Inner(lr=2)}),
        ("optimizer.lr=3e-4", {"optimizer": Inner(lr=3e-4)}),
        ("optimizer.steps=[1, 2]", {"optimizer": Inner(lr=0.5, steps=(1, 2))}),
        ("items.1.path=c", {"items": (Item(path="a"), Item(path="c"))}),
        ('items.0={path = "z"}', {"items": (Item(path="z"), Item(path="b"))}),
    ],
)  # fmt: skip
def test_set_lies_over_the_file(file: Path, override: str, expected: dict[str, object]) -> None:
    assert load_config(file, Outer, [override]) == load_config(file, Outer).model_copy(
        update=expected
    )


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("seed", "expected KEY=VALUE"), ("=3", "expected KEY=VALUE"),
        ("seed.deep=1", "seed is not a table"), ("seed=many", 'received "many"'),
        ("items.2.path=c", "2 is not an index of a list of 2"),
        ("items.9=c", "9 is not an index of a list of 2"),
        ("items.first.path=c", "first is not an index"), ("seed=1.5", "seed: "),
        ("optimizer.lr=nan", "optimizer.lr: "), ("items=3", "items: "),
    ],
)  # fmt: skip
def test_a_wrong_set_is_a_config_error(file: Path, override: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file, Outer, [override])
    assert problem in caught.value.message
    assert caught.value.remedy


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    broken = {
        "absent.toml": None, "not.toml": b"seed = = 3", "latin.toml": b"name = '\xe9'",
        "digits.toml": b"seed = " + b"9" * 5000,
    }  # fmt: skip
    for name, content in broken.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError, match=name):
            load_config(path, Outer)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path, Outer)
    with pytest.raises(ConfigError, match=r"absent\.toml cannot be read: No such file or dir.*y\."):
        load_config(tmp_path / "absent.toml", Outer)


def test_a_path_starts_from_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOFTRACE_TEST_FOLDER", str(tmp_path / "set"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert expand_path("a/b", tmp_path, key="path") == tmp_path / "a/b"
    assert expand_path("$ROOFTRACE_TEST_FOLDER/b", Path("x"), key="path") == tmp_path / "set/b"
    assert expand_path("${ROOFTRACE_TEST_FOLDER}/b", Path("x"), key="p") == tmp_path / "set/b"
    assert expand_path("~/b", Path("x"), key="path") == tmp_path / "home/b"
    (tmp_path / "~").mkdir()
    (tmp_path / "$b").touch()
    assert expand_path("~", tmp_path, key="path") == tmp_path / "~"
    assert expand_path("$b", tmp_path, key="path") == tmp_path / "$b"


def test_a_path_that_leads_nowhere_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROOFTRACE_TEST_FOLDER", raising=False)
    with pytest.raises(ConfigError, match="path = '\\$ROOFTRACE_TEST_FOLDER/b'"):
        expand_path("$ROOFTRACE_TEST_FOLDER/b", Path(), key="path")
    with pytest.raises(ConfigError, match="nobody-of-this-name"):
        expand_path("~nobody-of-this-name/b", Path(), key="path")


@pytest.fixture
def shapes() -> Registry[int]:
    registry: Registry[int] = Registry("shape")
    registry.add("square", 4)
    registry.add("triangle", 3)
    return registry


def test_a_double_is_refused_and_leaves_the_first(shapes: Registry[int]) -> None:
    with pytest.raises(ValueError, match="shape 'square' is registered already"):
        shapes.add("square", 5)
    with pytest.raises(ValueError, match="square"):
        shapes.register("square")(6)
    assert shapes["square"] == 4


def test_an_unknown_name_is_a_config_error_that_names_the_near_and_the_known(
    shapes: Registry[int],
) -> None:
    with pytest.raises(ConfigError, match=r"no shape named 'squares'.*'square'") as caught:
        shapes["squares"]
    assert caught.value.remedy == "Choose one of these: square, triangle."
    with pytest.raises(ConfigError) as caught:
        shapes["zzz"]
    assert "Did you mean" not in caught.value.message
