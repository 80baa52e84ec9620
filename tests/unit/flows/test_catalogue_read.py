"""Test that a catalogue of any kind gives scenes, or an error that names the place."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from raster_files import write_geotiff
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.flows.catalogue.scenes import CatalogueScene, read_catalogue, with_unique_ids
from rooftrace.flows.predict.inputs import find_inputs


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_geotiff(
        path, np.zeros((1, 8, 8), np.uint8), crs=32737,
        transform=rasterio.Affine(1, 0, 5e5, 0, -1, 9e6),
    )  # fmt: skip
    return path


def scenes(path: Path, **more: Any) -> dict[str, str]:
    return {scene.id: scene.location for scene in read_catalogue(path, **more).scenes}


def test_a_folder_tree(tmp_path: Path) -> None:
    for name in ("a/x.tif", "a/b/x.tif", "y.tif", ".hidden/z.tif", "a/.z.tif"):
        image(tmp_path / name)
    (tmp_path / "a" / "readme.md").write_text("words")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    catalogue = read_catalogue(tmp_path)
    assert [scene.id for scene in catalogue.scenes] == ["y", "a_x", "a_b_x"]
    assert catalogue.skipped == {tmp_path / "a" / "readme.md": "not an image"}


def test_a_text_list(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(
        "\ufeff# all of them\r\n\r\n a/x.tif \r\nhttps://host/y.tif?sig=1\r\n/abs/x.tif\r\na/x.tif\r\n"
        "file:///abs/with%20room.tif\r\ns3://bucket/k/z.tif".encode()
    )
    assert scenes(file) == {
        "x": str(tmp_path / "a" / "x.tif"),
        "y": "https://host/y.tif?sig=1",
        "x-2": "/abs/x.tif",
        "with_room": "/abs/with room.tif",
        "z": "s3://bucket/k/z.tif",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"", "names no scenes"), (b"# nothing\n", "names no scenes"), (b"\xff\xfe", "as text")],
)
def test_invalid_lists_are_refused(text: bytes, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(text)
    with pytest.raises(DataError, match=expected):
        read_catalogue(file)


def item(**assets: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "stac_version": "1.1.0", "id": "one", "assets": assets}


COG = "image/tiff; application=geotiff; profile=cloud-optimized"


THUMBNAIL = {"href": "t.tif", "type": COG, "roles": ["thumbnail"]}


@pytest.mark.parametrize(
    ("assets", "href"),
    [
        (
            {"visual": {"href": "v.tif", "type": COG}, "B01": {"href": "b.tif", "type": COG}},
            "v.tif",
        ),
        ({"image": {"href": "i.tif"}, "t": THUMBNAIL}, "i.tif"),
        ({"x": {"href": "x.tif", "type": COG, "roles": ["data"]}, "y": {"href": "y.tif"}}, "x.tif"),
        (
            {"only": {"href": "o.TIF?token=1"}, "m": {"href": "m.json"}, "t": THUMBNAIL},
            "o.TIF?token=1",
        ),
    ],
)
def test_the_asset_that_is_the_image(assets: dict[str, Any], href: str, tmp_path: Path) -> None:
    file = tmp_path / "item.json"
    file.write_text(json.dumps(item(**assets)))
    assert scenes(file) == {"one": str(tmp_path / href)}


def test_an_ambiguous_asset_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "item.json"
    file.write_text(json.dumps(item(B02={"href": "2.tif"}, B03={"href": "3.tif"})))
    with pytest.raises(DataError, match=r"item 1 \(one\): it is not clear .*B02, B03") as error:
        read_catalogue(file)
    assert "--asset" in error.value.remedy
    assert scenes(file, asset="B03") == {"one": str(tmp_path / "3.tif")}
    with pytest.raises(DataError, match="has no asset 'B04'; it has B02, B03"):
        read_catalogue(file, asset="B04")


def test_hrefs_start_from_the_address_of_the_item(tmp_path: Path) -> None:
    file = tmp_path / "items.json"
    links = {
        "web": "https://host/c/item.json",
        "bucket": "s3://bucket/c/item.json",
        "disk": "./item.json",
    }
    features = [
        item(visual={"href": "../v.tif", "type": COG})
        | {"id": name, "links": [{"rel": "parent"}, {"rel": "self", "href": href}]}
        for name, href in links.items()
    ]
    features.append(item(visual={"href": "s3://other/v.tif"}) | {"id": "own", "bbox": [1, 2, 3, 4]})
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    found = read_catalogue(file)
    assert {scene.id: scene.location for scene in found.scenes} == {
        "web": "https://host/v.tif",
        "bucket": "s3://bucket/v.tif",
        "disk": str(tmp_path / "../v.tif"),
        "own": "s3://other/v.tif",
    }
    assert [scene.bounds for scene in found.scenes] == [None, None, None, (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("[1]", "of no type"), ('{"type": "Catalog"}', "of type 'Catalog'"), ("{", "as JSON"),
        ('{"type": "FeatureCollection", "features": []}', "names no scenes"),
        ('{"type": "Feature", "properties": {}}', "has no assets"),
        ('{"type": "Feature", "assets": {}}', "has no id"),
        ('{"type": "Feature", "id": "a", "assets": {"visual": {"type": "image/tiff"}}}', "no href"),
    ],
)  # fmt: skip
def test_json_that_is_not_stac_is_refused(document: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "items.json"
    file.write_text(document)
    with pytest.raises(DataError, match=expected):
        read_catalogue(file)


def test_options_of_other_kinds_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("a.tif")
    with pytest.raises(ConfigError, match="asset"):
        read_catalogue(file, asset="visual")
    with pytest.raises(DataError, match="does not exist"):
        read_catalogue(tmp_path / "none.txt")
    for name in ("table.csv", "table.parquet"):
        (tmp_path / name).write_text("a.tif")
        with pytest.raises(DataError, match=r"ending '\.(csv|parquet)'"):
            read_catalogue(tmp_path / name)


def test_masks_beside_images_are_no_scenes(tmp_path: Path) -> None:
    data = tmp_path / "my data"
    for name in ("images/x.tif", "masks/x.tif"):
        image(data / name)
    catalogue = read_catalogue(data)
    assert [scene.id for scene in catalogue.scenes] == ["images_x"]
    assert catalogue.skipped == {data / "masks" / "x.tif": "masks of other images"}
    with pytest.raises(ConfigError, match="is labelled data") as caught:
        find_inputs([data])
    assert f"rooftrace predict '{data / 'images'}' -o OUT" in caught.value.remedy


@given(st.lists(st.tuples(st.text(max_size=12), st.integers(0, 40)), min_size=1, max_size=25))
def test_ids_are_unique_and_valid_file_names(given_: list[tuple[str, int]]) -> None:
    entries = [CatalogueScene(name, f"/{number}.tif") for name, number in given_]
    made = with_unique_ids(entries, "c")
    assert len({scene.id for scene in made}) == len(made) == len({n for _, n in given_})
    for scene in made:
        assert scene.id
        assert not {*scene.id} & {*"/\\:\0 ;!"}
        assert not scene.id.startswith(".")
