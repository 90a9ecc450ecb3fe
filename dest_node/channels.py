"""The connections of one incoming migration. The destination never connects: it waits for the source to come again."""

from __future__ import annotations

from migemu.errors import MigemuError
from migemu.node.channels import WatchedChannels
from migemu.wire.messages import MAIN_CHANNEL, Failed, Message


class DestinationChannels(WatchedChannels):
    """What the destination says goes over the main channel, and is dropped while there is none."""

    def send(self, message: Message, payload: bytes | None = None) -> None:
        """Queue a message for the source, if it is connected. ClosedError when the connection is being closed."""
        main = self.get(MAIN_CHANNEL)
        if main is not None:
            main.send(message, payload)

    def send_failed(self, reason: str, over: bool) -> None:
        """Tell the source why this side ends, if it can still be told; `over`: and the migration with it."""
        try:
            self.send(Failed(reason, over))
        except MigemuError:
            pass
