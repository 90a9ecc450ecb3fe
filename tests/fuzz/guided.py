"""`python -m tests.fuzz.guided SECONDS SEED FOLDER`: the same targets under atheris (libFuzzer), led by coverage.

A process of its own, because libFuzzer ends the one it runs in. What it learns is written to FOLDER, what it finds to
where our own campaign writes it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(
    include=["migemu.wire", "migemu.transport.security.psk", "migemu.transport.security.handshake", "migemu.store"]
):
    from tests.fuzz import campaign, seeds
    from tests.fuzz.mutation import INPUT_BYTES_MAX, Mutation
    from tests.fuzz.tally import Tally
    from tests.fuzz.targets import judge

_TALLY = Tally()


def _one(data: bytes) -> int:
    """0, or -1: not worth keeping. Whole nodes are left to our own campaign: they are too slow to be led anywhere."""
    if data[:1] == b"N":
        return -1
    try:
        judge(data, _TALLY)
    except Exception as error:
        print(campaign.kept(data, error), flush=True)
        os._exit(1)  # what libFuzzer would say is said already
    return 0


def _changed(data: bytes, bytes_max: int, seed: int) -> bytes:
    """libFuzzer's bytes, changed by what we know of frames, or by what it knows itself."""
    random = Random(seed)
    if not data or random.random() < 0.4:
        return bytes(atheris.Mutate(data, bytes_max))
    return Mutation(random, seeds.HEADERS).input(data)[:bytes_max]


def main(seconds: str, seed: str, folder: str) -> None:
    """From the corpus and the honest inputs, for so many seconds. Does not return."""
    number = int.from_bytes(seed.encode()[-3:], "big") or 1
    corpus = Path(folder, "corpus")
    corpus.mkdir()
    for name, data in {**seeds.honest_inputs(), **seeds.lies(), **seeds.corpus()}.items():
        (corpus / name).write_bytes(data)
    for number_of, part in enumerate(seeds.FRAMES):
        start = seeds.ALLOWED[number_of][0]
        (corpus / f"stream-{number_of}").write_bytes(seeds.stream(start, 0, 0, part.bytes()))
    seeds.CRASHES.mkdir(exist_ok=True)
    options = [
        f"-max_total_time={seconds}", f"-seed={number}", f"-max_len={INPUT_BYTES_MAX}", "-timeout=5",
        "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={seeds.CRASHES}/",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], _one, custom_mutator=_changed)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:4])
