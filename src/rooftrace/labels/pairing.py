"""Pair the images of a folder with their label files, by a known layout or a given pattern."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import takewhile
from operator import attrgetter
from pathlib import Path, PureWindowsPath

from rooftrace.core.errors import LayoutError
from rooftrace.core.text import list_first, plural
from rooftrace.io.companions import (
    holds_results,
    images_under,
    is_image_file,
    is_named_as_image,
    is_result,
    matches_glob,
)
from rooftrace.io.files import read_head
from rooftrace.io.vector_formats import VECTOR_SUFFIXES
from rooftrace.labels.layouts import FIELDS, LAYOUTS, Layout
from rooftrace.labels.source import SceneEntry, place_of
from rooftrace.labels.split import part_of_folder

NO_SHAPES = "no shapes"
"""Key of an entry whose label file is missing because there is nothing to label."""

SHAPE_SUFFIXES = frozenset((".txt", ".json", ".xml"))
LABEL_SUFFIXES = SHAPE_SUFFIXES | {*VECTOR_SUFFIXES, ".npy"}

_MOST_DEPTH = 4
"""Maximum number of folders between the data and the base of a layout."""

_MOST_FOLDERS = 2000
REMEDY_PATTERN = 'Give it with --layout, for example --layout "a/{id}.jpg=b/{id}_gt.png".'


@dataclass(frozen=True)
class PairedFolder:
    """Contents of a folder: pairs, and images without a label.

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
        detect: Whether a layout is looked for: masks that a prediction has written are no labels.
        images: Images of some folders, to which the search is limited there.
    """

    def __init__(
        self,
        root: Path = Path(),
        glob: Sequence[str] = (),
        *,
        detect: bool = False,
        images: Mapping[Path, list[Path]] | None = None,
    ) -> None:
        self.root, self.glob, self._detect = root, glob, detect
        self._listed: dict[Path, tuple[list[str], dict[str, None]]] = {}
        self._images = dict(images or {})
        self._labels: dict[Path, dict[str, Path]] = {}
        self._levels = [[root]]

    def _list(self, folder: Path) -> tuple[list[str], dict[str, None]]:
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
            self._listed[folder] = sorted(visible), dict.fromkeys(sorted(files))
        return self._listed[folder]

    def has(self, folder: Path, name: str) -> bool:
        """Return whether a folder has a file of this name."""
        return name in self._list(folder)[1]

    def images(self, folder: Path) -> list[Path]:
        """Return the images in a folder, sorted."""
        if folder not in self._images:
            paths = (folder / name for name in self._list(folder)[1])
            self._images[folder] = [path for path in paths if is_image_file(path)]
        return self._images[folder]

    def texts(self, folder: Path) -> list[Path]:
        """Return the text files in a folder, sorted."""
        return [folder / name for name in self._list(folder)[1] if name.endswith(".txt")]

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
                if dot + suffix.lower() in LABEL_SUFFIXES:
                    named.setdefault(stem, folder / name)
            self._labels[folder] = named
        return self._labels[folder]

    def fitting(self, pattern: Path) -> tuple[Path, ...]:
        """Return the images whose names fit a path with one `*` in its name, sorted."""
        before, _, after = pattern.name.partition("*")
        images, key = self.images(pattern.parent), attrgetter("name")
        start = bisect_left(images, before, key=key)
        named = takewhile(lambda path: path.name.startswith(before), images[start:])
        return tuple(path for path in named if path.name.endswith(after))

    def at_depth(self, depth: int) -> list[Path]:
        """Return the folders that lie `depth` levels below the root."""
        while len(self._levels) <= depth:
            inner = [outer / name for outer in self._levels[-1] for name in self._list(outer)[0]]
            self._levels.append(inner[:_MOST_FOLDERS])
        return self._levels[depth]

    def deeper_than(self, depth: int) -> Iterator[Path]:
        """Yield the folders below a depth that may be the base of a layout."""
        for deeper in range(depth + 1, _MOST_DEPTH + 1):
            yield from self.at_depth(deeper)

    def expand(self, base: Path, segments: Sequence[str]) -> list[Path]:
        """Return the folders below a base that folder patterns may mean, in any case."""
        folders = [base]
        for segment in segments:
            rule = folder_rule(segment)
            folders = [
                folder / name
                for folder in folders
                for name in self._list(folder)[0]
                if rule.fullmatch(name)
            ]
        return folders

    def has_ending(self, folder: Path, ending: str) -> bool:
        """Return whether a folder has a file whose name ends so; `*` and `.*` are any suffix."""
        files, stem = self._list(folder)[1], ending.removesuffix("*").removesuffix(".")
        if stem == ending:
            return any(name.endswith(ending) for name in files)
        return any(name.rpartition(".")[0].endswith(stem) for name in files)


@cache
def folder_rule(segment: str) -> re.Pattern[str]:
    """Return the expression that folders of a pattern fit, in any case."""
    literal = map(re.escape, re.split(r"\{\w+\}", segment))
    return re.compile(".+".join(literal), re.IGNORECASE)


@dataclass(frozen=True)
class Pattern:
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
            inside = FIELDS.get(name, "[^/]+?")
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{inside})")
            seen.add(name)
        return re.compile("".join(parts), re.IGNORECASE)

    @property
    def folders(self) -> list[str]:
        return self.text.split("/")[:-1]

    @property
    def ending(self) -> str:
        """What follows the last field in the name of a file."""
        return self.text.rpartition("/")[2].rpartition("}")[2]

    def match(self, name: str) -> dict[str, str] | None:
        """Return the fields of a path below the base; None if it does not fit."""
        found = self.rule.fullmatch(name)
        return found.groupdict() if found else None

    def fill(self, fields: Mapping[str, str]) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: fields[found[1]], self.text)


class BaseSearch:
    """The search for one layout below one base folder."""

    def __init__(self, folders: Folders, layout: Layout, base: Path) -> None:
        self.base, self._folders, self._layout = base, folders, layout
        self._image, self.label = Pattern(layout.image), Pattern(layout.label)
        self.pairs: list[SceneEntry] = []
        self.missing: list[tuple[SceneEntry, Path]] = []
        self.lone: list[Path] = []
        self._used: set[Path] = set()
        self._others: list[Path] = []
        self._label_folders: dict[tuple[str, ...], list[Path]] = {}

    @property
    def is_possible(self) -> bool:
        """Whether there is a folder with files that end like a label; images are not looked at."""
        folders = self._folders.expand(self.base, self.label.folders)
        return any(self._folders.has_ending(folder, self.label.ending) for folder in folders)

    def has_pair(self, known: Collection[Path | None] = ()) -> bool:
        """Return whether there is a pair besides known images; the search ends at the first."""
        new = ((path, fields) for path, fields in self.matches() if fields and path not in known)
        found = ((path, self._label_of(fields)) for path, fields in new)
        return self.is_possible and any(label not in (None, path) for path, label in found)

    def matches(self) -> Iterator[tuple[Path, dict[str, str] | None]]:
        """Yield the wanted images, each with the fields of its name, or None if it does not fit."""
        for folder in self._folders.expand(self.base, self._image.folders):
            below = folder.relative_to(self.base).as_posix().removeprefix(".")
            for path in self._folders.images(folder):
                if not matches_glob(path, self._folders.glob):
                    continue
                yield path, self._image.match(f"{below}/{path.name}" if below else path.name)

    def run(self) -> bool:
        """Pair the files; return whether there is a pair."""
        found = []
        for path, fields in self.matches():
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
                self.missing.append((entry, self.base / self.label.fill(fields)))
            else:
                self.pairs.append(entry)
        return bool(self.pairs)

    def _label_of(self, fields: Mapping[str, str]) -> Path | None:
        """Return the label file of an image; folders are matched in upper and lower case."""
        *segments, name = self.label.fill(fields).split("/")
        key = tuple(segments)
        if key not in self._label_folders:
            self._label_folders[key] = self._folders.expand(self.base, segments)
        for folder in self._label_folders[key]:
            if name == "*":
                path = folder if self._folders.images(folder) else None
            elif name.endswith(".*"):
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
            if self.label.match(entry.image.relative_to(self.base).as_posix()):
                raise _no_image(entry.image, self.base)
        named: dict[str, SceneEntry] = {}
        for entry in (*self.pairs, *(entry for entry, _ in self.missing)):
            other = named.setdefault(entry.id, entry)
            if other is not entry:
                raise _doubled("images", entry.id, (other.image, entry.image))
        unfit = [path for path in self._others if path not in self._used]
        # Folders of a data set may hold other images, but not those of a plain layout.
        if unfit and not self._layout.name:
            raise no_mask(unfit[0], self.base / self.label.text.replace("{id}", "?"))
        # With a glob, most masks may belong to images that are not wanted.
        if self._folders.glob or self._layout.skip:
            return
        of_images = self._folders.expand(self.base, self._image.folders)
        of_labels = (folder for some in self._label_folders.values() for folder in some)
        are_masks = any(map(is_named_as_image, self._used))
        suffixes = {path.suffix for path in self._used} & LABEL_SUFFIXES
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
        return bool(self._folders.expand(self.base, self.label.folders))


def _doubled(what: str, name: str, files: Iterable[Path | None]) -> LayoutError:
    return LayoutError(
        f"Two {what} are called {name!r}: {' and '.join(map(str, files))}.",
        remedy="Keep one of them, or choose with --layout.",
    )


def has_reading(root: Path) -> bool:
    """Return whether a layout fits a folder, even one with errors; ends at the first pair."""
    folders = Folders(root, (), detect=True)
    try:
        return any(
            BaseSearch(folders, layout, base).has_pair()
            for depth in range(_MOST_DEPTH + 1)
            for bases in [folders.at_depth(depth)]
            for layout in LAYOUTS
            for base in bases
        )
    except LayoutError:
        return True


def find_readings(root: Path, glob: Sequence[str]) -> list[PairedFolder]:
    """Return the readings of a folder: for each layout that fits, what it pairs.

    Layouts are looked for in the folder itself and, if none fits, in the folders within it. One
    that fits is read in all folders outside of one another; a note names the others with pairs.

    Raises:
        LayoutError: A layout fits, but a file is missing or there twice.
    """
    folders = Folders(root, glob, detect=True)
    readings: list[PairedFolder] = []
    known: list[PairedFolder] = []
    for depth in range(_MOST_DEPTH + 1):
        for layout in LAYOUTS:
            found = _read_layout(folders, layout, depth)
            if found is None or _is_known(found, known):
                continue
            known.append(found)
            if not layout.name or all(one.layout.name != layout.name for one in readings):
                readings.append(found)
        if readings:
            break
    if len(readings) == 1:
        return [_with_left_out(folders, readings[0], depth)]
    return readings


def _with_left_out(folders: Folders, found: PairedFolder, depth: int) -> PairedFolder:
    """Return a reading with a note on the folders below its depth that have other pairs."""
    known = {entry.image for entry in (*found.pairs, *found.unlabelled)}
    files = known | {entry.key for entry in found.pairs}
    others = [
        base.relative_to(folders.root).as_posix()
        for base in folders.deeper_than(depth)
        if not files.issuperset(images_under(base))
        and any(BaseSearch(folders, layout, base).has_pair(known) for layout in LAYOUTS)
    ]
    if not others:
        return found
    count, names = plural(len(others), "folder"), list_first(others)
    note = f"Left out: {count} with other labelled images: {names}. Read each by itself."
    return replace(found, notes=(*found.notes, note))


def _is_known(found: PairedFolder, readings: Sequence[PairedFolder]) -> bool:
    pairs = {(pair.image, pair.key) for pair in found.pairs}
    others = (((pair.image, pair.key) for pair in other.pairs) for other in readings)
    return not all(map(pairs.isdisjoint, others))


def _read_layout(folders: Folders, layout: Layout, depth: int) -> PairedFolder | None:
    searches = [BaseSearch(folders, layout, base) for base in folders.at_depth(depth)]
    rest = [search for search in searches if not search.is_possible]
    fitting = [search for search in searches if search.is_possible and search.run()]
    if not fitting:
        return None
    for search in rest:
        # Images without labels beside those with labels.
        search.run()
    read = {search.base for search in fitting}
    for base in folders.deeper_than(depth):
        search = BaseSearch(folders, layout, base)
        if read.isdisjoint(base.parents) and search.is_possible and search.run():
            read.add(base)
            searches.append(search)
            fitting.append(search)
    first = next(pair for search in searches for pair in search.pairs)
    usual = {".txt": "empty", ".json": "unlabelled"}.get(first.key.suffix.lower(), "error")
    missing_is = layout.missing or usual
    pairs: list[SceneEntry] = []
    unlabelled: list[SceneEntry] = []
    notes: list[str] = []
    known: dict[Path, PartLists] = {}
    lists = [PartLists.of(search.base, folders, known) for search in searches]
    published = {one.part_of(pair) for one, by in zip(lists, searches) for pair in by.pairs}
    for search, listed in zip(searches, lists):
        if search.pairs:
            search.check()
        labelled = [*search.pairs]
        for entry, expected in search.missing:
            # Labels of a whole part, such as the test images of OpenEarthMap, may be kept secret.
            is_secret = listed.part_of(entry) not in {*published, None}
            if missing_is == "empty" and search.has_label_folder:
                labelled.append(SceneEntry(entry.id, entry.image, entry.group, NO_SHAPES))
            elif missing_is == "error" and search.has_label_folder and not is_secret:
                raise no_mask(entry.image, expected)
            else:
                unlabelled.append(entry)
        in_parts, unused = listed.divide(labelled)
        pairs += in_parts
        notes += unused
    if layout.unlabelled:
        for search in searches:
            unlabelled += _unlabelled(folders, layout.unlabelled, search.base)
    lone = [path.name for search in fitting for path in search.lone]
    if lone:
        count = plural(len(lone), "label file")
        notes.append(f"{count} without an image left out: {list_first(lone)}.")
    return PairedFolder(layout, tuple(pairs), tuple(unlabelled), fitting[0].base, tuple(notes))


@dataclass(frozen=True)
class PartLists:
    """Lists of the names of images that divide a base into parts.

    Pascal VOC has `ImageSets/Segmentation/train.txt` and `val.txt`; YOLO and LandCover.ai have such
    lists beside the folders, and OpenEarthMap beside the folders of all its regions.

    Args:
        parts: Part of each image, by its name in the lists: the last of those that have it.
    """

    names: tuple[str, ...]
    parts: Mapping[str, str]

    @classmethod
    def of(cls, base: Path, folders: Folders, read: dict[Path, PartLists]) -> PartLists:
        """Return the lists for a base: those in it, or else in the next folder above that has some.

        Args:
            read: Lists of the folders that were read before; the others are added.
        """
        above = [base, *base.parents]
        for top in above[: above.index(folders.root) + 1]:
            if top not in read:
                read[top] = cls._in(top, folders)
            if read[top].names:
                return read[top]
            if part_of_folder(top.name):
                break
        return cls((), {})

    @classmethod
    def _in(cls, top: Path, folders: Folders) -> PartLists:
        """Read the lists in a folder, if they are of several parts."""
        names: list[str] = []
        parts: dict[str, str] = {}
        for folder in (top, *folders.expand(top, ("ImageSets", "Segmentation"))):
            for path in folders.texts(folder):
                if part := part_of_folder(path.stem):
                    names.append(path.name)
                    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                    # Some data sets list the same images as val and as test.
                    parts |= {PureWindowsPath(line.strip()).name: part for line in lines}
        return cls(tuple(names), parts) if len({*parts.values()}) > 1 else cls((), {})

    def part_of(self, entry: SceneEntry) -> str | None:
        """Return the part of an image; None if the lists do not name it."""
        image = entry.image or Path()
        return self.parts.get(image.name, self.parts.get(image.stem))

    def divide(self, entries: Sequence[SceneEntry]) -> tuple[Sequence[SceneEntry], Sequence[str]]:
        """Return the scenes of a base in their parts.

        The second value is a note if there are lists, but not of all scenes.
        """
        inside = {part_of_folder(name) for entry in entries for name in entry.id.split("/")[:-1]}
        if not self.names or len(inside - {None}) > 1:
            return entries, ()
        lost = [entry.image or Path() for entry in entries if self.part_of(entry) is None]
        if lost:
            note = (
                f"{', '.join(self.names)} are not used: they do not name {len(lost)} of "
                f"{plural(len(entries), 'image')}, such as {lost[0].name}. Cut scenes into the "
                "tiles that they name, complete them, or divide the data with rooftrace split."
            )
            return entries, (note,)
        in_parts = []
        for entry in entries:
            part = self.part_of(entry) or ""
            group = "/".join(filter(None, (part, entry.group)))
            in_parts.append(replace(entry, id=f"{part}/{entry.id}", group=group))
        return in_parts, ()


def _unlabelled(folders: Folders, text: str, base: Path) -> Iterator[SceneEntry]:
    pattern = Pattern(text)
    for folder in folders.expand(base, pattern.folders):
        for path in folders.images(folder):
            if matches_glob(path, folders.glob):
                yield SceneEntry(path.stem, path, folder.name)


def no_mask(
    image: Path | None,
    expected: Path,
    remedy: str = "Add the mask, or remove the image from the folder.",
) -> LayoutError:
    """Return the error for an image without its mask."""
    return LayoutError(f"The image {image} has no mask; expected {expected}.", remedy=remedy)


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
    pattern, folders = Pattern(image_text), Folders(root, glob)
    has_many = "*" in label_text.removesuffix(".*")
    # {id} may contain folders, so that one pattern matches a tree.
    rule = re.compile(pattern.rule.pattern.replace("(?P<id>[^/]+?)", "(?P<id>.+?)"))
    found = {}
    for path in sorted(root.rglob("*")):
        match = rule.fullmatch(path.relative_to(root).as_posix())
        if match is None or not path.is_file() or not matches_glob(path, glob):
            continue
        label = root / Pattern(label_text).fill(match.groupdict())
        if label.name.endswith(".*"):
            label = folders.labels(label.parent).get(label.name.removesuffix(".*"), label)
        found[path] = match, label, folders.fitting(label) if has_many else (label,)
    # The masks of {id}.png={id}_mask.png are named as images, too.
    image_of = {mask: path for path, (_, _, masks) in found.items() for mask in masks}
    pairs = []
    for path, (match, label, masks) in found.items():
        if path in image_of:
            continue
        # An empty folder of masks says that there is no building.
        is_empty = label.name == "*" and label.parent.is_dir()
        if not (masks or is_empty if has_many else label.is_file()):
            raise no_mask(path, label, "Add the mask, or correct --layout.")
        if others := {image_of[mask] for mask in masks if has_many} - {path}:
            raise LayoutError(
                f"Masks of {path} are also masks of {others.pop()}, by {label_text!r}.",
                remedy="Put those of each image into a folder of its own: MASKS/{id}/*.",
            )
        key = masks if has_many else label
        name = "/".join(one for one in (match.groupdict().get("part", ""), match["id"]) if one)
        pairs.append(SceneEntry(name, path, place_of(name), key))
    if not pairs:
        raise LayoutError(
            f"No file under {root} matches {image_text!r}.", remedy="Correct --layout."
        )
    return PairedFolder(Layout(image_text, label_text), tuple(pairs), base=root)
