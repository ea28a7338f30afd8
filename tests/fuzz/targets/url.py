"""URLs: those of users, and those that a redirect names."""

from __future__ import annotations

from ..packages import PURE

BASES = [PURE("http.url").parse_url(one) for one in ("ws://user:word@host:81/a?b", "wss://[::1]/")]


def check(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    module = PURE("http.url")
    for parse in (
        module.parse_url,
        lambda text: module.parse_url(text, module.HTTP_SCHEMES),
        lambda text: module.resolve(BASES[0], text),
        lambda text: module.resolve(BASES[1], text),
    ):
        try:
            url = parse(text)
        except ValueError:
            continue
        written = f"{url.target}{url.host_header}{url.authority}{url.authorization}"
        assert written.isascii() and not set("\r\n\0\t") & set(written), written
        assert " " not in url.target and url.target.startswith("/")
        assert 0 <= url.port < 65536
        if not url.path:
            again = module.parse_url(str(url), [url.scheme])
            assert (again.host, again.port, again.target) == (
                url.host.partition("%")[0],
                url.port,
                url.target,
            )
