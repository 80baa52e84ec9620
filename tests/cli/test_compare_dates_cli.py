"""`rooftrace compare` of two dates: only changes of which both dates are sure are found."""

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint

from command_line import call
from raster_files import write_geotiff
from tiny_models import write_tiny_bundle

UTM = 32633
EAST, NORTH = 500_000.0, 5_000_000.0
PIXEL_M = 0.5
COLUMNS, ROWS = 8, 5
PITCH_PX = 40
FREE = 0.02
"""Probability where there is no building."""

Change = tuple[float, float]
"""Probability of a house in the new and in the old date."""


def ground(houses: list[float], *, cell: int = 1, shift_px: int = 0) -> NDArray[np.float32]:
    """Return (y, x) probabilities of a town: houses of 20 × 16 pixels with a probability each.

    Args:
        houses: Probability of each house, row by row.
        cell: Number of pixels per pixel of `PIXEL_M`, along each axis.
        shift_px: Shift of all houses to the right.
    """
    image = np.full((ROWS * PITCH_PX, COLUMNS * PITCH_PX), FREE, np.float32)
    for number, value in enumerate(houses):
        row, col = np.array(divmod(number, COLUMNS)) * PITCH_PX + 10
        image[row : row + 20, col + shift_px : col + shift_px + 16] = value
    return image.repeat(cell, axis=0).repeat(cell, axis=1)


def write(path: Path, image: NDArray[Any], **options: Any) -> Path:
    """Write an image of the town at any resolution."""
    size = COLUMNS * PITCH_PX * PIXEL_M / image.shape[-1]
    place = {"crs": f"EPSG:{UTM}", "transform": Affine(size, 0, EAST, 0, -size, NORTH)}
    return write_geotiff(path, image, **place | options)


