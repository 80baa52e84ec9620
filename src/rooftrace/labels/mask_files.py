"""Tell which of some files are the labels of images, by their names and by their pixels."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rooftrace.core.errors import DataError
from rooftrace.core.types import Window
from rooftrace.io.companions import holds_results, is_named_as_image, is_result
from rooftrace.io.files import visible_files
from rooftrace.labels.layouts import LAYOUTS
from rooftrace.labels.mask_source import open_mask
from rooftrace.labels.pairing import (
    LABEL_SUFFIXES,
    SHAPE_SUFFIXES,
    BaseSearch,
    Folders,
    Pattern,
    folder_rule,
)

_MOST_FILES = 20_000
_SAMPLES = 3
"""Number of files of a group that are opened."""

_MIDDLE_PX = 256
"""Side in pixels of the middle of an image whose colours are counted."""

_MASK_VALUES = 32
"""Maximum number of colours in a mask; photographs have thousands."""

_MOST_NAMES = 4
"""Maximum number of images in a folder that belong to one image."""

_LEAST_SHARE = 0.5
"""Minimum share of images that have a mask."""

_PARTS = (
    (r"^(\w+/)(\w+)/(.*=)(\w+/)\2/", r"\1{part}/\3\4{part}/"),
    (r"^([^/={}]+)/(.*=)\1/", r"{part}/\2{part}/"),
    (r"^([^/={}]+)([_-]\w+/.*=)\1([_-]\w+/)", r"{part}\2{part}\3"),
    (r"(^|=)[^/={}]+/(?=[^/=]+/)", r"\1{part}/"),
)
"""Layouts of one part of the data, and what they become for all parts."""

Group = tuple[str, str]
"""Folder below the root, and what sorts of names there begin or end with, if several do."""


def label_masks(images: Iterable[Path]) -> set[Path]:
    """Return those of some image files that a layout reads as the masks of other images.

    The images are among the files, or in a folder beside the masks. Names decide.
    """
    files: dict[Path, list[Path]] = {}
    named: dict[str, Path] = {}
    for path in images:
        files.setdefault(path.parent, []).append(path)
        low = path.as_posix().casefold()
        named[low] = named[f"{os.path.splitext(low)[0]}.*"] = path  # noqa: PTH122  # 100,000 files
    folders = Folders(images=files)
    masks: set[Path] = set()
    for layout in LAYOUTS:
        label = Pattern(layout.label)
        # Quick, since most folders hold images alone.
        ending = label.ending
        is_mask = ending not in LABEL_SUFFIXES
        if not (is_mask and any(name.endswith(ending) for name in named)):
            continue
        for base in {base for folder in files if (base := _base_of(folder, label)) is not None}:
            inside = (base / "_").as_posix().casefold().removesuffix("_")
            for path, fields in BaseSearch(folders, layout, base).matches():
                mask = None if fields is None else named.get(inside + label.fill(fields).casefold())
                if mask is not None and mask != path:
                    masks.add(mask)
    return masks


def _base_of(folder: Path, label: Pattern) -> Path | None:
    """Return the base of a layout whose masks lie in a folder; None if its name does not fit."""
    depth = len(label.folders)
    names = "/".join(folder.parts[-depth:]) if depth else ""
    fits = folder_rule("/".join(label.folders)).fullmatch(names)
    return (folder, *folder.parents)[depth] if fits else None


def suggest_layouts(root: Path) -> list[str]:
    """Return layouts `IMAGES=LABELS` of a folder in which some files seem to be labels.

    Names decide which files belong together, and pixels which images are masks. Several layouts
    fit equally well, such as the images of two dates over the same labels.
    """
    groups = _groups(root)
    looks = {
        key: [
            _look(root / key[0] / name)
            for name in sorted(names)[:: max(1, len(names) // _SAMPLES)][:_SAMPLES]
        ]
        for key, names in groups.items()
    }
    masks = {key: all(one.colours <= _MASK_VALUES for one in looks[key]) for key in groups}
    pairs = [
        (images, labels)
        for images, labels in permutations(groups, 2)
        if masks[labels] and not masks[images]
    ]
    # Files in folders apart often have the same names without belonging together.
    for some in (list(filter(_are_near, pairs)), pairs):
        rules = ((one, _rule(one[0][0], groups[one[0]], one[1][0], groups[one[1]])) for one in some)
        fitting = [(one, rule) for one, rule in rules if rule is not None]
        if fitting:
            break
    else:
        return _folder_layout(root, groups)
    # Beside colour images, those of one band are heights or radar.
    bands = {images: min(one.bands for one in looks[images]) for (images, _), _ in fitting}
    colour = any(number > 2 for number in bands.values())
    found: Counter[str] = Counter()
    for (images, labels), rule in fitting:
        if bands[images] > 2 or not colour:
            found[rule] += len(groups[labels])
    general: Counter[str] = Counter()
    for rule in found:
        made = (re.sub(pattern, general_form, rule) for pattern, general_form in _PARTS)
        general[next((one for one in made if one != rule), rule)] += 1
    ranked = general if max(general.values()) > 1 else found
    return [rule for rule, times in ranked.items() if times == max(ranked.values())]


def _are_near(pair: tuple[Group, Group]) -> bool:
    """Return whether two folders have the same top folder, or the same name below it."""
    (top, _, below), (other, _, beside) = (folder.partition("/") for folder, _ in pair)
    return top == other or below == beside


def _folder_layout(root: Path, groups: Mapping[Group, list[str]]) -> list[str]:
    """Return the layout of files that have the same names in the folder of each image."""
    same: dict[tuple[str, ...], list[Path]] = {}
    for (folder, _), inside in groups.items():
        same.setdefault(tuple(inside), []).append(root / folder)
    names, folders = max(same.items(), key=lambda item: len(item[1]), default=((), []))
    if len(folders) == 1 or len(names) > _MOST_NAMES:
        return []
    masks = {
        name: [_look(folder / name).colours <= _MASK_VALUES for folder in folders[:_SAMPLES]]
        for name in names
    }
    return [
        f"{{id}}/{image}={{id}}/{label}"
        for image, label in permutations(names, 2)
        if not any(masks[image]) and all(masks[label])
    ]


def _groups(root: Path) -> dict[Group, list[str]]:
    """Return the names of images by folder, and by ending where one folder has several."""
    groups: dict[Group, list[str]] = {}
    for folder, names in islice(visible_files(root), _MOST_FILES):
        paths = [folder / name for name in names]
        if holds_results(folder):
            paths = [path for path in paths if not is_result(path)]
        images = [one.name for one in paths if is_named_as_image(one) or _is_label(one.name)]
        relative = folder.relative_to(root).as_posix().removeprefix(".")
        for sort in (_ending, _beginning, lambda _: ""):
            ends = {name: sort(name) for name in images}
            counts = Counter(ends.values())
            # An ending of one name alone belongs to it, as in north.tif beside north_gt.tif.
            most = max(counts.values(), default=0)
            kinds = {n: "" if counts[end] < min(most, 2) else end for n, end in ends.items()}
            sorts = Counter(kinds.values())
            # Endings that most names do not share are numbers.
            if 1 < len(sorts) <= 8 and min(sorts.values()) * len(sorts) >= len(images) / 2:
                break
        for name in images:
            groups.setdefault((relative, kinds[name]), []).append(name)
    return groups


def _beginning(name: str) -> str:
    found = re.match(r"[A-Za-z]+[_\-.]", Path(name).stem)
    return found[0] if found else ""


def _ending(name: str) -> str:
    stem, suffix = Path(name).stem, Path(name).suffix
    last = re.search(r"[_\-.][A-Za-z]+$", stem)
    return (last[0] if last else "") + suffix


def _is_label(name: str) -> bool:
    return Path(name).suffix.lower() in LABEL_SUFFIXES - SHAPE_SUFFIXES


class _Look(NamedTuple):
    """Number of colours in the middle of an image, and of its bands; 1 for outlines and arrays."""

    colours: int = 1
    bands: int = 1


def _look(path: Path) -> _Look:
    """Look at the middle of an image."""
    if _is_label(path.name):
        return _Look()
    try:
        source = open_mask(path)
        data = source.read(Window.middle(source.grid.shape, _MIDDLE_PX)).data
    except DataError:
        return _Look(_MASK_VALUES + 1)
    return _Look(len(np.unique(data.reshape(len(data), -1), axis=1).T), len(data))


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
