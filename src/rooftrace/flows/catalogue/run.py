"""`rooftrace catalogue`: predict thousands of scenes, and write one layer of their buildings.

OUT/scenes/…                results of `rooftrace predict` for each scene
OUT/buildings/quadkey=…/    layer in which every building occurs once
OUT/observed.gpkg           outline of the valid data of each scene
OUT/manifest.json           content of the layer, and the state of every scene

See `vector.deduplicate` for the rules by which duplicates are removed.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.errors import DataError, GeoreferenceError, RooftraceError
from rooftrace.core.text import plural
from rooftrace.core.types import UNKNOWN_PROVENANCE
from rooftrace.flows.catalogue.scenes import Catalogue, CatalogueScene
from rooftrace.flows.predict.image_run import RunOptions, RunProgress, RunReport
from rooftrace.flows.predict.inputs import PredictInputs, SceneInput, of_headers
from rooftrace.flows.predict.run import Executor, predict_inputs
from rooftrace.flows.stac_output import PredictedScene, check_stac, predicted_scene, write_stac
from rooftrace.io.area import Area, AreaSource, area_in_degrees
from rooftrace.io.files import is_url, locked
from rooftrace.io.make_valid import make_polygons_valid
from rooftrace.io.nodata import NodataRule, nodata_to_json
from rooftrace.io.partitions import MANIFEST, OBSERVED, PartitionedLayer
from rooftrace.io.reproject import (
    CRS84,
    counted_from,
    degrees_box,
    first_longitude,
    split_at_180,
    transform_points,
)
from rooftrace.io.vector_read import VectorFile
from rooftrace.io.vector_write import write_polygons
from rooftrace.io.web_mercator import morton_codes
from rooftrace.predict.plan import SceneOptions, SceneOutput
from rooftrace.vector.deduplicate import CandidateDetections, DetectionAccumulator, measured

_SCENES = "scenes"
"""Name of the folder of the results of each scene."""

_CURVE_LEVEL = 16
"""Level of the Z-order curve along which scenes are predicted and merged."""

_DATING = (
    "If their date is known, write it into the files (gdal_edit.py -mo "
    "ACQUISITIONDATETIME=2024-05-17 FILE), or name the scenes by STAC items."
)

_FIGURES = ("score", "area_m2", "perimeter_m", "orientation_deg", "rectangularity")


@dataclass(frozen=True)
class CatalogueReport:
    """Result of predicting a catalogue.

    Args:
        failures: Ids of the scenes that failed, and their errors.
        found: Number of buildings over all scenes, with duplicates.
        buildings: Number of buildings in the layer, without duplicates.
        partitions: Number of files of the layer.
        notes: Assumptions and skipped files that the person should know.
    """

    manifest: Path
    scenes: int
    failures: tuple[tuple[str, RooftraceError], ...]
    found: int
    buildings: int
    partitions: int
    predicted: RunReport
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the report as `--json` prints it. Programs rely on the keys."""
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


