"""migemu: post-copy live migration of 1 GB hugetlb pages, emulated.

The house has three doors: the command line (`migemu --help`), the two nodes (`source_node`, `dest_node`), and this
library, whose rooms are listed in the README. Nothing is imported here, so that `import migemu` stays free of charge.
"""


def __getattr__(name: str) -> str:
    """`__version__`, when somebody asks for it."""
    if name != "__version__":
        raise AttributeError(f"module 'migemu' has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("migemu")
    except PackageNotFoundError:  # running from a source tree that was never installed
        return "0+unknown"
