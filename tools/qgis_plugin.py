"""Build the zip of the QGIS plugin.

    python tools/qgis_plugin.py     # dist/rooftrace_plugin-VERSION.zip
    python tools/qgis_plugin.py --repository URL --tracker URL --homepage URL --email NAME@HOST

QGIS installs the zip (Plugins > Manage and Install Plugins > Install from ZIP). plugins.qgis.org
also requires the URLs of the repository, the tracker and a home page, and an e-mail address; the
options write them into the metadata of the zip.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from configparser import ConfigParser
from pathlib import Path

import markdown

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
    contents = {
        path.relative_to(PLUGIN).as_posix(): path.read_bytes()
        for path in PLUGIN.rglob("*")
        if path.suffix in _KINDS or path.name == "LICENSE"
    }
    contents |= {"metadata.txt": metadata.encode(), "help.html": help_page().encode()}
    target = out / f"{PLUGIN.name}-{parser['general']['version']}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(contents.items()):
            entry = zipfile.ZipInfo(f"{PLUGIN.name}/{name}", _DATE)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content)
    return target


def help_page() -> str:
    """Return docs/qgis.md as one HTML page, without pictures and links to other pages."""
    text = (ROOT / "docs" / "qgis.md").read_text(encoding="utf-8")
    text = re.sub(r"!\[[^]]*\]\([^)]*\)\n", "", text)
    text = re.sub(r"\[([^]]*)\]\((?!http)[^)]*\)", r"\1", text)
    body = markdown.markdown(text, extensions=["tables", "fenced_code"])
    return f"<!DOCTYPE html>\n<meta charset='utf-8'>\n<title>Rooftrace</title>\n{body}\n"


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