def run_catalogue(
    catalogue: Catalogue,
    executor: Executor,
    out: Path,
    options: SceneOptions,
    *,
    level: int = 11,
    strict: bool = False,
    nodata: NodataRule | None = None,
    area: Area | None = None,
    stac: bool = False,
    progress: RunProgress | None = None,
) -> CatalogueReport:
    """Predict the scenes of a catalogue, and write a layer in which each building occurs once.

    A scene that fails does not stop the others. The same call resumes a run that was stopped,
    retries failed scenes, and predicts scenes that were added to the catalogue.

    Args:
        options: Options of each scene, without metres per pixel and scale; polygons are always
            written.
        level: Zoom level of the quadkeys by which the layer is partitioned.
        strict: Whether the run stops at the first scene that fails.
        nodata: Pixel values that mean nodata, besides those that the files declare.
        area: Area to predict; scenes outside of it are left out.
        stac: Whether the results are described by a STAC collection; see `write_stac`.

    Raises:
        MissingExtraError: pyarrow is missing.
        RooftraceError: All scenes failed, or with `strict` one scene did; the first error is
            raised.
        ExportError: Another run writes to the folder, or it is not writable.
    """
    others = tuple(one for one in options.outputs if one != "polygons")
    outputs: tuple[SceneOutput, ...] = ("polygons", *others)
    options = options.model_copy(update={"outputs": outputs, "valid_outline": True})
    if stac:
        check_stac()
    layers: dict[str, PredictedScene] = {}
    errors: dict[str, RooftraceError] = {}

    def add(job: SceneInput, record: Mapping[str, Any]) -> None:
        try:
            layers[job.name] = _layer(job.name, record)
        except RooftraceError as error:
            errors[job.name] = error

    bundle = executor.predictor.bundle
    jobs = _jobs(catalogue, nodata, errors)
    notes = [*catalogue.notes]
    if area is not None:
        left_out = _limit(jobs, catalogue, area)
        kept = tuple(scene for scene in catalogue.scenes if scene.id not in left_out)
        catalogue = replace(catalogue, scenes=kept)
        if left_out:
            outside = plural(len(left_out), "scene lies", "scenes lie")
            notes.append(f"{outside} outside of {area.name}; only images inside are predicted.")

    if errors and (strict or not jobs):
        raise _failure(_in_order(catalogue, errors), len(catalogue.scenes))
    settings: dict[str, Any] = {"nodata": nodata_to_json(nodata)}
    if area is not None:
        settings["area"] = [area.name, area.digest]
    inputs = PredictInputs(jobs, catalogue.skipped, settings)
    with locked(out / ".rooftrace.lock", str(out)):
        run_options = RunOptions(strict, keep=True, on_done=add, progress=progress)
        report = predict_inputs(inputs, executor, out / _SCENES, options, run_options)
        errors |= {scene.name: error for scene, error in report.failures}
        failures = _in_order(catalogue, errors)
        if failures and (strict or not layers):
            raise _failure(failures, len(catalogue.scenes))
        model, scenes = {"name": bundle.spec.name, "sha256": bundle.sha256}, catalogue.scenes
        manifest = merge_layers(
            [layers[scene.id] for scene in scenes if scene.id in layers],
            out,
            level=level,
            classes=() if bundle.spec.is_binary else bundle.spec.classes,
            scenes=lambda kept: [_manifest_entry(scene, layers, errors, kept) for scene in scenes],
            made_with={
                "model": model,
                "catalogue": {"name": catalogue.name, "kind": catalogue.kind},
            },
        )
        if stac:
            done = [
                replace(layers[scene.id], item=scene.provenance)
                for scene in scenes
                if scene.id in layers
            ]
            parts = manifest["partitions"]
            notes += write_stac(out, catalogue.name, done, model, MANIFEST, _DATING, parts)
    return CatalogueReport(
        out / MANIFEST,
        len(catalogue.scenes),
        tuple(failures),
        sum(layer.buildings for layer in layers.values()),
        int(manifest["rows"]),
        len(manifest["partitions"]),
        report,
        (*notes, *report.notes),
    )


def _jobs(
    catalogue: Catalogue, nodata: NodataRule | None, errors: dict[str, RooftraceError]
) -> list[SceneInput]:
    """Return the scenes, in the order of a space-filling curve if all bounds are known.

    See `CatalogueScene.open`; the errors of scenes that cannot be opened are added to `errors`.
    """
    jobs = []
    for scene in _in_curve_order(catalogue.scenes):
        try:
            job = scene.open(nodata)
            if scene.provenance is not None:
                job = replace(job, provenance=scene.provenance.result())
            # A remote image is checked later, when it is fetched.
            if not job.url and job.source.grid.crs is None:
                raise _not_georeferenced(job.shown)
            jobs.append(job)
        except RooftraceError as error:
            errors[scene.id] = error
    return jobs


