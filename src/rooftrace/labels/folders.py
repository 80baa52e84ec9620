"""Read and write folders of image/mask pairs, and read folders of images without labels.

Which file of a folder is the image and which its mask is detected and never guessed. A reading is
one way to pair the files of a folder. Every known reading is tried, and the folder is accepted only
if exactly one of them fits.

What the values or colours of masks mean is read from the files that label tools put beside them.
"""

import csv
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rooftrace.core.errors import ConfigError, DataError, LabelError, LayoutError
from rooftrace.core.text import plural, reason_of, set_option
from rooftrace.core.types import GeoGrid, LabelReader, Progress, RasterSource, Window
from rooftrace.io.companions import (
    POLYGON_STEMS,
    has_images_under,
    holds_results,
    images_in,
    images_under,
    is_image_file,
    is_result,
    matches_glob,
    no_image,
    predicted_images,
    predicted_labels,
)
from rooftrace.io.files import check_exists, write_atomically
from rooftrace.io.gdal import ARCHIVES
from rooftrace.io.legend import NODATA
from rooftrace.io.masks import mask_sink
from rooftrace.io.vector_formats import VECTOR_SUFFIXES, check_city_model
from rooftrace.io.vector_read import NoPolygonsError
from rooftrace.io.web_mercator import TileName
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.footprints import vector_files
from rooftrace.labels.image_files import SceneOpener, entries_below, image_name, write_image
from rooftrace.labels.layouts import Layout
from rooftrace.labels.mask_source import LabelFile, colours_in, count_smoothed
from rooftrace.labels.mask_values import IGNORED, NameRule
from rooftrace.labels.pairing import (
    NO_SHAPES,
    REMEDY_PATTERN,
    SHAPE_SUFFIXES,
    Folders,
    PairedFolder,
    find_readings,
    has_reading,
    no_mask,
    pairs_by_pattern,
)
from rooftrace.labels.shape_files import (
    drawn_label,
    iter_names,
    lines_note,
    read_shapes,
    write_yolo,
)
from rooftrace.labels.shapes import LayerFile, ShapesLabel, traced
from rooftrace.labels.source import SceneEntry, SceneSet, SourceKind, WriteOptions, WriteResult
from rooftrace.labels.split import written_places

T = TypeVar("T")

_LOOKED_AT = 16
"""Maximum number of masks whose values an error about one of them lists."""


def pair_images_and_masks(
    root: Path, *, layout: str | None = None, glob: Sequence[str] = ()
) -> PairedFolder:
    """Pair the images and label files under `root`.

    Args:
        layout: `IMAGE_PATTERN=LABEL_PATTERN` with `{id}` in both, relative to `root`; by default
            the layout of `labels.layouts.LAYOUTS` that fits.
        glob: Patterns for image file names; only images that match one are used.

    Raises:
        DataError: There is no folder, no reading or several readings fit, an image has no mask, a
            mask has no image, or two files have one id. The message names the files.
    """
    if not root.is_dir():
        if root.is_file():
            check_city_model(root)
        check_exists(root)
        raise LayoutError(
            f"{root} is a file of an unknown kind; a folder was expected.",
            remedy="Unpack it, and give the folder."
            if root.suffix.lower() in ARCHIVES
            else "Give the folder of images and masks, a table with outlines (WKT), or --kind.",
        )
    if layout is not None:
        return pairs_by_pattern(root, layout, glob)
    readings = find_readings(root, glob)
    if len(readings) > 1:
        first, base = readings[0].layout, readings[0].base.relative_to(root).as_posix()
        is_part = "/" not in base and "{part}" not in first.image
        top = "" if base == "." else "{part}/" if is_part else f"{base}/"
        named = re.sub(r"\{(file|sheet)\}", "{id}", f"{top}{first.image}={top}{first.label}")
        raise LayoutError(
            f"{root} can be read in {len(readings)} ways: "
            + "; or ".join(f"{r.layout.reading} ({len(r.pairs)} pairs)" for r in readings)
            + ".",
            remedy=f'Choose one: --layout "{named}"',
        )
    if not readings:
        inside = sorted(p.name for p in root.iterdir())[:8]
        images = images_in(root)
        among = f", including {plural(len(images), 'image')}" if images else ""
        raise LayoutError(
            f"{root} has no image/mask pairs in a known layout"
            f"{' that match ' + repr(list(glob)) if glob else ''}; "
            f"it contains {inside or 'nothing'}{among}. The simplest layout is "
            "images/NAME.ext + masks/NAME.ext; docs/formats.md lists all.",
            remedy=REMEDY_PATTERN,
        )
    return readings[0]


