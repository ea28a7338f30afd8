"""The parts of an extension: messages, the base class, and the example in its docstring."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

import pytest

from faye_wsgi.extensions import base
from faye_wsgi.extensions.base import Extension, Message
from faye_wsgi.extensions.negotiation import ClientNegotiation, negotiate


@pytest.mark.parametrize(
    ("first", "opcode", "bits"),
    [
        (0x81, 1, (False, False, False)),
        (0x02, 2, (False, False, False)),
        (0xC1, 1, (True, False, False)),
        (0x22, 2, (False, True, False)),
        (0x91, 1, (False, False, True)),
        (0xF2, 2, (True, True, True)),
    ],
)
def test_a_message_of_a_frame(first: int, opcode: int, bits: tuple[bool, ...]) -> None:
    message = Message.from_frame(first, b"data")
    assert (message.opcode, message.data) == (opcode, b"data")
    assert (message.rsv1, message.rsv2, message.rsv3) == bits
    assert message.rsv == first & 0x70


def test_a_message_has_no_bits_by_itself() -> None:
    assert Message(1, b"").rsv == 0
    assert not hasattr(Message(1, b""), "__dict__")


def test_the_base_of_extensions_is_abstract() -> None:
    extension = Extension()
    assert extension.type == "permessage"
    assert not (extension.rsv1 or extension.rsv2 or extension.rsv3)
    with pytest.raises(NotImplementedError):
        extension.create_client_session()
    with pytest.raises(NotImplementedError):
        extension.create_server_session([{}])


def test_the_example_of_the_docstring_works() -> None:
    code = inspect.getdoc(base)
    assert code
    code = textwrap.dedent(code[code.index("    class Reverse(Extension)") :])
    names: dict[str, Any] = {"Extension": Extension}
    exec(code, names)

    client = ClientNegotiation([names["Reverse"]()])
    assert client.header == "permessage-reverse"
    server = negotiate([names["Reverse"]()], client.header, 100)
    assert server is not None and server.header == "permessage-reverse"
    pipeline = client.activate(server.header, 100)
    assert pipeline is not None
    assert pipeline.process_outgoing(Message(1, b"text")).data == b"text"
    sent = pipeline.process_outgoing(Message(2, b"binary"))
    assert (sent.data, sent.rsv) == (b"yranib", 0x20)
    assert server.process_incoming(Message.from_frame(0xA2, sent.data)).data == b"binary"
