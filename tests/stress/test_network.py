"""Bad networks: packets are lost, late and out of order, the cable is pulled, TCP is reset.

Nothing hangs past its timeout, and the error and close events say what has happened. The server is
a real one; both ends are in a network namespace of their own (see tests/support/network.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from faye_wsgi import Client, ConnectionClosed, EventSourceClient, HandshakeError

from ..support.network import FAR, Laboratory, Line
from ..support.servers import Server
from ..support.waiting import wait_until
from . import harness

BOUND = 10.0  # seconds in which a timeout of half a second must have done its work
ALIVE = "ping=0.3&ping_timeout=0.5"
NO_SIGN = "the peer gave no sign of life"
IDLE: dict[str, int] = {}  # what the server holds when nothing is going on


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    with Laboratory("gunicorn-gevent", harness.APP) as made:
        IDLE.update(made.run(harness.settled, made.server))
        yield made


@pytest.fixture
def lab(laboratory: Laboratory) -> Iterator[Laboratory]:
    """With a good line before and after, and a server that is left with nothing."""
    yield laboratory
    vars(laboratory.line).update(vars(Line()))
    laboratory.run(harness.wait_for_held, laboratory.server, IDLE)
    assert "Traceback" not in laboratory.server.log()


class Told:
    """What a client's listeners are told of its end."""

    def __init__(self, client: Client) -> None:
        self.errors: list[str] = []
        self.codes: list[int] = []
        client.on("error", lambda event: self.errors.append(event.message))
        client.on("close", lambda event: self.codes.append(event.code))


def connect(server: Server, path: str, **options: object) -> Client:
    return Client(f"ws://{FAR}:{server.port}{path}", **options)  # type: ignore[arg-type]


def wait_for_end(client: Client, server: Server, ends: dict[str, int], code: str = "1006") -> None:
    """Both sides have seen it."""
    client.wait_closed(BOUND)
    wait_until(lambda: gained(server, ends, code) == 1, BOUND, "the server's close event")


def gained(server: Server, ends: dict[str, int], code: str) -> int:
    return harness.ends(server).get(code, 0) - ends.get(code, 0)


# Packets that are lost, late and out of order


def echo_all(line: Line, server: Server) -> None:
    client = connect(server, "/counted_echo")
    client.wait_open(BOUND)
    line.loss, line.delay, line.jitter = 0.03, 0.005, 0.02
    sent = [f"{number} " + "x" * (number * 37 % 3000) for number in range(150)]
    sender = gevent.spawn(lambda: [client.send(message) for message in sent])
    assert [client.receive(BOUND * 3) for _ in sent] == sent
    sender.get(timeout=BOUND)
    line.loss = 0.0
    client.close()
    client.wait_closed(BOUND)
    assert client.close_code == 1000


def read_all_events(line: Line, server: Server) -> None:
    line.loss, line.delay, line.jitter = 0.03, 0.005, 0.02
    with EventSourceClient(f"http://{FAR}:{server.port}/es/numbers?n=200") as events:
        assert [int(next(events).id) for _ in range(200)] == list(range(1, 201))


def outlive_an_outage(line: Line, server: Server) -> None:
    """Without pings, a pulled cable is nothing but a delay."""
    client = connect(server, "/counted_events")
    client.wait_open(BOUND)
    line.is_cut = True
    sent = [str(number) for number in range(100)]
    for message in sent:
        client.send(message)
    gevent.sleep(0.7)
    line.is_cut = False
    assert [client.receive(BOUND * 3) for _ in sent] == sent
    client.close()
    client.wait_closed(BOUND)


@pytest.mark.parametrize("act", [echo_all, read_all_events, outlive_an_outage])
def test_tcp_mends_what_it_can(lab: Laboratory, act: object) -> None:
    assert callable(act)
    lab.run(act, lab.line, lab.server)


# The cable is pulled


def pull_while_idle(line: Line, server: Server) -> None:
    ends = harness.ends(server)
    client = connect(server, f"/counted_events?{ALIVE}", ping=0.3, ping_timeout=0.5)
    told = Told(client)
    client.wait_open(BOUND)
    line.is_cut = True
    wait_for_end(client, server, ends)
    gevent.sleep(0)
    assert told.errors == [NO_SIGN] and told.codes == [1006]


