"""The count of the connections that this process serves."""

from __future__ import annotations

import gc
import os

from faye_wsgi.transport import served
from faye_wsgi.transport.iterable import Body, IterableStream
from faye_wsgi.transport.settings import Settings

from .harness import Sink


def make_stream() -> IterableStream:
    stream = IterableStream(Sink(), Settings(), b":\n")
    served.enter(stream)
    return stream


def test_what_enters_leaves_once() -> None:
    before = served.count()
    streams = [make_stream(), make_stream()]
    assert served.count() == before + 2
    served.leave(streams[0])
    served.leave(streams[0])
    assert served.count() == before + 1
    served.leave(streams[1])
    assert served.count() == before


def test_a_stream_through_the_iterable_leaves_at_its_end() -> None:
    before = served.count()
    body = Body(make_stream())
    iter(body)
    assert served.count() == before + 1
    body.close()
    assert served.count() == before


def test_what_never_ends_leaves_when_it_is_collected() -> None:
    before = served.count()
    stream = make_stream()
    del stream
    gc.collect()
    assert served.count() == before


def test_the_child_of_a_fork_serves_none() -> None:
    stream = make_stream()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, b"%d" % served.count())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 9) == b"0"
    os.close(reading)
    os.close(writing)
    assert served.count() >= 1
    served.leave(stream)
