"""A connection to a Postgres server: real ones, and what their errors say."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed")

from faye_wsgi.brokers.base import Broker
from faye_wsgi.brokers.engines import connect
from faye_wsgi.brokers.postgres_link import (
    BYTEA,
    INT8,
    Address,
    Bell,
    Link,
    LinkError,
    explain,
    pack_array,
    pack_int,
    single_server,
    unpack_int,
    wait_for,
)
from faye_wsgi.errors import BrokerError, PublishError

from ..support.certs import Certificates
from ..support.postgres import PostgresServer, make_folder, owner
from ..support.redis import free_port
from .harness import arrived, payloads, publish, sent, subscribed

Start = Callable[..., PostgresServer]


def broker_of(url: str, **options: Any) -> Broker:
    [broker] = connect(url, **options)
    return broker


def link_of(server: PostgresServer) -> Link:
    deadline = soon()
    return single_server(server.url, size=1, timeout=10.0).pool(deadline).take(deadline)


def soon() -> float:
    return time.monotonic() + 10


# Values


def test_values_are_as_the_server_has_them(postgres_server: PostgresServer) -> None:
    link = link_of(postgres_server)
    numbers = [0, -1, 2**53, None]
    names = [b"", b"\0\\'\"{}", "ü".encode(), None]
    rows = link.call(
        "SELECT * FROM unnest($1::bigint[], $2::bytea[])",
        (
            pack_array([None if n is None else pack_int(n) for n in numbers], INT8),
            pack_array(names, BYTEA),
        ),
        soon(),
    )
    assert [None if number is None else unpack_int(number) for number, _ in rows] == numbers
    assert [name for _, name in rows] == names
    assert link.call("SELECT cardinality($1::bytea[])", (pack_array([], BYTEA),), soon()) == [
        [pack_int(0)[4:]]
    ]
    link.close()


def test_an_error_of_a_statement_leaves_the_connection_as_it_is(
    postgres_server: PostgresServer,
) -> None:
    link = link_of(postgres_server)
    with pytest.raises(LinkError, match="division by zero") as caught:
        link.call("SELECT 1 / $1::bigint", (pack_int(0),), soon())
    assert caught.value.code == "22012"
    assert link.is_idle()
    assert link.call("SELECT $1::bytea", (b"x",), soon()) == [[b"x"]]
    with pytest.raises(LinkError, match="does not exist"):
        link.call("SELECT 1; SELECT nonsense; SELECT 2", None, soon())
    big = b"x" * 5_000_000  # more than the sockets take at once
    assert link.call("SELECT $1::bytea", (big,), soon()) == [[big]]
    with pytest.raises(LinkError, match="does not answer"):
        link.call("SELECT pg_sleep(1)", (), time.monotonic() + 0.1)
    assert link.is_closed and not link.is_idle()
    with pytest.raises(LinkError, match="is closed"):
        link.call("SELECT 1", (), soon())


# The bell


def test_a_bell_rings_until_it_is_hushed() -> None:
    bell = Bell()
    watched = {bell.descriptor: 1}
    bell.hush()
    assert not wait_for(watched, 0)
    for _ in range(100_000):
        bell.ring()
    assert wait_for(watched, 10) == {bell.descriptor}
    bell.hush()
    assert not wait_for(watched, 0)
    bell.close()
    bell.close()
    bell.ring()
    bell.hush()


def test_a_bell_that_is_left_to_the_parent_rings_for_ever() -> None:
    bell = Bell()
    reader, writer = os.pipe()
    os.close(writer)
    bell.leave_to_parent(reader)
    os.close(reader)
    for _ in range(2):
        assert wait_for({bell.descriptor: 1}, 10) == {bell.descriptor}
        bell.hush()
        bell.ring()
    bell.close()


def test_a_bell_that_is_forgotten_closes_itself() -> None:
    bell = Bell()
    descriptor = bell.descriptor
    os.fstat(descriptor)
    del bell
    with pytest.raises(OSError):
        os.fstat(descriptor)


# Ways to a server


def places(url: str) -> list[str]:
    return [" ".join(sorted(place.split())) for place in Address(url).places()]


def test_names_are_resolved_before_libpq_would(monkeypatch: Any) -> None:
    """It would stop all greenlets meanwhile."""
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT"):
        monkeypatch.delenv(name, raising=False)
    rest = "fallback_application_name=faye_wsgi"
    end = "target_session_attrs=read-write"
    assert places("postgres://one:5433,two/db") == [
        f"dbname=db {rest} host=one hostaddr=192.0.2.1 port=5433 {end}",
        f"dbname=db {rest} host=one hostaddr=2001:db8::1 port=5433 {end}",
        f"dbname=db {rest} host=two hostaddr=192.0.2.1 {end}",
        f"dbname=db {rest} host=two hostaddr=2001:db8::1 {end}",
    ]
    assert places("postgres:///db?host=/run/postgres&connect_timeout=1") == [
        f"dbname=db {rest} host=/run/postgres port=5432 {end}"
    ]
    assert places("postgres://one/db?hostaddr=192.0.2.7&target_session_attrs=any") == [
        f"dbname=db {rest} host=one hostaddr=192.0.2.7 port=5432 target_session_attrs=any"
    ]
    monkeypatch.setenv("PGHOST", "three")
    assert places("postgres:///db")[0] == (
        f"dbname=db {rest} host=three hostaddr=192.0.2.1 port=5432 {end}"
    )


def resolve(host: str, port: Any, **options: Any) -> list[Any]:
    """Each host has two addresses, each for two protocols."""
    addresses = ["192.0.2.1", "192.0.2.1", "2001:db8::1"]
    return [(None, None, None, "", (address, 0)) for address in addresses]


@pytest.mark.parametrize(
    "url",
    [
        "postgres://localhost/db?nonsense=1",
        "postgres://[::1/db",
        "postgres://localhost/db?durable=perhaps",
        "postgres://localhost/db?listen=perhaps",
        "postgres://localhost/db?max_connections=0",
    ],
)
def test_a_wrong_option_in_the_url_raises(url: str) -> None:
    with pytest.raises(ValueError):
        connect(url)


def test_a_unix_socket_and_an_option_with_spaces(start_postgres: Start) -> None:
    server = start_postgres()
    folder = server.folder
    with PostgresServer(server.bin, f"unix_socket_directories={folder}") as other:
        url = f"postgres:///postgres?user=postgres&host={folder}&port={other.port}"
        broker = broker_of(f"{url}&options=-c%20search_path%3Dnowhere&max_connections=2")
        feed = subscribed(broker.open_feed(), "a")
        publish(broker, "a")
        assert sent("a", arrived(feed)) == payloads(broker, "a") == ["1"]
        broker.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the server may read."""
    with make_folder() as name:
        yield Path(name)


