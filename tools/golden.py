"""Compare what the main commands give before and after a change of the code.

The commands below run on real imagery. Of each file that they write, what must stay is noted:
pixels and position of rasters to the byte, polygons by geometry and count, and every figure of
tables and of JSON reports that does not measure time or memory. Prose, pictures and the layout of
files may change. Both runs belong on one machine: an engine may round differently on another one.

    python tools/golden.py make DIR [--source OTHER/src]
    python tools/golden.py compare DIR

`make` writes `DIR/golden.json`, `compare` compares with it. The folder of real imagery is
`$ROOFTRACE_DATA`. Figures that only one of the two runs has are counted, not compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely

ROOT = Path(__file__).resolve().parent.parent
DEMO_SCENE = ROOT / "src/rooftrace/assets/demo_scene.tif"

MEASURED = (
    "seconds", "mpx_per_s", "rss", "memory", "created", "versions", "machine", "started",
    "finished", "images_per_s", "_s", "minutes", "rooftrace", "bytes", "sha256",
)  # fmt: skip
"""Ends of the keys of a report whose values differ from run to run or with the version."""

TILES = 50
"""Number of tiles in the folder that is predicted."""

_POST = """
import json, sys
import numpy as np
from rooftrace.app.server import create_server
from rooftrace.service.service import Service
from starlette.testclient import TestClient
import rooftrace
service = Service(rooftrace.load())
with TestClient(create_server(service, local=False)) as client:
    with open(sys.argv[1], "rb") as file:
        answer = client.post("/v1/predict", files={"file": file.read()})
answer.raise_for_status()
print(json.dumps(answer.json()))
"""


def commands(data: Path, work: Path) -> dict[str, list[str]]:
    """Return the arguments of each command by its name; `OUT` stands for the command's folder."""
    demo = work / "predict_demo"
    kampala = work / "predict_kampala"
    return {
        "predict_demo": ["predict", str(DEMO_SCENE), "-o", "OUT"],
        "predict_kampala": ["predict", f"{data}/scenes/kampala_z20.tif", "-o", "OUT"],
        "predict_banepa": ["predict", f"{data}/scenes/banepa_z20.tif", "-o", "OUT"],
        "predict_tiles": ["predict", f"{work}/tiles/images", "--gsd", "0.5", "-o", "OUT"],
        "vectorize": [
            "vectorize", f"{demo}/demo_scene_mask.tif", "-o", "OUT/buildings.gpkg",
            "--min-area", "10",
        ],
        "density": [
            "density", f"{demo}/demo_scene_mask.tif", f"{demo}/demo_scene_buildings.gpkg",
            "-o", "OUT/density", "--cell", "50",
        ],
        "compare": [
            "compare", f"{data}/oam/kampala/labels.geojson",
            f"{kampala}/kampala_z20_buildings.gpkg", "-o", "OUT",
        ],
        "evaluate": [
            "evaluate", "default", f"{work}/tiles", "--gsd", "0.5", "-o", "OUT", "--json",
        ],
        "finetune": [
            "finetune", f"{work}/tiles", "--gsd", "0.5", "--minutes", "1", "-o", "OUT", "--json",
        ],
    }  # fmt: skip


def prepare(data: Path, work: Path) -> None:
    """Lay tiles of a place that the default model is validated on, with masks, in a folder."""
    for part in ("images", "masks"):
        folder = work / "tiles" / part
        folder.mkdir(parents=True)
        for path in sorted((data / "rotterdam" / part).iterdir())[-TILES:]:
            shutil.copy(path, folder)


def run(name: str, arguments: list[str], work: Path, source: Path) -> float:
    """Run one command and return its seconds."""
    folder = work / name
    folder.mkdir()
    filled = [argument.replace("OUT", str(folder)) for argument in arguments]
    environment = os.environ | {"PYTHONPATH": str(source)}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *filled],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{name}: exit {done.returncode}\n{done.stderr[-4000:]}")
    if "{" in done.stdout:
        (folder / "stdout.json").write_text(done.stdout, encoding="utf-8")
    return time.perf_counter() - started


