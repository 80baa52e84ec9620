"""Each benchmark runs at a tiny size and prints what bench/README.md says."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rooftrace.models.bundle import read_bundle, write_bundle
from rooftrace.models.spec import BundleSpec
from town import write_pairs

pytest.importorskip("torch")

BENCH = Path(__file__).resolve().parents[3] / "bench"
MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with random weights, whose normalisations are far from neutral."""
    from rooftrace.models.export import ExportableModel, export_onnx, store_weights_as_fp16
    from rooftrace.models.zoo import ModelConfig, build_model

    # isort: split
    import torch

    config = ModelConfig(
        encoder="resnet18",
        encoder_weights="none",
        options={"encoder_depth": 3, "decoder_channels": [16, 8, 8]},
    )
    generator = torch.Generator().manual_seed(0)
    net = build_model(config, bands=3, channels=1)
    with torch.no_grad():
        for parameter in net.parameters():
            scale = 0.1 if parameter.ndim == 1 else (2 / parameter[0].numel()) ** 0.5
            parameter.normal_(float(parameter.ndim == 1), scale, generator=generator)
        net.train()
        # A few steps give the running statistics their values.
        for _ in range(20):
            net(torch.randn(4, 3, 64, 64, generator=generator))
    graph = export_onnx(ExportableModel(net, MEAN, STD).eval(), bands=3, multiple_px=8)
    spec = BundleSpec(
        name="small",
        bands=("red", "green", "blue"),
        gsd_m=0.3,
        mean=MEAN,
        std=STD,
        classes=("background", "building"),
        input_multiple_px=8,
        training={"model": config.model_dump(mode="json")},
    )
    path = tmp_path_factory.mktemp("bundle") / "small.rooftrace"
    write_bundle(path, spec, {"model.onnx": store_weights_as_fp16(graph)})
    return path


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def run(
    script: str, *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCH / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        # Where other tests run beside it, PyTorch's threads would wait for one another.
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def answer_of(script: str, *arguments: str | Path, **environment: str) -> dict[str, Any]:
    done = run(script, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["benchmark"] == script.removesuffix(".py")
    assert set(answer["machine"]) >= {
        "cpu",
        "instruction_set",
        "cores",
        "load_1min",
        "python",
        "versions",
    }
    return answer


@pytest.mark.campaign
def test_start_measures_each_command(work: Path) -> None:
    rows = answer_of("start.py", "--work", work, "--repeats", "1")["rows"]
    assert set(rows) == {"python", "numpy", "import", "load", "version", "help", "tile"}
    assert all(row["cpu_s"] > 0 and row["seconds"] > 0 for row in rows.values())
    assert rows["python"]["peak_rss_mb"] < rows["tile"]["peak_rss_mb"]


@pytest.mark.campaign
def test_services_compares_clients_on_servers_that_refuse(work: Path) -> None:
    pytest.importorskip("httpx")
    answer = answer_of("services.py", "--work", work, "--cases", "plain", "half_missing", "page")
    cases = {case: row["rooftrace"] for case, row in answer["cases"].items()}
    assert cases["plain"]["equal_tiles"] == cases["plain"]["requests"] == answer["tiles"] == 100
    assert cases["half_missing"]["equal_tiles"] == 50
    assert "Please sign in" in cases["page"]["error"]
    assert "Read failed" in answer["cases"]["page"]["gdal"]["error"]


@pytest.mark.campaign
def test_predict_compares_the_same_job(bundle: Path, work: Path) -> None:
    answer = answer_of(
        "predict.py", "--size", "256", "--baseline-size", "192", "--tile", "128",
        "--model", bundle, "--work", work, "--rows", "ours_bf16", "ours_fp32", "plain", "tuned",
    )  # fmt: skip
    rows = answer["rows"]
    assert {*rows, *answer["unavailable"]} == {"ours_bf16", "ours_fp32", "plain", "tuned"}
    assert {"ours_fp32", "plain", "tuned"} <= set(rows)
    for row in rows.values():
        # What a crop stands for has started once, too.
        inside = row["seconds_inside"] * (256**2 / row["pixels"] - 1)
        expected = 256**2 / 1e6 / (row["seconds_min"] + inside)
        assert row["mpx_per_s"] == pytest.approx(expected, rel=1e-2)
        assert 0 < row["seconds_inside"] < row["seconds_min"] <= row["seconds_median"]
        # A process with GDAL or PyTorch in it; less would be the memory of another one.
        assert row["peak_rss_mb"] > 50
        assert row["buildings"] > 0
    assert (rows["plain"]["pixels"], rows["plain"]["on_crop"]) == (192**2, True)
    assert (rows["tuned"]["pixels"], rows["tuned"]["on_crop"]) == (256**2, False)
    assert (rows["ours_fp32"]["precision"], rows["plain"]["precision"]) == ("fp32", "fp32")
    assert answer["model"]["largest_difference"] < 0.01
    # Random weights see no buildings, and are swayed by every seam; by chance it would be a third.
    assert rows["ours_fp32"]["mask_iou_with_plain"] > 0.7
    ratios = answer["ratios"]
    ours, tuned = rows["ours_fp32"], rows["tuned"]
    assert ratios["ours_fp32/plain"]["memory"] is None
    assert ratios["ours_fp32/tuned"] == {
        "speed": pytest.approx(ours["mpx_per_s"] / tuned["mpx_per_s"], rel=1e-3),
        "memory": pytest.approx(ours["peak_rss_mb"] / tuned["peak_rss_mb"], rel=1e-3),
    }


@pytest.mark.campaign
def test_predict_compares_sixteen_bits(bundle: Path, work: Path) -> None:
    answer = answer_of(
        "predict.py", "--size", "256", "--tile", "128", "--model", bundle, "--work", work,
        "--rows", "ours", "ours_16bit",
    )  # fmt: skip
    eight, sixteen = answer["rows"]["ours"], answer["rows"]["ours_16bit"]
    assert eight["pixels"] == sixteen["pixels"] == 256**2
    assert set(answer["ratios"]) == {"ours_16bit/ours"}
    speed = sixteen["mpx_per_s"] / eight["mpx_per_s"]
    assert answer["ratios"]["ours_16bit/ours"]["speed"] == pytest.approx(speed, rel=1e-3)


@pytest.mark.campaign
@pytest.mark.realdata
def test_kinds_of_images_are_compared(realdata: Path, work: Path) -> None:
    answer = answer_of("kinds.py", realdata, "--places", "catanduanes", "--work", work)
    (row,) = answer["iou"].values()
    assert abs(row["16 bits"] - row["8 bits"]) <= 0.01
    assert row["dark 0.35, auto"] > row["dark 0.35, none"]
    assert answer["very_dark"]["tiles"] == 0


SLICING = """
class Sliced:
    def __init__(self, image, side):
        corners = [(x, y) for y in (0, image.shape[0] - side) for x in (0, image.shape[1] - side)]
        self.starting_pixels = corners
        self.images = [image[y : y + side, x : x + side] for x, y in corners]


def slice_image(image, slice_height, slice_width):
    assert (slice_height, slice_width) == (512, 512)
    print("what packages print is no answer")
    return Sliced(image, 128)
"""

INFERENCE = """
import os
import rasterio
import segmentation_models_pytorch as smp
import torch


def get_smp_model(architecture, encoder_name, encoder_weights, in_channels, classes, **options):
    return smp.create_model(
        architecture, encoder_name, encoder_weights, in_channels, classes, **options
    )


def semantic_inference_on_geotiff(
    model, geotiff_path, output_path, *, probability_threshold, quiet, device
):
    with rasterio.open(geotiff_path) as source:
        pixels, profile = torch.from_numpy(source.read()), source.profile
    with torch.no_grad():
        chances = torch.softmax(model(pixels[None].float() / 255), 1)[0, 1]
    os.makedirs(os.path.dirname(output_path), exist_ok=True)
    with rasterio.open(output_path, "w", **{**profile, "count": 1, "photometric": None}) as target:
        target.write((chances >= probability_threshold).numpy().astype("uint8"), 1)
"""


@pytest.mark.campaign
def test_packages_of_others_run_with_the_same_weights(
    bundle: Path, work: Path, tmp_path: Path
) -> None:
    for package, module, text in (("sahi", "slicing", SLICING), ("geoai", "train", INFERENCE)):
        (tmp_path / package).mkdir()
        (tmp_path / package / f"{module}.py").write_text(text, encoding="utf-8")
    for name in ("sahi", "geoai_py"):
        facts = tmp_path / f"{name}-1.5.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Name: {name}\nVersion: 1.5\n", encoding="utf-8")
    answer = answer_of(
        "predict.py", "--size", "256", "--baseline-size", "192", "--tile", "128",
        "--model", bundle, "--work", work, "--rows", "ours_fp32", "plain", "geoai", "sahi",
        "--peers-python", sys.executable, PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert answer["unavailable"] == {}
    for name in ("geoai", "sahi"):
        assert answer["peers"][name]["version"] == "1.5"
        assert answer["peers"][name]["largest_difference"] < 0.01
        row = answer["rows"][name]
        assert (row["pixels"], row["on_crop"], row["buildings"]) == (192**2, True, None)
        assert row["mask_iou_with_plain"] > 0.7
        assert answer["ratios"][f"ours_fp32/{name}"]["speed"] > 0


@pytest.mark.campaign
def test_rows_of_packages_that_are_missing_are_left_out(bundle: Path, work: Path) -> None:
    answer = answer_of(
        "predict.py", "--size", "64", "--model", bundle, "--work", work,
        "--rows", "ours_fp32", "sahi", "--peers-python", sys.executable,
    )  # fmt: skip
    assert list(answer["rows"]) == ["ours_fp32"]
    assert answer["unavailable"] == {"sahi": "ModuleNotFoundError: No module named 'sahi'"}
    done = run("predict.py", "--rows", "geoai")
    assert done.returncode == 2
    assert "the rows geoai, sahi need --peers-python" in done.stderr


@pytest.mark.campaign
def test_a_bundle_of_another_network_is_refused(bundle: Path, tmp_path: Path) -> None:
    whole = read_bundle(bundle)
    model = whole.spec.training["model"]
    other = {**model, "options": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}}
    path = tmp_path / "other.rooftrace"
    write_bundle(path, whole.spec.model_copy(update={"training": {"model": other}}), whole.parts)
    done = run("predict.py", "--size", "64", "--model", path, "--work", tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "its graph is not its network's: a tensor of shape (8, " in done.stderr


@pytest.mark.campaign
def test_a_graph_with_folded_normalisations_is_restored(bundle: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    optimizer = pytest.importorskip("onnxscript.optimizer")
    whole = read_bundle(bundle)
    graph = optimizer.optimize(onnx.load_from_string(whole.part("model.onnx")))
    assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}
    path = tmp_path / "folded.rooftrace"
    write_bundle(path, whole.spec, {"model.onnx": graph.SerializeToString()})
    answer = answer_of(
        "predict.py", "--size", "64", "--model", path, "--work", tmp_path, "--rows", "ours_fp32"
    )
    assert answer["model"]["largest_difference"] < 0.01


RECIPE = """
crop_px = 32
epochs = 1
batch_size = 2
samples_per_epoch = 4
val_tiles = 2
[model]
encoder = "resnet18"
encoder_weights = "none"
options = {encoder_depth = 3, decoder_channels = [16, 8, 8]}
[[data.train]]
path = "pairs"
[[data.val]]
path = "pairs"
"""

PLAIN = ["plain"] if importlib.util.find_spec("albumentations") is not None else []
"""The plain loop needs albumentations, which the development environment does not install."""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.mark.campaign
def test_train_compares_epochs_of_samples_with_epochs_of_random_tensors(
    recipe: Path, work: Path
) -> None:
    answer = answer_of(
        "train.py", "--samples", "8", "--pairs", "2", "--repeats", "1", "--recipe", recipe,
        "--work", work, "--rows", "ours", *PLAIN, "--choices", "as chosen", "fp32",
    )  # fmt: skip
    row = answer["rows"]["ours"]
    assert row["images_per_s"] > 0
    assert answer["ratios"]["ours/random"]["pairs"] == row["ours/random"]
    low, high = sorted(row["ours/random"])
    assert low <= answer["ratios"]["ours/random"]["median"] <= high
    ratio = row["images_per_s"] / row["random_images_per_s"]
    assert 0.99 * low <= ratio <= 1.01 * high
    # Of the epochs of samples alone, each of which is of samples of its own.
    assert len(set(row["train_loss"])) == 3
    assert row["peak_rss_mb"] > 200
    for name in PLAIN:
        ratio = row["images_per_s"] / answer["rows"][name]["images_per_s"]
        assert answer["ratios"]["ours/plain"]["rounds"] == [pytest.approx(ratio, rel=1e-3)]
    choices = answer["choices"]
    assert list(choices) == ["as chosen", "fp32"]
    ratio = choices["fp32"]["images_per_s"] / choices["as chosen"]["images_per_s"]
    assert choices["fp32"]["speed/as chosen"] == pytest.approx(ratio, rel=1e-3)


@pytest.mark.campaign
def test_accuracy_goes_on_where_it_was_stopped(recipe: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", range(2), shape_yx=(320, 320))
    sides = ["ours", *PLAIN]

    def points(minutes: str, *sides: str) -> dict[str, list[dict[str, Any]]]:
        answer = answer_of(
            "accuracy.py", "--minutes", minutes, "--every", "0.01", "--turn", "0.01",
            "--recipe", recipe, "--work", tmp_path / "work", "--sides", *sides,
        )  # fmt: skip
        for side in sides:
            best = max(point["mean_iou"] for point in answer["points"][side])
            last = {**answer["points"][side][-1], "best_mean_iou_so_far": best}
            assert answer["by_minutes"][minutes][side] == last
        found: dict[str, list[dict[str, Any]]] = answer["points"]
        return found

    before = points("0.02", *sides)
    for side in sides:
        assert [point["minutes"] for point in before[side]] == [0.01, 0.02]
        for point in before[side]:
            assert 0 <= point["mean_iou"] <= point["mean_iou_at_best_threshold"] <= 1
            assert point["iou"] == {"pairs": point["mean_iou"]}
            # It is measured after the step in which the time was up.
            most = point["images"] / (60 * point["minutes"])
            assert 0 < point["images_per_cpu_s"] <= 1.001 * most
    after = points("0.03", "ours")["ours"]
    assert after[:2] == before["ours"]
    assert after[2]["images"] > 4


@pytest.mark.campaign
def test_stages_have_rates(bundle: Path, work: Path) -> None:
    answer = answer_of(
        "stages.py", "--size", "256", "--model", bundle, "--work", work, "--repeats", "2"
    )
    stages = answer["stages"]
    assert list(stages) == [
        "read", "resample", "enlarge", "engine", "blend", "mask write", "checkpoint save",
        "checkpoint load", "trace", "separate", "regularize", "resolve overlaps", "describe",
        "polygon write", "polygons in all", "density", "preview", "end to end",
    ]  # fmt: skip
    assert all(stage["mpx_per_s"] > 0 for stage in stages.values())
    for name in ("read", "end to end"):
        rate = pytest.approx(256**2 / 1e6 / stages[name]["seconds"], rel=0.1)
        assert stages[name]["mpx_per_s"] == rate
    assert answer["buildings"] > 0
    assert len(answer["by_turn"]) == 2
    low, high = sorted(answer["by_turn"])
    assert 0 < low <= answer["end_to_end_share_of_engine"] <= high
    assert 0 < answer["share_by_cpu"] < 1.5
    assert answer["peak_rss_mb"] > 50


@pytest.mark.campaign
def test_tiles_are_compared_with_the_network_alone(bundle: Path, tmp_path: Path) -> None:
    answer = answer_of(
        "tiles.py", "--tiles", "12", "--model", bundle, "--work", tmp_path,
        "--rows", "engine", "mask", "rle", "--clean",
    )  # fmt: skip
    rows = answer["rows"]
    assert set(rows) == {"engine", "mask", "rle"}
    assert rows["engine"]["batch"] == 10
    assert set(rows["engine"]["by_batch"]) == {"1", "4", "8", "10", "16", "32"}
    for name in ("mask", "rle"):
        row = rows[name]
        assert 0 < row["tiles_per_s_with_start"] < row["tiles_per_s"]
        assert row["mpx_per_s"] == pytest.approx(row["tiles_per_s"] * 224**2 / 1e6, rel=1e-2)
        ratio = row["tiles_per_s"] / rows["engine"]["tiles_per_s"]
        assert answer["ratios"][f"{name}/engine"]["speed"] == pytest.approx(ratio, rel=1e-2)
    assert all(spent >= 0 for spent in answer["step_cpu_ms_per_tile"].values())
    assert answer["step_cpu_ms_per_tile"]["read the pixels"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.campaign
def test_audit_has_rates_and_ratios(work: Path) -> None:
    answer = answer_of("audit.py", "--tiles", "40", "--repeats", "1", "--work", work)
    rows = answer["rows"]
    assert set(rows) == {"decode", "audit", "imread"}
    for row in rows.values():
        assert row["tiles_per_s"] == pytest.approx(40 / row["seconds"], rel=1e-2)
        assert row["peak_rss_mb"] >= row["peak_process_mb"] > 0
    for name in ("decode", "imread"):
        ratio = rows["audit"]["tiles_per_s"] / rows[name]["tiles_per_s"]
        assert answer["ratios"][f"audit/{name}"]["speed"] == pytest.approx(ratio, rel=1e-2)
    assert len(answer["audit/decode by round"]) == 1
