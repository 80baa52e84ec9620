"""Findings about the images of a set."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from rooftrace.data.audit.facts import Finding, SceneFacts
from rooftrace.data.audit.told import Told, plural, share, tell
from rooftrace.data.tilenames import TileName

__all__ = [
    "alpha_beside_none",
    "dark_or_bright",
    "different_bands",
    "enlarged",
    "inner_nodata",
    "nothing_shown",
    "other_format",
    "range_unused",
    "several_zooms",
    "unknown_gsd",
    "unmarked_nodata",
    "unreadable",
]

_FLAT = 0.05
"""Of a scene's pixels: less may be an overexposed roof at the edge."""

_FEW = 0.02
"""Of the scenes: fewer with white or black at the edge are bright roofs and deep shadow."""

_NOTHING = 0.02
"""Standard deviation of luma: five of 255 steps, which is water, mist, or one colour."""

_SOFT = 0.03
"""Sharpness: images as their cameras took them have 0.1 to 3; enlarged twice it falls to a seventh,
and once more so, as at the zooms of OpenAerialMap's tiles."""

_DARK, _BRIGHT = 0.06, 0.94
_RANGE = 0.25
"""Of a wide dtype, what is used up to two deviations above the mean: 12 bits in 16 are 0.06."""

_INNER = 0.001
_OFTEN = 0.05

_ENDINGS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "GTiff",
    ".tiff": "GTiff",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".gif": "GIF",
}


def unreadable(told: Told) -> Finding | None:
    """Images that cannot be opened or decoded."""
    scenes = [f for f in told.facts if f.image_error]
    if not scenes:
        return None
    return tell(
        "image.unreadable",
        "error",
        f"{plural(len(scenes), 'image')} of {len(told.facts):,} cannot be read",
        scenes,
        detail=scenes[0].image_error,
        remedy="Get them again from where they came from, or take them out with their labels; "
        "training stops at the first.",
    )


def different_bands(told: Told) -> Finding | None:
    """Images that one network cannot read."""
    kinds = Counter((f.bands, f.dtype) for f in told.read)
    if len(kinds) < 2:
        return None
    (most, _), *others = kinds.most_common()
    scenes = [f for f in told.read if (f.bands, f.dtype) != most]
    listed = ", ".join(
        f"{plural(count, 'image')} with {plural(bands, 'band')} of {dtype}"
        for (bands, dtype), count in [(most, kinds[most]), *others][:4]
    )
    return tell(
        "image.bands",
        "error",
        f"Images differ in what a pixel is: {listed}",
        scenes,
        detail="A network reads one number of bands of one dtype.",
        remedy="Convert them to one kind (gdal_translate -b 1 -b 2 -b 3 -ot Byte), or choose some "
        "with glob.",
    )


def unmarked_nodata(told: Told) -> Finding | None:
    """One extreme colour at the edges of images, which nothing says is nodata."""
    by_colour: dict[tuple[int, ...], list[SceneFacts]] = defaultdict(list)
    for f in told.read:
        if f.flat_colour is not None and f.flat_share >= _FLAT:
            by_colour[f.flat_colour].append(f)
    if not by_colour:
        return None
    colour, scenes = max(by_colour.items(), key=lambda item: len(item[1]))
    if len(scenes) < _FEW * len(told.read):
        return None
    inside = float(np.mean([f.flat_share for f in scenes]))
    values = ", ".join(map(str, colour))
    return tell(
        "image.flat",
        "warning" if inside * len(scenes) >= _FEW * len(told.read) else "note",
        f"{share(inside, 1)} of the pixels of {plural(len(scenes), 'image')} are "
        f"{_name_of(colour)}, and nothing says that they are nodata",
        scenes,
        detail="They lie in pieces of exactly that colour at the edges of the images. Taken for "
        "ground they count as background in loss and scores, and shift the mean of the bands.",
        remedy=f"Say so in the configuration of the set: nodata = [{values}].",
        by=lambda f: f.flat_share,
    )


