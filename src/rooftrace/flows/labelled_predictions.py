"""Labelled scenes with the probabilities that a model predicts for them.

The network runs once over every scene. Its probabilities are kept on disk, so that a search for a
threshold or for weights can read them many times.

Probabilities are stored in the 255ths from which tiles are blended. At the thresholds of
`threshold_at`, the mask made from them equals that of `rooftrace predict` bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rooftrace.core.config import invalid_values
from rooftrace.core.errors import BundleError, ConfigError, DataError
from rooftrace.core.text import plain_number, plural
from rooftrace.core.types import Footprints, Progress, Scene, Window
from rooftrace.io.files import exporting
from rooftrace.io.legend import NODATA
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import match_reference, own_split, parse_reference
from rooftrace.metrics.pixel import ThresholdCurve
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.fingerprint import Fingerprint, fingerprint_of
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.block import Block
from rooftrace.predict.outputs import SceneOutputs
from rooftrace.predict.pipeline import run_many
from rooftrace.predict.plan import AS_FOUND, SceneOptions, ScenePlan, plan_scene
from rooftrace.predict.predictor import Predictor
from rooftrace.tiling.plan import PROB_ONE

_KNOWN, _TRUTH, _LABELLED = 1, 2, 4
"""Bits of a pixel: predicted, labelled as a building, labelled."""


@dataclass
class ScaleCounts:
    """Metres per pixel of images, as given or by their georeference; None if not known."""

    _gsds_m: list[float | None] = field(default_factory=list)

    def add(self, scene: Scene) -> None:
        """Count an image."""
        self._gsds_m.append(scene.stated_gsd_m or scene.image.grid.gsd_m)

    @property
    def is_assumed(self) -> bool:
        """True if there are images without metres per pixel."""
        return None in self._gsds_m

    def notes(self, model_gsd_m: float, images: SceneOptions) -> tuple[str, ...]:
        """Return one note on the metres per pixel with which a model read the images."""
        if images.scale is not None:
            count, factor = plural(len(self._gsds_m), "image"), plain_number(images.scale)
            return (f"Scale: {count} resized by the factor {factor}, as given.",)
        parts, known = [], [one for one in self._gsds_m if one is not None]
        if known:
            lowest, highest = plain_number(min(known)), plain_number(max(known))
            span = lowest if lowest == highest else f"{lowest} to {highest}"
            parts.append(f"{plural(len(known), 'image')} at {span} m per pixel")
        if self.is_assumed:
            parts.append(
                f"{plural(self._gsds_m.count(None), 'image')} without metres per pixel, assumed to "
                f"have the model's {plain_number(model_gsd_m)} m; if that is wrong, give them with "
                "--gsd"
            )
        return (f"Scale: {'; '.join(parts)}.",)


@dataclass
class LabelledSets:
    """Sets of labelled scenes that models are fitted to, and the progress over their scenes.

    Args:
        sources: The sets; every set has the same weight.
        part: Name of the part of the data, for the record.
        images: Bands, stretch and scale with which images are read.
        rounds: Number of times that each scene is counted.
    """

    sources: Sequence[SceneSet]
    part: str = "all"
    images: SceneOptions = AS_FOUND
    progress: Progress | None = None
    rounds: int = 1
    _done: int = 0

    @classmethod
    def open(
        cls,
        predictor: Predictor,
        folders: Sequence[SourceConfig],
        split: str | None,
        images: SceneOptions,
        progress: Progress | None,
    ) -> LabelledSets:
        """Open the sets, with labels read as in the training of a model.

        Raises:
            ConfigError: The model has more than two classes.
            DataError: There is no folder, or one has no labelled image, or none of the split.
        """
        if not folders:
            raise DataError("No data to fit the model to was given.", remedy="Name labelled data.")
        sources = [open_labelled(predictor, folder, split) for folder in folders]
        for source in sources:
            check_threshold_data(predictor.bundle.spec, source)
        part = "all" if split is None else parse_reference(split)[1]
        return cls(sources, part, images, progress)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sets."""
        return tuple(source.name for source in self.sources)

    def fingerprint(self, model_gsd_m: float | None) -> Fingerprint:
        """Return the data by which the scenes are recognised later, see `fingerprint_of`."""
        return fingerprint_of([(one.name, tuple(one)) for one in self.sources], model_gsd_m)

    def advance(self, scenes: int = 1) -> None:
        """Count further scenes as done."""
        self._done += scenes
        if self.progress is not None:
            self.progress(self._done, self.rounds * sum(map(len, self.sources)))

    def scale_notes(self, model_gsd_m: float | None) -> tuple[str, ...]:
        """Return a note on the metres per pixel of the images if some had to be assumed."""
        if model_gsd_m is None or self.images.scale is not None or self.images.gsd_m is not None:
            return ()
        counts = ScaleCounts()
        for source in self.sources:
            for scene in source:
                counts.add(scene)
        return counts.notes(model_gsd_m, self.images) if counts.is_assumed else ()


