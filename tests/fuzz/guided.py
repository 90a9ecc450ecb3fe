"""`python -m tests.fuzz.guided SECONDS SEED`: the same targets under atheris (libFuzzer), led by coverage.

A process of its own, because libFuzzer ends the one it runs in. What it learns is kept in memory only; what it finds is
written as our own campaign does.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["migemu.wire", "migemu.link.psk", "migemu.link.gate", "migemu.store"]):
    from tests.fuzz import campaign, seeds
    from tests.fuzz.mutation import INPUT_BYTES_MAX, Mutation
    from tests.fuzz.tally import Tally
    from tests.fuzz.targets import judge

_TALLY = Tally()


def _one(data: bytes) -> None:
    try:
        judge(data, _TALLY)
    except Exception as error:
        print(campaign.kept(data, error), flush=True)
        os._exit(1)  # what libFuzzer would say is said already


def _changed(data: bytes, bytes_max: int, seed: int) -> bytes:
    """libFuzzer's bytes, changed by what we know of frames, or by what it knows itself."""
    random = Random(seed)
    if not data or random.random() < 0.4:
        return atheris.Mutate(data, bytes_max)
    return Mutation(random, seeds.HEADERS).input(data)[:bytes_max]


def main(seconds: str, seed: str) -> None:
    """From the corpus and the honest inputs, for so many seconds."""
    number = int.from_bytes(seed.encode()[-3:], "big") or 1
    with tempfile.TemporaryDirectory(prefix="migemu-fuzz-") as folder:
        for name, data in {**seeds.honest_inputs(), **seeds.lies(), **seeds.corpus()}.items():
            Path(folder, name).write_bytes(data)
        for number_of, part in enumerate(seeds.FRAMES):
            start = seeds.ALLOWED[number_of][0]
            Path(folder, f"stream-{number_of}").write_bytes(seeds.stream(start, 0, 0, part.bytes()))
        options = [
            f"-max_total_time={seconds}", f"-seed={number}", f"-max_len={INPUT_BYTES_MAX}", "-timeout=5",
            "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={folder}/",
        ]  # fmt: skip
        atheris.Setup([sys.argv[0], *options, folder], _one, custom_mutator=_changed)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:3])
