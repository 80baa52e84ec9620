"""Read and write folders of image/mask pairs, and read folders of images without labels.

Which file of a folder is the image and which its mask is detected and never guessed. A reading is
one way to pair the files of a folder. Every known reading is tried, and the folder is accepted only
if exactly one of them fits.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from rooftrace.core.errors import DataError, LabelError, LayoutError
from rooftrace.core.text import plural
from rooftrace.core.types import Progress, RasterSource, Window
from rooftrace.io.files import write_atomically
from rooftrace.io.legend import NODATA
from rooftrace.io.masks import mask_sink
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.image_files import (
    SceneOpener,
    entries_below,
    has_images_under,
    image_name,
    images_in,
    images_under,
    is_image_file,
    matches_glob,
    write_image,
)
from rooftrace.labels.mask_values import LabelFile, LabelRule
from rooftrace.labels.source import (
    SceneEntry,
    SceneSet,
    SourceKind,
    WriteOptions,
    WriteResult,
    lost_gsd_note,
)

T = TypeVar("T")

KNOWN = (
    "images/NAME.ext + masks/NAME.ext",
    "GROUP/images/NAME.ext + GROUP/masks/NAME.ext",
    "train/images/img_N.ext + train/masks/mask_N.ext (test/ unlabelled)",
    "images/images/NAME.ext + label/label/NAME_label.ext",
)
_REMEDY_PATTERN = 'Give it with --layout, for example --layout "a/{id}.jpg=b/{id}_gt.png".'


@dataclass(frozen=True)
class PairedFolder:
    """Contents of a folder: pairs, sorted by id, and images without a label.

    The key of each entry is its mask file, or None. Its id is the part of the file name that stands
    for NAME, after the group's folder if there is one. Its group is the folder that it comes from.
    """

    reading: str
    pairs: tuple[SceneEntry, ...]
    unlabelled: tuple[SceneEntry, ...] = ()


def pair_images_and_masks(
    root: Path, *, layout: str | None = None, glob: Sequence[str] = ()
) -> PairedFolder:
    """Pair the images and masks under `root`.

    Args:
        root: Data folder.
        layout: `IMAGE_PATTERN=MASK_PATTERN` with `{id}` in both, relative to `root`; detected by
            default.
        glob: Patterns for image file names; only images that match one are used.

    Raises:
        LayoutError: There is no folder, no reading or several readings fit, an image has no mask, a
            mask has no image, or two files have one id. The message names the files.
    """
    if not root.is_dir():
        found = f"{root} is a file of an unknown kind" if root.exists() else f"There is no {root}"
        raise LayoutError(
            f"{found}; a folder was expected.",
            remedy="Give the folder of images and masks, or the kind of the file with --kind.",
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
        images = images_in(root)
        among = f", including {plural(len(images), 'image')}" if images else ""
        raise LayoutError(
            f"{root} has no image/mask pairs in a known layout"
            f"{' that match ' + repr(list(glob)) if glob else ''}; "
            f"it contains {inside or 'nothing'}{among}. "
            f"Known: {'; '.join(KNOWN)}.",
            remedy=_REMEDY_PATTERN,
        )
    return readings[0]


def find_pairs(root: Path) -> tuple[SceneEntry, ...]:
    """Return the image/mask pairs under `root`; none if it is no folder of pairs."""
    try:
        return pair_images_and_masks(root).pairs
    except LayoutError:
        return ()


def masks_under(root: Path) -> frozenset[Path]:
    """Return the masks of the image/mask pairs under `root`; none if it is no folder of pairs."""
    return frozenset(pair.key for pair in find_pairs(root))


def select(ordered: Sequence[T], part: str | None) -> tuple[T, ...]:
    """Return the slice `part` of a sorted sequence, such as `"[:15]"`.

    Raises:
        LayoutError: `part` is not a slice.
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


def _side_by_side(root: Path, glob: Sequence[str]) -> PairedFolder | None:
    pairs = _pair_up(root, "images", "masks", glob)
    return PairedFolder(KNOWN[0], pairs) if pairs else None