def protocol_of(predictor: Predictor) -> str:
    """Return how buildings and pixels are predicted, for records."""
    engine = predictor.engine
    return f"whole images as by rooftrace predict, {engine.name} {engine.precision}"


@dataclass(frozen=True)
class SceneProbabilities:
    """Probabilities and label of one scene.

    Args:
        score: (y, x) uint8 probability of the building in 255ths.
        bits: (y, x) uint8, see the properties.
    """

    score: NDArray[np.uint8]
    bits: NDArray[np.uint8]

    @property
    def known(self) -> NDArray[np.bool_]:
        """(y, x) pixels that the model predicted."""
        return (self.bits & _KNOWN) > 0

    @property
    def truth(self) -> NDArray[np.bool_]:
        """(y, x) pixels labelled as a building."""
        return (self.bits & _TRUTH) > 0

    @property
    def evaluated(self) -> NDArray[np.bool_]:
        """(y, x) pixels that both the model and the label know."""
        both = np.uint8(_KNOWN | _LABELLED)
        return np.asarray((self.bits & both) == both)


@dataclass(frozen=True)
class SetProbabilities:
    """Probabilities and labels of the scenes of one set."""

    source: SceneSet
    folder: Path
    images: SceneOptions = AS_FOUND

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: int) -> SceneProbabilities:
        score, bits = np.load(_path(self.folder, number), mmap_mode="r")
        return SceneProbabilities(score, bits)

    def __iter__(self) -> Iterator[SceneProbabilities]:
        return (self[number] for number in range(len(self)))

    def curve(self) -> ThresholdCurve:
        """Return the curve over all evaluated pixels, with one level for each of 1..255."""
        # There are as many bins as values: a value k reaches exactly the first k limits.
        curve = ThresholdCurve(PROB_ONE + 1)
        for scene in self:
            evaluated = scene.evaluated
            curve.add(scene.truth[evaluated], scene.score[evaluated])
        return curve


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number}.npy"


def threshold_at(level: int) -> float:
    """Return the threshold that pixels of at least `level` 255ths reach.

    Probabilities are rounded to 255ths from finer steps, half way between two of them. The last
    decimals are cut off, so that rounding does not put the threshold above.
    """
    return math.floor((level - 0.5) / PROB_ONE * 1e6) / 1e6


def level_of(threshold: float) -> int:
    """Return the level, 1 to 255, whose threshold is nearest."""
    return int(np.clip(round(threshold * PROB_ONE + 0.5), 1, PROB_ONE))


def check_threshold_data(spec: BundleSpec, source: SceneSet) -> None:
    """Check that a threshold can be chosen for a model on a set of scenes."""
    if not spec.is_binary:
        raise ConfigError(
            f"The model {spec.name!r} has {len(spec.classes)} classes, and each pixel gets the "
            "most probable one; a threshold needs two classes.",
            remedy="Choose a model of background and one class.",
        )
    if not len(source):
        raise DataError(
            f"{source.name} has no labelled image.",
            remedy="Name data with labels; rooftrace inspect shows what was found.",
        )


def predict_set(
    predictor: Predictor, source: SceneSet, folder: Path, data: LabelledSets | None = None
) -> SetProbabilities:
    """Run the network over every scene as `rooftrace predict` does.

    Args:
        folder: New folder for the arrays, which take two bytes per pixel.
        data: Options for reading the images, and the progress; default as they are.

    Raises:
        BandMismatch, GsdMismatch, PredictError: The model cannot predict a scene.
    """
    with exporting(folder):
        folder.mkdir(parents=True)
    images = AS_FOUND if data is None else data.images

    def scenes() -> Iterator[tuple[NDArray[np.uint8], ScenePlan]]:
        # In the thread that reads images, because a label may be in the same file.
        for scene in source:
            options = images.model_copy(update={"gsd_m": scene.stated_gsd_m, "outputs": ("mask",)})
            plan = plan_scene(scene.image, predictor.bundle.spec, options)
            yield _label_planes(predictor, scene, plan.source.grid.shape), plan

    results = run_many(scenes(), lambda scene: scene[1], predictor.engine)
    for number, ((probabilities, _), _, blocks) in enumerate(results):
        for block in blocks:
            rows, cols = block.window.slices()
            probabilities[0, rows, cols] = block.score
            probabilities[1, rows, cols] |= (block.mask != NODATA) * np.uint8(_KNOWN)
        path = _path(folder, number)
        with exporting(path):
            np.save(path, probabilities)
        if data is not None:
            data.advance()
    return SetProbabilities(source, folder, images)


