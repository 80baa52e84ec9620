"""Readers of images under attack: rasters as `predict` opens them, with masks beside them."""

import io
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_target import HEIGHT, MOST_PX, WIDTH, Files, Target, check, png, read_all, tif
from PIL import Image

from rooftrace.core.types import RasterSource, Window


def predict_small(source: RasterSource, folder: Path) -> None:
    """Predict a small image with all outputs; of a large one read a corner."""
    from rooftrace.engines.base import PointwiseEngine
    from rooftrace.flows.doctor import tiny_bundle
    from rooftrace.predict.plan import SceneOptions
    from rooftrace.predict.predictor import Predictor

    height, width = source.grid.shape
    if height * width > MOST_PX:
        source.read(Window(0, 0, min(height, 64), min(width, 64)))
        return
    options = SceneOptions(gsd_m=0.4, forgiving=True)
    found = Predictor(tiny_bundle(), PointwiseEngine()).predict(source, options=options)
    check(found.mask.data.shape == source.grid.shape, "the mask has another size than the image")
    found.save(folder / "out")
    raster = source.read()
    unseen = raster.valid & ~found.mask.valid
    check(not unseen.any() or source.grid.shape == (0, 0), "valid pixels have no answer")


def _read_raster(path: Path) -> None:
    from rooftrace.flows.predict.inputs import find_inputs

    for scene in find_inputs([path]).scenes:
        try:
            predict_small(scene.source, path.parent)
        finally:
            scene.source.close()
    if path.suffix == ".png":
        check(_inflates(path.read_bytes()), "a damaged PNG is read as if it were complete")


def _inflates(png: bytes) -> bool:
    """Return whether the pixels of a PNG can be inflated up to their end."""
    at, pixels = 8, zlib.decompressobj()
    while at + 8 <= len(png):
        (size,) = struct.unpack_from(">I", png, at)
        if png[at + 4 : at + 8] == b"IDAT":
            try:
                pixels.decompress(png[at + 8 : at + 8 + size])
            except zlib.error:
                return False
        at += 12 + size
    return pixels.eof


def _tiffs() -> tuple[Files, Files]:
    kinds: dict[str, dict[str, Any]] = {
        "strips": {}, "tiles": {"tiled": True, "blockxsize": 16, "blockysize": 16,
                                "compress": "deflate"},
        "jpeg": {"compress": "jpeg", "photometric": "ycbcr"},
        "lzw": {"compress": "lzw", "predictor": 2}, "big": {"bigtiff": "yes"},
        "nodata": {"nodata": 0}, "zstd": {"compress": "zstd"}, "alpha": {"bands": 4},
    }  # fmt: skip
    return {f"{name}.tif": tif(**options) for name, options in kinds.items()}, {}


def _pictures() -> tuple[Files, Files]:
    import cv2

    rng = np.random.default_rng(1)
    colour = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    kinds = {f"a.{ending}": colour for ending in ("png", "jpg", "webp", "jp2")}
    kinds["alpha.png"] = np.dstack([colour, colour[..., 0]])
    made = {name: cv2.imencode(Path(name).suffix, one)[1].tobytes() for name, one in kinds.items()}
    picture = Image.fromarray(colour)
    palette, progressive = io.BytesIO(), io.BytesIO()
    picture.quantize(16).save(palette, "PNG")
    picture.save(progressive, "JPEG", progressive=True, quality=40)
    return {
        **made,
        "palette.png": palette.getvalue(),
        "progressive.jpg": progressive.getvalue(),
    }, {}


def _vrts() -> tuple[Files, Files]:
    import rasterio.shutil

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.tif").write_bytes(tif())
        rasterio.shutil.copy(folder / "a.tif", folder / "a.vrt", driver="VRT")
        text = (folder / "a.vrt").read_text().replace(f"{folder}/", "")
    plain = text.replace('relativeToVRT="0"', 'relativeToVRT="1"')
    return {"a.vrt": plain.encode()}, {"a.tif": tif()}


def _sidecars() -> tuple[Files, Files]:
    import rasterio

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.tif")
        path.write_bytes(tif())
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
            mask = np.full((40, 40), 255, np.uint8)
            mask[:20] = 0
            file.write_mask(mask)
        return {"a.tif.msk": path.with_name("a.tif.msk").read_bytes()}, {"a.tif": path.read_bytes()}


def _read_sidecar(path: Path) -> None:
    from rooftrace.flows.predict.inputs import find_inputs

    (scene,) = find_inputs([path.parent / "a.tif"]).scenes
    try:
        predict_small(scene.source, path.parent)
        valid = scene.source.read().valid
    finally:
        scene.source.close()
    check(not valid.all() or _has_valid_mask(path), "a damaged mask counts as no mask")


def _has_valid_mask(path: Path) -> bool:
    """Return whether GDAL reads the mask by itself, and finds each pixel valid."""
    import rasterio

    try:
        with rasterio.open(path) as file:
            return file.shape == (40, 40) and bool((file.read(1) != 0).all())
    except Exception:
        return False


def _pairs() -> tuple[Files, Files]:
    mask = io.BytesIO()
    Image.fromarray(np.tile(np.array([0, 255], np.uint8), (HEIGHT, WIDTH // 2))).save(mask, "PNG")
    seeds = {"images/a.png": png(), "masks/a.png": mask.getvalue()}
    fixed = {**seeds, "images/b.png": png(), "masks/b.png": mask.getvalue()}
    return seeds, fixed


def _read_pairs(path: Path) -> None:
    read_all(path.parents[1])


TARGETS = (
    Target("geotiff", _tiffs, _read_raster),
    Target("picture", _pictures, _read_raster),
    Target("vrt", _vrts, _read_raster),
    Target("sidecar", _sidecars, _read_sidecar),
    Target("pairs", _pairs, _read_pairs),
)
