"""`rooftrace predict` of a catalogue: many scenes, one layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rooftrace.cli.show import answered, pixel_bar, say
from rooftrace.core.errors import ConfigError
from rooftrace.predict.options import SceneOptions

if TYPE_CHECKING:
    from rooftrace.flows.catalogue import CatalogueReport
    from rooftrace.flows.scene_run import OnDone
    from rooftrace.predict.cluster.ray_pool import ClusterOptions
    from rooftrace.predict.model_set import Models

__all__ = ["is_meant", "run_one_layer", "tell_of_layer"]

_MOST_FAILURES = 10


def is_meant(inputs: Sequence[str], *, asked_for: bool, mosaic: bool) -> bool:
    """Whether the inputs are a catalogue.

    Args:
        asked_for: whether the person said so.
        mosaic: whether folders are scenes.

    Raises:
        ConfigError: there is a catalogue among several inputs.
    """
    from rooftrace.data.catalogue.read import is_catalogue
    from rooftrace.io.objects import is_object_url

    def can_be(given: str) -> bool:
        return "://" not in given or (is_object_url(given) and given.endswith("/"))

    found = [
        given
        for given in inputs
        if not mosaic and (is_catalogue(given) or (asked_for and can_be(given)))
    ]
    if found and len(inputs) > 1:
        raise ConfigError(
            f"{found[0]} is a catalogue, and {len(inputs)} inputs were given.",
            remedy="Give the catalogue alone, or write one of all of them.",
        )
    if asked_for and not found:
        raise ConfigError(
            f"--catalogue was given for {inputs[0]}, which cannot be one.",
            remedy="Name a folder or a file of scenes, without --mosaic.",
        )
    return bool(found)


def run_one_layer(
    path: str,
    bundle: Models,
    out: Path,
    options: SceneOptions,
    common: Mapping[str, Any],
    cluster: ClusterOptions | None,
    *,
    asset: str | None,
    path_column: str | None,
    level: int,
    strict: bool,
    on_done: OnDone | None,
    hidden: bool,
) -> CatalogueReport:
    """Predict a catalogue."""
    from rooftrace.data.catalogue.read import read_catalogue
    from rooftrace.flows.catalogue import run_catalogue
    from rooftrace.flows.executor import executing
    from rooftrace.predict.model_set import read_models

    catalogue = read_catalogue(path, asset=asset, path_column=path_column)
    nodata = common["nodata"]
    models = read_models(
        bundle, common["ensemble"], weights=common["weights"], tta=common["tta"],
        engine=common["engine"], precision=common["precision"],
    )  # fmt: skip
    told = {"tta": common["tta"], "nodata": None if nodata is None else asdict(nodata)}
    with executing(models, cluster) as executor, pixel_bar("predict", hidden=hidden) as progress:
        return run_catalogue(
            catalogue, executor, out, options, level=level, strict=strict, nodata=nodata,
            told=told, on_done=on_done, progress=progress,
        )  # fmt: skip


def tell_of_layer(report: CatalogueReport, shown: Callable[[Any], Any], *, as_json: bool) -> None:
    """What became of a catalogue."""
    if answered(report, as_json=as_json, shown=shown):
        return
    manifest = shown(str(report.manifest))
    for name, error in report.failures[:_MOST_FAILURES]:
        say(f"failed: {name}: {error.message}")
    if len(report.failures) > _MOST_FAILURES:
        say(f"… and {len(report.failures) - _MOST_FAILURES:,} more, in {manifest}")
    done = report.scenes - len(report.failures)
    say(
        f"{done:,} of {report.scenes:,} scenes: {report.buildings:,} buildings in "
        f"{report.partitions:,} files, of {report.found:,} that the scenes show"
    )
    if report.predicted.resumed_images:
        say(f"gone on with: {report.predicted.resumed_images:,} scenes were done by an earlier run")
    say(
        f"{report.predicted.mpx_per_s:.1f} Mpx/s, peak memory "
        f"{report.predicted.peak_rss_mb:.0f} MB, manifest {manifest}"
    )
