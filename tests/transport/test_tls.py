"""TLS on non-blocking sockets, of both sides, and the client's option `tls`.

The two ends of a socket pair are driven by hand, one step at a time, so that each test knows
what is on its way. TlsSocket, which takes a session out of a server's object, is tested below
a Stream in test_stream.py.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.socket
import pytest

from faye_wsgi.transport import dial
from faye_wsgi.transport.stream import PlainSocket
from faye_wsgi.transport.tls import BioSocket, ClientTls, make_client_tls

from ..support.certs import Certificates
from ..support.scripted import server_context
from .harness import TIMEOUT, is_open

STEPS = 200
WANT = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Ends:
    """`ours` is a BioSocket, `theirs` the standard library's server, both non-blocking."""

    def __init__(self, certificates: Certificates, client: ssl.SSLContext | None = None) -> None:
        left, right = socket.socketpair()
        self.fd = left.fileno()
        native = PlainSocket(fileno=left.detach())
        native.setblocking(False)
        right.setblocking(False)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.cert, certificates.key)
        context.num_tickets = 0  # unread ones would make a reset of the end of a socket pair
        self.theirs = context.wrap_socket(right, server_side=True, do_handshake_on_connect=False)
        self.ours = BioSocket(native, client or certificates.client_context(), "localhost")

    def shake_hands(self) -> None:
        pending = [self.ours.do_handshake, self.theirs.do_handshake]
        for _ in range(STEPS):
            for step in list(pending):
                with contextlib.suppress(*WANT):
                    step()
                    pending.remove(step)
            if not pending:
                return
        raise AssertionError("the handshake does not end")

    def read_theirs(self, size: int = 1 << 20) -> bytes:
        """What has arrived there so far; EOFError at the end."""
        data = b""
        with contextlib.suppress(*WANT):
            while len(data) < size:
                piece = self.theirs.recv(size - len(data))
                if not piece:
                    raise EOFError(data)
                data += piece
        return data

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def ends(certificates: Certificates) -> Iterator[Ends]:
    made = Ends(certificates)
    made.shake_hands()
    yield made
    made.close()


# The handshake


def test_the_handshake_asks_to_be_called_again(certificates: Certificates) -> None:
    made = Ends(certificates)
    with pytest.raises(ssl.SSLWantReadError):
        made.ours.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        made.ours.do_handshake()  # the server has not answered yet
    made.shake_hands()
    made.close()
    assert not is_open(made.fd)


