"""Errors that no command has translated."""

import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from command_line import command
from rooftrace import cli
from rooftrace.core.errors import DEBUG


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (RuntimeError("the plugin broke"), 1, "This is a defect: rooftrace density failed"),
        (KeyError("a"), 1, "KeyError: 'a'"),
        (OSError("libx.so: wrong ELF class"), 1, "wrong ELF class"),
        (ImportError("libx.so: not found", name="cv2"), 6, "libx.so: not found"),
        (MemoryError(), 5, "There is not enough memory for rooftrace density."),
    ],
)
def test_what_nothing_has_translated_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, code: int, words: str
) -> None:
    monkeypatch.delenv(DEBUG)
    monkeypatch.setattr(cli, "app", Mock(side_effect=raised))
    done = command("density", "--json")
    assert (done.code, done.err) == (code, "")
    assert words in done.json["error"]["message"]
    plain = command("density")
    assert plain.code == code
    assert plain.out == ""
    assert words.split(":")[0] in " ".join(plain.err.split())


def test_a_defect_is_raised_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", Mock(side_effect=KeyError("a")))
    # conftest.py sets the variable, so that no test takes a defect for a refusal.
    with pytest.raises(KeyError):
        command("density", "--json")


def test_ctrl_c_that_a_library_made_an_error_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", Mock(side_effect=ImportError("KeyboardInterrupt")))
    monkeypatch.setattr(cli, "was_interrupted", lambda: True)
    done = command("predict", "--json")
    assert (done.code, done.err) == (130, "stopped; the same command continues\n")


_CTRL_C = "import signal; signal.raise_signal(signal.SIGINT)\n"
_FINALISER = "class Loader:\n    def __del__(self):\n        raise KeyboardInterrupt\nLoader()\n"


_STOPPED = (
    f"{_FINALISER}import signal, sys, time\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    "time.sleep(0.2)\nsys.exit('stopped')\n"
)


@pytest.mark.parametrize(
    ("library", "code"), [(_FINALISER, 0), (_CTRL_C, 0), (2 * _CTRL_C, 130), (_STOPPED, 1)]
)
def test_ctrl_c_waits_for_imports_and_finalisers(library: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text(library, encoding="utf-8")
    program = (
        "import sys, time\nfrom rooftrace.core import interrupt\ninterrupt.handle_interrupts()\n"
        "try:\n    import library\n    print('imported')\n    time.sleep(900)\n"
        "except KeyboardInterrupt:\n    print('stopped', file=sys.stderr)\n"
        "    type('HalfMade', (), {'__del__': lambda self: self.rest})()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    imported = "" if code else "imported\n"
    assert (done.returncode, done.stdout, done.stderr) == (code, imported, "stopped\n")
