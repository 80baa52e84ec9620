"""Readers of configurations, splits, catalogues and checkpoints under attack."""

from __future__ import annotations

import json
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_mutate import mutate, mutate_json
from fuzz_target import TESTS, Files, Target, check, json_bytes, tif

__all__ = ["TARGETS"]


def _configurations() -> tuple[Files, Files]:
    from tiny_training import TINY

    recipes = sorted((TESTS.parent / "recipes").glob("*.toml"))
    return {path.name: path.read_bytes() for path in recipes} | {"tiny.toml": TINY.encode()}, {}


def _read_configuration(path: Path) -> None:
    from rooftrace.core.config import load_config
    from rooftrace.train.config import TrainConfig

    read = load_config(path, TrainConfig)
    given = tomllib.loads(path.read_text(encoding="utf-8"))
    for key, value in given.items():
        kept = getattr(read, key, None)
        if isinstance(value, (str, int, float)) and isinstance(kept, (str, int, float)):
            # The text "4" may stand for the number 4, but true is not 1.
            same = kept == value or str(kept) == str(value).strip() or _number(value) == kept
            check(
                same and isinstance(kept, bool) == isinstance(value, bool),
                f"{key} is kept as another value",
            )


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


def _splits() -> tuple[Files, Files]:
    from rooftrace.labels.split import make_split, write_split

    ids = [f"img_{n}" for n in range(9)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "split.json")
        write_split(path, make_split(ids, ids, val=0.2, test=0.2, seed=0))
        return {"split.json": path.read_bytes()}, {}


def _read_split(path: Path) -> None:
    from rooftrace.labels.split import read_split

    split = read_split(path)
    raw = json.loads(path.read_bytes())
    if isinstance(raw, dict) and isinstance(raw.get("parts"), dict):
        lists = {_usual_part(name): ids for name, ids in raw["parts"].items()}
        kept = {name: list(ids) for name, ids in split.parts.items()}
        check(kept == lists, "the parts are kept as others")


def _usual_part(name: str) -> str:
    """Return the name by which a part is kept; a name that is none of ours stays as it is."""
    spelled = name.strip().lower()
    for usual, others in {"train": ["training"], "val": ["valid", "validation"],
                          "test": ["testing"]}.items():  # fmt: skip
        if spelled in (usual, *others):
            return usual
    return name


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
    from rooftrace.flows.catalogue.sources import read_catalogue

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


def _checkpoints() -> tuple[Files, Files]:
    """Train for one epoch; every file of `checkpoints` is mutated."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _train(folder, resume=False)
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
    seeds = {name: data for name, data in files.items() if name.startswith("run/checkpoints/last")}
    return seeds, files


def _train(folder: Path, *, resume: bool) -> None:
    from rooftrace.core.config import load_config
    from rooftrace.train.config import TrainConfig
    from rooftrace.train.loop import fit
    from tiny_training import write_tiny_training

    if not resume:
        write_tiny_training(folder)
    net = 'model={architecture="PlainUnet", options={filters=4, depth=2}}'
    config = load_config(folder / "tiny.toml", TrainConfig,
                         [net, "watch.panel=0", f"epochs={1 + resume}"])  # fmt: skip
    fit(config, folder / "run", base=folder, resume=resume)


def _mutate_checkpoint(
    rng: np.random.Generator, name: str, data: bytes, others: list[bytes]
) -> bytes:
    """Mutate the file, or what it holds with the hash made right: its state or a tensor."""
    if rng.random() < 0.2:
        return mutate(rng, name, data, others)
    import torch
    from safetensors.torch import load, save

    from rooftrace.train.checkpoint import _FORMAT, _STATE, _sha256

    tensors = load(data)
    if rng.random() < 0.6:
        state = mutate_json(rng, tensors[_STATE].numpy().tobytes())
        tensors[_STATE] = torch.frombuffer(bytearray(state), dtype=torch.uint8)
    else:
        names = sorted(set(tensors) - {_STATE})
        chosen = names[int(rng.integers(0, len(names)))]
        old = tensors[chosen]
        tensors[chosen] = [
            old[:0].clone(), old.reshape(-1)[:1].clone(), old.reshape(-1), old[None],
            old.to(torch.int64), old.to(torch.float64), torch.full_like(old, 255),
            torch.full_like(old.to(torch.float32), float("nan")),
        ][int(rng.integers(0, 8))] if old.ndim else old[None]  # fmt: skip
        if rng.random() < 0.2:
            del tensors[chosen]
    return save(tensors, {"format": _FORMAT, "sha256": _sha256(tensors)})


def _read_checkpoint(path: Path) -> None:
    _train(path.parents[2], resume=True)
    check(not (path.parents[2] / "ran").exists(), "code in the checkpoint ran")


TARGETS = (
    Target("toml", _configurations, _read_configuration),
    Target("split", _splits, _read_split),
    Target("catalogue", _catalogues, _read_catalogue),
    Target("checkpoint", _checkpoints, _read_checkpoint, _mutate_checkpoint, 60.0),
)
