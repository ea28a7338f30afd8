"""What SECURITY.md promises and no test of a single module shows: TLS, credentials, old faults.

The table of published vulnerabilities in SECURITY.md names a test for each; that these tests
exist is tested here, too.
"""

from __future__ import annotations

import ast
import contextlib
import datetime
import hmac
import logging
import re
import socket
import ssl
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import gevent
import pytest
import trustme

from faye_wsgi import Channels, Client, EventSourceClient, HandshakeError, PublishError, WebSocket
from faye_wsgi.delivery import signing
from faye_wsgi.driver.hybi import Hybi
from faye_wsgi.http.headers import split_list
from faye_wsgi.wsgi import environ as environs

from .support import frames
from .test_docs import ROOT
from .test_websocket import Exchange, exchange, make_environ

__all__ = ["exchange"]

TIMEOUT = 10.0
SECRET = "hunter2"


# TLS: a certificate that is not the server's stops every client before it has said a word


class Impostor:
    """A TLS server in a thread of its own, which keeps what clients tell it."""

    def __init__(self, cert: str, key: str) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.heard = b""
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # of the listener: the end
            while True:
                sock, _ = self.listener.accept()
                sock.settimeout(TIMEOUT)
                with sock, contextlib.suppress(OSError):
                    with self.context.wrap_socket(sock, server_side=True) as tls:
                        self.heard += tls.recv(4096)
                        tls.sendall(b"-NOPERM go away\r\n")  # no HTTP, and final for Redis

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def authorities() -> tuple[trustme.CA, trustme.CA]:
    """One that the clients trust, and another one."""
    return trustme.CA(), trustme.CA()


FAULTS = ["none", "expired", "another_host", "another_authority", "self_signed"]


@pytest.fixture(params=FAULTS)
def impostor(
    request: pytest.FixtureRequest, authorities: tuple[trustme.CA, trustme.CA], tmp_path: Path
) -> Iterator[tuple[str, Impostor, str]]:
    trusted, other = authorities
    past = datetime.datetime(2001, 1, 1)
    leaf: Any = {
        "none": lambda: trusted.issue_cert("127.0.0.1"),
        "expired": lambda: trusted.issue_cert("127.0.0.1", not_after=past),
        "another_host": lambda: trusted.issue_cert("127.0.0.2", "example.com"),
        "another_authority": lambda: other.issue_cert("127.0.0.1"),
        "self_signed": lambda: other,
    }[request.param]()
    cert, key, ca = (str(tmp_path / name) for name in ("cert.pem", "key.pem", "ca.pem"))
    trusted.cert_pem.write_to_path(ca)
    if request.param == "self_signed":
        other.cert_pem.write_to_path(cert)
        other.private_key_pem.write_to_path(key)
    else:
        leaf.private_key_pem.write_to_path(key)
        for index, blob in enumerate(leaf.cert_chain_pems):
            blob.write_to_path(cert, append=index > 0)
    server = Impostor(cert, key)
    yield request.param, server, ca
    server.close()


def by_websocket(port: int, ca: str) -> None:
    with Client(f"wss://u:{SECRET}@127.0.0.1:{port}/", ca=ca, open_timeout=TIMEOUT) as ws:
        ws.wait_open()


def by_event_stream(port: int, ca: str) -> None:
    url = f"https://u:{SECRET}@127.0.0.1:{port}/"
    with EventSourceClient(url, ca=ca, reconnect=False, open_timeout=TIMEOUT) as es:
        es.receive(TIMEOUT)


def by_redis(port: int, ca: str) -> None:
    pytest.importorskip("redis")
    Channels(f"rediss://u:{SECRET}@127.0.0.1:{port}/0?ssl_ca_certs={ca}", timeout=TIMEOUT).publish(
        "a", 1
    )


@pytest.mark.parametrize("call", [by_websocket, by_event_stream, by_redis])
def test_a_certificate_that_is_not_the_servers(
    impostor: tuple[str, Impostor, str], call: Callable[[int, str], None]
) -> None:
    fault, server, ca = impostor
    with pytest.raises((HandshakeError, PublishError)) as caught:
        call(server.port, ca)
    said = "".join(traceback.format_exception(caught.type, caught.value, caught.tb))
    assert SECRET not in said
    if fault == "none":
        assert server.heard  # a client that trusts it talks to it
    else:
        assert not server.heard
        assert "certificate" in str(caught.value)


# Credentials of a broker's URL, also of one that cannot be read

BROKERS = [
    f"redis://u:{SECRET}@127.0.0.1:1/0",
    f"redis://u:{SECRET}/x@127.0.0.1:1/0",  # a / that is not encoded ends the host
    f"redis://u:{SECRET}#x@127.0.0.1:1/0",
    f"redis://u:x/{SECRET}@127.0.0.1:1/0",
    f"redis://u:{SECRET}@127.0.0.1:port/0",
    f"redis://u:{SECRET}@127.0.0.1:99999/0",
    f"redis://u:{SECRET}@127.0.0.1:1/0?no_such_option={SECRET}",
    f"redis://u:{SECRET}@[::1",
    f"redis://127.0.0.1:1/0?password={SECRET}",
    f"rediss://u:{SECRET}@127.0.0.1:1/0",
    f"unix:///nowhere/redis.sock?password={SECRET}",
    f"redis+sentinel://u:{SECRET}@127.0.0.1:1/service",
    f"redis+sentinel://u:{SECRET}@127.0.0.1:1",
    f"redis+sentinel://u:{SECRET}/x@127.0.0.1:1/service",
    f"redis+sentinel://127.0.0.1:1/service?sentinel_password={SECRET}",
    f"redis+cluster://u:{SECRET}@127.0.0.1:1",
    f"redis+cluster://u:{SECRET}/x@127.0.0.1:1",
    f"u:{SECRET}@127.0.0.1",
    f"postgrez://u:{SECRET}@127.0.0.1",
]


