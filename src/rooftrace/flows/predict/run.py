"""`rooftrace predict`: one run over many images, with a folder of results and a record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rooftrace.core.errors import ConfigError
from rooftrace.core.machine import result_versions, versions
from rooftrace.core.text import list_and_count, merge_notes, plural
from rooftrace.flows.predict.executor import Executor, executing
from rooftrace.flows.predict.image_run import OnDone, PredictRun, RunOptions, RunReport
from rooftrace.flows.predict.inputs import PredictInputs, SceneInput, about_total_px, holds_results
from rooftrace.flows.predict.run_folder import RunFolder
from rooftrace.flows.stac_output import PredictedScene, check_stac, predicted_scene, write_stac
from rooftrace.io.files import check_outputs, write_json
from rooftrace.io.vector_write import check_vector_path
from rooftrace.models.prompts import PromptSegmenter
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.plan import RESULT_FILES, SceneOptions, threshold_for
from rooftrace.predict.predictor import PredictProgress
from rooftrace.predict.refine_outlines import check_refinable
from rooftrace.predict.tta import applied_tta

if TYPE_CHECKING:
    from rooftrace.flows.predict.cluster import ClusterOptions
    from rooftrace.flows.predict.rle_output import RleOutput


_MAX_NOTES = 10
"""Maximum number of notes in a report; run.json lists all."""

_MAX_FIGURES = 1000
"""Maximum number of images in a run whose figures are written to run.json."""

_MAX_EARLIER_LISTED = 5
"""Maximum number of results of earlier runs that a note lists."""


def run_predict(
    inputs: PredictInputs,
    models: ModelSet,
    out: Path,
    options: SceneOptions | None = None,
    *,
    cluster: ClusterOptions | None = None,
    keep: bool = False,
    stac: bool = False,
    segmenter: PromptSegmenter | None = None,
    rle: RleOutput | None = None,
    on_done: OnDone | None = None,
    progress: PredictProgress | None = None,
) -> RunReport:
    """Predict all images, and write the results of each.

    An image that fails does not stop the others. Its error is raised after they are finished, and
    `run.json` lists the results that were written. The same call resumes a run that was stopped
    for any reason, and writes the same bytes as a run that was not stopped.

    Args:
        inputs: Images to predict.
        models: Models to predict with.
        out: Folder for the results, created if missing.
        options: Options of every scene.
        cluster: Cluster to run on; default: this process. The results are identical.
        keep, on_done, progress: See `RunOptions`.
        stac: Whether the results are described by a STAC collection; see `write_stac`.
        segmenter: Network that refines the outlines of buildings; None to keep those of the model.
        rle: Table of run lengths to write when all images are predicted.

    Raises:
        ConfigError: The results of two images would have the same name; an image, or a file that
            no run has written, would be overwritten; a threshold was given for a model of more than
            two classes; outlines cannot be refined with these options.
        DataError, BundleError, PredictError, ExportError: An image or the model cannot be used.
        MissingExtraError: A package is not installed: the cluster's, or pystac for `stac`.
    """
    options = options or SceneOptions()
    if segmenter is not None:
        for bundle in models.bundles:
            check_refinable(bundle.spec, options)
    if cluster is not None and (segmenter is not None or rle is not None):
        what, option = ("Outlines are refined", "--refine")
        if rle is not None:
            what, option = "Run lengths are made", "--outputs rle"
        raise ConfigError(
            f"{what} in one process, but a cluster was given.",
            remedy=f"Leave out --cluster, or leave out {option}.",
        )
    described: dict[str, PredictedScene | None] = {}

    def take(scene: SceneInput, record: Mapping[str, Any]) -> None:
        if stac:
            described[scene.name] = predicted_scene(
                scene.name, scene.source.grid.crs, record, scene.attribution
            )
        if on_done is not None:
            on_done(scene, record)

    if stac:
        check_stac()
        options = options.model_copy(update={"valid_outline": True})
    with executing(models, cluster) as executor:
        run_options = RunOptions(keep=keep, on_done=take, progress=progress)
        report = predict_inputs(inputs, executor, out, options, run_options, segmenter, rle)
        if stac:
            bundle = executor.predictor.bundle
            model = {"name": bundle.spec.name, "sha256": bundle.sha256}
            done = [described.get(scene.name) for scene in inputs.scenes]
            notes = write_stac(
                out, "the given imagery", [one for one in done if one is not None], model,
                "run.json", "If their date is known, give it with --imagery-date.",
            )  # fmt: skip
            report = replace(report, notes=(*report.notes, *notes))
    if not report.failures:
        return report
    scene, error = report.failures[0]
    if len(inputs.scenes) == 1:
        raise error
    message = error.message
    message = message if scene.shown in message else f"{scene.shown}: {message}"
    failed = f"{len(report.failures)} of {len(inputs.scenes)} images failed; run.json lists them."
    raise type(error)(f"{message} {failed}", remedy=error.remedy)


def predict_inputs(
    inputs: PredictInputs,
    executor: Executor,
    out: Path,
    options: SceneOptions,
    run_options: RunOptions,
    segmenter: PromptSegmenter | None = None,
    rle: RleOutput | None = None,
) -> RunReport:
    """Predict any number of images as one run; the same call resumes it.

    The report lists failed images in `failures`. If there are any, finished blocks and images are
    kept for the next run.

    Args:
        inputs: Images with distinct names.
        executor: Model and the machines that run it, see `executing`.
        out: Folder for the results, created if missing.
        options: Options of every scene.
        run_options: Conduct of the run.
        segmenter, rle: See `run_predict`.

    Raises:
        ConfigError: The results of two images would have the same name; an image would be
            overwritten; a threshold was given for a model of more than two classes.
        ExportError: Another run writes to the folder, or the folder is not writable.
    """
    scenes, predictor = inputs.scenes, executor.predictor
    _check_results(inputs, out, options.outputs)
    spec = predictor.bundle.spec
    settings = {
        **options.model_dump(),
        "threshold": threshold_for(spec, options.threshold),
        "stretch": options.stretch or "auto",
        "tta": applied_tta(predictor.bundle, executor.tta),
        **inputs.settings,
    }
    if segmenter is not None:
        settings["refine"] = segmenter.record
    if rle is not None:
        settings["rle"] = rle.order
        run_options = replace(run_options, order=rle.order)
    engine = predictor.engine
    engine_record = {
        "name": engine.name,
        "precision": engine.precision,
        "settings": getattr(engine, "settings", {}),
    }
    model = {
        "bundle": predictor.bundle.sha256,
        "instruction_set": executor.record()["processors"][0]["instruction_set"],
        "engine": engine_record,
        "versions": result_versions(),
    }
    with RunFolder(out, {"with": model, "options": settings}) as folder:
        run = PredictRun(predictor, out, options, folder, run_options, segmenter)
        is_changed = settings["threshold"] not in (None, spec.threshold)
        is_changed |= settings["tta"] != applied_tta(predictor.bundle)
        if spec.calibration is not None and is_changed:
            run.notes.append(
                "Scores were calibrated for the model's own threshold and mirroring of tiles. "
                "With these settings they only approximate probabilities."
            )
        run.total_px = about_total_px(scenes)
        run.predict(executor.predict_whole(run, scenes), executor.run_scenes)
        run.notes += _earlier_results(scenes, out, options.outputs)
        record = executor.record()
        run.notes += [*record["notes"], *inputs.notes, *folder.notes]
        report = run.report(scenes)
        if rle is not None and not report.failures:
            from rooftrace.flows.predict.rle_output import RLE_TABLE

            runs = (folder.record(scene)["runs"] for scene in rle.scenes)
            notes = rle.write(out, runs, spec)
            report = replace(report, table=str(out / RLE_TABLE), notes=(*report.notes, *notes))
        done = [scene for scene in scenes if scene.name in run.outputs]
        record |= {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "inputs": [scene.shown for scene in scenes],
            "bundle": {
                "name": spec.name,
                "sha256": predictor.bundle.sha256,
                "file": predictor.bundle.source,
                "gsd_m": spec.gsd_m,
                "finest_gsd_m": spec.finest_gsd_m,
                "interpolated_gsd_m": spec.interpolated_gsd_m,
            },
            "engine": engine_record,
            "options": settings,
            **report.to_json(),
            "figures": None
            if len(done) > _MAX_FIGURES
            else [folder.record(scene)["figures"] for scene in done],
            "failed": [{"input": one.shown, **error.to_json()} for one, error in report.failures],
            "skipped": [str(path) for path in inputs.skipped],
            "notes": report.notes,
            "versions": versions(),
        }
        write_json(out / "run.json", record)
        if not report.failures and not run_options.keep:
            folder.discard()
    # For the terminal, notes that many images cause are one.
    names = {name for scene in scenes for name in (scene.shown, scene.source.name)}
    merged = merge_notes(report.notes, names)
    if len(merged) > _MAX_NOTES:
        more = plural(len(merged) - _MAX_NOTES, "more note")
        merged = [*merged[:_MAX_NOTES], f"… and {more} in run.json."]
    return replace(report, notes=tuple(merged))


def _check_results(inputs: PredictInputs, out: Path, outputs: Sequence[str]) -> None:
    """Check before the work that the results of all images can be written to a folder.

    Raises:
        ConfigError: The results of two images would have the same name, or an input or a file
            that no run has written would be overwritten.
        ExportError: See `check_vector_path`.
    """
    scenes = inputs.scenes
    by_name: dict[str, SceneInput] = {}
    for scene in scenes:
        # Two URLs may differ in their queries alone, which are not shown.
        other = by_name.setdefault(scene.name, scene)
        if other is not scene:
            raise ConfigError(
                f"{other.path} and {scene.path} would both be written as {scene.name}_… in {out}.",
                remedy="Predict them into different folders, or rename one of them.",
            )
    # A folder of labelled images has masks of the same names.
    is_own = holds_results(out)
    endings = [end for kind, ends in RESULT_FILES.items() if kind in outputs for end in ends]
    there = {}
    for scene in scenes:
        if {"polygons", "density"} & {*outputs}:
            check_vector_path(out / f"{scene.name}_buildings.gpkg")
        for ending in endings:
            target = out / (scene.name + ending)
            if target.exists():
                there[target] = scene
    if not there:
        return
    check_outputs(there, [*(scene.path for scene in scenes), *inputs.files])
    if not is_own:
        target, scene = next(iter(there.items()))
        raise ConfigError(
            f"The result of {scene.path} would be written over {target}, and {out} is not the "
            "results folder of an earlier run.",
            remedy="Choose another folder with -o, or remove the file.",
        )


def _earlier_results(scenes: Sequence[SceneInput], out: Path, outputs: Sequence[str]) -> list[str]:
    """Return a note on results in a folder that were not requested, and so are of earlier runs."""
    others = [end for kind, ends in RESULT_FILES.items() if kind not in outputs for end in ends]
    if not others:
        return []
    with os.scandir(out) as entries:
        there = {entry.name for entry in entries}
    names = [f"{scene.name}{end}" for scene in scenes for end in others]
    earlier = [name for name in names if name in there]
    if not earlier:
        return []
    listed = list_and_count(earlier, _MAX_EARLIER_LISTED)
    return [f"{out} also holds results of an earlier run, perhaps of other settings: {listed}"]
