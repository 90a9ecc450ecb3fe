"""What system calls, faults, collapses and accesses take: models with sources, never measured here."""
