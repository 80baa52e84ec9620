"""Tables of run lengths as data: images, order of runs, several rows, writing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rooftrace.core.errors import ConfigError, LabelError, LayoutError
from rooftrace.core.types import Window
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import KINDS, open_source
from rooftrace.labels.rle import Order
from rooftrace.labels.rle_source import RunsLabel
from rooftrace.labels.source import SceneSet, WriteOptions
from town import write_pairs

ROW, COLUMN = "img_id,img_path,mask_rle", "ImageId,EncodedPixels"
GREY = np.full((8, 10, 3), 90, dtype=np.uint8)


def write_table(folder: Path, header: str, rows: Sequence[str], name: str = "t.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def write_image(path: Path, pixels: np.ndarray = GREY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def read(path: Path, **given: object) -> SceneSet:
    return open_source(SourceConfig.model_validate({"path": str(path), **given}))


def masks_of(source: SceneSet) -> dict[str, np.ndarray]:
    return {scene.id: scene.label.read().data for scene in source if scene.label}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[int, int], int], SceneSet]:
    """Return a folder of generated scenes and masks of one size, made once for each size."""
    made: dict[tuple[int, int], SceneSet] = {}

    def make(shape_yx: tuple[int, int], count: int) -> SceneSet:
        if shape_yx not in made:
            folder = tmp_path_factory.mktemp("town")
            write_pairs(folder, range(count), shape_yx=shape_yx, gsd_m=0.3)
            made[shape_yx] = read(folder)
        return made[shape_yx]

    return make


def tabled(source: SceneSet, folder: Path, order: Order, header: str = "name,path,rle") -> Path:
    """Return the table of a set, under column names that do not imply an order."""
    columns = tuple(header.split(","))
    out = folder / "t.csv"
    KINDS["rle"].write(source, out, WriteOptions(order=order, columns=columns), None)
    return out


def order_of(source: SceneSet) -> str:
    """Return the order in which a set reads its runs."""
    label = next(iter(source)).label
    assert isinstance(label, RunsLabel)
    return label.order


class TestImages:
    def test_by_path_from_the_tables_folder(self, tmp_path: Path) -> None:
        write_image(tmp_path / "img/a b.png")
        write_image(tmp_path / "img/ü.png")
        path = write_table(tmp_path, ROW, ["ü.png,img\\ü.png,1 3", "a b,./img/a b.png,-1"])
        source = read(path)
        assert source.ids == ("a b", "ü")
        assert [scene.label.read().data.sum() for scene in source] == [0, 3]

    @pytest.mark.parametrize("name", ["a", "a.png", "img/a", "deep/img/a.png"])
    def test_by_name_in_folders_beside_the_table(self, tmp_path: Path, name: str) -> None:
        write_image(tmp_path / "deep/img/a.png")
        path = write_table(tmp_path, COLUMN, [f"{name},1 3"])
        assert read(path).ids == (name.removesuffix(".png"),)

    def test_a_missing_image_names_row_and_path(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png")
        path = write_table(tmp_path, ROW, ["a,a.png,1 3", "b,img/b.png,-1", "c,c.png,-1"])
        with pytest.raises(LayoutError, match=r"row 3 names the image 'img/b\.png', which is not"):
            read(path)
        path = write_table(tmp_path, COLUMN, ["a,1 3", "q,-1"])
        with pytest.raises(LayoutError, match="row 3 names the image 'q', which is not found"):
            read(path)

    def test_two_images_of_a_name_are_not_guessed_between(self, tmp_path: Path) -> None:
        write_image(tmp_path / "one/a.png")
        write_image(tmp_path / "two/a.png")
        path = write_table(tmp_path, COLUMN, ["a,1 3"])
        with pytest.raises(LayoutError, match=r"the image 'a', which matches 2 files: .*one.*two"):
            read(path)
        assert len(read(path, images=str(tmp_path / "two"))) == 1

    def test_one_id_is_one_image(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png")
        write_image(tmp_path / "b.png")
        path = write_table(tmp_path, ROW, ["a,a.png,1 3", "a,b.png,5 1"])
        with pytest.raises(LayoutError, match=r"row 3: the image 'a' is .*b\.png, but .*a\.png"):
            read(path)
        path = write_table(tmp_path, ROW, ["a,a.png,1 3", "a.png,a.png,5 1"])
        with pytest.raises(LayoutError, match=r"both 'a' and 'a\.png'"):
            read(path)


class TestMasks:
    def test_rows_of_an_image_add_up(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png")
        path = write_table(tmp_path, COLUMN, ["a,1 3", "a,-1", "a,3 2"])
        (scene,) = read(path)
        assert np.flatnonzero(scene.label.read().data.ravel("F")).tolist() == [0, 1, 2, 3]
        window = Window(1, 0, 3, 2)
        assert np.array_equal(
            scene.label.read(window).data, scene.label.read().data[window.slices()]
        )

    def test_an_error_names_table_row_and_column(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png")
        path = write_table(tmp_path, COLUMN, ["a,1 3", "a,80 2"])
        (scene,) = read(path)
        with pytest.raises(LabelError) as caught:
            scene.label.read()
        assert caught.value.message.startswith(
            f"{path}, row 3, column 'EncodedPixels': the run 80 2"
        )


class TestOrder:
    @pytest.mark.parametrize("shape_yx", [(160, 224), (224, 160)])
    @pytest.mark.parametrize("order", ["row", "column"])
    def test_runs_prove_it_where_images_are_not_square(
        self, town, tmp_path: Path, shape_yx: tuple[int, int], order: Order
    ) -> None:
        source = town(shape_yx, 4)
        read_again = read(tabled(source, tmp_path, order))
        assert order_of(read_again) == order
        assert "are compact" in read_again.notes[0]
        assert all(
            np.array_equal(mask, again)
            for mask, again in zip(masks_of(source).values(), masks_of(read_again).values())
        )

    @pytest.mark.campaign
    @pytest.mark.parametrize("order", ["row", "column"])
    def test_images_prove_it_where_they_are_square(
        self, town, tmp_path: Path, order: Order
    ) -> None:
        read_again = read(tabled(town((96, 96), 32), tmp_path, order))
        assert order_of(read_again) == order
        assert "fit their images better" in read_again.notes[0]

    @pytest.mark.parametrize("header", [ROW, COLUMN])
    def test_what_the_data_does_not_say_is_taken_from_the_columns(
        self, tmp_path: Path, header: str
    ) -> None:
        write_image(tmp_path / "a.png")
        row = "a,a.png,1 3" if header == ROW else "a,1 3"
        source = read(write_table(tmp_path, header, [row]))
        assert order_of(source) == ("row" if header == ROW else "column")
        assert "are assumed to go" in source.notes[0]
        assert "does not prove it" in source.notes[0]

    @pytest.mark.parametrize("order", ["row", "column"])
    def test_proof_outweighs_the_columns(self, town, tmp_path: Path, order: Order) -> None:
        header = COLUMN if order == "row" else ROW
        # Read by path in both: the images lie elsewhere.
        header = header if "path" in header else "ImageId,img_path,EncodedPixels"
        source = read(tabled(town((160, 224), 4), tmp_path, order, header))
        assert order_of(source) == order
        assert "In tables with these columns they usually go" in source.notes[0]

    @pytest.mark.campaign
    def test_doubt_is_an_error(self, town, tmp_path: Path) -> None:
        # Ten square images are too few for proof, and enough to doubt what the columns say.
        few = town((96, 96), 32)
        few = replace(few, entries=few.entries[:12])
        path = tabled(few, tmp_path, "column", ROW)
        with pytest.raises(LabelError, match="are expected to go along rows, although the outl"):
            read(path)
        assert read(path, order="column").notes == ()

    def test_nothing_says_it(self, tmp_path: Path) -> None:
        for name in "abcdef":
            write_image(tmp_path / f"{name}.png", np.full((40, 40, 3), 90, dtype=np.uint8))
        rows = [f"{name},{name}.png,10 {5 + n}" for n, name in enumerate("abcdef")]
        path = write_table(tmp_path, "name,path,rle", rows)
        with pytest.raises(LabelError, match="may go either way"):
            read(path)
        assert order_of(read(path, order="row")) == "row"


class TestKind:
    def test_a_folder_with_one_table_is_read(self, tmp_path: Path) -> None:
        write_image(tmp_path / "img/a.png")
        write_table(tmp_path, COLUMN, ["a,1 3"])
        (tmp_path / "test.csv").write_text("img_id,img_path\n")
        assert read(tmp_path).kind == "rle"
        write_table(tmp_path, COLUMN, ["a,-1"], "sample.csv")
        with pytest.raises(LayoutError, match=r"found sample\.csv, t\.csv"):
            read(tmp_path)

    def test_losses_of_the_format_are_noted(self, tmp_path: Path) -> None:
        write_image(tmp_path / "in/images/a.png")
        mask = np.zeros((8, 10), dtype=np.uint8)
        mask[:2], mask[2:4], mask[4:6] = 1, 2, 9
        write_image(tmp_path / "in/masks/a.png", mask)
        source = read(
            tmp_path / "in", nodata=7.0,
            labels={"classes": ["none", "road", "house"], "building": "house", "ignore": [9]},
        )  # fmt: skip
        written = KINDS["rle"].write(source, tmp_path / "t.csv", WriteOptions(order="column"), None)
        assert "a,in/images/a.png,3 2 11 2" in (tmp_path / "t.csv").read_text()
        notes = " ".join(written.notes)
        for part in (
            "Unknown pixels become background in a table: 1 mask.",
            "nodata rule of the images",
            "--set order=column", "Only the class house is written",
        ):  # fmt: skip
            assert part in notes

    def test_what_cannot_be_written_is_refused(self, town, tmp_path: Path) -> None:
        write = KINDS["rle"].write
        source = town((160, 224), 4)
        with pytest.raises(ConfigError, match=r"does not end in \.csv"):
            write(source, tmp_path / "out", WriteOptions(), None)
        with pytest.raises(ConfigError, match="There is nothing to write into the columns score"):
            write(source, tmp_path / "t.csv", WriteOptions(columns=("id", "rle", "score")), None)
        with pytest.raises(ConfigError, match="The table to write has the columns 'id', 'score'"):
            write(source, tmp_path / "t.csv", WriteOptions(columns=("id", "score")), None)
