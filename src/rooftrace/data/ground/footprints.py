"""Georeferenced scenes, and the footprints of a vector file."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from pyproj import CRS

from rooftrace.core.config import expand_path
from rooftrace.core.errors import DataError, ExportError, GeoreferenceError, LayoutError
from rooftrace.core.types import GeoGrid
from rooftrace.data.config import LabelConfig, SourceConfig
from rooftrace.data.ground.layer import LayerFile, ShapeLayer
from rooftrace.data.ground.outlines import Outlines, scene_crs
from rooftrace.data.ground.scenes import one_vector_file, placed_set, vector_files
from rooftrace.data.images import open_image, write_image
from rooftrace.data.layout import images_under, is_image_file
from rooftrace.data.source import Entry, Progress, SceneSet, SourceKind, WriteOptions, Written
from rooftrace.io.atomic import export_error
from rooftrace.io.raster import open_raster
from rooftrace.io.reproject import degrees_text, outline_bounds
from rooftrace.io.vector import check_vector_path, write_polygons
from rooftrace.io.vector_read import is_vector_file

__all__ = ["DIGITS", "FOOTPRINTS", "LONLAT", "out_of_reach"]

LONLAT = CRS.from_epsg(4326)
DIGITS = 9
"""Of degrees in a GeoJSON of labels: a tenth of a millimetre, so that no pixel changes sides."""


def _read(path: Path, config: SourceConfig, labels: LabelConfig, base: Path) -> SceneSet:
    """A vector file with its images, or a folder that holds both."""
    vector = one_vector_file([path]) if path.is_dir() else path
    given = None if config.images is None else expand_path(config.images, base, key="images")
    files, top = _images_of(vector, given, config.globs)
    names = [file.relative_to(top).with_suffix("").as_posix() for file in files]
    if len(set(names)) < len(names):
        names = [file.relative_to(top).as_posix() for file in files]
    entries = [Entry(name, file, name.rpartition("/")[0]) for name, file in zip(names, files)]
    file = LayerFile.of(vector, labels, config.field)
    name = path.resolve().name if path.is_dir() else path.stem
    source = placed_set(FOOTPRINTS.name, name, entries, file, config, labels)
    _check_reach(source, file)
    return source


def _images_of(vector: Path, given: Path | None, globs: tuple[str, ...]) -> tuple[list[Path], Path]:
    """The images of a vector file, and the folder that their ids start from."""
    if given is not None and not given.exists():
        raise LayoutError(f"There are no images at {given}.", remedy="Correct images.")
    if given is not None and given.is_file():
        return [given], given.parent
    own = _copies_folder(vector)
    if given is not None or own.is_dir():
        folders = [own if given is None else given]
    else:
        folders = [vector.parent / "images", vector.parent]
    found = {
        folder: images_beside(folder, globs) if folder == vector.parent and given is None
        else images_under(folder, globs)
        for folder in folders if folder.is_dir()
    }  # fmt: skip
    filled = [folder for folder, files in found.items() if files]
    if len(filled) == 1:
        return found[filled[0]], filled[0]
    if filled:
        raise LayoutError(
            f"There are images beside {vector} ({found[filled[1]][0].name}) and in {filled[0]}.",
            remedy="Say which are meant with --images.",
        )
    raise LayoutError(
        f"There is no image{f' that matches {list(globs)}' if globs else ''} for {vector} in "
        f"{' or '.join(map(str, folders))}.",
        remedy="Say where the images lie with --images.",
    )


def images_beside(folder: Path, globs: tuple[str, ...] = ()) -> list[Path]:
    """The images in a folder itself, sorted; hidden ones are left out."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and (not globs or any(fnmatch(path.name, pattern) for pattern in globs))
        and not is_vector_file(path)
        and is_image_file(path)
    ]


def _check_reach(source: SceneSet, file: LayerFile) -> None:
    """Headers are read up to the first image that has footprints."""
    layer = file.load()
    if not len(layer):
        return
    bounds = []
    for entry in source.entries:
        scene = source.open_scene(entry)
        assert scene.image.grid.crs is not None
        if len(layer.label(scene.image.grid)):
            return
        found = outline_bounds(scene.image.grid, LONLAT)
        bounds += [] if found is None else [found]
    raise out_of_reach(file.path, layer, bounds, "images")


