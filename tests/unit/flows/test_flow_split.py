"""A split is written once, by image, group or block, and nothing leaks from part to part."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rooftrace.core.errors import ConfigError, DataError, SplitError
from rooftrace.flows.inspect import run_inspect
from rooftrace.flows.labelled_predictions import select_part
from rooftrace.flows.split import run_split
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.split import Split, SplitOptions, read_split
from town import generate_scene


@pytest.fixture
def grouped(tmp_path: Path) -> SourceConfig:
    for group, count in (("oslo", 6), ("bergen", 3), ("tromso", 3)):
        for number in range(count):
            for part in ("images", "masks"):
                path = tmp_path / "data" / group / part / f"{group}_{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    return SourceConfig(path=str(tmp_path / "data"))


def places(ids: tuple[str, ...]) -> set[str]:
    return {i.split("/")[0] for i in ids}


def test_by_group(grouped: SourceConfig, tmp_path: Path) -> None:
    for seed in range(4):
        made = run_split(
            grouped, tmp_path / "s.json", SplitOptions(val=0.25, test=0.25, by="group", seed=seed)
        )
        assert read_split(tmp_path / "s.json") == made
        assert [len(places(made.parts[p])) for p in ("train", "val", "test")] == [1, 1, 1]
        assert sum(len(ids) for ids in made.parts.values()) == 12
    folds = [SplitOptions(val=0.25, by="group", fold=f"{number}/3") for number in (1, 2, 3)]
    left_out = [places(run_split(grouped, tmp_path / "s.json", one).parts["test"]) for one in folds]
    assert sorted(left_out, key=min) == [{"bergen"}, {"oslo"}, {"tromso"}]


def test_one_folder_is_no_groups(grouped: SourceConfig, tmp_path: Path) -> None:
    one = SourceConfig(path=f"{grouped.path}/oslo")
    with pytest.raises(DataError, match="are in one group") as caught:
        run_split(one, tmp_path / "s.json", SplitOptions(val=0.2, test=0.2, by="group"))
    assert "--group-pattern" in caught.value.remedy
    assert not (tmp_path / "s.json").exists()


def tile_set(folder: Path, rows: int, cols: int) -> SourceConfig:
    """A town of slippy tiles at zoom 19, each also as its four tiles at zoom 20."""
    scene = generate_scene(5, (64 * rows, 64 * cols), 0.6)
    image, mask = np.moveaxis(scene.image, 0, -1), scene.mask()
    for zoom, side in ((19, 64), (20, 32)):
        for row in range(64 * rows // side):
            for col in range(64 * cols // side):
                at = np.s_[row * side : (row + 1) * side, col * side : (col + 1) * side]
                scale = zoom - 19
                name = f"OAM-{(319_293 << scale) + col}-{(270_961 << scale) + row}-{zoom}.png"
                _save(folder / "images" / name, image[at])
                _save(folder / "masks" / name, mask[at] * np.uint8(255))
    return SourceConfig(path=str(folder))


def _save(path: Path, pixels: np.ndarray) -> None:  # type: ignore[type-arg]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def ground_of(ids: tuple[str, ...]) -> set[tuple[int, int]]:
    """Return the tiles of zoom 20 that an image covers."""
    found = set()
    for scene_id in ids:
        col, row, zoom = map(int, scene_id.removeprefix("OAM-").split("-"))
        steps = range(1 << 20 - zoom)
        found |= {((row << 20 - zoom) + i, (col << 20 - zoom) + j) for i in steps for j in steps}
    return found


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> SourceConfig:
    return tile_set(tmp_path_factory.mktemp("tiles"), 6, 7)


@pytest.mark.campaign
def test_by_block_no_ground_is_in_two_parts(tiles: SourceConfig, tmp_path: Path) -> None:
    for seed in range(3):
        made = run_split(
            tiles, tmp_path / "s.json",
            SplitOptions(val=0.2, test=0.2, by="block", gap_m=1, seed=seed, duplicates=False),
        )  # fmt: skip
        assert read_split(tmp_path / "s.json") == made
        assert sum(map(len, made.parts.values())) + len(made.dropped) == 6 * 7 * 5
        parts = [ground_of(ids) for ids in made.parts.values()]
        for number, part in enumerate(parts):
            beside = {(r + i, c + j) for r, c in part for i in (-1, 0, 1) for j in (-1, 0, 1)}
            assert part
            assert not any(beside & other for other in parts[number + 1 :])
        # What was left out lies at an edge of another part, or is the tile that holds such a one.
        held_out = parts[1] | parts[2]
        beside = {(r + i, c + j) for r, c in held_out for i in (-1, 0, 1) for j in (-1, 0, 1)}
        assert all(ground_of((scene_id,)) & beside for scene_id in made.dropped)
        assert made.gap_m == 1
        assert made.block_m is not None
    # With few tiles, parts touch: no image is left out where the gap is not given.
    made = run_split(tiles, tmp_path / "s.json", SplitOptions(val=0.2, test=0.2, by="block"))
    assert (made.gap_m, made.dropped) == (0, ()) != made.parts["train"]
    assert any(note.startswith("A gap of ") for note in made.notes)


@pytest.mark.campaign
def test_ground_in_two_parts_is_noted(tiles: SourceConfig, tmp_path: Path) -> None:
    made = run_split(tiles, tmp_path / "s.json", SplitOptions(val=0.2, test=0.2))
    (note,) = made.notes
    assert "32 of 42 images of test show ground of images of train; " in note
    assert note.endswith("Divide with --by block.")


def test_without_a_place_there_are_no_blocks(grouped: SourceConfig, tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="12 of the 12 images of data have no georeference") as err:
        run_split(grouped, tmp_path / "s.json", SplitOptions(val=0.2, test=0.2, by="block"))
    assert "--group-pattern" in err.value.remedy


@pytest.mark.parametrize("names", ["{}{:02d}", "x{1:02d}_png.rf.{0}0"])
def test_near_duplicates_stay_together(tmp_path: Path, names: str) -> None:
    image = np.moveaxis(generate_scene(4, (256, 256)).image, 0, -1)
    empty = np.zeros((64, 64), np.uint8)
    for number in range(16):
        row, col = divmod(number, 4)
        tile = image[row * 64 : row * 64 + 64, col * 64 : col * 64 + 64]
        # Augmentations of Roboflow are known by their names, however different they are.
        noise = np.random.default_rng(number).integers(0, 255, tile.shape, np.uint8)
        for letter, pixels in (("a", tile), ("b", np.rot90(tile) if names[0] == "{" else noise)):
            name = names.format(letter, number)
            _save(tmp_path / "data" / "images" / f"{name}.png", pixels)
            _save(tmp_path / "data" / "masks" / f"{name}.png", empty)
    data = SourceConfig(path=str(tmp_path / "data"))

    def straddling(made: Split) -> int:
        part_of = made.part_of
        return sum(
            part_of[names.format("a", n)] != part_of[names.format("b", n)] for n in range(16)
        )

    options = SplitOptions(val=0.25, test=0.25)
    made = run_split(data, tmp_path / "s.json", options)
    assert (straddling(made), made.copies) == (0, 16)
    assert [len(ids) for ids in made.parts.values()] == [16, 8, 8]
    options = options.model_copy(update={"duplicates": False})
    plain = run_split(data, tmp_path / "s.json", options)
    assert straddling(plain) > plain.copies == 0


def test_some_images_without_labels(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    for number in range(5):
        _save(tmp_path / "data" / "train" / "images" / f"img_{number}.tif", pixels)
        _save(tmp_path / "data" / "train" / "masks" / f"mask_{number}.tif", pixels)
        _save(tmp_path / "data" / "test" / f"img_{number}.tif", pixels)
    data = SourceConfig(path=str(tmp_path / "data"))
    made = run_split(data, tmp_path / "s.json", SplitOptions(val=0.2, test=0.2))
    assert sum(map(len, made.parts.values())) == 5
    assert made.notes[0] == "In no part: 5 images without a label."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_m": 100.0}, "block_m was given, but the split is by image"),
        ({"gap_m": 1.0, "by": "group"}, "gap_m was given, but the split is by group"),
        ({"block_m": 0.0, "by": "block"}, "block_m: it should be greater than 0"),
        ({"gap_m": -1.0, "by": "block"}, "gap_m: it should be greater than or equal to 0"),
        ({"group_pattern": "(a)", "by": "block"}, "group_pattern was given, but the split is by"),
        ({"fold": "6/5"}, "fold received '6/5'; expected a fold and their number"),
        ({"fold": "1/5", "test": 0.1}, "fold received '1/5', and test was given"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        SplitOptions(val=0.1, **options)


def test_parts_of_the_data_itself_are_said_and_can_be_chosen(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2:6, 2:6] = 255
    for number in range(6):
        for kind in ("images", "masks"):
            part = ("train", "valid", "test")[number % 3]
            _save(tmp_path / "data" / part / kind / f"{number}.png", pixels)
    data = SourceConfig(path=str(tmp_path / "data"))
    made = run_split(data, tmp_path / "s.json", SplitOptions(val=0.2, test=0.2, duplicates=False))
    assert "parts of its own (2 train, 2 val, 2 test): this split" in " ".join(made.notes)
    audit = run_inspect(data)
    assert "(2 train, 2 val, 2 test): finetune and train use" in audit.data.source.notes[-1]
    assert not any("Set a test part aside" in action for action in audit.verdict.actions)
    scenes = open_source(data)
    assert "--split test takes one" in select_part(scenes, None, "data").notes[-1]
    assert select_part(scenes, "test", "data").ids == ("test/2", "test/5")
