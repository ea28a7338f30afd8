"""The public names: there, listed, and loaded only when they are asked for."""

from __future__ import annotations

import pytest

import faye_wsgi
from faye_wsgi.extensions.permessage_deflate import PermessageDeflate, permessage_deflate

from .test_layers import fresh_python

PROMISED = {
    "WebSocket",
    "Client",
    "EventSource",
    "WebSocketError",
    "HandshakeError",
    "ConnectionClosed",
    "ProtocolError",
    "ExtensionError",
    "HijackError",
    "permessage_deflate",
}


def test_promised_names_are_public() -> None:
    assert set(faye_wsgi.__all__) >= PROMISED


@pytest.mark.parametrize("name", sorted(PROMISED | set(getattr(faye_wsgi, "__all__", ()))))
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(faye_wsgi, name) is not None
    assert name in dir(faye_wsgi)


def test_star_import() -> None:
    names: dict[str, object] = {}
    exec("from faye_wsgi import *", names)
    assert set(faye_wsgi.__all__) <= set(names)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        faye_wsgi.no_such_name  # noqa: B018


def test_version() -> None:
    parts = faye_wsgi.__version__.split(".")
    assert len(parts) == 3 and all(part.isdigit() for part in parts)


def test_as_in_faye() -> None:
    assert faye_wsgi.WebSocket.Client is faye_wsgi.Client
    assert faye_wsgi.WebSocket.EventSource is faye_wsgi.EventSource


def test_extensions_are_public_under_both_names() -> None:
    assert faye_wsgi.permessage_deflate is permessage_deflate
    assert faye_wsgi.PermessageDeflate is PermessageDeflate


def test_importing_the_package_loads_nothing() -> None:
    loaded = "{'gevent', 'greenlet', 'webob', 'h11', 'flask', 'django'}"
    script = f"import faye_wsgi, sys; print(*sorted({loaded} & set(sys.modules)))"
    assert fresh_python(script) == ""


def test_dir_loads_nothing() -> None:
    script = "import faye_wsgi, sys; dir(faye_wsgi); print('gevent' in sys.modules)"
    assert fresh_python(script) == "False"


def test_frameworks_stay_out() -> None:
    """Only faye_wsgi.flask and faye_wsgi.django know a framework."""
    script = (
        "import sys; from faye_wsgi import *\n"
        "print(*sorted({'flask', 'django', 'gunicorn', 'werkzeug'} & set(sys.modules)))"
    )
    assert fresh_python(script) == ""
