"""What holds for all tests."""

from hypothesis import settings

# A deadline per example would be a timed assertion: on a busy machine every test fails it once.
settings.register_profile("hibana", deadline=None)
settings.load_profile("hibana")
