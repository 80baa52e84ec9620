"""`rooftrace finetune`: a model of one's own from a start model and a few labelled images.

`run_finetune` is the whole road: check the data, hold a part out, train within the minutes, and
compare the tuned model with the start model on the part that was held out.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from rooftrace.core.config import parse_config
from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError, MissingExtraError
from rooftrace.core.text import minutes_text, plural, print_plain, reason_of
from rooftrace.flows.evaluate.evaluation import Evaluation
from rooftrace.flows.evaluate.run import EvalOptions, run_evaluate
from rooftrace.flows.labelled_predictions import labels_for
from rooftrace.flows.replay import (
    REPLAY_SHARE,
    ReplayReport,
    ReplaySet,
    compare_on_replay,
    prepare_replay,
)
from rooftrace.flows.split import run_split
from rooftrace.flows.threshold import run_threshold
from rooftrace.flows.train import TrainReport, locked_run, train_config
from rooftrace.io.files import write_json
from rooftrace.labels.config import LabelConfig, SourceConfig, absolute_text
from rooftrace.labels.kinds import open_labelled
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import SceneParts, Split, SplitBy, read_split
from rooftrace.metrics.resampling import Interval, PairedTest
from rooftrace.models.bundle import BUNDLED_MODELS, ModelBundle
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import AS_FOUND, SceneOptions

if TYPE_CHECKING:
    from rooftrace.train.config import TrainConfig

Verdict = Literal["better", "no different", "worse"]
"""Comparison of the tuned model with the start model, see `FinetuneReport.verdict`."""

LEAST_SCENES = 4
"""Minimum number of labelled images: one or more are held out, the others are trained on."""

_LEAST_FOR_BLOCKS = 12
"""Minimum number of georeferenced images that are divided by block of ground."""

_LATE_SHARE = 0.25
"""Share of the epochs at the end of a run; if the best one is among them, a longer run may help."""

LEAST_FOR_VERDICT = 6
"""Minimum number of held-out images for a verdict to rely on.

