"""A migration as a moving picture in the browser: an index beside the trace, a server on loopback, a page."""