def pairs_by_name(images: Path, labels: Path, glob: Sequence[str]) -> PairedFolder:
    """Pair images with the label files of another folder that have their names.

    Raises:
        DataError: No image matches, one label file has several images, or an image has none.
    """
    files, top = ([images], images.parent) if images.is_file() else (None, images)
    entries = entries_below(top, files or images_under(images, glob))
    if not entries:
        raise no_image(images, glob)
    if labels.is_file():
        if len(entries) > 1:
            raise LayoutError(
                f"{labels} is one label file, but {images} has {len(entries)} images.",
                remedy="Give the image of the file, or the folder with a label file of the same "
                "name for each image.",
            )
        pair = replace(entries[0], key=labels)
        return PairedFolder(Layout(images.name, labels.name), (pair,), base=labels.parent)
    folders, pairs = Folders(labels, ()), []
    for entry in entries:
        assert entry.image is not None
        folder = labels / Path(entry.id).parent
        label = folders.labels(folder).get(entry.image.stem)
        if label is None:
            raise no_mask(
                entry.image,
                folder / f"{entry.image.stem}.*",
                "Add it, or leave the image out with --glob. If the names differ, give the folder "
                "of both, and --layout.",
            )
        pairs.append(replace(entry, key=label))
    layout = Layout(f"{images.name}/{{id}}.*", f"{labels.name}/{{id}}.*")
    return PairedFolder(layout, tuple(pairs), base=labels, notes=_of_two_dates(images, pairs))


_DATES = {"a": "b", "image1": "image2", "im1": "im2", "t1": "t2", "time1": "time2"}
"""Names of the folders of two dates in data sets of change."""

CHANGE_MASKS = (
    "Masks of two dates, as in LEVIR-CD, WHU-CD and S2Looking, mark what changed, not all buildings"
)


def _of_two_dates(images: Path, pairs: Sequence[SceneEntry]) -> tuple[str, ...]:
    """Return a note if images of another date have the names of these in the folder beside."""
    name = images.resolve().name.casefold()
    other = _DATES.get(name, {late: early for early, late in _DATES.items()}.get(name))
    image = pairs[0].image
    beside = [one for one in images.resolve().parent.iterdir() if one.name.casefold() == other]
    if image is None or not any((one / image.name).is_file() for one in beside):
        return ()
    return (f"{images} has images of another date beside it, in {beside[0].name}. {CHANGE_MASKS}.",)


def holds_only_results(path: Path) -> bool:
    """Return whether a path is a folder that has only results of a prediction."""
    if not (path.is_dir() and holds_results(path)):
        return False
    layers = (one for one in vector_files(path) if not one.stem.endswith(POLYGON_STEMS))
    return all(map(is_result, (*images_under(path), *layers)))