def test_tls_is_verified(start_postgres: Start, certificates: Certificates, folder: Path) -> None:
    server = start_postgres(*tls_of(certificates, folder))
    trusting = broker_of(f"{server.url}?sslmode=verify-full&sslrootcert={certificates.ca}")
    feed = subscribed(trusting.open_feed(), "a")
    publish(trusting, "a", '"' + "x" * 100_000 + '"')
    assert sent("a", arrived(feed)) == payloads(trusting, "a")
    [[count]] = server.ask("SELECT count(*) FROM pg_stat_ssl WHERE ssl")
    assert count >= 2
    trusting.close()
    with pytest.raises(PublishError, match="sslrootcert"):
        publish(broker_of(f"{server.url}?sslmode=verify-full&sslrootcert={__file__}"), "a")
    other = server.url.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(PublishError, match="certificate"):
        publish(broker_of(f"{other}?sslmode=verify-full&sslrootcert={certificates.ca}"), "a")


def tls_of(certificates: Certificates, folder: Path) -> list[str]:
    """Settings; Postgres wants the key to be its own, and private."""
    key, cert = folder / "key", folder / "cert"
    key.write_bytes(Path(certificates.key).read_bytes())
    cert.write_bytes(Path(certificates.cert).read_bytes())
    key.chmod(0o600)
    options = owner()
    if options:
        shutil.chown(key, options["user"], options["group"])
    return [
        *("ssl=on", f"ssl_cert_file={cert}", f"ssl_key_file={key}"),
        "listen_addresses=127.0.0.1,127.0.0.2",
    ]


