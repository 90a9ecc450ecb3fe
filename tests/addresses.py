"""Where nodes meet in tests."""

from __future__ import annotations

from typing import Final

from migemu.address import LOOPBACK, TcpAddress

#: A free one of the loopback device.
ANY_PORT: Final = TcpAddress(LOOPBACK, 0)
#: In virtual time, where nobody else is.
PLACE: Final = TcpAddress("destination", 4444)
