"""Fine-tuning: from a few labelled images to a model and a comparison with the start model."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

import safetensors.torch
from rich.console import Console

from rooftrace.core.config import parse_config
from rooftrace.core.errors import BandMismatch, ConfigError, DataError, LabelError
from rooftrace.flows import measure
from rooftrace.flows.evaluate.evaluation import LeakageReport, LeakedScene
from rooftrace.flows.finetune.plan import divide
from rooftrace.flows.finetune.report import FinetuneReport, Verdict
from rooftrace.flows.finetune.run import check_inverse, run_finetune
from rooftrace.flows.labelled_predictions import predict_set
from rooftrace.labels import kinds
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.split import Split, own_split, read_split, write_split
from rooftrace.metrics.report import SceneCounts
from rooftrace.metrics.resampling import Interval
from rooftrace.models import start as start_models
from rooftrace.models.bundle import WEIGHTS_NAME, read_bundle
from rooftrace.models.start import read_start
from rooftrace.predict.model_set import ModelSet
from rooftrace.train import export_bundle
from rooftrace.train.callbacks import Minutes
from rooftrace.train.config import TrainConfig
from rooftrace.train.finetune import finetune_config, mix_weights
from rooftrace.train.task import SegmentationTask
from tiny_models import tiny_bundle
from town import write_pairs

if TYPE_CHECKING:
    from tests.conftest import TinyRun

FAST = ["epochs=2", "samples_per_epoch=16"]


def write_tiles(
    folder: Path, count: int, *, built: int | None = None, swapped: bool = False, bands: int = 3
) -> SourceConfig:
    """Write plain tiles of 64 px with a square building each, or all building, or none."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        mask = np.zeros((64, 64), np.uint8)
        mask[8:40, 8 + number : 40 + number] = 255
        if built is not None:
            mask[:] = 255 * built
        image = np.repeat(mask[..., None] // 2, bands, 2) + rng.integers(0, 60, (64, 64, bands))
        image = image.astype(np.uint8)
        Image.fromarray(image).save(folder / f"images/{number}.png")
        Image.fromarray(255 - mask if swapped else mask).save(folder / f"masks/{number}.png")
    return SourceConfig(path=str(folder), gsd_m=0.4)


@pytest.mark.parametrize(
    ("count", "changes", "error", "message"),
    [
        (1, {}, DataError, "has 1 labelled image; expected at least 4"),
        (6, {"built": 0}, LabelError, "No pixel of the class building in 6 labels"),
        (6, {"built": 1}, LabelError, "100 % of all pixels are labelled as building"),
        (6, {"swapped": True}, LabelError, "7[0-9] % of all pixels are labelled as building"),
    ],
)
def test_too_little_data_is_an_error_before_the_work(
    count: int, changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    data = write_tiles(tmp_path / "data", count, **changes)
    with pytest.raises(error, match=message):
        run_finetune(data, tmp_path / "run")


@pytest.mark.parametrize("swapped", [True, False])
def test_inverted_labels_of_a_dense_place_are_found_by_the_start_model(
    swapped: bool, tmp_path: Path
) -> None:
    for number in range(6):
        mask = np.zeros((64, 64), np.uint8)
        mask[4:52, 4 + number : 52 + number] = 255
        for name, values in (("images", mask), ("masks", 255 - mask if swapped else mask)):
            (tmp_path / name).mkdir(exist_ok=True)
            bands = np.dstack([values] * 3) if name == "images" else values
            Image.fromarray(bands).save(tmp_path / name / f"{number}.png")
    scenes = open_source(SourceConfig(path=str(tmp_path), gsd_m=0.4))
    start = ModelSet((tiny_bundle(),)).ready()
    scored = predict_set(start, scenes, tmp_path / "scored")
    expected = pytest.raises(LabelError, match=r"agrees with the inverse .* \(IoU 1\.0")
    with expected if swapped else contextlib.nullcontext():
        check_inverse(scored, start.bundle.spec)


def test_data_without_labels_or_with_other_classes_is_an_error(tmp_path: Path) -> None:
    data = write_tiles(tmp_path / "data", 5)
    other = LabelConfig(classes=("background", "road", "house"), building="house")
    with pytest.raises(ConfigError, match="are background, road, house, but those of the start"):
        run_finetune(data.model_copy(update={"labels": other}), tmp_path / "run")
    with pytest.raises(ConfigError, match="there is no file"):
        run_finetune(data, tmp_path / "run", model=str(tmp_path / "no.rooftrace"))
    for mask in (tmp_path / "data/masks").iterdir():
        mask.unlink()
    with pytest.raises(DataError, match="it has no label to train on"):
        run_finetune(data, tmp_path / "run")
    told = io.StringIO()
    data = write_tiles(tmp_path / "b", 5).model_copy(update={"gsd_m": None})
    with pytest.raises(ConfigError, match=r"nothing to resume .*\(No such file or directory\)"):
        run_finetune(data, tmp_path / "run", resume=True, console=Console(file=told))
    assert "states its metres per pixel: 0.4 is assumed" in told.getvalue()


@pytest.mark.parametrize(("bands", "remedy"), [(1, "translate -b 1 -b 1 -b 1 "), (5, "Give im")])
def test_images_with_other_bands_are_an_error_before_the_work(
    tmp_path: Path, bands: int, remedy: str
) -> None:
    from raster_files import write_geotiff

    data = write_tiles(tmp_path / "data", 5)
    for image in (tmp_path / "data/images").iterdir():
        pixels = np.asarray(Image.open(image)).transpose(2, 0, 1)
        write_geotiff(image.with_suffix(".tif"), np.concatenate([pixels, pixels])[:bands])
        image.unlink()
    with pytest.raises(BandMismatch, match=rf"have {bands} bands?, but .*has 3") as caught:
        run_finetune(data, tmp_path / "run")
    assert remedy in str(caught.value.remedy)


def test_the_configuration_follows_from_the_model_and_the_data(tmp_path: Path) -> None:
    data = write_tiles(tmp_path / "data", 5)
    labels = LabelConfig()
    scenes = open_source(data, labels)
    config = finetune_config(
        "default", read_start("default"), data, scenes, labels, tmp_path / "split.json",
        overrides=["optimizer.lr=1e-4"],
    )  # fmt: skip
    assert (config.gsd_m, config.loss, config.crop_px) == (0.4, "0.6*ce + 0.4*dice", 64)
    assert config.model.options == {"decoder_channels": [128, 64, 32, 16]}
    assert config.optimizer.freeze_statistics
    assert (config.optimizer.lr, config.optimizer.encoder_lr) == (1e-4, 1e-4)
    again = parse_config(json.loads(config.model_dump_json()), type(config), source="again")
    assert again == config


def test_a_split_without_a_labelled_image_to_train_on_is_an_error(tmp_path: Path) -> None:
    data, split = write_tiles(tmp_path / "data", 6), tmp_path / "split.json"
    write_split(split, Split(parts={"train": (), "val": ("0", "1")}))
    with pytest.raises(DataError, match="No image in the part 'train' of"):
        run_finetune(data, tmp_path / "run", split=split)
    assert split.exists()


@pytest.mark.parametrize(
    ("built", "held_out"),
    [({"train": None, "valid": None, "test": None}, ["train", "val"]),
     ({"train": None, "test": None}, ["fold1", "fold2"]),
     ({"train": None, "valid": 0}, ["fold1", "fold2"])],
)  # fmt: skip
def test_parts_of_the_data_are_kept_and_its_test_is_left_alone(
    tmp_path: Path, built: dict[str, int | None], held_out: list[str]
) -> None:
    for part, value in built.items():
        write_tiles(tmp_path / part, 4, built=value)
    scenes = open_source(SourceConfig(path=str(tmp_path)))
    (note,) = divide(
        scenes, tmp_path / "split.json", val=0.2, unit="image", seed=0, building="building",
        minutes=1, own=own_split(scenes.ids),
    )  # fmt: skip
    assert ("is held out, and test is left alone. --val 0.2 divides" in note) == ("test" in built)
    made = read_split(tmp_path / "split.json")
    assert list(made.parts) == held_out
    assert {one.partition("/")[0] for one in made.part_of} == {*built} - {"test"}
    assert {one.partition("/")[0] for one in made.dropped} == {*built} & {"test"}


def test_units_that_cannot_be_divided_name_what_finetune_has(tmp_path: Path) -> None:
    scenes, options = open_source(write_tiles(tmp_path / "data", 4)), {"val": 0.2, "minutes": 1}
    first, *others = sorted((tmp_path / "data/images").iterdir())
    for other in others:
        other.write_bytes(first.read_bytes())
    for unit, remedy in (("group", "rooftrace split --by group"), ("image", "of other ground")):
        with pytest.raises(DataError) as caught:
            divide(scenes, tmp_path / "s.json", unit=unit, seed=0, building="building", **options)
        assert remedy in caught.value.remedy


def test_the_end_gets_the_seconds_that_it_needs_on_this_machine() -> None:
    clock = {"now": 50.0, "used": 3.0}
    minutes = Minutes(2, None, lambda: clock["now"], lambda: clock["used"])
    clock["now"] += 15
    with minutes.search():
        clock["now"] += 5
        clock["used"] += 4
    # Two searches, an export and a comparison, at the pace of the search.
    assert (minutes.left_s, minutes.end_s(2)) == (100, (2 * 4 + 14) * 5 / 4)
    allowed = minutes.training_s(2)
    assert allowed() == (100 - 27.5) / 2
    assert minutes.late_s == 27.5 + 12 - 100
    # Others have taken most of the processor since then: the end will take longer.
    clock["now"] += 6
    clock["used"] += 2
    minutes.watch()
    assert allowed() == (100 - 66) / 2
    # The first training ran over: the second one has what is left.
    clock["now"] += 54
    minutes.restart()
    assert minutes.training_s(1)() == 40 - 27.5
    # A tenth of the minutes is trained, however late it is.
    clock["now"] += 10
    assert minutes.training_s(1)() == 12


def test_frozen_statistics_do_not_change() -> None:
    from rooftrace.models.zoo import build_model

    start = read_start("default")
    raw: dict[str, Any] = {
        "model": {"start": "default", **start.config.model_dump(exclude={"start"})},
        "data": {"train": [{"path": "a"}], "split": "s.json"},
        "optimizer": {"freeze_statistics": True},
    }
    means = {}
    for frozen in (True, False):
        raw["optimizer"]["freeze_statistics"] = frozen
        config = parse_config(raw, TrainConfig, source="test")
        net = build_model(start.config, bands=3, channels=2)
        loaded = start.load_into(net, start.config).loaded
        given = tuple(name for name in loaded if name.startswith("encoder."))
        task = SegmentationTask(
            net, config, mean=[0.0] * 3, std=[1.0] * 3, val_names=["a"], total_steps=1,
            from_start=given,
        ).train()  # fmt: skip
        decoder = {n: b.clone() for n, b in net.decoder.named_buffers() if n.endswith("_mean")}
        assert task.training
        task.net(torch.zeros(2, 3, 64, 64))
        means[frozen] = net.encoder.model.bn1.running_mean
        # A layer that the start model does not have learns its statistics.
        buffers = dict(net.decoder.named_buffers())
        assert decoder
        assert not any(torch.equal(buffers[name], value) for name, value in decoder.items())
    expected = start.weights["encoder.model.bn1.running_mean"]
    assert torch.equal(means[True], expected)
    assert not torch.allclose(means[False], expected)
    raw |= {"model": {}, "optimizer": {"freeze_statistics": True}}
    with pytest.raises(ConfigError, match="keeps the statistics of a start model"):
        parse_config(raw, TrainConfig, source="test")


@pytest.fixture(scope="module")
def counted() -> Counter[str]:
    """Calls of functions that a fine-tuning makes once."""
    return Counter()


@pytest.fixture(scope="module")
def tuned(
    tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory, counted: Counter[str]
) -> FinetuneReport:
    folder = tmp_path_factory.mktemp("tuned")
    write_pairs(folder / "data", range(20, 28), shape_yx=(128, 128), gsd_m=0.3)
    lines = io.StringIO()
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (kinds, "open_source"), (start_models, "read_start"),
            (export_bundle, "export_onnx"), (measure, "write_bundle"),
        ):  # fmt: skip
            patch.setattr(module, name, counting(getattr(module, name), counted))
        return run_finetune(
            SourceConfig(path=str(folder / "data")), folder / "run", model=str(tiny_run.bundle),
            minutes=1, overrides=FAST, console=Console(file=lines),
        )  # fmt: skip


def counting(function: Callable[..., Any], counted: Counter[str]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        counted[function.__name__] += 1
        return function(*args, **options)

    return call


@pytest.mark.campaign
def test_the_report_compares_both_models_on_what_was_held_out(
    tuned: FinetuneReport, tiny_run: TinyRun
) -> None:
    run = tuned.trained.run
    split = read_split(run / "split.json")
    ids = {image.id for image in tuned.evaluation.first.images}
    # Of eight images, each is predicted by a model that was not trained on it.
    assert sorted(split.parts) == ["fold1", "fold2"]
    assert ids == {one for fold in split.parts.values() for one in fold}
    assert len(ids) == tuned.folds + 6 == 8
    assert "start model" in (run / "fold1/curves.svg").read_text()
    assert [report.name for report in tuned.evaluation.reports] == ["run", "tiny"]
    shown = tuned.to_json()
    assert json.loads((run / "verdict.json").read_text()) == shown
    assert shown["verdict"] in get_args(Verdict)
    gap = shown["differences"]["pixel.iou"]
    # Each of the three is rounded to 6 digits.
    assert gap["first"] - gap["second"] == pytest.approx(gap["difference"]["value"], abs=2e-6)
    both = shown["figures"]["IoU"]
    assert both["tuned"] == pytest.approx(gap["first"], abs=1e-4)
    assert both["start"] == pytest.approx(gap["second"], abs=1e-4)
    assert shown["advice"] or "better" in shown["verdict"]
    # The page says the verdict of the terminal, and no other.
    page = tuned.page.read_text()
    assert f"run: {tuned.verdict_text}." in page
    assert "on scenes like these, by" not in page
    assert "There is no clear difference" not in page
    warned = [note.partition(",")[0] for note in tuned.evaluation.warnings]
    assert "The IoU of tiny" in warned
    made = read_bundle(tuned.bundle)
    assert made.spec.training["start"]["model"] == "tiny"
    recorded = made.spec.training["data"]
    assert (recorded["train"][0]["path"], recorded["split"]) == ("data", "run/split.json")
    assert str(run.parent) not in json.dumps(made.spec.training)
    fingerprint = made.spec.fingerprint
    assert fingerprint is not None
    assert [one.scenes for one in fingerprint.sets] == [8]
    assert made.spec.start_fingerprints == (read_bundle(tiny_run.bundle).spec.fingerprint,)
    assert {"the threshold was chosen on these images by their iou_f1"} == {
        one.protocol.rpartition("; ")[2] for one in made.spec.metrics
    }
    # The weights are the mean of those of the folds, with the share of the start model's.
    assert shown["share"] in (0.0, 0.5, 1.0)
    folds = [run / f"fold{number}/checkpoints/best_monitored.safetensors" for number in (1, 2)]
    mixed = [mix_weights(path, read_start(str(tiny_run.bundle)), tuned.share) for path in folds]
    for key, value in safetensors.torch.load(made.parts[WEIGHTS_NAME]).items():
        if value.is_floating_point():
            mean = torch.stack([one[key] for one in mixed]).mean(0)
            torch.testing.assert_close(value, mean, rtol=1e-3, atol=1e-4)


@pytest.mark.campaign
def test_a_finished_run_resumes_to_the_same_model(
    tuned: FinetuneReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tuned.trained.run
    data = SourceConfig(path=str(run.parent / "data"))
    start = json.loads((run / "config.json").read_text())["model"]["start"]
    with pytest.raises(ConfigError, match="already holds a run"):
        run_finetune(data, run, model=start)
    with pytest.raises(ConfigError, match=f"began with model {start}; default was given"):
        run_finetune(data, run, resume=True)
    other = data.model_copy(update={"gsd_m": 0.2})
    with pytest.raises(ConfigError, match=r"began with gsd_m None; 0\.2 was given"):
        run_finetune(other, run, model=start, resume=True)
    before = read_bundle(tuned.bundle)
    # From another folder, by other names of the same paths.
    monkeypatch.chdir(run)
    data = SourceConfig(path="../run/../data")
    again = run_finetune(data, run, model=start, resume=True)
    after = read_bundle(again.bundle)
    assert after.parts == before.parts
    assert again.verdict == tuned.verdict


def report_with(
    folder: Path, *, scenes: int = 9, best: int = 3, first: float = 0.55, second: float = 0.65,
    leaks: tuple[LeakageReport, ...] = (), gain: Interval | None = None, trivial: str = "",
    **gaps: Interval | None,
) -> FinetuneReport:  # fmt: skip
    """Return a report with an interval of the difference for each figure, except for None."""
    figures = {
        name.replace("_", "."): SimpleNamespace(
            difference=gap, scenes=scenes, first=first, second=second
        )
        for name, gap in gaps.items()
        if gap is not None
    }
    evaluation = SimpleNamespace(
        headline="iou", comparisons=[figures], leaks=leaks,
        first=SimpleNamespace(trivial=trivial),
    )  # fmt: skip
    trained = SimpleNamespace(best={"best_iou": (best, 0.5, folder)}, epochs=10)
    report = FinetuneReport(trained, evaluation, "", folder)
    report.__dict__["gain"] = gain
    return report


def interval(low: float, value: float, high: float) -> Interval:
    return Interval(value, low, high, 0.95, 1000, "scene", 9)


UP, SAME, DOWN = interval(0.01, 0.02, 0.03), interval(-0.01, 0.0, 0.01), interval(-0.3, -0.1, -0.02)


@pytest.mark.parametrize(
    ("iou", "f1", "gain", "expected"),
    [
        (UP, UP, UP, "better"), (UP, SAME, SAME, "better"), (SAME, UP, UP, "better"),
        (UP, None, None, "better"), (SAME, SAME, SAME, "no different"),
        (SAME, SAME, UP, "probably better"), (SAME, SAME, DOWN, "probably worse"),
        (SAME, None, None, "no different"), (UP, DOWN, UP, "no different"),
        (DOWN, UP, UP, "no different"), (SAME, DOWN, DOWN, "worse"), (DOWN, SAME, DOWN, "worse"),
        (DOWN, DOWN, DOWN, "worse"),
    ],
)  # fmt: skip
def test_the_verdict_looks_at_ground_and_at_buildings(
    iou: Interval, f1: Interval | None, gain: Interval | None, expected: str, tmp_path: Path
) -> None:
    report = report_with(tmp_path, gain=gain, iou=iou, objects_f1=f1)
    assert report.verdict == expected
    advice = " ".join(report.advice)
    assert bool(advice) == ("better" not in expected)
    assert ("F1 falls from 0.650 to 0.550" in advice) == (f1 is DOWN)
    assert ("Keep the start model" in advice) == ("worse" in expected)
    useless = report_with(tmp_path, gain=gain, iou=iou, objects_f1=f1, trivial="No better.")
    assert useless.advice[0] == "No better."


def test_both_figures_together_are_less_uncertain_than_either(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    both = rng.integers(400, 600, (9, 2)).astype(np.float64)
    gained = both + np.array([[30, -20], [-20, 30], [5, 5]] * 3)
    ratios = {
        name: (lambda sums, column=column: sums[:, column] / 9000)
        for column, name in enumerate(("iou", "objects.f1"))
    }
    reports = [
        SimpleNamespace(scene_counts=SceneCounts(counts, ratios, ("",) * 9))
        for counts in (gained, both)
    ]
    report = report_with(tmp_path, iou=SAME, objects_f1=SAME)
    del report.__dict__["gain"]
    report.evaluation.reports = reports  # type: ignore[misc]
    assert report.gain is not None
    assert report.gain.value == pytest.approx(45 / 9000)
    assert report.gain.low > 0
    assert report.verdict == "probably better"
    # The finished model of folds is better than they are, unless it is the start model.
    finished = [replace(report, folds=2, share=share) for share in (1.0, 0.0)]
    assert [one.gain and one.gain.level for one in finished] == [0.6, 0.8]
    assert [one.verdict for one in finished] == ["probably better", "no different"]
    assert ["keeps the weights" in " ".join(one.advice) for one in finished] == [False, True]


def test_nobody_can_tell_on_ground_that_a_model_knows(tmp_path: Path) -> None:
    pairs = tuple(LeakedScene(f"{n}", "town, scene 1 of 9", 3, 0.9) for n in range(4))
    leaks = LeakageReport("none", 9, (), ()), LeakageReport("found", 9, pairs, ())
    for order, which in ((leaks, "start"), (leaks[::-1], "tuned")):
        report = report_with(tmp_path, leaks=order, iou=UP, objects_f1=UP)
        assert report.verdict == "cannot tell"
        assert report.advice[0].startswith(f"The {which} model was trained on ")
    few = leaks[0], LeakageReport("found", 90, pairs, ())
    assert report_with(tmp_path, leaks=few, iou=UP, objects_f1=UP).verdict == "better"