def several_zooms(told: Told) -> Finding | None:
    """Tiles whose names say that they show the ground of other tiles."""
    folders = told.source.kind == "tiles"
    tiles: dict[TileName, SceneFacts] = {}
    paths = {e.id: e.image for e in (*told.source.entries, *told.source.unlabelled)}
    for f in told.facts:
        name = TileName.parse(paths.get(f.id) or Path(f.image), folders=folders)
        if name is not None:
            tiles[name] = f
    zooms = Counter(name.zoom for name in tiles)
    below: set[TileName] = set()
    above: set[TileName] = set()
    for name in tiles:
        for zoom in zooms:
            if zoom < name.zoom and (parent := name.parent(zoom)) in tiles:
                below.add(name)
                above.add(parent)
    if not below:
        return None
    scenes = [tiles[name] for name in sorted(below | above)]
    listed = ", ".join(f"{count:,} at zoom {zoom}" for zoom, count in sorted(zooms.items()))
    # Most scenes that still show whole buildings: the middle one of three.
    best = sorted(zooms)[len(zooms) // 2]
    chosen = f"zoom = {best}" if folders else f'glob = "*-{best}.*"'
    return tell(
        "leakage.zooms",
        "warning",
        f"{plural(len(scenes), 'image')} of {len(told.facts):,} show ground that others show at "
        "another zoom",
        scenes,
        detail=f"By their names: {listed}. Divided at random, the model is tested on ground that "
        "it was trained on, and the scores are too good; and there is less ground than images.",
        remedy=f"Take one zoom, such as {chosen}; or divide by place: rooftrace split --by block.",
    )


def nothing_shown(told: Told) -> Finding | None:
    """Images without content."""
    empty = [f for f in told.read if f.valid_share == 0]
    plain = [f for f in told.shown if f.contrast < _NOTHING]
    built = [f for f in plain if told.built_up(f) > _OFTEN]
    scenes = built + empty + [f for f in plain if f not in built]
    if not built and len(scenes) < max(_OFTEN * len(told.read), 1):
        return None
    detail = f"{len(empty):,} are all nodata, {len(plain):,} show water, mist or one colour."
    if built:
        detail += f" Labels see buildings in {len(built):,} of them: these come first."
    return tell(
        "image.nothing",
        "warning" if built or len(empty) >= _OFTEN * len(told.read) else "note",
        f"{plural(len(scenes), 'image')} of {len(told.read):,} show next to nothing",
        scenes,
        detail=detail,
        remedy="Look at them, and leave out those that are no picture of the ground.",
    )


def enlarged(told: Told) -> Finding | None:
    """Images with finer pixels than what they show."""
    by_gsd: dict[float | None, list[SceneFacts]] = defaultdict(list)
    for f in told.shown:
        if f.contrast >= _NOTHING:
            by_gsd[None if f.gsd_m is None else round(f.gsd_m, 2)].append(f)
    soft = [
        (gsd, scenes)
        for gsd, scenes in by_gsd.items()
        if len(scenes) >= _OFTEN * len(told.shown)
        and float(np.median([f.sharpness for f in scenes])) < _SOFT
    ]
    if not soft:
        return None
    gsd, scenes = max(soft, key=lambda item: len(item[1]))
    at = "" if gsd is None else f" at {scenes[0].gsd_m:.2g} m per pixel"
    return tell(
        "image.soft",
        "note",
        f"{plural(len(scenes), 'image')}{at} show nothing as fine as their pixels",
        scenes,
        detail="They look as if enlarged three times or more, or strongly compressed: the median "
        f"of their sharpness is {np.median([f.sharpness for f in scenes]):.3f}, and that of "
        "images as a camera took them is above 0.1.",
        remedy="Train and predict at coarser pixels (gsd_m of the model): it costs nothing that "
        "can be seen, and is faster.",
        by=lambda f: -f.sharpness,
    )


def inner_nodata(told: Told) -> Finding | None:
    """Shadows or roofs that a nodata value took."""
    scenes = [f for f in told.read if f.inner_nodata_share >= _INNER]
    if len(scenes) < max(_OFTEN * len(told.read), 1):
        return None
    lost = float(np.mean([f.inner_nodata_share for f in scenes]))
    return tell(
        "image.pierced",
        "note",
        f"In {plural(len(scenes), 'image')} {share(lost, 1)} of the pixels are nodata in the "
        "midst of the picture",
        scenes,
        detail="Most often black shadows or white roofs had the value that marks nodata when the "
        "images were made. They take no part in loss and scores.",
        remedy="If many: make the images again with a mask or alpha for the outside alone.",
        by=lambda f: f.inner_nodata_share,
    )


def range_unused(told: Told) -> Finding | None:
    """Wide dtypes whose values stay small."""
    scenes = [f for f in told.shown if f.dtype != "uint8" and f.mean]
    if not scenes:
        return None
    used = float(np.median([max(m + 2 * s for m, s in zip(f.mean, f.std)) for f in scenes]))
    if used >= _RANGE:
        return None
    return tell(
        "image.range",
        "note",
        f"Pixels are {scenes[0].dtype}, but use {share(used, 1)} of its range",
        scenes,
        detail="Imagery of 10 to 12 bits is stored in 16 so. Brightness and contrast above are in "
        "shares of the whole range, and images look black in other programs.",
        remedy="Nothing for training: the mean and deviation of the bands are measured.",
    )


def dark_or_bright(told: Told) -> Finding | None:
    """Images in which little is to be seen."""
    scenes = [f for f in told.shown if f.dtype == "uint8" and not _DARK <= f.brightness <= _BRIGHT]
    if len(scenes) < max(_OFTEN * len(told.shown), 1):
        return None
    dark = sum(f.brightness < _DARK for f in scenes)
    return tell(
        "image.light",
        "note",
        f"{plural(dark, 'image')} are nearly black, {len(scenes) - dark:,} nearly white",
        scenes,
        remedy="Look whether they were exported with the wrong range of values.",
        by=lambda f: abs(f.brightness - 0.5),
    )


def unknown_gsd(told: Told) -> Finding | None:
    """Metres per pixel that are not known, of all or of some."""
    scenes = [f for f in told.read if f.gsd_m is None]
    known = [f.gsd_m for f in told.read if f.gsd_m is not None]
    if not scenes:
        return None
    if known:
        return tell(
            "gsd.unknown",
            "warning",
            f"{plural(len(scenes), 'image')} of {len(told.read):,} do not say their metres per "
            "pixel",
            scenes,
            detail=f"The others have {min(known):.3g} to {max(known):.3g} m.",
            remedy="Give gsd_m for a set of these alone, or georeference them.",
        )
    return tell(
        "gsd.unknown",
        "note",
        "No image says its metres per pixel",
        scenes,
        detail="Sizes are in pixels alone, and a model that is trained in pixels is wrong on "
        "images of another resolution.",
        remedy="If you know it, say so in the configuration of the set: gsd_m = 0.5.",
    )


def alpha_beside_none(told: Told) -> Finding | None:
    """RGBA beside RGB."""
    scenes = [f for f in told.read if f.has_alpha]
    if not scenes or len(scenes) == len(told.read):
        return None
    return tell(
        "image.alpha",
        "note",
        f"{plural(len(scenes), 'image')} of {len(told.read):,} have an alpha channel, the others "
        "have none",
        scenes,
        detail="rooftrace takes alpha for what is valid and never for a band, so they go "
        "together; a program that stacks them fails, or sees a fourth colour.",
    )


def other_format(told: Told) -> Finding | None:
    """Content that is not what the ending says."""
    wrong: dict[tuple[str, str], list[SceneFacts]] = defaultdict(list)
    for f in told.read:
        ending = Path(f.image).suffix.lower()
        if f.file_format and _ENDINGS.get(ending, f.file_format) != f.file_format:
            wrong[ending, f.file_format].append(f)
    if not wrong:
        return None
    (ending, content), scenes = max(wrong.items(), key=lambda item: len(item[1]))
    return tell(
        "image.format",
        "note",
        f"{plural(len(scenes), 'file')} called {ending} are {content} by their content",
        scenes,
        detail="rooftrace goes by the content and reads them rightly; other programs may refuse "
        "them, and JPEG has changed the colours at the edges of roofs.",
    )


def _name_of(colour: tuple[int, ...]) -> str:
    if not any(colour):
        return "black"
    if len(set(colour)) == 1:
        return "white"
    return f"of the colour ({', '.join(map(str, colour))})"
