"""Runs one of the servers that have no command line of their own on a socket it is handed.

    python -m tests.support.launch KIND --fd=N --access-logfile=FILE [--certfile= --keyfile=] APP

The server itself is the real one. Only where its access log goes is ours: to a file of its
own, so that what is left on standard error is worth a look.
"""

from __future__ import annotations

import sys

# Before anything that could import a socket.
if sys.argv[1:2] == ["pywsgi"]:
    from gevent import monkey

    monkey.patch_all()

import argparse
import importlib
import logging
import socket
import ssl
import threading
from typing import Any


def main() -> None:
    arguments = parse_arguments()
    threading.current_thread().name = arguments.kind
    RUNNERS[arguments.kind](arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=sorted(RUNNERS))
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--access-logfile", required=True)
    parser.add_argument("--certfile")
    parser.add_argument("--keyfile")
    parser.add_argument("app")
    return parser.parse_args()


def load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute or "application")


def tls_context(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    if not arguments.certfile:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.certfile, arguments.keyfile)
    return context


def listener(arguments: argparse.Namespace) -> socket.socket:
    return socket.socket(fileno=arguments.fd)


def split_log(name: str, path: str) -> None:
    """Sends a server's lines about requests to the file, and its warnings to standard error."""
    logger = logging.getLogger(name)
    access, errors = logging.FileHandler(path), logging.StreamHandler()
    access.addFilter(lambda record: record.levelno <= logging.INFO)
    errors.setLevel(logging.WARNING)
    logger.handlers[:] = [access, errors]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def run_pywsgi(arguments: argparse.Namespace) -> None:
    import gevent.pywsgi
    import gevent.socket

    options: dict[str, Any] = {}
    if arguments.certfile:
        options = {"certfile": arguments.certfile, "keyfile": arguments.keyfile}
    sock = gevent.socket.socket(fileno=arguments.fd)
    with open(arguments.access_logfile, "a", buffering=1) as access:
        app = load(arguments.app)
        gevent.pywsgi.WSGIServer(sock, app, log=access, **options).serve_forever()


def run_flask(arguments: argparse.Namespace) -> None:
    """What `flask run` and `app.run()` start: Werkzeug's server, with threads."""
    from werkzeug.serving import make_server

    split_log("werkzeug", arguments.access_logfile)
    sock = listener(arguments)
    name = sock.getsockname()
    host, port = ("unix://" + name, 0) if isinstance(name, str) else name[:2]
    make_server(
        host,
        port,
        load(arguments.app),
        threaded=True,
        fd=arguments.fd,
        ssl_context=tls_context(arguments),
    ).serve_forever()


def run_wsgiref(arguments: argparse.Namespace) -> None:
    import socketserver
    import wsgiref.simple_server as simple

    access = open(arguments.access_logfile, "a", buffering=1)

    class Handler(simple.WSGIRequestHandler):
        def log_request(self, code: Any = "-", size: Any = "-") -> None:
            access.write(f'"{self.requestline}" {code} {size}\n')

    class Threaded(socketserver.ThreadingMixIn, simple.WSGIServer):
        daemon_threads = True

    plain = arguments.kind == "wsgiref-single"
    server = (simple.WSGIServer if plain else Threaded)(
        ("127.0.0.1", 0), Handler, bind_and_activate=False
    )
    server.socket.close()
    server.socket = listener(arguments)
    context = tls_context(arguments)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.server_name, server.server_port = server.socket.getsockname()[:2]
    server.setup_environ()
    server.set_app(load(arguments.app))
    server.serve_forever()


def run_django(arguments: argparse.Namespace) -> None:
    """`manage.py runserver --noreload`, on our socket."""
    load(arguments.app)
    from django.core.management import execute_from_command_line
    from django.core.management.commands import runserver
    from django.core.servers.basehttp import WSGIServer
    from django.db import connections

    sock = listener(arguments)

    class Handed(WSGIServer):
        def server_bind(self) -> None:
            connections.close_all()  # Django 4.2 keeps the one that looked for migrations
            self.socket.close()
            self.socket = sock
            self.server_address = sock.getsockname()
            self.server_name, self.server_port = self.server_address[:2]
            self.setup_environ()

    runserver.Command.server_cls = Handed
    split_log("django.server", arguments.access_logfile)
    host, port = sock.getsockname()[:2]
    execute_from_command_line(["manage.py", "runserver", "--noreload", f"{host}:{port}"])


RUNNERS = {
    "pywsgi": run_pywsgi,
    "pywsgi-unpatched": run_pywsgi,
    "flask": run_flask,
    "wsgiref": run_wsgiref,
    "wsgiref-single": run_wsgiref,
    "django": run_django,
}

if __name__ == "__main__":
    main()
