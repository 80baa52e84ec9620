"""`rooftrace predict CATALOGUE`: thousands of scenes as one plan, and one layer of their buildings.

OUT/scenes/…                what `rooftrace predict` writes of each scene
OUT/buildings/quadkey=…/    every building once
OUT/manifest.json           what there is, and what became of every scene
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from rooftrace.core.errors import ConfigError, GeoreferenceError, RooftraceError
from rooftrace.data.catalogue.entry import Catalogue, CatalogueScene
from rooftrace.data.images import open_image
from rooftrace.flows.executor import Executor
from rooftrace.flows.inputs import Job
from rooftrace.flows.merge import SceneLayer, merge_layers
from rooftrace.flows.predict import run_jobs
from rooftrace.flows.predict_report import PredictReport
from rooftrace.flows.scene_run import OnDone, Progress
from rooftrace.io.partitions import MANIFEST
from rooftrace.io.quadkey import morton
from rooftrace.io.raster import NodataRule
from rooftrace.io.remote import is_url, open_source
from rooftrace.predict.options import SceneOptions, SceneOutput

__all__ = ["CatalogueReport", "run_catalogue"]

_SCENES = "scenes"
_ORDER_LEVEL = 20


@dataclass(frozen=True)
class CatalogueReport:
    """What became of a catalogue.

    Args:
        manifest: where it is.
        scenes: how many the catalogue has.
        failures: ids of the scenes that failed, and why they did.
        found: buildings over all scenes, those that several show as often.
        buildings: in the layer, each once.
        partitions: files of the layer.
        predicted: what is told of the scenes' run.
        notes: what was assumed or skipped, for the person to see.
    """

    manifest: Path
    scenes: int
    failures: tuple[tuple[str, RooftraceError], ...]
    found: int
    buildings: int
    partitions: int
    predicted: PredictReport
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {
            "manifest": str(self.manifest),
            "scenes": self.scenes,
            "failed": [{"scene": name, **error.to_json()} for name, error in self.failures],
            "found": self.found,
            "buildings": self.buildings,
            "partitions": self.partitions,
            "mpx_per_s": self.predicted.mpx_per_s,
            "peak_rss_mb": self.predicted.peak_rss_mb,
            "resumed_scenes": self.predicted.resumed_images,
        }


@dataclass
class _Gathered:
    """What came of the scenes, by id."""

    layers: dict[str, SceneLayer] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, RooftraceError] = field(default_factory=dict)


def run_catalogue(
    catalogue: Catalogue,
    executor: Executor,
    out: Path,
    options: SceneOptions,
    *,
    level: int = 11,
    strict: bool = False,
    nodata: NodataRule | None = None,
    told: Mapping[str, Any] | None = None,
    on_done: OnDone | None = None,
    progress: Progress | None = None,
) -> CatalogueReport:
    """Predict the scenes of a catalogue, and write their buildings, each once.

    A scene that fails does not stop the others. The same call goes on with a run that was stopped,
    tries again what had failed, and does what has been added to the catalogue since.

    Args:
        catalogue: the scenes.
        executor: the model, and where it runs.
        out: the folder.
        options: what was chosen for each scene; polygons are made in any case.
        level: of the quadkeys that the layer is partitioned by.
        strict: whether the run ends with the first scene that fails.
        nodata: what is nodata in the images besides what they say themselves.
        told, on_done: see `run_jobs`.
        progress: see `run_predict`.

    Raises:
        ConfigError: metres per pixel are said of all scenes, which have their own.
        MissingExtraError: pyarrow is missing.
        RooftraceError: that of the first scene, where all failed, or with `strict` one did.
        ExportError: another run writes there, or nobody can.
    """
    if options.gsd_m is not None or options.scale is not None:
        raise ConfigError(
            "Metres per pixel or a scale were given for a catalogue, of which each scene has its "
            "own.",
            remedy="Leave them out.",
        )
    others = tuple(one for one in options.outputs if one != "polygons")
    outputs: tuple[SceneOutput, ...] = ("polygons", *others)
    options = replace(options, outputs=outputs, outline=True)
    gathered = _Gathered()
    jobs = _jobs(catalogue, nodata, gathered)

    def take(job: Job, record: Mapping[str, Any]) -> None:
        try:
            gathered.layers[job.name] = _layer(job.name, record)
            gathered.seconds[job.name] = float(record["output"]["seconds"])
        except RooftraceError as error:
            gathered.failures[job.name] = error
        if on_done is not None:
            on_done(job, record)

    if gathered.failures and (strict or not jobs):
        raise _failure(_in_order(catalogue, gathered), len(catalogue.scenes))
    report = run_jobs(
        jobs, executor, out / _SCENES, options, dict(told or {}), strict=strict, keep=True,
        on_done=take, skipped=[Path(one) for one in catalogue.skipped], progress=progress,
    )  # fmt: skip
    names = {job.shown: job.name for job in jobs}
    gathered.failures |= {names[shown]: error for shown, error in report.failures}
    failures = _in_order(catalogue, gathered)
    if failures and (strict or not gathered.layers):
        raise _failure(failures, len(catalogue.scenes))
    spec = executor.predictor.bundle.spec
    merged = merge_layers(
        [gathered.layers[scene.id] for scene in catalogue.scenes if scene.id in gathered.layers],
        out,
        level=level,
        classes=() if spec.is_binary else spec.classes,
        scenes=lambda kept: [_told(scene, gathered, kept) for scene in catalogue.scenes],
        made_with={
            "model": {"name": spec.name, "sha256": executor.predictor.bundle.sha256},
            "catalogue": {"name": catalogue.name, "kind": catalogue.kind},
        },
    )
    return CatalogueReport(
        out / MANIFEST,
        len(catalogue.scenes),
        tuple(failures),
        sum(layer.found for layer in gathered.layers.values()),
        int(merged.manifest["rows"]),
        len(merged.manifest["partitions"]),
        report,
        report.notes,
    )


def _jobs(catalogue: Catalogue, nodata: NodataRule | None, gathered: _Gathered) -> list[Job]:
    """Neighbours one after the other, where the catalogue tells where scenes are."""
    jobs = []
    for scene in _along_a_curve(catalogue.scenes):
        try:
            job = _job(scene, nodata)
            # What is fetched is asked when it is its turn.
            if not job.url and job.source.grid.crs is None:
                raise _nowhere(job.shown)
            jobs.append(job)
        except RooftraceError as error:
            gathered.failures[scene.id] = error
    return jobs


def _job(scene: CatalogueScene, nodata: NodataRule | None) -> Job:
    if is_url(scene.location):
        source = open_source(scene.location, nodata=nodata)
        return Job(scene.id, Path(source.name), source, source.name)
    path = Path(scene.location)
    return Job(scene.id, path, open_image(path, nodata=nodata))


def _along_a_curve(scenes: Sequence[CatalogueScene]) -> list[CatalogueScene]:
    bounds = np.array([scene.bounds for scene in scenes if scene.bounds is not None], float)
    if len(bounds) != len(scenes):
        return list(scenes)
    lon, lat = (bounds[:, 0] + bounds[:, 2]) / 2, (bounds[:, 1] + bounds[:, 3]) / 2
    order = np.argsort(morton(lon, lat, _ORDER_LEVEL), kind="stable")
    return [scenes[index] for index in order.tolist()]


def _layer(name: str, record: Mapping[str, Any]) -> SceneLayer:
    output, figures = record["output"], record["figures"]
    polygons = Path(output["polygons"])
    if polygons.suffix != ".gpkg" or not figures["gsd_m"]:
        raise _nowhere(output["input"])
    outline = shapely.from_wkb(record["outline"])
    found = sum(int(one["polygons"]) for one in figures["classes"])
    return SceneLayer(name, outline, float(figures["gsd_m"]), polygons, found)


def _nowhere(shown: str) -> GeoreferenceError:
    return GeoreferenceError(
        f"{shown} tells no place on the ground; the scenes of a catalogue have to.",
        remedy="Georeference it, or predict it by itself.",
    )


def _told(scene: CatalogueScene, gathered: _Gathered, kept: Mapping[str, int]) -> dict[str, Any]:
    """What the manifest says of a scene."""
    said: dict[str, Any] = {"id": scene.id, "location": without_secrets(scene.location)}
    error = gathered.failures.get(scene.id)
    if error is not None:
        return said | {"state": "failed", "error": error.to_json()}
    layer = gathered.layers.get(scene.id)
    if layer is None:
        return said | {"state": "not done"}
    return said | {
        "state": "done",
        "found": layer.found,
        "kept": kept.get(scene.id, 0),
        "gsd_m": layer.gsd_m,
        "polygons": layer.polygons.name,
    }


def without_secrets(location: str) -> str:
    """An address without what may be a signature."""
    return location.partition("?")[0] if is_url(location) else location


def _in_order(catalogue: Catalogue, gathered: _Gathered) -> list[tuple[str, RooftraceError]]:
    known = gathered.failures
    return [(scene.id, known[scene.id]) for scene in catalogue.scenes if scene.id in known]


def _failure(failures: Sequence[tuple[str, RooftraceError]], count: int) -> RooftraceError:
    name, error = failures[0]
    told = f"{len(failures)} of {count} scenes failed."
    message = error.message if name in error.message else f"{name}: {error.message}"
    return type(error)(f"{message} {told}", remedy=error.remedy)
