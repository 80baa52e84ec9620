"""Findings about the images and labels of a set, by group of checks.

A group selects scenes for one check after another. A check without scenes gives no finding, so its
texts must stand an empty selection.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from rooftrace.audit.facts import Finding, FindingContext, SceneFacts, make_finding, share
from rooftrace.audit.measure import measure_set
from rooftrace.audit.offset import estimate_offsets, offset_findings
from rooftrace.core.text import plain_number, plural, set_option
from rooftrace.io.nodata import LEAST_FILL, colour_name
from rooftrace.io.pixels import may_be_infrared
from rooftrace.io.web_mercator import TileName
from rooftrace.labels.derived import hidden_background
from rooftrace.labels.source import SceneSet

_FEW = 0.02
"""Least share of scenes with white or black at the edge. Fewer are bright roofs and deep shadow."""

_NOTHING = 0.02
"""Standard deviation of luma below which an image shows no detail, in shares of full scale. It is
five of 255 levels, as in images of water, mist or a single colour."""

_INFRARED_SHARE = 0.5
"""Least share of images that may be infrared, see `io.pixels.may_be_infrared`."""

_OFTEN = 0.05
"""Share of the scenes from which something counts as common."""

_EMPTY_NOTE, _EMPTY_WARNING = 0.1, 0.5
"""Shares of labels without a building from which a note or a warning is given."""

_FULL = 0.95
"""Built-up share above which a label counts as full."""

_INVERTED = 0.7
"""Share of all pixels labelled as building above which classes may be swapped. The densest old
towns have 0.6."""

_CUT_NOTE, _CUT_WARNING = 0.5, 0.75
"""Shares of buildings cut by an image edge from which a note or a warning is given."""

_UNKNOWN = 0.05
"""Least share of valid pixels that the labels leave unknown."""

_SAMPLED = 50
"""Number of scenes that `first_findings` reads."""

_SEVERITIES = ("error", "warning", "note")

_Findings = Iterator[Finding | None]
"""Findings of a group of checks, in order of importance; None for a check without scenes."""


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings by severity; those of one severity keep their order."""
    return sorted(findings, key=lambda finding: _SEVERITIES.index(finding.severity))


def findings_of(facts: Sequence[SceneFacts], source: SceneSet) -> list[Finding]:
    """Return the findings about the images and labels of a set, the worst first.

    Keys of findings about images begin with `image.`, those about labels with `label.`. The other
    two are `gsd.unknown` and `leakage.zooms`. Each key appears at most once.
    """
    context = FindingContext(tuple(facts), source)
    groups = _files, _images, _labels, _pixels
    found = (finding for group in groups for finding in group(context))
    return worst_first(finding for finding in found if finding is not None)


