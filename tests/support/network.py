"""A network of our own that loses, delays and reorders packets, and whose cable can be pulled.

A network namespace has one TUN device. What is sent to FAR comes out of it as IP packets, and goes
back in with the two addresses exchanged: so it arrives at NEAR, from FAR. (An exchange does not
change a checksum.) In between is a thread, and a ``Line`` says what it does to the packets. Both
ends of a connection are in the namespace, with the kernel's own TCP.

It needs root, and /dev/net/tun; ``netem`` of tc does the same, and is missing in many kernels.
DANGER: a namespace belongs to a thread. What the thread starts, threads (also those of gevent's
pools) and processes, stays inside for ever. So a ``Laboratory`` has a thread of its own, with a hub
of its own, which ends with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

import gevent
import pytest

from .servers import serve

__all__ = ["FAR", "NEAR", "Laboratory", "Line"]

T = TypeVar("T")

NEAR, FAR = "10.99.0.1", "10.99.0.2"  # where servers listen, and where clients find them
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
TCP, RST = 6, 0x04

libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Line:
    """What happens to a packet. All of it may be changed at any time."""

    loss: float = 0.0  # the share of packets that are lost
    delay: float = 0.0  # seconds
    jitter: float = 0.0  # seconds more, at most: packets overtake each other
    is_cut: bool = False  # the cable is pulled
    cut_after: int | None = None  # it will be, after so many packets
    reset_after: int | None = None  # after so many packets with data, the next one becomes a RST
    packets: int = 0  # that have come, up to now

    def take(self, packet: bytes, dice: random.Random) -> bytes | None:
        """The packet that arrives on the other side; None where it is lost."""
        self.packets += 1
        if self.cut_after is not None:
            self.cut_after -= 1
            if self.cut_after < 0:
                self.is_cut, self.cut_after = True, None
        if self.is_cut or dice.random() < self.loss:
            return None
        packet = turned(packet)
        if self.reset_after is not None and has_data(packet):
            self.reset_after -= 1
            if self.reset_after < 0:
                self.reset_after = None
                return as_reset(packet)
        return packet


class Laboratory:
    """A thread inside of such a network, and a server there. It runs what a test hands to it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """The arguments are those of ``serve``."""
        self._thread = ThreadPoolExecutor(1)
        self._stack = contextlib.ExitStack()
        self._arguments = arguments, options
        self.line = Line()

    def __enter__(self) -> Laboratory:
        try:
            self.run(self._begin)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        self._stack.enter_context(network(self.line))
        arguments, options = self._arguments
        self.server = self._stack.enter_context(serve(*arguments, host=NEAR, **options))

    def __exit__(self, *error: object) -> None:
        self._thread.submit(self._end).result(60)
        self._thread.shutdown()

    def _end(self) -> None:
        self._stack.close()
        gevent.get_hub().destroy(destroy_loop=True)

    def run(self, act: Callable[..., T], *arguments: Any, timeout: float = 60.0) -> T:
        """What ``act`` returns, inside of the network; TimeoutError where it does not end."""

        def bounded() -> T:
            with gevent.Timeout(timeout, TimeoutError(f"not done within {timeout} s")):
                return act(*arguments)

        return self._thread.submit(bounded).result(timeout + 30)


@contextlib.contextmanager
def network(line: Line, seed: int = 1) -> Iterator[None]:
    """The calling thread goes into a namespace with such a network, or the test is skipped."""
    with contextlib.ExitStack() as stack:
        if libc.unshare(CLONE_NEWNET):
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        device = stack.enter_context(tun())
        stop, ask = os.pipe()
        stack.callback(os.close, stop)
        relay = threading.Thread(target=carry, args=(device, stop, line, random.Random(seed)))
        relay.start()
        stack.callback(relay.join)
        stack.callback(os.close, ask)
        yield


@contextlib.contextmanager
def tun() -> Iterator[int]:
    """The descriptor of the device, which is up, as the loopback is."""
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        pytest.skip(f"no TUN device: {error}")
    try:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"fault0", IFF_TUN | IFF_NO_PI))
        for command in (
            "link set lo up",
            f"address add {NEAR}/24 dev fault0",
            "link set fault0 mtu 1500 up",
        ):
            subprocess.run(["ip", *command.split()], check=True, timeout=10)
    except (OSError, subprocess.CalledProcessError) as error:
        os.close(device)
        pytest.skip(f"no TUN device: {error}")
    try:
        yield device
    finally:
        os.close(device)


def carry(device: int, stop: int, line: Line, dice: random.Random) -> None:
    """Take packets out of the device and put them back in, until ``stop`` is closed."""
    waiting: list[tuple[float, int, bytes]] = []  # when, in which order, what
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select([device, stop], [], [], timeout)
        if stop in readable:
            return
        if device in readable:
            packet = os.read(device, 65536)
            if packet[0] >> 4 == 4:  # IPv6 has things to say of its own
                arriving = line.take(packet, dice)
                if arriving is not None:
                    at = time.monotonic() + line.delay + dice.uniform(0, line.jitter)
                    heapq.heappush(waiting, (at, line.packets, arriving))
        while waiting and waiting[0][0] <= time.monotonic():
            packet = heapq.heappop(waiting)[2]
            with contextlib.suppress(OSError):  # its queue is full: lost
                os.write(device, packet)


# Packets: RFC 791 §3.1, RFC 9293 §3.1


def turned(packet: bytes) -> bytes:
    """The packet from the other side: its two addresses are exchanged."""
    return packet[:12] + packet[16:20] + packet[12:16] + packet[20:]


def has_data(packet: bytes) -> bool:
    head = (packet[0] & 15) * 4
    return packet[9] == TCP and len(packet) > head + (packet[head + 12] >> 4) * 4


def as_reset(packet: bytes) -> bytes:
    """A RST at the packet's sequence number, so that it is believed (RFC 9293 §3.5.3)."""
    head = (packet[0] & 15) * 4
    segment = packet[head : head + 12] + bytes([5 << 4, RST]) + bytes(6)
    pseudo = packet[12:20] + struct.pack("!BBH", 0, TCP, len(segment))
    segment = segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]
    header = packet[:2] + struct.pack("!H", head + len(segment)) + packet[4:10] + bytes(2)
    header += packet[12:head]
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + segment


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
