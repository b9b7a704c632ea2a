"""Our own door: HTTP basic and bearer credentials, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from dataclasses import dataclass

from edgetam_label.errors import ConfigError

OPEN_PATHS = frozenset({"/health"})


@dataclass(frozen=True)
class Door:
    """What a request must show. With nothing configured, the door is open.

    Label Studio can send basic credentials to a backend, and custom headers with a webhook.
    """

    user: str | None = None
    password: str | None = None
    bearer: str | None = None

    @property
    def closed(self) -> bool:
        return (self.user is not None and self.password is not None) or self.bearer is not None

    def admits(self, path: str, authorization: str | None) -> bool:
        """authorization: the header as it came."""
        if not self.closed or path in OPEN_PATHS:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        basic, bearer = False, False
        # both comparisons always run on something, so that timing tells neither kind nor length
        if self.user is not None and self.password is not None:
            want = f"{self.user}:{self.password}".encode()
            basic = hmac.compare_digest(_digest(want), _digest(_decoded(scheme, given)))
        if self.bearer is not None:
            shown = given.encode("utf-8", "replace") if scheme.lower() == "bearer" else b""
            bearer = hmac.compare_digest(_digest(self.bearer.encode()), _digest(shown))
        return basic or bearer


def _decoded(scheme: str, given: str) -> bytes:
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(given.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _digest(value: bytes) -> bytes:
    """Equal length for the comparison."""
    return hmac.digest(b"edgetam-label door", value, "sha256")


def check_bind(host: str, *, closed: bool, insecure: bool) -> None:
    """Raises ConfigError before listening on a public address with an open door."""
    if closed or insecure or is_loopback(host):
        return
    raise ConfigError(
        f"--host {host} can be reached from other machines, and no credentials are asked for; set "
        "EDGETAM_LABEL_BASIC_AUTH_USER and EDGETAM_LABEL_BASIC_AUTH_PASSWORD (or "
        "EDGETAM_LABEL_BEARER_TOKEN), or pass --insecure-public if the network is closed."
    )


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
