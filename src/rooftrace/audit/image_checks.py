"""Checks of the images of a set: each returns a finding, or None if all is well."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from rooftrace.audit.facts import Finding, FindingContext, SceneFacts, make_finding, share
from rooftrace.core.text import plain_number, plural
from rooftrace.io.web_mercator import TileName

_FLAT = 0.05
"""Least share of a scene's pixels for unmarked nodata. Less may be an overexposed roof."""

_FEW = 0.02
"""Least share of scenes with white or black at the edge. Fewer are bright roofs and deep shadow."""

_NOTHING = 0.02
"""Standard deviation of luma below which an image shows no detail, in shares of full scale. It is
five of 255 levels, as in images of water, mist or a single colour."""

_SOFT = 0.03
"""Sharpness below which images look enlarged. Images as their cameras took them have 0.1 to 3. Each
enlargement by two divides it by seven, as the zooms of OpenAerialMap's tiles show."""

_DARK, _BRIGHT = 0.06, 0.94
"""Mean luma below which an image is nearly black, and above which it is nearly white."""

_RANGE = 0.25
"""Share of a wide dtype's range, up to two deviations above the mean, below which the range is
called unused. Values of 12 bits in 16 use 0.06."""

_INNER = 0.001
"""Least share of a scene's pixels that are nodata inside the image."""

_OFTEN = 0.05
"""Share of the scenes from which something counts as common."""

_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "GTiff",
    ".tiff": "GTiff",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".gif": "GIF",
}
"""File format that each file extension stands for."""


def unreadable(context: FindingContext) -> Finding | None:
    """Find images that cannot be opened or decoded."""
    scenes = [f for f in context.facts if f.image_error]
    if not scenes:
        return None
    return make_finding(
        "image.unreadable",
        "error",
        f"{plural(len(scenes), 'image')} of {len(context.facts):,} cannot be read",
        scenes,
        detail=scenes[0].image_error,
        remedy="Training would stop at the first of them. Copy them again from their source, or "
        "remove them together with their labels.",
    )


def different_bands(context: FindingContext) -> Finding | None:
    """Find images whose bands or dtype differ from those of most images."""
    kinds = Counter((f.bands, f.dtype) for f in context.read)
    if len(kinds) < 2:
        return None
    (most, _), *others = kinds.most_common()
    scenes = [f for f in context.read if (f.bands, f.dtype) != most]
    listed = ", ".join(
        f"{plural(count, 'image')} with {plural(bands, 'band')} of {dtype}"
        for (bands, dtype), count in [(most, kinds[most]), *others][:4]
    )
    return make_finding(
        "image.bands",
        "error",
        f"Images differ in their bands or pixel type: {listed}",
        scenes,
        detail="A network reads a fixed number of bands of one pixel type.",
        remedy="Convert all images to the same bands and type "
        "(gdal_translate -b 1 -b 2 -b 3 -ot Byte), or select images of one kind with glob.",
    )


def unmarked_nodata(context: FindingContext) -> Finding | None:
    """Find one extreme colour at the edges of images that is not declared as nodata."""
    by_colour: dict[tuple[int, ...], list[SceneFacts]] = defaultdict(list)
    for f in context.read:
        if f.flat_colour is not None and f.flat_share >= _FLAT:
            by_colour[f.flat_colour].append(f)
    if not by_colour:
        return None
    colour, scenes = max(by_colour.items(), key=lambda item: len(item[1]))
    if len(scenes) < _FEW * len(context.read):
        return None
    inside = float(np.mean([f.flat_share for f in scenes]))
    values = ", ".join(map(str, colour))
    return make_finding(
        "image.flat",
        "warning" if inside * len(scenes) >= _FEW * len(context.read) else "note",
        f"{share(inside, 1)} of the pixels of {plural(len(scenes), 'image')} are "
        f"{_colour_name(colour)} at the edges and not marked as nodata",
        scenes,
        detail="These areas have exactly this colour and touch the edge of the image. They would "
        "count as background in the loss and in the scores, and would shift the mean of the bands.",
        remedy="Declare the colour as nodata in the configuration of the set: "
        f"nodata = [{values}].",
        by=lambda f: f.flat_share,
    )