With fewer, a sign test finds no difference at 5 %, even if all images have the same sign: 2 / 2^5.
"""

_FIGURES = (
    ("IoU", "pixel", "iou"),
    ("precision", "pixel", "precision"),
    ("recall", "pixel", "recall"),
    ("F1 of buildings", "objects", "f1"),
    ("expected calibration error", "calibration", "ece"),
)
"""Figures of the comparison: name, and the keys under which a report has it."""


@dataclass(frozen=True)
class FinetuneReport:
    """Result of a fine-tuning run.

    Args:
        trained: Result of the training.
        evaluation: Tuned model and start model on the scenes that were held out; the tuned model is
            the first.
        split: `FILE:PART` of these scenes.
        page: Report with pictures.
        replay: Comparison on replay images; None without them.
        notes: Notes on how the data was divided, and on held-out images that show ground on which
            one of the models was trained.
    """

    trained: TrainReport
    evaluation: Evaluation
    split: str
    page: Path
    replay: ReplayReport | None = None
    notes: tuple[str, ...] = ()

    @property
    def bundle(self) -> Path:
        """The tuned model."""
        return self.trained.best["best_iou"][2]

    @cached_property
    def tests(self) -> dict[str, PairedTest]:
        """Paired comparison of each figure; a difference is positive where the tuned model is
        better.
        """
        return self.evaluation.comparisons[0].figures

    @property
    def buildings(self) -> PairedTest | None:
        """Paired comparison of F1 of buildings; None with more than two classes."""
        return self.tests.get("objects.f1")

    @property
    def verdict(self) -> Verdict:
        """Result of the comparison of IoU and F1 of buildings.

        A difference is clear if 0 lies outside of its 95 % interval. The tuned model is better if
        one of the two is clearly better and none clearly worse, and worse in the opposite case.
        """
        judged = self.tests[self.evaluation.headline], self.buildings
        signs = {_sign(test.difference) for test in judged if test is not None}
        if 1 in signs and -1 not in signs:
            return "better"
        return "worse" if -1 in signs and 1 not in signs else "no different"

    @property
    def figures(self) -> dict[str, tuple[float | None, float | None]]:
        """Figures of the start model and of the tuned model; None where one is not defined."""
        tuned, base = (report.to_json() for report in self.evaluation.reports)

        def value(report: dict[str, Any], group: str, key: str) -> float | None:
            return (report[group] or {}).get(key)

        return {
            name: (value(base, group, key), value(tuned, group, key))
            for name, group, key in _FIGURES
        }

    @property
    def limits(self) -> dict[str, str]:
        """95 % intervals of the tuned model as text, by the names of `figures` that have one."""
        known = self.evaluation.first.intervals
        named = {name: known.get(f"{group}.{key}") for name, group, key in _FIGURES}
        return {
            name: f"{one.low:.3f} … {one.high:.3f}"
            for name, one in named.items()
            if one is not None and one.is_known
        }

    @property
    def advice(self) -> tuple[str, ...]:
        """Sentences on what would help, where the tuned model is not clearly better."""
        test = self.tests[self.evaluation.headline]
        gap, advice = test.difference, []
        if self.verdict != "no different" and test.scenes < LEAST_FOR_VERDICT:
            advice.append(
                f"This verdict is from {plural(test.scenes, 'image')} only: do not rely on it with "
                f"fewer than {LEAST_FOR_VERDICT}. Label more, or raise --val."
            )
        if self.verdict == "better":
            return tuple(advice)
        iou_sign, buildings = _sign(gap), self.buildings
        if buildings is not None and _sign(buildings.difference) < 0:
            advice.append(
                f"Fewer buildings are found one by one: F1 falls from {buildings.second:.3f} to "
                f"{buildings.first:.3f}. Look in the report for neighbours that are joined."
            )
        if not iou_sign and gap.is_known and gap.value > 0:
            # The side of the interval that reaches 0 decides; the other may be much shorter.
            reach = gap.value - gap.low
            needed = math.ceil(test.scenes * (reach / gap.value) ** 2)
            advice.append(
                f"The difference may be due to the choice of {plural(test.scenes, 'scene')}: with "
                f"about {needed} held-out scenes, a difference of this size would be clear."
            )
        elif not gap.is_known:
            advice.append(f"There is no interval of the difference: {gap.reason}.")
        advice.append(
            "Label more tiles, above all of the kinds in which the pictures of the report show "
            "errors; check the labels with rooftrace inspect."
        )
        best, epochs = self.trained.best["best_iou"][0], self.trained.epochs
        is_late = best > (1 - _LATE_SHARE) * epochs
        advice.append(
            f"The best epoch was {best} of {epochs}: more --minutes "
            f"{'may help' if is_late else 'are unlikely to help'}."
        )
        if self.verdict == "worse":
            advice.append("Keep the start model, or lower the rates: --config optimizer.lr=1e-4.")
        return tuple(advice)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            **self.trained.to_json(),
            "verdict": self.verdict,
            "held_out": self.split,
            "scenes": self.tests[self.evaluation.headline].scenes,
            "figures": {
                name: {"start": base, "tuned": tuned}
                for name, (base, tuned) in self.figures.items()
            },
            "intervals": {
                name: {key: one.to_json() for key, one in report.intervals.items()}
                for name, report in zip(("tuned", "start"), self.evaluation.reports)
            },
            "differences": {name: test.to_json() for name, test in self.tests.items()},
            "replay": None if self.replay is None else self.replay.to_json(),
            "report": str(self.page),
            "advice": list(self.advice),
            "notes": list(self.notes),
        }


def _sign(gap: Interval) -> int:
    """Return 1 or -1 if a difference is clearly above or below 0, and otherwise 0."""
    return 0 if not gap.is_known else int(gap.low > 0) - int(gap.high < 0)


def run_finetune(
    data: SourceConfig,
    run: Path,
    *,
    model: str = "default",
    replay: SourceConfig | None = None,
    minutes: float = 10.0,
    val: float = 0.2,
    by: SplitBy | None = None,
    split: Path | None = None,
    overrides: Sequence[str] = (),
    seed: int = 0,
    resume: bool = False,
    images: SceneOptions = AS_FOUND,
    console: Console | None = None,
) -> FinetuneReport:
    """Train a start model on labelled images, and compare both on images that were held out.

    The folder of the run is that of `rooftrace train`, with `split.json`, `verdict.json` and
    `comparison/report.html`, and `replay/` if replay images are given.

    Args:
        data: Labelled data.
        run: Folder of the run.
        model: Model to start from, see `models.start.read_start`.
        replay: Images of other places, with or without labels, on which the answers of the start
            model are kept, see `flows.replay`.
        minutes: Limit of the training in minutes, with its validation.
        val: Share of the scenes that is held out.
        by: Unit that is kept together; default blocks of ground where all images have a
            georeference, else groups where there are enough, else images.
        split: Split file with the parts `train` and `val`; default: a split is made. If it has a
            part `test`, the models are compared there.
        overrides: `key.path=value` settings of the training configuration.
        seed: Seed of the split and of all random draws.
        resume: Continue the run that is in the folder, with its settings.
        images: Bands, stretch and scale with which images are read for the comparison.
        console: Console for progress; None prints nothing.

    Raises:
        MissingExtraError: PyTorch or a package that comes with it is not installed.
        ConfigError: The start model cannot be used, its classes are others, or a setting is wrong.
        DataError: There are too few labelled images, no building in them, or too few replay images.
        ConfigError, DataError, ExportError: See `train.loop` and `train.export_bundle`.
    """
    try:
        import rooftrace.train.finetune  # noqa: F401  (used once the data is checked)
        from rooftrace.models.start import read_start
    except ImportError as error:
        raise MissingExtraError.of("train", "rooftrace finetune", error.name or "torch") from error

    base = Path.cwd()
    model, data = _placed(model), data.absolute()
    start = read_start(model).bundle
    labels = labels_for(data, start)
    data = data.model_copy(update={"labels": None})
    replayed = None if replay is None else ReplaySet.of(replay, run)
    if replayed is not None:
        data = data.model_copy(update={"share": 1 - REPLAY_SHARE})
    scenes = _open(data, labels)
    has_crs = _open_images(scenes, needs_metres=start.spec.gsd_m is not None)
    given = _Given(
        data, labels, scenes, model, start, replayed, run, run / "split.json" if split is None
        else split, seed, images, console,
    )  # fmt: skip
    notes: tuple[str, ...] = ()
    if resume:
        config = _recorded(run, data, model, replayed)
        if replayed is not None:
            replayed.check_recorded(labels)
    else:
        _check_new(run)
    with locked_run(run):
        if not resume:
            unit = None if split is not None else by or _unit(scenes, has_crs=has_crs)
            config, notes = _begin(given, base, unit, val, minutes, overrides)
            print_plain(console, _plan(config))
        # A setting may name another split than `split`: what is trained on is not compared on.
        parts = _parts(scenes, Path(config.data.split or given.part_file))
        trained = train_config(
            config, run, base=base, resume=resume, console=console,
            record=config.without_home(base),
        )  # fmt: skip
        if start.spec.is_binary:
            _set_threshold(given, config, trained.best["best_iou"][2], parts, base)
        report = _compare(given, trained, parts, notes)
        write_json(run / "verdict.json", report.to_json())
    return report


@dataclass(frozen=True)
class _Given:
    """Data and settings of a run, after all of them were checked.

    Args:
        data: Labelled data, without the meaning of its labels.
        labels: Meaning of the labels.
        scenes: Labelled images of the data.
        model: Name or absolute path of the start model.
        start: The start model.
        replayed: Replay images; None without them.
        run: Folder of the run.
        part_file: Split file, which is written if none was given.
        seed: Seed of all random draws.
        images: Options with which images are read for the comparison.
        console: Console for progress; None prints nothing.
    """

    data: SourceConfig
    labels: LabelConfig
    scenes: SceneSet
    model: str
    start: ModelBundle
    replayed: ReplaySet | None
    run: Path
    part_file: Path
    seed: int
    images: SceneOptions
    console: Console | None


def _begin(
    given: _Given, base: Path, unit: SplitBy | None, val: float, minutes: float,
    overrides: Sequence[str],
) -> tuple[TrainConfig, tuple[str, ...]]:  # fmt: skip
    """Divide the images, predict the replay images, and plan the training.

    Args:
        unit: Unit that the split keeps together; None if a split file was given.

    Returns:
        The configuration of the training, and notes.
    """
    from rooftrace.train.finetune import finetune_config, fit_to_minutes

    notes: tuple[str, ...] = ()
    replayed, spec = given.replayed, given.start.spec
    if unit is not None:
        notes = _divide(
            given.data, given.labels, given.part_file, val=val, unit=unit, seed=given.seed
        ).notes
    try:
        parts = _parts(given.scenes, given.part_file)
        if replayed is not None:
            print_plain(given.console, f"predicting the replay images of {replayed.given.path}")
            predictor = read_models(Path(given.start.source)).ready()
            notes += tuple(prepare_replay(replayed, given.labels, predictor, seed=given.seed))
        config = finetune_config(
            given.model, spec, given.data, given.scenes.subset(parts.ids("train")), given.labels,
            given.part_file.absolute(), replay=None if replayed is None else replayed.train,
            minutes=minutes, seed=given.seed, overrides=overrides,
        )  # fmt: skip
        return fit_to_minutes(config, spec, base, overrides), notes
    except BaseException:
        # A run that fails before it begins leaves no folder.
        if unit is not None:
            given.part_file.unlink(missing_ok=True)
        if replayed is not None:
            shutil.rmtree(replayed.folder, ignore_errors=True)
        raise


def _set_threshold(
    given: _Given, config: TrainConfig, bundle: Path, parts: SceneParts, base: Path
) -> None:
    """Set the threshold of the tuned model, and then make its int8 variant.

    The threshold is that of the graph; the variant is judged at it. With too few images for a
    verdict, it stays that of the start model.
    """
    from rooftrace.train.export_bundle import add_int8, remove_int8

    int8 = remove_int8(bundle) if config.export.int8 else None
    few = len(given.scenes.subset(parts.ids("val"))) < LEAST_FOR_VERDICT
    chosen = run_threshold(
        bundle, [given.data], bundle, metric="iou", split=f"{parts.path}:val", images=given.images,
        fallback=given.start.spec if few else None,
    )  # fmt: skip
    found = "that of the start model" if few else "on whole images"
    for note in (f"threshold {chosen.after:.3f}, {found}", *chosen.notes):
        print_plain(given.console, note)
    if config.export.int8:
        add_int8(config, bundle, int8, base=base, notify=partial(print_plain, given.console))


def _compare(
    given: _Given, trained: TrainReport, parts: SceneParts, notes: tuple[str, ...]
) -> FinetuneReport:
    """Compare the tuned model with the start model, on images that neither was trained on."""
    bundle, folder = trained.best["best_iou"][2], given.run / "comparison"
    held_out = f"{parts.path}:{'test' if parts.parts.get('test') else 'val'}"
    print_plain(given.console, f"comparing with the start model on {held_out}")
    evaluation = run_evaluate(
        [bundle, Path(given.start.source)], given.data, folder,
        EvalOptions(split=held_out, baseline="2", images=given.images),
    )  # fmt: skip
    models = read_models(bundle).ready(), read_models(Path(given.start.source)).ready()
    elsewhere = None
    if given.replayed is not None:
        elsewhere = compare_on_replay(given.replayed, given.labels, *models, given.images)
    return FinetuneReport(
        trained, evaluation, held_out, folder / "report.html", elsewhere,
        (*notes, *evaluation.warnings),
    )  # fmt: skip


def _open(data: SourceConfig, labels: LabelConfig) -> SceneSet:
    scenes = open_labelled(data, labels)
    if len(scenes) < LEAST_SCENES:
        raise DataError(
            f"{data.path} has {plural(len(scenes), 'labelled image')}; expected at least "
            f"{LEAST_SCENES}, since some are held out to compare the models.",
            remedy="Label more images; cut a large one into tiles with --set chip_px=512.",
        )
    return scenes


def _open_images(scenes: SceneSet, *, needs_metres: bool) -> bool:
    """Open each image once, and return whether all have a coordinate system.

    Raises:
        GeoreferenceError: Metres per pixel are needed, and those of an image are not known.
    """
    has_crs = True
    for scene in scenes:
        has_crs = has_crs and scene.image.grid.crs is not None
        if needs_metres and scene.gsd_m is None:
            raise GeoreferenceError(
                f"The metres per pixel of {scene.image.name} are needed, but it has no "
                "georeference.",
                remedy="State them, such as --gsd 0.3.",
            )
    return has_crs


def _check_new(run: Path) -> None:
    if (run / "checkpoints" / "last.ckpt").exists():
        raise ConfigError(
            f"{run} already holds a run.",
            remedy="Add --resume to continue it, or choose another folder.",
        )


def _divide(
    data: SourceConfig, labels: LabelConfig, path: Path, *,
    val: float, unit: SplitBy, seed: int,
) -> Split:  # fmt: skip
    """Hold a part of the scenes out, and write the split file.

    Raises:
        DataError: No building is labelled in one of the parts.
    """
    # Few tiles are precious: parts by block may touch, but share no ground.
    made = run_split(
        data.model_copy(update={"labels": labels.model_copy(update={"colours": None})}),
        path, val=val, test=0.0, by=unit, gap_m=0.0 if unit == "block" else None, seed=seed,
    )  # fmt: skip
    for part, purpose in (("train", "train on"), ("val", "compare the models on")):
        if not made.built_up.get(part, 0.0) > 0:
            path.unlink(missing_ok=True)
            raise DataError(
                f"{data.path}: no pixel is labelled as {labels.building} in the "
                f"{plural(len(made.parts[part]), 'image')} to {purpose}.",
                remedy="Check the labels with rooftrace inspect; or divide the images yourself, "
                "with buildings in each part: --split FILE.",
            )
    return made


def _parts(scenes: SceneSet, path: Path) -> SceneParts:
    """Return the scenes by the parts of a split file.

    Raises:
        ConfigError, DataError: See `labels.split.Split.match` and `SceneParts.ids`; or no scene to
            train on has a label.
    """
    parts = read_split(path).match(scenes.all_ids, path=path.absolute())
    if not len(scenes.subset(parts.ids("train"))):
        raise DataError(
            f"No image in the part 'train' of {path} has a label.",
            remedy="Name labelled images there, or leave --split out to have a part held out.",
        )
    return parts


def _unit(scenes: SceneSet, *, has_crs: bool) -> SplitBy:
    """Return the unit that is kept together, by what is known of the scenes."""
    if has_crs and len(scenes) >= _LEAST_FOR_BLOCKS:
        return "block"
    groups = {entry.group for entry in scenes.entries}
    return "group" if len(groups) >= LEAST_SCENES else "image"


def _recorded(run: Path, data: SourceConfig, model: str, replay: ReplaySet | None) -> TrainConfig:
    """Return the configuration of a run to resume.

    Raises:
        ConfigError: There is nothing to resume; or the run has other data, another start model or
            other replay images.
    """
    from rooftrace.train.config import TrainConfig

    path = run / "config.json"
    try:
        raw = json.loads(path.read_bytes())
        raw.pop("base", None)
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"There is nothing to resume in {run}: {path} cannot be read ({reason_of(error)}).",
            remedy="Start without --resume; the first checkpoint is written after an epoch.",
        ) from error
    config = parse_config(raw, TrainConfig, source=str(path))
    if (() if replay is None else (replay.train,)) != config.data.replay:
        raise ConfigError(
            f"The use of --replay of the run in {run} is not the one given.",
            remedy="Resume with the --replay that the run began with.",
        )
    (began,) = config.data.train
    changed = {
        name: (before, now)
        for name, before, now in (
            ("model", _placed(config.model.start or ""), model),
            *((name, was, getattr(data, name)) for name, was in began.absolute()),
        )
        if now != before
    }
    if changed:
        name, (before, now) = next(iter(changed.items()))
        raise ConfigError(
            f"The run in {run} began with {name} {before}; {now} was given.",
            remedy="Resume with the DATA, its options and the model that the run began with.",
        )
    return config


def _placed(model: str) -> str:
    """Return the name of a bundled model, or the absolute path of another one."""
    return model if model in BUNDLED_MODELS else absolute_text(model)


def _plan(config: TrainConfig) -> str:
    assert config.stop.minutes is not None
    return (
        f"up to {plural(config.epochs, 'epoch')} of {config.samples_per_epoch} samples of "
        f"{config.crop_px} px within {minutes_text(config.stop.minutes)}"
    )
