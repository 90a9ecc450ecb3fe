"""One plan, carried out with real processes, and judged.

    harm      both nodes are started, the network does what the plan says, nodes that end are started again as often as
              the plan has it; until all have ended by themselves: not in time is HUNG. What they said is judged.
    healed    the network is whole. What is in doubt is recovered by the documented commands, and judged again.

Simplified: memory that is in doubt for good in one of several migrations is not looked for in the others.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from math import inf
from pathlib import Path
from random import Random
from typing import Any, Final

from migemu.errors import BrokenError
from migemu.process.status_socket import ask
from migemu.wire.digest import MemoryDigest, page_digests
from tests import certificates
from tests.chaos.drawing import Plan
from tests.chaos.harm import SIGNALS, Harm
from tests.chaos.judging import Claim, Said, Story, contradictions, ending, is_over, may_be_taken_back, wrong_ends
from tests.chaos.lives import Life, listens_on
from tests.chaos.network import Network

PAGE_BYTES: Final = 4096
HUGE_BYTES: Final = 16 * PAGE_BYTES  # the "1G page" of the tiny geometry
#: Longest a phase may take, times the slowness: every patience of the plan several times over.
PHASE_S: Final = 45.0
#: Once one side has ended, the other one has this to come to its end: every patience of it once, and its work.
START_S: Final = 20.0
#: How often the documented commands are tried once all is whole (the first attempt may meet an end under way).
ATTEMPTS_MAX: Final = 4
_LOOK_S: Final = 0.01


@dataclass(slots=True)
class Trial:
    """What came of a plan. `failures` are empty, or each begins with its kind in capitals."""

    plan: Plan
    endings: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    seconds: float = 0.0


class Migration:
    """A source, its image, and what became of it: one `Story`."""

    def __init__(self, number: int, plan: Plan, folder: Path) -> None:
        self.out = folder / f"source-{number}"
        self.image = folder / f"image-{number}"
        self.lives: list[Life] = []
        rng = Random(f"image {plan.seed} {number}")
        size = int(dict(plan.settings)["memory.size"].removesuffix("M")) << 20
        pages = [bytes(PAGE_BYTES) if rng.random() < 0.2 else rng.randbytes(PAGE_BYTES) for _ in range(size >> 12)]
        self.bytes = b"".join(pages)[: size - rng.choice((0, 0, 1, 5000))]
        self.image.write_bytes(self.bytes)
        padded = self.bytes + bytes(-len(self.bytes) % HUGE_BYTES)
        whole = MemoryDigest()
        whole.add(page_digests(memoryview(padded), PAGE_BYTES))
        self.digest = whole.hexdigest()

    @property
    def record(self) -> dict[str, Any]:
        """migration.json, as far as there is one."""
        return read_json(self.out / "migration.json")


def read_json(path: Path) -> dict[str, Any]:
    """What is in it; nothing, if it is not there or not whole."""
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return values


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Round:
    """`run` it once; files go to `folder`, which is empty."""

    def __init__(self, plan: Plan, folder: Path, slowness: float) -> None:
        self.trial = Trial(plan)
        self._plan, self._folder, self._slowness = plan, folder, slowness
        self._migrations = [Migration(number, plan, folder) for number in range(plan.sources)]
        self._destinations: list[Life] = []
        self._port = free_port()
        self._network = Network(self._port, plan.harms, self._to_node)
        self._lives: list[Life] = []
        self._watches: dict[asyncio.Task[None], None] = {}
        self._left, self._pauses = plan.restarts, list(plan.pauses_ms)
        self._healing = self._healed = False
        self._others: list[asyncio.Task[None]] = []

    async def run(self) -> Trial:
        """See above; nothing of it is left running."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await self._harm()
            await self._judge_what_was_said()
            if not self.trial.failures:
                await self._heal()
                self._judge_the_end()
        finally:
            await self._clean()
        self.trial.seconds = loop.time() - began
        self.trial.struck.update(f"{harm.act} {harm.node}".strip() for harm in self._network.struck)
        return self.trial

    # --- the phases ---

    async def _harm(self) -> None:
        await self._network.open()
        await self._begin_destination()
        self._network.begin()
        for number in range(len(self._migrations)):
            await self._begin_source(number)
        await self._until_all_have_ended()

    async def _heal(self) -> None:
        """The documented commands, until there is nothing left to go on with."""
        self._healing = True
        await self._network.heal()
        for _ in range(ATTEMPTS_MAX):
            open_ones = [number for number in range(len(self._migrations)) if self._goes_on(number)]
            if not open_ones:
                return
            self._healed = True
            stories = [self._story(number) for number in open_ones]
            if self._destination_is_wanted and not all(map(may_be_taken_back, stories)):
                await self._begin_destination()
            for number in open_ones:
                if not self._is_record_only(number) or self._migrations[number].record:
                    await self._begin_source(number)
            await self._until_all_have_ended()
            if self.trial.failures:
                return

    def _goes_on(self, number: int) -> bool:
        story = self._story(number)
        if is_over(story):
            return False
        if not story.sources:
            return False
        never_left = not self._migrations[number].record and not story.ran
        return not never_left

    def _is_record_only(self, number: int) -> bool:
        return not self._migrations[number].record.get("switched")

    @property
    def _destination_is_wanted(self) -> bool:
        """Whether somebody has something to go on with there, or has to be told that nobody has."""
        stories = [self._story(number) for number in range(len(self._migrations))]
        over = all(Claim.VERIFIED in [each.claim for each in story.destinations] for story in stories)
        return self._kept if over else any(each.record.get("switched") for each in self._migrations) or self._kept

    @property
    def _kept(self) -> bool:
        folder = self._folder / "kept"
        return self._plan.checkpoint and folder.is_dir() and any(path.name != "lock" for path in folder.iterdir())

    async def _until_all_have_ended(self) -> None:
        """HUNG, where they have not in time. Whoever is stopped is continued some day; that may take as long again."""
        loop = asyncio.get_running_loop()
        end = loop.time() + PHASE_S * self._slowness
        while self._watches and loop.time() < end:
            await asyncio.wait(self._watches, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED)
        if self._watches:
            self._left = 0
        for life in [each for each in self._lives if each.code is None]:
            self.trial.failures.append(f"HUNG: {await self._diagnosed(life)}")

    async def _diagnosed(self, life: Life) -> str:
        """What it says of itself, now and before."""
        out = next((each.out for each in self._migrations if life in each.lives), self._folder / "destination")
        try:
            asked = asyncio.get_running_loop().run_in_executor(None, ask, out / f"{life.role}.sock")
            told = "; ".join(status.line() for status in await asked)
        except BrokenError as error:
            told = str(error)
        return f"{life.name} after {PHASE_S * self._slowness:.0f} s: {told}\n{life.last_lines}"

    # --- processes ---

    async def _begin_destination(self) -> None:
        plan = self._plan
        out = self._folder / "destination"
        words = ["dest", "--listen", f"127.0.0.1:{self._port}", "--out", str(out), *self._common()]
        words += ["--checkpoint", str(self._folder / "kept")] if plan.checkpoint else []
        words += ["--dump", str(self._folder / "dump")] if plan.dump else []
        words += ["--trace"] if plan.trace else []
        words += ["--migrations", str(plan.sources)] if plan.sources > 1 else []
        life = await self._begin("destination", words, self._destinations)
        for _ in range(int(START_S * self._slowness / _LOOK_S)):
            if life.code is not None or listens_on(self._port):
                return
            await asyncio.sleep(_LOOK_S)

    async def _begin_source(self, number: int) -> None:
        migration = self._migrations[number]
        address = f"127.0.0.1:{self._network.port}"
        if migration.lives and self._healing and may_be_taken_back(self._story(number)):
            words = ["source", "--recover", str(migration.out), "--take-back"]
        elif migration.lives:
            words = ["source", "--recover", str(migration.out), "--connect", address]
        else:
            words = ["source", "--connect", address, "--image", str(migration.image), "--out", str(migration.out)]
            words += ["--trace"] if self._plan.trace else []
            words += self._common()
        await self._begin("source", words, migration.lives)

    def _common(self) -> list[str]:
        words = self._plan.timed(self._slowness)
        values: dict[str, str] = {}
        if "tls" in self._plan.security:
            values |= certificates.security()
        if "psk" in self._plan.security:
            key = self._folder / "key"
            key.write_text(f"{certificates.KEY}\n")
            key.chmod(0o600)
            values["psk_file"] = str(key)
        return words + [word for name, value in values.items() for word in ("--set", f"security.{name}={value}")]

    async def _begin(self, role: str, words: list[str], lives: list[Life]) -> Life:
        life = Life(role, words, self._folder, len([each for each in self._lives if each.role == role]))
        lives.append(life)
        self._lives.append(life)
        await life.begin()
        watch = asyncio.ensure_future(self._watch(life))
        self._watches[watch] = None
        watch.add_done_callback(self._watches.pop)
        return life

    async def _watch(self, life: Life) -> None:
        """Until it has ended; then it is started again, if that is in the plan."""
        await life.end()
        if self._healing or not self._left or not self._may_be_restarted(life):
            return
        self._left -= 1
        self.trial.restarts += 1
        number = self._plan.restarts - self._left - 1
        await asyncio.sleep(self._pauses[number] / 1000)
        if life.role == "source":
            await self._begin_source(next(n for n, each in enumerate(self._migrations) if life in each.lives))
            return
        if number in self._plan.moves:
            self._port = free_port()
            await self._network.move(self._port)
        await self._begin_destination()

    def _may_be_restarted(self, life: Life) -> bool:
        """A user would: it has something to go on with, or was killed before it could say so."""
        if life.code == 0:
            return False
        claim = said(life).claim
        if life.role == "source":
            record = next(each.record for each in self._migrations if life in each.lives)
            return bool(record.get("switched")) and claim in (Claim.NOTHING, Claim.IN_DOUBT)
        return claim in (Claim.NOTHING, Claim.KEPT)

    def _to_node(self, harm: Harm) -> None:
        lives = self._destinations if harm.node == "destination" else self._migrations[0].lives
        if not lives:
            return
        life = lives[-1]
        life.send(harm.act, SIGNALS[harm.act])
        if harm.act == "stop":

            async def later() -> None:
                await asyncio.sleep(harm.for_ms / 1000)
                life.send("continue", signal.SIGCONT)

            self._others.append(asyncio.ensure_future(later()))

    async def _clean(self) -> None:
        for other in (*self._others, *self._watches):
            other.cancel()
        await asyncio.gather(*self._others, *self._watches, return_exceptions=True)
        for life in self._lives:
            if life.code is None:
                await life.kill()
        await self._network.close()

    # --- what was seen ---

    def _story(self, number: int) -> Story:
        plan, migration = self._plan, self._migrations[number]
        record = migration.record
        name = str(record.get("migration", ""))
        out = self._folder / "destination"
        result = read_json(out / "result.json")
        if plan.sources > 1:
            result = read_json(out / name[:8] / "result.json") if name else {}
        theirs = said_in_turn(self._destinations, name if plan.sources > 1 else None)
        dump = self._folder / "dump"
        verified = any(each.claim is Claim.VERIFIED for each in theirs)
        ran = sum(self._network.passed[f"{channel}->source Running"] for channel in ("main", "preempt")) > 0
        return Story(
            checkpoint=plan.checkpoint, digests=plan.digests, sources=said_in_turn(migration.lives),
            destinations=theirs, result=result, switched=bool(record.get("switched")), kept=self._kept,
            ran=ran if plan.sources == 1 else bool(result.get("guest", {}).get("accesses")), digest=migration.digest,
            dump_differs=plan.dump and verified and (not dump.exists() or dump.read_bytes() != migration.bytes),
            recorded=bool(record), image_changed=migration.image.read_bytes() != migration.bytes, healed=self._healed,
            struck=self._network.struck,
        )  # fmt: skip

    async def _judge_what_was_said(self) -> None:
        if not self.trial.failures:
            self.trial.failures += wrong_ends(said(life) for life in self._lives)
            for number in range(len(self._migrations)):
                self.trial.failures += contradictions(self._story(number))

    def _judge_the_end(self) -> None:
        if self.trial.failures:
            return
        self.trial.failures += wrong_ends(said(life) for life in self._lives)
        for number in range(len(self._migrations)):
            story = self._story(number)
            self.trial.failures += contradictions(story)
            how, sentence = ending(story)
            if how == "STUCK":
                self.trial.failures.append(sentence)
            else:
                self.trial.endings.append(how)
                self.trial.sentences += [f"{how}: {sentence}"] if sentence else []
        self.trial.failures = list(dict.fromkeys(self.trial.failures))