def _limit(jobs: list[SceneInput], catalogue: Catalogue, area: Area) -> set[str]:
    """Limit scenes to an area; return the ids of those that it misses, which are removed."""
    degrees = area_in_degrees(area)
    bounds = {scene.id: scene.bounds for scene in catalogue.scenes}

    def is_missed(job: SceneInput) -> bool:
        box = bounds[job.name]
        if box is not None and not shapely.intersects(degrees_box(box), degrees):
            return True
        return AreaSource(job.source, area).is_missed

    missed = of_headers(is_missed, jobs, otherwise=False)
    if jobs and all(missed):
        raise DataError(
            f"The area {area.name} lies outside of {plural(len(jobs), 'scene')} of "
            f"{catalogue.name}.",
            remedy="Check both in a GIS, especially the coordinate system of the area.",
        )
    left_out = {job.name for job, out in zip(jobs, missed) if out}
    jobs[:] = [
        replace(job, source=AreaSource(job.source, area))
        for job in jobs
        if job.name not in left_out
    ]
    return left_out


def _in_curve_order(scenes: Sequence[CatalogueScene]) -> list[CatalogueScene]:
    bounds = np.array([scene.bounds for scene in scenes if scene.bounds is not None], float)
    if len(bounds) != len(scenes):
        return list(scenes)
    centres = (bounds[:, :2] + bounds[:, 2:]) / 2
    return [scenes[index] for index in _along_a_curve(centres)]


def _layer(name: str, record: Mapping[str, Any]) -> PredictedScene:
    polygons = Path(record["output"]["polygons"])
    if polygons.suffix != ".gpkg" or not record["figures"]["gsd_m"]:
        raise _not_georeferenced(record["output"]["input"])
    crs = VectorFile(polygons).crs
    assert crs is not None
    return predicted_scene(name, record, crs)


def _not_georeferenced(shown: str) -> GeoreferenceError:
    return GeoreferenceError(
        f"{shown} is not georeferenced; expected georeferenced scenes in a catalogue.",
        remedy="Georeference the scene, or predict it with rooftrace predict.",
    )


def _manifest_entry(
    scene: CatalogueScene,
    layers: Mapping[str, PredictedScene],
    errors: Mapping[str, RooftraceError],
    kept: Mapping[str, int],
) -> dict[str, Any]:
    """Return the entry of a scene in the manifest."""
    location = scene.location
    if is_url(location):
        # A query may contain a signature.
        location = location.partition("?")[0]
    entry: dict[str, Any] = {"id": scene.id, "location": location}
    if scene.provenance is not None:
        entry["imagery"] = scene.provenance.to_json()
    error = errors.get(scene.id)
    if error is not None:
        return entry | {"state": "failed", "error": error.to_json()}
    layer = layers.get(scene.id)
    if layer is None:
        return entry | {"state": "not done"}
    return entry | {
        "state": "done",
        "found": layer.buildings,
        "kept": kept.get(scene.id, 0),
        "gsd_m": layer.gsd_m,
        "polygons": layer.files["polygons"].name,
    }


def _in_order(
    catalogue: Catalogue, errors: Mapping[str, RooftraceError]
) -> list[tuple[str, RooftraceError]]:
    return [(scene.id, errors[scene.id]) for scene in catalogue.scenes if scene.id in errors]


def _failure(failures: Sequence[tuple[str, RooftraceError]], count: int) -> RooftraceError:
    name, error = failures[0]
    return error.named(name, f"{len(failures):,} of {plural(count, 'scene')} failed.")


