"""`python -m migemu`: the command line."""

from migemu.start import migemu

if __name__ == "__main__":
    migemu()
