#!/usr/bin/env bash
# fAIr's cache of downloads knows the path of a URL and not its host or bucket.
#
# Guess before the run: two models under one path on two hosts (or in two buckets) are two files, so
# that resolve_path returns the content of each.
# Seen: the second call returns the file of the first, without a request. A step that fine-tunes
# https://two/weights/model.pt starts from https://one/weights/model.pt if the worker has seen it.
# Versions: fair-py-ops 0.3.19, universal-pathlib 0.3.10. Source: fair/utils/data.py, resolve_path:
# rel = urlparse(href).path.
# Hurt: who publishes weights under a usual name such as model.onnx, and who uses them. rooftrace
# export --to fair puts a hash into the names.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
pip="venv/bin/pip install --quiet --disable-pip-version-check"
# Without zenml and mlflow, which this function does not need.
$pip --no-deps fair-py-ops==0.3.19
$pip universal-pathlib==0.3.10 aiohttp==3.14.5 httpx==0.28.1 pystac==1.14.3
FAIR_CACHE_DIR="$folder/cache" venv/bin/python - <<'PYTHON'
from fair.utils.data import resolve_path
from upath import UPath

urls = [f"memory://{host}/weights/model.onnx" for host in ("one", "two")]
for url in urls:
    path = UPath(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(url.encode())
contents = [resolve_path(url).read_bytes().decode() for url in urls]
print(contents)
assert contents == [urls[0], urls[0]]
PYTHON
