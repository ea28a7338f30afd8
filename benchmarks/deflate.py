"""What permessage-deflate costs: memory for each connection, and processor time over zlib's own.

    python -m benchmarks.deflate [--connections 400] [--rounds 15] [--json FILE]

Memory is that of a worker (gevent's pywsgi, in a process of its own) with many connections that
each have sent and received one message of 1 KiB, or nothing, or 128 messages. A connection has
two contexts, one for each direction, of the given window bits; what zlib reserves becomes memory
only as it is used.

Time is measured in this process, without sockets: a driver that builds or reads messages,
against bare zlib objects that compress or decompress the same messages with the same history.
Rounds are interleaved; the ratio is the median of the rounds' ratios, "added" what is over zlib.
"session" is the extension alone; "driver" is all that happens between the application's str and
the bytes on the wire, of which a part ("plain") is there without compression too.
"""

from __future__ import annotations

import argparse
import base64
import gc
import itertools
import json
import os
import random
import resource
import socket
import statistics
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

from faye_wsgi.driver.frames import build_frame
from faye_wsgi.driver.hybi import Hybi
from faye_wsgi.extensions.base import Message
from faye_wsgi.extensions.negotiation import Pipeline, negotiate
from faye_wsgi.extensions.permessage_deflate import permessage_deflate

OFFER = "permessage-deflate; client_max_window_bits"
TAIL = b"\x00\x00\xff\xff"
WARM_CONNECTIONS = 20  # before memory is first read: one-time costs do not count
SETTLE = 0.5  # seconds for garbage to go before memory is read
VARIETY = 64  # different messages, in turns
TIMEOUT = 20.0


def message(size: int, seed: int) -> str:
    """JSON of about `size` bytes: the kind of rows that applications send."""
    chance = random.Random(seed)
    rows: list[dict[str, Any]] = []
    length = 2
    while length < size:
        rows.append(
            {
                "id": chance.randrange(10**6),
                "name": f"user{chance.randrange(5000)}",
                "active": chance.random() < 0.5,
                "score": round(chance.uniform(0, 100), 2),
                "tags": chance.sample(["red", "green", "blue", "black", "white"], 2),
            }
        )
        length += len(json.dumps(rows[-1])) + 2
    return json.dumps(rows)[:size]


# ---------------------------------------------------------------- memory


class Held(NamedTuple):
    """A kind of connection: its options, and how many messages have gone both ways."""

    title: str
    query: str
    messages: int


HELD = [
    Held("no extension, nothing sent", "", 0),
    Held("no extension, one message", "", 1),
    Held("nothing sent yet", "bits=15", 0),
    Held("window bits 15", "bits=15", 1),
    Held("window bits 15, 128 messages", "bits=15", 128),
    Held("window bits 10", "bits=10", 1),
    Held("window bits 10, mem_level 4", "bits=10&mem_level=4", 1),
    Held("window bits 15, no takeover", "bits=15&no_takeover=1", 1),
    Held("window bits 10, no takeover", "bits=10&no_takeover=1", 1),
]


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """An echo that needs no greenlet while it is idle."""
    from urllib.parse import parse_qsl

    from faye_wsgi import WebSocket

    values = dict(parse_qsl(environ["QUERY_STRING"]))
    extension = permessage_deflate.configure(
        no_context_takeover="no_takeover" in values,
        request_no_context_takeover="no_takeover" in values,
        max_window_bits=int(values.get("bits", 15)),
        request_max_window_bits=int(values.get("bits", 15)),
        mem_level=int(values.get("mem_level", 8)),
    )
    ws = WebSocket(environ, extensions=extension)
    ws.on("message", lambda event: ws.send(event.data))
    return ws.response(environ, start_response)


def serve() -> None:
    """The worker: prints its port, and ends with its standard input."""
    import threading

    from gevent.pywsgi import WSGIServer

    server = WSGIServer(("127.0.0.1", 0), application, log=None)
    server.start()
    print(server.server_port, flush=True)

    def wait_for_the_end() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    server.serve_forever()


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError("the server ended a connection")
        data += piece
    return data


def connect(port: int, kind: Held, frames: list[bytes]) -> socket.socket:
    """An open connection, after its echoes."""
    sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)
    extensions = f"Sec-WebSocket-Extensions: {OFFER}\r\n" if kind.query else ""
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        (
            f"GET /?{kind.query} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"{extensions}\r\n"
        ).encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read_exactly(sock, 1)
    if not head.startswith(b"HTTP/1.1 101") or (b"permessage-deflate" in head) != bool(kind.query):
        raise RuntimeError(f"not the answer that was expected: {head!r}")
    for frame in frames:
        sock.sendall(frame)
        header = read_exactly(sock, 2)
        length = header[1] if header[1] < 126 else struct.unpack("!H", read_exactly(sock, 2))[0]
        read_exactly(sock, length)
    return sock


def echo_frames(kind: Held) -> list[bytes]:
    """Messages of 1 KiB as a client sends them: compressed, where that was agreed on."""
    texts = [message(1024, seed).encode() for seed in range(kind.messages)]
    if not kind.query:
        return [build_frame(0x81, data, b"\0\0\0\0") for data in texts]
    packer = zlib.compressobj(wbits=-10 if "bits=10" in kind.query else -15)
    # A full flush ends what may be referred to, so that it is right without takeover too.
    packed = [packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH) for data in texts]
    return [build_frame(0xC1, data[:-4], b"\0\0\0\0") for data in packed]