def out_of_reach(
    path: Path,
    layer: ShapeLayer,
    bounds: Sequence[tuple[float, float, float, float]],
    what: str,
    remedy: str = "",
) -> GeoreferenceError:
    """What is told where footprints touch none of the images.

    Args:
        bounds: of the images in degrees: west, south, east, north.
        what: the images are called.
    """
    corners = np.array(bounds).reshape(-1, 4)
    west, south = corners[:, :2].min(axis=0, initial=180)
    east, north = corners[:, 2:].max(axis=0, initial=-180)
    return GeoreferenceError(
        f"The footprints of {path} touch none of the {what}. They lie at "
        f"{degrees_text(layer.bounds_xy, layer.crs)}; the {what} at "
        f"{degrees_text((west, south, east, north), LONLAT)}.",
        remedy=remedy
        or f"Correct the coordinate system of one of them ({path.name} says "
        f"{layer.crs.name}), or choose the images that belong to it.",
    )


def _write(
    source: SceneSet, out: Path, options: WriteOptions, progress: Progress | None
) -> Written:
    """One vector file; images stay where they are, or are copied to `OUT_images/` beside it."""
    check_vector_path(out)
    systems = list(dict.fromkeys(scene_crs(scene) for scene in source))
    geojson = out.suffix.lower() == ".geojson"
    crs = systems[0] if len(systems) == 1 and not geojson else LONLAT
    notes = []
    if len(systems) > 1:
        listed = ", ".join(system.name for system in systems)
        notes.append(f"The scenes lie in {len(systems)} systems ({listed}); {out} is in EPSG:4326.")
    folder, why_copy = _where_images_stay(source, options)
    copies = _copies_folder(out)
    if folder is None:
        _check_copies(copies, source)
        notes += why_copy
    outlines = Outlines(source.classes, crs)
    for number, (entry, scene) in enumerate(zip(source.entries, source)):
        outlines.add(scene, scene_id=entry.id)
        if folder is None:
            write_image(scene.image, entry.image, copies, entry.id)
        if progress is not None:
            progress(number + 1, len(source))
    geometry, columns = outlines.layer()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise export_error(out, error) from error
    write_polygons(out, geometry, columns, crs, digits=DIGITS)
    if folder is None:
        notes.append(f"The images are in {copies}, where they are found with {out}.")
    else:
        notes.append(f"The images stay where they are; read it again with --images {folder}.")
    return Written(out, len(source), tuple(notes))


def _copies_folder(vector: Path) -> Path:
    return vector.with_name(f"{vector.stem}_images")


def _where_images_stay(
    source: SceneSet, options: WriteOptions
) -> tuple[Path | None, tuple[str, ...]]:
    """What to give as `images` to find just these scenes by their ids; or why there is no such."""
    if options.images == "copy":
        return None, ()
    files = [entry.image for entry in source.entries]
    if any(file is None or open_image(file).grid.crs is None for file in files):
        return None, ("The images are copied, as their files do not say where they lie.",)
    images = [file for file in files if file is not None]
    if len(images) == 1 and images[0].stem == source.entries[0].id:
        return images[0], ()
    folders = {_folder_of(file, entry.id) for file, entry in zip(images, source.entries)}
    folder = folders.pop()
    if folder is None or folders:
        return None, ("The images are copied, as no one folder holds them under their ids.",)
    others = len(images_under(folder)) - len(source)
    if others:
        told = f"{folder} holds {others} images more, which would be scenes without buildings"
        return None, (f"The images are copied, as {told}.",)
    return folder, ()


def _folder_of(image: Path, scene_id: str) -> Path | None:
    """The folder from which the way to an image is its id."""
    steps = scene_id.split("/")
    if list(image.with_suffix("").parts[-len(steps) :]) != steps:
        return None
    return image.parents[len(steps) - 1]


def _check_copies(folder: Path, source: SceneSet) -> None:
    """What lies there already would be read as scenes of this set."""
    if not folder.is_dir():
        return
    ids = set(source.ids)
    for path in images_under(folder):
        if path.relative_to(folder).with_suffix("").as_posix() not in ids:
            raise ExportError(
                f"{folder} holds {path.name}, which is not one of the {len(source)} images that "
                "are to be copied there.",
                remedy="Choose another name with -o, or remove that folder.",
            )


def _recognises(path: Path) -> bool:
    if path.is_file():
        return is_vector_file(path)
    if len(vector_files(path)) != 1:
        return False
    within = path / "images"
    first = next(
        iter(images_beside(path) or (images_under(within) if within.is_dir() else [])), None
    )
    return first is not None and _placed(first)


def _placed(image: Path) -> bool:
    try:
        grid: GeoGrid = open_raster(image).grid
    except DataError:
        # What is wrong with it is told when it is read.
        return True
    return grid.crs is not None


FOOTPRINTS = SourceKind(
    "footprints",
    "georeferenced images and the polygons of a vector file",
    _recognises,
    _read,
    _write,
    frozenset({"images", "field"}),
)
