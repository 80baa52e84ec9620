"""Settings of QGIS that other programs need: proxy, certificates, and the folder of the plugin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from qgis.core import QgsApplication, QgsAuthMethodConfig, QgsSettings
from qgis.PyQt.QtCore import QUrl
from qgis.PyQt.QtNetwork import QNetworkProxy, QNetworkProxyFactory, QNetworkProxyQuery


def plugin_folder() -> Path:
    """Return the folder of the plugin's environments in the profile of the user."""
    return Path(QgsApplication.qgisSettingsDirPath()) / "rooftrace"


def network_variables() -> dict[str, str]:
    """Return the proxy and the certificates of QGIS as variables that pip, uv and httpx read.

    Certificates are passed on only if the user has added authorities of his own; else each program
    keeps those that it trusts.
    """
    # Two names of one setting, of older and newer uv.
    variables = {"UV_NATIVE_TLS": "1", "UV_SYSTEM_CERTS": "1", **_proxy(QgsSettings())}
    manager = QgsApplication.authManager()
    if manager.databaseCAs() or manager.extraFileCAs():
        bundle = plugin_folder() / "certificates.pem"
        bundle.parent.mkdir(parents=True, exist_ok=True)
        bundle.write_bytes(bytes(manager.trustedCaCertsPemText()))
        names = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
        variables.update(dict.fromkeys(names, str(bundle)))
    return variables


def _proxy(settings: Any) -> Mapping[str, str]:
    def value(name: str) -> str:
        return str(settings.value(f"proxy/{name}", "") or "")

    if settings.value("proxy/proxyEnabled", False, type=bool):
        kind, host, port = value("proxyType"), value("proxyHost"), value("proxyPort")
        user, password = value("proxyUser"), value("proxyPassword")
        if value("authcfg"):
            login = QgsAuthMethodConfig()
            QgsApplication.authManager().loadAuthenticationConfig(value("authcfg"), login, True)
            user, password = login.config("username"), login.config("password")
    else:
        kind, host = "DefaultProxy", ""
    if kind == "DefaultProxy":
        query = QNetworkProxyQuery(QUrl("https://pypi.org/simple/"))
        system = QNetworkProxyFactory.systemProxyForQuery(query)[0]
        socks = system.type() == QNetworkProxy.ProxyType.Socks5Proxy
        kind = "Socks5Proxy" if socks else "HttpProxy"
        host, port = system.hostName(), str(system.port())
        user, password = system.user(), system.password()
    if not host:
        return {}
    login_text = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    scheme = "socks5" if kind == "Socks5Proxy" else "http"
    url = f"{scheme}://{login_text}{host}{f':{port}' if port.strip('0') else ''}"
    excluded = settings.value("proxy/noProxyUrls", []) or []
    excluded = excluded if isinstance(excluded, list) else str(excluded).split("|")
    hosts = ["localhost", "127.0.0.1", *(urlsplit(one).hostname or one for one in excluded)]
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")
    return {**dict.fromkeys(names, url), "NO_PROXY": ",".join(hosts), "no_proxy": ",".join(hosts)}