def first_findings(source: SceneSet) -> tuple[Finding | None, tuple[Finding, ...]]:
    """Return the finding that labels show no building, or mostly buildings; and those on infrared,
    and on labels that are shifted or fit no image.

    At most 50 scenes are read, spread evenly; a set of more is not searched for a first building.
    """
    ids = source.ids[:: -(-len(source) // _SAMPLED)]
    sample = source.subset(ids)
    context = FindingContext(measure_set(sample), sample)
    found = (_no_building(context) if len(ids) == len(source) else None), _inverted(context)
    worst = next((finding for finding in found if finding is not None), None)
    infrared = _infrared(context)
    offsets = estimate_offsets(sample, context.facts) if worst is None else ()
    shifted = [
        one for one in offset_findings(offsets, source.label_shift_px) if one.severity == "warning"
    ]
    return worst, (*([] if infrared is None else [infrared]), *shifted)


def _files(c: FindingContext) -> _Findings:
    """Find images and labels that cannot be used as they are stored."""
    scenes = [f for f in c.facts if f.image_error]
    yield make_finding(
        "image.unreadable",
        "error",
        f"{plural(len(scenes), 'image')} of {len(c.facts):,} cannot be read",
        scenes,
        detail="".join(f.image_error for f in scenes[:1]),
        remedy="Training would stop at the first of them. Copy them again from their source, or "
        "remove them together with their labels.",
    )
    scenes = [f for f in c.read if f.label_error]
    causes = {f.label_remedy: f.label_error for f in reversed(scenes)}
    yield make_finding(
        "label.unreadable",
        "error",
        f"{plural(len(scenes), 'label')} of {len(c.facts):,} cannot be read",
        scenes,
        detail="".join(f"{message} " for message in reversed(causes.values()))
        + "Training would stop at the first of them.",
        remedy=" ".join(filter(None, reversed(causes))),
    )
    yield _no_building(c)


def _no_building(c: FindingContext) -> Finding | None:
    """Find out whether no label has a building."""
    if not c.labelled or c.class_px[c.source.building_class]:
        return None
    name = c.source.classes[c.source.building_class]
    return make_finding(
        "label.none",
        "error",
        f"No pixel of the class {name} in {plural(len(c.labelled), 'label')}",
        [f for f, _ in c.labelled],
        remedy="A model cannot learn buildings from this set. Check which value, colour or name "
        f"stands for this class in the labels, and give it: --set labels.values.{name}=…, "
        f"--set labels.palette.{name}=… or --set labels.names.{name}=….",
    )


def _images(c: FindingContext) -> _Findings:
    """Find images that differ from the others, have a fill, or show the same ground."""
    kinds = Counter((f.bands, f.dtype) for f in c.read).most_common()
    listed = ", ".join(
        f"{plural(count, 'image')} with {plural(bands, 'band')} of {dtype}"
        for (bands, dtype), count in kinds[:4]
    )
    yield make_finding(
        "image.bands",
        "error",
        f"Images differ in their bands or pixel type: {listed}",
        [f for f in c.read if (f.bands, f.dtype) != kinds[0][0]],
        detail="A network reads a fixed number of bands of one pixel type.",
        remedy="Convert all images to the same bands and type "
        "(gdal_translate -b 1 -b 2 -b 3 -ot Byte), or select images of one kind with glob.",
    )
    by_colour: dict[tuple[float, ...], list[SceneFacts]] = defaultdict(list)
    for f in c.read:
        if f.flat_colour is not None and f.flat_share >= LEAST_FILL:
            by_colour[f.flat_colour].append(f)
    colour, scenes = max(by_colour.items(), key=lambda item: len(item[1]), default=((), []))
    inside = float(np.mean([f.flat_share for f in scenes])) if scenes else 0.0
    yield make_finding(
        "image.flat",
        "warning" if inside * len(scenes) >= _FEW * len(c.read) else "note",
        f"{share(inside, 1)} of the pixels of {plural(len(scenes), 'image')} are "
        f"{colour_name(colour)} at the edges and not marked as nodata",
        scenes if len(scenes) >= _FEW * len(c.read) else (),
        detail="These areas have exactly this colour and touch the edge of the image. They would "
        "count as background in the loss and in the scores, and would shift the mean of the bands.",
        remedy=f"Give --nodata {','.join(f'{value:g}' for value in colour)}.",
        by=lambda f: f.flat_share,
    )
    yield _infrared(c)
    yield _several_zooms(c)


def _infrared(c: FindingContext) -> Finding | None:
    """Find near infrared in place of red."""
    scenes = [f for f in c.shown if f.bands == 3 and may_be_infrared(f.mean)]
    return make_finding(
        "image.infrared",
        "note",
        f"The first band of {plural(len(scenes), 'image')} of {len(c.read):,} may be near infrared",
        scenes if len(scenes) >= _INFRARED_SHARE * len(c.shown) else (),
        detail="It is much brighter than the others, and the third is as bright as the second. In "
        "colour infrared (CIR) plants are red; red soil and roofs have little blue.",
        remedy="If they are CIR, take the natural colours from the provider. A model of natural "
        "colours is wrong here; one that you train on CIR works on CIR alone.",
    )


def _several_zooms(c: FindingContext) -> Finding | None:
    """Find tiles whose names say that they show the same ground at several zooms."""
    folders = c.source.kind == "tiles"
    tiles: dict[TileName, SceneFacts] = {}
    paths = {e.id: e.image for e in (*c.source.entries, *c.source.unlabelled)}
    for f in c.facts:
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
    chosen = set_option("zoom", best) if folders else f"--glob '*-{best}.*'"
    has_blocks = all(f.is_georeferenced for f in c.facts)
    or_split = ", or split by place: rooftrace split --by block" if has_blocks else ""
    return make_finding(
        "leakage.zooms",
        "warning",
        f"{plural(len(scenes), 'image')} of {len(c.facts):,} show the same ground at several zooms",
        scenes,
        detail=f"The file names say: {listed}. After a random split the model would be tested on "
        "ground that it was trained on, and the scores would be too good. The set also covers less "
        "ground than its number of images suggests.",
        remedy=f"Use one zoom, such as {chosen}{or_split}.",
    )


def _inverted(c: FindingContext) -> Finding | None:
    """Find labels in which background and building may be swapped."""
    total = sum(c.class_px)
    built = c.class_px[c.source.building_class] if total else 0
    if len(c.source.classes) != 2 or built < _INVERTED * total or not built:
        return None
    unknown = float(np.mean([label.unknown_share for _, label in c.labelled]))
    background, building = (
        set_option(f"labels.values.{name}", value)
        for name, value in zip(c.source.classes, (255, 0))
    )
    look = f"Look at some labels. If they are swapped: {background} {building}."
    if c.source.kind in ("footprints", "tiles"):
        look = "Look at the polygons. If they also show land, name the attribute that says "
        look += "building: --set field=NAME"
    title, detail, remedy = hidden_background(built, total, unknown) or (
        f"{share(built, total)} of all pixels are labelled as building",
        "Even dense towns are built up to 60 % at most.",
        look,
    )
    scenes = [f for f, _ in c.labelled]
    return make_finding(
        "label.inverted", "warning", title, scenes, detail=detail, remedy=remedy, by=c.built_up
    )


def _labels(c: FindingContext) -> _Findings:
    """Find labels that are unlikely to be right, or of little use."""
    yield _inverted(c)
    names = [
        name
        for index, (name, px) in enumerate(zip(c.source.classes, c.class_px))
        if px == 0 and index != c.source.building_class
    ]
    if names and sum(c.class_px):
        yield Finding(
            "label.unused",
            "warning",
            f"No label contains a pixel of {', '.join(names)}",
            "A class that never occurs cannot be learnt, and its score of 0 lowers the mean of the "
            "scores.",
            "Remove it from classes, or check which value or colour stands for it in the labels.",
        )
    scenes = [f for f, label in c.labelled if not label.class_px[c.source.building_class]]
    part = len(scenes) / max(len(c.labelled), 1)
    yield make_finding(
        "label.empty",
        "warning" if part >= _EMPTY_WARNING else "note",
        f"No building in {plural(len(scenes), 'label')} of {len(c.labelled):,} ({share(part, 1)})",
        scenes if _EMPTY_NOTE <= part < 1 else (),
        detail="Some empty labels help: they teach what is not a building. With many of them a "
        "model tends to predict nothing. If their images show buildings, labels are missing.",
        remedy='Look at some of them. To draw them less often, set balance = "built_up": each step '
        "of built-up share, empty ground included, is then drawn equally often.",
        by=lambda f: f.contrast,
    )
    scenes = [f for f, _ in c.labelled if c.built_up(f) > _FULL]
    yield make_finding(
        "label.full",
        "warning" if len(scenes) >= 0.01 * len(c.labelled) else "note",
        f"Almost only building in {plural(len(scenes), 'label')} of {len(c.labelled):,}",
        scenes if len(c.labelled) > 1 else (),
        detail=f"Buildings cover more than {_FULL:.0%} of the pixels, which is rarely true on the "
        "ground.",
        remedy="Look at them. Correct the labels, or take the images out of the data.",
        by=c.built_up,
    )
    cut = sum(label.cut for _, label in c.labelled)
    sides = [min(f.shape_yx) * f.gsd_m for f, _ in c.labelled if f.gsd_m is not None]
    wide = f" The images are {np.median(sides):.0f} m wide." if sides else ""
    yield make_finding(
        "label.cut",
        "warning" if cut >= _CUT_WARNING * c.buildings else "note",
        f"{share(cut, c.buildings)} of the buildings are cut by the edge of their image",
        [f for f, label in c.labelled if label.cut] if cut >= _CUT_NOTE * c.buildings else (),
        detail="The network rarely sees a whole building, and the counts and sizes of buildings "
        f"are unreliable.{wide}",
        remedy="Use larger images: join tiles into scenes, or use a coarser zoom.",
    )
    part = float(np.mean([label.unknown_share for _, label in c.labelled])) if c.labelled else 0.0
    scenes = [f for f, label in c.labelled if label.unknown_share >= _UNKNOWN]
    yield make_finding(
        "label.unknown",
        "note",
        f"{share(part, 1)} of the valid pixels have no label",
        scenes if part >= _UNKNOWN else (),
        detail="They are marked as ignored and are left out of the loss and the scores.",
        by=lambda f: f.label.unknown_share if f.label else 0,
    )


def _pixels(c: FindingContext) -> _Findings:
    """Find images that show little, or whose scale is unknown."""
    empty = [f for f in c.read if f.valid_share == 0]
    # Of more than 8 bits, many sensors fill a small part: 12 bits in 16.
    high = max((f.brightness + 3 * f.contrast for f in c.shown), default=1.0)
    plain = [f for f in c.shown if f.contrast < _NOTHING * (1 if f.dtype == "uint8" else high)]
    built = [f for f in plain if c.built_up(f) > _OFTEN]
    scenes = built + empty + [f for f in plain if f not in built]
    mismatch = (
        f" The label shows buildings in {len(built):,} of these, which are listed first. There, "
        "image and label do not match."
    )
    yield make_finding(
        "image.nothing",
        "warning" if built or len(empty) >= _OFTEN * len(c.read) else "note",
        f"Almost no detail in {plural(len(scenes), 'image')} of {len(c.read):,}",
        scenes if built or len(scenes) >= _OFTEN * len(c.read) else (),
        detail=f"{plural(len(empty), 'image contains', 'images contain')} only nodata, and "
        f"{plural(len(plain), 'image shows', 'images show')} water, mist or a single colour."
        f"{mismatch if built else ''}",
        remedy="Look at them, and remove those that do not show the ground.",
    )
    scenes = [f for f in c.read if f.gsd_m is None]
    known = [f.gsd_m for f in c.read if f.gsd_m is not None]
    if known:
        yield make_finding(
            "gsd.unknown",
            "warning",
            f"The metres per pixel of {plural(len(scenes), 'image')} of {len(c.read):,} are "
            "unknown",
            scenes,
            detail=f"The other images have {plain_number(min(known))} to "
            f"{plain_number(max(known))} m per pixel.",
            remedy="Georeference these images, or put them in a set of their own with --gsd.",
        )
    else:
        yield make_finding(
            "gsd.unknown",
            "note",
            "The metres per pixel of all images are unknown",
            scenes,
            detail="Sizes are given in pixels only. A model that is trained without metres makes "
            "errors on images of another resolution.",
            remedy="If you know the value, give it with --gsd.",
        )
