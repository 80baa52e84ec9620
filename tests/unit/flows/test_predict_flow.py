"""Folders in, complete files out; a failure is reported and stops no other image."""

from __future__ import annotations

import json
import os
import re
import signal
import tomllib
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from PIL import Image

from command_line import command
from raster_files import write_geotiff
from rooftrace.app.map.results import read_results
from rooftrace.core.errors import ConfigError, DataError, ExportError
from rooftrace.core.parallel import Threads
from rooftrace.core.processes import Processes
from rooftrace.flows.catalogue.scenes import read_catalogue
from rooftrace.flows.doctor import run_doctor
from rooftrace.flows.predict import image_run
from rooftrace.flows.predict import run as executor
from rooftrace.flows.predict.inputs import SceneInput, find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.flows.predict.run_folder import RunFolder
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import load


def draw(path: Path, shape: tuple[int, int], mode: str = "RGB") -> Path:
    pixels = np.full((*shape, len(mode)), 40, dtype=np.uint8)
    pixels[5:25, 10:40] = 200
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels if len(mode) > 1 else pixels[..., 0]).save(path, format="PNG")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw(tmp_path / "in" / "b.png", (64, 80))
    draw(tmp_path / "in" / "a.jpg", (224, 224))
    (tmp_path / "in" / "notes.txt").write_text("flown in May")
    data = np.full((3, 100, 90), 40, dtype=np.uint8)
    data[:, 5:25, 10:40] = 200
    write_geotiff(tmp_path / "in" / "c.tif", data)
    return tmp_path / "in"


