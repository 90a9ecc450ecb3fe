"""What people see: the result, tables, histograms, progress."""
