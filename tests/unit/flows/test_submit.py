"""Many images to one table: the sample's own form, nothing half-written, nothing computed twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raster_files import write_geotiff
from rooftrace.core.errors import (
    BandMismatch,
    ConfigError,
    DataError,
    ExportError,
    LabelError,
    LayoutError,
)
from rooftrace.flows import submit as submit_module
from rooftrace.flows.submit import PartialTable, SubmitReport, run_submit
from rooftrace.io.nodata import NodataRule
from rooftrace.labels.rle.codec import encode_runs
from rooftrace.labels.rle.table import RleTable
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import SceneOptions, ScenePlan
from rooftrace.predict.predictor import load
from rooftrace.predict.scene_blocks import SceneBlocks
from tiny_models import write_tiny_bundle

AT_30_CM = SceneOptions(gsd_m=0.3)
NAMES = ("a", "b c", "ü", "empty")
SHAPES = ((64, 80), (32, 48), (96, 64), (32, 32))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny.rooftrace", gsd_m=0.3)


def draw(path: Path, shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 40, dtype=np.uint8)
    if path.stem != "empty":
        pixels[5:25, 10:40] = 200
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number, (name, shape) in enumerate(zip(NAMES, SHAPES)):
        draw(tmp_path / "in" / ("deep" if number == 2 else "") / f"{name}.png", shape)
    return tmp_path / "in"


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "sample.csv"
    rows = ["img_id,mask_rle,note", "ü.png,-1,x", "a,-1,", 'empty,-1,"y,z"', "b c,-1,"]
    path.write_bytes("\r\n".join(rows).encode("utf-8-sig"))
    return path


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is predicted, in turn."""
    seen: list[str] = []

    def watched(plan: ScenePlan) -> SceneBlocks:
        seen.append(Path(plan.source.name).stem)
        return SceneBlocks(plan)

    monkeypatch.setattr(submit_module, "SceneBlocks", watched)
    return seen


def masks_in(table: Path, order: str) -> dict[str, np.ndarray]:
    read = RleTable.read(table)
    shapes = dict(zip(NAMES, SHAPES))
    names = [read.image_id(row).removesuffix(".png") for row in read.rows]
    return {name: read.mask(row, shapes[name], order) for name, row in zip(names, read.rows)}


@pytest.mark.campaign
@pytest.mark.parametrize("order", [None, "row", "column"])
def test_the_sample_is_filled_in(
    images: Path, sample: Path, bundle: Path, tmp_path: Path, order: str | None
) -> None:
    out = tmp_path / "out" / "submission.csv"
    reported: list[tuple[int, int]] = []
    report = run_submit(
        [images],
        read_models(bundle),
        out,
        sample=sample,
        order=order,
        progress=lambda *now: reported.append(now),
    )
    assert report.order == (order or "row")
    assert reported == [(done, 4) for done in (1, 2, 3, 4)]
    predictor = load(bundle)
    masks = masks_in(out, report.order)
    for name, path in zip(NAMES, ("a.png", "b c.png", "deep/ü.png", "empty.png")):
        assert np.array_equal(masks[name], predictor.predict(images / path).mask.data == 1)
    assert [name for name, mask in masks.items() if not mask.any()] == ["empty"]
    assert report.empty == 1
    # But for the runs it is the sample, to the byte.
    RleTable.read(out).write(tmp_path / "back.csv", ["-1"] * 4)
    assert (tmp_path / "back.csv").read_bytes() == sample.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["submission.csv"]