def memory_of(pid: int) -> int:
    """KiB that belong to the process alone."""
    time.sleep(SETTLE)
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def measure_memory(kind: Held, connections: int) -> float:
    """KiB for each connection, in a worker of its own."""
    frames = echo_frames(kind)
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.deflate", "--serve"],
        cwd=Path(__file__).resolve().parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as worker:
        socks: list[socket.socket] = []
        try:
            assert worker.stdout is not None
            port = int(worker.stdout.readline())
            socks += [connect(port, kind, frames) for _ in range(WARM_CONNECTIONS)]
            before = memory_of(worker.pid)
            socks += [connect(port, kind, frames) for _ in range(connections)]
            return (memory_of(worker.pid) - before) / connections
        finally:
            for sock in socks:
                sock.close()
            worker.kill()


# ---------------------------------------------------------------- time

Run = Callable[[], None]


class Case(NamedTuple):
    """The same work in several ways, 'zlib' among them."""

    title: str
    ways: dict[str, Callable[[], Run]]
    count: int


def pipeline(takeover: bool) -> Pipeline:
    extension = permessage_deflate.configure(
        no_context_takeover=not takeover, request_no_context_takeover=not takeover
    )
    agreed = negotiate([extension], OFFER, 2**26)
    assert agreed is not None
    return agreed


def outgoing(texts: list[str], count: int, takeover: bool) -> dict[str, Callable[[], Run]]:
    """Ways from a str to what is sent. Each starts without history."""
    encoded = [text.encode() for text in texts]

    def bare() -> Run:
        def run() -> None:
            packer = zlib.compressobj(wbits=-15)
            for data in itertools.islice(itertools.cycle(encoded), count):
                if not takeover:
                    del packer  # first, as a session does: it matters to the allocator
                    packer = zlib.compressobj(wbits=-15)
                packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)[:-4]

        return run

    def session() -> Run:
        process = pipeline(takeover).process_outgoing

        def run() -> None:
            for data in itertools.islice(itertools.cycle(encoded), count):
                process(Message(1, data))

        return run

    def driver(compressed: bool = True) -> Run:
        build = Hybi(pipeline=pipeline(takeover) if compressed else None).message

        def run() -> None:
            for text in itertools.islice(itertools.cycle(texts), count):
                build(text)

        return run

    return {"zlib": bare, "session": session, "driver": driver, "plain": lambda: driver(False)}


def incoming(texts: list[str], count: int, takeover: bool) -> dict[str, Callable[[], Run]]:
    """Ways from what has arrived to a str; frames are masked, as those of clients are."""
    key = b"\x37\xfa\x21\x3d"
    sender = pipeline(takeover)
    packed = [
        sender.process_outgoing(Message(1, text.encode())).data
        for text in itertools.islice(itertools.cycle(texts), count)
    ]
    framed = [build_frame(0xC1, data, key) for data in packed]
    plain_frames = [build_frame(0x81, text.encode(), key) for text in texts]

    def bare() -> Run:
        def run() -> None:
            reader = zlib.decompressobj(-15)
            for data in packed:
                if not takeover:
                    del reader
                    reader = zlib.decompressobj(-15)
                reader.decompress(data + TAIL)

        return run

    def session() -> Run:
        process = pipeline(takeover).process_incoming

        def run() -> None:
            for data in packed:
                process(Message(1, data, True))

        return run

    def driver(compressed: bool = True) -> Run:
        one = Hybi(pipeline=pipeline(takeover) if compressed else None)
        frames = framed if compressed else plain_frames

        def run() -> None:
            for frame in itertools.islice(itertools.cycle(frames), count):
                one.receive_data(frame)

        return run

    return {"zlib": bare, "session": session, "driver": driver, "plain": lambda: driver(False)}


def cases() -> Iterator[Case]:
    for size, count in ((1024, 1000), (65536, 24)):
        texts = [message(size, seed) for seed in range(VARIETY)]
        for takeover in (True, False):
            title = f"{size >> 10} KiB, {'takeover' if takeover else 'no takeover'}"
            yield Case(f"compress {title}", outgoing(texts, count, takeover), count)
            yield Case(f"decompress {title}", incoming(texts, count, takeover), count)


def seconds(prepare: Callable[[], Run]) -> float:
    run = prepare()
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        run()
        return time.process_time() - start
    finally:
        gc.enable()


def measure_time(case: Case, rounds: int) -> dict[str, float]:
    """Microseconds a message for each way, and the medians of their ratios to zlib's."""
    taken: dict[str, list[float]] = {way: [] for way in case.ways}
    for number in range(rounds + 1):
        for way in list(case.ways) if number % 2 else reversed(list(case.ways)):
            taken[way].append(seconds(case.ways[way]))
    found = {}
    for way, times in taken.items():
        found[way] = statistics.median(times[1:]) / case.count * 1e6
        ratios = [one / base for one, base in zip(times[1:], taken["zlib"][1:])]
        found[f"{way} ratio"] = statistics.median(ratios)
    return found


# ---------------------------------------------------------------- the command


def print_time(title: str, found: dict[str, float]) -> None:
    added = "".join(
        f"{found[way]:9.1f} {100 * (found[f'{way} ratio'] - 1):+6.1f}%"
        for way in ("session", "driver")
    )
    print(f"{title:34}{found['zlib']:9.1f}{added}{found['plain']:9.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.deflate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--connections", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.serve:
        serve()
        return
    figures: dict[str, Any] = {"memory": {}, "time": {}}
    print(f"Memory of the worker, KiB for each of {options.connections} connections")
    for kind in HELD:
        figures["memory"][kind.title] = measure_memory(kind, options.connections)
        print(f"{kind.title:34}{figures['memory'][kind.title]:9.1f}", flush=True)
    print("\nProcessor time, microseconds a message (added to zlib)")
    print(f"{'':34}{'zlib':>9}{'session':>17}{'driver':>17}{'plain':>9}")
    for case in cases():
        figures["time"][case.title] = measure_time(case, options.rounds)
        print_time(case.title, figures["time"][case.title])
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
