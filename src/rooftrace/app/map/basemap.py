"""The basemap of the map: tiles of another server, which only the operator can choose."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rooftrace.core.errors import ConfigError

__all__ = ["Basemap"]

_ADDRESS = re.compile(r"(?P<origin>https?://[A-Za-z0-9.\-\[\]:]+)/[!#-~]*")


@dataclass(frozen=True)
class Basemap:
    """Raster tiles in Web Mercator under the scenes of the map. Browsers fetch them.

    Args:
        address: Address of a tile with `{z}`, `{x}` and `{y}`.
        credit: Attribution that the source asks for.

    Raises:
        ConfigError: The address is no such address.
    """

    address: str
    credit: str = ""

    def __post_init__(self) -> None:
        missing = [part for part in ("{z}", "{x}", "{y}") if part not in self.address]
        # A host with a placeholder could not be named in the policy of the page.
        if missing or not _ADDRESS.fullmatch(self.address) or ";" in self.address:
            raise ConfigError(
                f"--basemap received {self.address!r}; expected the address of tiles, with {{z}}, "
                "{x} and {y} in its path.",
                remedy="Give an address such as https://tiles.example.org/{z}/{x}/{y}.png",
            )

    @property
    def origin(self) -> str:
        """Scheme and host, the only place besides its own server that the page may ask."""
        found = _ADDRESS.fullmatch(self.address)
        assert found is not None
        return found["origin"]