def _groups(root: Path, glob: Sequence[str]) -> PairedFolder | None:
    pairs: list[SceneEntry] = []
    rest: list[tuple[Path, SceneEntry]] = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        found = _pair_up(folder, "images", "masks", glob, group=folder.name)
        pairs += found
        if not found:
            images = images_in(folder / "images", glob)
            rest += [
                (folder / "masks", SceneEntry(f"{folder.name}/{path.stem}", path, folder.name))
                for path in images
            ]
    if not pairs:
        return None
    for masks, entry in rest:
        if entry.image is not None and masks.is_dir():
            raise _no_mask(entry.image, masks / f"{entry.image.stem}.*")
    return PairedFolder(KNOWN[1], _by_id(pairs), tuple(entry for _, entry in rest))


def _numbered(root: Path, glob: Sequence[str]) -> PairedFolder | None:
    def number(stem: str) -> str | None:
        match = re.fullmatch(r"img_(.+)", stem)
        return match.group(1) if match else None

    pairs = _pair_up(
        root / "train", "images", "masks", glob, to_id=number, to_mask=lambda n: f"mask_{n}"
    )
    if not pairs:
        return None
    unlabelled = tuple(
        SceneEntry(path.stem, path, "test") for path in images_in(root / "test", glob)
    )
    return PairedFolder(KNOWN[2], pairs, unlabelled)


def _suffixed(root: Path, glob: Sequence[str]) -> PairedFolder | None:
    pairs = _pair_up(root, "images/images", "label/label", glob, to_mask=lambda n: f"{n}_label")
    return PairedFolder(KNOWN[3], pairs) if pairs else None


def _pair_up(
    root: Path,
    images: str,
    masks: str,
    glob: Sequence[str],
    *,
    to_id: Callable[[str], str | None] = lambda stem: stem,
    to_mask: Callable[[str], str] = lambda name: name,
    group: str = "",
) -> tuple[SceneEntry, ...]:
    """Return the pairs under `root`; empty if this reading fits no file."""
    image_files = images_in(root / images, glob)
    mask_by_stem = _by_stem(images_in(root / masks))
    named = [(to_id(path.stem), path) for path in image_files]
    if not any(name is not None and to_mask(name) in mask_by_stem for name, _ in named):
        return ()
    doubled = [n for n, count in Counter(n for n, _ in named if n is not None).items() if count > 1]
    if doubled:
        files = [str(path) for name, path in named if name == doubled[0]]
        raise LayoutError(
            f"Two images are called {doubled[0]!r}: {' and '.join(files)}.",
            remedy="Keep one of them, or choose with --layout.",
        )
    pairs = []
    for name, path in named:
        mask = mask_by_stem.get(to_mask(name)) if name is not None else None
        if name is None or mask is None:
            raise _no_mask(path, root / masks / f"{to_mask(name) if name else '?'}.*")
        pairs.append(SceneEntry(f"{group}/{name}" if group else name, path, group, mask))
    # With a glob, most masks may belong to images that are not wanted.
    alone = set(mask_by_stem.values()) - {pair.key for pair in pairs}
    if alone and not glob:
        raise LayoutError(
            f"The mask {min(alone)} has no image in {root / images}.",
            remedy="Add the image, or remove the mask from the folder.",
        )
    return _by_id(pairs)


def _no_mask(image: Path, expected: Path) -> LayoutError:
    return LayoutError(
        f"The image {image} has no mask; expected {expected}.",
        remedy="Add the mask, or remove the image from the folder.",
    )


def _by_pattern(root: Path, layout: str, glob: Sequence[str]) -> PairedFolder:
    image_pattern, equals, mask_pattern = layout.partition("=")
    if not equals or image_pattern.count("{id}") != 1 or "{id}" not in mask_pattern:
        raise LayoutError(
            f"The layout {layout!r} is not IMAGE=MASK with {{id}} in both.", remedy=_REMEDY_PATTERN
        )
    before, after = image_pattern.split("{id}")
    # {id} may contain folders, so that one pattern matches a tree.
    rule = re.compile(re.escape(before) + "(?P<id>.+?)" + re.escape(after))
    pairs = []
    for path in sorted(root.rglob("*")):
        match = rule.fullmatch(path.relative_to(root).as_posix())
        if match is None or not path.is_file() or not matches_glob(path, glob):
            continue
        mask = root / mask_pattern.replace("{id}", match["id"])
        if not mask.is_file():
            raise LayoutError(
                f"The image {path} has no mask; expected {mask}.",
                remedy="Add the mask, or correct --layout.",
            )
        group = match["id"].rpartition("/")[0]
        pairs.append(SceneEntry(match["id"], path, group, mask))
    if not pairs:
        raise LayoutError(
            f"No file under {root} matches {image_pattern!r}.", remedy="Correct --layout."
        )
    return PairedFolder(layout, _by_id(pairs))


