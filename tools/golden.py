"""Compare every byte that the main commands write, before and after a change of the code.

The script runs the commands below on real imagery, hashes each file that they write and
writes the hashes as JSON. Left out are `run.json` and the journal, which hold times and memory, and
HTML pages, which are prose. A second run on the changed
code compares with that file. Both runs belong on one machine: an engine may round differently on
another processor.

    python tools/golden.py make DIR
    python tools/golden.py compare DIR

`make` writes the hashes to `DIR/golden.json`, `compare` compares with them. The folder of real
imagery is `$ROOFTRACE_DATA`. `--source SRC` runs another checkout's `src`.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEMO_SCENE = ROOT / "src/rooftrace/assets/demo_scene.tif"

MEASURED = {
    "seconds", "mpx_per_s", "peak_rss_mb", "engine_mpx_per_s", "created", "versions", "machine",
    "started", "finished", "images_per_s",
}  # fmt: skip
"""Keys of a JSON report whose values differ from run to run."""


def commands(data: Path, work: Path) -> dict[str, list[str]]:
    """Return the arguments of each command by its name; `OUT` stands for the command's folder."""
    zanzibar = data / "oam/zanzibar/images"
    return {
        "predict_kampala": ["predict", f"{data}/scenes/kampala_z20.tif", "-o", "OUT"],
        "predict_rotterdam": ["predict", f"{data}/rotterdam/images", "--gsd", "0.5", "-o", "OUT"],
        "predict_demo": ["predict", str(DEMO_SCENE), "-o", "OUT"],
        "predict_mosaic": ["predict", str(zanzibar), "--mosaic", "--zoom", "19", "-o", "OUT"],
        "vectorize": [
            "vectorize", f"{work}/predict_demo/demo_scene_mask.tif",
            "-o", "OUT/buildings.gpkg", "--min-area", "10",
        ],
        "vectorize_geojson": [
            "vectorize", f"{work}/predict_demo/demo_scene_mask.tif",
            "-o", "OUT/buildings.geojson", "--no-regularize",
        ],
        "density": [
            "density", f"{work}/predict_demo/demo_scene_mask.tif",
            f"{work}/predict_demo/demo_scene_buildings.gpkg", "-o", "OUT/density", "--cell", "50",
        ],
        "catalogue": ["catalogue", f"{work}/tiles", "-o", "OUT"],
        "submit": [
            "submit", f"{data}/rotterdam/images", "--gsd", "0.5", "-o", "OUT/submission.csv",
        ],
        "evaluate": [
            "evaluate", "default", f"{data}/rotterdam", "--part", "[150:]", "--gsd", "0.5",
            "-o", "OUT",
        ],
    }  # fmt: skip


def prepare(data: Path, work: Path) -> None:
    """Lay 60 tiles of two places in folders of their own, for the catalogue."""
    for place in ("kampala", "nairobi"):
        folder = work / "tiles" / place
        folder.mkdir(parents=True)
        for path in sorted((data / "oam" / place / "images").glob("*-19.png"))[:30]:
            shutil.copy(path, folder)


def run(name: str, arguments: list[str], work: Path, source: Path) -> float:
    """Run one command and return its seconds."""
    folder = work / name
    folder.mkdir()
    filled = [argument.replace("OUT", str(folder)) for argument in arguments]
    environment = os.environ | {"PYTHONPATH": str(source)}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "rooftrace", *filled],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{name}: exit {done.returncode}\n{done.stderr[-4000:]}")
    return time.perf_counter() - started


def digest(path: Path, work: Path) -> str:
    """Return the sha256 of a file, without times and folders where it is a JSON report."""
    content = path.read_bytes()
    if path.suffix == ".json":
        text = json.dumps(_lasting(json.loads(content)), sort_keys=True)
        content = text.replace(str(work), "WORK").encode()
    return hashlib.sha256(content).hexdigest()


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(one) for key, one in value.items() if key not in MEASURED}
    if isinstance(value, list):
        return [_lasting(one) for one in value]
    return value


def main() -> None:
    """Run the commands, write their hashes and compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["make", "compare"])
    parser.add_argument("folder", type=Path, help="Folder of golden.json, which `make` writes")
    parser.add_argument("--source", type=Path, default=ROOT / "src", help="Folder of the package")
    parser.add_argument("--only", nargs="*", help="Names of commands, without what they read")
    parser.add_argument("--keep", type=Path, help="Folder for the outputs, which stay there")
    options = parser.parse_args()
    if "ROOFTRACE_DATA" not in os.environ:
        sys.exit("ROOFTRACE_DATA is not set. Set it to the folder of real imagery.")
    data = Path(os.environ["ROOFTRACE_DATA"])
    with tempfile.TemporaryDirectory() as temporary:
        work = options.keep or Path(temporary)
        work.mkdir(exist_ok=True)
        prepare(data, work)
        hashes: dict[str, str] = {}
        for name, arguments in commands(data, work).items():
            if options.only and name not in options.only:
                continue
            seconds = run(name, arguments, work, options.source)
            print(f"{name}: {seconds:.1f} s", file=sys.stderr)
            for path in sorted((work / name).rglob("*")):
                if (
                    path.is_file()
                    and path.name != "run.json"
                    and path.suffix != ".html"
                    and ".rooftrace" not in path.parts
                ):
                    hashes[str(path.relative_to(work))] = digest(path, work)
    golden = options.folder / "golden.json"
    if options.action == "make":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(json.dumps(hashes, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{len(hashes)} files hashed")
        return
    before = json.loads(golden.read_text(encoding="utf-8"))
    differing = sorted(
        name for name in before.keys() | hashes.keys() if before.get(name) != hashes.get(name)
    )
    for name in differing:
        state = "missing" if name not in hashes else "new" if name not in before else "differs"
        print(f"{state:8}{name}")
    print(f"{len(hashes)} files, {len(differing)} not as before")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
