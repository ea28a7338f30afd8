"""Tests against other implementations of the protocol."""