def counts(answer: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {
        name: (row["new"], row["old"])
        for name, row in answer["statuses"].items()
        if row["new"] or row["old"]
    }


def compared(new: NDArray[Any], old: NDArray[Any], folder: Path, *more: object) -> dict[str, Any]:
    """Compare two rasters of probabilities and return the report."""
    files = write(folder / "new.tif", new), write(folder / "old.tif", old)
    code, answer = call("compare", *files, "-o", folder / "out", *more)
    assert code == 0, answer
    return answer


def test_another_rendering_of_the_same_ground_has_no_change(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.7, 1.0, COLUMNS * ROWS)
    old = ground(sure.tolist())
    # Half as large pixels, one pixel to the right, and a model that is less sure of some houses.
    sure[::5] = 0.45
    new = ground(sure.tolist(), cell=2)
    new = np.roll(new, 2, axis=1)
    # Two houses have become one, and two parts of a house another one.
    new[20:60, 132:182] = 0.6
    old[24:26, 130:146] = 0.45
    found = counts(compared(new, old, tmp_path))
    assert set(found) == {"same"}
    assert found["same"][0] != found["same"][1]


def test_true_changes_are_found_each_as_such(tmp_path: Path) -> None:
    new, old = np.full(COLUMNS * ROWS, 0.9), np.full(COLUMNS * ROWS, 0.9)
    new[[3, 11]] = old[[20, 21, 22]] = FREE
    first, second = ground(new.tolist()), ground(old.tolist())
    # The last house is twice as wide as before, and a hall in the first row is now a shed.
    first[170:190, 300:318] = 0.9
    second[4:36, 42:74] = 0.9
    first[10:30, 50:66] = FREE
    first[15:25, 53:63] = 0.9
    answer = compared(first, second, tmp_path)
    assert counts(answer) == {"same": (33, 33), "changed": (1, 1), "new": (4, 0), "gone": (0, 3)}
    assert (answer["dates"]["low"], answer["coverage"]) == (0.25, "imagery")
    sides = gpd.read_file(tmp_path / "out" / "compare.gpkg")
    share = sides.set_index("status").change_share
    # That of the shed is 0: it is as sure as the hall in whose place it stands.
    assert sorted(share["new"].round(1)) == [0, 1, 1, 1]
    assert sorted(share["gone"].round(1)) == [0.8, 1, 1]
    assert 0.25 <= share["changed"].max() < 0.6
    assert share["same"].isna().all()


CHANGES: dict[Change, str] = {
    (0.9, 0.1): "new", (0.9, 0.3): "same", (0.7, 0.1): "same", (0.6, 0.4): "same",
    (0.1, 0.9): "gone", (0.3, 0.9): "same", (0.1, 0.7): "same", (0.4, 0.6): "same",
}  # fmt: skip


def test_a_change_needs_two_sure_dates(tmp_path: Path) -> None:
    new, old = np.full(COLUMNS * ROWS, 0.95), np.full(COLUMNS * ROWS, 0.95)
    for number, change in enumerate(CHANGES):
        new[number], old[number] = change
    answer = compared(ground(new.tolist()), ground(old.tolist()), tmp_path, "--keep", "new")
    expected = [*CHANGES.values()]
    assert counts(answer)["new"] == (expected.count("new"), 0)
    assert counts(answer)["gone"] == (0, expected.count("gone"))
    sides, seen = gpd.read_file(tmp_path / "out" / "compare.gpkg"), []
    for number in range(len(CHANGES)):
        x = EAST + (number * PITCH_PX + 18) * PIXEL_M
        here = sides.contains(gpd.points_from_xy([x], [NORTH - 20 * PIXEL_M])[0])
        seen.append(sides[here].status.to_list())
    assert seen == [[status] for status in expected]
    assert sides[(sides.status == "same") & sides.change_share.notna()].partner_id.isna().all()
    # A house of the old date that is not surely gone is kept, those of the new date all are.
    assert answer["conflated"] == {"new": 36, "old": 3}


def test_a_systematic_offset_is_no_change(tmp_path: Path) -> None:
    new, old = np.full(COLUMNS * ROWS, 0.9), np.full(COLUMNS * ROWS, 0.9)
    new[7] = old[30] = FREE
    first, second = ground(new.tolist(), shift_px=12), ground(old.tolist())
    # A small house beside a large one is gone: with the offset, the large one lies upon it.
    second[10:30, 28:38] = 0.9
    for option in ((), ("--remove-offset",)):
        # The roofs of the new image lie 6 m to the east, almost the width of a house.
        answer = compared(first, second, tmp_path, *option)
        assert answer["offset"]["east_m"] == pytest.approx(6, abs=0.1)
        assert counts(answer) == {"same": (38, 38), "new": (1, 0), "gone": (0, 2)}
        assert answer["matched"] == 38
        sides = gpd.read_file(tmp_path / "out" / "compare.gpkg").query("status == 'same'")
        assert sides.iou.min() > 0.9
        assert sides.offset_m.median() == pytest.approx(0 if option else 6, abs=0.1)


def test_ground_that_one_date_does_not_show_is_outside(tmp_path: Path) -> None:
    new, old = np.full(COLUMNS * ROWS, 0.9), np.full(COLUMNS * ROWS, 0.9)
    new[[0, 8]] = old[[7, 15]] = FREE
    first, second = ground(new.tolist()), ground(old.tolist())
    # No data over a lost house in the new date, and over an added one in the old date.
    first[:40, :40] = second[:40, 280:] = np.nan
    # The edge of the new image cuts a house: the layer of both has it as a whole.
    first[80:120, 180:206] = np.nan
    answer = compared(first, second, tmp_path, "--keep", "new")
    kept = gpd.read_file(tmp_path / "out" / "conflated.gpkg")
    assert kept.area.round().tolist() == [80] * 39
    assert counts(answer) == {
        "same": (36, 36), "new": (1, 0), "gone": (0, 1), "outside": (1, 1),
    }  # fmt: skip


def test_two_images_are_predicted_with_one_model(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny.rooftrace", gsd_m=PIXEL_M)
    new, old = np.full(COLUMNS * ROWS, 0.9), np.full(COLUMNS * ROWS, 0.9)
    new[3], new[4], old[20] = FREE, 0.45, FREE
    files = []
    for name, houses in (("new", new), ("old", old)):
        image = np.rint(ground(houses.tolist(), cell=2 if name == "new" else 1) * 255)
        image = np.repeat(image[None].astype(np.uint8), 3, axis=0)
        files.append(write(tmp_path / f"{name}.tif", image))
    code, answer = call("compare", *files, "-m", bundle, "-o", tmp_path / "out")
    assert code == 0, answer
    assert counts(answer) == {"same": (37, 38), "new": (1, 0), "gone": (0, 1)}
    assert any("1 of OLD differ, but not surely" in note for note in answer["notes"])
    written = [tmp_path / "out" / f"{name}_probability.tif" for name in ("new", "old")]
    assert {*map(str, written)} <= {*answer["files"]}
    # Their probabilities give the same answer without the model.
    code, again = call("compare", *written, "--threshold", 0.5, "-o", tmp_path / "again")
    assert (code, counts(again)) == (0, counts(answer))


def test_bad_dates_are_explained(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny.rooftrace", gsd_m=PIXEL_M)
    image = np.full((3, ROWS * PITCH_PX, COLUMNS * PITCH_PX), 90, np.uint8)
    first, second = write(tmp_path / "a.tif", image), write(tmp_path / "b.tif", image)
    nowhere = write(tmp_path / "c.tif", image, crs=None, transform=None)
    with rasterio.open(nowhere, "r+") as file:
        corners = [(0, 0), (0, 320), (200, 0), (200, 320)]
        file.gcps = [GroundControlPoint(r, c, EAST + c, NORTH - r) for r, c in corners], UTM
    coarse = write(tmp_path / "d.tif", image[:, :40, :64])  # 2.5 m per pixel
    classes = ("background", "building", "road")
    several = write_tiny_bundle(tmp_path / "several.rooftrace", classes=classes)
    layers = []
    for name, raster in (("old", ground([0.9])), ("new", ground([0.9, 0.9]))):
        masks = write(tmp_path / f"{name}.tif", (raster > 0.5).astype(np.uint8))
        layers.append(tmp_path / f"{name}.gpkg")
        assert call("vectorize", masks, "-o", layers[-1])[0] == 0
    cases = [
        ((first, layers[0], "-m", bundle), 2, "OLD, "),
        (
            (first, "https://example.org/{z}/{x}/{y}.png", "-m", bundle),
            3,
            "https://example.org/{z}",
        ),
        ((first, nowhere, "-m", bundle), 3, "has no coordinate system"),
        ((first, coarse, "-m", bundle), 4, "d.tif has 2"),
        ((first, second, "-m", several), 2, "has 3 classes"),
        ((*layers, "--threshold", 0.4), 2, "neither NEW nor OLD is a raster"),
        ((first, second, "-m", tmp_path / "none.rooftrace"), 4, "none.rooftrace"),
    ]
    for arguments, code, words in cases:
        found, answer = call("compare", *arguments, "-o", tmp_path / "out")
        assert (found, words in answer["error"]["message"]) == (code, True), answer
        assert "--gsd" not in answer["error"]["remedy"]
        assert ("gdalwarp -tps" in answer["error"]["remedy"]) == (nowhere in arguments)
        assert not list((tmp_path / "out").glob("*")), arguments
