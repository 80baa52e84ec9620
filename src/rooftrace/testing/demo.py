"""The scene that is shipped with the package, and how it is made."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pyogrio

from rooftrace.core.errors import DataError
from rooftrace.testing.scene import SyntheticScene, generate_scene

__all__ = ["DEMO_SEED", "demo_scene", "demo_scene_path", "demo_truth_path", "write_demo"]

# Chosen by eye among the first seeds: a river, all kinds of district, no two of them alike.
DEMO_SEED = 19

# The package should stay small; below this, ridges of sheet metal begin to smear.
_JPEG_QUALITY = 90
_NAME = "demo_scene"


def demo_scene() -> SyntheticScene:
    """The demo scene, drawn anew: 2048 × 2048 pixels of 0.3 m, in EPSG:32736. Takes seconds."""
    return generate_scene(DEMO_SEED)


def write_demo(folder: Path) -> tuple[Path, Path]:
    """Write the demo scene's image (JPEG in GeoTIFF) and truth (GeoPackage) into `folder`."""
    # A GeoPackage records when it was written; a fixed date keeps the file the same every time.
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2026-01-01T00:00:00.000Z"})
    try:
        return demo_scene().write(folder, _NAME, jpeg_quality=_JPEG_QUALITY)
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


def _asset(name: str) -> Path:
    path = Path(str(files("rooftrace").joinpath("assets", name)))
    if not path.is_file():
        raise DataError(
            f"Demo scene: {name} is missing from this installation, expected it as {path}.",
            remedy="Reinstall rooftrace, or write it with: python -m rooftrace.testing",
        )
    return path


def demo_scene_path() -> Path:
    """The shipped image: GeoTIFF, 3 bands uint8, 2048 × 2048 pixels of 0.3 m.

    Raises:
        DataError: the installation is incomplete.
    """
    return _asset(f"{_NAME}.tif")


def demo_truth_path() -> Path:
    """The footprints of the shipped image's buildings: GeoPackage, layer `buildings`.

    Raises:
        DataError: the installation is incomplete.
    """
    return _asset(f"{_NAME}_truth.gpkg")