def merge_layers(
    layers: Sequence[PredictedScene],
    out: Path,
    *,
    level: int,
    classes: Sequence[str] = (),
    scenes: Callable[[Mapping[str, int]], list[dict[str, Any]]],
    made_with: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Write one layer of all scenes and their outlines, and return the manifest.

    The layer is partitioned by quadkey, see `PartitionedLayer`.

    Args:
        layers: Polygons of the scenes, in the order of the catalogue.
        level: Zoom level of the quadkeys.
        classes: Class names by class index; empty if all polygons are buildings.
        scenes: Function that returns the manifest entries of the scenes. Its argument is the number
            of polygons of each scene that the layer keeps, by id.
        made_with: Model and catalogue that the layer depends on, for the manifest; plain data.
    """
    outlines = np.array([layer.outline for layer in layers], np.object_)
    # Longitudes go on beyond 180, so that scenes on both sides of it are compared.
    first = first_longitude(outlines)
    outlines = counted_from(first, outlines)
    accumulator = DetectionAccumulator(outlines.tolist(), [layer.gsd_m for layer in layers])
    kept: Counter[str] = Counter()
    names = np.array([layer.id for layer in layers], dtype=object)
    # The origin of the scenes; None where it is not known.
    origins = {
        name: np.array([layer.origin.columns()[name] for layer in layers], dtype=np.object_)
        for name in UNKNOWN_PROVENANCE.columns()
    }
    gsd_m = np.array([layer.gsd_m for layer in layers])
    with PartitionedLayer(out, level) as target:
        # A scene may be all nodata.
        shows = ~shapely.is_empty(outlines)
        # Apart from the image, the attribution is that of pictures of density.
        of_scenes = {
            name: np.array([getattr(layer.origin, name) for layer in layers], np.object_)
            for name in vars(UNKNOWN_PROVENANCE)
        }
        seen = {"scene": names, "gsd_m": gsd_m, **of_scenes}
        observed = {name: values[shows] for name, values in seen.items()}
        write_polygons(out / OBSERVED, split_at_180(outlines[shows]), observed, CRS84)

        def write(parts: Sequence[CandidateDetections]) -> None:
            for part in map(_split_detections, parts):
                scene_names = names[part.scene]
                kept.update(scene_names.tolist())
                named = {"class": np.array(classes, np.object_)[part.class_id]} if classes else {}
                columns = {
                    **named, **{name: getattr(part, name) for name in _FIGURES},
                    "cut": part.cut, "scene": scene_names, "scenes": part.seen.astype(np.int32),
                    **{name: values[part.scene] for name, values in origins.items()},
                }  # fmt: skip
                target.add(part.geometry, columns)

        # Merge neighbours one after the other, so that few polygons are held.
        # Empty outlines have no centre; they are placed at (0, 0).
        centres = np.zeros((len(outlines), 2))
        centres[shows] = shapely.get_coordinates(shapely.centroid(outlines))
        for index in _along_a_curve(centres):
            write(accumulator.add(index, _read(layers[index], index, first)))
        write(accumulator.finish())
        return target.finish({"made_with": dict(made_with), "scenes": scenes(kept)})


def _along_a_curve(centres: NDArray[np.float64]) -> list[int]:
    """Return the indices of (n, 2) longitudes and latitudes in the order of a Z-order curve."""
    numbers = morton_codes(centres[:, 0], centres[:, 1], _CURVE_LEVEL)
    order: list[int] = np.argsort(numbers, kind="stable").tolist()
    return order


def _read(layer: PredictedScene, index: int, first: float) -> CandidateDetections:
    """Return the polygons of a scene in degrees, whose longitudes are counted from `first`."""
    file = VectorFile(layer.files["polygons"])
    wanted = [name for name in (*_FIGURES, "class_id", "cut") if name in file.fields]
    read = file.read(wanted, typed=True)
    columns = read.values
    degrees = shapely.transform(read.geometry, lambda xy: transform_points(xy, read.crs, CRS84))
    polygons = make_polygons_valid(counted_from(first, np.asarray(degrees, np.object_)))
    count = len(polygons)

    figures = {name: np.asarray(columns[name], np.float64) for name in _FIGURES if name != "score"}
    return CandidateDetections(
        geometry=polygons,
        scene=np.full(count, index),
        number=np.arange(count),
        score=np.asarray(columns["score"], np.float32),
        class_id=np.asarray(columns.get("class_id", np.ones(count)), np.uint8),
        **figures,
        cut=np.asarray(columns.get("cut", np.zeros(count)), np.bool_),
        edge_m=np.full(count, np.nan),
        gsd_m=np.full(count, layer.gsd_m),
        seen=np.ones(count, np.int64),
    )


def _split_detections(found: CandidateDetections) -> CandidateDetections:
    """Return polygons whose longitudes are from -180 to 180; pieces have figures of their own."""
    parts, row = shapely.get_parts(split_at_180(found.geometry), return_index=True)
    pieces = replace(found.of(row), geometry=parts)
    is_piece = np.bincount(row, minlength=len(found))[row] > 1
    if not is_piece.any():
        return pieces
    return CandidateDetections.joined([pieces.of(~is_piece), measured(pieces.of(is_piece))])
