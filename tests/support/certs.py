"""A certificate authority made for the run, a server's certificate and a client's."""

from __future__ import annotations

import functools
import ssl
import tempfile
from pathlib import Path

import trustme


class Certificates:
    """The files in PEM form, and the contexts that are made of them."""

    def __init__(self, folder: Path) -> None:
        self.ca = str(folder / "ca.pem")
        self.cert, self.key = str(folder / "server.pem"), str(folder / "server.key")
        self.client_cert, self.client_key = str(folder / "client.pem"), str(folder / "client.key")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        server = authority.issue_cert("localhost", "127.0.0.1", "::1")
        _write(server, self.cert, self.key)
        _write(authority.issue_cert("client@localhost"), self.client_cert, self.client_key)

    def client_context(self, with_certificate: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if with_certificate:
            context.load_cert_chain(self.client_cert, self.client_key)
        return context

    def server_context(self, ask_for_certificate: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.cert, self.key)
        if ask_for_certificate:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _write(leaf: trustme.LeafCert, cert: str, key: str) -> None:
    leaf.private_key_pem.write_to_path(key)
    for index, blob in enumerate(leaf.cert_chain_pems):
        blob.write_to_path(cert, append=index > 0)


@functools.cache
def certificates() -> Certificates:
    """One set of certificates for the run."""
    return Certificates(Path(_folder().name))


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="faye_wsgi-certs-")
