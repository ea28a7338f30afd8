"""Tests of faye_wsgi.transport: sockets, time and load."""
