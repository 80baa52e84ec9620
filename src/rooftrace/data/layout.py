"""Which file of a folder is the image, and which its mask: found by looking, never guessed.

A reading is one way to pair the files of a folder. Every known reading is tried; the folder is
taken only if exactly one of them fits.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from rooftrace.core.errors import LayoutError
from rooftrace.io.raster import is_raster

__all__ = [
    "Found",
    "Pair",
    "find_pairs",
    "has_images_under",
    "has_pairs",
    "images_under",
    "is_image_file",
    "is_sidecar",
    "select",
]

T = TypeVar("T")

KNOWN = (
    "images/NAME.ext + masks/NAME.ext",
    "GROUP/images/NAME.ext + GROUP/masks/NAME.ext",
    "train/images/img_N.ext + train/masks/mask_N.ext (test/ unlabelled)",
    "images/images/NAME.ext + label/label/NAME_label.ext",
)
_IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".vrt")
)
_REMEDY_PATTERN = 'Say it with --layout, for example --layout "a/{id}.jpg=b/{id}_gt.png".'


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """One image and its mask (None where unlabelled).

    Args:
        id: what stands for NAME, after the group's folder if there is one.
        group: the folder that the pair comes from, "" at the root.
    """

    id: str
    image: Path
    mask: Path | None
    group: str = ""


@dataclass(frozen=True)
class Found:
    """What a folder holds: the pairs, sorted by id, and images without a label."""

    reading: str
    pairs: tuple[Pair, ...]
    unlabelled: tuple[Pair, ...] = ()


def find_pairs(root: Path, *, layout: str | None = None, glob: Sequence[str] = ()) -> Found:
    """Pair the images and masks under `root`.

    Args:
        root: the data folder.
        layout: `IMAGE_PATTERN=MASK_PATTERN` with `{id}` in both, relative to `root`; default: look.
        glob: patterns on the image's file name; only images that match one take part.

    Raises:
        LayoutError: no folder, no reading or several that fit, an image without its mask or a
            mask without its image, two files for one id; each names the files.
    """
    if not root.is_dir():
        raise LayoutError(
            f"There is no folder {root}.", remedy="Give the folder that holds images and masks."
        )
    if layout is not None:
        return _by_pattern(root, layout, glob)
    readings = _readings(root, glob)
    if len(readings) > 1:
        raise LayoutError(
            f"{root} can be read in {len(readings)} ways: "
            + "; or ".join(f"{r.reading} ({len(r.pairs)} pairs)" for r in readings)
            + ".",
            remedy=_REMEDY_PATTERN,
        )
    if not readings:
        inside = sorted(p.name for p in root.iterdir())[:8]
        images = _images_in(root)
        among = f", {len(images)} images among them" if images else ""
        raise LayoutError(
            f"{root} holds no image/mask pairs in a known layout"
            f"{' that match ' + repr(list(glob)) if glob else ''}; "
            f"it holds {inside or 'nothing'}{among}. "
            f"Known: {'; '.join(KNOWN)}.",
            remedy=_REMEDY_PATTERN,
        )
    return readings[0]


def select(ordered: Sequence[T], part: str | None) -> tuple[T, ...]:
    """A slice `[a:b]` of what is in sorted order, as in `"[:15]"`.

    Raises:
        LayoutError: not a slice.
    """
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


def _side_by_side(root: Path, glob: Sequence[str]) -> Found | None:
    pairs = _pair_up(root, "images", "masks", glob)
    return Found(KNOWN[0], pairs) if pairs else None


def _groups(root: Path, glob: Sequence[str]) -> Found | None:
    pairs: list[Pair] = []
    rest: list[Pair] = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        found = _pair_up(folder, "images", "masks", glob, group=folder.name)
        pairs += found
        if not found:
            images = _images_in(folder / "images", glob)
            rest += [Pair(f"{folder.name}/{p.stem}", p, None, folder.name) for p in images]
    if not pairs:
        return None
    for pair in rest:
        if (root / pair.group / "masks").is_dir():
            raise _no_mask(pair.image, root / pair.group / "masks" / f"{pair.image.stem}.*")
    return Found(KNOWN[1], tuple(sorted(pairs)), tuple(rest))


def _numbered(root: Path, glob: Sequence[str]) -> Found | None:
    def number(stem: str) -> str | None:
        match = re.fullmatch(r"img_(.+)", stem)
        return match.group(1) if match else None

    pairs = _pair_up(
        root / "train", "images", "masks", glob, to_id=number, to_mask=lambda n: f"mask_{n}"
    )
    if not pairs:
        return None
    unlabelled = tuple(
        Pair(path.stem, path, None, "test") for path in _images_in(root / "test", glob)
    )
    return Found(KNOWN[2], pairs, unlabelled)


def _suffixed(root: Path, glob: Sequence[str]) -> Found | None:
    pairs = _pair_up(root, "images/images", "label/label", glob, to_mask=lambda n: f"{n}_label")
    return Found(KNOWN[3], pairs) if pairs else None


def _pair_up(
    root: Path,
    images: str,
    masks: str,
    glob: Sequence[str],
    *,
    to_id: Callable[[str], str | None] = lambda stem: stem,
    to_mask: Callable[[str], str] = lambda name: name,
    group: str = "",
) -> tuple[Pair, ...]:
    """Pairs under `root`; empty where this reading fits no file at all."""
    image_files = _images_in(root / images, glob)
    mask_by_stem = _by_stem(_images_in(root / masks))
    named = [(to_id(path.stem), path) for path in image_files]
    if not any(name is not None and to_mask(name) in mask_by_stem for name, _ in named):
        return ()
    doubled = [n for n, count in Counter(n for n, _ in named if n is not None).items() if count > 1]
    if doubled:
        files = [str(path) for name, path in named if name == doubled[0]]
        raise LayoutError(
            f"Two images are called {doubled[0]!r}: {' and '.join(files)}.",
            remedy="Keep one of them, or choose by --layout.",
        )
    pairs = []
    for name, path in named:
        mask = mask_by_stem.get(to_mask(name)) if name is not None else None
        if name is None or mask is None:
            raise _no_mask(path, root / masks / f"{to_mask(name) if name else '?'}.*")
        pairs.append(Pair(f"{group}/{name}" if group else name, path, mask, group))
    # With a glob most masks may belong to images that were not asked for.
    alone = set(mask_by_stem.values()) - {pair.mask for pair in pairs}
    if alone and not glob:
        raise LayoutError(
            f"The mask {min(alone)} has no image in {root / images}.",
            remedy="Add the image, or take the mask out of the folder.",
        )
    return tuple(sorted(pairs))


def _no_mask(image: Path, expected: Path) -> LayoutError:
    return LayoutError(
        f"The image {image} has no mask; expected {expected}.",
        remedy="Add the mask, or take the image out of the folder.",
    )


def _by_pattern(root: Path, layout: str, glob: Sequence[str]) -> Found:
    image_pattern, equals, mask_pattern = layout.partition("=")
    if not equals or image_pattern.count("{id}") != 1 or "{id}" not in mask_pattern:
        raise LayoutError(
            f"The layout {layout!r} is not IMAGE=MASK with {{id}} in both.", remedy=_REMEDY_PATTERN
        )
    before, after = image_pattern.split("{id}")
    # {id} may reach over folders, so that one pattern serves a tree.
    rule = re.compile(re.escape(before) + "(?P<id>.+?)" + re.escape(after))
    pairs = []
    for path in sorted(root.rglob("*")):
        match = rule.fullmatch(path.relative_to(root).as_posix())
        if match is None or not path.is_file() or not _wanted(path, glob):
            continue
        mask = root / mask_pattern.replace("{id}", match["id"])
        if not mask.is_file():
            raise LayoutError(
                f"The image {path} has no mask; expected {mask}.",
                remedy="Add the mask, or correct --layout.",
            )
        group = match["id"].rpartition("/")[0]
        pairs.append(Pair(match["id"], path, mask, group))
    if not pairs:
        raise LayoutError(
            f"No file under {root} matches {image_pattern!r}.", remedy="Correct --layout."
        )
    return Found(layout, tuple(sorted(pairs)))


def has_pairs(root: Path) -> bool:
    """Whether a folder is of a known layout, be it sound or broken."""
    try:
        return root.is_dir() and bool(_readings(root, ()))
    except LayoutError:
        return True


def _readings(root: Path, glob: Sequence[str]) -> list[Found]:
    tried = (layout(root, glob) for layout in (_side_by_side, _groups, _numbered, _suffixed))
    return [found for found in tried if found is not None]


def images_under(root: Path, glob: Sequence[str] = ()) -> list[Path]:
    """All images in a folder and its folders, sorted; hidden ones are left out."""
    return sorted(_images_below(root, glob))


def has_images_under(root: Path) -> bool:
    """Whether `images_under` finds any; looks no farther than to the first."""
    return next(_images_below(root, ()), None) is not None


def _images_below(root: Path, glob: Sequence[str]) -> Iterator[Path]:
    for path in root.rglob("*"):
        if (
            path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(root).parts)
            and _wanted(path, glob)
            and is_image_file(path)
        ):
            yield path


def is_image_file(path: Path) -> bool:
    """Whether a file is an image: by its ending, or where that says nothing by its content.

    To open each of 100,000 files takes minutes, and what is amiss is said when it is read.
    """
    if is_sidecar(path):
        return False
    return path.suffix.lower() in _IMAGE_SUFFIXES or is_raster(path)


def _images_in(folder: Path, glob: Sequence[str] = ()) -> list[Path]:
    if not folder.is_dir():
        return []
    # To ask each of 100,000 paths what it is, and to sort them as paths, takes many seconds.
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_file())
    paths = (folder / name for name in names)
    return [path for path in paths if _wanted(path, glob) and is_image_file(path)]


def is_sidecar(path: Path) -> bool:
    """Whether GDAL keeps it beside an image: its overviews or validity, TIFFs themselves."""
    return path.suffix.lower() in (".ovr", ".msk") and path.with_suffix("").exists()


def _wanted(path: Path, glob: Sequence[str]) -> bool:
    return not glob or any(fnmatch(path.name, pattern) for pattern in glob)


def _by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(path.stem, path)
        if other is not path:
            raise LayoutError(
                f"Two masks are called {path.stem!r}: {other} and {path}.",
                remedy="Keep one of them, or choose by --layout.",
            )
    return found
