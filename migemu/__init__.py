"""migemu: post-copy live migration of 1 GB hugetlb pages, emulated.

The house has three doors: the command line (`migemu --help`), the two nodes (`source_node`, `dest_node`), and this
library, whose rooms are listed in the README. Nothing is imported here, so that `import migemu` stays free of charge.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("migemu")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"