def pairs_of_results(root: Path, images: str | None, glob: Sequence[str]) -> PairedFolder:
    """Pair the results of a prediction, as labels, with their images.

    Args:
        root: Folder of the prediction.
        images: Folder of images, or one image; default: the images that it was made from.
    """
    labels = predicted_labels(root)
    if images is None:
        recorded = predicted_images(root)
        found = [one for one in labels.values() if one.name in recorded]
        of = {recorded[label.name].absolute(): label for label in found}
        files = [image for image in of if matches_glob(image, glob)]
    else:
        files = images_under(Path(images), glob) if Path(images).is_dir() else [Path(images)]
        of = {image: labels[image.stem] for image in files if image.stem in labels}
    if of.keys().isdisjoint(files):
        raise LayoutError(
            f"{root} is the folder of a prediction, but has no mask and no GeoPackage of an image "
            f"{'that its run.json names' if images is None else f'in {images}'}.",
            remedy=f"Give the images that were predicted: IMAGES --truth {shlex.quote(str(root))}",
        )
    top = Path(os.path.commonpath([image.parent for image in files]))
    entries = entries_below(top, files)
    # In its masks this value is nodata, also where there is no other besides 0.
    ignore = {"ignore": (NODATA,)} if any(map(is_image_file, of.values())) else {}
    return PairedFolder(
        Layout("NAME.ext", "NAME_buildings.gpkg or NAME_mask.ext", "prediction", ignore),
        tuple(replace(one, key=of[one.image]) for one in entries if one.image in of),
        tuple(one for one in entries if one.image not in of),
        base=root,
    )


def find_pairs(root: Path) -> tuple[SceneEntry, ...]:
    """Return the pairs of image and label file under `root`; none if it is no folder of pairs."""
    try:
        return pair_images_and_masks(root).pairs
    except DataError:
        return ()


def select(ordered: Sequence[T], part: str | None) -> tuple[T, ...]:
    """Return the slice `part` of a sorted sequence, such as `"[:15]"`."""
    if part is None:
        return tuple(ordered)
    match = re.fullmatch(r"\[(-?\d+)?:(-?\d+)?\]", part.replace(" ", ""))
    if match is None:
        raise LayoutError(
            f"part = {part!r} is not a slice of the sorted names.",
            remedy='Write "[:15]", "[15:]" or "[10:20]".',
        )
    start, stop = (None if text is None else int(text) for text in match.groups())
    return tuple(ordered[start:stop])


CARD = "rooftrace.toml"
"""Name of the data card in a folder of data: the `SourceConfig` with which it is read."""


@dataclass(frozen=True)
class _PairLabels:
    """Opens the label of an entry whose key is its label file, `NO_SHAPES` or None.

    A folder, or a tuple of files, has masks of one building each.
    """

    labels: LabelConfig
    names: NameRule
    field: str | None = None
    looked_at: tuple[Path, ...] = ()
    is_smoothed: bool = False

    def __call__(self, entry: SceneEntry, image: RasterSource) -> LabelReader | None:
        path, grid = entry.key, image.grid
        if path is None:
            return None
        if path == NO_SHAPES:
            return ShapesLabel(np.empty(0, np.object_), [], grid)
        if isinstance(path, tuple) or path.is_dir():
            masks = path if isinstance(path, tuple) else images_in(path)
            return self._buildings(masks, grid, image.name)
        suffix = path.suffix.lower()
        if suffix in VECTOR_SUFFIXES:
            try:
                return LayerFile.of(path, self.labels, self.field).label(grid, image.name)
            except NoPolygonsError:
                # Of one image in many, this is how an image without buildings looks.
                return ShapesLabel(np.empty(0, np.object_), [], grid)
        if suffix in SHAPE_SUFFIXES:
            return drawn_label(read_shapes(path), self.names, grid, image.name)
        rule = self.labels.rule()
        return LabelFile(path, rule, grid, image.name, self.looked_at, self.is_smoothed)

    def _buildings(self, masks: Sequence[Path], grid: GeoGrid, name: str) -> ShapesLabel:
        """Return the label of an image from masks of one building each."""
        rule, index = self.labels.rule(), self.labels.building_class
        drawn = [traced(LabelFile(mask, rule, grid, name).read().data == index) for mask in masks]
        return ShapesLabel(np.array([*drawn, None], np.object_)[:-1], [index] * len(drawn), grid)


def _tile_of(entry: SceneEntry) -> TileName | None:
    """Return the tile after which an image is named."""
    return None if entry.image is None else TileName.parse(entry.image.absolute())


