"""Build the zip of the QGIS plugin.

    python tools/qgis_plugin.py     # dist/rooftrace_plugin-VERSION.zip
    python tools/qgis_plugin.py --repository URL --tracker URL --email ADDRESS

QGIS installs the zip (Plugins > Manage and Install Plugins > Install from ZIP). plugins.qgis.org
also requires the addresses of the repository and the tracker, and an e-mail address; the options
write them into the metadata of the zip.
"""

from __future__ import annotations

import argparse
import zipfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "qgis" / "rooftrace_plugin"
_KINDS = (".py", ".qml", ".svg", ".txt")
_DATE = (1980, 1, 1, 0, 0, 0)
"""Date of the files in the zip, so that the same plugin gives the same bytes."""


def build_zip(out: Path, extra: dict[str, str]) -> Path:
    """Write the zip of the plugin and return its path.

    Args:
        out: Folder of the zip.
        extra: Keys to add to metadata.txt, such as `tracker`.
    """
    metadata = (PLUGIN / "metadata.txt").read_text(encoding="utf-8")
    parser = ConfigParser(interpolation=None)
    parser.read_string(metadata)
    metadata += "".join(f"{key}={value}\n" for key, value in extra.items())
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{PLUGIN.name}-{parser['general']['version']}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(PLUGIN.rglob("*")):
            if path.suffix not in _KINDS and path.name != "LICENSE":
                continue
            content = metadata.encode() if path.name == "metadata.txt" else path.read_bytes()
            name = path.relative_to(PLUGIN.parent).as_posix()
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content)
    return target


def main() -> None:
    """Parse the options and build the zip."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the zip")
    for key in ("repository", "tracker", "homepage", "email"):
        parser.add_argument(f"--{key}", help=f"{key} for plugins.qgis.org")
    given = vars(parser.parse_args())
    out = given.pop("out")
    print(build_zip(out, {key: value for key, value in given.items() if value}))


if __name__ == "__main__":
    main()