def test_the_primary_of_several_is_found(start_postgres: Start) -> None:
    primary = start_postgres()
    replica = start_postgres(primary=primary)
    away = free_port()
    ports = (away, replica.port, primary.port)
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    broker = broker_of(f"postgres://postgres@{hosts}/postgres", timeout=10.0)
    publish(broker, "a", "1")
    assert payloads(broker, "a") == ["1"]
    broker.close()
    with pytest.raises(PublishError, match="is a replica: name the primary"):
        publish(broker_of(replica.url, timeout=0.5), "a")
    careless = broker_of(f"{replica.url}?target_session_attrs=any", timeout=0.5)
    with pytest.raises(PublishError, match="is a replica: name the primary"):
        publish(careless, "a")
    careless.close()


# What the errors say


def test_the_server_is_away() -> None:
    broker = broker_of(f"postgres://postgres@127.0.0.1:{free_port()}/db", timeout=0.2)
    for call in (
        lambda: publish(broker, "a"),
        lambda: broker.read([]),
        broker.open_feed,
        broker.beat,
    ):
        begun = time.monotonic()
        with pytest.raises(BrokerError, match="refused"):
            call()
        assert time.monotonic() - begun < 5


def test_a_server_that_says_nothing_leaves_time_for_the_others(
    postgres_server: PostgresServer,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{postgres_server.port}"
        broker = broker_of(f"postgres://postgres@{hosts}/postgres", prefix="silent", timeout=6.0)
        publish(broker, "a")
        broker.close()


def test_a_wrong_password(start_postgres: Start, folder: Path) -> None:
    rules = folder / "rules"
    rules.write_text(
        "host all postgres 127.0.0.1/32 trust\nhost all ada 127.0.0.1/32 scram-sha-256\n"
    )
    server = start_postgres(f"hba_file={rules}")
    server.ask("CREATE ROLE ada LOGIN SUPERUSER PASSWORD 'secret:/@'")
    for user in ("ada", "ada:wrong", "ben:secret"):
        begun = time.monotonic()
        broker = broker_of(server.url.replace("postgres@", f"{user}@"), timeout=30.0)
        with pytest.raises(PublishError, match="check the user and the password|pg_hba.conf"):
            publish(broker, "a")
        with pytest.raises(BrokerError, match="check the user and the password|pg_hba.conf"):
            broker.open_feed()
        assert time.monotonic() - begun < 15, "a wrong password is not tried again"
    broker = broker_of(server.url.replace("postgres@", "ada:secret%3A%2F%40@"))
    publish(broker, "a")
    broker.close()


def test_too_many_connections(start_postgres: Start) -> None:
    server = start_postgres("max_connections=4", "superuser_reserved_connections=0")
    broker = broker_of(server.url, timeout=0.5)
    links = [link_of(server) for _ in range(4)]
    with pytest.raises(PublishError, match="max_connections"):
        publish(broker, "a")
    for link in links:
        link.close()
    broker.timeout = 10.0
    other = broker_of(server.url, timeout=10.0)
    publish(other, "a")
    other.close()


@pytest.mark.parametrize(
    ("code", "text", "cure"),
    [
        ("25006", "cannot execute INSERT in a read-only transaction", "name the primary"),
        ("42501", "permission denied for schema faye", "docs/channels.md"),
        ("53100", "could not extend file", "disk of Postgres is full"),
        ("55P03", "canceling statement due to lock timeout", "pg_locks"),
        ("", "FATAL: sorry, too many clients already", "raise max_connections"),
        ("", "FATAL: password authentication failed for user", "the password in the URL"),
        ("", 'root certificate file "x" does not exist', "sslrootcert"),
        ("", "session is read-only", "name the primary"),
        ("22012", "division by zero", "division by zero"),
    ],
)
def test_an_error_names_its_cure(code: str, text: str, cure: str) -> None:
    said = explain(LinkError(text, code))
    assert said.startswith(f"Postgres: {text}")
    assert cure in said
