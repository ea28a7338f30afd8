"""Tests of faye_wsgi.brokers: one contract, and what each engine has of its own."""
