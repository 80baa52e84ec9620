"""A torchvision built for another torch can be imported; other faults are reported."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

pytestmark = pytest.mark.campaign

BROKEN = """
import torch
if not hasattr(torch.ops.torchvision, "nms"):
    raise RuntimeError("operator torchvision::nms does not exist")
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: None)
from torchvision import ops
"""


def run(code: str, *, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    before = f"import sys; sys.path.insert(0, {str(path)!r});" if path else ""
    return subprocess.run(
        [sys.executable, "-c", before + code], capture_output=True, text=True, check=False
    )


def stub(folder: Path, code: str) -> Path:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(code)
    (package / "ops.py").write_text("BOXES = 4")
    return folder


def test_the_operators_that_are_missing_are_declared(tmp_path: Path) -> None:
    code = (
        "import rooftrace.models._torch; import torchvision, torch; "
        "print(torchvision.ops.BOXES, torch.ops.torchvision.qnms.default)"
    )
    done = run(code, path=stub(tmp_path, BROKEN))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4", "torchvision.qnms.default"]


@pytest.mark.parametrize("package", ["torch", "torchvision"])
def test_what_is_not_installed_is_named(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from rooftrace.core.errors import MissingExtraError\n"
        "try:\n    import rooftrace.models._torch\n"
        "except MissingExtraError as error:\n    print(error.exit_code, error)\n"
    )
    done = run(code)
    assert done.stdout.startswith("6 "), done.stderr
    assert repr(package) in done.stdout
    assert "rooftrace[train]" in done.stdout
