"""The data of a run is checked before it starts, and left-out scenes are reported."""

import json
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

pytest.importorskip("torch")


from rooftrace.core.config import parse_config
from rooftrace.core.errors import BandMismatch, ConfigError, LabelError
from rooftrace.flows.convert import run_convert
from rooftrace.flows.evaluate.run import EvalOptions, run_evaluate
from rooftrace.flows.inspect import run_inspect
from rooftrace.labels.config import SourceConfig
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import TrainingData, measure_pixels, open_data


def write(folder: Path, images: dict[str, np.ndarray]) -> None:
    """Pairs; the mask is where the first band is above its mean."""
    for name, image in images.items():
        mask = (image[:1] > image[0].mean()).astype(np.uint8)
        for part, data in (("images", image), ("masks", mask)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            count, height, width = data.shape
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with rasterio.open(
                    folder / part / f"{name}.tif", "w", driver="GTiff", count=count, height=height,
                    width=width, dtype=data.dtype, photometric="MINISBLACK",
                ) as out:  # fmt: skip
                    out.write(data)


def image_of(seed: int, bands: int = 3, dtype: type = np.uint8, low: float = 1, high: float = 255
             ) -> np.ndarray:  # fmt: skip
    return np.random.default_rng(seed).uniform(low, high, (bands, 48, 48)).astype(dtype)


def opened(folder: Path, **settings: object) -> TrainingData:
    raw = {"crop_px": 32, "batch_size": 2, **settings}
    raw.setdefault("data", {"train": [{"path": "a"}], "val": [{"path": "a", "name": "v"}]})
    return open_data(parse_config(raw, TrainConfig, source="c.toml"), folder)


def test_sets_of_other_kinds_train_together_and_must_be_alike(tmp_path: Path) -> None:
    write(tmp_path / "a", {"0": image_of(0)})
    write(tmp_path / "b", {"1": image_of(1)})
    (tmp_path / "t.csv").write_text("img_id,img_path,mask_rle\n1,b/images/1.tif,5 9 60 3\n")
    table = {"path": "t.csv", "kind": "rle", "order": "row"}
    data = opened(tmp_path, data={"train": [{"path": "a"}, table], "val": [table]})
    assert [source.kind for source in data.train] == ["folder", "rle"]
    assert len(data.samples.scenes) == 2
    write(tmp_path / "four", {"2": image_of(2, bands=4)})
    write(tmp_path / "deep", {"3": image_of(3, dtype=np.uint16)})
    for other, output in (("four", "has 4 bands of uint8"), ("deep", "has 3 bands of uint16")):
        for sets in (
            {"train": [table, {"path": other}], "val": [table]},
            {"train": [table], "val": [{"path": other}]},
        ):
            with pytest.raises(BandMismatch) as caught:
                opened(tmp_path, data=sets)
            assert output in caught.value.message
            assert "1.tif has 3 of uint8" in caught.value.message


def test_parts_of_the_data_itself_are_trained_and_validated_on(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "valid", "test")):
        write(tmp_path / "export" / part, {str(number): image_of(number)})
    write(tmp_path / "plain", {"0": image_of(0)})
    data = opened(tmp_path, data={"train": [{"path": "export"}]})
    assert [source.ids for source in data.train] == [("train/0",)]
    assert [source.ids for source in data.val] == [("valid/1",)]
    assert any("val is validated on, and test is left alone" in note for note in data.notes)
    with pytest.raises(ConfigError, match="plain has no folders train and valid"):
        opened(tmp_path, data={"train": [{"path": "plain"}]})


