"""Choice of the control of an interface, and of its labels."""

import pytest

from rooftrace.core.errors import ConfigError
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.labels.labelstudio import Control, label_config
from rooftrace.service.labelling import ControlSettings, read_interface

SPEC = tiny_bundle().spec
IMAGE = '<Image name="pic" value="$photo"/>'


def tool(tag: str, labels: str = '<Label value="Building"/>', **attributes: str) -> str:
    attribute_text = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f'<{tag} name="{tag[:3].lower()}" toName="pic"{attribute_text}>{labels}</{tag}>'


def view(*parts: str) -> str:
    return "<View>" + IMAGE + "".join(parts) + "</View>"


@pytest.mark.parametrize(
    ("tag", "kind"),
    [("PolygonLabels", "polygon"), ("BrushLabels", "brush"), ("RectangleLabels", "rectangle")],
)
def test_each_control(tag: str, kind: str) -> None:
    found = read_interface(view("<Header/>", tool(tag)), SPEC)
    assert (found.kind, found.control, found.key) == (
        kind,
        Control(tag[:3].lower(), "pic"),
        "photo",
    )
    assert found.labels == {1: "Building"}
    assert found.settings == ControlSettings()
    assert not found.shows_unknown


def test_ours() -> None:
    found = read_interface(label_config(SPEC.classes), SPEC)
    assert (found.kind, found.control.name, found.labels) == ("polygon", "polygon", {1: "building"})
    assert found.shows_unknown


def test_an_outline_goes_before_a_mask_and_a_box() -> None:
    every = [tool("RectangleLabels"), tool("BrushLabels"), tool("PolygonLabels")]
    assert read_interface(view(*every), SPEC).kind == "polygon"
    assert read_interface(view(*every[:2]), SPEC).kind == "brush"
    # A control without the label is skipped.
    road = '<Label value="Road"/>'
    others = view(tool("PolygonLabels", road), tool("BrushLabels"))
    assert read_interface(others, SPEC).kind == "brush"


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        ("", "cannot be read as XML: no element"),
        ("<View></View>", "has none of <PolygonLabels>, <BrushLabels>, <RectangleLabels>"),
        (view('<Choices name="c" toName="pic"><Choice value="b"/></Choices>'), "has none of"),
        (tool("BrushLabels"), "has none of"),
        (f'<View><Image name="pic" value="a.png"/>{tool("BrushLabels")}</View>', "has none of"),
        (f'<View><Text name="pic" value="$t"/>{tool("BrushLabels")}</View>', "has none of"),
        (view(tool("BrushLabels", '<Label value="buildin"/>')), "Did you mean 'buildin'"),
        (view(tool("BrushLabels", "")), "interface: none."),
        (view(tool("BrushLabels", rooftrace_treshold="1")), "rooftrace_threshold"),
        (view(tool("BrushLabels", rooftrace_gsd_m="wide")), "gsd_m"),
        (view(tool("BrushLabels", rooftrace_threshold="1.5")), "threshold"),
    ],
)  # fmt: skip
def test_what_cannot_be_filled(xml: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_interface(xml, SPEC)
    assert said in str(raised.value)
    assert raised.value.remedy
