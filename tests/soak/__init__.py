"""One destination that lives long, and connections that do not: `make soak MINUTES=30`, `python -m tests.soak --help`.

    a destination    one process for all of it, `--migrations 0`
    a slow source    one migration that takes as long as the soak, recovery after recovery
    short sources    one migration after another, each of a few seconds, each verified
    a cutter         stands between them (`cutter`), and every few seconds resets one of the connections, or all of them

Meanwhile the resident memory and the open descriptors of the two processes that live long are read from /proc; at the
end the curves have to be flat (`curve`), and every migration verified. What happened goes to DIR/soak.json, the samples
to DIR/soak.csv, the curves to DIR/soak.html. No test, but for `test_soak`, which is one of some seconds.
"""