def test_the_peer_is_told_why_its_certificate_is_refused(certificates: Certificates) -> None:
    made = Ends(certificates, ssl.create_default_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        made.shake_hands()
    with pytest.raises(ssl.SSLError, match="(?i)alert.*unknown.ca"):
        for _ in range(STEPS):
            with contextlib.suppress(*WANT):
                made.theirs.do_handshake()
    made.close()


def test_an_end_in_the_handshake(certificates: Certificates) -> None:
    made = Ends(certificates)
    with pytest.raises(ssl.SSLWantReadError):
        made.ours.do_handshake()
    made.theirs.close()
    with pytest.raises(OSError):
        made.ours.do_handshake()
    made.close()


# Reading


def test_nothing_to_read_would_block(ends: Ends) -> None:
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            ends.ours.recv()
    assert not ends.ours.pending()


def test_several_records_are_read_at_once(ends: Ends) -> None:
    for piece in (b"a", b"b" * 20_000, b"c"):
        ends.theirs.send(piece)
    assert ends.ours.recv() == b"a" + b"b" * 20_000 + b"c"


def test_what_is_decrypted_already_is_pending(ends: Ends) -> None:
    """The kernel has nothing left to tell of: without this the bytes would wait for ever."""
    ends.theirs.send(b"abc")
    assert ends.ours.recv(1) == b"a" and ends.ours.pending()
    assert ends.ours.recv(1) == b"b" and ends.ours.pending()
    assert ends.ours.recv(9) == b"c"
    with pytest.raises(BlockingIOError):
        ends.ours.recv()
    assert not ends.ours.pending()


def test_bytes_that_come_with_the_handshakes_end_are_pending(certificates: Certificates) -> None:
    made = Ends(certificates)
    made.shake_hands()
    assert made.ours.pending(), "they may be in the session, and no event will tell"
    made.close()


def test_the_end_comes_after_what_was_sent(ends: Ends) -> None:
    ends.theirs.send(b"last words")
    with contextlib.suppress(*WANT):
        ends.theirs.unwrap()  # close_notify
    assert ends.ours.recv() == b"last words"
    assert ends.ours.recv() == b"" == ends.ours.recv()


def test_an_end_without_close_notify_is_an_end(ends: Ends) -> None:
    ends.theirs.send(b"cut")
    socket.socket.shutdown(ends.theirs, socket.SHUT_WR)
    assert ends.ours.recv() == b"cut"
    assert ends.ours.recv() == b""


def test_bytes_that_are_no_tls(ends: Ends) -> None:
    ends.theirs.send(b"good")
    with socket.socket(fileno=ends.theirs.detach()) as raw:
        raw.send(b"GET / HTTP/1.1\r\n\r\n" * 10)
        assert ends.ours.recv() == b"good", "what came before is not lost"
        with contextlib.suppress(ssl.SSLError):  # or an end, as this OpenSSL likes
            assert ends.ours.recv() == b""


def test_nothing_but_bytes_that_are_no_tls(ends: Ends) -> None:
    with socket.socket(fileno=ends.theirs.detach()) as raw:
        raw.send(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ssl.SSLError):
            ends.ours.recv()


# Writing


def test_what_the_kernel_does_not_take_is_not_counted(ends: Ends) -> None:
    data = bytes(range(256)) * 8192
    taken = ends.ours.send(data)
    assert taken < len(data), "the kernel's buffers hold less"
    with pytest.raises(BlockingIOError):
        while True:
            taken += ends.ours.send(data[taken:])
    received = b""
    while len(received) < len(data):
        received += ends.read_theirs()
        with contextlib.suppress(BlockingIOError):
            taken += ends.ours.send(data[taken:])
    assert taken == len(data) and received == data


def test_several_pieces(ends: Ends) -> None:
    parts = [b"a" * 10, b"", b"b" * 100_000, b"c"]
    whole = b"".join(parts)
    taken = ends.ours.sendmsg(parts)
    received = ends.read_theirs()
    while taken < len(whole):
        with contextlib.suppress(BlockingIOError):
            taken += ends.ours.sendmsg([whole[taken:]])
        received += ends.read_theirs()
    assert received == whole


def test_pieces_that_the_kernel_does_not_take(ends: Ends) -> None:
    block = b"x" * 65536
    with pytest.raises(BlockingIOError):
        while True:
            ends.ours.sendmsg([block, block])


def test_our_end_is_told_with_close_notify_and_lets_the_peer_go_on(ends: Ends) -> None:
    ends.ours.send(b"last")
    ends.ours.shutdown_write()
    assert ends.read_theirs(4) == b"last"
    # A bare FIN would raise SSLEOFError here: it may be an attacker's.
    ends.theirs.suppress_ragged_eofs = False
    assert ends.theirs.recv(1) == b""


def test_closing_twice_and_in_the_middle_is_no_error(certificates: Certificates) -> None:
    made = Ends(certificates)
    made.ours.close()
    assert not is_open(made.fd)
    made.ours.close()
    made.theirs.close()


def test_tls_whose_peer_reads_slowly(certificates: Certificates) -> None:
    """What waits in the session's buffers is not lost, nor told as taken."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = bytes(range(256)) * 8192
    received: list[bytes] = []

    def read() -> None:
        sock = gevent.socket.socket(fileno=theirs.detach())
        with server_context(certificates).wrap_socket(sock, server_side=True) as tls:
            while piece := tls.recv(1000):
                received.append(piece)

    reader = gevent.spawn(read)
    native = PlainSocket(fileno=ours.detach())
    native.setblocking(False)
    sock = BioSocket(native, certificates.client_context(), "localhost")
    dial._wait_for(sock, sock.do_handshake, TIMEOUT)
    dial._send_all(sock, data)
    sock.shutdown_write()
    reader.join(TIMEOUT)
    sock.close()
    assert b"".join(received) == data


# The option


def test_certificates_and_names_are_verified_by_default() -> None:
    made = make_client_tls()
    assert made.context.verify_mode == ssl.CERT_REQUIRED and made.context.check_hostname
    assert made.server_hostname is None
    assert make_client_tls().context is made.context, "the system's certificates are read once"
    assert make_client_tls({}).context is made.context


def test_a_context_is_taken_as_it_is() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert make_client_tls(context) == ClientTls(context)


def test_a_name_alone_needs_no_context_of_its_own() -> None:
    option = {"server_hostname": "example.com"}
    made = make_client_tls(option)
    assert made == ClientTls(make_client_tls().context, "example.com")
    assert option == {"server_hostname": "example.com"}


def test_without_verification() -> None:
    made = make_client_tls({"verify": False})
    assert made.context.verify_mode == ssl.CERT_NONE and not made.context.check_hostname
    assert make_client_tls().context.verify_mode == ssl.CERT_REQUIRED, "no other is changed"


@pytest.mark.parametrize("way", ["file", "text", "folder"])
def test_authorities(certificates: Certificates, tmp_path: Any, way: str) -> None:
    with open(certificates.ca) as file:
        text = file.read()
    option = {"file": certificates.ca, "text": text, "folder": str(tmp_path)}[way]
    context = make_client_tls({"ca": option}).context
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    # Those of a folder are read when they are needed; none of the system's are beside ours.
    assert len(context.get_ca_certs()) == (0 if way == "folder" else 1)


@pytest.mark.parametrize(
    "option, error",
    [
        ("x", TypeError),
        (True, TypeError),
        ([], TypeError),
        ({"other": 1}, TypeError),
        ({"key": "x"}, ValueError),
        ({"ca": "/no/such/file"}, OSError),
        ({"cert": "/no/such/file"}, OSError),
        ({"ca": "-----BEGIN CERTIFICATE-----\nnonsense"}, OSError),
    ],
)
def test_wrong_options(option: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make_client_tls(option)


def test_our_certificate_is_shown(certificates: Certificates) -> None:
    pair = {"cert": certificates.client_cert, "key": certificates.client_key}
    made = make_client_tls({"ca": certificates.ca, **pair})
    ends = Ends(certificates, made.context)
    ends.theirs.context.verify_mode = ssl.CERT_OPTIONAL
    ends.theirs.context.load_verify_locations(certificates.ca)
    ends.theirs = rewrapped(ends.theirs)
    ends.shake_hands()
    assert ends.theirs.getpeercert()
    ends.close()


def rewrapped(sock: ssl.SSLSocket) -> ssl.SSLSocket:
    """A socket with what has been changed in its context since it was made."""
    plain = socket.socket(fileno=sock.detach())
    plain.setblocking(False)
    return sock.context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
