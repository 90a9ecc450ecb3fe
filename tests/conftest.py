"""What every test shares: hypothesis draws the same examples in every run, and takes the time it needs.

`--hypothesis-profile=explore` draws others: many more, new ones each time, with failures kept in `.hypothesis`.
"""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["pytester"]

settings.register_profile("migemu", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("migemu")
