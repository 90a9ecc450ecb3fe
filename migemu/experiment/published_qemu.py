"""Two series of QEMU by Peter Xu (Red Hat): page request latency with a preempt channel, and with HGM ("doublemap").

The names in brackets are those of `_REFERENCES`.

Both have the same machines as far as is known, so both share `_MACHINES`: one set of constants for all figures.
"""

from __future__ import annotations

from typing import Final

from migemu.experiment.publication import (
    Figure,
    Publication,
    PublishedSetting,
    Variant,
    assumed,
    count_between,
    mean_ns,
    publications,
    share_between,
)
from migemu.units import SECOND, US, format_time

_MACHINES: Final = (
    assumed(
        "link.preset", "10G", "10Gbps nic [full]; the rest not stated: 50 us one way [dctcp], a device queue of 128K"
    ),
    assumed("return_link.preset", "10G", "as the other direction"),
    assumed("net.send_buffer", "4M", "not stated; what Linux grows to by default [sysctl]"),
    assumed("net.receive_buffer", "3M", "not stated; Linux grows to 6 MB by default, half of it is window [sysctl]"),
    PublishedSetting("net.high_water", "128K", "32 pages wait in QEMU itself [file]"),
    assumed("net.idle_timeout", "600s", "QEMU has no such timeout; a collapse of all memory takes longer than ours"),
    PublishedSetting("costs.threads", "three", "QEMU: listen thread, preempt thread, fault thread [pc]"),
    PublishedSetting(
        "costs.handler", "sleeping", "the fault thread sleeps in poll(2) [pc]; 104 us on the machine measured here"
    ),
    PublishedSetting(
        "costs.place", "copy", "each page by a UFFDIO_COPY of its own [pc]; 3.5 us on the machine measured here"
    ),
    assumed("memory.zero_share", 0, "the guest has written to all of its memory"),
    assumed("guest.write_share", 1, "a busy thread writes"),
    assumed("guest.workload", "uniform", "random accesses; the memory outside the part that is written is left out"),
    assumed("guest.rate", 1_000_000, "a busy thread: 1 us between accesses that need nobody, far below a fault"),
    PublishedSetting("guest.tick", "0", "each access at its time"),
    PublishedSetting("push.piece", "4K", "QEMU migrates by target pages"),
    PublishedSetting("push.run", "128K", "one writev takes 32 pages [file]"),
    PublishedSetting("pull.piece", "4K", "the page that was asked for"),
)

_REFERENCES: Final = (
    "[full] [PATCH RFC 00/13] migration: Postcopy Preempt-Full, qemu-devel, 29 Aug 2022, "
    "20220829165659.96046-1-peterx@redhat.com",
    "[dmap] [PATCH RFC 00/21] migration: Support hugetlb doublemaps, qemu-devel, 17 Jan 2023, "
    "20230117220914.2062125-1-peterx@redhat.com",
    "[hint] QEMU commit 'migration/postcopy: Spatial locality page hint for preempt mode', June 2025: until then the "
    "scan followed requests in the one-channel mode alone",
    "[file] QEMU migration/qemu-file.c: MAX_IOV_SIZE is 64, and a page takes two vectors, header and bytes",
    "[pc] QEMU migration/postcopy-ram.c: postcopy_ram_fault_thread, postcopy_preempt_thread, qemu_ufd_copy_ioctl",
    "[sysctl] Linux Documentation/networking/ip-sysctl.rst: tcp_wmem at most 4 MB, tcp_rmem at most 6 MB by default, "
    "tcp_adv_win_scale 1: half of the buffer is window",
    "[dctcp] M. Alizadeh et al., Data Center TCP (DCTCP), SIGCOMM 2010: round trips below 250 us without queues",
)
_FREE_CAVEAT: Final = (
    "waking the source's threads and the destination's preempt thread, and the source's own work, take no time here"
)
_LATENCY_CAVEAT: Final = (
    "published latency is that of page requests as QEMU traces them, modelled latency is from the access until the "
    "vCPU runs again"
)


def _time(ns: float) -> str:
    return format_time(round(ns))


def _share(value: float) -> str:
    return f"{value * 100:.3g} %"


def _count(value: float) -> str:
    return f"{value:,.0f}"