def _read_folder(root: Path, config: SourceConfig, labels: LabelConfig) -> SceneSet:
    """Read a folder of image/mask pairs, or the masks of images elsewhere."""
    if config.layout is None and holds_only_results(root):
        found = pairs_of_results(root, config.images, config.globs)
    elif config.images is not None and config.layout is None:
        found = pairs_by_name(Path(config.images), root, config.globs)
        root = found.base
    else:
        found = pair_images_and_masks(root, layout=config.layout, glob=config.globs)
    some = found.pairs[:: max(1, len(found.pairs) // _LOOKED_AT)][:_LOOKED_AT]
    looked_at = tuple(one.key for one in some if isinstance(one.key, Path) and one.key.is_file())
    masks, notes = _with_legend(labels, found.base, root, found.layout.labels, looked_at)
    vector = any(isinstance(pair.key, Path) and pair.key.suffix.lower() in VECTOR_SUFFIXES
                 for pair in found.pairs)  # fmt: skip
    if config.field is not None and not vector:
        raise ConfigError(
            f"The option field was given, but {root} is read as folder, which does not have it.",
            remedy="Leave it out; it is an attribute of vector files.",
        )
    shapes = [
        pair.key
        for pair in found.pairs
        if isinstance(pair.key, Path) and pair.key.suffix.lower() in SHAPE_SUFFIXES
    ]
    drawn = [read_shapes(path) for path in shapes]
    names, left_out = labels.name_rule().fitted(
        iter_names(drawn), str(root), declared={name for one in drawn for name in one.declared}
    )
    blurred: tuple[str, ...] = ()
    if masks.rule().is_255_ambiguous and (count := count_smoothed(looked_at)):
        what = f"{count} of {plural(len(looked_at), 'mask')} looked at"
        blurred = (f"{what} with smoothed edges: building above 127, ground below.",)
    return SceneSet.of(
        FOLDER.name,
        root,
        config,
        labels,
        found.pairs,
        SceneOpener(
            config,
            _PairLabels(masks, names, config.field, looked_at, bool(blurred)),
            tile_of=_tile_of if "{zoom}" in found.layout.image else None,
        ),
        reading=found.layout.reading,
        unlabelled=found.unlabelled,
        notes=(*notes, *left_out, *lines_note(drawn), *found.notes, *blurred),
    )


def _read_images(root: Path, config: SourceConfig, labels: LabelConfig) -> SceneSet:
    """Read all images under a folder, but no results of predictions, or one image."""
    files = [root] if root.is_file() else images_under(root, config.globs)
    if root.is_dir():
        results = {folder for folder in {path.parent for path in files} if holds_results(folder)}
        files = [path for path in files if path.parent not in results or not is_result(path)]
    if not files:
        raise no_image(root, config.globs)
    return SceneSet.of(
        IMAGES.name, root, config, labels, (), SceneOpener(config),
        reading="images without labels",
        unlabelled=entries_below(root.parent if root.is_file() else root, files),
    )  # fmt: skip


def _write_folder(
    source: SceneSet, out: Path, options: WriteOptions, progress: Progress | None
) -> WriteResult:
    """Write `images/` and `masks/` side by side and a card; masks contain class indices.

    Parts of the data have a folder each, in both.
    """
    places = written_places(source.ids)
    # Masks with more than 255 classes need the card to define NODATA as unknown.
    unknown = len(source.classes) > NODATA
    gsds_m: set[float | None] = set()
    for entry, scene in source.opened(progress):
        part, name = places[entry.id]
        name = image_name(name)
        write_image(scene.image, entry.image, out / "images" / part, name)
        assert scene.label is not None
        mask = scene.label.read()
        data = mask.data
        if not mask.valid.all():
            unknown = True
            data = np.where(mask.valid, data, np.uint8(NODATA))
        if (mask.data[mask.valid] == NODATA).any():
            raise LabelError(
                f"{entry.id} uses the class index {NODATA}, which means unknown in a mask file.",
                remedy="Merge two classes, so that there are at most 255.",
            )
        grid = scene.image.grid
        gsds_m.add(scene.stated_gsd_m)
        path = out / "masks" / part / (name + (".png" if grid.crs is None else ".tif"))
        with mask_sink(path, grid) as sink:
            sink.write(Window.whole(grid.shape), data)
    # The card overrides the georeference of all images.
    gsd_m = gsds_m.pop() if len(gsds_m) == 1 else None
    lines = ['path = "."', f'kind = "{FOLDER.name}"']
    if gsd_m is not None:
        lines.append(f"gsd_m = {gsd_m!r}")
    # A TOML string has the same syntax as a JSON string.
    lines += ["", "[labels]", f"classes = {json.dumps(list(source.classes), ensure_ascii=False)}"]
    building = source.classes[source.building_class]
    lines.append(f"building = {json.dumps(building, ensure_ascii=False)}")
    if unknown:
        lines.append(f"ignore = [{NODATA}]")
    write_atomically(out / CARD, ("\n".join(lines) + "\n").encode())
    return WriteResult(out, len(source), has_gsd=gsd_m is not None)


FOLDER = SourceKind(
    "folder",
    "images and masks, in pairs of files",
    has_reading,
    _read_folder,
    _write_folder,
    frozenset({"layout", "field", "images"}),
)
IMAGES = SourceKind(
    "images",
    "images without labels",
    lambda path: has_images_under(path) if path.is_dir() else is_image_file(path),
    _read_images,
)
YOLO = SourceKind(
    "yolo",
    "YOLO segmentation: polygons beside images",
    # A folder of YOLO is one of the layouts of the kind `folder`.
    lambda _: False,
    FOLDER.read,
    write_yolo,
)


Legend = dict[str, int | str]
"""Value, or colour as `#RRGGBB`, of each class by name."""

_USUAL = LabelConfig()


def _with_legend(
    labels: LabelConfig, folder: Path, root: Path, usual: Mapping[str, Any], masks: Sequence[Path]
) -> tuple[LabelConfig, tuple[str, ...]]:
    """Return the meaning of masks, and notes if it is not that of `labels`.

    What the user gave goes first, then a legend in the folder or around it, then the values that
    are usual for the layout.
    """
    if labels.palette or labels.values or labels.instances:
        return labels, ()
    notes: list[str] = []
    for place in (folder, *folder.parents):
        for file, read in _legends(place):
            try:
                legend = read(file)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise LabelError(
                    f"{file} cannot be read as a legend of masks: {reason_of(error)}.",
                    remedy="Correct it, or remove it and give labels.values or labels.palette.",
                ) from error
            if len(legend) > 1:
                meant = _by_legend(labels, legend, file, usual, masks)
                if isinstance(meant, LabelConfig):
                    return meant, (*notes, f"Masks are read by {file}.")
                notes.append(f"Masks are not read by {file}: {meant}.")
        if place == root:
            break
    if not usual or labels.classes != _USUAL.classes:
        return labels, (*notes,)
    ignored = tuple(dict.fromkeys((*usual.get("ignore", ()), *labels.ignore)))
    listed = ", ".join(f"{key} = {value}" for key, value in usual.items())
    note = f"Masks are read with what is usual for this layout: {listed}."
    return labels.model_copy(update={**usual, "ignore": ignored}), (*notes, note)


def _by_legend(
    labels: LabelConfig, legend: Legend, file: Path, usual: Mapping[str, Any], masks: Sequence[Path]
) -> LabelConfig | str:
    """Return the meaning of masks by a legend, or why they are not read by it."""
    colours = {value for value in legend.values() if isinstance(value, str)}
    # Masks beside a legend of colours may be numbers already, as in CamVid.
    seen = colours_in(masks) - {"#000000"} if colours else ()
    rule, _ = labels.name_rule().fitted(legend, str(file), unsure=True)
    if seen and colours.isdisjoint(seen):
        second, target = [*legend][1], labels.classes[1]
        is_named = len(legend) == 2 or rule.index_of(second, str(file)) == 1
        if seen == {"#010101"} and len(labels.classes) == 2 and not is_named:
            rest = [0, *range(2, len(legend))]
            raise LabelError(
                f"The masks hold the values 0 and 1, and none of the colours of {file}. By its "
                f"order 1 is {second}, not {target}.",
                remedy=f"If 1 is the {target}: {set_option(f'labels.values.{target}', 1)} "
                f"{set_option(f'labels.values.{labels.classes[0]}', rest)}. If it is {second}, "
                f"name all values of the {target} and the others in this way.",
            )
        return "they have none of its colours"
    meant: dict[int, list[int | str]] = {}
    for name, value in legend.items():
        meant.setdefault(rule.index_of(name, str(file)) or 0, []).append(value)
    missing = [one for index, one in enumerate(labels.classes) if index and index not in meant]
    if missing:
        return f"it lacks {', '.join(missing)}"
    ignored = (*labels.ignore, *meant.pop(IGNORED, ()))
    classes = {labels.classes[index]: tuple(values) for index, values in meant.items()}
    # The usual ones are values, which a palette of colours does not have.
    ignored = ignored or (() if colours else usual.get("ignore", ()))
    key = "palette" if colours else "values"
    return labels.model_copy(update={key: classes, "ignore": ignored})


def _legends(folder: Path) -> Iterator[tuple[Path, Any]]:
    for name, read in (
        ("labelmap.txt", _labelmap), ("label_colors.txt", _label_colours), ("_classes.csv", _table),
        ("class_dict.csv", _table), ("label_class_dict.csv", _table), ("dataset.json", _nnunet),
        ("class_names.txt", _class_names),
    ):  # fmt: skip
        if (folder / name).is_file():
            yield folder / name, read
    for file in sorted(folder.glob("*.emd")) if folder.is_dir() else ():
        yield file, _emd


def _hex(colour: Iterator[Any] | list[Any]) -> str:
    return "#{:02X}{:02X}{:02X}".format(*(int(part) for part in list(colour)[:3]))


def _labelmap(file: Path) -> Legend:
    """Read CVAT's `label:color_rgb:parts:actions`."""
    lines = (line for line in file.read_text("utf-8").splitlines() if line and line[0] != "#")
    rows = (line.split(":") for line in lines)
    # Datumaro leaves the colours of masks of indices out.
    return {row[0]: _hex(row[1].split(",")) for row in rows if row[1]}


def _label_colours(file: Path) -> Legend:
    """Read CamVid's lines of `red green blue name`."""
    rows = (line.split(maxsplit=3) for line in file.read_text("utf-8").splitlines())
    return {row[3]: _hex(row) for row in rows if len(row) == 4}


def _class_names(file: Path) -> Legend:
    """Read the names in LabelMe's export as Pascal VOC, in the order of their values."""
    names = [line.strip() for line in file.read_text("utf-8").splitlines()]
    return {name: value for value, name in enumerate(n for n in names if n != "__ignore__")}


def _table(file: Path) -> Legend:
    """Read Roboflow's `Pixel Value, Class`, or a table of `name,r,g,b`."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = [[cell.strip() for cell in row] for row in csv.reader(opened) if row]
    if len(rows[0]) == 2:
        return {name: int(value) for value, name in rows[1:]}
    return {row[0]: _hex(row[1:4]) for row in rows[1:]}


def _nnunet(file: Path) -> Legend:
    labels: dict[str, Any] = json.loads(file.read_bytes()).get("labels", {})
    # Version 1 maps values to names, version 2 names to values.
    if any(isinstance(value, str) for value in labels.values()):
        return {name: int(value) for value, name in labels.items()}
    return labels


def _emd(file: Path) -> Legend:
    """Read the classes of an ArcGIS Pro model definition; value 0 is the background."""
    classes = json.loads(file.read_bytes()).get("Classes", [])
    legend: Legend = {"background": 0}
    return legend | {one["Name"]: int(one["Value"]) for one in classes}
