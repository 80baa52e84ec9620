"""Options for the tiles of map services."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rooftrace.cli.options import option

if TYPE_CHECKING:
    from rooftrace.io.service_raster import ServiceOptions

SERVICES = "Map services"
"""Title of the group of these options in a command's help."""


@dataclass(frozen=True)
class ServiceGroup:
    """Options for the tiles of map services."""

    layer: Annotated[
        str | None,
        option(
            SERVICES, rare=True, metavar="NAME",
            help="Layer of a WMTS or WMS; not needed if there is only one.",
        ),
    ] = None  # fmt: skip
    max_tiles: Annotated[
        int,
        option(
            SERVICES, rare=True, min=1, metavar="N", help="Maximum number of tiles of the area."
        ),
    ] = 20_000  # fmt: skip
    count_tiles: Annotated[
        bool,
        option(
            SERVICES, "--count-tiles",
            help="Print how many tiles and requests are needed, and stop before the prediction.",
        ),
    ] = False  # fmt: skip
    connections: Annotated[
        int,
        option(
            SERVICES, rare=True, min=1, max=64, metavar="N",
            help="Maximum number of requests at the same time.",
        ),
    ] = 4  # fmt: skip
    per_second: Annotated[
        float,
        option(
            SERVICES, rare=True, min=0.01, max=1000, metavar="N",
            help="Maximum number of requests per second.",
        ),
    ] = 10.0  # fmt: skip
    user_agent: Annotated[
        str | None,
        option(
            SERVICES, rare=True, metavar="TEXT",
            help="Name and contact under which the service sees the requests; default: rooftrace "
            "and its version.",
        ),
    ] = None  # fmt: skip
    tile_cache: Annotated[
        Path | None,
        option(
            SERVICES, rare=True, metavar="FOLDER",
            help="Folder in which tiles are kept; default: a folder in the user's cache.",
        ),
    ] = None  # fmt: skip

    def parsed(self, gsd_m: float | None) -> ServiceOptions:
        """Return the options.

        Args:
            gsd_m: Metres per pixel of the model, from which the zoom is chosen.
        """
        from rooftrace.io.service_raster import ServiceOptions
        from rooftrace.io.tile_requests import RequestOptions

        requests = RequestOptions(
            connections=self.connections, per_second=self.per_second,
            user_agent=self.user_agent or "", cache=self.tile_cache,
        )  # fmt: skip
        return ServiceOptions(gsd_m, self.layer, self.max_tiles, requests)