def _by_id(entries: Sequence[SceneEntry]) -> tuple[SceneEntry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.id))


def has_pairs(root: Path) -> bool:
    """Return whether a folder has a known layout, even one with errors."""
    try:
        return root.is_dir() and bool(_readings(root, ()))
    except LayoutError:
        return True


def _readings(root: Path, glob: Sequence[str]) -> list[PairedFolder]:
    tried = (layout(root, glob) for layout in (_side_by_side, _groups, _numbered, _suffixed))
    return [found for found in tried if found is not None]


def _by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(path.stem, path)
        if other is not path:
            raise LayoutError(
                f"Two masks are called {path.stem!r}: {other} and {path}.",
                remedy="Keep one of them, or choose with --layout.",
            )
    return found


CARD = "rooftrace.toml"
"""Name of the data card in a folder of data: the `SourceConfig` with which it is read."""


def _mask_of(entry: SceneEntry, image: RasterSource, rule: LabelRule) -> LabelFile | None:
    """Return the label of an entry whose key is its mask file, or None."""
    return None if entry.key is None else LabelFile(entry.key, rule, image.grid, image.name)


def _read_folder(root: Path, config: SourceConfig, labels: LabelConfig) -> SceneSet:
    """Read a folder of image/mask pairs; see `pair_images_and_masks` for the errors."""
    found = pair_images_and_masks(root, layout=config.layout, glob=config.globs)
    return SceneSet.of(
        FOLDER.name,
        root.resolve().name,
        config,
        labels,
        found.pairs,
        SceneOpener.of(config, partial(_mask_of, rule=labels.rule())),
        reading=found.reading,
        unlabelled=found.unlabelled,
    )


def _read_images(root: Path, config: SourceConfig, labels: LabelConfig) -> SceneSet:
    """Read all images under a folder, or one image; none has a label."""
    files = [root] if root.is_file() else images_under(root, config.globs)
    if not files:
        raise DataError(
            f"{root} has no image{' that matches ' + repr(config.glob) if config.glob else ''}.",
            remedy="Name the folder that holds the images.",
        )
    return SceneSet.of(
        IMAGES.name,
        root.resolve().name,
        config,
        labels,
        (),
        SceneOpener.of(config, partial(_mask_of, rule=labels.rule())),
        reading="images without labels",
        unlabelled=entries_below(root.parent if root.is_file() else root, files),
    )


def _write_folder(
    source: SceneSet, out: Path, options: WriteOptions, progress: Progress | None
) -> WriteResult:
    """Write `images/` and `masks/` side by side and a card; masks contain class indices."""
    # Masks with more than 255 classes need the card to define NODATA as unknown.
    unknown = len(source.classes) > NODATA
    gsds_m: set[float | None] = set()
    for entry, scene in source.opened(progress):
        name = image_name(entry.id)
        write_image(scene.image, entry.image, out / "images", name)
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
        path = out / "masks" / (name + (".png" if grid.crs is None else ".tif"))
        with mask_sink(path, grid) as sink:
            sink.write(Window.whole(grid.shape), data)
    # The card overrides the georeference of all images.
    gsd_m = gsds_m.pop() if len(gsds_m) == 1 else None
    write_card(out, source, gsd_m=gsd_m, unknown=unknown)
    return WriteResult(out, len(source), lost_gsd_note(gsds_m))


def write_card(out: Path, source: SceneSet, *, gsd_m: float | None, unknown: bool) -> None:
    """Write the card of a folder of pairs: facts that the files cannot hold.

    Args:
        out: Folder of the pairs.
        source: Set that was written.
        gsd_m: Metres per pixel that were given for all images.
        unknown: Whether masks contain NODATA.
    """
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


def _is_images(path: Path) -> bool:
    return has_images_under(path) if path.is_dir() else is_image_file(path)


FOLDER = SourceKind(
    "folder",
    "images and masks, in pairs of files",
    has_pairs,
    _read_folder,
    _write_folder,
    frozenset({"layout"}),
)
IMAGES = SourceKind("images", "images without labels", _is_images, _read_images)
