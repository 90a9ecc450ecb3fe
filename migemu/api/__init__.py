"""migemu as a library: migrations, sweeps and judgements called from a program or a notebook.

The names that a program uses stand in `migemu` itself, which imports from here what is asked for.
"""
