"""A command as a process: its options, how it speaks, how it is interrupted, the socket that is asked how it stands."""
