"""Hypothesis for all tests: the same examples each time, and no deadline (a first import of scipy is slow)."""

from hypothesis import settings

settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")
