"""What lies between the two nodes: the model of a link, and the real network with that model in front of it."""
