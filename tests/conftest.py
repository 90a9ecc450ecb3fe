"""What every test shares: hypothesis draws the same examples in every run, and takes the time it needs.

`--hypothesis-profile=explore` draws others: many more, new ones each time, with failures kept in `.hypothesis`.
"""

from __future__ import annotations

from hypothesis import Phase, settings

pytest_plugins = ["pytester"]

settings.register_profile("migemu", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None, max_examples=2000, print_blob=True)
settings.register_profile(  # of `make mutants`: a bug is either seen soon, or not; none is made small
    "mutants", derandomize=True, deadline=None, database=None, max_examples=20, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile("migemu")
