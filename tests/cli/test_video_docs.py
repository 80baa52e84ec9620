"""Every example of docs/video.md runs: it needs a video, which the other pages do not."""

import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("av")

from command_line import call
from rooftrace.io import video as video_io
from video_files import read_frames, town, write_video

pytestmark = pytest.mark.campaign

PAGE = Path(__file__).parents[2] / "docs" / "video.md"


def blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "flight.mp4", map(town, range(25)), sound="aac")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(video_io, "_device", lambda _: ("testsrc=size=64x48:rate=10", "lavfi"))


def test_commands() -> None:
    (block,) = blocks("console")
    made = []
    for line in block.splitlines():
        assert line.startswith("$ rooftrace video ")
        code, done = call(*shlex.split(line)[2:])
        assert code == 0, (line, done)
        made.append((done["frames"], done["asked"], len(read_frames(Path(done["path"])))))
    assert made == [(25, 25, 25), (25, 5, 25), (15, 15, 15), (10, 10, 10)]


def test_python(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("py")
    exec(compile(block, "docs/video.md", "exec"), {})
    assert capsys.readouterr().out.startswith("25 ")
