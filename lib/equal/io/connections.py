"""HTTP as every request to an endpoint goes out: connections, the key, what is trusted, how much is read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

#: bytes of a response that are read; a reply of 4,000 tokens has about 30,000
MAX_BODY_BYTES = 4_000_000


def beside_api(url: str, name: str) -> str:
    """What a server has beside its API and not under it: `http://host/name` of `http://host/v1`."""
    return f"{url.rstrip('/').removesuffix('/v1')}/{name}"


def open_session(key: str) -> ClientSession:
    """Connections that are kept between requests, in the running event loop.

    Their number and the time that one may take are the caller's to bound. Certificates are checked against those that
    the system trusts.

    Args:
        key: sent with every request; "" sends none.
    """
    return ClientSession(
        connector=TCPConnector(limit=0),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=ClientTimeout(total=None),
    )


async def exchange(
    http: ClientSession, method: str, url: str, body: bytes | None = None
) -> tuple[int, Mapping[str, str], bytes | None]:
    """Status, headers in any case, and body of an answer; the body is None when it is larger than MAX_BODY_BYTES.

    A redirection is an answer: what follows it may be another host, which must not get the key.

    Raises:
        aiohttp.ClientError: there was no whole answer.
    """
    headers = {"Content-Type": "application/json"} if body else None
    parts = urlsplit(url)
    proxy = _proxy(http, parts.scheme, parts.hostname or "")
    try:
        async with http.request(
            method, url, data=body, headers=headers, proxy=proxy, allow_redirects=False
        ) as response:
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > MAX_BODY_BYTES:
                    return response.status, response.headers, None
            return response.status, response.headers, bytes(content)
    except ClientError:
        raise
    except OSError as error:  # as a connection that breaks while its answer is read
        raise ClientError(str(error)) from error


@lru_cache(maxsize=64)
def _proxy(_: ClientSession, scheme: str, host: str) -> str | None:
    """The proxy that the environment names for a host, looked up once a session.

    aiohttp's `trust_env` would look at every request, take no `all_proxy`, and send what a .netrc holds for the host.
    """
    if proxy_bypass(host):
        return None
    return getproxies().get(scheme) or getproxies().get("all")
