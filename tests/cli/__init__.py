"""Tests of the endpoint of Channels."""
