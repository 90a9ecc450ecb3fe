"""What the shell offers at TAB: every name that a command takes, and the values behind it."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

from migemu.cli.main import main

#: What stands in front of the cursor, what is typed of its word, and what has to be offered (not all of it).
OFFERED = [
    ([], "st", {"status"}),
    (["sim"], "--per", {"--perfetto"}),
    (["sim", "--set"], "link.ra", {"link.rate="}),
    (["sim", "--set"], "costs.", {"costs.mapcount=", "costs.lock=", "costs.handler=", "costs.place="}),
    (["sim", "--set"], "costs.mapcount=", {"costs.mapcount=head_only", "costs.mapcount=thp_like"}),
    (["sim", "--set"], "pull.preempt=o", {"pull.preempt=on", "pull.preempt=off"}),
    (["sim", "--set"], "link.preset=W", {"link.preset=WAN"}),
    (["sim", "--set"], "collapse.policy=b", {"collapse.policy=budget", "collapse.policy=batched"}),
    (["sim", "--set"], "guest.workload=zipf:", {"guest.workload=zipf:exponent=", "guest.workload=zipf:scatter="}),
    (["sim", "--set"], "guest.workload=zipf:exponent=1,", {"guest.workload=zipf:exponent=1,scatter="}),
    (["sim", "--set"], "guest.workload=zipf:scatter=", {"guest.workload=zipf:scatter=on"}),
    (["list"], "map", {"mapcount"}),
    (["list", "policy"], "", {"eager", "budget", "never"}),
    (["sweep", "run"], "hgm", {"hgm_question"}),
    (["check", "--rule"], "no_hole", {"no_hole_collapsed"}),
    (["check", "--wrong"], "collapse_b", {"collapse_before_received"}),
    (["compare", "a", "b", "--metric"], "fault.p99", {"fault.p99_ns"}),
    (["compare", "a", "b", "--fail-if"], "lost", {"lost_ns.mean"}),
    (["report", "a", "--objective"], "la", {"latency"}),
    (["reproduce"], "qemu-p", {"qemu-preempt"}),
    (["completion"], "", {"bash", "zsh", "fish"}),
]


@pytest.mark.parametrize(
    ("words", "typed", "offered"), OFFERED, ids=lambda each: "" if isinstance(each, set) else str(each)[:50]
)
def test_names_and_values_are_offered(words: list[str], typed: str, offered: set[str]) -> None:
    found = {item.value for item in ShellComplete(main, {}, "migemu", "_MIGEMU_COMPLETE").get_completions(words, typed)}
    assert offered <= found
    assert all(value.startswith(typed) for value in found)


def test_a_setting_that_is_there_is_not_offered_again() -> None:
    completion = ShellComplete(main, {}, "migemu", "_MIGEMU_COMPLETE")
    items = completion.get_completions(["sim", "--set"], "guest.workload=zipf:exponent=1,")
    assert "guest.workload=zipf:exponent=1,exponent=" not in {item.value for item in items}


@pytest.mark.parametrize("setting", ["memory.image", "security.psk_file"])
def test_where_a_file_is_wanted_files_are_offered(setting: str) -> None:
    completion = ShellComplete(main, {}, "migemu", "_MIGEMU_COMPLETE")
    (item,) = completion.get_completions(["sim", "--set"], f"{setting}=/var")
    assert item.type == "file"
