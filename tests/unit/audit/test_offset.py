"""Planted shifts of labels are found, and labels that fit give no finding."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial, reduce
from operator import add
from pathlib import Path

import cv2
import numpy as np
import pytest

from memory_sets import ArrayLabel
from rooftrace.audit.checks import first_findings
from rooftrace.audit.facts import Offset
from rooftrace.audit.measure import measure_set
from rooftrace.audit.offset import SURE, Surface, edge_surface, estimate_offsets, offset_findings
from rooftrace.audit.report import run_audit
from rooftrace.core.types import Scene
from rooftrace.io.georeferenced import ArraySource
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.derived import shift_labels
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneEntry, SceneSet
from town import generate_scene

PLANTED = [(6, 0), (-6, 0), (0, 6), (0, -6), (4, 4), (-4, 4), (4, -4), (-4, -4)]
Shift = tuple[int, int]


def shifted_label(mask: np.ndarray, shift: Shift) -> ArrayLabel:
    """Return a label that is shifted down and right; the new edge is unknown."""
    matrix = np.array([[1, 0, shift[1]], [0, 1, shift[0]]], dtype=np.float32)
    size = mask.shape[::-1]
    moved = cv2.warpAffine(mask.astype(np.uint8), matrix, size)
    return ArrayLabel(moved, cv2.warpAffine(np.ones_like(moved), matrix, size) > 0)


drawn = cache(generate_scene)


def shifted_scene(number: int, shift: Shift, side_px: int = 256, gsd_m: float = 0.6) -> Scene:
    town = drawn(number, (side_px, side_px), gsd_m)
    label = shifted_label(town.mask(), shift)
    return Scene(str(number), ArraySource(town.image), label, "town", gsd_m)


def open_shifted(shift: Shift) -> Callable[[SceneEntry], Scene]:
    # On a slow machine an audit sends it to other processes.
    return partial(_open_shifted, shift)


def _open_shifted(shift: Shift, entry: SceneEntry) -> Scene:
    return shifted_scene(int(entry.id), shift)


def set_of(count: int, open_scene: Callable[[SceneEntry], Scene]) -> SceneSet:
    entries = tuple(SceneEntry(str(number), None, "town") for number in range(count))
    return SceneSet("towns", "test", ("background", "building"), 1, entries, open_scene)


def offsets_of(source: SceneSet, **more: int) -> tuple[Offset, ...]:
    return estimate_offsets(source, measure_set(source, workers=1), **more)


def surface_of(scene: Scene) -> Surface:
    image, mask = scene.image.read(), scene.label.read() if scene.label else None
    luma = cv2.cvtColor(np.moveaxis(image.data, 0, -1).copy(), cv2.COLOR_RGB2GRAY)
    return edge_surface(luma.astype(np.float32), image.valid, mask.data == 1, mask.valid)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("shift", PLANTED)
def test_a_planted_shift_is_found(number: int, shift: Shift) -> None:
    rows, cols, confidence = surface_of(shifted_scene(number, shift)).peak()
    assert np.hypot(rows + shift[0], cols + shift[1]) < 1
    assert confidence >= SURE


@pytest.mark.campaign
def test_small_tiles_are_estimated_together() -> None:
    whole = shifted_scene(3, (5, -3), 512)
    image, label = whole.image.read(), whole.label.read() if whole.label else None
    luma = cv2.cvtColor(np.moveaxis(image.data, 0, -1).copy(), cv2.COLOR_RGB2GRAY)
    tiles = [
        edge_surface(
            luma[area].astype(np.float32), image.valid[area], label.data[area] == 1,
            label.valid[area],
        )
        for row in range(0, 512, 64)
        for col in range(0, 512, 64)
        if label.data[area := (slice(row, row + 64), slice(col, col + 64))].any()
    ]  # fmt: skip
    alone = [tile.peak()[2] >= SURE for tile in tiles]
    together = reduce(add, tiles).peak()
    assert np.mean(alone) < 0.3
    assert together[:2] == pytest.approx((-5, 3), abs=1)
    assert together[2] >= SURE


def test_borders_of_valid_and_known_areas_are_not_edges() -> None:
    generator = np.random.default_rng(0)
    luma = generator.normal(120, 1, (200, 200)).astype(np.float32)
    luma[:, :90] = 0
    valid = np.broadcast_to(np.arange(200) >= 90, (200, 200)).copy()
    building = np.broadcast_to(np.arange(200) >= 95, (200, 200)).copy()
    surface = edge_surface(luma, valid, building, np.ones_like(valid))
    # The label's only edge lies 5 px from the border of the valid area and would fit there.
    assert np.abs(surface.fit).max() < 0.2 * surface.weight.max()
    surface = edge_surface(luma, valid, building, building)
    assert surface.weight.max() < 1
    assert surface.peak()[2] < 0.01


@pytest.mark.campaign
def test_a_set_that_is_off_is_one_finding() -> None:
    shifted = set_of(6, open_shifted((6, 0)))
    assert [one.key for one in first_findings(shifted)[1]] == ["label.offset"]
    offsets = offsets_of(shifted)
    assert [o.level for o in offsets] == ["scene"] * 6 + ["set"]
    common = offsets[-1]
    assert (common.rows, common.cols) == pytest.approx((-6, 0), abs=0.7)
    assert (common.id, common.scenes, common.gsd_m) == ("towns", 6, 0.6)
    (finding,) = offset_findings(offsets)
    assert (finding.key, finding.severity) == ("label.offset", "warning")
    (lengths,) = re.findall(r"are (\d\.\d) px \((\d\.\d) m\) off", finding.title)
    assert [float(number) for number in lengths] == pytest.approx([6, 3.6], abs=0.5)
    assert re.match(r"They fit best when shifted \d\.\d px up", finding.detail)
    assert re.match(r"Shift them: --set 'label_shift_px=\[-\d, -?\d\]'", finding.remedy)
    assert finding.count == len(finding.ids) >= 4


def _open_swapped(entry: SceneEntry) -> Scene:
    scene, other = (shifted_scene(int(entry.id) + more, (0, 0), 128) for more in (0, 1))
    return replace(scene, label=other.label)


@pytest.mark.campaign
def test_masks_under_the_names_of_other_images_are_one_finding() -> None:
    offsets = offsets_of(set_of(12, _open_swapped))
    # Those of a few buildings may not agree by chance.
    for buildings, severity in ((5, "warning"), (1, "note")):
        counted = [replace(one, buildings=buildings) for one in offsets]
        (finding,) = offset_findings(counted)
        assert (finding.key, finding.severity, finding.count) == ("label.pairs", severity, 12)


@pytest.mark.parametrize(("reach_px", "keys"), [(24, ["label.pairs"]), (2, [])])
def test_estimates_all_over_are_of_labels_that_fit_nothing(reach_px: int, keys: list[str]) -> None:
    shifts = np.random.default_rng(0).uniform(-reach_px, reach_px, (16, 2)).tolist()
    offsets = [Offset(f"{y}", y, x, 0.1, "scene", 1, 0.3) for y, x in shifts]
    assert [finding.key for finding in offset_findings(offsets)] == keys


def test_a_shift_at_one_resolution_is_not_advised_for_the_whole_set() -> None:
    off = Offset("town", -8, 0, 0.9, "set", 8, 0.3)
    right = Offset("town", 0, 0, 0.9, "set", 20, 0.6)
    (finding,) = offset_findings([off, right])
    assert "px=[-8, 0]' for the scenes at 0.3 m per pixel, in a set of" in finding.remedy
    # Other resolutions that agree, or whose estimate is not sure, are no reason for two sets.
    for alike in (replace(right, rows=-7.0), replace(right, confidence=0.1)):
        assert "in a set of" not in offset_findings([off, alike])[0].remedy


def test_small_scenes_scatter_around_a_set_that_fits() -> None:
    # As measured on 22 tiles of 256 px of Chicago, whose labels are right.
    rows = (-2.4, -1.9, 2.1, 2.8, 0.3, -0.2, 0.5, 0.1, -0.7, 0.9, 0.4)
    scenes = [Offset(str(n), row, 0.8, 0.4, "scene", 1, 0.3) for n, row in enumerate(rows)]
    common = Offset("town", 0.3, -0.2, 0.4, "set", len(rows), 0.3)
    assert not offset_findings([*scenes, common])
    astray = [replace(one, rows=one.rows * 2) for one in scenes]
    (finding,) = offset_findings([*astray, common])
    assert (finding.severity, finding.count) == ("warning", 4)


@pytest.mark.campaign
def test_the_advice_for_labels_that_are_shifted_already_is_the_sum() -> None:
    source = shift_labels(set_of(6, open_shifted((8, 0))), (-4, 1))
    audit = run_audit(source)
    (finding,) = (f for f in audit.findings if f.key == "label.offset")
    assert "--set 'label_shift_px=[-8, 0]'." in finding.remedy


@pytest.mark.campaign
@pytest.mark.realdata
def test_rotterdam_labels_lie_low_and_a_shift_adds_up(realdata: Path) -> None:
    source = open_source(SourceConfig(path=str(realdata / "rotterdam"), part="[:60]"))
    facts = measure_set(source, workers=1)
    (whole,) = (o for o in estimate_offsets(source, facts) if o.level == "set")
    assert (whole.rows, whole.cols) == pytest.approx((-4, 0.5), abs=1.5)
    scene = source.open_scene(source.entries[33])
    before = surface_of(scene).peak()
    assert scene.label is not None
    moved = replace(scene, label=shifted_label(scene.label.read().data, (-4, 4)))
    after = surface_of(moved).peak()
    assert np.subtract(after, before)[:2] == pytest.approx([4, -4], abs=1)
