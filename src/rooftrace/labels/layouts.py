"""Pair the images of a folder with their label files: the table of known layouts, and its search.

A row of `LAYOUTS` is one way in which tools and downloads lay out files. A new one is a new row.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import numpy as np

from rooftrace.core.errors import DataError, LayoutError
from rooftrace.core.text import list_first, plural
from rooftrace.core.types import Window
from rooftrace.io.companions import holds_results, is_result
from rooftrace.io.files import read_head, visible_files
from rooftrace.io.raster import open_raster
from rooftrace.io.vector_formats import VECTOR_SUFFIXES
from rooftrace.labels.image_files import (
    is_image_file,
    is_named_as_image,
    matches_glob,
)
from rooftrace.labels.source import SceneEntry

NO_SHAPES = "no shapes"
"""Key of an entry whose label file is missing because there is nothing to label."""

SHAPE_SUFFIXES = frozenset((".txt", ".json", ".xml"))
_LABEL_SUFFIXES = SHAPE_SUFFIXES | {*VECTOR_SUFFIXES, ".npy"}

_MOST_DEPTH = 3
"""Maximum number of folders between the data and the base of a layout."""

_LISTED = 5
_MOST_FOLDERS = 2000
REMEDY_PATTERN = 'Give it with --layout, for example --layout "a/{id}.jpg=b/{id}_gt.png".'


@dataclass(frozen=True)
class Layout:
    """One way to lay out images and their labels below a base folder.

    Fields in braces stand for parts of names; `{id}` names the scene, and `{part}` goes before it
    in its id. `.*` is any suffix of an image or of a label.

    Args:
        image: Pattern of images.
        label: Pattern of label files.
        name: Tool or data set; layouts of one name exclude one another, the first wins.
        labels: Fields of `LabelConfig` for masks whose values are not class indices.
        unlabelled: Pattern of images that have no label.
        skip: Pattern of files that are neither images nor labels of the set.
        missing: What an image without a label file is; default an error for masks and vector
            files, empty for YOLO, unlabelled for JSON.
        holds: Bytes that occur near the beginning of each label file.
    """

    image: str
    label: str
    name: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)
    unlabelled: str = ""
    skip: str = ""
    missing: str = ""
    holds: bytes = b""

    @property
    def reading(self) -> str:
        """Description of the layout for the user."""
        shown = f"{self.image} + {self.label}".replace("{id}", "NAME").replace(".*", ".ext")
        shown = re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), shown)
        return f"{self.name}: {shown}" if self.name else shown


def _values(**values: Any) -> dict[str, Any]:
    return {"values": values}


_NAMES = {"sheet": r"[MN]-3\d-\d+-[A-D]-[a-d]-\d-\d"}
"""Regular expressions of fields that are not any name: the map sheets of Poland."""

_ISPRS = {
    "palette": {
        "building": "#0000FF",
        "background": ("#FFFFFF", "#00FFFF", "#00FF00", "#FFFF00", "#FF0000"),
    },
    "ignore": ("#000000",),
}
_LOVEDA = _values(building=2, background=(1, 3, 4, 5, 6, 7)) | {"ignore": (0,)}
_LANDCOVER = _values(building=1, background=(0, 2, 3, 4))

LAYOUTS = (
    Layout("images/{sheet}.tif", "masks/{sheet}.tif", "LandCover.ai", _LANDCOVER),
    Layout("images/{id}_pre_disaster.*", "labels/{id}_pre_disaster.json", "xBD",
           skip="images/{id}_post_disaster.*"),
    Layout("images/{id}.*", "masks/{id}.*"),
    Layout("train/images/img_{id}.*", "train/masks/mask_{id}.*", unlabelled="test/{id}.*"),
    Layout("images/images/{id}.*", "label/label/{id}_label.*"),
    Layout("images/{part}/{id}.*", "labels/{part}/{id}.txt", "YOLO"),
    Layout("images/{part}/{id}.*", "masks/{part}/{id}.*"),
    Layout("images/{id}.*", "labels/{id}.*"),
    Layout("images/{id}.*", "gt/{id}.*", "INRIA"),
    Layout("image/{id}.*", "label/{id}.*", "WHU, AIRS", skip="label/{id}_vis.*"),
    Layout("tiff/{part}/{id}.*", "tiff/{part}_labels/{id}.*", "Massachusetts"),
    Layout("png/{part}/{id}.*", "png/{part}_labels/{id}.*", "Massachusetts"),
    Layout("{part}/{id}.*", "{part}_labels/{id}.*", "Massachusetts"),
    Layout("{id}_sat.jpg", "{id}_mask.png", "DeepGlobe", missing="unlabelled"),
    Layout("output/{id}.jpg", "output/{id}_m.png", "LandCover.ai tiles", _LANDCOVER),
    Layout("images_png/{id}.png", "masks_png/{id}.png", "LoveDA", _LOVEDA),
    Layout("2_Ortho_{bands}/{id}_{bands}.tif", "5_Labels_all/{id}_label.tif", "ISPRS Potsdam",
           _ISPRS, missing="unlabelled"),
    Layout("2_Ortho_{bands}/{id}_{bands}.tif", "5_Labels_for_participants/{id}_label.tif",
           "ISPRS Potsdam", _ISPRS, missing="unlabelled"),
    Layout("top/{id}.tif", "gts_for_participants/{id}.tif", "ISPRS Vaihingen", _ISPRS,
           missing="unlabelled"),
    Layout("img_dir/{part}/{id}.*", "ann_dir/{part}/{id}.*", "MMSegmentation"),
    Layout("imagesTr/{id}_0000.*", "labelsTr/{id}.*", "nnU-Net", unlabelled="imagesTs/{id}.*"),
    Layout("JPEGImages/{id}.*", "SegmentationClass/{id}.*", "Pascal VOC",
           _values(building=1, background=0) | {"ignore": (255,)}, missing="unlabelled"),
    Layout("{id}.*", "{id}_mask.*", "Roboflow masks", missing="unlabelled"),
    Layout("images/{id}.*", "labels/1/{id}.*", "ArcGIS Pro RCNN masks", {"instances": True}),
    Layout("{id}.*", "{id}.json", "LabelMe", holds=b'"shapes"'),
    Layout("{id}.*", "{id}.xml", "Pascal VOC boxes", holds=b"<bndbox>"),
    Layout("JPEGImages/{id}.*", "Annotations/{id}.xml", "Pascal VOC boxes", holds=b"<bndbox>"),
    Layout("img/{file}", "ann/{file}.json", "Supervisely"),
    Layout("images/{id}.*", "annotations/{id}.json", "Darwin"),
    Layout("images/{id}.*", "releases/latest/annotations/{id}.json", "Darwin"),
    Layout("images/{id}_pre_disaster.*", "targets/{id}_pre_disaster_target.*", "xBD",
           skip="images/{id}_post_disaster.*"),
    Layout("3band/3band_{id}.tif", "geojson/Geo_{id}.geojson", "SpaceNet 1"),
    Layout("3band/3band_{id}.tif", "vectordata/geojson/Geo_{id}.geojson", "SpaceNet 1"),
    Layout("RGB-PanSharpen/RGB-PanSharpen_{id}.tif", "geojson/buildings/buildings_{id}.geojson",
           "SpaceNet 2"),
    Layout("PS-RGB/{set}_PS-RGB_{id}.tif",
           "geojson_buildings/{set}_geojson_buildings_{id}.geojson", "SpaceNet 2"),
    Layout("{part}/Pan-Sharpen/Pan-Sharpen_{part}_{id}.tif",
           "geojson/spacenet-buildings/spacenet-buildings_{id}.geojson", "SpaceNet 4"),
    Layout("PS-RGB/{set}_PS-RGB_{id}.tif", "geojson_buildings/{set}_Buildings_{id}.geojson",
           "SpaceNet 6"),
    Layout("images_masked/{id}.tif", "labels_match/{id}_Buildings.geojson", "SpaceNet 7"),
    Layout("source/{id}.tif", "labels/{id}.geojson", "RAMP"),
    Layout("{id}/{id}.tif", "{id}-labels/{id}.geojson", "Open Cities"),
)  # fmt: skip
"""Known layouts; of two that fit the same files, the first counts."""


@dataclass(frozen=True)
class PairedFolder:
    """Contents of a folder: pairs, sorted by id, and images without a label.

    The key of each entry is its label file, `NO_SHAPES`, or None. Its id is the part of the file
    name that stands for NAME, after the folder of its base or part. Its group is that folder.
    """

    layout: Layout
    pairs: tuple[SceneEntry, ...]
    unlabelled: tuple[SceneEntry, ...] = ()
    base: Path = Path()
    notes: tuple[str, ...] = ()


class Folders:
    """The files in the folders of a search; each folder is listed once.

    Args:
        root: Top folder.
        glob: Patterns for image file names.
        detect: Whether a layout is looked for: masks that a prediction has written are no labels.
    """

    def __init__(self, root: Path, glob: Sequence[str], *, detect: bool = False) -> None:
        self.root, self.glob, self._detect = root, glob, detect
        self._listed: dict[Path, tuple[list[str], list[str]]] = {}
        self._images: dict[Path, list[Path]] = {}
        self._labels: dict[Path, dict[str, Path]] = {}

    def _list(self, folder: Path) -> tuple[list[str], list[str]]:
        """Return the sorted names of the visible folders in a folder, and those of its files."""
        if folder not in self._listed:
            dirs: list[str] = []
            files: list[str] = []
            if folder.is_dir():
                with os.scandir(folder) as inside:
                    for one in inside:
                        (dirs if one.is_dir() else files).append(one.name)
            if self._detect and holds_results(folder):
                files = [name for name in files if not is_result(folder / name)]
            visible = [name for name in dirs if not name.startswith((".", "$"))]
            self._listed[folder] = sorted(visible), sorted(files)
        return self._listed[folder]

    def has(self, folder: Path, name: str) -> bool:
        """Return whether a folder has a file of this name."""
        names = self._list(folder)[1]
        at = bisect_left(names, name)
        return at < len(names) and names[at] == name

    def images(self, folder: Path) -> list[Path]:
        """Return the images in a folder, sorted."""
        if folder not in self._images:
            paths = (folder / name for name in self._list(folder)[1])
            self._images[folder] = [path for path in paths if is_image_file(path)]
        return self._images[folder]

    def matching(self, folder: Path) -> Iterator[Path]:
        """Yield the images in a folder that the user wants."""
        return (path for path in self.images(folder) if matches_glob(path, self.glob))

    def labels(self, folder: Path) -> dict[str, Path]:
        """Return the label files in a folder by stem; a mask goes before other files.

        Raises:
            LayoutError: Two masks have one stem.
        """
        if folder not in self._labels:
            named: dict[str, Path] = {}
            for path in self.images(folder):
                other = named.setdefault(path.stem, path)
                if other is not path:
                    raise _doubled("masks", path.stem, (other, path))
            for name in self._list(folder)[1]:
                stem, dot, suffix = name.rpartition(".")
                if dot + suffix.lower() in _LABEL_SUFFIXES:
                    named.setdefault(stem, folder / name)
            self._labels[folder] = named
        return self._labels[folder]

    def at_depth(self, depth: int) -> list[Path]:
        """Return the folders that lie `depth` levels below the root."""
        folders = [self.root]
        for _ in range(depth):
            folders = [outer / inner for outer in folders for inner in self._list(outer)[0]]
            folders = folders[:_MOST_FOLDERS]
        return folders

    def expand(self, base: Path, segments: Sequence[str]) -> list[Path]:
        """Return the folders below a base that folder patterns may mean, in any case."""
        folders = [base]
        for segment in segments:
            rule = _folder_rule(segment)
            folders = [
                folder / name
                for folder in folders
                for name in self._list(folder)[0]
                if rule.fullmatch(name)
            ]
        return folders

    def has_ending(self, folder: Path, ending: str) -> bool:
        """Return whether a folder has a file whose name ends so; `.*` is any suffix."""
        files, stem = self._list(folder)[1], ending.removesuffix(".*")
        if stem == ending:
            return any(name.endswith(ending) for name in files)
        return any(name.rpartition(".")[0].endswith(stem) for name in files)


@cache
def _folder_rule(segment: str) -> re.Pattern[str]:
    literal = map(re.escape, re.split(r"\{\w+\}", segment))
    return re.compile(".+".join(literal), re.IGNORECASE)


@dataclass(frozen=True)
class _Pattern:
    """A compiled pattern of paths below a base."""

    text: str

    @cached_property
    def rule(self) -> re.Pattern[str]:
        seen: set[str] = set()
        parts = []
        for piece in re.split(r"(\{\w+\})", self.text):
            if not piece.startswith("{"):
                parts.append(re.escape(piece).replace(r"\.\*", r"\.[^./]+"))
                continue
            name = piece[1:-1]
            inside = _NAMES.get(name, "[^/]+?")
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{inside})")
            seen.add(name)
        return re.compile("".join(parts), re.IGNORECASE)

    @property
    def folders(self) -> list[str]:
        return self.text.split("/")[:-1]

    def match(self, name: str) -> dict[str, str] | None:
        """Return the fields of a path below the base; None if it does not fit."""
        found = self.rule.fullmatch(name)
        return found.groupdict() if found else None

    def fill(self, fields: Mapping[str, str]) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: fields[found[1]], self.text)


class _BaseSearch:
    """The search for one layout below one base folder."""

    def __init__(self, folders: Folders, layout: Layout, base: Path) -> None:
        self.base, self._folders, self._layout = base, folders, layout
        self._image, self._label = _Pattern(layout.image), _Pattern(layout.label)
        self.pairs: list[SceneEntry] = []
        self.missing: list[tuple[SceneEntry, Path]] = []
        self.lone: list[Path] = []
        self._used: set[Path] = set()
        self._others: list[Path] = []
        self._label_folders: dict[tuple[str, ...], list[Path]] = {}

    @property
    def is_possible(self) -> bool:
        """Whether there is a folder with files that end like a label; images are not looked at."""
        ending = self._label.text.rpartition("}")[2]
        folders = self._folders.expand(self.base, self._label.folders)
        return any(self._folders.has_ending(folder, ending) for folder in folders)

    @property
    def has_pair(self) -> bool:
        """Whether there is a pair; the search ends at the first."""
        found = ((path, self._label_of(fields)) for path, fields in self._matches() if fields)
        return self.is_possible and any(label not in (None, path) for path, label in found)

    def _matches(self) -> Iterator[tuple[Path, dict[str, str] | None]]:
        """Yield the wanted images, each with the fields of its name, or None if it does not fit."""
        for folder in self._folders.expand(self.base, self._image.folders):
            below = folder.relative_to(self.base).as_posix().removeprefix(".")
            for path in self._folders.matching(folder):
                yield path, self._image.match(f"{below}/{path.name}" if below else path.name)

    def run(self) -> bool:
        """Pair the files; return whether there is a pair."""
        found = []
        for path, fields in self._matches():
            if fields is None:
                self._others.append(path)
            else:
                found.append((path, fields, self._label_of(fields)))
        self._used = {label for _, _, label in found if label is not None}
        for path, fields, label in found:
            if path in self._used:
                continue
            base = self.base.relative_to(self._folders.root).as_posix().removeprefix(".")
            group = "/".join(one for one in (base, fields.get("part", "")) if one)
            name = fields.get("id") or fields.get("sheet") or Path(fields["file"]).stem
            entry = SceneEntry(f"{group}/{name}" if group else name, path, group, label)
            if label is None:
                self.missing.append((entry, self.base / self._label.fill(fields)))
            else:
                self.pairs.append(entry)
        return bool(self.pairs)

    def _label_of(self, fields: Mapping[str, str]) -> Path | None:
        """Return the label file of an image; folders are matched in upper and lower case."""
        *segments, name = self._label.fill(fields).split("/")
        key = tuple(segments)
        if key not in self._label_folders:
            self._label_folders[key] = self._folders.expand(self.base, segments)
        for folder in self._label_folders[key]:
            if name.endswith(".*"):
                path = self._folders.labels(folder).get(name.removesuffix(".*"))
            else:
                path = folder / name if self._folders.has(folder, name) else None
            holds = self._layout.holds
            if path is not None and (not holds or holds in read_head(path, 1 << 16)):
                return path
        return None

    def check(self) -> None:
        """Refuse images and masks that should be in a pair and are not.

        Raises:
            LayoutError: An image has no label, a mask no image, or two images have one id. The
                message names the files.
        """
        for entry, _ in self.missing:
            assert entry.image is not None
            if self._label.match(entry.image.relative_to(self.base).as_posix()):
                raise _no_image(entry.image, self.base)
        named: dict[str, SceneEntry] = {}
        for entry in (*self.pairs, *(entry for entry, _ in self.missing)):
            other = named.setdefault(entry.id, entry)
            if other is not entry:
                raise _doubled("images", entry.id, (other.image, entry.image))
        unfit = [path for path in self._others if path not in self._used]
        # Folders of a data set may hold other images, but not those of a plain layout.
        if unfit and not self._layout.name:
            raise _no_mask(unfit[0], self.base / self._label.text.replace("{id}", "?"))
        # With a glob, most masks may belong to images that are not wanted.
        if self._folders.glob or self._layout.skip:
            return
        of_images = self._folders.expand(self.base, self._image.folders)
        of_labels = (folder for some in self._label_folders.values() for folder in some)
        are_masks = any(map(is_named_as_image, self._used))
        suffixes = {path.suffix for path in self._used} & _LABEL_SUFFIXES
        stems = {path.stem for path in self._others}
        for folder in sorted(set(of_labels) - set(of_images)):
            for path in self._folders.labels(folder).values():
                if path not in self._used and path.suffix in suffixes and path.stem not in stems:
                    self.lone.append(path)
            for path in self._folders.images(folder) if are_masks else ():
                if path not in self._used:
                    raise _no_image(path, self.base)

    @property
    def has_label_folder(self) -> bool:
        return bool(self._folders.expand(self.base, self._label.folders))


def _doubled(what: str, name: str, files: Iterable[Path | None]) -> LayoutError:
    return LayoutError(
        f"Two {what} are called {name!r}: {' and '.join(map(str, files))}.",
        remedy="Keep one of them, or choose with --layout.",
    )


def label_masks(images: Iterable[Path]) -> set[Path]:
    """Return those of some image files that a layout reads as the masks of other images.

    The images are among the files, or in a folder beside the masks. Names decide.
    """
    paths_in: dict[str, dict[str, Path]] = {}
    # Paths as text, since there may be 100,000.
    for path in images:
        where, name = os.path.split(path)
        paths_in.setdefault(where, {})[name] = path
    folders = {Path(where): paths for where, paths in paths_in.items()}
    named: dict[tuple[str, str], Path] = {}
    for folder, paths in folders.items():
        where = folder.as_posix().casefold()
        for name, path in paths.items():
            low = name.casefold()
            named[where, low] = named[where, f"{low.rpartition('.')[0]}.*"] = path
    masks: set[Path] = set()
    for layout in LAYOUTS:
        image, label = _Pattern(layout.image), _Pattern(layout.label)
        ending = layout.label.rpartition("}")[2].casefold()
        if ending in _LABEL_SUFFIXES:
            continue
        within = _folder_rule(label.folders[-1]) if label.folders else None
        # Quick, since most folders hold images alone.
        if within is None and not any(name.endswith(ending) for _, name in named):
            continue
        beside: dict[Path, dict[str, Path]] = {}
        if within is not None:
            place = len(label.folders)
            of_masks = [one for one in folders if within.fullmatch(one.name)]
            if not of_masks:
                continue
            for base in {one.parents[place - 1] for one in of_masks if place <= len(one.parents)}:
                search = Folders(base, ())
                for one in search.expand(base, image.folders):
                    beside[one] = {path.name: path for path in search.images(one)}
        depth = len(image.folders)
        for folder, paths in (beside | folders).items():
            base = folder.parents[depth - 1] if 0 < depth <= len(folder.parents) else folder
            steps = folder.relative_to(base).parts
            rules = map(_folder_rule, image.folders)
            if len(steps) != depth or not all(r.fullmatch(s) for r, s in zip(rules, steps)):
                continue
            for name, path in paths.items():
                fields = image.match("/".join((*steps, name)))
                if fields is not None:
                    expected = base / label.fill(fields)
                    key = expected.parent.as_posix().casefold(), expected.name.casefold()
                    masks.update({named.get(key, path)} - {path})
    return masks


def has_reading(root: Path) -> bool:
    """Return whether a layout fits a folder, even one with errors; ends at the first pair."""
    folders = Folders(root, (), detect=True)
    try:
        return any(
            _BaseSearch(folders, layout, base).has_pair
            for depth in range(_MOST_DEPTH + 1)
            for bases in [folders.at_depth(depth)]
            for layout in LAYOUTS
            for base in bases
        )
    except LayoutError:
        return True


def find_readings(root: Path, glob: Sequence[str]) -> list[PairedFolder]:
    """Return the readings of a folder: for each layout that fits, what it pairs.

    Layouts are looked for in the folder itself and, if none fits, in the folders within it.

    Raises:
        LayoutError: A layout fits, but a file is missing or there twice.
    """
    folders = Folders(root, glob, detect=True)
    readings: list[PairedFolder] = []
    for depth in range(_MOST_DEPTH + 1):
        bases = folders.at_depth(depth)
        for layout in LAYOUTS:
            found = _read_layout(folders, layout, bases)
            if found is not None and not _is_known(found, readings):
                readings.append(found)
        if readings:
            break
    return readings


def _is_known(found: PairedFolder, readings: Sequence[PairedFolder]) -> bool:
    pairs = {(pair.image, pair.key) for pair in found.pairs}
    return any(
        not pairs.isdisjoint((pair.image, pair.key) for pair in other.pairs)
        or (found.layout.name and found.layout.name == other.layout.name)
        for other in readings
    )


def _read_layout(folders: Folders, layout: Layout, bases: Sequence[Path]) -> PairedFolder | None:
    searches = [_BaseSearch(folders, layout, base) for base in bases]
    possible = [search.is_possible for search in searches]
    fits = [able and search.run() for able, search in zip(possible, searches)]
    if not any(fits):
        return None
    for able, search in zip(possible, searches):
        # Images without labels beside those with labels.
        able or search.run()
    pairs = [pair for search in searches for pair in search.pairs]
    usual = {".txt": "empty", ".json": "unlabelled"}.get(pairs[0].key.suffix.lower(), "error")
    missing_is = layout.missing or usual
    unlabelled: list[SceneEntry] = []
    for search, fit in zip(searches, fits):
        if fit:
            search.check()
        for entry, expected in search.missing:
            if missing_is == "empty" and search.has_label_folder:
                pairs.append(SceneEntry(entry.id, entry.image, entry.group, NO_SHAPES))
            elif missing_is == "error" and search.has_label_folder:
                raise _no_mask(entry.image, expected)
            else:
                unlabelled.append(entry)
    if layout.unlabelled:
        for base in bases:
            unlabelled += _unlabelled(folders, layout.unlabelled, base)
    lone = [path.name for search, fit in zip(searches, fits) if fit for path in search.lone]
    notes: tuple[str, ...] = ()
    if lone:
        count = plural(len(lone), "label file")
        notes = (f"{count} without an image left out: {list_first(lone, _LISTED)}.",)
    return PairedFolder(layout, by_id(pairs), by_id(unlabelled), bases[fits.index(True)], notes)


def _unlabelled(folders: Folders, text: str, base: Path) -> Iterator[SceneEntry]:
    pattern = _Pattern(text)
    for folder in folders.expand(base, pattern.folders):
        for path in folders.matching(folder):
            yield SceneEntry(path.stem, path, folder.name)


def _no_mask(image: Path | None, expected: Path) -> LayoutError:
    return LayoutError(
        f"The image {image} has no mask; expected {expected}.",
        remedy="Add the mask, or remove the image from the folder.",
    )


def _no_image(mask: Path, folder: Path) -> LayoutError:
    return LayoutError(
        f"The mask {mask} has no image in {folder}.",
        remedy="Add the image, or remove the mask from the folder.",
    )


def pairs_by_pattern(root: Path, layout: str, glob: Sequence[str]) -> PairedFolder:
    """Pair the files below a folder by a pattern that the user gave.

    Raises:
        LayoutError: The pattern is malformed, matches nothing, or an image has no label.
    """
    image_text, equals, label_text = layout.partition("=")
    if not equals or image_text.count("{id}") != 1 or "{id}" not in label_text:
        raise LayoutError(
            f"The layout {layout!r} is not IMAGE=MASK with {{id}} in both.", remedy=REMEDY_PATTERN
        )
    pattern, folders = _Pattern(image_text), Folders(root, glob)
    # {id} may contain folders, so that one pattern matches a tree.
    rule = re.compile(pattern.rule.pattern.replace("(?P<id>[^/]+?)", "(?P<id>.+?)"))
    pairs = []
    for path in sorted(root.rglob("*")):
        match = rule.fullmatch(path.relative_to(root).as_posix())
        if match is None or not path.is_file() or not matches_glob(path, glob):
            continue
        label = root / _Pattern(label_text).fill(match.groupdict())
        if label.name.endswith(".*"):
            label = folders.labels(label.parent).get(label.name.removesuffix(".*"), label)
        if not label.is_file():
            raise LayoutError(
                f"The image {path} has no mask; expected {label}.",
                remedy="Add the mask, or correct --layout.",
            )
        name = "/".join(one for one in (match.groupdict().get("part", ""), match["id"]) if one)
        pairs.append(SceneEntry(name, path, name.rpartition("/")[0], label))
    if not pairs:
        raise LayoutError(
            f"No file under {root} matches {image_text!r}.", remedy="Correct --layout."
        )
    return PairedFolder(Layout(image_text, label_text), by_id(pairs), base=root)


def by_id(entries: Sequence[SceneEntry]) -> tuple[SceneEntry, ...]:
    """Return entries sorted by id."""
    return tuple(sorted(entries, key=lambda entry: entry.id))


_MOST_FILES = 20_000
_SAMPLES = 3
"""Number of files of a group that are opened."""

_MIDDLE_PX = 256
"""Side in pixels of the middle of an image whose colours are counted."""

_MASK_VALUES = 32
"""Maximum number of colours in a mask; photographs have thousands."""

_LEAST_SHARE = 0.5
"""Minimum share of images that have a mask."""

Group = tuple[str, str]
"""Folder below the root, and the ending of the names: what follows the last `_` or `-`."""


def suggest_layout(root: Path) -> str | None:
    """Return the layout `IMAGES=MASKS` of a folder in which some images seem to be masks.

    Names decide which files belong together, and pixels which of them are masks.
    """
    groups = _groups(root)
    found: Counter[str] = Counter()
    masks = {
        key: all(
            _colours(root / key[0] / name) <= _MASK_VALUES
            for name in sorted(names)[:: max(1, len(names) // _SAMPLES)][:_SAMPLES]
        )
        for key, names in groups.items()
    }
    for images, labels in permutations(groups, 2):
        if masks[images] or not masks[labels]:
            continue
        if images[0].split("/")[0] != labels[0].split("/")[0] and "/" in images[0] + labels[0]:
            continue
        rule = _rule(images[0], groups[images], labels[0], groups[labels])
        if rule is not None:
            found[rule] += len(groups[labels])
    if not found:
        return None
    general: Counter[str] = Counter()
    for rule in found:
        general[re.sub(r"(^|=)[^/={}]+/(?=[^/=]+/)", r"\1{part}/", rule)] += 1
    best, times = general.most_common(1)[0]
    return best if times > 1 else found.most_common(1)[0][0]


def _groups(root: Path) -> dict[Group, list[str]]:
    """Return the names of images by folder, and by ending where one folder has several."""
    groups: dict[Group, list[str]] = {}
    for folder, names in islice(visible_files(root), _MOST_FILES):
        images = [name for name in names if is_named_as_image(folder / name)]
        relative = folder.relative_to(root).as_posix().removeprefix(".")
        endings = Counter(map(_ending, images))
        # Endings that most names do not share are numbers.
        several = 1 < len(endings) <= 8 and min(endings.values()) * len(endings) >= len(images) / 2
        for name in images:
            groups.setdefault((relative, _ending(name) if several else ""), []).append(name)
    return groups


def _ending(name: str) -> str:
    stem, suffix = Path(name).stem, Path(name).suffix
    last = re.search(r"[_\-.][A-Za-z]+$", stem)
    return (last[0] if last else "") + suffix


def _colours(path: Path) -> int:
    """Return how many colours the middle of an image has."""
    try:
        source = open_raster(path, palette="indices")
        height, width = source.grid.shape
        top, left = (max(side - _MIDDLE_PX, 0) // 2 for side in (height, width))
        middle = Window(top, left, min(height, _MIDDLE_PX), min(width, _MIDDLE_PX))
        data = source.read(middle).data
    except DataError:
        return _MASK_VALUES + 1
    return len(np.unique(data.reshape(len(data), -1), axis=1).T)


def is_swapped(image: Path, label: Path) -> bool:
    """Return whether an image looks like a mask, and its label like an image."""
    # A picture of one colour tells nothing.
    return is_named_as_image(label) and 1 < _colours(image) <= _MASK_VALUES < _colours(label)


def _rule(
    image_folder: str, images: Sequence[str], label_folder: str, labels: Sequence[str]
) -> str | None:
    """Return the layout of two groups whose names agree; None if they do not."""
    image_cut, label_cut = _cut(images), _cut(labels)
    cores = {name[image_cut[0] : len(name) - image_cut[1]] for name in images}
    others = {name[label_cut[0] : len(name) - label_cut[1]] for name in labels}
    if not others <= cores or len(others) < _LEAST_SHARE * len(cores):
        return None
    before = [images[0][: image_cut[0]], labels[0][: label_cut[0]]]
    both = ((images[0], image_cut[1]), (labels[0], label_cut[1]))
    after = [name[len(name) - cut :] for name, cut in both]
    # What both names share belongs to the id.
    shared = _shared([text[::-1] for text in before])
    before = [text[: len(text) - len(shared)] for text in before]
    tail = _shared(after)
    tail = tail[: tail.index(".")] if "." in tail else tail
    if any(text[len(tail) : len(tail) + 1].isalnum() for text in after):
        # Both names only begin with the same letter.
        tail = re.sub(r"[\W_]?[^\W_]*$", "", tail)
    after = [text[len(tail) :] for text in after]
    folders = [f"{folder}/" if folder else "" for folder in (image_folder, label_folder)]
    patterns = [f"{f}{b}{{id}}{a}" for f, b, a in zip(folders, before, after)]
    return "=".join(patterns) if patterns[0] != patterns[1] else None


def _cut(names: Sequence[str]) -> tuple[int, int]:
    """Return how many characters all names share at their beginning, and at their end."""
    if len(names) == 1:
        return 0, len(Path(names[0]).suffix)
    start = len(_shared(names))
    stop = len(_shared([name[::-1] for name in names]))
    return start, min(stop, min(map(len, names)) - start)


def _shared(texts: Sequence[str]) -> str:
    """Return the text with which all texts begin."""
    first, last = min(texts), max(texts)
    length = next((n for n, (a, b) in enumerate(zip(first, last)) if a != b), len(first))
    return first[:length]
