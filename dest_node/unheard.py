"""A verdict that its source may not have heard, after the migration: its memory has gone, and the verdict stands.

Among several migrations one that has ended verified gives its memory back at once. A source that lost the connection
before it heard so comes again, as in any recovery; everything is here, it is told, and once it has said what it has to
say, it hears the verdict and compares that with its own digest, as ever.
"""

from __future__ import annotations

from collections.abc import Callable

from dest_node.channels import DestinationChannels
from dest_node.incoming import Incoming
from migemu.errors import MigemuError, PeerError
from migemu.node.due import Due
from migemu.ports import Channel, Clock, Landing
from migemu.scenario.scenario import Scenario
from migemu.wire.messages import (
    Agreed,
    ChannelRole,
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

MAIN, PREEMPT = ChannelRole.MAIN, ChannelRole.PREEMPT


class Unheard:
    """That of one migration. `signed` is told once the source has signed."""

    def __init__(self, ended: Incoming, scenario: Scenario, clock: Clock, signed: Callable[[], None]) -> None:
        self.limits = ended.limits
        self._verdict = Complete(True, ended.outcome().digest, "")
        self._clock = clock
        self._signed = signed
        self._legality = Legality.resumed(running=True)
        self._due = Due("the source", scenario.net.answer_timeout)
        self._lines = DestinationChannels(
            clock, scenario.net.idle_timeout, self._due,
            silent=self._cut, late=lambda _: self._cut(MAIN), look=lambda _: None,
        )  # fmt: skip

    def connect(self, channel: Channel) -> None:
        """Its source has come again, over its main channel."""
        self._legality = Legality.resumed(running=True)
        self._lines.put(MAIN, channel)
        self._due.expect("Recover", self._clock.now_ns())

    def attach(self, preempt: Channel) -> None:
        """Nothing urgent is missing; it may have its channel."""
        self._legality.preempt_lost()
        self._lines.put(PREEMPT, preempt)

    def announced(self, channel: Channel, message: Message) -> None:
        """See ports.ChannelHandler, here as below."""
        self._legality.said(Role.SOURCE, message, PREEMPT if channel is self._lines.preempt else MAIN)

    def landing(self, page: Page, offset: int) -> memoryview | Landing:
        """Nowhere."""
        raise PeerError("all of this memory has come, and was verified")

    def received(self, message: Message, payload: bytes) -> None:
        """What of a recovery has to be answered."""
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
            self._lines.stop_watching()
            self._signed()

    def lost(self, channel: Channel, _error: MigemuError | None) -> None:
        """It is gone; it may come again."""
        role = self._lines.role(channel)
        if role is not None:
            self._lines.forget(role)

    def _cut(self, role: ChannelRole) -> None:
        self._lines.cut(role)

    def _say(self, message: Message) -> None:
        self._legality.said(Role.DESTINATION, message)
        self._lines.say(message)

    def __repr__(self) -> str:
        return f"<Unheard {self._verdict.digest}>"
