"""What the doctor looks at in the application, and in gunicorn's settings for it.

It reads the settings as gunicorn does (command line, GUNICORN_CMD_ARGS, file), by gunicorn's own
code, and imports the application as gunicorn does. It starts no server. Each check yields what it
has found: a ``Finding``, or a text where all is well.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Union

from gevent import monkey

from faye_wsgi.channels import Channels
from faye_wsgi.errors import BrokerError

__all__ = ["Finding", "Result", "check_application", "read_settings"]

SPARE = 100  # descriptors for pages, files and databases
OF_THREAD = 5  # descriptors of a connection on a threaded server
PATCHED = ("select", "socket", "ssl", "threading", "time")


class Finding(NamedTuple):
    """Something that is wrong, and what to change; ``page`` of the handbook explains it."""

    message: str
    page: str


Result = Union[Finding, str]


def read_settings(arguments: Sequence[str], prog: str) -> Any:
    """gunicorn's application object for its command line: ``cfg`` has the settings.

    Raises ImportError where gunicorn is not installed. Where it would not start, it has said why
    on standard error, and this raises SystemExit.
    """
    from gunicorn.app.wsgiapp import WSGIApplication

    sys.argv = [prog, *arguments]  # gunicorn reads it, and the application may
    with _late_patching():
        application = WSGIApplication(f"{prog} [OPTIONS] [APP_MODULE]", prog=prog)
    for path in (application.cfg.pythonpath or "").split(","):
        if path:
            sys.path.insert(0, os.path.abspath(path))
    os.environ.update(application.cfg.env)
    return application


def check_application(application: Any) -> Iterator[Result]:
    """Import the application, and check it and the settings of its server."""
    settings = application.cfg
    kind = _kind_of(settings)
    yield from _check_worker(settings, kind)
    yield from _check_descriptors(settings, kind)
    try:
        with _late_patching():
            application.wsgi()
            _load_urls()
    except (Exception, SystemExit) as error:
        yield Finding(
            f"the application cannot be imported: {type(error).__name__}: {error} "
            f"({_place_of(error)}): gunicorn would not start it either",
            "servers.md#gunicorn",
        )
        return
    yield f"{application.app_uri} can be imported"
    if kind == "gevent":
        yield from _check_patching(settings)
    yield from _check_channels(settings.workers)


def _load_urls() -> None:
    """Django imports its URLs, and the views with them, when the first request comes."""
    conf, urls = sys.modules.get("django.conf"), sys.modules.get("django.urls")
    if conf and urls and conf.settings.configured:
        urls.get_resolver().url_patterns  # noqa: B018


@contextlib.contextmanager
def _late_patching() -> Iterator[None]:
    """The modules that this process has loaded are not those of a worker: gevent's warning of
    modules that were loaded before it has patched would be wrong here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", monkey.MonkeyPatchWarning)
        yield


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}"


# The server


def _kind_of(settings: Any) -> str:
    """'gevent', 'gthread', 'gevent-websocket', or '' for a class that takes no WebSocket."""
    try:
        bases = settings.worker_class.__mro__
    except (ImportError, RuntimeError):  # what it needs is not installed
        return ""
    if any(base.__module__.startswith("geventwebsocket") for base in bases):
        return "gevent-websocket"
    kinds = {"GeventWorker": "gevent", "ThreadWorker": "gthread"}
    return next((kinds[base.__name__] for base in bases if base.__name__ in kinds), "")


def _check_worker(settings: Any, kind: str) -> Iterator[Result]:
    name = settings.worker_class_str
    if kind == "gevent-websocket":
        yield Finding(
            f"the worker class {name} is gevent-websocket's, which answers handshakes before the "
            "application does: start gunicorn with -k gevent",
            "coming-from.md#gevent-websocket",
        )
    elif not kind:
        yield Finding(
            f"the worker class {name} cannot serve WebSockets: start gunicorn with -k gevent, and "
            "install gunicorn[gevent]",
            "servers.md#which-servers",
        )
    else:
        yield f"the worker class {name} serves WebSockets"


def _check_descriptors(settings: Any, kind: str) -> Iterator[Result]:
    if not kind:
        return
    count, name = settings.worker_connections, "worker_connections"
    each = 1
    if kind == "gthread":
        count, name, each = settings.threads, "threads", OF_THREAD
    needed = count * each + SPARE
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < needed:
        yield Finding(
            f"with {name} = {count} a worker may need {needed} descriptors, and ulimit -n is "
            f"{limit}: raise it (LimitNOFILE= in systemd)",
            "deployment.md#how-many-connections",
        )
    else:
        yield f"ulimit -n is enough for {name} = {count}"


def _check_patching(settings: Any) -> Iterator[Result]:
    """After the import. Without ``preload_app`` the worker patches before it, and all of it."""
    if not settings.preload_app:
        yield "gunicorn patches each worker before it imports the application"
        return
    missing = [name for name in PATCHED if not monkey.is_module_patched(name)]
    if len(missing) == len(PATCHED):
        yield Finding(
            "preload_app imports the application before gunicorn patches: write 'from gevent "
            "import monkey; monkey.patch_all()' at the top of gunicorn.conf.py",
            "deployment.md#restarts",
        )
    elif missing:
        yield Finding(
            f"monkey patching has left out {', '.join(missing)}: call monkey.patch_all() without "
            "arguments",
            "servers.md#what-blocks-a-process",
        )
    else:
        yield "the process is patched before its workers are forked"


# Channels


def _check_channels(workers: int) -> Iterator[Result]:
    # The library keeps no list of them, and needs none. Asking each object for its type, and not
    # by isinstance, runs no code of others: Flask's proxies raise outside of a request.
    gc.collect()  # those of an import that has thrown them away
    for channels in [one for one in gc.get_objects() if issubclass(type(one), Channels)]:
        if channels._url.startswith("memory:"):
            yield _check_memory(workers)
        else:
            yield _check_broker(channels)


def _check_memory(workers: int) -> Result:
    if workers > 1:
        return Finding(
            f"Channels('memory://') is for one process, and gunicorn has {workers} workers: "
            "configure Channels('redis://localhost:6379/0'), or run one worker",
            "channels.md#which-broker",
        )
    return "the Channels of memory:// have one worker"


def _check_broker(channels: Channels) -> Result:
    """Each call ends within the ``timeout`` of the Channels; the first that fails is the last."""
    try:
        for broker in channels._brokers:
            policy = broker.eviction_policy()
            if policy != "noeviction":
                return Finding(
                    f"a full Redis would delete messages, since its maxmemory-policy is {policy}: "
                    "set it to noeviction",
                    "channels.md#settings-of-redis",
                )
    except BrokerError as error:
        return Finding(
            f"{channels!r} cannot ask its broker: {error}: let this machine reach it",
            "errors.md#channels",
        )
    return f"{channels!r} reaches its broker"
