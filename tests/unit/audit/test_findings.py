"""Each kind of fault, planted in a set of files, is found; a clean set has no findings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from PIL import Image

from raster_files import write_geotiff
from rooftrace.audit.checks import findings_of, first_findings
from rooftrace.audit.facts import Finding, LabelFacts, SceneFacts
from rooftrace.audit.measure import measure_set
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneEntry, SceneSet

SIDE = 64


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(20, 230, (SIDE, SIDE, 3), dtype=np.uint8)


def houses() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[8:20, 8:20] = mask[30:44, 30:50] = 1
    return mask


class Folder:
    """A folder of pairs in which the tests plant faults."""

    def __init__(self, root: Path, count: int = 6, ending: str = "png") -> None:
        self.root = root
        for part in ("images", "masks"):
            (root / part).mkdir()
        for number in range(count):
            Image.fromarray(picture(number)).save(self.image(number, ending))
            Image.fromarray(houses()).save(self.mask(number))

    def image(self, number: int, ending: str = "png") -> Path:
        return self.root / "images" / f"{number}.{ending}"

    def mask(self, number: int) -> Path:
        return self.root / "masks" / f"{number}.png"

    def found(self, labels: LabelConfig | None = None, **config: object) -> dict[str, Finding]:
        given = {"path": str(self.root), "gsd_m": 0.3} | config
        source = open_source(SourceConfig.model_validate(given), labels)
        found = findings_of(measure_set(source.with_unlabelled(), workers=1), source)
        assert len({finding.key for finding in found}) == len(found)
        return {finding.key: finding for finding in found}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_clean_set_has_no_findings(folder: Folder) -> None:
    assert folder.found() == {}


def spoil_image(folder: Folder) -> None:
    folder.image(3).write_bytes(folder.image(3).read_bytes()[:900])


def spoil_bands(folder: Folder) -> None:
    Image.fromarray(picture(3)[..., 0]).save(folder.image(3))


def spoil_size(folder: Folder) -> None:
    Image.fromarray(houses()[:50]).save(folder.mask(3))


def spoil_values(folder: Folder) -> None:
    Image.fromarray(houses() * np.uint8(7)).save(folder.mask(3))


def spoil_mask(folder: Folder) -> None:
    folder.mask(3).write_bytes(b"this is not an image")


def spoil_full(folder: Folder) -> None:
    Image.fromarray(np.ones((SIDE, SIDE), np.uint8)).save(folder.mask(3))


def spoil_nothing(folder: Folder) -> None:
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(folder.image(3))


def spoil_flat(folder: Folder) -> None:
    image = picture(3)
    image[:, 40:] = 255
    Image.fromarray(image).save(folder.image(3))


def test_bright_red_beside_even_green_and_blue_is_perhaps_near_infrared(folder: Folder) -> None:
    # In order: infrared, red, green, of trees and roofs; red soil in natural colours.
    for colour, keys in (((150, 80, 90), {"image.infrared"}), ((150, 110, 80), set())):
        for number in range(6):
            image = picture(number) // 4 + np.array(colour, np.uint8)
            Image.fromarray(image).save(folder.image(number))
        assert set(folder.found()) == keys
        infrared = first_findings(open_source(SourceConfig(path=str(folder.root))))[1]
        assert {one.key for one in infrared} == keys


@pytest.mark.parametrize(
    ("spoil", "key", "severity"),
    [
        (spoil_image, "image.unreadable", "error"), (spoil_bands, "image.bands", "error"),
        (spoil_size, "label.unreadable", "error"), (spoil_values, "label.unreadable", "error"),
        (spoil_mask, "label.unreadable", "error"), (spoil_flat, "image.flat", "warning"),
        (spoil_nothing, "image.nothing", "warning"), (spoil_full, "label.full", "warning"),
    ],
)  # fmt: skip
def test_one_scene_of_six_is_named(
    folder: Folder, spoil: Callable[[Folder], None], key: str, severity: str
) -> None:
    spoil(folder)
    found = folder.found()
    assert set(found) == {key}
    assert found[key].severity == severity
    assert (found[key].ids, found[key].count) == (("3",), 1)
    assert "\n" not in found[key].title
    assert re.search(r"\d", found[key].title)


def test_the_proposed_nodata_option_removes_the_finding(folder: Folder) -> None:
    spoil_flat(folder)
    finding = folder.found()["image.flat"]
    assert finding.title.startswith("38 % of the pixels of 1 image are white")
    line = re.search(r"--nodata ([\d,]+)", finding.remedy)
    assert folder.found(nodata=[int(value) for value in line[1].split(",")]) == {}


@pytest.mark.parametrize(("shift_px", "is_error"), [(100, True), (0.5, False)])
def test_a_mask_whose_georeference_contradicts_its_image(
    tmp_path: Path, shift_px: float, is_error: bool
) -> None:
    folder = Folder(tmp_path, count=0)
    for number in range(2):
        place = Affine(0.5, 0, 5e5, 0, -0.5, 1e6)
        moved = place @ Affine.translation(shift_px * number, 0)
        for part, data, where in (
            ("images", np.moveaxis(picture(number), -1, 0), place),
            ("masks", houses()[None], moved),
        ):
            write_geotiff(
                tmp_path / part / f"{number}.tif", data, crs="EPSG:32636", transform=where
            )
    found = folder.found(gsd_m=None)
    if not is_error:
        assert found == {}
        return
    finding = found["label.unreadable"]
    assert (finding.severity, finding.ids) == ("error", ("1",))
    assert "100.0 pixels away" in finding.detail


def test_metres_known_of_some_images_or_of_none(folder: Folder) -> None:
    assert folder.found(gsd_m=None)["gsd.unknown"].severity == "note"
    folder.image(3).unlink()
    write_geotiff(
        folder.image(3, "tif"), np.moveaxis(picture(3), -1, 0), crs="EPSG:32636",
        transform=Affine(0.5, 0, 5e5, 0, -0.5, 1e6),
    )  # fmt: skip
    found = folder.found(gsd_m=None)
    assert found["gsd.unknown"].severity == "warning"
    assert (found["gsd.unknown"].count, "0.5" in found["gsd.unknown"].detail) == (5, True)


def test_the_same_ground_at_several_zooms(tmp_path: Path) -> None:
    folder = Folder(tmp_path, count=0)
    for name in ("OAM-4-8-5", "OAM-8-16-6", "OAM-9-17-6", "OAM-30-30-6"):
        Image.fromarray(picture(1)).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(houses()).save(tmp_path / "masks" / f"{name}.png")
    finding = folder.found()["leakage.zooms"]
    assert finding.severity == "warning"
    assert set(finding.ids) == {"OAM-4-8-5", "OAM-8-16-6", "OAM-9-17-6"}
    assert "1 at zoom 5, 3 at zoom 6" in finding.detail
    line = re.search(r"--glob '([^']*)'", finding.remedy)
    assert "leakage.zooms" not in folder.found(glob=line[1])


def facts_with(number: int = 0, **label: object) -> SceneFacts:
    """Return the facts of a faultless scene, except for the given values."""
    image = {key: label.pop(key) for key in list(label) if key in SceneFacts.__slots__}
    default: dict[str, object] = {
        "class_px": (9000, 1000), "buildings_px": np.array([400, 600]), "cut": 0,
    }  # fmt: skip
    facts = SceneFacts(
        str(number), "a.png", shape_yx=(100, 100), bands=3, dtype="uint8", file_format="PNG",
        gsd_m=0.3, valid_share=1.0, mean=(0.4,) * 3, std=(0.2,) * 3, brightness=0.4,
        contrast=0.2, saturation=0.1, sharpness=0.3, phash=7,
        label=LabelFacts(**default | label),  # type: ignore[arg-type]
    )  # fmt: skip
    return replace(facts, **image)


def findings_from(*facts: SceneFacts) -> dict[str, Finding]:
    entries = tuple(SceneEntry(f.id, Path("a.png")) for f in facts)
    source = SceneSet(
        "s", "folder", ("class0", "class1"), 1, entries, lambda entry: pytest.fail(entry.id)
    )
    return {finding.key: finding for finding in findings_of(facts, source)}


@pytest.mark.parametrize(
    ("given", "key", "figure"),
    [
        ({"class_px": (2000, 8000)}, "label.inverted", "80 %"), ({"cut": 2}, "label.cut", "100 %"),
        ({"unknown_share": 0.25}, "label.unknown", "25 %"),
        ({"contrast": 0.01}, "image.nothing", "3 images of 3"),
    ],
)  # fmt: skip
def test_a_common_fault_is_a_finding(given: dict[str, object], key: str, figure: str) -> None:
    assert findings_from(*(facts_with(n) for n in range(3))) == {}
    twelve_bits = {"dtype": "uint16", "brightness": 0.03, "contrast": 0.01}
    assert findings_from(*(facts_with(n, **twelve_bits) for n in range(3))) == {}
    found = findings_from(*(facts_with(n, **given) for n in range(3)))
    assert set(found) - {"gsd.unknown"} == {key}
    assert figure in found[key].title


def test_a_background_that_transparency_hides_is_not_taken_for_swapped_classes() -> None:
    hidden = {"class_px": (0, 6000), "unknown_share": 0.4}
    found = findings_from(*(facts_with(n, **hidden) for n in range(3)))["label.inverted"]
    assert found.title == "All known pixels are labelled as building, and 40 % are unknown"
    assert "without transparency" in found.remedy
    swapped = findings_from(*(facts_with(n, class_px=(0, 6000)) for n in range(3)))
    assert "swapped" in swapped["label.inverted"].remedy
