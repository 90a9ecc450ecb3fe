"""Real processes under random harm: `python -m tests.chaos`, or `make chaos ROUNDS=300`.

drawing    a seed becomes a plan: two commands, what goes wrong and when, who is started again
harm       one thing that goes wrong, a line of text
frames     the bytes of a connection, taken apart where they can be
network    stands between the nodes, sees their messages, and does the harm
lives      processes as a user starts them; what they said, how they ended
round      one plan, carried out
judging    what a user saw, and whether all of it can be true
"""
