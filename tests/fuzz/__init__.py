"""Bytes that nobody would send, and what must not come of them: `make fuzz`, `python -m tests.fuzz --help`.

An **input** is a few bytes: the letter of a target (`targets`), then what the target reads. All that it does follows
from those bytes, so that a file replays it. The corpus holds one interesting input a file, named target-why; they are
replayed by `make test`. What goes wrong is written to `corpus-crash/`, with the line that replays it.

Two ways to make inputs
    campaign   ours: frames of every kind, changed as `mutation` knows how. Fast, the same for the same seed, and blind:
               it does not learn from what it reaches
    guided     atheris (libFuzzer), where it is installed (`pip install -e '.[fuzz]'`): keeps what reaches new code, and
               changes it further; by the same mutations, and by its own

What may not happen: any error but PeerError (VersionError is one), more work than the bytes are worth, a buffer or a
landing outside of what was announced, another meaning because the bytes were cut elsewhere, memory that grows; and of
whole nodes (`nodes`), that one does not come to an end, or believes a verdict on other bytes.
"""