def facts(path: Path) -> dict[str, Any]:
    """Return what must stay of a file, by name; empty for a file that may change."""
    if path.name in {"run.json", "stac_item.json"} or ".rooftrace" in path.parts:
        return {}
    match path.suffix:
        case ".tif":
            return _raster_facts(path)
        case ".gpkg" | ".geojson":
            return _layer_facts(path)
        case ".json":
            return dict(_figures(json.loads(path.read_text(encoding="utf-8"))))
        case ".csv":
            return {"table": hashlib.sha256(path.read_bytes()).hexdigest()}
    return {}


def _raster_facts(path: Path) -> dict[str, Any]:
    with rasterio.open(path) as dataset:
        return {
            "pixels": hashlib.sha256(dataset.read().tobytes()).hexdigest(),
            "grid": f"{dataset.shape} {tuple(dataset.transform)} {dataset.crs}",
        }


def _layer_facts(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, kind in pyogrio.list_layers(path):
        if kind is None:
            continue
        meta, _, geometry, fields = pyogrio.raw.read(path, layer=name)
        outlines = shapely.normalize(shapely.from_wkb(geometry))
        order = np.argsort([one.wkb for one in outlines], kind="stable")
        digest = hashlib.sha256()
        for index in order:
            digest.update(outlines[index].wkb)
        found[f"{name}: count"] = len(outlines)
        found[f"{name}: geometry"] = digest.hexdigest()
        found[f"{name}: crs"] = str(meta["crs"])
        for field, values in zip(meta["fields"], fields, strict=True):
            if values.dtype.kind in "iuf":
                found[f"{name}: sum of {field}"] = repr(float(np.nansum(values[order])))
    return found


def _figures(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            if not key.endswith(MEASURED):
                yield from _figures(part, f"{name}/{key}")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _figures(part, f"{name}/{index}")
    elif isinstance(value, int | float):
        yield name, value


def collect(data: Path, work: Path, source: Path, only: list[str] | None) -> dict[str, Any]:
    """Run the commands and return the facts of their files as `command/file: name`."""
    prepare(data, work)
    collected: dict[str, Any] = {}
    jobs = {name: ["-m", "rooftrace", *rest] for name, rest in commands(data, work).items()}
    tile = sorted((work / "tiles/images").iterdir())[0]
    jobs["post"] = ["-c", _POST, str(tile)]
    for name, arguments in jobs.items():
        if only and name not in only:
            continue
        print(f"{name}: {run(name, arguments, work, source):.1f} s", file=sys.stderr)
        for path in sorted((work / name).rglob("*")):
            # A training of a minute takes as many steps as the machine allows.
            if path.is_file() and name != "finetune":
                for key, value in facts(path).items():
                    collected[f"{path.relative_to(work)}: {key}"] = value
    return collected


def main() -> None:
    """Run the commands, note what they give and compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["make", "compare"])
    parser.add_argument("folder", type=Path, help="Folder of golden.json, which `make` writes")
    parser.add_argument("--source", type=Path, default=ROOT / "src", help="Folder of the package")
    parser.add_argument("--only", nargs="*", help="Names of commands, with what they read")
    parser.add_argument("--keep", type=Path, help="Folder for the outputs, which stay there")
    options = parser.parse_args()
    if "ROOFTRACE_DATA" not in os.environ:
        sys.exit("ROOFTRACE_DATA is not set. Set it to the folder of real imagery.")
    data = Path(os.environ["ROOFTRACE_DATA"])
    golden = options.folder / "golden.json"
    with tempfile.TemporaryDirectory() as temporary:
        work = options.keep or Path(temporary)
        after = collect(data, work, options.source.resolve(), options.only)
    if options.action == "make":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(json.dumps(after, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{len(after)} facts")
        return
    before = json.loads(golden.read_text(encoding="utf-8"))
    if options.only:
        before = {k: v for k, v in before.items() if k.split("/")[0] in options.only}
    both = before.keys() & after.keys()
    differing = sorted(name for name in both if before[name] != after[name])
    for name in differing:
        print(f"differs  {name}: {before[name]} -> {after[name]}")
    for title, names in (("gone", before.keys() - both), ("new", after.keys() - both)):
        for name in sorted(names):
            print(f"{title:9}{name}")
    print(f"{len(both)} facts compared, {len(differing)} differ")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
