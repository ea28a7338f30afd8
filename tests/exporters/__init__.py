"""Tests of where metrics go."""