def test_masks_whose_transparency_hides_the_background_are_refused(tmp_path: Path) -> None:
    drawn = np.zeros((48, 48), np.uint8)
    drawn[8:20, 8:40] = 255
    for number in range(3):
        write(tmp_path / "a", {str(number): image_of(number)})
        (tmp_path / "a" / "masks" / f"{number}.tif").unlink()
        mask = Image.fromarray(np.dstack([drawn] * 4))
        mask.save(tmp_path / "a" / "masks" / f"{number}.png")
    with pytest.raises(LabelError, match="All known pixels are labelled as building") as raised:
        opened(tmp_path)
    finding = {one.key: one for one in run_inspect(SourceConfig(path=str(tmp_path / "a"))).findings}
    inverted = finding["label.inverted"]
    assert raised.value.message == f"a: {inverted.title}. {inverted.detail}"
    assert raised.value.remedy == inverted.remedy
    data = SourceConfig(path=str(tmp_path / "a"))
    with pytest.raises(LabelError, match="no false positive would count"):
        run_convert(data, "coco", tmp_path / "a.json")
    with pytest.raises(LabelError, match="no false positive would count"):
        run_evaluate((), data, None, EvalOptions(), predictions=[tmp_path / "a/masks"])
    # An area does not hide what it leaves out, but its own background is hidden as before.
    for right, is_hidden in ((36, False), (48, True)):
        area = {"type": "Polygon", "coordinates": [[(8, 8), (right, 8), (right, 20), (8, 20)]]}
        area["coordinates"][0].append((8, 8))
        (tmp_path / "area.geojson").write_text(json.dumps(area))
        within = data.model_copy(update={"area": str(tmp_path / "area.geojson")})
        with pytest.raises(LabelError, match="no false") if is_hidden else nullcontext():
            run_convert(within, "folder", tmp_path / f"within{right}")
    # With the background of one image in its own value, transparent parts are unknown.
    Image.fromarray(drawn).save(tmp_path / "a" / "masks" / "2.png")
    assert len(opened(tmp_path).samples.scenes) == 3


def test_normalisation_is_of_imagenet_measured_or_given(tmp_path: Path) -> None:
    image = image_of(0)
    image[1] = 77
    write(tmp_path / "a", {"0": image})
    scale = np.array([0.485, 0.456, 0.406]) * 255
    for name in ("auto", "imagenet"):
        assert opened(tmp_path, normalise=name).statistics[0] == pytest.approx(scale)
    # A sample is the whole image.
    data = opened(tmp_path, normalise="dataset", crop_px=48)
    mean, std = data.statistics
    assert mean == pytest.approx(image.mean(axis=(1, 2)), rel=1e-5)
    assert std[::2] == pytest.approx(image.std(axis=(1, 2))[::2], rel=1e-5)
    assert mean[1] == 77
    assert std[1] == 255  # a band that never changes is not divided by nothing
    assert opened(tmp_path, normalise="dataset", crop_px=48).statistics == data.statistics
    given = {"mean": [1, 2, 3], "std": [4, 5, 6]}
    assert opened(tmp_path, normalise=given).statistics == ((1, 2, 3), (4, 5, 6))
    with pytest.raises(ConfigError, match="normalise has 1 value, but the images have 3 bands"):
        opened(tmp_path, normalise={"mean": [1], "std": [1]})
    write(tmp_path / "five", {"0": image_of(0, bands=5)})
    five = {"train": [{"path": "five"}], "val": [{"path": "five"}]}
    with pytest.raises(ConfigError, match="is for three bands, but the images have 5"):
        opened(tmp_path, normalise="imagenet", data=five)
    assert opened(tmp_path, data=five).statistics[0] == pytest.approx((128,) * 5, rel=0.05)


def test_what_is_measured_is_what_is_valid(tmp_path: Path) -> None:
    image = image_of(0)
    image[:, 24:] = 255
    write(tmp_path / "a", {"0": image})
    source = {"path": "a", "nodata": [255, 255, 255]}
    found = measure_pixels(opened(tmp_path, data={"train": [source], "val": [source]}).samples)
    assert found.mean == pytest.approx(image[:, :24].mean(axis=(1, 2)), rel=0.03)
    assert found.high == image[:, :24].max()
    assert found.outside == 0


def test_the_full_scale_must_be_that_of_the_data(tmp_path: Path) -> None:
    light = {"policy": "light"}
    write(tmp_path / "a", {"0": image_of(0, dtype=np.uint16, high=3000)})
    both, note = opened(tmp_path, augment=light).notes
    assert both.startswith("Images to validate on that are also trained on: 1 of 1, such as 0.tif.")
    assert "up to 29" in note
    assert "full_scale = 4095" in note
    said = opened(tmp_path, augment=light, full_scale=4095)
    assert said.notes == (both,)
    assert said.statistics[0][0] == pytest.approx(0.485 * 4095)
    assert max(said.samples[n].image.max() for n in range(4)) <= 4095
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path, augment=light, full_scale=1000)
    assert "expected 0 to 1000, the full scale" in caught.value.message
    assert "full_scale = 4095" in caught.value.remedy
    write(tmp_path / "a", {"0": image_of(0, dtype=np.float32, low=-20, high=200)})
    with pytest.raises(ConfigError, match="pixel values from -"):
        opened(tmp_path)
    # Heights and the like: measured, and as they are.
    data = opened(tmp_path, normalise="dataset")
    assert data.statistics[0] == pytest.approx((90,) * 3, rel=0.05)
    assert min(data.samples[n].image.min() for n in range(4)) < -10
