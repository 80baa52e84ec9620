"""Test that a run on a cluster writes the bytes of one process, even if workers are lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import rasterio

from local_pool import Death, LocalPool, Mishap, Script
from raster_files import write_geotiff
from rooftrace.core.errors import DataError, PredictError
from rooftrace.core.types import Window
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.flows.predict.cluster import SceneWorker
from rooftrace.flows.predict.executor import executing
from rooftrace.flows.predict.image_run import RunOptions, SceneTask, SceneTaskResult
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.flows.predict.run import predict_inputs, run_predict
from rooftrace.io.raster import RasterFile, open_raster
from rooftrace.predict.checkpoint import CheckpointStore
from rooftrace.predict.cluster.pool import ClusterOptions
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import SceneOptions, plan_scene

pytestmark = pytest.mark.usefixtures("small_blocks")

OPTIONS = SceneOptions(cell_m=50)

Spread = Callable[..., list[LocalPool]]


def write_town(path: Path, side: int, seed: int = 3) -> Path:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (3, side // 18 + 1, side // 18 + 1), dtype=np.uint8)
    data = np.kron(coarse, np.ones((1, 18, 18), np.uint8))[:, :side, :side]
    data[:, -side // 5 :, : side // 3] = 0
    return write_geotiff(path, data, nodata=0, tiled=True, compress="deflate")


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a town of 25 blocks; some contain nodata, and some are only nodata."""
    return write_town(tmp_path_factory.mktemp("town") / "town.tif", 900)


def results(out: Path) -> dict[str, bytes]:
    """Return every file except the record, which holds times."""
    return {
        p.name: p.read_bytes()
        for p in sorted(out.iterdir())
        if p.is_file() and p.name != "run.json"
    }


