"""Tests of faye_wsgi.driver: bytes in, events out, no server."""
