"""Files of predictions: their kind, and the scene of each by its name."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rooftrace.core.errors import LayoutError
from rooftrace.core.text import list_first
from rooftrace.io.companions import holds_results, is_image_file, is_result
from rooftrace.io.files import check_exists, visible_files
from rooftrace.io.vector_formats import is_vector_file
from rooftrace.labels.footprints import vector_files
from rooftrace.labels.mask_source import open_mask
from rooftrace.labels.shape_exports import drawn_files
from rooftrace.labels.source import SceneEntry

_WORDS = (
    "masks?|pred|preds|predictions?|predicted|prob|probs|probability|probabilities|seg|segmentation"
    "|labels?|instances?|cp|gt|buildings?|polygons?|footprints?|out|outputs?|results?"
)
_AFFIXES = re.compile(rf"[_\-. ](?:{_WORDS})$|^(?:{_WORDS})[_\-. ]", re.IGNORECASE)
_FOLDERS = re.compile(rf"(?<![^/])(?:{_WORDS}|images?)/", re.IGNORECASE)
"""Folders in a name that say what kind of file lies in them."""
_ENDINGS = frozenset(("png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp", "jp2"))


@dataclass(frozen=True)
class NameMatches:
    """Predictions matched to scenes by name.

    Args:
        number: Position of the prediction of each scene that has one, by the id of the scene.
        missing: Scenes without a prediction.
        surplus: Predictions without a scene.
    """

    number: Mapping[str, int]
    missing: tuple[str, ...]
    surplus: tuple[str, ...]

    def check(self, what: str, *, is_selection: bool) -> None:
        """Check that the predictions fit the scenes.

        Args:
            what: Name of the predictions, for errors.
            is_selection: True if the scenes are a selection, so that there may be predictions of
                other scenes.
        """
        surplus = () if is_selection and self.number else self.surplus
        if not (self.missing or surplus):
            return
        problems = []
        if self.missing:
            scenes = len(self.missing) + len(self.number)
            problems.append(
                f"{len(self.missing):,} of {scenes:,} labelled scenes have no prediction: "
                f"{list_first(self.missing)}"
            )
        if surplus:
            count = len(self.surplus) + len(self.number)
            problems.append(
                f"{len(surplus):,} of {count:,} predictions belong to no labelled scene: "
                f"{list_first(surplus)}"
            )
        remedy = "Give each labelled scene a prediction of the same name"
        if self.missing and self.number:
            remedy += "; or compare only those that have one, with --part, --glob or --split"
        elif self.number:
            remedy += '; or ignore other predictions: --part "[:]"'
        raise LayoutError(f"{what} does not fit the labels: {'; '.join(problems)}.", remedy=remedy)


def names_of_images(entries: Sequence[SceneEntry]) -> dict[str, str]:
    """Return the name of the image of each scene, without its ending; not those of several."""
    stems = {entry.id: entry.image.stem for entry in entries if entry.image is not None}
    counts = Counter(stems.values())
    return {scene_id: stem for scene_id, stem in stems.items() if counts[stem] == 1}


def match_scene_names(
    ids: Sequence[str], names: Sequence[str], what: str, images: Mapping[str, str] | None = None
) -> NameMatches:
    """Match scenes and predictions by name.

    The forms of a name are tried in this order: unchanged, without the ending of an image, with
    folders as part of the name (`a/b` is `a__b`), without folders such as `pred`, without folders,
    without words such as `_mask` and `pred_`; then those of the name of the image. The first form
    that fits counts.
    """
    by_form: dict[tuple[int, str], dict[str, None]] = {}
    levels = 0
    for scene_id in ids:
        image = (images or {}).get(scene_id, scene_id)
        for level, form in enumerate([*_forms(scene_id), *_forms(image)]):
            by_form.setdefault((level, form), {})[scene_id] = None
            levels = max(levels, level + 1)
    number: dict[str, int] = {}
    surplus = []
    for index, name in enumerate(names):
        keys = ((level, form) for form in _forms(name) for level in range(levels))
        scenes = [*next((by_form[key] for key in keys if key in by_form), ())]
        if len(scenes) > 1:
            raise LayoutError(
                f"{what}: {name!r} may belong to {len(scenes)} scenes: {list_first(scenes)}.",
                remedy="Put predictions into the same folders as their scenes.",
            )
        if not scenes:
            surplus.append(name)
            continue
        other = number.setdefault(scenes[0], index)
        if other != index:
            raise LayoutError(
                f"{what}: {names[other]!r} and {name!r} both belong to the scene {scenes[0]!r}.",
                remedy="Remove one of them.",
            )
    missing = tuple(scene_id for scene_id in ids if scene_id not in number)
    return NameMatches(number, missing, tuple(surplus))


def plain_name(name: str) -> str:
    """Return a name without the ending of an image file."""
    stem, point, ending = name.rpartition(".")
    return stem if stem and point and ending.lower() in _ENDINGS else name


def _forms(name: str) -> list[str]:
    """Return the forms of a name from the strictest to the loosest."""
    whole = name.replace("\\", "/").removeprefix("./")
    plain = plain_name(whole)
    forms = [plain, plain.replace("/", "__"), _FOLDERS.sub("", plain), plain.rpartition("/")[2]]
    forms += [_bare(form) for form in forms]
    return [whole, *forms]


def _bare(name: str) -> str:
    """Return a name without words that describe the kind of a file; never empty."""
    while (shorter := _AFFIXES.sub("", name)) and shorter != name:
        name = shorter
    return name


_OTHER_OUTPUTS = ("_preview", "_density")
"""Endings of files written by `rooftrace predict` that are not predictions."""

_KINDS = (
    "masks or probabilities (PNG, GeoTIFF, NPY, …), polygons (GPKG, GeoJSON, GeoParquet, "
    "Shapefile, KML, …), outlines in pixels (YOLO segmentation, SpaceNet's CSV, CVAT XML, …), COCO "
    "results (JSON), or a table of run lengths (CSV)"
)


@dataclass(frozen=True)
class PredictionFiles:
    """Files of predictions of one kind.

    Args:
        rasters: Masks or probabilities.
        vectors: Files of polygons; beside rasters, they are the outlines.
        drawn: Files of outlines in pixels.
    """

    path: Path
    rasters: tuple[Path, ...] = ()
    vectors: tuple[Path, ...] = ()
    table: Path | None = None
    results: Path | None = None
    drawn: tuple[Path, ...] = ()

    @property
    def kind(self) -> str:
        """Short name of the kind."""
        files = {
            "rasters": self.rasters,
            "polygons": self.vectors,
            "run lengths": self.table,
            "COCO results": self.results,
            "outlines in pixels": self.drawn,
        }
        return " and ".join(name for name, paths in files.items() if paths)

    def names(self, files: tuple[Path, ...]) -> list[str]:
        """Return the names of files below the path, without their endings."""
        top = self.path.parent if self.path in files else self.path
        return [file.relative_to(top).with_suffix("").as_posix() for file in files]


def find_predictions(path: Path) -> PredictionFiles:
    """Find out what kind of predictions a file or a folder holds.

    Pictures beside masks and polygons are ignored, and so is what else `rooftrace predict` writes.
    """
    check_exists(path)
    files = sorted(place / name for place, names in visible_files(path) for name in names)
    if drawn := tuple(drawn_files(files or [path])):
        return PredictionFiles(path, drawn=drawn)
    if is_vector_file(path):
        return PredictionFiles(path, vectors=(path,))
    if path.is_dir():
        is_one = is_result if holds_results(path) else _is_prediction
        inside = (file for place, _ in visible_files(path) for file in vector_files(place))
        vectors = [file for file in inside if is_one(file) and _is_prediction(file)]
        files = [file for file in files if is_one(file) and _is_prediction(file)]
        others = [file for file in files if file.is_file() and file not in vectors]
        rasters = [file for file in others if file.suffix == ".npy" or is_image_file(file)]
        plain = [file for file in rasters if open_mask(file, sharp=False).bands < 3]
        if vectors or plain:
            rasters = plain
        if is_one is is_result:
            # Of the formats of one layer, the GeoPackage.
            vectors = [*{file.with_suffix(""): file for file in vectors}.values()]
        if vectors or rasters:
            return PredictionFiles(path, tuple(rasters), tuple(vectors))
    elif path.suffix.lower() == ".json":
        return PredictionFiles(path, results=path)
    elif path.suffix.lower() == ".csv":
        return PredictionFiles(path, table=path)
    elif is_image_file(path) or path.suffix.lower() == ".npy":
        return PredictionFiles(path, rasters=(path,))
    raise LayoutError(
        f"{path} holds no predictions; expected {_KINDS}.",
        remedy="Name the file or folder that holds them.",
    )


def _is_prediction(file: Path) -> bool:
    return not plain_name(file.stem).endswith(_OTHER_OUTPUTS)