def several_zooms(context: FindingContext) -> Finding | None:
    """Find tiles whose names say that they show the same ground at several zooms."""
    folders = context.source.kind == "tiles"
    tiles: dict[TileName, SceneFacts] = {}
    paths = {e.id: e.image for e in (*context.source.entries, *context.source.unlabelled)}
    for f in context.facts:
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
    # The middle zoom of three keeps many images that still show whole buildings.
    best = sorted(zooms)[len(zooms) // 2]
    chosen = f"zoom = {best}" if folders else f'glob = "*-{best}.*"'
    has_blocks = all(f.is_georeferenced for f in context.facts)
    or_split = ", or split by place: rooftrace split --by block" if has_blocks else ""
    return make_finding(
        "leakage.zooms",
        "warning",
        f"{plural(len(scenes), 'image')} of {len(context.facts):,} show the same ground at "
        "several zooms",
        scenes,
        detail=f"The file names say: {listed}. After a random split the model would be tested on "
        "ground that it was trained on, and the scores would be too good. The set also covers less "
        "ground than its number of images suggests.",
        remedy=f"Use one zoom, such as {chosen}{or_split}.",
    )


def nothing_shown(context: FindingContext) -> Finding | None:
    """Find images without detail."""
    empty = [f for f in context.read if f.valid_share == 0]
    plain = [f for f in context.shown if f.contrast < _NOTHING]
    built = [f for f in plain if context.built_up(f) > _OFTEN]
    scenes = built + empty + [f for f in plain if f not in built]
    if not built and len(scenes) < max(_OFTEN * len(context.read), 1):
        return None
    detail = (
        f"{plural(len(empty), 'image contains', 'images contain')} only nodata, and "
        f"{plural(len(plain), 'image shows', 'images show')} water, mist or a single colour."
    )
    if built:
        detail += (
            f" The label shows buildings in {len(built):,} of these, which are listed first. "
            "There, image and label do not match."
        )
    return make_finding(
        "image.nothing",
        "warning" if built or len(empty) >= _OFTEN * len(context.read) else "note",
        f"Almost no detail in {plural(len(scenes), 'image')} of {len(context.read):,}",
        scenes,
        detail=detail,
        remedy="Look at them, and remove those that do not show the ground.",
    )


def enlarged(context: FindingContext) -> Finding | None:
    """Find images whose pixels are finer than what they show."""
    by_gsd: dict[float | None, list[SceneFacts]] = defaultdict(list)
    for f in context.shown:
        if f.contrast >= _NOTHING:
            by_gsd[None if f.gsd_m is None else round(f.gsd_m, 2)].append(f)
    soft = [
        (gsd, scenes)
        for gsd, scenes in by_gsd.items()
        if len(scenes) >= _OFTEN * len(context.shown)
        and float(np.median([f.sharpness for f in scenes])) < _SOFT
    ]
    if not soft:
        return None
    gsd, scenes = max(soft, key=lambda item: len(item[1]))
    at = "" if gsd is None else f" at {plain_number(scenes[0].gsd_m or 0.0, 2)} m per pixel"
    return make_finding(
        "image.soft",
        "note",
        f"No detail as fine as a pixel in {plural(len(scenes), 'image')}{at}",
        scenes,
        detail="They look as if they were enlarged three times or more, or strongly compressed. "
        f"Their median sharpness is {np.median([f.sharpness for f in scenes]):.3f}; images as a "
        "camera took them have more than 0.1.",
        remedy="Train and predict with coarser pixels (gsd_m of the model). It loses no visible "
        "detail and is faster.",
        by=lambda f: -f.sharpness,
    )


def inner_nodata(context: FindingContext) -> Finding | None:
    """Find images in which a nodata value removed shadows or roofs."""
    scenes = [f for f in context.read if f.inner_nodata_share >= _INNER]
    if len(scenes) < max(_OFTEN * len(context.read), 1):
        return None
    lost = float(np.mean([f.inner_nodata_share for f in scenes]))
    return make_finding(
        "image.pierced",
        "note",
        f"In {plural(len(scenes), 'image')}, {share(lost, 1)} of the pixels are nodata inside "
        "the image",
        scenes,
        detail="Usually black shadows or white roofs had the value that marks nodata when the "
        "images were exported. These pixels are left out of the loss and the scores.",
        remedy="If there are many, export the images again with a mask or an alpha band that marks "
        "only the outside.",
        by=lambda f: f.inner_nodata_share,
    )


def range_unused(context: FindingContext) -> Finding | None:
    """Find images of a wide dtype whose values use little of its range."""
    scenes = [f for f in context.shown if f.dtype != "uint8" and f.mean]
    if not scenes:
        return None
    used = float(np.median([max(m + 2 * s for m, s in zip(f.mean, f.std)) for f in scenes]))
    if used >= _RANGE:
        return None
    three = any(len(f.mean) == 3 for f in scenes)
    normalised = ', and so is the normalisation of three bands, normalise = "auto"' if three else ""
    return make_finding(
        "image.range",
        "note",
        f"Pixels are {scenes[0].dtype} but use only {share(used, 1)} of its range",
        scenes,
        detail="This is usual for imagery of 10 to 12 bits that is stored in 16. Brightness and "
        "contrast in this audit are shares of the whole range, and the images look black in other "
        "programs.",
        remedy="Give full_scale, the brightest value, in the training configuration, such as 4095 "
        f"for 12 bits. Changes of colours are shares of it{normalised}.",
    )


def dark_or_bright(context: FindingContext) -> Finding | None:
    """Find images that are nearly black or nearly white."""
    scenes = [
        f for f in context.shown if f.dtype == "uint8" and not _DARK <= f.brightness <= _BRIGHT
    ]
    if len(scenes) < max(_OFTEN * len(context.shown), 1):
        return None
    dark = sum(f.brightness < _DARK for f in scenes)
    return make_finding(
        "image.light",
        "note",
        f"{plural(dark, 'image is', 'images are')} nearly black and "
        f"{plural(len(scenes) - dark, 'image is', 'images are')} nearly white",
        scenes,
        remedy="Check whether they were exported with the wrong range of values.",
        by=lambda f: abs(f.brightness - 0.5),
    )


def unknown_gsd(context: FindingContext) -> Finding | None:
    """Find images whose metres per pixel are unknown."""
    scenes = [f for f in context.read if f.gsd_m is None]
    known = [f.gsd_m for f in context.read if f.gsd_m is not None]
    if not scenes:
        return None
    if known:
        return make_finding(
            "gsd.unknown",
            "warning",
            f"The metres per pixel of {plural(len(scenes), 'image')} of {len(context.read):,} are "
            "unknown",
            scenes,
            detail=f"The other images have {plain_number(min(known))} to "
            f"{plain_number(max(known))} m per pixel.",
            remedy="Georeference these images, or put them in a set of their own with gsd_m.",
        )
    return make_finding(
        "gsd.unknown",
        "note",
        "The metres per pixel of all images are unknown",
        scenes,
        detail="Sizes are given in pixels only. A model that is trained without metres makes "
        "errors on images of another resolution.",
        remedy="If you know the value, add it to the configuration of the set: gsd_m = 0.5.",
    )


def alpha_beside_none(context: FindingContext) -> Finding | None:
    """Find images with an alpha band beside others without one."""
    scenes = [f for f in context.read if f.has_alpha]
    if not scenes or len(scenes) == len(context.read):
        return None
    return make_finding(
        "image.alpha",
        "note",
        f"Alpha channel in {plural(len(scenes), 'image')} of {len(context.read):,}, none in the "
        "others",
        scenes,
        detail="rooftrace reads alpha as a mask of valid pixels, never as a band, so both kinds "
        "can be used together. Other programs may fail on the mix or read alpha as a colour.",
    )


def other_format(context: FindingContext) -> Finding | None:
    """Find files whose content does not fit their extension."""
    wrong: dict[tuple[str, str], list[SceneFacts]] = defaultdict(list)
    for f in context.read:
        extension = Path(f.image).suffix.lower()
        if f.file_format and _FORMATS.get(extension, f.file_format) != f.file_format:
            wrong[extension, f.file_format].append(f)
    if not wrong:
        return None
    (extension, content), scenes = max(wrong.items(), key=lambda item: len(item[1]))
    return make_finding(
        "image.format",
        "note",
        plural(len(scenes), f"file called {extension} is", f"files called {extension} are")
        + f" {content} by content",
        scenes,
        detail="rooftrace reads files by their content, so these are read correctly. Other "
        "programs may refuse them."
        + (" JPEG compression has changed the colours at roof edges." if content == "JPEG" else ""),
    )


def _colour_name(colour: tuple[int, ...]) -> str:
    if not any(colour):
        return "black"
    if len(set(colour)) == 1:
        return "white"
    return f"of the colour ({', '.join(map(str, colour))})"
