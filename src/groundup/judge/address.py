"""Addresses of servers, and whether a proxy stands before them."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from groundup.errors import UserError


def split_address(url: str, expected: str, *, needs_host: bool = True) -> SplitResult:
    """The parts of a server's address, which the clients take without an error of their own.

    Args:
        url: the address.
        expected: what an address looks like, for the message.
        needs_host: whether one without a host is none.

    Raises:
        UserError: it is no address; the message holds no password.
    """
    import httpx

    why = ""
    try:
        parts = urlsplit(url)
        _ = parts.port  # only whoever asks for it learns that it is none
        httpx.URL(url)  # refuses control characters, and names that cannot be a host's
        if parts.scheme in ("http", "https") and (parts.hostname or not needs_host):
            return parts
    except (ValueError, httpx.InvalidURL) as error:
        why = f" ({error})" if "@" not in url else ""  # what it names may be of the password
    shown = re.sub(r"(//)?.*@", r"\1", url, count=1, flags=re.DOTALL)
    raise UserError(f"{shown!r} is no address of a server{why}; expected {expected}")


def credentials(parts: SplitResult) -> tuple[str, str] | None:
    """The user name and the password of an address, which only requests may hold."""
    if parts.username is None and parts.password is None:
        return None
    return unquote(parts.username or ""), unquote(parts.password or "")


def without_credentials(parts: SplitResult) -> str:
    """An address as it may be shown and stored."""
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def is_local(url: str) -> bool:
    """Whether the server is this machine, which no proxy can reach for us."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_hint(url: str) -> str:
    """``"; requests to it go through the proxy …"``, if they do."""
    host = urlsplit(url).hostname or ""
    proxies = getproxies()
    proxy = proxies.get(urlsplit(url).scheme) or proxies.get("all")
    if not proxy or is_local(url) or proxy_bypass(host):
        return ""
    # Only the proxy's host: its address may hold a password.
    return (
        f"; requests to it go through the proxy {urlsplit(proxy).hostname or proxy}, which the "
        f"environment names (HTTP_PROXY); NO_PROXY={host} lets them pass it by"
    )
