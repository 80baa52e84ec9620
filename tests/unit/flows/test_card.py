"""The card of a model says what the bundle knows, and nothing else."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from command_line import command
from rooftrace.core.errors import ConfigError
from rooftrace.flows.export.card import run_card
from rooftrace.models.bundle import bundled_model, click_bundle, read_bundle
from rooftrace.models.spec import MeasuredMetrics
from tiny_models import write_tiny_bundle

yaml = pytest.importorskip("yaml")

METRICS = (
    MeasuredMetrics(data="town", split="test", protocol="whole images", values={"iou": 0.71234}),
    MeasuredMetrics(data="coast", split="val", protocol="tiles", values={"iou": 0.4, "f1": 0.5}),
)
TRAINING = {
    "model": {"architecture": "Unet", "encoder": "resnet18"},
    "epochs": 3,
    "loss": "0.6*ce + 0.4*dice",
    "data": {"train": [{"path": "/home/me/secret/town", "part": "[:9]", "share": 0.25}]},
}


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """Return a bundle that knows much, with characters that mean something in Markdown."""
    return write_tiny_bundle(
        tmp_path / "known.rooftrace", name="a\n# b: <c>", gsd_m=0.5, metrics=METRICS,
        training=TRAINING, licence="CC-BY-4.0", attribution="Survey of Lindi: maps",
        created="2026-01-02T03:04:05+02:00", versions={"onnx": "1.2.3"},
    )  # fmt: skip


def card_of(model: Path | None, out: Path) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Return front matter, text and STAC item of a model."""
    report = run_card(model, out)
    _, front, body = report.card.read_text("utf-8").split("---\n", 2)
    item = json.loads(report.item.read_text("utf-8"))
    check_item(item)
    return yaml.safe_load(front), body, item


MLM_FIELDS = {
    "name", "architecture", "tasks", "framework", "framework_version", "memory_size",
    "total_parameters", "pretrained", "pretrained_source", "batch_size_suggestion", "accelerator",
    "accelerator_constrained", "accelerator_summary", "accelerator_count", "input", "output",
    "hyperparameters",
}  # fmt: skip
MLM_FORMS = {
    "mlm:name": r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]",
    "mlm:framework": r"[^\s._\-](.*[^\s._\-])?",
    "mlm:framework_version": r"\d+\.\d+\.\d+(-.+)?(\+.+)?",
}
"""Names and forms of fields in https://stac-extensions.github.io/mlm/v1.3.0/schema.json, which
pystac does not bring along."""


def check_item(item: dict[str, Any]) -> None:
    """Check an item against the schema of STAC, the rules of MLM, and by pystac's reader of it."""
    pystac = pytest.importorskip("pystac")
    pytest.importorskip("jsonschema")
    mlm = pytest.importorskip("pystac.extensions.mlm")
    properties = item["properties"]
    for fields in (properties, *item["assets"].values()):
        named = {key.removeprefix("mlm:") for key in fields if key.startswith("mlm:")}
        assert named <= MLM_FIELDS
    for key, form in MLM_FORMS.items():
        assert key not in properties or re.fullmatch(form, properties[key]), key
    for one in properties["mlm:output"][0]["classification:classes"]:
        assert re.fullmatch(r"[0-9A-Za-z-_]+", one["name"])
        assert re.fullmatch(r"[0-9A-Fa-f]{6}", one.get("color_hint", "000000"))
    assert all(asset["roles"][0] == "mlm:model" for asset in item["assets"].values())
    assert "https://stac-extensions.github.io/mlm/v1.3.0/schema.json" in item["stac_extensions"]
    # The schema of the core is part of pystac; that of the extension would be fetched.
    core = pystac.Item.from_dict(copy.deepcopy(item) | {"stac_extensions": []})
    core.validate()
    read = mlm.MLMExtension.ext(pystac.Item.from_dict(copy.deepcopy(item)))
    assert read.architecture
    assert read.tasks == ["semantic-segmentation"]
    assert len(read.input[0].bands) == read.input[0].input.shape[1]
    assert read.output[0].result.dim_order == ["batch", "channel", "height", "width"]


