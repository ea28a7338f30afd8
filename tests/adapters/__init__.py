"""Tests of faye_wsgi on real WSGI servers."""
