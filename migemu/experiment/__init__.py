"""Experiments: sweeps that survive a crash, paired comparisons, published results to reproduce."""
