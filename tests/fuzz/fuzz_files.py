"""The reader of catalogues under attack."""

import json
from pathlib import Path
from typing import Any

from fuzz_target import Files, Target, check, json_bytes, tif


def _catalogues() -> tuple[Files, Files]:
    def item(name: str) -> dict[str, Any]:
        return {
            "type": "Feature", "stac_version": "1.0.0", "id": name, "bbox": [35, -6, 36, -5],
            "geometry": None, "properties": {"datetime": "2026-01-01T00:00:00Z"}, "links":
            [{"rel": "self", "href": "https://example.com/items/1.json"}],
            "assets": {"image": {"href": f"./{name}.tif", "roles": ["data"],
                                 "type": "image/tiff; application=geotiff"}},
        }  # fmt: skip

    collection = {"type": "FeatureCollection", "features": [item("a"), item("b")]}
    text = "# scenes\na.tif\nhttps://example.com/b.tif\n"
    return {
        "items.json": json_bytes(collection), "item.geojson": json_bytes(item("a")),
        "list.txt": text.encode(),
    }, {"a.tif": tif()}  # fmt: skip


def _read_catalogue(path: Path) -> None:
    from rooftrace.flows.catalogue.scenes import read_catalogue

    scenes = read_catalogue(path).scenes
    check(len({scene.id for scene in scenes}) == len(scenes), "two scenes have one id")
    if path.suffix == ".json":
        raw = json.loads(path.read_bytes())
        if isinstance(raw, dict) and isinstance(raw.get("features"), list):
            # Items of the same image are one scene. The same relative path is another image where
            # the items state other addresses of themselves.
            # An entry without an address is no asset.
            paths = [
                tuple(
                    asset["href"]
                    for asset in item["assets"].values()
                    if isinstance(asset, dict) and "href" in asset
                )
                for item in raw["features"]
            ]
            links = [json.dumps(item.get("links")) for item in raw["features"]]
            check(len(scenes) >= len(set(paths)), "scenes were left out")
            check(len(scenes) <= len(set(zip(paths, links))), "an image is two scenes")


TARGETS = (Target("catalogue", _catalogues, _read_catalogue),)
