"""Drop a file on an element of a page, as a person does with the mouse."""

from base64 import b64encode
from pathlib import Path
from typing import Any

_SCRIPT = """([place, name, data]) => {
  const transfer = new DataTransfer();
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  transfer.items.add(new File([bytes], name));
  const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
  for (const kind of ["dragover", "drop"]) {
    document.querySelector(place).dispatchEvent(new DragEvent(kind, options));
  }
}"""


def drop_file(page: Any, place: str, path: Path) -> None:
    """Drop a file on the first element of a CSS selector."""
    page.evaluate(_SCRIPT, [place, path.name, b64encode(path.read_bytes()).decode()])