@pytest.mark.parametrize("url", BROKERS, ids=lambda url: url.replace(SECRET, "…"))
def test_no_password_of_a_broker_is_shown(url: str, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("redis")
    with caplog.at_level(logging.DEBUG):
        with pytest.raises((ValueError, PublishError)) as caught:
            channels = Channels(url, timeout=0.1)
            assert SECRET not in f"{channels!r} {channels}"
            channels.publish("a", 1)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error!r} {error}"
        error = None if error.__suppress_context__ else error.__cause__ or error.__context__
    assert SECRET not in caplog.text


# Faults that others have had: SECURITY.md has the table


def test_a_list_of_subprotocols_is_read_in_one_pass() -> None:
    """CVE-2021-32640: a megabyte of blanks would take hours if it were quadratic."""
    assert split_list("b" + " " * 1_000_000 + "x") != []
    assert split_list(" ," * 500_000) == []


def test_a_handshake_with_thousands_of_headers(exchange: Callable[..., Exchange]) -> None:
    """CVE-2024-37890: the server decides how many there may be; none is lost, or raises."""
    many = {f"HTTP_X_{number}": "x" for number in range(5000)}
    ws = exchange(**many).accept()
    assert ws.ready_state == ws.OPEN
    refused = WebSocket(make_environ(object(), **{**many, "HTTP_SEC_WEBSOCKET_KEY": "short"}))
    assert refused.response.status_code == 400


def test_what_is_kept_of_them_is_bounded() -> None:
    many = {f"HTTP_X_{number}": "x" * 100 for number in range(5000)}
    assert len(str(environs.text_of(many))) < 2 * environs.MAX_KEPT


def test_pongs_that_nothing_asked_for_leave_nothing() -> None:
    """CVE-2021-3690: each leaked a buffer."""
    driver = Hybi()
    pong = frames.frame(frames.PONG, b"x" * 125)
    for _ in range(1000):
        assert len(driver.receive_data(pong)) == 1
        assert not driver.output() and not driver.expected


def test_an_answer_of_redis_goes_to_no_other_caller() -> None:
    """CVE-2023-28858, CVE-2023-28859: a cancelled call left its answer for the next one."""
    pytest.importorskip("redis")
    from faye_wsgi.brokers.redis_link import Link

    class Connection:
        """One that is in the middle of a reply when the greenlet is killed."""

        is_open = True

        def pack_commands(self, commands: Any) -> Any:
            return commands

        def send_packed_command(self, packed: Any, check_health: bool) -> None:
            pass

        def can_read(self, timeout: float) -> bool:
            raise gevent.GreenletExit

        def disconnect(self) -> None:
            self.is_open = False

    connection = Connection()
    link = Link(connection, 1.0)
    with pytest.raises(gevent.GreenletExit):
        link.call([("GET", "a")], TIMEOUT)
    assert link.is_closed and not connection.is_open


def test_nothing_that_arrives_is_unpickled_or_run() -> None:
    """CVE-2025-61765: messages between workers were pickles."""
    dangerous = {"pickle", "marshal", "shelve", "yaml", "dill", "subprocess"}
    for path in (ROOT / "faye_wsgi").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert dangerous.isdisjoint(alias.name for alias in node.names), path
            elif isinstance(node, ast.ImportFrom):
                assert node.module not in dangerous, path
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2021-33880: passwords were compared by ``==``."""
    compared: list[Any] = []
    compare_digest = hmac.compare_digest

    def compare(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return compare_digest(one, other)

    monkeypatch.setattr(signing.hmac, "compare_digest", compare)
    channels = Channels(secret="a long random text")
    signed = channels.sign("a")
    with pytest.raises(ValueError):
        channels.verify(signed[:-1] + ("x" if signed[-1] != "x" else "y"))
    assert len(compared) == 1


TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
IDENTIFIER = re.compile(r"CVE-20(2[0-9])-\d{4,6}")


def rows() -> list[str]:
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    chapter = text.split("\n## What others have had\n")[1].split("\n## ")[0]
    return [line for line in chapter.splitlines() if line.startswith("|")][2:]


def test_each_published_fault_has_a_test_that_exists() -> None:
    found = rows()
    assert len(found) > 20
    for row in found:
        assert IDENTIFIER.search(row), f"no identifier: {row}"
        tests = TEST.findall(row)
        assert tests, f"no test: {row}"
        for file, name in tests:
            source = (ROOT / file).read_text("utf-8")
            assert f"def {name}(" in source, f"{file} has no {name}"


def test_no_published_fault_is_there_twice() -> None:
    found = [match[0] for row in rows() for match in IDENTIFIER.finditer(row)]
    assert len(found) == len(set(found))