def said(life: Life) -> Said:
    """How it ended, as a user saw it."""
    code = life.code if life.code is not None else -signal.SIGKILL
    return Said(life.name, code, life.said, tuple(life.signals), life.ended_s)


def said_in_turn(lives: list[Life], migration: str | None = None) -> list[Said]:
    """What processes of one node have said; of one `migration` among several, if it is given."""
    told = []
    for life, following in zip_longest(lives, lives[1:]):
        each = said(life) if migration is None else said_of(life, migration)
        if life.code is not None and each is not None:
            told.append(replace(each, until_s=following.began_s if following else inf))
    return told


def said_of(life: Life, migration: str) -> Said | None:
    """What a destination said of one migration among several: a line of its own."""
    ends = re.findall(rf"migration {migration[:8] or 'none'}: ((verified|failed|interrupted)\b.*)", life.said)
    if not ends:
        return said(life) if life.code is not None and life.code < 0 else None
    how, kind = ends[-1]
    code = {"verified": 0, "failed": 3, "interrupted": 130}[kind]
    if how.startswith("failed: the first bad piece"):
        code = 5
    return replace(said(life), code=code, text=f"migemu: {how}")


def slowness() -> float:
    """How much slower than one that is idle this machine is now, in halves, from 1 to 4."""
    return min(4.0, max(1.0, round(2 * os.getloadavg()[0] / (os.cpu_count() or 1)) / 2))
