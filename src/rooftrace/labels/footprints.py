"""Read the footprints of a vector file over georeferenced scenes, and write labels as footprints.

Tiles with footprints (`labels.slippy_tiles`) share the set and the layer of this module.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import DataError, ExportError, GeoreferenceError, LayoutError
from rooftrace.core.text import list_first, plural
from rooftrace.core.types import (
    GeoGrid,
    LabelReader,
    Polygons,
    Progress,
    RasterSource,
    Scene,
)
from rooftrace.io.companions import (
    companions,
    holds_results,
    images_in,
    images_under,
    is_result,
    no_image,
    predicted_images,
)
from rooftrace.io.elevation import holds_heights, is_elevation
from rooftrace.io.files import check_outputs, exporting
from rooftrace.io.gdal import trace_values
from rooftrace.io.make_valid import polygon_parts
from rooftrace.io.raster import open_image, open_raster
from rooftrace.io.reproject import (
    BEND_PX,
    crs_text,
    crs_units,
    degrees_text,
    missing_grid,
    outline_bounds,
    reprojected,
    split_at_180,
)
from rooftrace.io.vector_formats import is_vector_file
from rooftrace.io.vector_write import (
    DEGREES_SUFFIXES,
    READABLE_SUFFIXES,
    check_vector_path,
    vector_suffix,
    write_polygons,
)
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.derived import label_instances, label_outlines
from rooftrace.labels.image_files import SceneOpener, entries_below, images_folder, write_image
from rooftrace.labels.mask_values import IGNORED
from rooftrace.labels.shapes import (
    IGNORE_NAME,
    OWN_FIELDS,
    LayerFile,
    ShapesLabel,
    clip_outlines,
)
from rooftrace.labels.source import SceneEntry, SceneSet, SourceKind, WriteOptions, WriteResult


def _scene_crs(scene: Scene) -> CRS:
    """Return the coordinate system of a scene."""
    crs = scene.image.grid.crs
    if crs is None:
        raise GeoreferenceError(
            f"{scene.image.name} has no coordinate system, so its labels have no position on "
            "the ground.",
            remedy="Write the data as a kind without georeference, such as folder, rle or coco.",
        )
    return crs


def _on_ground(
    scene: Scene, classes: Sequence[str], crs: CRS
) -> tuple[Polygons, NDArray[np.object_]]:
    """Return the (n,) polygons of the label of a scene in a CRS, and the names of their classes.

    A label of shapes keeps its shapes, clipped at the edge of the image. For any other label,
    outlines follow the edges of its pixels, so that drawing them gives the same mask again.

    Raises:
        GeoreferenceError: The scene has no CRS, or it cannot be transformed.
    """
    own, grid = _scene_crs(scene), scene.image.grid
    pixels, indices = scene_outlines(scene)
    tolerance = BEND_PX * float(np.sqrt(abs(grid.transform.determinant)))
    if crs.is_geographic and not own.is_geographic:
        tolerance = crs_units(BEND_PX * (grid.gsd_m or 1.0), crs)
    placed = shapely.transform(pixels, lambda xy: np.stack(grid.to_world(*xy.T), axis=1))
    geometry = reprojected(placed, own, crs, tolerance)
    parts, owner = polygon_parts(split_at_180(geometry) if crs == LONLAT else geometry)
    names = [IGNORE_NAME if index == IGNORED else classes[index] for index in indices.tolist()]
    return parts, np.array(names, np.object_)[owner]


def scene_outlines(scene: Scene) -> tuple[Polygons, NDArray[np.int16]]:
    """Return the (n,) polygons of a label, in pixels, and class indices, IGNORED where unknown."""
    assert scene.label is not None
    return object_outlines(scene) or _traced(scene.label)


def object_outlines(scene: Scene) -> tuple[Polygons, NDArray[np.int16]] | None:
    """Return `scene_outlines` of a label that separates objects; None for a mask of classes."""
    label, grid = scene.label, scene.image.grid
    assert label is not None
    if isinstance(label, ShapesLabel):
        return label.read_outlines()
    if (outlines := label_outlines(label)) is not None:
        known = outlines[1] != IGNORED
        frame = shapely.box(0, 0, grid.width, grid.height)
        geometry, classes = clip_outlines(outlines[0][known], outlines[1][known], frame)
        unknown, values = _traced(label, only=IGNORED)
        return np.concatenate([geometry, unknown]), np.concatenate([classes, values])
    if (numbers := label_instances(label)) is None:
        return None
    mask = label.read()
    index = np.where(mask.valid, mask.data.astype(np.int16), np.int16(IGNORED))
    # The last place is that of IGNORED.
    class_of = np.full(int(numbers.max()) + 2, IGNORED, np.int16)
    class_of[numbers[index > 0]] = index[index > 0]
    objects = np.where(index > 0, numbers, index)
    traced, owner = trace_values(objects, index != 0)
    return traced, class_of[owner]


def _traced(label: LabelReader, only: int | None = None) -> tuple[Polygons, NDArray[np.int16]]:
    """Trace the regions of each class, or of one; see `scene_outlines`."""
    mask = label.read()
    values = np.where(mask.valid, mask.data.astype(np.int16), np.int16(IGNORED))
    traced, classes = trace_values(values, values != 0 if only is None else values == only)
    return traced, classes.astype(np.int16)


def _label_of(
    entry: SceneEntry, image: RasterSource, file: LayerFile, *, by_scene: bool
) -> ShapesLabel:
    return file.label(image.grid, image.name, entry.id if by_scene else None)


def georeferenced_set(
    kind: str,
    path: Path,
    entries: Sequence[SceneEntry],
    file: LayerFile,
    config: SourceConfig,
    labels: LabelConfig,
    *,
    notes: tuple[str, ...] = (),
) -> SceneSet:
    """Return the set of georeferenced images whose labels are drawn from a layer.

    Args:
        path: Folder or file that names the set, unless `config` does.
        entries: Entries whose key is the tile that the image shows, or None if the image file is
            georeferenced.
        config, labels: Options of the data and meaning of its labels.
    """
    layer = file.load()
    by_scene = file.own and not {*layer.scenes.tolist()}.isdisjoint(entry.id for entry in entries)
    if not len(layer):
        notes = (*notes, f"{file.path} has no footprints: every label is empty.")
    return SceneSet.of(
        kind,
        path,
        config,
        labels,
        entries,
        SceneOpener(
            config, partial(_label_of, file=file, by_scene=by_scene), tile_of=attrgetter("key")
        ),
        reading=f"{plural(len(layer), 'footprint')} of {file.path.name} in {crs_text(layer.crs)}",
        notes=(*notes, *layer.notes),
        label_file=file.path,
    )


def vector_files(folder: Path) -> list[Path]:
    """Return the vector files in a folder, sorted, without hidden ones and parts of buildings."""
    if not folder.is_dir():
        return []
    files = sorted(folder.iterdir())
    found = [path for path in files if path.name[0] != "." and is_vector_file(path)]
    # `rooftrace heights` writes its buildings as a city model, too, and their roof planes.
    parts = {f"{path.stem}.city.json" for path in found}
    parts |= {f"{path.stem.removesuffix('_heights')}_roof_planes.gpkg" for path in found}
    return [path for path in found if path.name not in parts]


def one_vector_file(found: Sequence[Path], missing: str) -> Path:
    """Return the only one of the vector files that were found for images.

    Args:
        found: Vector files of one folder.
        missing: Message of the error if there is none.
    """
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(path.name for path in found)
        raise LayoutError(
            f"{found[0].parent} contains {len(found)} vector files ({listed}); one was expected.",
            remedy="Give the right file as DATA, and its images with --images.",
        )
    raise LayoutError(
        missing,
        remedy="Put the footprints there as GeoPackage or GeoJSON; or give their file as DATA and "
        "the images with --images.",
    )


LONLAT = CRS.from_epsg(4326)


def _read(path: Path, config: SourceConfig, labels: LabelConfig) -> SceneSet:
    """Read a vector file with its images, or a folder that contains both."""
    vector = path
    if not is_vector_file(path) and path.is_dir():
        vector = one_vector_file(
            _without_results(path, vector_files(path)), f"There is no vector file in {path}."
        )
    given = None if config.images is None else Path(config.images)
    files, top = _images_of(vector, given, config.globs)
    file = LayerFile.of(vector, labels, config.field, config.layer)
    files, notes = _without_others(files)
    source = georeferenced_set(
        FOOTPRINTS.name, path, entries_below(top, files), file, config, labels, notes=notes
    )
    notes = (*source.notes, *check_reach(file, (scene.image.grid for scene in source)))
    if len(source) > 1:
        listed = list_first(source.ids)
        note = f"{vector.name} labels {len(source):,} images, as empty where it has no footprint: "
        notes += (f"{note}{listed}.",)
    return replace(source, notes=notes)


def _without_others(files: list[Path]) -> tuple[list[Path], tuple[str, ...]]:
    """Return images without the pictures and the heights among them, and notes on those."""
    notes: tuple[str, ...] = ()
    kinds = {path: _other_kind(path) for path in files}
    for kind in (_PICTURE, _MAYBE_HEIGHTS):
        others = [path for path in files if kinds[path] == kind]
        if 0 < len(others) < len(files):
            names = list_first(sorted(one.name for one in others))
            notes += (f"Left out: {plural(len(others), 'image')} {kind}: {names}.",)
            files = [path for path in files if kinds[path] != kind]
    return files, notes


_PICTURE = "without georeference"
_MAYBE_HEIGHTS = "of one band of decimal or signed numbers, such as heights"


def _other_kind(path: Path) -> str:
    """Return what a file shows that is no imagery of the ground; "" for imagery."""
    if path.suffix.lower() in (".jpg", ".jpeg", ".png") and not companions(path):
        return _PICTURE if open_image(path).grid.crs is None else ""
    return _MAYBE_HEIGHTS if holds_heights(path) and open_image(path).dtype.kind in "fi" else ""


def _images_of(vector: Path, given: Path | None, globs: tuple[str, ...]) -> tuple[list[Path], Path]:
    """Return the images of a vector file, and the folder to which their ids are relative."""
    if given is not None and given.is_file():
        return [given], given.parent
    own = images_folder(vector)
    if given is not None or own.is_dir():
        folders = [own if given is None else given]
    else:
        folders = [vector.parent / "images", vector.parent]
    found = {
        folder: _images_beside(folder, globs) if folder == vector.parent and given is None
        else images_under(folder, globs)
        for folder in folders if folder.is_dir()
    }  # fmt: skip
    filled = [folder for folder, files in found.items() if files]
    if len(filled) == 1:
        return found[filled[0]], filled[0]
    if filled:
        raise LayoutError(
            f"There are images beside {vector} ({found[filled[1]][0].name}) and in {filled[0]}.",
            remedy="Choose one of the folders with --images.",
        )
    if not globs and (image := predicted_images(vector.parent).get(vector.name)):
        return [image], image.parent
    raise no_image(" or ".join(map(str, folders)), globs, vector)


def _images_beside(folder: Path, globs: tuple[str, ...] = ()) -> list[Path]:
    """Return the images directly in a folder, sorted, as labels drawn over them are read.

    Hidden files, results of a prediction into the same folder and surface models are left out.
    """
    return [
        path
        for path in _without_results(folder, images_in(folder, globs))
        if not (path.name.startswith(".") or is_vector_file(path) or is_elevation(path))
    ]


def _without_results(folder: Path, files: Sequence[Path]) -> Sequence[Path]:
    """Return the files in a folder that no prediction has written there."""
    return [one for one in files if not is_result(one)] if holds_results(folder) else files


def check_reach(file: LayerFile, grids: Iterable[GeoGrid]) -> tuple[str, ...]:
    """Raise GeoreferenceError if no image has footprints; `grids` are read until one has.

    A note says if the footprints are moved less accurately than they could be.
    """
    layer = file.load()
    if not len(layer):
        return ()
    found = []
    for grid in grids:
        assert grid.crs is not None
        if len(layer.label(grid)):
            return missing_grid(layer.crs, grid.crs, layer.bounds_xy)
        found.append(outline_bounds(grid, LONLAT) or (180, 90, -180, -90))
    corners = np.array(found)
    ground = (*corners[:, :2].min(axis=0), *corners[:, 2:].max(axis=0))
    raise GeoreferenceError(
        f"The footprints of {file.path} touch none of the images. They lie at "
        f"{degrees_text(layer.bounds_xy, layer.crs)}; the images at "
        f"{degrees_text(ground, LONLAT)}.",
        remedy=f"Correct the coordinate system of one of them ({file.path.name} says "
        f"{crs_text(layer.crs)}), or choose the images that belong to it.",
    )


def _write(
    source: SceneSet, out: Path, options: WriteOptions, progress: Progress | None
) -> WriteResult:
    """Write one vector file; images stay in place, or are copied to `OUT_images/` beside it."""
    check_vector_path(out)
    check_outputs([out], [])
    systems = list(dict.fromkeys(_scene_crs(scene) for scene in source))
    in_degrees = vector_suffix(out) in DEGREES_SUFFIXES
    crs = systems[0] if len(systems) == 1 and not in_degrees else LONLAT
    notes = []
    if len(systems) > 1:
        listed = ", ".join(system.name for system in systems)
        notes.append(f"The scenes have {len(systems)} systems ({listed}); {out} is in EPSG:4326.")
    folder, why_copy = _images_in_place(source, options)
    is_data = vector_suffix(out) in READABLE_SUFFIXES
    copies = images_folder(out) if folder is None and is_data else None
    if copies is not None:
        _check_copies(copies, source)
        notes += why_copy
    geometry, names, scenes = ([np.empty(0, np.object_)] for _ in OWN_FIELDS)
    for entry, scene in source.opened(progress):
        polygons, kinds = _on_ground(scene, source.classes, crs)
        geometry.append(polygons)
        names.append(kinds)
        scenes.append(np.full(len(polygons), entry.id, np.object_))
        if copies is not None:
            write_image(scene.image, entry.image, copies, entry.id)
    layer, *columns = map(np.concatenate, (geometry, names, scenes))
    numbers = np.arange(1, len(layer) + 1, dtype=np.int64)
    with exporting(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_polygons(out, layer, dict(zip(OWN_FIELDS, (numbers, *columns))), crs)
    if not is_data:
        notes.append(f"{out} is for maps: no command reads it as labels, so no image was copied.")
    elif copies is not None:
        notes.append(f"The images are in {copies}, where reading {out} finds them.")
    else:
        notes.append(f"The images stay where they are; read it again with --images {folder}.")
    return WriteResult(out, len(source), tuple(notes), has_gsd=not is_data)


def _images_in_place(
    source: SceneSet, options: WriteOptions
) -> tuple[Path | None, tuple[str, ...]]:
    """Return the `images` option that finds exactly these scenes, or the reason to copy them."""
    if options.images == "copy":
        return None, ()
    files = [entry.image for entry in source.entries]
    if any(file is None or open_image(file).grid.crs is None for file in files):
        return None, ("The images are copied, since their files are not georeferenced.",)
    images = [file for file in files if file is not None]
    if len(images) == 1 and images[0].stem == source.entries[0].id:
        return images[0], ()
    folders = {_folder_of(file, entry.id) for file, entry in zip(images, source.entries)}
    folder = folders.pop()
    if folder is None or folders:
        return None, ("The images are copied, since no single folder has them under their ids.",)
    others = len(images_under(folder)) - len(source)
    if others:
        reason = f"{folder} has {others} more images, which would be scenes without buildings"
        return None, (f"The images are copied, since {reason}.",)
    return folder, ()


def _folder_of(image: Path, scene_id: str) -> Path | None:
    """Return the folder below which the path of an image is its id; None if there is none."""
    steps = scene_id.split("/")
    if list(image.with_suffix("").parts[-len(steps) :]) != steps:
        return None
    return image.parents[len(steps) - 1]


def _check_copies(folder: Path, source: SceneSet) -> None:
    """Refuse a folder with other images, which would be read as scenes of this set."""
    if not folder.is_dir():
        return
    ids = set(source.ids)
    for path in images_under(folder):
        if path.relative_to(folder).with_suffix("").as_posix() not in ids:
            raise ExportError(
                f"{folder} contains {path.name}, which is not one of the {len(source)} images to "
                "be copied there.",
                remedy="Choose another name with -o, or remove that folder.",
            )


def _recognises(path: Path) -> bool:
    if path.is_file() or is_vector_file(path):
        return is_vector_file(path)
    if len(_without_results(path, vector_files(path))) != 1:
        return False
    within = path / "images"
    images = _images_beside(path) or (images_under(within) if within.is_dir() else [])
    return any(map(_is_georeferenced, images))


def _is_georeferenced(image: Path) -> bool:
    try:
        grid: GeoGrid = open_raster(image).grid
    except DataError:
        # Reading the image later raises the error.
        return True
    return grid.crs is not None


FOOTPRINTS = SourceKind(
    "footprints",
    "georeferenced images and the polygons of a vector file",
    _recognises,
    _read,
    _write,
    frozenset({"images", "field", "layer"}),
)
