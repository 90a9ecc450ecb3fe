"""Whether what arrived is what was sent: digests on the way, the comparison at the end, the verdict."""
