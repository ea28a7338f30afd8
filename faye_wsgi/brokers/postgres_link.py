"""A connection to a Postgres server, and what its errors mean.

Of psycopg only its wrapper of libpq (``psycopg.pq``) is used, which never waits. Its Connection
waits without a deadline; and where it was imported before gevent had patched the process, it stops
the hub. Here each wait is ``select.poll``, which gevent patches, and has a deadline.

A link is closed at its first trouble, and not used again. An error of a statement is no trouble.
"""

from __future__ import annotations

import os
import re
import select
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from psycopg import Error, pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from faye_wsgi.brokers.fork import watch_link
from faye_wsgi.brokers.pool import Server

__all__ = [
    "BYTEA",
    "INT8",
    "LASTING",
    "Address",
    "Bell",
    "Link",
    "LinkError",
    "Row",
    "explain",
    "pack_array",
    "pack_int",
    "single_server",
    "unpack_int",
]

OLDEST = 120_000  # of the server: Postgres 12
READ, WRITE = select.POLLIN, select.POLLOUT
DONE = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
BYTEA, INT8 = 17, 20  # the oids of types

Row = list[Any]  # of bytes, or None


class LinkError(Exception):
    """There is no connection, or the server has refused a statement.

    ``code`` is the SQLSTATE of a refusal, LASTING where connecting again would not help, or ''.
    """

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


LASTING = "lasting"


# Values as they are on the wire, in binary


def pack_int(value: int) -> bytes:
    """A bigint."""
    return struct.pack("!q", value)


def unpack_int(value: bytes) -> int:
    """The number of an int, a bigint or a boolean."""
    return int.from_bytes(value, "big", signed=True)


def pack_array(items: Sequence[bytes | None], kind: int) -> bytes:
    """An array of what has the oid ``kind``."""
    if not items:
        return struct.pack("!iiI", 0, 0, kind)
    head = struct.pack("!iiIii", 1, 1, kind, len(items), 1)
    sized = (
        b"\xff\xff\xff\xff" if item is None else struct.pack("!i", len(item)) + item
        for item in items
    )
    return head + b"".join(sized)


# Waiting


def wait_for(events: dict[int, int], timeout: float) -> set[int]:
    """The descriptors that are ready within ``timeout`` seconds."""
    poller = select.poll()
    for descriptor, mask in events.items():
        poller.register(descriptor, mask)
    return {descriptor for descriptor, _ in poller.poll(max(timeout, 0.0) * 1000)}


class Bell:
    """Wakes the owner of a feed that waits for its connection; any thread may ring it."""

    def __init__(self) -> None:
        self.descriptor, self._writer = os.pipe()
        self._lock = threading.Lock()
        self._is_ringing = False
        # Also for a feed that is forgotten: a descriptor closes itself only in a file.
        self._close = weakref.finalize(self, _close, self.descriptor, self._writer)
        watch_link(self)

    def ring(self) -> None:
        """Let the descriptor be readable."""
        with self._lock:  # a descriptor that is closed may be another's by now
            if not self._is_ringing and self._close.alive:
                self._is_ringing = True
                os.write(self._writer, b"!")  # the only byte in the pipe: it does not wait

    def hush(self) -> None:
        """Let it not be readable any more."""
        with self._lock:
            if self._is_ringing and self._close.alive:
                # In the child of a fork it is at its end, and rings for ever.
                self._is_ringing = not os.read(self.descriptor, 1)

    def close(self) -> None:
        """Close it. Only its owner may, who else could be waiting for it."""
        with self._lock:
            self._close()

    def leave_to_parent(self, other: int) -> None:
        """In the child of a fork: put the descriptor ``other`` in the place of its own."""
        self._lock = threading.Lock()  # a thread of the parent may have held it
        if self._close.alive:
            os.dup2(other, self.descriptor, inheritable=False)
            os.dup2(other, self._writer, inheritable=False)
            self._is_ringing = True


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


# The connection