@pytest.fixture(scope="module")
def alone(
    wide_bundle: Path, town: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("alone")
    run_predict(find_inputs([town]), read_models(wide_bundle), out, OPTIONS)
    return results(out)


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> Spread:
    """Return a function that replaces Ray by a cluster inside the test, and lists its pools."""

    def set_up(**options: object) -> list[LocalPool]:
        pools: list[LocalPool] = []

        def make(*given: object) -> LocalPool:
            pools.append(LocalPool(*given, **options))  # type: ignore[arg-type]
            return pools[-1]

        monkeypatch.setattr("rooftrace.predict.cluster.pool.RayPool", make)
        return pools

    return set_up


CLUSTER = ClusterOptions()
BLOCKS = 25


@pytest.mark.parametrize("size", [1, 3])
def test_a_cluster_writes_the_bytes_of_one_process(
    size: int,
    wide_bundle: Path,
    town: Path,
    alone: dict[str, bytes],
    spread: Spread,
    tmp_path: Path,
) -> None:
    pools = spread(size=size)
    report = run_predict(
        find_inputs([town]), read_models(wide_bundle), tmp_path, OPTIONS, cluster=CLUSTER
    )
    assert results(tmp_path) == alone
    assert len([what for _, what in pools[0].called if what == "run"]) == BLOCKS
    assert not (tmp_path / ".rooftrace").exists()
    record = json.loads((tmp_path / "run.json").read_text())
    assert sum(record["cluster"]["nodes"].values()) == size
    assert record["cluster"]["runs"] == BLOCKS
    assert record["cluster"]["lost"] == 0
    assert report.outputs[0].pixels == 810_000
    figures = record["figures"][0]
    assert figures["engine_mpx_per_s"] > 0


def test_models_are_sent_to_workers_as_they_were_read(
    wide_bundle: Path, town: Path, spread: Spread, tmp_path: Path
) -> None:
    """Send an ensemble with mirrored tiles; no worker opens the files of its models."""
    spread(size=2)
    copy = tmp_path / "copy.rooftrace"
    copy.write_bytes(wide_bundle.read_bytes())
    models = read_models([wide_bundle, copy], "weighted", weights=(2.0, 1.0), tta="flips")
    copy.unlink()
    run_predict(find_inputs([town]), models, tmp_path / "one", OPTIONS)
    run_predict(find_inputs([town]), models, tmp_path / "many", OPTIONS, cluster=CLUSTER)
    assert results(tmp_path / "one") == results(tmp_path / "many")


@pytest.mark.parametrize(
    ("package", "name"), [(cv2, "__version__"), (rasterio, "__gdal_version__")]
)
def test_a_worker_with_another_version_of_a_library_that_reads_pixels_differs(
    package: ModuleType, name: str, wide_bundle: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    worker = SceneWorker(read_models(wide_bundle), None, tmp_path / "absent")
    facts = worker.facts()
    assert worker.facts().differs(facts) == ""
    monkeypatch.setattr(package, name, "0.0.0")
    assert "it has versions {" in worker.facts().differs(facts)


def lost_at(*calls: int, how: Mishap = "lost") -> Script:
    return lambda worker, method, call: how if call in calls else None


@pytest.mark.campaign
@pytest.mark.parametrize(
    "script",
    [lost_at(0), lost_at(5, 6, 14), lost_at(4, how="lost after"), lost_at(2, 9, how="lost after")],
    ids=["first", "three", "answer", "answers"],
)
@pytest.mark.parametrize("replaces", [True, False])
def test_lost_workers_cost_only_time(
    script: Script, replaces: bool, wide_bundle: Path, town: Path, alone: dict[str, bytes],
    spread: Spread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # By chance, all three workers may be lost with the same block.
    monkeypatch.setattr("rooftrace.predict.cluster.schedule.MOST_LOSSES", 4)
    spread(size=2 if replaces else 4, script=script, replaces=replaces)
    run_predict(find_inputs([town]), read_models(wide_bundle), tmp_path, OPTIONS, cluster=CLUSTER)
    assert results(tmp_path) == alone
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["cluster"]["lost"] >= 1
    assert any("was lost: killed" in note for note in record["notes"])
    # Nothing counts twice.
    assert record["figures"][0]["pixels"] == 810_000


@pytest.mark.campaign
def test_another_process_or_cluster_resumes_a_run(
    wide_bundle: Path, town: Path, alone: dict[str, bytes], spread: Spread, tmp_path: Path
) -> None:
    """Lose a whole cluster, resume in one process that is stopped, and finish on a cluster."""
    spread(size=1, script=lost_at(6), replaces=False)
    with pytest.raises(PredictError, match="No worker is left"):
        run_predict(
            find_inputs([town]), read_models(wide_bundle), tmp_path, OPTIONS, cluster=CLUSTER
        )
    done = len(list((tmp_path / ".rooftrace" / "town.parts").glob("[0-9]*.part")))
    assert 1 <= done < BLOCKS
    with pytest.MonkeyPatch.context() as patch:
        save = CheckpointStore.save

        def stop(self: CheckpointStore, number: int, part: object) -> None:
            if number == 8:
                raise KeyboardInterrupt
            save(self, number, part)  # type: ignore[arg-type]

        patch.setattr(CheckpointStore, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run_predict(find_inputs([town]), read_models(wide_bundle), tmp_path, OPTIONS)
    pools = spread(size=2)
    report = run_predict(
        find_inputs([town]), read_models(wide_bundle), tmp_path, OPTIONS, cluster=CLUSTER
    )
    assert report.resumed_blocks >= done
    assert (
        len([what for _, what in pools[0].called if what == "run"])
        == BLOCKS - report.resumed_blocks
    )
    assert results(tmp_path) == alone


@pytest.mark.campaign
def test_checkpoints_travel_through_the_cluster_if_no_folder_is_shared(
    wide_bundle: Path, town: Path, alone: dict[str, bytes], spread: Spread, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(CheckpointStore, "is_visible", False)
    spread(size=2, script=lost_at(9), replaces=False)
    run_predict(find_inputs([town]), read_models(wide_bundle), tmp_path, OPTIONS, cluster=CLUSTER)
    assert results(tmp_path) == alone


class FirstCalls:
    """Script in which the first calls of a function meet a mishap; see `WorkerCalls`."""

    def __init__(self, mishap: Mishap, count: int) -> None:
        self.mishap = mishap
        self.left = count

    def __call__(self, worker: int, method: str, call: int) -> Mishap:
        if method != "call" or not self.left:
            return None
        self.left -= 1
        return self.mishap


@pytest.mark.parametrize("mishap", ["lost", "lost after", "fails"])
def test_outlines_of_a_lost_worker_are_made_by_another(
    mishap: Mishap, wide_bundle: Path, town: Path, alone: dict[str, bytes], spread: Spread,
    tmp_path: Path,
) -> None:  # fmt: skip
    script = FirstCalls(mishap, 2)
    spread(size=3, script=script)
    run_predict(find_inputs([town]), read_models(wide_bundle), tmp_path, OPTIONS, cluster=CLUSTER)
    assert results(tmp_path) == alone
    assert script.left == 0


def test_a_block_that_kills_its_workers_is_named(
    wide_bundle: Path, town: Path, spread: Spread, tmp_path: Path
) -> None:
    def script(worker: int, method: str, call: int) -> Mishap:
        return "lost" if call >= 3 else None

    spread(size=2, script=script)
    with pytest.raises(PredictError, match=r"3 workers were lost with the block at rows"):
        run_predict(
            find_inputs([town]), read_models(wide_bundle), tmp_path, OPTIONS, cluster=CLUSTER
        )


@pytest.mark.campaign
def test_a_machine_that_cannot_read_is_dismissed(
    wide_bundle: Path, town: Path, alone: dict[str, bytes], spread: Spread, tmp_path: Path
) -> None:
    spread(size=3, script=lambda worker, method, call: "fails" if worker == 1 else None)
    run_predict(find_inputs([town]), read_models(wide_bundle), tmp_path, OPTIONS, cluster=CLUSTER)
    assert results(tmp_path) == alone
    notes = json.loads((tmp_path / "run.json").read_text())["notes"]
    assert any("it failed where others did not" in note for note in notes)


@pytest.mark.campaign
def test_an_image_fails_and_the_others_are_predicted(
    wide_bundle: Path, town: Path, alone: dict[str, bytes], spread: Spread, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "town.tif").write_bytes(town.read_bytes())
    write_town(folder / "other.tif", 600, seed=4)
    torn = (folder / "torn.tif").open("wb")
    data = write_town(tmp_path / "whole.tif", 600).read_bytes()
    torn.write(data[: len(data) // 2])
    torn.close()
    write_town(folder / "small.tif", 200, seed=5)
    spread(size=2)
    outs = tmp_path / "one", tmp_path / "many"
    for out, cluster in zip(outs, (None, CLUSTER)):
        with pytest.raises(DataError, match=r"torn\.tif"):
            run_predict(
                find_inputs([folder]), read_models(wide_bundle), out, OPTIONS, cluster=cluster
            )
    names = [set(results(out)) for out in outs]
    assert names[0] == names[1] >= set(alone)
    for name in names[0]:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write seven images of one or more blocks."""
    made = tmp_path_factory.mktemp("seven")
    for number in range(7):
        write_town(made / f"{number}.tif", 150 + 90 * number, seed=number)
    return made


@pytest.fixture(scope="module")
def seven(folder: Path, wide_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("seven_alone")
    run_predict(find_inputs([folder]), read_models(wide_bundle), out, OPTIONS)
    return out


def reported(out: Path) -> list[dict[str, object]]:
    """Return the entries of the images in run.json without times and places."""
    record = json.loads((out / "run.json").read_text())
    kept = ("input", "buildings", "pixels", "built_up_share", "classes")
    return [{key: one[key] for key in kept} for one in record["outputs"]]


@pytest.mark.campaign
@pytest.mark.parametrize(
    "script", [lost_at(), lost_at(0, 3), lost_at(1, 4, how="lost after")],
    ids=["quiet", "lost", "answers lost"],
)  # fmt: skip
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_a_worker_predicts_each_of_several_images_as_a_whole(
    script: Script, shared: bool, folder: Path, seven: Path, wide_bundle: Path, spread: Spread,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not shared:
        monkeypatch.setattr("rooftrace.flows.predict.cluster.is_shared", lambda out, run_id: False)
    pools = spread(size=3, script=script)
    report = run_predict(
        find_inputs([folder]), read_models(wide_bundle), tmp_path / "out", OPTIONS, cluster=CLUSTER
    )
    assert results(tmp_path / "out") == results(seven)
    assert reported(tmp_path / "out") == reported(seven)
    assert {what for _, what in pools[0].called} == {"scene"}
    assert [output.mask for output in report.outputs] == [
        str(tmp_path / "out" / f"{number}_mask.tif") for number in range(7)
    ]
    assert not (tmp_path / "out" / ".rooftrace").exists()


@pytest.mark.campaign
def test_all_workers_share_a_large_image_among_others(
    folder: Path, seven: Path, wide_bundle: Path, spread: Spread, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("rooftrace.flows.predict.cluster._WHOLE_PX", 300 * 300)
    pools = spread(size=2)
    run_predict(find_inputs([folder]), read_models(wide_bundle), tmp_path, OPTIONS, cluster=CLUSTER)
    assert results(tmp_path) == results(seven)
    called = [what for _, what in pools[0].called]
    assert called.count("scene") == 2
    assert "run" in called


@pytest.mark.campaign
def test_an_image_that_kills_its_workers_is_named_and_no_other_is_blamed(
    folder: Path, seven: Path, wide_bundle: Path, spread: Spread, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def scene(self: SceneWorker, task: SceneTask) -> SceneTaskResult:
        if task.scenes[0].name == "4":
            raise Death
        return plain(self, task)

    plain = SceneWorker.scene
    monkeypatch.setattr(SceneWorker, "scene", scene)
    spread(size=2)
    with pytest.raises(PredictError, match=r"4\.tif: 3 workers were lost with it.* 1 of 7 images"):
        run_predict(
            find_inputs([folder]), read_models(wide_bundle), tmp_path, OPTIONS, cluster=CLUSTER
        )
    expected = {k: v for k, v in results(seven).items() if not k.startswith("4")}
    assert results(tmp_path) == expected
    assert json.loads((tmp_path / "run.json").read_text())["cluster"]["lost"] == 3


@pytest.mark.campaign
def test_a_strict_run_stops_at_the_first_image_that_fails(
    folder: Path, wide_bundle: Path, spread: Spread, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for path in folder.iterdir():
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "in" / "5.tif").write_bytes(b"II*\0 nothing")
    pools = spread(size=1)
    inputs = find_inputs([tmp_path / "in"])
    with executing(read_models(wide_bundle), CLUSTER) as executor:
        report = predict_inputs(
            inputs, executor, tmp_path / "out", OPTIONS, RunOptions(strict=True)
        )
    ((failed, error),) = report.failures
    assert failed.shown.endswith("5.tif")
    assert isinstance(error, DataError)
    assert len(pools[0].called) < 7
    # Finished images are kept for the run that resumes.
    (tmp_path / "in" / "5.tif").unlink()
    inputs = find_inputs([tmp_path / "in"])
    with executing(read_models(wide_bundle), CLUSTER) as executor:
        report = predict_inputs(
            inputs, executor, tmp_path / "out", OPTIONS, RunOptions(strict=True)
        )
    assert not report.failures
    assert len(report.outputs) == 6


@pytest.mark.campaign
def test_files_of_slower_workers_are_removed(
    folder: Path, seven: Path, wide_bundle: Path, spread: Spread, tmp_path: Path
) -> None:
    spread(size=2, script=lost_at(1, how="lost after"))
    inputs = find_inputs([folder])
    with executing(read_models(wide_bundle), CLUSTER) as executor:
        predict_inputs(inputs, executor, tmp_path, OPTIONS, RunOptions(keep=True))
    assert results(tmp_path) == results(seven)
    assert [path.name for path in (tmp_path / ".rooftrace").iterdir()] == ["journal.jsonl"]


@pytest.mark.campaign
def test_tiles_that_fail_are_the_same_on_a_cluster(
    wide_bundle: Path, spread: Spread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = write_town(tmp_path / "town.tif", 600)
    read = RasterFile.read
    torn = Window(300, 300, 10, 10)

    def broken(self: RasterFile, window: Window | None = None) -> object:
        if window is None or window.intersection(torn):
            raise DataError("A hole in the file.", remedy="Repair it.")
        return read(self, window)

    monkeypatch.setattr(RasterFile, "read", broken)
    options = SceneOptions(cell_m=50, forgiving=True)
    spread(size=2)
    for name, cluster in (("one", None), ("many", CLUSTER)):
        run_predict(
            find_inputs([town]), read_models(wide_bundle), tmp_path / name, options, cluster=cluster
        )
    assert results(tmp_path / "one") == results(tmp_path / "many")
    failed = [
        json.loads((tmp_path / name / "run.json").read_text())["figures"][0]["failed_tiles"]
        for name in ("one", "many")
    ]
    assert sorted(failed[0]) == sorted(failed[1]) != []


@pytest.mark.campaign
def test_a_worker_with_other_facts_is_not_used(
    wide_bundle: Path, town: Path, alone: dict[str, bytes], spread: Spread, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made: list[int] = []
    facts = LocalPool.__dict__["_start"]

    def start(self: LocalPool) -> None:
        facts(self)
        made.append(1)
        if len(made) == 2:
            # The last event holds the facts of the worker.
            record = self._events.queue[-1]
            other = replace(record.facts, precision="fp64", node="odd")
            self._events.queue[-1] = replace(record, facts=other)

    monkeypatch.setattr(LocalPool, "_start", start)
    pools = spread(size=3)
    run_predict(find_inputs([town]), read_models(wide_bundle), tmp_path, OPTIONS, cluster=CLUSTER)
    assert results(tmp_path) == alone
    assert {worker for worker, _ in pools[0].called} == {0, 2}
    notes = json.loads((tmp_path / "run.json").read_text())["notes"]
    assert any("on odd was not used: it has precision fp64, but" in note for note in notes), notes


def test_contributing_blocks_include_every_block_that_sends_halo_outputs(
    town: Path, wide_bundle: Path
) -> None:
    plan = plan_scene(open_raster(town), tiny_bundle().spec, tile_px=128, block_px=200)
    handed: dict[int, set[int]] = {number: set() for number in range(plan.block_count)}
    for number in range(plan.block_count):
        for tile in plan.own_tiles(number):
            write = plan.tiles.tile(tile).write
            for other in plan.blocks_needing(tile):
                if other != number and write.intersection(plan.model_window(other)):
                    handed[other].add(number)
    assert plan.block_count > 20
    for number, senders in handed.items():
        assert senders <= plan.contributing(number)
        assert all(other < number for other in plan.contributing(number))
