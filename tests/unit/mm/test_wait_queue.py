"""Who waits where: by address in order, whatever the order in which they fell asleep and were woken."""

from __future__ import annotations

from random import Random

from migemu.mm.uffd_msg import UffdMsg, UffdPagefault, WaitQueue


def test_the_addresses_in_a_range_are_those_at_which_somebody_waits() -> None:
    """Against a list, over a drawn history of falling asleep and being woken."""
    rng, queue, asleep = Random(1), WaitQueue(), dict[int, int]()
    for step in range(2000):
        start = rng.randrange(40)
        end = rng.randrange(start, 41)
        expected = sorted({address for address in asleep.values() if start <= address < end})
        assert queue.addresses(start, end) == expected
        if step % 3:
            vcpu, address = step, rng.randrange(40)
            queue.sleep(vcpu, address, UffdMsg(address, UffdPagefault.MINOR, vcpu))
            asleep[vcpu] = address
        else:
            woken = [waiter.vcpu for waiter in queue.take(expected)]
            assert sorted(woken) == sorted(vcpu for vcpu, address in asleep.items() if address in expected)
            for vcpu in woken:
                del asleep[vcpu]
        assert len(queue) == len(asleep)
