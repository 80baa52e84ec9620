"""Folders become scenes; every labelled set of the real imagery loads unchanged."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rooftrace.core.errors import ConfigError
from rooftrace.core.types import Window
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneSet
from town import write_pairs

BINARY = LabelConfig()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder, range(3), shape_yx=(64, 96), gsd_m=0.4)
    return folder


def open_folder(path: Path, **options: object) -> SceneSet:
    return open_source(SourceConfig(path=path, **options), BINARY)  # type: ignore[arg-type]


def test_scenes_of_a_generated_folder(pairs: Path) -> None:
    source = open_folder(pairs)
    scenes = list(source)
    assert len(source) == len(scenes) == 3
    assert source.ids == tuple(s.id for s in scenes)
    assert source.classes == ("background", "building")
    assert source.name == pairs.name
    for scene in scenes:
        assert scene.gsd_m == pytest.approx(0.4, rel=2e-3)
        assert scene.label is not None
        mask = scene.label.read()
        assert mask.data.shape == scene.image.grid.shape == (64, 96)
        assert mask.valid.all()
        assert set(np.unique(mask.data)) == {0, 1}


def test_what_the_person_says_goes_before_the_georeference(pairs: Path) -> None:
    source = open_folder(pairs, gsd_m=2.0, name="town", share=0.5, part="[1:]", glob="*_0000?.tif")
    assert [s.gsd_m for s in source] == [2.0, 2.0]
    assert (source.name, source.share) == ("town", 0.5)
    assert source.ids == ("synthetic_00001", "synthetic_00002")


def test_a_relative_path_starts_from_the_configuration(
    pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SourceConfig(path=pairs.name)
    assert len(open_source(config, BINARY, pairs.parent)) == 3
    monkeypatch.chdir(pairs)
    assert open_source(SourceConfig(path="."), BINARY).name == pairs.name
    monkeypatch.delenv("ROOFTRACE_ABSENT", raising=False)
    with pytest.raises(ConfigError, match="ROOFTRACE_ABSENT"):
        open_source(SourceConfig(path="$ROOFTRACE_ABSENT/x"), BINARY)


@pytest.mark.parametrize(
    ("nodata", "invalid"),
    [("alpha", []), (7, [(0, 0)]), ((255, 255, 255), [(2, 3)]), ((7, 7, 8), [])],
)
def test_nodata_by_value_and_by_colour(
    tmp_path: Path, nodata: object, invalid: list[tuple[int, int]]
) -> None:
    pixels = np.full((3, 4, 3), 100, np.uint8)
    pixels[0, 0], pixels[0, 1], pixels[2, 3] = 7, (7, 7, 9), 255
    for part, array in (("images", pixels), ("masks", np.zeros((3, 4), np.uint8))):
        (tmp_path / part).mkdir()
        Image.fromarray(array).save(tmp_path / part / "a.png")
    (scene,) = open_folder(tmp_path, nodata=nodata)
    assert list(zip(*np.nonzero(~scene.image.read().valid))) == invalid


def check(source: SceneSet, count: int, *, read: int) -> None:
    """Check that all pairs are found, and that `read` of them can be read as labelled scenes."""
    assert len(source) == count
    chosen = [source.ids[i] for i in np.linspace(0, count - 1, min(read, count)).astype(int)]
    for scene in source.subset(chosen):
        whole = Window.whole(scene.image.grid.shape)
        image = scene.image.read(whole)
        assert scene.image.bands == 3
        assert image.data.dtype == np.uint8
        assert scene.label is not None
        assert scene.label.read(whole).data.shape == image.valid.shape
        assert image.valid.any()


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "count", "read", "gsd_m"),
    [
        ("massachusetts", 19, 2, 1.0),
        ("rotterdam", 185, 12, 0.5),
        ("khartoum", 10, 10, 0.39),
        ("vegas", 10, 10, 0.39),
    ],
)
def test_real_folders(realdata: Path, name: str, count: int, read: int, gsd_m: float) -> None:
    nodata = (255, 255, 255) if name == "massachusetts" else "alpha"
    source = open_folder(realdata / name, gsd_m=gsd_m, nodata=nodata)
    check(source, count, read=read)
    assert {scene.gsd_m for scene in source.subset(source.ids[:1])} == {gsd_m}
