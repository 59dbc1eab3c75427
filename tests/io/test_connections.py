"""What goes out to an endpoint, and to whom: trusted servers only, through the proxy that is set, never elsewhere."""

from __future__ import annotations

import asyncio
import ssl
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import chat_server
from chat_server import ChatServer, always
from equal.core.chat import Reply, Request
from equal.errors import EndpointError
from equal.io.chat_client import ClientFactory
from equal.io.endpoint import check_endpoint

KEY = "sk-for-one-host"


def ask(url: str) -> Reply:
    (reply,) = ask_of([url], 1)
    return reply


def ask_of(urls: list[str], num_requests: int) -> list[Reply]:
    async def at_once() -> list[Reply]:
        async with ClientFactory(dict.fromkeys(urls, 1.0), KEY, num_requests, 2.0, 1, 1.0, 0.0)() as client:
            request = Request(({"role": "user", "content": "Tin"},), "m", {})
            return await asyncio.gather(*[client.ask(request) for _ in range(num_requests)])

    return asyncio.run(at_once())


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody vouches for, and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


def test_a_certificate_that_the_system_does_not_trust_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(tmp_path)
    with ChatServer(key=KEY) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server._http.socket = context.wrap_socket(server._http.socket, server_side=True)
        url = server.url.replace("http:", "https:")
        assert "Certificate" in ask(url).error
        with pytest.raises(EndpointError, match="Certificate"):
            check_endpoint(server.endpoint(url=url), KEY)
        assert not server.bodies


def test_an_answer_that_cannot_be_unpacked_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(chat_server._ANSWERS, "html", (200, {"Content-Encoding": "gzip"}, "this is not gzip"))
    with ChatServer() as server:
        server.fault = always("html")
        assert ask(server.url).failure == "failed"


def test_nothing_follows_a_redirection(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer() as server, ChatServer() as other:
        monkeypatch.setitem(chat_server._ANSWERS, "html", (307, {"Location": f"{other.url}/chat/completions"}, ""))
        server.fault = always("html")
        assert "HTTP 307" in ask(server.url).error
        assert not other.bodies


def test_the_proxy_of_the_environment_is_used_but_where_it_is_excepted(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(key=KEY) as proxy, ChatServer() as direct:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert not ask("http://model.invalid/v1").failure
        assert check_endpoint(direct.endpoint(url="http://model.invalid/v1"), KEY) == 4096
        assert not ask(direct.url).failure
        assert (len(proxy.bodies), len(direct.bodies)) == (1, 1)


@pytest.mark.parametrize("direct_first", [True, False])
def test_of_two_servers_each_is_reached_its_own_way(monkeypatch: pytest.MonkeyPatch, direct_first: bool) -> None:
    with ChatServer(key=KEY) as proxy, ChatServer(key=KEY) as direct:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        urls = [direct.url, "http://model.invalid/v1"]
        replies = ask_of(urls if direct_first else urls[::-1], 4)
        assert [reply.error for reply in replies] == [""] * 4
        assert (len(proxy.bodies), len(direct.bodies)) == (2, 2)