def test_the_card_has_the_facts_of_the_bundle(known: Path, tmp_path: Path) -> None:
    front, body, item = card_of(known, tmp_path / "card")
    assert front["license"] == "cc-by-4.0"
    (index,) = front["model-index"]
    assert index["name"] == "a\n# b: <c>"
    for result, one in zip(index["results"], METRICS, strict=True):
        assert (result["dataset"]["name"], result["dataset"]["split"]) == (one.data, one.split)
        assert result["dataset"]["args"] == {"protocol": one.protocol}
        assert {m["type"]: m["value"] for m in result["metrics"]} == one.values
    assert "# a # b: &lt;c&gt;\n" in body
    assert "| town | test | 0.712 |  | 1 |" in body
    assert "| coast | val | 0.400 | 0.500 | 2 |" in body
    assert "IoU is 0.400 for coast and 0.712 for town" in body
    assert "| town \\[:9] | 0.25 of the samples |" in body
    assert "| loss | 0.6\\*ce + 0.4\\*dice |" in body
    assert "secret" not in body
    assert "Survey of Lindi: maps" in body
    assert read_bundle(known).sha256 in body
    properties = item["properties"]
    assert properties["datetime"] == "2026-01-02T01:04:05Z"
    assert properties["license"] == "CC-BY-4.0"
    assert properties["gsd"] == 0.5
    assert properties["mlm:architecture"] == "Unet with the encoder resnet18"
    assert properties["mlm:framework_version"] == "1.2.3"
    assert properties["mlm:hyperparameters"] == {"epochs": 3, "loss": TRAINING["loss"]}
    assert item["assets"]["model"]["href"] == "./known.rooftrace"


def test_facts_that_are_absent_are_not_invented(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(
        tmp_path / "bare.rooftrace", licence="", attribution="", created="", versions={},
        training={}, metrics=(),
    )  # fmt: skip
    front, body, item = card_of(bundle, tmp_path)
    assert {"license", "model-index"}.isdisjoint(front)
    assert "## Licence\n\nUnknown" in body
    assert "None were measured." in body
    assert "does not record how it was trained" in body
    assert item["properties"]["mlm:architecture"] == "unknown"
    assert item["properties"]["datetime"] is None
    assert "gsd" not in item["properties"]
    assert len(run_card(bundle, tmp_path).notes) == 3


def test_the_bundled_models_have_cards(tmp_path: Path) -> None:
    front, body, _ = card_of(None, tmp_path / "default")
    measured = bundled_model().spec.metrics
    assert len(front["model-index"][0]["results"]) == len(measured)
    assert measured[0].data in body
    _, body, item = card_of(Path("accurate"), tmp_path / "accurate")
    assert "rooftrace predict scene.tif -m accurate -o out" in body
    assert item["assets"]["model"]["href"] == "./accurate.rooftrace"
    assert "`mirror`, averaged by rooftrace" in body
    assert "multiples of 32; the rest" in item["properties"]["mlm:input"][0]["description"]
    clicks = click_bundle()
    _, body, item = card_of(Path(clicks.source), tmp_path / "clicks")
    assert "on which a person clicks" in body
    assert len(item["properties"]["bands"]) == 6


def test_another_readme_or_item_is_not_overwritten(known: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# My project\n")
    with pytest.raises(ConfigError, match=r"README\.md exists and is not a card"):
        run_card(known, tmp_path)
    assert (tmp_path / "README.md").read_text() == "# My project\n"
    assert not (tmp_path / "item.json").exists()
    (tmp_path / "README.md").unlink()
    (tmp_path / "item.json").write_text('{"type": "Feature", "id": "scene"}')
    with pytest.raises(ConfigError, match=r"item\.json exists and is not a card"):
        run_card(known, tmp_path)
    assert not (tmp_path / "README.md").exists()
    run_card(known, tmp_path / "card")
    run_card(known, tmp_path / "card")


def test_the_command_writes_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_bundle(tmp_path / "tiny.rooftrace", licence="", attribution="the authors")
    done = command("export", "tiny.rooftrace", "--card", "-o", "card")
    assert done.code == 0, done.err
    assert "note: The bundle has no licence; the card calls it unknown." in done.err
    assert (tmp_path / "card/README.md").read_text().startswith('---\nlibrary_name: "rooftrace"\n')
    again = command("export", "tiny.rooftrace", "--card", "-o", "here", "--json")
    assert again.json["card"] == "here/README.md"
    assert json.loads(Path(again.json["item"]).read_text())["type"] == "Feature"
    for options in ((), ("--card", "--to", "onnx")):
        refused = command("export", "tiny.rooftrace", *options, "-o", "x")
        assert (refused.code, "expected one of both" in refused.err) == (2, True), refused.err