def predict_folds(
    members: Sequence[tuple[Predictor, Sequence[str]]],
    source: SceneSet,
    folder: Path,
    data: LabelledSets,
) -> SetProbabilities:
    """Run over every scene the model of a cross-validation that was not trained on it.

    Args:
        members: Model of each fold, and the ids of the scenes that it was not trained on.
        source, folder, data: See `predict_set`.
    """
    place = {entry.id: number for number, entry in enumerate(source.entries)}
    for fold, (predictor, ids) in enumerate(members):
        held_out = source.subset(ids)
        scored = predict_set(predictor, held_out, folder / f"fold{fold}", data)
        for number, entry in enumerate(held_out.entries):
            _path(scored.folder, number).rename(_path(folder, place[entry.id]))
    return SetProbabilities(source, folder, data.images)


def _label_planes(
    predictor: Predictor, scene: Scene, shape_yx: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return the arrays of a scene with the flags of its label: (2, y, x)."""
    assert scene.label is not None
    label = scene.label.read(Window.whole(shape_yx))
    planes = np.zeros((2, *shape_yx), np.uint8)
    planes[1] = (label.data == predictor.bundle.spec.building_class) * np.uint8(_TRUTH)
    planes[1][label.valid] |= _LABELLED
    return planes


def footprints_at(
    spec: BundleSpec,
    scene: Scene,
    scored: SceneProbabilities,
    level: int,
    images: SceneOptions = AS_FOUND,
) -> Footprints:
    """Return the building footprints that `rooftrace predict` draws at `threshold_at(level)`.

    Args:
        spec: Contract of the model; its calibration is applied to the scores.
        scene: The scene; its pixels are not read.
        level: Threshold as a level, 1 to 255.
        images: Bands, stretch and scale with which the scene was read.
    """
    threshold = threshold_at(level)
    options = images.model_copy(
        update={"gsd_m": scene.stated_gsd_m, "threshold": threshold, "outputs": ("polygons",)}
    )
    plan = plan_scene(scene.image, spec, options)
    with SceneOutputs(plan) as outputs:
        for window in plan.blocks:
            part = window.slices()
            score, known = np.asarray(scored.score[part]), scored.known[part]
            mask = np.where(known, (score >= level).view(np.uint8), np.uint8(NODATA))
            outputs.feed(Block.of(window, mask, score))
        outputs.finish()
    return outputs.footprints().of_class(spec.building_class)


def open_labelled(predictor: Predictor, folder: SourceConfig, split: str | None) -> SceneSet:
    """Open labelled scenes, with labels read as in the training of a model.

    Raises:
        DataError: The split contains no image of the folder.
    """
    return select_part(open_source(folder, training_labels(predictor.bundle)), split, folder.path)


def select_part(source: SceneSet, split: str | None, data: str) -> SceneSet:
    """Return the scenes of one part of a split.

    Args:
        split: `FILE:PART`, or `PART` of the data's own, see `match_reference`; None for all scenes,
            with a note if the data has parts of its own.
        data: Location of the scenes, for error messages.

    Raises:
        ConfigError: There is no such split or part.
        DataError: The part contains none of the scenes, or is ambiguous.
    """
    if split is None:
        if (own := own_split(source.ids)) is None:
            return source
        note = own.own_note(source.name, "all are used. --split {last} takes one.")
        return replace(source, notes=(*source.notes, note))
    ids = source.all_ids if parse_reference(split)[0] is not None else source.ids
    parts, part = match_reference(split, ids, data)
    chosen = source.subset(parts.ids(part))
    if not len(chosen):
        raise DataError(
            f"None of the scenes of {split} is a labelled image of {data}.",
            remedy="Make the split from this data: rooftrace split DATA -o split.json",
        )
    return replace(chosen, notes=(*chosen.notes, *parts.notes(part)))


def training_labels(bundle: ModelBundle) -> LabelConfig:
    """Return the meaning of labels in the training of a model."""
    spec = bundle.spec
    recorded = spec.training.get("data", {}).get("labels")
    if recorded is None:
        return LabelConfig(classes=spec.classes, building=spec.classes[spec.building_class])
    try:
        return LabelConfig.model_validate(recorded)
    except ValidationError as error:
        raise BundleError(
            f"The label settings in the bundle {bundle.source} cannot be read: "
            f"{invalid_values(error, LabelConfig)}",
            remedy="Export it again with rooftrace train.",
        ) from error


def labels_for(data: SourceConfig, start: ModelBundle) -> LabelConfig:
    """Return the meaning of labels to tune a model on: the data's own, or that of its training."""
    labels = data.labels or training_labels(start)
    if labels.classes != start.spec.classes:
        raise ConfigError(
            f"The classes of {data.path} are {', '.join(labels.classes)}, but those of the start "
            f"model are {', '.join(start.spec.classes)}.",
            remedy="Map them onto its classes, such as --set labels.values.building=1; or train "
            "other classes with rooftrace train and model.start.",
        )
    return labels
