"""The REST API of a service; `create_api` returns the app."""

from rooftrace.rest.api import create_api, serving
from rooftrace.rest.security import LOOPBACK, Security

__all__ = ["LOOPBACK", "Security", "create_api", "serving"]
