"""What a policy must stand: every order of events, migrations drawn from seeds, and a whole one in virtual time."""

from hot_first import HotFirst

import migemu


def test_no_order_of_events_breaks_it(migemu_explore):
    migemu_explore(HotFirst)


def test_no_migration_drawn_from_a_seed_breaks_it(migemu_scenario):
    assert len(migemu_scenario({"push.order": "random"}, policy=HotFirst, seeds=20)) == 20


def test_it_is_found_by_its_name_and_collapses_what_is_hot_first():
    settings = {"memory.size": "1G", "guest.vcpus": 8, "link.preset": "25G", "return_link.preset": "25G"}
    hot, end = (
        migemu.simulate(settings, {"collapse.policy": policy}, seed=1) for policy in ("hot_first:faults=2", "at_end")
    )
    assert hot.verified
    assert migemu.check(hot)
    assert hot.collapse.to_2M > end.collapse.to_2M == 0
    assert hot.page_table.pud == end.page_table.pud == 1
