"""Installation: nothing installed → first polygons, in seconds and megabytes, beside two peers.

Each row makes an empty environment and fills it without pip's cache. A row of rooftrace ends when
the polygons of the demo scene are written. A row of a peer ends when its package is imported: its
model would be downloaded after that, which is not counted.

    seconds       from the empty folder to the end
    megabytes     files of the environment, without those of an empty one
    packages      distributions that were installed

`--dry-run` only resolves, by uv: packages, and the megabytes that would be downloaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from packaging.tags import sys_tags
from packaging.utils import parse_wheel_filename

from common import WORK, argument_parser, rounded, start

_ROOT = Path(__file__).resolve().parent.parent
_PEERS = {"geoai": ("geoai-py", "geoai"), "samgeo": ("segment-geospatial", "samgeo")}
"""Package of each peer, and the module that is imported."""

_BINARIES = "Scripts" if os.name == "nt" else "bin"


def main() -> dict[str, Any]:
    parser = argument_parser(__doc__)
    rows = ["pip", *(["uvx"] if shutil.which("uvx") else []), *_PEERS]
    parser.add_argument("--rows", nargs="+", choices=["pip", "uvx", *_PEERS], default=rows)
    parser.add_argument("--dry-run", action="store_true", help="only resolve and count packages")
    parser.add_argument("--wheel", default=str(_ROOT), help="what is installed of rooftrace")
    options = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    for name in options.rows:
        folder = Path(options.work or WORK) / "install" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        package = _PEERS[name][0] if name in _PEERS else options.wheel
        print(f"{name}: {package}", file=sys.stderr)
        if options.dry_run:
            results[name] = _resolve(folder, package)
        elif name == "uvx":
            results[name] = _by_uvx(folder, package)
        else:
            results[name] = _by_pip(folder, package, _PEERS.get(name, ("", ""))[1])
    return {"rows": results, "ours/peer": _ratios(results)}


def _resolve(folder: Path, package: str) -> dict[str, Any]:
    wanted, lock = folder / "wanted.in", folder / "pylock.toml"
    wanted.write_text(f"{package}\n", encoding="utf-8")
    compile_ = ["pip", "compile", "--quiet", "--format", "pylock.toml", "-o", lock, wanted]
    seconds = _run("uv", *compile_, UV_CACHE_DIR=str(folder / "cache"))
    packages = tomllib.loads(lock.read_text(encoding="utf-8"))["packages"]
    return {
        "packages": len(packages),
        "download_mb": rounded(sum(map(_download, packages)) / 1e6),
        "resolved_s": rounded(seconds),
    }


def _download(package: dict[str, Any]) -> int:
    """Return the bytes of the wheel for this Python and system, or of the source without one."""
    preferred = {tag: place for place, tag in enumerate(sys_tags())}
    ranks: dict[int, int] = {}
    for wheel in package.get("wheels", ()):
        tags = parse_wheel_filename(unquote(wheel["url"].rsplit("/", 1)[-1]))[3]
        rank = min((preferred[tag] for tag in tags if tag in preferred), default=None)
        if rank is not None:
            ranks[rank] = wheel["size"]
    return int(ranks[min(ranks)] if ranks else package.get("sdist", {}).get("size", 0))


def _by_pip(folder: Path, package: str, module: str) -> dict[str, Any]:
    started = time.perf_counter()
    _run(sys.executable, "-m", "venv", folder / "env")
    binaries = folder / "env" / _BINARIES
    empty = _megabytes(folder / "env")
    _run(binaries / "python", "-m", "pip", "install", "--quiet", "--no-cache-dir", package)
    if module:
        _run(binaries / "python", "-c", f"import {module}")
    else:
        _run(binaries / "rooftrace", "demo", "-o", folder / "out")
    seconds = time.perf_counter() - started
    found = list((folder / "env").rglob("*.dist-info"))
    megabytes = _megabytes(folder / "env") - empty
    # pip and, in older Pythons, setuptools are there before.
    return {
        "seconds": rounded(seconds),
        "megabytes": rounded(megabytes),
        "packages": sum(not one.name.startswith(("pip-", "setuptools-")) for one in found),
    }


def _by_uvx(folder: Path, package: str) -> dict[str, Any]:
    environment = {"UV_CACHE_DIR": str(folder / "cache")}
    seconds = _run(
        "uvx", "--from", package, "rooftrace", "demo", "-o", folder / "out", **environment
    )
    return {"seconds": rounded(seconds), "megabytes": rounded(_megabytes(folder / "cache"))}


def _run(*command: object, **environment: str) -> float:
    """Run a command and return its seconds."""
    started = time.perf_counter()
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    subprocess.run(
        [str(part) for part in command], check=True, env=env | environment, stdout=sys.stderr
    )
    return time.perf_counter() - started


def _megabytes(folder: Path) -> float:
    files = (path.lstat() for path in folder.rglob("*") if not path.is_dir())
    # uv's cache holds files twice, by hard links.
    return sum({file.st_ino: file.st_size for file in files}.values()) / 1e6


def _ratios(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return seconds, megabytes and packages of ours as shares of each peer's."""
    ours = rows.get("pip", {})
    return {
        peer: {
            figure: rounded(ours[figure] / rows[peer][figure])
            for figure in ("seconds", "megabytes", "download_mb", "packages")
            if figure in ours and figure in rows[peer]
        }
        for peer in _PEERS
        if peer in rows
    }


if __name__ == "__main__":
    start(main)
