"""The page of an evaluation and its contents for every kind of evaluation."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rooftrace.flows.evaluate.run import EvalOptions, run_evaluate
from rooftrace.labels.config import SourceConfig
from rooftrace.models.bundle import read_bundle, write_bundle
from tiny_models import write_tiny_bundle

if TYPE_CHECKING:
    from tests.conftest import TinyRun

OPTIONS = EvalOptions(precision="fp32")


class Page(HTMLParser):
    """Texts by the element that they stand in, and all addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        tag = "lead" if ("class", "lead") in attrs else tag
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag in ("h1", "h2", "h3", "lead"):
            self.headings.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.tags and self.tags[-1] in ("h1", "h2", "h3", "lead"):
            self.headings[-1] += data.strip()


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.mark.campaign
def test_models_side_by_side(tiny_run: TinyRun, tmp_path: Path) -> None:
    made = read_bundle(tiny_run.bundle)
    other = tmp_path / "other.rooftrace"
    changed = made.spec.model_copy(update={"name": "the other", "threshold": 0.9})
    write_bundle(other, changed, made.parts)
    data = SourceConfig(path=str(tiny_run.data))
    run_evaluate([tiny_run.bundle, other], data, tmp_path, OPTIONS)
    assert any(
        "cannot be compared here: scenes show ground that a model was trained on" in heading
        for heading in page_of(tmp_path).headings
    )
    first = tmp_path / "first.rooftrace"
    for path, spec in ((first, made.spec), (other, changed)):
        write_bundle(path, spec.model_copy(update={"fingerprint": None}), made.parts)
    evaluation = run_evaluate([first, other], data, tmp_path, OPTIONS)
    page = page_of(tmp_path)
    test = evaluation.comparisons[1]["pixel.iou"]
    gap = test.difference
    sentence = next(h for h in page.headings if "the other" in h and "IoU (pooled)" in h)
    assert f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})" in sentence
    assert ("better" in sentence or "worse" in sentence) == (
        gap.low * gap.high > 0 and test.p_value < 0.05
    )
    assert f"{test.better} : {test.worse} : {test.equal}" in page.text
    # No row without a value.
    assert "<td>–</td>" not in (tmp_path / "report.html").read_text()
    plain = json.loads((tmp_path / "report.json").read_text())
    assert [report["name"] for report in plain["reports"]] == [made.spec.name, "the other"]
    names = ("figures", "places", "images")
    tables = {name: pd.read_csv(tmp_path / f"{name}.csv").set_index("model") for name in names}
    for report in plain["reports"]:
        figures = tables["figures"].loc[report["name"]].set_index("figure")
        assert figures.value["pixel.iou"] == report["pixel"]["iou"]
        assert figures.low["pixel.iou"] == report["intervals"]["pixel.iou"]["low"]
        assert tables["places"].images[report["name"]] == report["images"]
        assert [*tables["images"].id[report["name"]]] == [one["id"] for one in report["by_image"]]


def test_names_of_strangers_are_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    write_tiny_bundle(tmp_path / "m.rooftrace", name=evil)
    pixels = np.zeros((40, 50, 3), np.uint8)
    pixels[5:20, 5:20] = 250
    for part, array in (("images", pixels), ("masks", pixels[..., 0] // 250 * 255)):
        (tmp_path / part).mkdir()
        Image.fromarray(array).save(tmp_path / part / "a<b>&.png")
    data = SourceConfig(path=str(tmp_path), gsd_m=0.5)
    run_evaluate(tmp_path / "m.rooftrace", data, tmp_path / "out", EvalOptions())
    page = page_of(tmp_path / "out")
    assert "script" not in page.tags
    assert "b" in page.tags  # of captions; not of the name
    assert evil in page.headings[0] or evil in page.text
    assert "a<b>&" in page.text
    # One scene has no interval, and the page says why.
    assert "there is only one scene" in page.text