@publications.register("qemu-doublemap")
def doublemap() -> Publication:
    """QEMU RFC of 17 Jan 2023: 1G pages migrated whole, and in 4K pieces with HGM."""
    before, after = "without-hgm", "with-hgm"
    return Publication(
        title="migration: Support hugetlb doublemaps",
        source="qemu-devel, 17 Jan 2023, 20230117220914.2062125-1-peterx@redhat.com",
        settings=(
            *_MACHINES,
            PublishedSetting("memory.size", "18G", "[dmap]: 18G guest"),
            PublishedSetting("guest.vcpus", 1, "[dmap]: single thread busy spin workload over 18G map"),
            PublishedSetting("pull.preempt", True, "[dmap]: preempt=on"),
            PublishedSetting(
                "push.order", "sequential",
                "with preempt the scan did not follow requests before [hint]",
            ),
            PublishedSetting(
                "collapse.policy", "at_end", "[dmap], patch 21: MADV_COLLAPSE when post-copy has finished"
            ),
        ),
        variants=(
            Variant(
                before, "1G pages, each migrated whole",
                (PublishedSetting("memory.hgm", False, "[dmap]: without HGM a fault waits for the hugepage"),),
                {64: 3, 128: 84, 256: 10, 512: 1, 1 << 20: 17, 1 << 21: 21, 1 << 22: 8, 1 << 23: 4},
            ),
            Variant(
                after, "1G pages in 4K pieces, with HGM",
                (
                    PublishedSetting(
                        "costs.place", "continue", "[dmap], patch 20: copied to the mirror, then CONTINUE of 4K"
                    ),
                ),
                histogram_us={16: 6, 32: 6, 64: 3117, 128: 70815, 256: 30460, 512: 1135, 1024: 34, 2048: 42, 4096: 126,
                              8192: 91, 32768: 1},
            ),
        ),
        figures=(
            Figure("faults", before, 148, 148, _count, count_between(0, None)),
            Figure("faults below 1 ms", before, 98, 98, _count, count_between(0, 1024)),
            Figure("faults of 1 to 16 s", before, 50, 50, _count, count_between(1 << 20, 1 << 24)),
            Figure("mean", before, SECOND, SECOND, _time, mean_ns, rounded=True),
            Figure("faults", after, 105_833, 105_833, _count, count_between(0, None)),
            Figure("in 128-256 us", after, 0.669, 0.669, _share, share_between(128, 256)),
            Figure("below 512 us", after, 0.986, 0.986, _share, share_between(0, 512)),
            Figure("in 4-16 ms", after, 0.00205, 0.00205, _share, share_between(4096, 16384)),
            Figure("mean", after, 250 * US, 250 * US, _time, mean_ns, rounded=True),
        ),
        caveats=(
            _LATENCY_CAVEAT,
            _FREE_CAVEAT,
            "the network is not stated: that of the author five months before [full]",
            "without HGM, the 98 faults below 1 ms cannot be of 1G pages: they are taken for those of QEMU's other RAM "
            "blocks (firmware, video), which are not modelled",
            "18 hugepages cannot be missed 50 times by one thread: the published samples count several requests for a "
            "page",
        ),
        references=_REFERENCES,
    )  # fmt: skip


@publications.register("qemu-preempt")
def preempt() -> Publication:
    """QEMU, Aug 2022: one channel, the preempt channel, and urgent pages sent by the return-path thread."""
    vanilla, early, full = "one-channel", "preempt-channel", "return-path-thread"
    one_channel = (
        PublishedSetting("pull.preempt", False, "[full]: Postcopy Vanilla"),
        PublishedSetting(
            "push.order", "fault_follow", "with one channel the scan goes on from the page sent last [hint]"
        ),
    )
    return Publication(
        title="migration: Postcopy Preempt-Full",
        source="qemu-devel, 29 Aug 2022, 20220829165659.96046-1-peterx@redhat.com",
        settings=(
            *_MACHINES,
            PublishedSetting("memory.size", "20G", "[full]: 20G mem, of which 18G are written at random"),
            PublishedSetting("pull.preempt", True, "[full]: preempt"),
            PublishedSetting(
                "push.order", "sequential",
                "with preempt the scan did not follow requests before [hint]",
            ),
            assumed("collapse.policy", "never", "not stated; a guest on 4K pages has nothing to collapse"),
            assumed(
                "guest.vcpus", 1, "20 vCPUs are stated, not how many of them write. Samples x mean of the published "
                "histograms is 20 s with preempt, of a transfer that takes 17 s at line rate: about one fault was open "
                "at a time",
            ),
        ),
        variants=(
            Variant(
                vanilla, "requested pages in the one stream", one_channel,
                {1: 1, 16: 1, 32: 8, 64: 11, 128: 14, 256: 19, 512: 14, 1024: 35, 2048: 18, 4096: 87, 8192: 2397,
                 16384: 7, 32768: 2, 65536: 20, 131072: 6},
            ),
            Variant(
                early, "requested pages on a channel of their own, sent by the migration thread",
                (
                    PublishedSetting(
                        "pull.sender", "push", "[full]: Postcopy Preempt, merged: the migration thread sends"
                    ),
                ),
                {32: 2, 64: 2306, 128: 25422, 256: 8238, 512: 1066, 1024: 2167, 2048: 3329, 4096: 109, 8192: 48},
            ),
            Variant(
                full, "requested pages on a channel of their own, sent by a thread of their own", (),
                {8: 1, 16: 3, 32: 2, 64: 11956, 128: 60403, 256: 15047, 512: 846, 1024: 25, 2048: 41, 4096: 131,
                 8192: 72, 16384: 2, 32768: 8, 65536: 6},
            ),
        ),
        figures=(
            Figure("mean", vanilla, 12_093 * US, 12_093 * US, _time, mean_ns),
            Figure("in 8-16 ms", vanilla, 0.908, 0.908, _share, share_between(8192, 16384)),
            Figure("mean", early, 496 * US, 496 * US, _time, mean_ns),
            Figure("mean", full, 229 * US, 229 * US, _time, mean_ns),
            Figure("in 128-256 us", full, 0.682, 0.682, _share, share_between(128, 256)),
            Figure("samples", full, 88_543, 88_543, _count, count_between(0, None)),
        ),
        caveats=(
            _LATENCY_CAVEAT, _FREE_CAVEAT,
            "the 2G that are not written are written here too: 10 % more faults at most",
        ),
        references=_REFERENCES,
    )  # fmt: skip
