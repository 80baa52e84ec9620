"""The card of a model says what the bundle knows, and nothing else."""

from __future__ import annotations

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


def card_of(model: Path | None, out: Path) -> tuple[dict[str, Any], str]:
    """Return front matter and text of the card of a model."""
    report = run_card(model, out)
    _, front, body = report.card.read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_card_has_the_facts_of_the_bundle(known: Path, tmp_path: Path) -> None:
    front, body = card_of(known, tmp_path / "card")
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


def test_facts_that_are_absent_are_not_invented(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(
        tmp_path / "bare.rooftrace", licence="", attribution="", created="", versions={},
        training={}, metrics=(),
    )  # fmt: skip
    front, body = card_of(bundle, tmp_path)
    assert {"license", "model-index"}.isdisjoint(front)
    assert "## Licence\n\nUnknown" in body
    assert "None were measured." in body
    assert "does not record how it was trained" in body
    assert len(run_card(bundle, tmp_path).notes) == 3


def test_the_bundled_models_have_cards(tmp_path: Path) -> None:
    front, body = card_of(None, tmp_path / "default")
    measured = bundled_model().spec.metrics
    assert len(front["model-index"][0]["results"]) == len(measured)
    assert measured[0].data in body
    _, body = card_of(Path("accurate"), tmp_path / "accurate")
    assert "rooftrace predict scene.tif -m accurate -o out" in body
    clicks = click_bundle()
    _, body = card_of(Path(clicks.source), tmp_path / "clicks")
    assert "on which a person clicks" in body


def test_another_readme_is_not_overwritten(known: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# My project\n")
    with pytest.raises(ConfigError, match=r"README\.md exists and is not a card"):
        run_card(known, tmp_path)
    assert (tmp_path / "README.md").read_text() == "# My project\n"
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
    for options in ((), ("--card", "--to", "onnx")):
        refused = command("export", "tiny.rooftrace", *options, "-o", "x")
        assert (refused.code, "expected one of both" in refused.err) == (2, True), refused.err
