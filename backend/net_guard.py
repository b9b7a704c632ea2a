"""HTTP that never reaches a private address by accident, and never leaks a token.

Every connection resolves its host once, checks each address, and connects to the very address
that was checked, so that a name cannot change its mind between check and use. Redirects are
followed by hand: each hop is checked again, and credentials go to the trusted origin only.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError
from urllib3.poolmanager import PoolManager

from .faults import FetchFailed, FetchRefused, Unreachable

MAX_REDIRECTS = 5
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_DOCUMENTATION = ipaddress.ip_network("3fff::/20")
_PORTS = {"http": 80, "https": 443}
Credentials = Callable[[], Mapping[str, str]]


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port: what a token belongs to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Raises FetchRefused for a URL that is not plain http(s) with a host."""
        try:
            parts: SplitResult = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise FetchRefused(f"The address {shown(url)} cannot be read: {error}.") from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise FetchRefused(
                f"The address {shown(url)} is refused; only http:// and https:// are fetched."
            )
        if parts.username or parts.password:
            raise FetchRefused(
                f"The address {shown(url)} holds a user name; credentials in URLs are refused."
            )
        return cls(parts.scheme, parts.hostname.lower(), port or _PORTS[parts.scheme])

    def __str__(self) -> str:
        usual = _PORTS[self.scheme] == self.port
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if usual else f":{self.port}")


def shown(url: str) -> str:
    """A URL as it may be logged: no query (signatures), no user part, not long."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return repr(url[:40])
    text = f"{parts.scheme}://{host}{port}{parts.path}" if parts.scheme else parts.path
    return repr(text if len(text) <= 200 else text[:197] + "...")


def is_public(address: str) -> bool:
    """True for an address of the open internet; IPv4 hidden in IPv6 is looked through."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
        if ip not in _GLOBAL_UNICAST or ip in _DOCUMENTATION:
            return False  # such as ::127.0.0.1, fec0::1, 64:ff9b:1::1: is_global knows some only
    return ip.is_global and not ip.is_multicast


class GuardedSession:
    """requests, with the guards above.

    trusted: the one origin that may be private and that gets `credentials()` as headers.
    allow_private: private addresses are fetched wherever they are named.
    """

    def __init__(
        self,
        trusted: Origin | None = None,
        credentials: Credentials | None = None,
        *,
        allow_private: bool = False,
        timeout: float = 30.0,
    ) -> None:
        self.trusted = trusted
        self._credentials = credentials
        self._timeout = (10.0, timeout)
        self._session = requests.Session()
        # no proxies, no ~/.netrc: a proxy would resolve names behind the guard's back
        self._session.trust_env = False
        # no cookies: they follow a host to every port of it, and a session cookie is a credential
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = _GuardedAdapter(trusted, allow_private)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def close(self) -> None:
        self._session.close()

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> requests.Response:
        """A streaming response, redirects followed; the caller closes it.

        Raises FetchRefused where a guard says no, FetchFailed where the network does.
        """
        for _ in range(MAX_REDIRECTS + 1):
            response = self.send("GET", url, headers=headers, stream=True)
            if not response.is_redirect:
                return response
            target = urljoin(url, response.headers.get("location", ""))
            response.close()
            if url.startswith("https://") and target.startswith("http://"):
                raise FetchRefused(
                    f"{shown(url)} redirects from https to http ({shown(target)}); refused."
                )
            url = target
        raise FetchFailed(f"{shown(url)} redirects more than {MAX_REDIRECTS} times.")

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        authorize: bool = True,
        json: Any = None,
        params: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """One request, redirects not followed."""
        origin = Origin.of(url)
        sent = dict(headers or {})
        if authorize and self._credentials is not None and origin == self.trusted:
            sent.update(self._credentials())
        try:
            return self._session.request(
                method,
                url,
                headers=sent,
                stream=stream,
                json=json,
                params=params,
                timeout=self._timeout,
                allow_redirects=False,
            )
        except requests.exceptions.RequestException as error:
            refused = _refusal(error)
            if refused is not None:
                raise refused from None
            raise Unreachable(f"{shown(url)} cannot be reached: {_reason(error)}.") from None
        except (ValueError, UnicodeError) as error:  # urllib3 on odd host names and ports
            raise FetchRefused(f"The address {shown(url)} cannot be used: {error}.") from None


class _Refused(OSError):
    """Carries a FetchRefused through urllib3."""


def _refusal(error: BaseException) -> FetchRefused | None:
    seen: set[int] = set()
    queue: list[BaseException] = [error]
    while queue:
        e = queue.pop()
        if id(e) in seen:
            continue
        seen.add(id(e))
        if isinstance(e, _Refused):
            return FetchRefused(str(e))
        queue += [a for a in (*e.args, e.__cause__, e.__context__) if isinstance(a, BaseException)]
        reason = getattr(e, "reason", None)
        if isinstance(reason, BaseException):
            queue.append(reason)
    return None


def _reason(error: requests.exceptions.RequestException) -> str:
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "the TLS certificate is not valid"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "no connection (is the address right and the server running?)"
    return type(error).__name__


class _Guard:
    def __init__(self, trusted: Origin | None, allow_private: bool) -> None:
        self._trusted = trusted
        self._allow_private = allow_private

    def connect(self, connection: HTTPConnection, scheme: str) -> socket.socket:
        host, port = connection.host.strip("[]").lower(), int(connection.port or _PORTS[scheme])
        free = self._allow_private or Origin(scheme, host, port) == self._trusted
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise NewConnectionError(connection, f"{host} has no address") from None
        last: OSError | None = None
        for family, kind, protocol, _, address in found:
            if not free and not is_public(str(address[0])):
                raise _Refused(
                    f"{host} resolves to {address[0]}, a private or reserved address, which is not "
                    "fetched; if it is meant, set EDGETAM_LABEL_ALLOW_PRIVATE_NETWORKS=true or "
                    "make it the Label Studio URL."
                )
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(_seconds(connection.timeout))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.connect(address)
                return sock
            except OSError as error:
                sock.close()
                last = error
        raise NewConnectionError(connection, f"no connection to {host}: {last}")


def _seconds(timeout: Any) -> float | None:
    return float(timeout) if isinstance(timeout, (int, float)) else None


class _GuardedAdapter(HTTPAdapter):
    """Hands urllib3 connection classes whose sockets come from the guard."""

    def __init__(self, trusted: Origin | None, allow_private: bool) -> None:
        self._guard = _Guard(trusted, allow_private)
        super().__init__(pool_maxsize=32)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        guard = self._guard

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return guard.connect(self, "http")

        class Secure(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return guard.connect(self, "https")

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