def pull_in_a_message(line: Line, server: Server) -> None:
    """The server's sender is blocked, the client has a part of a message."""
    ends = harness.ends(server)
    path = f"/push_in_listener?n=2000&size=100000&{ALIVE}"
    client = connect(server, path, ping=0.3, ping_timeout=0.5)
    told = Told(client)
    client.send("go")
    for _ in range(5):
        assert len(client.receive(BOUND)) == 100_000
    line.is_cut = True
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            client.receive(BOUND)
    assert caught.value.code == 1006
    wait_for_end(client, server, ends)
    assert told.errors == [NO_SIGN] and told.codes == [1006]


def pull_in_the_closing_handshake(line: Line, server: Server) -> None:
    ends = harness.ends(server)
    client = connect(server, f"/counted_events?{ALIVE}", close_timeout=0.5)
    told = Told(client)
    client.wait_open(BOUND)
    line.is_cut = True
    client.close()
    wait_for_end(client, server, ends)
    assert told.errors == ["the closing handshake was not completed in time"]
    assert told.codes == [1006]


def pull_under_an_event_stream(line: Line, server: Server) -> None:
    """It comes back behind its last event: nothing is lost, nothing twice."""
    url = f"http://{FAR}:{server.port}/es/numbers?n=300&retry=0.1"
    found: list[int] = []
    with EventSourceClient(url, idle_timeout=0.5, first_delay=0.1, open_timeout=1) as events:
        for event in events:
            found.append(int(event.id))
            if len(found) == 100:
                line.is_cut = True
                plug_in = gevent.spawn_later(0.8, setattr, line, "is_cut", False)
            if found[-1] == 300:
                break
    plug_in.get(timeout=BOUND)
    assert found == list(range(1, 301))


@pytest.mark.parametrize(
    "act",
    [
        pull_while_idle,
        pull_in_a_message,
        pull_in_the_closing_handshake,
        pull_under_an_event_stream,
    ],
)
def test_a_pulled_cable_is_found_out(lab: Laboratory, act: object) -> None:
    assert callable(act)
    lab.run(act, lab.line, lab.server)


@pytest.mark.parametrize("packets", range(5))
def test_a_cable_that_is_pulled_while_it_opens(lab: Laboratory, packets: int) -> None:
    """From the SYN to the server's answer."""

    def act() -> None:
        lab.line.cut_after = packets
        client = connect(lab.server, f"/counted_events?{ALIVE}", open_timeout=0.5)
        told = Told(client)
        with pytest.raises(HandshakeError) as caught:
            client.wait_open(BOUND)
        assert caught.value.code == 1006 and caught.value.status_code is None
        client.wait_closed(BOUND)
        assert told.errors == ["the connection did not open within 0.5 seconds"]
        assert told.codes == [1006]

    lab.run(act)


# TCP is reset


@pytest.mark.parametrize("packets", range(9))
def test_a_reset_at_any_moment(lab: Laboratory, packets: int) -> None:
    """RFC 6455 §7.1.5: 1006, unless the closing handshake was complete."""

    def act() -> None:
        opened = sum(harness.ends(lab.server).values())
        lab.line.reset_after = packets
        client = connect(lab.server, f"/counted_events?{ALIVE}", ping=0.3, ping_timeout=0.5)
        told = Told(client)
        try:
            client.wait_open(BOUND)
            opened += 1
            for number in range(3):
                client.send(f"{number}")
                assert client.receive(BOUND) == f"{number}"
            client.close()
        except HandshakeError as error:
            assert packets < 2 and error.code == 1006 and error.status_code is None
        except ConnectionClosed as error:
            assert error.code == 1006
        client.wait_closed(BOUND)
        gevent.sleep(0)
        assert told.codes in ([1006], [1000]), told.codes
        assert told.errors or told.codes == [1000], "it does not say what has happened"
        if packets > 1:
            wait_until(lambda: sum(harness.ends(lab.server).values()) == opened, BOUND)

    lab.run(act)
