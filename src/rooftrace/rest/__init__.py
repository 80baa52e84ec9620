"""The REST API; `create_api` puts it together."""

from rooftrace.rest.api import create_api, serving
from rooftrace.rest.security import LOOPBACK, Security

__all__ = ["LOOPBACK", "Security", "create_api", "serving"]
