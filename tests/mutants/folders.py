"""What is mutated, and which tests have to notice: narrow ones, which fail at once where they fail."""

from __future__ import annotations

from typing import Final

#: Folder of the program, and what pytest is given: the unit and property tests of that folder.
TESTS_OF: Final[dict[str, tuple[str, ...]]] = {
    "dest_node/core": (
        "tests/unit/dest_node/test_announced.py",
        "tests/unit/dest_node/test_leaves.py",
        "tests/unit/dest_node/test_receiver.py",
        "tests/unit/dest_node/test_receiver_collapses.py",
        "tests/unit/dest_node/test_receiver_recovers.py",
        "tests/unit/dest_node/test_receiver_without_hgm.py",
        "tests/unit/dest_node/test_integrity.py",
        "tests/property/test_pump.py",
    ),
    "source_node/core": ("tests/unit/source_node", "tests/property/test_pump.py"),
    "migemu/policy": (
        "tests/unit/policy",
        "tests/property/test_policy_push.py",
        "tests/property/test_policy_collapse.py",
    ),
    "migemu/wire": ("tests/unit/wire", "tests/property/test_wire_split.py", "tests/property/test_wire_states.py"),
    "migemu/mm": ("tests/unit/mm",),  # its histories take minutes each where every call is noted
}
#: They read the program's source, which is not the program's when it is mutated.
READ_THE_SOURCE: Final = ("tests/unit/mm/test_semantics.py", "tests/unit/mm/test_imports.py")