def test_without_a_sample_rows_are_sorted_by_name(
    images: Path, bundle: Path, tmp_path: Path
) -> None:
    report = run_submit([images, images / "a.png"], read_models(bundle), tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_bytes().decode().split("\n")
    assert lines[0] == "img_id,mask_rle"
    assert [line.split(",")[0] for line in lines[1:]] == ["a", "b c", "empty", "ü", ""]
    assert "," not in lines[1].partition(",")[2]
    assert report.to_json() | {"images_per_s": 0, "peak_rss_mb": 0, "notes": []} == {
        "path": str(tmp_path / "t.csv"), "images": 4, "empty": 1, "resumed": 0, "order": "row",
        "images_per_s": 0, "peak_rss_mb": 0, "notes": [],
    }  # fmt: skip
    # One note for all images that lack the same, and others by themselves.
    Image.new("L", (20, 20), 99).save(images / "a grey one.png")
    report = run_submit([images], read_models(bundle), tmp_path / "t.csv")
    (images / "a grey one.png").unlink()
    found = sorted(note for note in report.notes if "lower" in note or "metres" in note)
    assert len(found) == 2, report.notes
    assert "has one band" in found[0]
    assert "has no metres per pixel" in found[1]
    assert found[1].endswith("(4 more images with such a note)")
    assert (
        run_submit([images], read_models(bundle), tmp_path / "t.csv", options=AT_30_CM).notes == ()
    )


def test_masks_beside_images_are_no_rows(images: Path, bundle: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for part in ("images", "masks"):
        (data / part).mkdir(parents=True)
        (data / part / "a.png").write_bytes((images / "a.png").read_bytes())
    report = run_submit([data], read_models(bundle), tmp_path / "t.csv", options=AT_30_CM)
    assert report.images == 1
    assert report.notes == ("skipped, because it is a mask: a.png",)
    for part in ("images", "masks"):
        (data / part / "b.png").write_bytes((images / "a.png").read_bytes())
    report = run_submit([data], read_models(bundle), tmp_path / "t.csv", options=AT_30_CM)
    assert report.notes == ("skipped, because they are masks (2): a.png, b.png",)
    # A mask that is given by itself is an image.
    given = [data, data / "masks" / "a.png", data / "masks" / "b.png"]
    with pytest.raises(ConfigError, match=r"would both be 'a\.png'"):
        run_submit(given, read_models(bundle), tmp_path / "t.csv")


def test_names_that_would_be_one_keep_their_endings(
    images: Path, bundle: Path, tmp_path: Path
) -> None:
    draw(images / "a.bmp", (32, 32))
    run_submit([images], read_models(bundle), tmp_path / "t.csv")
    table = RleTable.read(tmp_path / "t.csv")
    assert [table.image_id(row) for row in table.rows][:2] == ["a.bmp", "a.png"]
    draw(images / "deep" / "a.bmp", (32, 32))
    with pytest.raises(ConfigError, match=r"would both be 'a\.bmp' in the table"):
        run_submit([images], read_models(bundle), tmp_path / "t.csv")


def test_missing_and_surplus_images_are_reported_before_anything_is_predicted(
    images: Path, sample: Path, bundle: Path, tmp_path: Path, predicted: list[str]
) -> None:
    for number in range(7):
        draw(images / f"new{number}.png", (32, 32))
    (images / "a.png").unlink()
    with pytest.raises(LayoutError) as caught:
        run_submit([images], read_models(bundle), tmp_path / "t.csv", sample=sample)
    assert (
        "1 of its 4 images cannot be found: a (row 3); 7 images are not in it: "
        in caught.value.message
    )
    assert caught.value.message.count("new") == 5
    assert predicted == []
    assert not list(tmp_path.glob("t.csv*"))


@pytest.mark.parametrize(
    ("rows", "error", "reported"),
    [
        ("img_id,mask_rle\na,-1\na.png,-1", LayoutError, r"lists .*a\.png twice, in row 2 and row"),
        ("img_id,img_path\na,a.png", LabelError, "and one for the runs"),
        ("name,rle\na,-1\nb c,-1\nü,-1\nempty,-1", ConfigError, "do not determine the pixel order"),
    ],
)
def test_samples_that_cannot_be_filled_in(
    images: Path, bundle: Path, tmp_path: Path, rows: str, error: type[Exception], reported: str
) -> None:
    sample = tmp_path / "sample.csv"
    sample.write_text(rows + "\n", encoding="utf-8")
    with pytest.raises(error, match=reported):
        run_submit([images], read_models(bundle), tmp_path / "t.csv", sample=sample)


def test_what_is_wrong_with_the_paths(images: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        run_submit([images], read_models(bundle), tmp_path)
    with pytest.raises(DataError, match="There is no image at"):
        run_submit([tmp_path / "none"], read_models(bundle), tmp_path / "t.csv")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="There is no image in"):
        run_submit([tmp_path / "bare"], read_models(bundle), tmp_path / "t.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError):
        run_submit([images], read_models(bundle), tmp_path / "file" / "t.csv")


@pytest.mark.campaign
def test_no_table_replaces_an_image_or_the_sample(
    images: Path, sample: Path, bundle: Path, predicted: list[str]
) -> None:
    for given in (sample, next(images.glob("*.png"))):
        before = given.read_bytes()
        with pytest.raises(ConfigError, match="would replace the input"):
            run_submit([images], read_models(bundle), given, sample=sample)
        assert given.read_bytes() == before
    assert predicted == []


def test_an_image_that_fails_keeps_the_others(
    images: Path, sample: Path, bundle: Path, tmp_path: Path, predicted: list[str]
) -> None:
    out = tmp_path / "t.csv"
    good = (images / "b c.png").read_bytes()
    status = (images / "b c.png").stat()
    (images / "b c.png").write_bytes(good[:60] + bytes(len(good) - 60))
    os.utime(images / "b c.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError) as caught:
        run_submit([images], read_models(bundle), out, sample=sample)
    assert "b c.png" in caught.value.message
    assert (
        f"1 of 4 images failed. 3 images are finished and kept in {out}.partial."
        in caught.value.message
    )
    assert not out.exists()
    assert sorted(predicted) == ["a", "b c", "empty", "ü"]

    # Mended to the same size and time: what a person who copies a file again has.
    (images / "b c.png").write_bytes(good)
    os.utime(images / "b c.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    predicted.clear()
    report = run_submit([images], read_models(bundle), out, sample=sample)
    assert predicted == ["b c"]
    assert (report.resumed, report.images) == (3, 4)
    assert not (tmp_path / "t.csv.partial").exists()
    run_submit([images], read_models(bundle), tmp_path / "whole.csv", sample=sample)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_run_that_was_stopped_is_gone_on_with(
    images: Path, bundle: Path, tmp_path: Path, predicted: list[str]
) -> None:
    def stop(done: int, _count: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    out = tmp_path / "t.csv"
    with pytest.raises(KeyboardInterrupt):
        run_submit([images], read_models(bundle), out, options=AT_30_CM, progress=stop)
    assert not out.exists()
    # The process may have died while it wrote.
    with (tmp_path / "t.csv.partial").open("ab") as file:
        file.write(b"2 17 3 4")
    predicted.clear()
    report = run_submit([images], read_models(bundle), out, options=AT_30_CM)
    assert (report.resumed, len(predicted)) == (2, 2)
    run_submit([images], read_models(bundle), tmp_path / "whole.csv", options=AT_30_CM)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.campaign
@pytest.mark.parametrize(
    "changed", ["threshold", "order", "gsd_m", "stretch", "nodata", "image", "model"]
)
def test_what_was_made_otherwise_is_not_gone_on_with(
    images: Path, bundle: Path, tmp_path: Path, predicted: list[str], changed: str
) -> None:
    def stop(done: int, _count: int) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "t.csv"
    with pytest.raises(KeyboardInterrupt):
        run_submit([images], read_models(bundle), out, progress=stop)
    predicted.clear()
    options: dict[str, Any] = {}
    if changed == "image":
        draw(images / "b c.png", (40, 40))
    elif changed == "model":
        bundle = tmp_path / "other.rooftrace"
        write_tiny_bundle(bundle, name="other")
    else:
        values = {
            "threshold": {"options": SceneOptions(threshold=0.9)},
            "gsd_m": {"options": SceneOptions(gsd_m=0.25)},
            "stretch": {"options": SceneOptions(stretch="none")},
            "order": {"order": "column"},
            "nodata": {"nodata": NodataRule(value=0)},
        }
        options |= values[changed]
    report = run_submit([images], read_models(bundle), out, **options)
    assert (report.resumed, len(predicted)) == (0, 4)
    assert any("starts from the beginning" in note for note in report.notes)


def test_a_model_that_fits_no_image_is_not_tried_on_all(
    tmp_path: Path, bundle: Path, predicted: list[str]
) -> None:
    for number in range(15):
        path = tmp_path / "in" / f"{number:02}.tif"
        path.parent.mkdir(exist_ok=True)
        write_geotiff(path, np.zeros((2, 32, 32), np.uint8))
    with pytest.raises(BandMismatch, match="10 of 15 images failed; the others were not tr"):
        run_submit([tmp_path / "in"], read_models(bundle), tmp_path / "t.csv")
    assert predicted == []


def test_nodata_is_no_building(images: Path, bundle: Path, tmp_path: Path) -> None:
    rule = NodataRule(value=200)
    report: SubmitReport = run_submit(
        [images], read_models(bundle), tmp_path / "t.csv", nodata=rule
    )
    assert report.empty == 4


@pytest.mark.campaign
def test_images_of_many_tiles_and_of_one_give_the_same(
    images: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_submit([images], read_models(bundle), tmp_path / "small.csv")
    monkeypatch.setattr("rooftrace.predict.plan.TILE_PX", 16)
    run_submit([images], read_models(bundle), tmp_path / "large.csv")
    assert (tmp_path / "small.csv").read_bytes() == (tmp_path / "large.csv").read_bytes()


def test_the_partial_table_keeps_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "j.partial"
    texts = [encode_runs(np.eye(5, dtype=np.uint8) * bool(n % 2), "row") for n in range(4)]
    with PartialTable(path, {"model": "a"}) as partial:
        for index in (3, 0, 2):
            partial.add(index, texts[index])
        assert [partial[index] for index in (0, 2, 3)] == [texts[0], texts[2], texts[3]]
    whole = path.read_bytes()
    for cut in range(len(b'{"model": "a"}\n'), len(whole) + 1):
        path.write_bytes(whole[:cut])
        with PartialTable(path, {"model": "a"}) as partial:
            assert not partial.replaced
            assert len(partial) == whole[:cut].count(b"\n") - 1
            kept = [index for index in range(4) if index in partial]
            assert [partial[index] for index in kept] == [texts[index] for index in kept]
            partial.add(1, texts[1])
            assert partial[1] == texts[1]
    with PartialTable(path, {"model": "b"}) as partial:
        assert partial.replaced
        assert len(partial) == 0
    with PartialTable(path, {"model": "b"}) as partial:
        assert not partial.replaced
        partial.discard()
    assert not path.exists()
