"""Settings for all tests: hypothesis without deadlines (a first import of scipy is slow), the same examples each time."""

from hypothesis import settings

settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")
