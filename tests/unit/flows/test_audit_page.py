"""The page is self-contained, lists every finding, and escapes names."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rooftrace.audit.report import Audit, run_audit
from rooftrace.flows.inspect import audit_page
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from town import write_pairs

HOSTILE = "a<script>alert(1)<script> & 'b'"


class Outline(HTMLParser):
    """Parser that checks the nesting of tags and collects their references."""

    EMPTY = frozenset(("meta", "img", "br", "line", "rect", "polyline"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.refers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.refers += [value or "" for name, value in attrs if name in ("src", "href", "data")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def audit_of(folder: Path, against: Path | None = None) -> Audit:
    other = None if against is None else open_source(SourceConfig(path=str(against)))
    return run_audit(open_source(SourceConfig(path=str(folder))), other)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "town"
    write_pairs(path, range(6), shape_yx=(96, 96), gsd_m=0.4)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(image).save(path / "images" / f"{HOSTILE}.png")
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(path / "masks" / f"{HOSTILE}.png")
    return path


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images without labels."""
    path = tmp_path_factory.mktemp("audit") / "bare"
    write_pairs(path / "made", range(20, 26), shape_yx=(96, 96), gsd_m=0.8)
    (path / "made/images").rename(path / "tiles")
    for mask in (path / "made/masks").iterdir():
        mask.unlink()
    return path / "tiles"


@pytest.mark.campaign
def test_the_page_is_complete_and_self_contained(folder: Path) -> None:
    page = audit_page(audit_of(folder))
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert outline.refers
    assert all(reference.startswith("data:image/jpeg;base64,") for reference in outline.refers)
    assert not {"script", "link", "iframe"} & set(outline.seen)
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[^\"]*", "", page))


def test_every_finding_and_figure_is_on_the_page(folder: Path) -> None:
    audit = audit_of(folder)
    page = audit_page(audit)
    assert audit.findings
    for finding in audit.findings:
        assert f'id="{finding.key}"' in page
    for action in audit.verdict.actions:
        assert action.split(":")[0].split("'")[0] in page
    assert f"{audit.data.statistics.buildings:,}" in page


@pytest.mark.campaign
def test_names_are_escaped(folder: Path) -> None:
    page = audit_page(audit_of(folder))
    assert HOSTILE not in page
    assert "a&lt;script&gt;alert(1)" in page


def test_images_alone(bare: Path) -> None:
    audit = audit_of(bare)
    assert audit.verdict.fit == "no"
    assert "Built-up share" not in audit_page(audit)