def test_a_later_run_keeps_the_record_of_earlier_images(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    """Sheets arrive one after another; a run of one again takes the place of its entry."""
    for name, threshold in (("a.jpg", 0.5), ("b.png", 0.3), ("c.tif", 0.5), ("b.png", 0.4)):
        options = SceneOptions(threshold=threshold)
        run_predict(find_inputs([folder / name]), read_models(bundle), tmp_path / "out", options)
    images = [read_results(tmp_path / "out").images[name] for name in "abc"]
    made = [(one.record["buildings"], one.run["options"]["threshold"]) for one in images]
    assert made == [(1, 0.5), (1, 0.4), (1, 0.5)]


def test_replaced_results_of_an_image_of_the_same_name_are_named(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    other = tmp_path / "2021" / "c.tif"
    other.parent.mkdir()
    other.write_bytes((folder / "c.tif").read_bytes())
    notes = []
    for image in (folder / "c.tif", folder / "c.tif", other):
        report = run_predict(find_inputs([image]), read_models(bundle), tmp_path / "out")
        notes.append([note for note in report.notes if "Replaced" in note])
    assert notes[:2] == [[], []]
    assert notes[2][0].endswith(f"-o keeps them apart: {folder / 'c.tif'}")


@pytest.mark.campaign
def test_processes_that_make_outlines_change_no_byte(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.full((3, 4700, 600), 40, dtype=np.uint8)
    for row in range(10, 4600, 60):
        for col in range(10, 580, 50):
            data[:, row : row + 30, col : col + 20 + row % 25] = 200
    scene = write_geotiff(tmp_path / "town.tif", data)
    submit, calls = Processes.submit, []
    monkeypatch.setattr(
        Processes,
        "submit",
        lambda *given: calls.append(getattr(given[1], "__name__", "")) or submit(*given),
    )
    options = SceneOptions(outputs=("mask", "polygons"))
    for out, cores in (("threads", 2), ("processes", 4)):
        monkeypatch.setattr(executor, "core_count", lambda cores=cores: cores)
        report = run_predict(find_inputs([scene]), read_models(bundle), tmp_path / out, options)
        assert report.outputs[0].buildings == 924
        assert ("trace" in calls) == (out == "processes")
    for name in ("town_mask.tif", "town_buildings.gpkg"):
        one, other = ((tmp_path / out / name).read_bytes() for out in ("threads", "processes"))
        assert one == other, name


@pytest.mark.campaign
def test_processes_that_predict_small_images_change_no_byte(
    folder: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_MIN_PX", 0)
    submit, calls = Processes.submit, []
    monkeypatch.setattr(
        Processes, "submit", lambda *given: calls.append(given[1].__name__) or submit(*given)
    )
    kept = {}
    for out, cores in (("here", 1), ("processes", 2)):
        monkeypatch.setattr(executor, "core_count", lambda cores=cores: cores)
        run_predict(find_inputs([folder]), read_models(bundle), tmp_path / out)
        files = sorted((tmp_path / out).glob("[a-c]_*"))
        kept[out] = {one.name: one.read_bytes() for one in files}
    assert calls == ["_predict"]
    assert kept["processes"] == kept["here"]
    assert len(kept["here"]) == 10


@pytest.mark.campaign
def test_images_of_a_lost_process_are_predicted_here(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(80):
        draw(tmp_path / "in" / f"{number:02}.png", (64, 80))
    monkeypatch.setattr(executor, "_MIN_PX", 0)
    monkeypatch.setattr(executor, "_GROUP", 4)
    monkeypatch.setattr(executor, "core_count", lambda: 2)
    submit, calls = Processes.submit, []

    def submit_or_kill(self: Processes, work: Callable[..., Any], *given: Any) -> Future[Any]:
        calls.append(work)
        if len(calls) == 10:
            submit(self, os.kill, submit(self, os.getpid).result(), signal.SIGKILL)
        return submit(self, work, *given)

    monkeypatch.setattr(Processes, "submit", submit_or_kill)
    report = run_predict(find_inputs([tmp_path / "in"]), read_models(bundle), tmp_path / "out")
    assert len(report.outputs) == 80
    assert any("ended unexpectedly" in note for note in report.notes)


class FakeProcesses(Threads):
    """Threads in place of processes, which share the model of the test."""

    has_lost = False
    stopped = False

    def __init__(self, size: int, *given: object, **options: object) -> None:
        super().__init__("fake")

    def start(self) -> None:
        """Do nothing: threads start by themselves."""

    def stop(self) -> None:
        type(self).stopped = True


@pytest.fixture
def fake_processes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> type[FakeProcesses]:
    monkeypatch.setattr(executor, "_MIN_PX", 0)
    monkeypatch.setattr(executor, "core_count", lambda: 4)
    monkeypatch.setattr(executor, "_LOADED", [read_models(bundle).ready()])
    fake = type("Fake", (FakeProcesses,), {})
    monkeypatch.setattr("rooftrace.core.processes.Processes", fake)
    return fake


def test_images_of_other_processes_are_reported_and_fail_alone(
    folder: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    fake_processes: type[FakeProcesses],
) -> None:  # fmt: skip
    broken = draw(folder / "ab.png", (64, 80)).read_bytes()
    (folder / "ab.png").write_bytes(broken[: len(broken) // 2])
    add = RunFolder.add

    def add_or_fail(self: RunFolder, scene: SceneInput, *given: Any) -> None:
        if scene.name == "b":
            raise ExportError("The disk is full.", remedy="Free some space.")
        add(self, scene, *given)

    monkeypatch.setattr(RunFolder, "add", add_or_fail)
    out, reported = tmp_path / "out", []
    with pytest.raises(DataError, match="2 of 4 images failed"):
        run_predict(find_inputs([folder]), read_models(bundle), out,
                    progress=lambda *now: reported.append(now))  # fmt: skip
    record = json.loads((out / "run.json").read_text())
    assert {one["type"] for one in record["failed"]} == {"DataError", "ExportError"}
    assert [Path(one["input"]).name for one in record["outputs"]] == ["a.jpg", "c.tif"]
    assert reported[-1][2] == 2
    monkeypatch.undo()
    (folder / "ab.png").unlink()
    report = run_predict(find_inputs([folder]), read_models(bundle), out)
    assert (report.resumed_images, len(report.outputs)) == (2, 3)


def test_a_copy_that_fails_is_a_failure_of_its_image(
    folder: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> tuple[str, ...]:
        raise ExportError("The disk is full.", remedy="Free some space.")

    monkeypatch.setattr(image_run, "write_copies", fail)
    out = tmp_path / "out"
    given = {"formats": [".csv"], "models": read_models(bundle), "out": out}
    with pytest.raises(ExportError, match=r"^The disk is full\. Free"):
        run_predict(find_inputs([folder / "c.tif"]), **given)
    (folder / "ab.png").write_bytes((folder / "b.png").read_bytes()[:90])
    with pytest.raises(ExportError, match=r"a\.jpg: The disk is full\. 4 of 4 images failed"):
        run_predict(find_inputs([folder]), **given)
    record = json.loads((out / "run.json").read_text())
    assert sorted(one["type"] for one in record["failed"]) == ["DataError", *["ExportError"] * 3]
    assert len(record["outputs"]) == 3
    # The next run predicts nothing anew, and writes the copies.
    monkeypatch.undo()
    report = run_predict(find_inputs([folder / "c.tif"]), **given)
    assert (report.resumed_images, len([*out.glob("*.csv")])) == (1, 1)


def test_ctrl_c_keeps_what_other_processes_have_finished(
    folder: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    fake_processes: type[FakeProcesses],
) -> None:  # fmt: skip
    monkeypatch.setattr(executor, "_GROUP", 1)
    taken: list[str] = []

    def interrupt(*counts: int) -> None:
        if counts[3] > len(taken):
            taken.append(counts[3])
            if len(taken) == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_predict(
            find_inputs([folder]), read_models(bundle), tmp_path / "out", progress=interrupt
        )
    assert fake_processes.stopped
    monkeypatch.undo()
    report = run_predict(find_inputs([folder]), read_models(bundle), tmp_path / "out")
    assert report.resumed_images == len(taken)
    assert len(report.outputs) == 3


def test_a_folder_of_different_images(folder: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    reported: list[tuple[int, ...]] = []
    report = run_predict(
        find_inputs([folder]), read_models(bundle), out, progress=lambda *now: reported.append(now)
    )
    assert [Path(output.input).name for output in report.outputs] == ["a.jpg", "b.png", "c.tif"]
    assert [output.buildings for output in report.outputs] == [1, 1, 1]
    assert report.outputs[1].built_up_share == pytest.approx(600 / (64 * 80))
    assert {path.name for path in out.iterdir()} == {
        "a_mask.png", "a_buildings.geojson", "a_preview.png",
        "b_mask.png", "b_buildings.geojson", "b_preview.png",
        "c_mask.tif", "c_mask.qml", "c_buildings.gpkg", "c_preview.png", "run.json",
    }  # fmt: skip
    for name, suffix in (("b.png", "png"), ("c.tif", "tif")):
        saved = load(bundle).predict(folder / name).save(tmp_path / "saved")
        assert saved.mask.read_bytes() == (out / f"{name[0]}_mask.{suffix}").read_bytes()
    assert any("notes.txt" in note for note in report.notes)
    pixels = 224 * 224 + 64 * 80 + 9000
    assert reported[-1] == (pixels, pixels, 3, 2)
    reported_json = json.loads(json.dumps(report.to_json()))
    land, building = reported_json["outputs"][1]["classes"]
    assert (land["name"], land["polygons"], land["pixels"]) == ("background", 0, 64 * 80 - 600)
    assert (building["name"], building["polygons"], building["pixels"]) == ("building", 1, 600)
    assert reported_json["peak_rss_mb"] > 20
    record = json.loads((out / "run.json").read_text())
    assert record["bundle"]["name"] == "brightness"
    assert len(record["bundle"]["sha256"]) == 64
    assert record["engine"]["name"] == "openvino"
    assert record["options"]["threshold"] == 0.5
    assert record["outputs"] == reported_json["outputs"]
    assert "gdal" in record["versions"]


def test_one_bad_image_costs_nothing_else(folder: Path, bundle: Path, tmp_path: Path) -> None:
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    write_geotiff(folder / "d.tif", np.zeros((2, 50, 50), np.uint8))
    out = tmp_path / "out"
    done = command("predict", folder, "-m", bundle, "-o", out, "--json")
    assert done.code == 3
    answer = json.loads(done.out)
    assert "2 of 4 images failed; run.json lists them" in answer["error"]["message"]
    names = {path.name for path in out.iterdir()}
    assert {"a_mask.png", "c_mask.tif", "run.json"} <= names
    assert not [name for name in names if name.startswith((".a", ".b", ".c", "b_", "d_"))]
    record = json.loads((out / "run.json").read_text())
    assert len(record["outputs"]) == 2
    assert {one: answer[one] for one in ("outputs", "failed")} == {
        one: record[one] for one in ("outputs", "failed")
    }
    assert [failed["type"] for failed in record["failed"]] == ["DataError", "BandMismatch"]
    # Servers show these.
    assert str(folder) not in " ".join(failed["message"] for failed in record["failed"])


def test_what_would_collide_is_refused_at_once(bundle: Path, tmp_path: Path) -> None:
    one, two = draw(tmp_path / "x" / "a.png", (20, 50)), draw(tmp_path / "y" / "a.png", (20, 50))
    with pytest.raises(ConfigError, match=r"would both be written as a_"):
        run_predict(find_inputs([one, two]), read_models(bundle), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # Addresses that differ in their queries alone.
    both = find_inputs(["http://127.0.0.1:9/get?id=1", "http://127.0.0.1:9/get?id=2"])
    with pytest.raises(ConfigError, match=r"would both be written as get_"):
        run_predict(both, read_models(bundle), tmp_path / "out")


def test_a_label_beside_its_image_is_not_replaced(bundle: Path, tmp_path: Path) -> None:
    """Pairs of images and masks may lie in one folder, and masks have the names of results."""
    image = draw(tmp_path / "data" / "a.png", (20, 50))
    label = draw(tmp_path / "data" / "a_mask.png", (20, 50))
    before = label.read_bytes()
    with pytest.raises(ConfigError, match=r"over .*a_mask\.png, and .* is not the results folder"):
        run_predict(find_inputs([image]), read_models(bundle), tmp_path / "data")
    assert label.read_bytes() == before
    for _ in range(2):
        run_predict(find_inputs([image]), read_models(bundle), tmp_path / "out")


def test_an_unwritable_folder_is_reported_before_the_work(bundle: Path, tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png", (20, 50))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ExportError, match="could not be written"):
        run_predict(find_inputs([image]), read_models(bundle), tmp_path / "file" / "out")


def test_doctor_lists_every_extra_and_what_it_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    declared = {
        name: {re.split(r"[>=;\[ ]", one)[0] for one in packages if "sys_platform" not in one}
        for name, packages in project["optional-dependencies"].items()
    }
    monkeypatch.setattr("rooftrace.flows.doctor.ENGINES", {})
    absent: set[str] = set()
    monkeypatch.setattr("rooftrace.flows.doctor.version_of", lambda one: absent.add(one) or None)
    rows = dict(run_doctor(seconds=0).rows())
    assert absent >= set.union(*declared.values())
    for name, packages in declared.items():
        missing, purpose = re.fullmatch(
            rf"missing (.+): pip install 'rooftrace\[{name}\]' \((.+)\)", rows[f"extra {name}"]
        ).groups()  # type: ignore[union-attr]
        assert {*missing.split(", ")} == packages
        assert purpose
    monkeypatch.setattr("rooftrace.flows.doctor.version_of", lambda one: "1.0")
    rows = dict(run_doctor(seconds=0).rows())
    assert rows["extra ray"] == "installed (predict --cluster)"


def test_masks_and_images_in_subfolders_are_named(folder: Path, bundle: Path) -> None:
    draw(folder / "more" / "d.png", (64, 80))
    image = min(folder.glob("*.*"))
    draw(image.with_name(f"{image.stem}_mask.png"), (64, 80))
    # A run was stopped before it wrote run.json.
    (folder / "stopped" / ".rooftrace").mkdir(parents=True)
    draw(folder / "stopped" / "d_mask.png", (64, 80))
    (folder / "papers").mkdir()
    # Files there are not opened, which would take long.
    (folder / "papers" / "flight.txt").write_bytes((folder / "more" / "d.png").read_bytes())
    image.with_suffix(".pgw").write_text("0.5\n0\n0\n-0.5\n1000\n2000\n")
    image.with_suffix(".prj").write_text("EPSG:32645")
    for _ in range(2):
        report = run_predict(find_inputs([folder]), read_models(bundle), folder / "out")
    note = f"skipped 1 file (masks of other images): {image.stem}_mask.png"
    subfolder = "skipped 1 folder (images in subfolders are not predicted): more"
    assert {note, subfolder} <= {*report.notes}
    assert find_inputs(sorted(folder.glob(f"{image.stem}*"))).notes == (note,)
    heights = write_geotiff(folder / "dsm.tif", np.zeros((1, 9, 9), np.float32))
    assert f"--surface {heights}" in find_inputs([heights]).notes[0]


def test_an_image_without_a_valid_pixel_is_named(bundle: Path, tmp_path: Path) -> None:
    data = np.zeros((3, 100, 90), dtype=np.uint8)
    path = write_geotiff(tmp_path / "a.tif", data, nodata=0)
    notes = run_predict(find_inputs([path]), read_models(bundle), tmp_path / "out").notes
    assert any("no pixel has a value" in note for note in notes)
    (figures,) = json.loads((tmp_path / "out/run.json").read_text())["figures"]
    assert any(note.startswith(f"{path.name}: no pixel") for note in figures["notes"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (SceneOptions(outputs=("density",)), "metres per pixel are not known"),
        (SceneOptions(outputs=("density",), gsd_m=0.3), "less than 3 cells of 100 m long"),
        (SceneOptions(gsd_m=0.3, cell_m=0.5), "less than two pixels wide"),
        (SceneOptions(), ""),
        (SceneOptions(outputs=("density",), gsd_m=0.3, cell_m=5.0), ""),
    ],
)
def test_a_density_that_cannot_be_made_is_said(
    options: SceneOptions, reason: str, bundle: Path, tmp_path: Path
) -> None:
    image = draw(tmp_path / "a.png", (64, 80))
    report = run_predict(find_inputs([image]), read_models(bundle), tmp_path / "out", options)
    found = [note for note in report.notes if "no density was made" in note]
    assert len(found) == bool(reason)
    assert reason in "".join(found)


def test_a_density_of_too_many_cells_fails_only_where_it_was_asked_for(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rooftrace.density.cells.MAX_CELLS", 3)
    data = np.full((3, 100, 90), 40, dtype=np.uint8)
    path = write_geotiff(tmp_path / "a.tif", data, transform=Affine(6, 0, 5e5, 0, -6, 9e6))
    models = read_models(bundle)
    report = run_predict(find_inputs([path]), models, tmp_path / "out", SceneOptions())
    assert report.outputs[0].mask is not None
    asked = SceneOptions(outputs=("density",))
    with pytest.raises(ConfigError, match="at most 3 are expected"):
        run_predict(find_inputs([path]), models, tmp_path / "asked", asked)


def test_results_in_the_folder_of_the_images_are_no_inputs(folder: Path, bundle: Path) -> None:
    first = run_predict(find_inputs([folder]), read_models(bundle), folder)
    again = run_predict(find_inputs([folder]), read_models(bundle), folder)
    assert len(again.outputs) == len(first.outputs)
    (note,) = [note for note in again.notes if "results of a run" in note]
    assert "a_mask.png" in note
    catalogue = read_catalogue(folder)
    assert {Path(scene.location).stem for scene in catalogue.scenes} == {
        Path(one.input).stem for one in again.outputs
    }


def test_results_of_an_earlier_run_are_named(folder: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run_predict(find_inputs([folder / "c.tif"]), read_models(bundle), out)
    assert not any("earlier" in note for note in first.notes)
    second = run_predict(
        find_inputs([folder / "c.tif"]), read_models(bundle), out,
        SceneOptions(threshold=0.7, outputs=("polygons",)),
    )  # fmt: skip
    (note,) = [note for note in second.notes if "earlier" in note]
    assert note.endswith("c_mask.tif, c_preview.png")


@pytest.mark.parametrize("has_crs", [True, False])
def test_a_georeference_that_is_not_used_is_named(
    has_crs: bool, bundle: Path, tmp_path: Path
) -> None:
    data = np.full((3, 100, 90), 40, dtype=np.uint8)
    path = write_geotiff(tmp_path / "a.tif", data, **({} if has_crs else {"crs": None}))
    options = SceneOptions(gsd_m=1.0)
    notes = run_predict(find_inputs([path]), read_models(bundle), tmp_path / "out", options).notes
    assert any("says 0.5 m per pixel, but 1 m were given" in note for note in notes) == has_crs
    assert any("rooftrace predict --crs EPSG:…, or" in note for note in notes) != has_crs


@pytest.mark.campaign
def test_progress_moves_before_the_first_block_is_done(bundle: Path, tmp_path: Path) -> None:
    side = 3400
    image = write_geotiff(tmp_path / "large.tif", np.full((3, side, side), 40, np.uint8))
    seen = []

    def progress(done_px: int, total_px: int, buildings: int, images: int) -> None:
        seen.append(done_px)

    run_predict(
        find_inputs([image]), read_models(bundle), tmp_path / "out",
        SceneOptions(outputs=("mask",), scale=1.0), progress=progress,
    )  # fmt: skip
    assert seen == sorted(seen)
    assert seen[-1] == side**2
    # The first of several tiles of the first block.
    assert 0 < seen[0] <= side**2 / 4
    assert len(seen) > 4


def test_the_network_is_released_before_the_files_of_the_last_large_image(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TILE_PX", "BLOCK_PX", "_SMALL_TILE_PX"):
        monkeypatch.setattr(f"rooftrace.predict.plan.{name}", 64)
    written: list[list[str]] = []
    monkeypatch.setattr(
        "rooftrace.engines.openvino.OpenVinoEngine.release",
        lambda _: written.append([path.name for path in tmp_path.glob("out/*_mask.tif")]),
    )
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_geotiff(tmp_path / "in" / f"{name}.tif", np.full((3, 160, 160), 40, np.uint8))
    run_predict(
        find_inputs([tmp_path / "in"]), read_models(bundle), tmp_path / "out",
        SceneOptions(outputs=("mask",), scale=1.0),
    )  # fmt: skip
    assert written == [["a_mask.tif"]]
