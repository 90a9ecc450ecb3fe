"""How fast migemu is, against bare uvloop processes: `python -m tests.bench` (what `make bench` runs).

Absolute figures of a shared virtual machine say little; ratios taken within one run do. So each measurement is a pair,
run in turn (A B A B ...): A moves the same bytes between the same two processes, through the same memory, with nothing
but uvloop protocols; B is migemu, both services whole, over `migemu.transport.tcp`.

    push_4k_ratio           bytes/s of 1 GiB in 4K pieces, each mapped by itself and collapsed eagerly   at least 0.80
    push_2m_ratio           the same in 2M pieces                                                        at least 0.90
    push_tls_ratio          the same in 4K pieces, through mutual TLS 1.3 / migemu without it            reported
    push_digests_ratio      the same in 4K pieces, each with its digest (integrity.digests) / without    reported
    fault_rtt_ratio         median time of a lone 4K fault / of a bare 4K round trip                     at most 1.4
    fault_under_push_ratio  the same while 1 GiB is pushed, at p50 and p99, with the preempt channel     p50 at most 2.0
                            and without / beside a bare saturated second connection
    page_table              what the model of the page table does in a second, without any bytes
    trace                   how many events a second `migemu check` judges
    sim, sim_large          what a migration in virtual time costs: 1 GiB; 64 GiB and 1 TiB, when asked for by name

What is compared exactly
    Bulk     A: from when the first 8 bytes (a start mark) have been received until the last of 1 GiB is in its place.
             B: from when `Run` has been received until all of 1 GiB is in its place, mapped piece by piece, and
             collapsed to one 1G entry. Both at the destination. The source looks for zeros (there are none) within the
             span; the digests that verify every byte are computed before and compared after it, outside. There is no
             device state and no guest.
    Faults   A: from before a request of 14 bytes is written until the 4096th byte of the answer is in its place; a
             callback each, the next request at once. B: from before a vCPU touches a page until it goes on; one vCPU
             that touches pages at random as fast as it can. Under push, only what is asked while the push runs counts.
    Memory   The pools live as long as the processes. Before every run, A or B, one word of each page is overwritten,
             so that nothing passes that did not arrive and the caches start the same way.
    Sockets  The scenario's congestion control and buffers for both. A writes slices of 256 KiB, one per turn of the
             loop, with uvloop's own high-water mark, and receives up to 256 KiB at once: the best of what was tried
             for both its throughput and its latency under load.
    Others   Before each pair it waits a moment for the machine to be idle; a pair during which others used more than a
             tenth of a core is measured once more, for as long as there is time (`disturbed_runs`: how many were so).
    CPU      Processor seconds of each process over the span (the source's: from its first to its last write).

A ratio of throughputs is the median of the ratios of the pairs; a ratio of latencies compares percentiles of all values
of all runs. The source is pinned to one core and the destination to another where there are two; the first round warms
up and is thrown away. The exit status says whether measuring worked, not whether targets were met.

Modules: `__main__` (order of runs), `nodes` (the two processes), `bare` (A), `served` (B), `page_table`, `trace`,
`simulated`, `quiet` (who else used the processors), `figures` (medians, ratios, the JSON), `table` (what is shown).
"""