class Link:
    """A connection to a server, with no transaction between calls."""

    __slots__ = ("__weakref__", "_connection")

    timeout = float("inf")  # it has none of its own: each wait has a deadline

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        watch_link(self)

    def call(
        self, statement: str, parameters: Sequence[bytes | None] | None, deadline: float
    ) -> list[Row]:
        """The rows of a statement, in binary. Without parameters (None) it may be several."""
        try:
            self._send(statement, parameters)
            results = list(self._results(deadline))
        except BaseException as error:
            # Also where a greenlet is killed: the next call would take our answer for its own.
            self.close()
            if isinstance(error, (Error, OSError)):
                raise LinkError(_line(str(error))) from error
            raise
        for result in results:
            if result.status not in DONE:
                raise _refusal(result)
        last = results[-1]
        columns = range(last.nfields)
        return [[last.get_value(row, column) for column in columns] for row in range(last.ntuples)]

    def _send(self, statement: str, parameters: Sequence[bytes | None] | None) -> None:
        connection = self._open()
        if parameters is None:
            connection.send_query(statement.encode())
        else:
            formats = [pq.Format.BINARY] * len(parameters)
            connection.send_query_params(
                statement.encode(),
                list(parameters),  # psycopg takes no other sequence on Python 3.9
                param_formats=formats,
                result_format=pq.Format.BINARY,
            )

    def _results(self, deadline: float) -> Iterator[Any]:
        connection = self._connection
        while connection.flush():
            # The server may not read on before it has sent something.
            if connection.socket in self._wait(READ | WRITE, deadline):
                connection.consume_input()
        while True:
            while connection.is_busy():
                self._wait(READ, deadline)
                connection.consume_input()
            result = connection.get_result()
            if result is None:
                return
            yield result

    def _wait(self, mask: int, deadline: float) -> set[int]:
        ready = wait_for({self._connection.socket: mask}, deadline - time.monotonic())
        if not ready:
            raise LinkError("it does not answer")
        return ready

    def wait(self, other: int, timeout: float) -> None:
        """Wait until something arrives, or another descriptor is readable."""
        wait_for({self._open().socket: READ, other: READ}, timeout)

    def notifications(self) -> list[str]:
        """The payloads of the notifications that have arrived."""
        connection = self._open()
        try:
            connection.consume_input()
        except Error as error:
            self.close()
            raise LinkError(_line(str(error))) from error
        found = []
        while (notification := connection.notifies()) is not None:
            found.append(notification.extra.decode())
        return found

    @property
    def user(self) -> str:
        """Whose connection it is."""
        return str(self._open().user.decode())

    @property
    def process(self) -> int:
        """The id that the server's process has, or that a pooler has made up."""
        return int(self._open().backend_pid)

    def _open(self) -> Any:
        if self._connection is None:
            raise LinkError("the connection is closed")
        return self._connection

    def is_idle(self) -> bool:
        """Whether it can be used: it is open, and nothing arrives that was not asked for."""
        return self._connection is not None and not wait_for({self._connection.socket: READ}, 0)

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, by ``close`` or by an error."""
        return self._connection is None

    def close(self) -> None:
        """Close it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.finish()

    def leave_to_parent(self, other: int) -> None:
        """In the child of a fork: put the descriptor ``other`` in the place of the socket's."""
        if self._connection is not None:
            os.dup2(other, self._connection.socket, inheritable=False)


def _line(text: str) -> str:
    return " ".join(text.split())


def _refusal(result: Any) -> LinkError:
    """What the server has said, in one line."""
    fields = pq.DiagnosticField
    code, text, hint = (
        (result.error_field(field) or b"").decode("utf-8", "replace")
        for field in (fields.SQLSTATE, fields.MESSAGE_PRIMARY, fields.MESSAGE_HINT)
    )
    return LinkError(f"{text} ({hint})" if hint else text, code)


# Connecting


class Address:
    """Where a server is: a URL of libpq, which may name several hosts, one of them the primary."""

    def __init__(self, url: str) -> None:
        try:
            self._options: dict[str, Any] = conninfo_to_dict(url)
        except Error as error:
            raise ValueError(f"the URL of the broker is wrong: {str(error).strip()}") from None
        self._options.pop("connect_timeout", None)  # each call has its deadline
        # A replica takes no publications.
        self._options.setdefault("target_session_attrs", "read-write")
        self._options.setdefault("fallback_application_name", "faye_wsgi")

    def places(self) -> Iterator[str]:
        """What libpq connects to, one after the other."""
        options = {o.keyword.decode(): o.val for o in pq.Conninfo.get_defaults()}
        given = {
            name: str(self._options.get(name) or (options.get(name) or b"").decode())
            for name in ("host", "hostaddr", "port")
        }
        hosts = given["host"].split(",")
        ports = given["port"].split(",")
        if given["hostaddr"]:
            for index, address in enumerate(given["hostaddr"].split(",")):
                yield self._place(hosts[index % len(hosts)], address, ports[index % len(ports)])
            return
        for index, host in enumerate(hosts):
            port = ports[index % len(ports)]
            if not host or host[0] in "/@":
                yield self._place(host, "", port)
                continue
            # libpq would wait for the name, and let no other greenlet run.
            found = socket.getaddrinfo(host, port or None, type=socket.SOCK_STREAM)
            for address in dict.fromkeys(str(one[4][0]) for one in found):
                yield self._place(host, address, port)

    def _place(self, host: str, address: str, port: str) -> str:
        place = {"host": host, "hostaddr": address, "port": port}
        chosen = {name: value for name, value in place.items() if value}
        others = {n: value for n, value in self._options.items() if n not in place}
        conninfo: str = make_conninfo("", **others, **chosen)
        return conninfo


