"""A configuration of data is checked before the first file is opened."""

from pathlib import Path

import pytest

from rooftrace.core.config import parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.labels.config import DataConfig, LabelConfig, relative_text

DUBAI = {
    "classes": ["land", "building", "road"],
    "palette": {"land": ["#8429F6", "#000000"], "building": "#3C1098", "road": "#6ec1e4"},
    "ignore": ["#9B9B9B"],
}


def labels(**changes: object) -> LabelConfig:
    return parse_config(DUBAI | changes, LabelConfig, source="c.toml")


def test_a_palette_becomes_a_rule() -> None:
    rule = labels().rule()
    assert rule.classes == ("land", "building", "road")
    colours = (0x84, 0x29, 0xF6), (0, 0, 0), (0x3C, 0x10, 0x98), (0x6E, 0xC1, 0xE4)
    assert rule.palette == tuple(zip(colours, (0, 0, 1, 2)))
    assert rule.ignore == ((0x9B, 0x9B, 0x9B),)
    assert labels(building="road").building_class == 2
    panels = LabelConfig(values={"background": (0, 1), "solar_panel": 2})
    assert (panels.classes, panels.building) == (("background", "solar_panel"), "solar_panel")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"palette": {"land": "purple"}}, "'purple' is not a colour such as #3C1098"),
        ({"palette": {"bulding": "#3C1098"}}, "palette names 'bulding', which is not among"),
        ({"palette": {"land": "#3C1098", "road": "#3c1098"}}, "is given to two classes"),
        ({"ignore": [155]}, "ignore has values [155], but the masks are colours"),
        ({"palette": None}, "ignore has colours"),
        ({"building": "house"}, "building = 'house' is not one of the classes"),
        ({"building": "land"}, "building = 'land' is not one of the classes"),
        ({"classes": ["land", "building", "road", "road"]}, "a name twice"),
        ({"classes": ["building"]}, "classes"),
        ({"clases": []}, "Did you mean 'classes'"),
        ({"colours": {"house": "#102030"}}, "colours names 'house', which is not among"),
        ({"colours": {"land": "#ABCDEF", "building": "#abcdef"}}, "#ABCDEF is given to two"),
    ],
)
def test_what_does_not_fit_together_is_a_config_error(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        labels(**changes)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodata": "white"}, 'expected "alpha", "none", a number or a colour'),
        ({"gsd_m": 0}, "gsd_m"),
        ({"share": 0}, "share"),
        ({"glb": "*"}, "Did you mean 'glob'"),
        ({"labels": {"colours": {"building": "#102030"}}}, "labels.colours belongs to the model"),
    ],
)
def test_a_folder_that_is_none(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"train": [{"path": "a"} | changes]}, DataConfig, source="c.toml")
    assert message in caught.value.message
    assert "train.0" in caught.value.message


def test_paths_for_others_show_no_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/other/me")
    for path, shown in (
        ("/home/me/work/tiles", "tiles"), ("/home/me/tiles", "../tiles"), ("tiles", "tiles"),
        ("/other/me/tiles", "~/tiles"), ("/data/tiles", "/data/tiles"), ("$DATA/x", "$DATA/x"),
    ):  # fmt: skip
        assert relative_text(path, Path("/home/me/work")) == shown
