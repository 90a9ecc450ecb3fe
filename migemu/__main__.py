"""`python -m migemu`: the command line."""

from migemu.process.start import migemu

if __name__ == "__main__":
    migemu()
