"""Extensions of a third party, written from the docstrings of faye_wsgi.extensions.base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from faye_wsgi.extensions.base import Extension, Message, Parameters


class Reverse(Extension):
    """``permessage-x``: sends messages backwards, marked with RSV2."""

    name = "permessage-x"
    rsv2 = True

    def create_client_session(self) -> ReverseSession:
        return ReverseSession()

    def create_server_session(self, offers: Sequence[Parameters]) -> ReverseSession:
        return ReverseSession()


class ReverseSession:
    """One connection of Reverse; it has no memory."""

    max_length = 0

    def generate_offer(self) -> dict[str, bool]:
        return {}

    def activate(self, params: Parameters) -> bool:
        return not params

    def generate_response(self) -> dict[str, bool]:
        return {}

    def process_incoming_message(self, message: Message) -> Message:
        if not message.rsv2:
            return message
        return Message(message.opcode, message.data[::-1], rsv1=message.rsv1)

    def process_outgoing_message(self, message: Message) -> Message:
        message.rsv2 = True
        message.data = message.data[::-1]
        return message

    def close(self) -> None:
        pass


class Fake(Extension):
    """Does what a test says, and writes down what was asked of it in ``calls``.

    ``offer``, ``response`` and ``accepts`` are the answers of its sessions; ``error`` is
    raised by both directions and by ``close``.
    """

    def __init__(
        self,
        name: str,
        rsv: str = "",
        *,
        offer: Any = None,
        response: Any = None,
        accepts: Any = True,
        declines: bool = False,
        error: Exception | None = None,
        calls: list[Any] | None = None,
    ) -> None:
        self.name = name
        self.rsv1, self.rsv2, self.rsv3 = ("1" in rsv, "2" in rsv, "3" in rsv)
        self.offer, self.response = offer, response
        self.accepts, self.declines, self.error = accepts, declines, error
        self.calls = [] if calls is None else calls

    def create_client_session(self) -> Any:
        return None if self.declines else FakeSession(self)

    def create_server_session(self, offers: Sequence[Parameters]) -> Any:
        self.calls.append((self.name, list(offers)))
        return None if self.declines else FakeSession(self)


class FakeSession:
    """A session of Fake; it marks the data with its extension's name."""

    max_length = 0

    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    def generate_offer(self) -> Any:
        return self.fake.offer

    def generate_response(self) -> Any:
        return self.fake.response or {}

    def activate(self, params: Parameters) -> Any:
        self.fake.calls.append((self.fake.name, params))
        return self.fake.accepts

    def process_incoming_message(self, message: Message) -> Message:
        return self._process("in", message)

    def process_outgoing_message(self, message: Message) -> Message:
        return self._process("out", message)

    def close(self) -> None:
        self._process("close", Message(1, b""))

    def _process(self, what: str, message: Message) -> Message:
        self.fake.calls.append((self.fake.name, what))
        if self.fake.error:
            raise self.fake.error
        message.data += self.fake.name.encode()
        return message
