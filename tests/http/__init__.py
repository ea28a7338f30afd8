"""Tests of faye_wsgi.http: bytes in, values out, no server."""
