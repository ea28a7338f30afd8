"""Tests of faye_wsgi.extensions: messages in, messages out, no connection."""