def connect(address: Address, deadline: float) -> Link:
    """Connect to the primary."""
    problems: list[LinkError] = []
    try:
        places = list(address.places())
    except OSError as error:
        raise LinkError(f"the host is not known: {error}") from error
    for index, place in enumerate(places):
        # A server that is silent leaves time for the others.
        now = time.monotonic()
        try:
            connection = _dial(place, now + (deadline - now) / (len(places) - index))
        except LinkError as error:
            problems.append(error)
        else:
            return Link(connection)
    # Where there are several, what one says may pass.
    codes = {problem.code for problem in problems}
    text = "; ".join(dict.fromkeys(map(str, problems)))
    raise LinkError(text, codes.pop() if len(codes) == 1 else "")


def single_server(url: str, *, size: int, timeout: float) -> Server[Link]:
    """The server of ``postgres://``, or the primary of several; ValueError."""
    address = Address(url)

    def dial(deadline: float) -> Link:
        return connect(address, deadline)

    return Server(dial, size=size, timeout=timeout)


def _dial(place: str, deadline: float) -> Any:
    connection = None
    try:
        connection = pq.PGconn.connect_start(place.encode())
        status = _poll(connection)
        while status != pq.PollingStatus.OK:
            if status == pq.PollingStatus.FAILED:
                raise _connect_error(connection)
            mask = READ if status == pq.PollingStatus.READING else WRITE
            # The socket may be another one each time.
            if not wait_for({connection.socket: mask}, deadline - time.monotonic()):
                raise LinkError("it does not answer")
            status = _poll(connection)
        if connection.server_version < OLDEST:
            raise LinkError("Postgres 12 is the oldest that is supported", LASTING)
        connection.nonblocking = 1
        return connection
    except BaseException as error:
        if connection is not None:
            connection.finish()
        if isinstance(error, (Error, OSError)):
            raise LinkError(_line(str(error))) from error
        raise


def _poll(connection: Any) -> int:
    if connection.status == pq.ConnStatus.BAD:
        return int(pq.PollingStatus.FAILED)
    return int(connection.connect_poll())


_LASTING = re.compile(
    "authentication failed|no password supplied|pg_hba.conf|certificate"
    '|(?:role|user|database) ".*" does not exist|no such (?:user|database)'
)


def _connect_error(connection: Any) -> LinkError:
    text = _line(connection.error_message.decode("utf-8", "replace"))
    return LinkError(text, LASTING if _LASTING.search(text) else "")


# What to do

_CURES = {
    "25006": "this Postgres is a replica: name the primary, or all: postgres://one,other/database",
    "42501": "let the user have the rights that docs/channels.md names",
    "53100": "the disk of Postgres is full",
    "55P03": "another session keeps a lock of the channels: see pg_locks and pg_stat_activity",
}
_TEXTS = {
    "certificate": "name the authority with ?sslmode=verify-full&sslrootcert=FILE",
    "read-only": _CURES["25006"],
    "too many c": "raise max_connections, or use fewer: ?max_connections=2 in the URL",
    "remaining connection slots": "raise max_connections, or use fewer: ?max_connections=2",
    "authentication": "check the user and the password in the URL",
    "password": "check the user and the password in the URL",
}


def explain(error: BaseException) -> str:
    """What happened, and what to do about it."""
    cure = _CURES.get(getattr(error, "code", ""))
    found: Iterable[str] = (text for part, text in _TEXTS.items() if part in str(error))
    cure = cure or next(iter(found), None)
    return f"Postgres: {error}" if cure is None else f"Postgres: {error}: {cure}"
