"""The documentation, which comes with the program: `migemu help` in a terminal, `make docs` as a site."""
