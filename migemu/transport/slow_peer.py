"""Peers that drip: a byte now and then, so that they are never silent and never done.

A message that has begun holds memory here, and a wait for its end has no end of its own. How long a message may take
depends on its size and on the link, so there is no time limit on it but a least rate: whoever, in the middle of one
and the same message, brings less than `rate` over a whole `window` is cut off. A window begins anew with each message
that is completed, so small messages far apart are as good as they ever were.

The window is net.idle_timeout: a link that carries nothing for that long counts as lost anyway, so a link that stops
and starts is treated no worse here. The rate, 2 kbit/s, is a modem's of 1985; a page of 4 KiB takes 16 s at it.

A node that was itself stopped looks late; it begins a new window instead of blaming the peer, as
`migemu.node.channels` does.
"""

from __future__ import annotations

from migemu.units import SECOND

#: How many looks there are to a window: a dripping peer is found after at most 1 + 1/LOOKS windows.
LOOKS = 4


class Drip:
    """Judges one connection, by numbers that it is told now and then. Times in ns, rate in bits per second."""

    def __init__(self, window_ns: int, rate: int, now: int) -> None:
        self.window_ns = window_ns
        self.bytes_min = max(1, rate * window_ns // (8 * SECOND))
        self._looked_ns = now
        self._begin = (now, 0, 0)

    def look(self, now: int, received_bytes: int, messages: int, mid_message: bool) -> bool:
        """Whether the peer drips; asked `LOOKS` times a window. Bytes and completed messages are those of all time."""
        late = now - self._looked_ns > self.window_ns // 2
        self._looked_ns = now
        began_ns, bytes_then, messages_then = self._begin
        if late or not mid_message or messages != messages_then:
            self._begin = (now, received_bytes, messages)
        elif now - began_ns >= self.window_ns:
            if received_bytes - bytes_then < self.bytes_min:
                return True
            self._begin = (now, received_bytes, messages)
        return False
