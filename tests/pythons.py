"""Other Pythons of this machine, for what has to be the same on each of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Final

#: What migemu cannot run without.
NEEDED: Final = "attrs, click, jinja2, msgpack, numpy, plotly, rich, uvloop, xxhash"


def other_pythons(needed: str = NEEDED) -> dict[tuple[int, int], str]:
    """Version -> path of those on the path, and in MIGEMU_PYTHONS (divided by colons), that have what is needed."""
    named = [shutil.which(f"python3.{minor}") for minor in range(11, 20)]
    found: dict[tuple[int, int], str] = {}
    for path in (*filter(None, os.environ.get("MIGEMU_PYTHONS", "").split(":")), *filter(None, named)):
        asked = f"import sys, {needed}; assert sys.version_info >= (3, 11); print(*sys.version_info[:2])"
        done = subprocess.run([path, "-c", asked], capture_output=True, text=True, check=False)
        if not done.returncode:
            major, minor = map(int, done.stdout.split())
            if (major, minor) != sys.version_info[:2]:
                found.setdefault((major, minor), path)
    return found
