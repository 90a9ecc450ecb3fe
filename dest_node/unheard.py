"""A verdict that its source may not have heard, after the migration: its memory has gone, and the verdict stands.

Among several migrations one that has ended verified gives its memory back at once. A source that lost the connection
before it heard so comes again, as in any recovery; everything is here, it is told, and once it has said what it has to
say, it hears the verdict and compares that with its own digest, as ever.
"""

from __future__ import annotations

from typing import Protocol

from dest_node.channels import DestinationChannels
from dest_node.incoming import Incoming
from migemu.errors import MigemuError, OverdueError, PeerError
from migemu.node.due import Due
from migemu.ports import Channel, Clock, Landing
from migemu.scenario.scenario import Scenario
from migemu.wire.messages import (
    MAIN_CHANNEL,
    PREEMPT_CHANNEL,
    Agreed,
    ChannelId,
    Complete,
    End,
    Message,
    Page,
    ReceivedBitmap,
    Recover,
    Resume,
    Resumed,
)  # fmt: skip
from migemu.wire.states import Legality, Role


class VerdictOwner(Protocol):
    """Who keeps the verdicts that were not countersigned."""

    def countersigned(self, migration: str) -> None:
        """The source of the migration of this name has heard the verdict now."""


class Unheard:
    """The verdict on one migration that has ended verified here; as a handler of channels it answers its source."""

    def __init__(self, owner: VerdictOwner, ended: Incoming, scenario: Scenario, clock: Clock) -> None:
        self.limits = ended.limits
        self._owner = owner
        self._migration = ended.migration
        self._verdict = Complete(True, ended.outcome().digest, "")
        self._clock = clock
        self._legality = Legality.resumed(running=True)
        self._due = Due("the source", scenario.net.answer_timeout)
        self._channels = DestinationChannels(self, clock, scenario.net.idle_timeout, self._due)

    def connect(self, channel: Channel) -> None:
        """Its source has come again, over its main channel."""
        self._legality = Legality.resumed(running=True)
        self._channels.put(MAIN_CHANNEL, channel)
        self._due.expect("Recover", self._clock.now_ns())

    def attach(self, preempt: Channel) -> None:
        """Nothing urgent is missing; the source may have its preempt channel all the same."""
        self._legality.preempt_lost()
        self._channels.put(PREEMPT_CHANNEL, preempt)

    def announced(self, channel: Channel, message: Message) -> None:
        """See ports.ChannelHandler, here as below."""
        channel_id = self._channels.identify(channel) or MAIN_CHANNEL
        self._legality.said(Role.SOURCE, message, channel_id.role)

    def landing(self, page: Page, offset: int) -> memoryview | Landing:
        """PeerError: no page is missing."""
        raise PeerError("all of this memory has come, and was verified")

    def received(self, message: Message, payload: bytes) -> None:
        """Answer what belongs to a recovery. PeerError when the source signs for another digest."""
        now, pages = self._clock.now_ns(), self.limits.memory_pages
        if isinstance(message, Recover):
            self._say(ReceivedBitmap(0, pages, True))
            self._due.settled()
            self._due.expect("Resume", now)
        elif isinstance(message, Resume):
            self._say(Resumed())
            self._due.settled()
            self._due.expect("Agreed", now, pages * self.limits.geometry.page_bytes)
        elif isinstance(message, End):
            self._say(self._verdict)
        elif isinstance(message, Agreed):
            if (message.pages, message.digest) != (pages, self._verdict.digest):
                raise PeerError(f"the source signs for digest {message.digest}; it is {self._verdict.digest} here")
            self._due.settled()
            self._channels.stop_watching()
            self._owner.countersigned(self._migration)

    def lost(self, channel: Channel, _error: MigemuError | None) -> None:
        """A connection of its source is over; it may come again."""
        channel_id = self._channels.identify(channel)
        if channel_id is not None:
            self._channels.forget(channel_id)

    def silent(self, channel_id: ChannelId) -> None:
        """See ChannelOwner: the source may come again."""
        self._channels.cut(channel_id)

    def late(self, channel_id: ChannelId, error: OverdueError) -> None:
        """See ChannelOwner: the source may come again."""
        self._channels.cut(channel_id)

    def before_due_check(self, now: int) -> None:
        """See ChannelOwner: what is due is always up to date here."""

    def _say(self, message: Message) -> None:
        self._legality.said(Role.DESTINATION, message)
        self._channels.send(message)

    def __repr__(self) -> str:
        return f"<Unheard {self._verdict.digest}>"
