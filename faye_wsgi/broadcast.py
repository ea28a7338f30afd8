"""One message to many connections: its frame is built, and compressed, once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Union

from faye_wsgi.endpoint import Endpoint

__all__ = ['broadcast']

Message = Union[str, bytes, bytearray, memoryview]


def broadcast(connections: Iterable[Endpoint], message: Message) -> list[Endpoint]:
    """Send ``message`` to all ``connections`` that are open, and wait for none of them.

    ``str`` goes as text, anything else as binary; TypeError for what is neither. Before
    open it is kept and sent at open; a closing or closed connection is passed over, and so
    is one of the drafts where the message is binary, which they do not have.

    Returns the connections that did not get it, because more than their ``high_water``
    waits for the peer already: close them, or send to them once more at their ``drain``
    event. Connections of other threads count as open until they are known not to be.

    With permessage-deflate the message is compressed without regard to earlier ones, once
    for all connections that agreed on the same parameters (RFC 7692 §7.2.1).
    """
    if isinstance(message, (bytearray, memoryview)):
        message = bytes(message)
    if not isinstance(message, (str, bytes)):
        raise TypeError(f'a message to many is str or bytes, not {type(message)}')
    shared: dict[Any, Any] = {}
    # A copy, since other threads may add to a set meanwhile.
    return [one for one in tuple(connections) if not one._outbox.send_shared(message, shared)]
