"""Test that a run on a Ray cluster writes the bytes of one process, even if workers are lost."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from raster_files import write_geotiff
from rooftrace.core.errors import ConfigError, DataError, PredictError
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.flows.predict import cluster
from rooftrace.flows.predict.cluster import ClusterOptions, cluster_executor
from rooftrace.flows.predict.cluster_worker import Facts
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.io.raster import open_raster
from rooftrace.predict.checkpoint import CheckpointStore
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import SceneOptions, plan_scene

OPTIONS = SceneOptions(cell_m=50)
CLUSTER = ClusterOptions(workers=2)


@pytest.fixture(scope="module")
def started() -> Iterator[None]:
    """Start Ray with two cores, for all tests of this module."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        here = Path(__file__).parent
        folders = [str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(folders))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Beside other tests, workers of Ray's niceness of 15 would hardly run.
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write five images of one block each."""
    made = tmp_path_factory.mktemp("five")
    for number in range(5):
        write_town(made / f"{number}.tif", 150 + 90 * number, seed=number)
    return made


def results(out: Path) -> dict[str, bytes]:
    """Return every file except the record, which holds times."""
    files = [path for path in sorted(out.iterdir()) if path.is_file() and path.name != "run.json"]
    return {path.name: path.read_bytes() for path in files}


def predict(
    image: Path, model: Path, out: Path, options: ClusterOptions | None = CLUSTER
) -> dict[str, object]:
    run_predict(find_inputs([image]), read_models(model), out, OPTIONS, cluster=options)
    return json.loads((out / "run.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def alone(
    wide_bundle: Path, town: Path, small_blocks: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("alone")
    predict(town, wide_bundle, out, None)
    return results(out)


@pytest.fixture(scope="module")
def five(folder: Path, wide_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("five_alone")
    predict(folder, wide_bundle, out, None)
    return out


@pytest.mark.campaign
@pytest.mark.usefixtures("started", "small_blocks")
def test_blocks_of_a_cluster_give_the_bytes_of_one_process(
    wide_bundle: Path, town: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    record = predict(town, wide_bundle, tmp_path)
    assert results(tmp_path) == alone
    assert not (tmp_path / ".rooftrace").exists()
    assert record["cluster"] == {"machines": 1, "nodes": [socket.gethostname()], "lost": 0}
    assert record["figures"][0]["pixels"] == 810_000  # type: ignore[index]


class DyingStore(CheckpointStore):
    """Kills the worker that writes the checkpoint of block 7: once, or each time."""

    once = True

    def save_packed(self, number: int, packed: bytes) -> None:
        died = self.folder.parent.with_name("died")
        if number == 7 and not (self.once and died.exists()):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().save_packed(number, packed)


class DeadlyStore(DyingStore):
    once = False


@pytest.mark.campaign
@pytest.mark.usefixtures("started", "small_blocks")
def test_a_lost_worker_costs_only_time_and_a_deadly_block_is_named(
    wide_bundle: Path, town: Path, alone: dict[str, bytes], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("rooftrace.flows.predict.run_folder.CheckpointStore", DyingStore)
    predict(town, wide_bundle, tmp_path / "once")
    assert (tmp_path / "once" / "died").exists()
    assert results(tmp_path / "once").items() >= alone.items()
    monkeypatch.setattr("rooftrace.flows.predict.run_folder.CheckpointStore", DeadlyStore)
    with pytest.raises(PredictError, match=r"block at rows .*: 3 workers were lost with it"):
        predict(town, wide_bundle, tmp_path / "always")
    kept = len(list((tmp_path / "always" / ".rooftrace" / "town.parts").glob("[0-9]*.part")))
    assert kept >= 7
    # A run in one process resumes what the cluster has done.
    monkeypatch.undo()
    assert predict(town, wide_bundle, tmp_path / "always", None)["resumed_blocks"] == kept
    assert results(tmp_path / "always").items() >= alone.items()


@pytest.mark.campaign
@pytest.mark.usefixtures("started", "small_blocks")
def test_checkpoints_travel_through_the_cluster_if_no_folder_is_shared(
    wide_bundle: Path, town: Path, alone: dict[str, bytes], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("rooftrace.flows.predict.run_folder.CheckpointStore", HiddenStore)
    predict(town, wide_bundle, tmp_path)
    assert results(tmp_path) == alone


class HiddenStore(CheckpointStore):
    is_visible = False  # type: ignore[assignment]


@pytest.mark.campaign
@pytest.mark.usefixtures("started")
def test_a_worker_predicts_each_of_several_images_as_a_whole(
    folder: Path, five: Path, wide_bundle: Path, tmp_path: Path
) -> None:
    record = predict(folder, wide_bundle, tmp_path / "out")
    assert results(tmp_path / "out") == results(five)
    outputs: list[dict[str, object]] = record["outputs"]  # type: ignore[assignment]
    masks = [tmp_path / "out" / f"{number}_mask.tif" for number in range(5)]
    assert [output["mask"] for output in outputs] == list(map(str, masks))
    assert not (tmp_path / "out" / ".rooftrace").exists()


@pytest.mark.campaign
@pytest.mark.usefixtures("started")
def test_an_image_fails_and_the_others_are_predicted(
    folder: Path, five: Path, wide_bundle: Path, tmp_path: Path
) -> None:
    images = tmp_path / "in"
    images.mkdir()
    for path in folder.iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    data = (images / "4.tif").read_bytes()
    (images / "4.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"4\.tif.* 1 of 5 images failed"):
        predict(images, wide_bundle, tmp_path / "out")
    expected = {name: one for name, one in results(five).items() if not name.startswith("4")}
    assert results(tmp_path / "out") == expected


def test_machines_whose_results_could_differ_are_named() -> None:
    first = Facts("openvino", "fp32", {}, (), {"gdal": "3.9"}, "one", {"instruction_set": "AVX2"})
    replace(first, node="two", processor={"instruction_set": "AVX-512"}).check_equals(first)
    with pytest.raises(ConfigError, match=r"two has versions \{'gdal': '4'\}, but one has"):
        replace(first, node="two", versions={"gdal": "4"}).check_equals(first)


@pytest.mark.parametrize(
    "address", ["nonsense", "here:", ":6379", "host:0", "host:65536", "host:x"]
)
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="expected local, auto or HOST:PORT"):
        cluster._check_listens(address)


def test_a_busy_machine_on_which_ray_does_not_start_is_named() -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup. Perhaps")

    ray = SimpleNamespace(is_initialized=lambda: False, init=init)
    message = r"^Ray did not start on this machine: The current node timed out .*less busy"
    with pytest.raises(PredictError, match=message), cluster._connected(ray, "local"):
        pass


def test_an_address_without_a_listener_is_refused() -> None:
    with socket.socket() as taken:
        # The port is taken, but no process listens at it.
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"No Ray cluster answers at {address}: "):
            cluster._check_listens(address)


@pytest.mark.campaign
@pytest.mark.usefixtures("started")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ClusterOptions(workers=3), "needs 3 workers, but the cluster has only 2 cores"),
        (ClusterOptions(gpus_per_worker=0.5), "the cluster has only 0 GPUs on 1 machine"),
    ],
)
def test_a_cluster_that_is_too_small_is_refused(options: ClusterOptions, message: str) -> None:
    with pytest.raises(ConfigError, match=message), cluster_executor(read_models(None), options):
        pass


def test_contributing_blocks_include_every_block_that_sends_halo_outputs(
    town: Path, wide_bundle: Path
) -> None:
    plan = plan_scene(open_raster(town), tiny_bundle().spec, tile_px=128, block_px=200)
    handed: dict[int, set[int]] = {number: set() for number in range(len(plan.blocks))}
    for number in range(len(plan.blocks)):
        for tile in plan.own_tiles(number):
            (own, _), *others = plan.extents(tile)
            assert own == number
            for other, _ in others:
                handed[other].add(number)
    assert len(plan.blocks) > 20
    for number, senders in handed.items():
        assert senders <= plan.contributing(number)
        assert all(other < number for other in plan.contributing(number))
