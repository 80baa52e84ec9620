"""Implement `rooftrace convert`: write labelled data of any kind as another kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely

from rooftrace.core.config import expand_path
from rooftrace.core.errors import ConfigError, DataError, ExportError
from rooftrace.core.report import Report
from rooftrace.core.text import list_first, plural
from rooftrace.core.types import Progress, Scene
from rooftrace.io.files import prepare_folder
from rooftrace.io.geojson import GEOJSON
from rooftrace.io.reproject import BEND_M, CRS84, crs_text, crs_units, reprojected, split_at_180
from rooftrace.io.vector_formats import KML_PREFIX, is_vector_file
from rooftrace.io.vector_read import ReadCounts, VectorFile, VectorLayer, join_columns
from rooftrace.io.vector_write import (
    DEGREES_SUFFIXES,
    WRITABLE,
    WRITERS,
    check_vector_path,
    vector_suffix,
    write_polygons,
)
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.derived import check_background
from rooftrace.labels.folders import CARD, FOLDER
from rooftrace.labels.footprints import FOOTPRINTS
from rooftrace.labels.image_files import image_name
from rooftrace.labels.kinds import KINDS, check_write_options, open_source, polygons_of_results
from rooftrace.labels.source import SceneEntry, SceneSet, WriteOptions
from rooftrace.labels.split import match_reference

_KINDS = {".csv": "rle", ".json": "coco"}
"""Kinds of labelled data by the suffix of the output; others are footprints or folders."""


@dataclass(frozen=True)
class ConvertReport(Report):
    """Result of a conversion.

    Args:
        written: File or folder that `rooftrace` accepts as DATA again.
        read_as: Kind as which the data was read, and how.
        scenes: Number of scenes written; 0 for polygons without images.
        left_out: Ids of the images without a label.
        notes: Assumptions, and facts that the kind cannot hold.
    """

    written: Path
    kind: str
    read_as: str
    scenes: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def run_convert(
    data: SourceConfig,
    to: str | None,
    out: Path,
    options: WriteOptions | None = None,
    *,
    split: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ConvertReport:
    """Write the labelled scenes of `data` as the kind `to`.

    All polygons of a vector file are written in another vector format, with their attributes,
    unless an option makes them labels of images, or `to` another kind.

    Args:
        to: Name of a kind in `labels.kinds.KINDS`; None for polygons by the suffix of `out`, and
            of labelled data for rle (.csv), coco (.json), footprints or a folder (no suffix).
        out: File or folder to write, depending on the kind.
        split: `FILE:PART`; only the scenes of that part are written.
        overwrite: Whether `out` may already contain files. Files of the same name are replaced;
            others stay, and a note lists them.

    Raises:
        ConfigError: The kind is unknown, does not have a given option, or `out` is not empty.
        DataError: No scene is left to write, or a scene cannot be read. The message names it.
        ExportError: A file cannot be written, or no kind has the suffix of `out`.
    """
    options = options or WriteOptions()
    path = expand_path(data.path, Path(), key="path")
    # Any other option is one for labels of images, of which there may be some beside the file.
    is_plain = split is None and options == WriteOptions() and data.kind in (None, FOOTPRINTS.name)
    is_plain &= data.model_fields_set <= {"path", "kind", "layer"}
    is_plain &= to in (None, FOOTPRINTS.name)
    to = to or _kind_by_suffix(out)
    layers = {path.stem: path} if is_vector_file(path) else polygons_of_results(path)
    if is_plain := is_plain and to != FOLDER.name and bool(layers):
        to = FOOTPRINTS.name
    kind = KINDS[to]
    check_write_options(kind, options)
    assert kind.write is not None
    before = _contents(out)
    if before and not overwrite:
        raise ConfigError(
            f"{out} exists and is not empty.",
            remedy="Choose another place with -o, or overwrite it with --overwrite.",
        )
    if is_plain:
        return _write_polygons(path, layers, data.layer, out)
    source = open_source(data)
    left_out = tuple(entry.id for entry in source.unlabelled)
    notes = list(source.notes)
    if split is not None:
        parts, part = match_reference(split, source.all_ids, data.path)
        source = source.subset(parts.ids(part))
        options = replace(options, part=part)
        notes += parts.notes(part)
    if not len(source):
        raise DataError(
            f"{data.path} has no labelled scene to write"
            + (f" that is in {split}" if split is not None else "")
            + f"; it was read as {source.kind}"
            + (f", with {plural(len(left_out), 'image')} without a label." if left_out else "."),
            remedy="Give data with labels, or make the split from this data.",
        )
    _check_names(source)
    _refuse_overlap(out, path, source)
    tracked = _TrackedOpener(source.open_scene)
    source = replace(source, open_scene=tracked)
    try:
        check_background(source)
        written = kind.write(source, out, options, progress)
    except DataError as error:
        raise error.named(tracked.current) from error
    notes += written.notes
    if (gsds_m := sorted(tracked.gsds_m)) and not written.has_gsd:
        each = ", for the images of each value by themselves" if gsds_m[1:] else ""
        listed = ", ".join(f"{gsd_m:g}" for gsd_m in gsds_m)
        notes.append(f"Metres per pixel ({listed}) must be given again: --gsd{each}.")
    if left_out:
        count = plural(len(left_out), "image")
        notes.append(f"{count} without a label left out: {list_first(left_out)}.")
    stale = sorted(path for path, stamp in before.items() if _stamp(path) == stamp)
    if stale:
        notes.append(
            f"{out} still contains {plural(len(stale), 'file')} from before: "
            f"{list_first([path.relative_to(out).as_posix() for path in stale])}."
        )
    if (needed := _class_settings(source)) and not (written.path / CARD).is_file():
        notes.append(f"{written.path} does not define the classes; read it with {needed}.")
    read_as = f"{source.kind}: {source.reading}" if source.reading else source.kind
    return ConvertReport(written.path, to, read_as, written.scenes, left_out, tuple(notes))


def _kind_by_suffix(out: Path) -> str:
    """Return the kind of data by the suffix of the output."""
    suffix = vector_suffix(out)
    # A number at the end of a name is part of it: town_0.3.
    if not suffix.strip(".0123456789") or (out.is_dir() and suffix not in WRITERS):
        return FOLDER.name
    if suffix not in _KINDS and suffix not in WRITERS:
        raise ExportError(
            f"{out}: the suffix {out.suffix!r} is not a format that can be written.",
            remedy=f"{WRITABLE} For a folder, add --to folder.",
        )
    return _KINDS.get(suffix, FOOTPRINTS.name)


class _TrackedOpener:
    """Opens scenes, and records the current one and the metres per pixel that were given."""

    def __init__(self, open_scene: Callable[[SceneEntry], Scene]) -> None:
        self._open_scene = open_scene
        self.current = ""
        self.gsds_m: set[float] = set()

    def __call__(self, entry: SceneEntry) -> Scene:
        self.current = entry.id
        scene = self._open_scene(entry)
        if scene.stated_gsd_m is not None:
            self.gsds_m.add(scene.stated_gsd_m)
        return scene


def _write_polygons(
    data: Path, paths: Mapping[str, Path], layer_name: str | None, out: Path
) -> ConvertReport:
    """Write the polygons of vector files, with their attributes, in another format.

    Of several files, each polygon has the name of its own as `scene`.
    """
    check_vector_path(out)
    prepare_folder(out.parent, [out], list(paths.values()))
    notes: tuple[str, ...] = ()
    layers: dict[str, VectorLayer] = {}
    for name, path in paths.items():
        file = VectorFile(path, layer_name)
        unwanted = ("geometry", "bbox")
        wanted = [
            field for field in file.fields
            if field not in unwanted and not field.startswith(KML_PREFIX)
        ]  # fmt: skip
        layers[name] = file.read(wanted, typed=True)
        notes += file.copy_notes() + file.notes(layers[name].counts)
    if len(layers) > 1:
        layer, more = _joined(layers)
        notes += more
    else:
        (layer,), (data,) = layers.values(), paths.values()
    notes += write_polygons(out, layer.geometry, layer.values, layer.crs)
    numbers = {name: v for name, v in layer.values.items() if v.dtype.kind == "f"}
    infinite = [name for name, values in numbers.items() if np.isinf(values).any()]
    if infinite and vector_suffix(out) in GEOJSON:
        notes += (f"Left out: infinite values of {list_first(infinite)}, which JSON cannot hold.",)
    read_as = f"read {plural(len(layer), 'polygon')} of {data} in {crs_text(layer.crs)}"
    if vector_suffix(out) in DEGREES_SUFFIXES and not layer.crs.equals(CRS84, True):
        read_as += f", written in {CRS84.name}"
    return ConvertReport(out, FOOTPRINTS.name, read_as, 0, (), notes)


def _joined(layers: Mapping[str, VectorLayer]) -> tuple[VectorLayer, tuple[str, ...]]:
    """Return several layers as one, in degrees unless all have one CRS, and a note on overlaps."""
    parts = list(layers.values())
    crs = parts[0].crs
    if not all(one.crs.equals(crs, True) for one in parts):
        crs = CRS84
    geometry = np.concatenate([
        one.geometry if crs is not CRS84
        else split_at_180(reprojected(one.geometry, one.crs, crs, crs_units(BEND_M, crs)))
        for one in parts
    ])  # fmt: skip
    scene = np.repeat(np.array([*layers], np.object_), [len(one) for one in parts])
    kinds = {name: values.dtype for one in parts for name, values in one.values.items()}
    # An image whose date is not known has no column of dates.
    values = {
        name: join_columns([
            one.values[name] if name in one.values
            else np.full(len(one), None) if kind.hasobject
            else np.ma.MaskedArray(np.zeros(len(one), kind), True)
            for one in parts
        ])
        for name, kind in kinds.items()
    }  # fmt: skip
    values |= {"scene": scene} | ({"id": np.arange(1, len(scene) + 1)} if "id" in values else {})
    one, other = shapely.STRtree(geometry).query(geometry, "intersects")
    doubled = len(np.unique(one[scene[one] != scene[other]]))
    layer = VectorLayer(geometry, crs, values, ReadCounts())
    if not doubled:
        return layer, ()
    note = (
        f"{plural(doubled, 'building')} at the edges of images touch or overlap those of another, "
        "and may be there twice: rooftrace catalogue IMAGES -o OUT writes each once."
    )
    return layer, (note,)


def _contents(out: Path) -> dict[Path, tuple[int, ...]]:
    """Return the existing files, each with a stamp that changes if it is written again."""
    if out.is_dir():
        return {path: _stamp(path) for path in out.rglob("*") if not path.is_dir()}
    return {out: _stamp(out)} if out.exists() and out.stat().st_size else {}


def _stamp(path: Path) -> tuple[int, ...]:
    status = path.lstat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _check_names(source: SceneSet) -> None:
    by_name: dict[str, str] = {}
    for scene_id in source.ids:
        other = by_name.setdefault(image_name(scene_id), scene_id)
        if other != scene_id:
            raise DataError(
                f"The scenes {other} and {scene_id} would both be written as "
                f"{image_name(scene_id)}.",
                remedy="Rename one of them, or convert them separately.",
            )


def _refuse_overlap(out: Path, data: Path, source: SceneSet) -> None:
    """Refuse an output that would overwrite what is read."""
    top = out.resolve()
    images = (e.image for e in (*source.entries, *source.unlabelled) if e.image is not None)
    for path in (data, *images):
        real = path.resolve()
        if real == top or top in real.parents:
            raise ConfigError(
                f"{out} is, or contains, data that is read: {path}.",
                remedy="Choose another place with -o.",
            )


def _class_settings(source: SceneSet) -> str:
    """Return the settings that define the classes; empty for the default two classes."""
    usual = LabelConfig()
    building = source.classes[source.building_class]
    if (source.classes, building) == (usual.classes, usual.building):
        return ""
    names = ", ".join(f'"{name}"' for name in source.classes)
    return f'labels.classes = [{names}] and labels.building = "{building}"'
