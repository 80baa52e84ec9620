"""Errors that no command has translated."""

from __future__ import annotations

import subprocess
import sys

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
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.delenv(DEBUG)
    monkeypatch.setattr(cli, "app", fail)
    done = command("density", "--json")
    assert (done.code, done.err) == (code, "")
    assert words in done.json["error"]["message"]
    plain = command("density")
    assert plain.code == code
    assert plain.out == ""
    assert words.split(":")[0] in " ".join(plain.err.split())


def test_a_defect_is_raised_where_the_environment_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a")

    monkeypatch.setattr(cli, "app", fail)
    # conftest.py sets the variable, so that no test takes a defect for a refusal.
    with pytest.raises(KeyError):
        command("density", "--json")


def test_ctrl_c_that_a_finaliser_took_comes_again() -> None:
    program = (
        "import sys, time\nfrom rooftrace import __main__\n"
        "sys.unraisablehook = __main__._unraisable\n"
        "class Loader:\n    def __del__(self):\n        raise KeyboardInterrupt\n"
        "try:\n    Loader()\n    time.sleep(20)\nexcept KeyboardInterrupt:\n    print('stopped')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("stopped\n", "")
