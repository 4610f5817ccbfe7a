"""What happens in each world: two runs of the loop of a stage at once, a worker that outlived its driver, and a reader; then
the faults are over, the same command runs again, and everything that was promised is looked at."""

from __future__ import annotations

import random
import types
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from benchmarks.simulation.bucket import Objects, ServerError
from benchmarks.simulation.copies import Copies
from benchmarks.simulation.disk import Disk
from benchmarks.simulation.world import Fault, Host, Process, Stuck, World
from longtake.captioning.chat import CaptionerFault

Medium = Literal["disk", "bucket"]
SCHEMA = pa.schema([pa.field("key", pa.string(), nullable=False), pa.field("value", pa.int64(), nullable=False)])
KEYS = tuple(f"video-{i:04d}" for i in range(6))
BATCH = 2  # Rows of one append.
TRIES = 12  # Tries of one command by the person who runs it.
PLACES: dict[Medium, str] = {"disk": "/data/ws", "bucket": "s3://bucket/ws"}
# Faults that may happen at a call, for each medium.
ON_DISK = ("crash", "power cut", "freeze", "error", "slow")
IN_BUCKET = ("crash", "freeze", "error", "lost answer", "slow")


class Broken(AssertionError):
    """A promise of the store does not hold in this world."""


@dataclass
class Facts:
    """What was acknowledged to whom: what may never be lost again."""

    world: World
    medium: Medium
    stored: dict[str, int] = field(default_factory=dict)  # Key → the newest value whose append returned.
    answered: set[str] = field(default_factory=set)  # Paid answers that the journal acknowledged.
    holders: set[str] = field(default_factory=set)
    paid: Counter[str] = field(default_factory=Counter)

    def broken(self, what: str) -> Broken:
        return Broken(f"seed {self.world.seed} on a {self.medium}: {what}")

    def saw(self, before: Mapping[str, int], rows: list[dict[str, Any]], who: str) -> dict[str, int]:
        """A reading that began when `before` was stored. Raises Broken."""
        found = Counter(row["key"] for row in rows)
        if twice := [key for key, count in found.items() if count > 1]:
            raise self.broken(f"{who} reads {twice[0]} {found[twice[0]]} times")
        values = {row["key"]: row["value"] for row in rows}
        for key, value in before.items():
            if key not in values:
                raise self.broken(f"{who} does not find {key}, which was stored with {value}")
            if values[key] < value:
                raise self.broken(f"{who} reads {values[key]} for {key}, though {value} was stored")
        return values

    def enter(self, process: Process) -> None:
        """The lock of the workspace was taken. Raises Broken if somebody living has it."""
        self.holders.add(process.name)

    def exclusive(self, alive: set[str]) -> None:
        self.holders &= alive
        if len(self.holders) > 1:
            raise self.broken(f"two runs hold the lock: {sorted(self.holders)}")

    def store(self, rows: Mapping[str, int]) -> None:
        for key, value in rows.items():
            self.stored[key] = max(value, self.stored.get(key, 0))


@dataclass
class Bench:
    """One world with its media."""

    world: World
    codes: Mapping[str, types.CodeType]
    medium: Medium
    disk: Disk = field(default_factory=Disk)
    objects: Objects = field(default_factory=Objects)

    def __post_init__(self) -> None:
        self.facts = Facts(self.world, self.medium)
        self.place = PLACES[self.medium]
        self.exact_lock = self.medium == "disk"
        if self.medium == "disk":
            self.world.power_cut = lambda: self.disk.power_cut(self.world.random)

    def copies(self, process: Process) -> Copies:
        return Copies(self.codes, self.world, process, self.disk, self.objects)

    # ── who is there ─────────────────────────────────────────────────────────────────────────────────────────────────

    def driver(self, process: Process, goal: int) -> None:
        """A person who gives a command again until it ends well."""
        modules = self.copies(process)
        lock = modules["longtake.manifests.lock"]
        store = modules["longtake.manifests.store"]
        for _ in range(TRIES):
            try:
                self._run(modules, process, goal)
                return
            except lock.WorkspaceBusy:
                self.world.sleep(process, 40.0)
            except (store.StoreError, CaptionerFault, ServerError, OSError) as error:
                self._fair(error)
                self.world.sleep(process, 5.0)
        if self.world.healed:
            raise self.facts.broken("the same command does not finish, though nothing is wrong any more")

    def _run(self, modules: Copies, process: Process, goal: int) -> None:
        """The loop of a stage: plan, work, commit, compact."""
        store = modules["longtake.manifests.store"]
        facts = self.facts
        with modules["longtake.manifests.lock"].WorkspaceLock(self.place) as lock:
            facts.enter(process)
            try:
                if self.exact_lock:
                    facts.exclusive(self.alive())
                manifest = store.Manifest(self.place, "videos", "key", SCHEMA)
                folder = store.open_folder(self.place)
                journal = modules["longtake.captioning.journal"].Journal(folder / ".answers")
                before = dict(facts.stored)
                values = facts.saw(before, manifest.read(["key", "value"]).to_pylist(), process.name)
                todo = [key for key in KEYS if values.get(key, 0) < goal]
                for start in range(0, len(todo), BATCH):
                    batch = todo[start : start + BATCH]
                    if not lock.held:
                        raise store.StoreError("the lock was lost")
                    for key in batch:
                        self._pay(journal, key, goal)
                        (folder / "frames").write_whole(key, f"{key} {goal}".encode() * 20)
                    rows = dict.fromkeys(batch, goal)
                    self._append(manifest, rows)
                    journal.forget(batch)
                    manifest.merge()
                if not lock.held:
                    raise store.StoreError("the lock was lost")
                manifest.compact()
            finally:
                facts.holders.discard(process.name)

    def _pay(self, journal: Any, key: str, goal: int) -> None:
        """An answer that costs money, and is not asked for again once the journal has it."""
        from longtake.captioning.chat import ChatAnswer, Finish

        question = f"{key}/{goal}"
        known = question in self.facts.answered
        if question in journal.read(key):
            return
        if known and self.facts.stored.get(key, 0) < goal:
            raise self.facts.broken(f"the answer to {question} was paid for and kept, and is paid for again")
        self.facts.paid[question] += 1
        journal.add(key, question, ChatAnswer("a street", Finish.STOP))
        self.facts.answered.add(question)

    def _append(self, manifest: Any, rows: Mapping[str, int]) -> None:
        table = pa.table({"key": list(rows), "value": list(rows.values())}, schema=SCHEMA)
        manifest.append(table)
        self.facts.store(rows)

    def worker(self, process: Process, keys: tuple[str, ...]) -> None:
        """One that outlived its driver: it reads rows that are its own, and stores newer ones, without a lock."""
        modules = self.copies(process)
        store = modules["longtake.manifests.store"]
        for _ in range(14):
            try:
                manifest = store.Manifest(self.place, "videos", "key", SCHEMA)
                before = dict(self.facts.stored)
                values = self.facts.saw(before, manifest.read(["key", "value"]).to_pylist(), process.name)
                mine = [key for key in keys if key in values]
                if mine:
                    self._append(manifest, {mine[0]: values[mine[0]] + 1})
                self.world.sleep(process, self.world.random.expovariate(6.0))
            except (store.StoreError, ServerError, OSError) as error:
                self._fair(error)

    def reader(self, process: Process) -> None:
        """Somebody who looks at the statistics meanwhile."""
        modules = self.copies(process)
        store = modules["longtake.manifests.store"]
        for _ in range(12):
            manifest = store.Manifest(self.place, "videos", "key", SCHEMA)
            before = dict(self.facts.stored)
            try:
                self.facts.saw(before, manifest.read(["key", "value"]).to_pylist(), process.name)
            except (store.StoreError, ServerError, OSError) as error:
                self._fair(error)
            self.world.sleep(process, self.world.random.expovariate(6.0))

    def alive(self) -> set[str]:
        """The names of the processes that live."""
        return {task.process.name for task in self.world._tasks if not task.process.dead and not task.ended}

    def _fair(self, error: BaseException) -> None:
        """An error may come of a fault that was drawn; damage may not. Raises Broken."""
        if "is damaged" in str(error) or "is not a part" in str(error) or "it was changed" in str(error):
            raise self.facts.broken(str(error)) from error
        if self.world.healed or not self.world.faults:
            raise self.facts.broken(f"an error without a fault: {error!r}") from error

    # ── the history ──────────────────────────────────────────────────────────────────────────────────────────────────

    def play(self) -> None:
        """All of it. Raises Broken and Stuck."""
        world, chance = self.world, self.world.random
        skews = [chance.choice([0.0, 0.0, -30.0, 45.0, 3000.0 if self.exact_lock else 20.0]) for _ in range(3)]
        hosts = [Host(f"host{i}", skew) for i, skew in enumerate(skews)]
        world.start("first run", hosts[0], lambda process: self.driver(process, 1))
        if chance.random() < 0.7:
            world.start("second run", hosts[1], lambda process: self.driver(process, 1))
        if chance.random() < 0.8:
            world.start("worker", hosts[2], lambda process: self.worker(process, KEYS[:3]))
        if chance.random() < 0.5:
            world.start("reader", hosts[1], self.reader)
        world.run()
        world.healed = True
        world.start("same command", hosts[0], lambda process: self.driver(process, 1))
        world.run()
        goal = max([0, *self.facts.stored.values()]) + 10  # The goal exceeds every row whose append did not return.
        world.start("last run", Host("host9", chance.choice([0.0, -40.0])), lambda process: self.driver(process, goal))
        world.run()
        world.start("judge", Host("host8"), lambda process: self._judge(process, goal))
        world.run()

    def _judge(self, process: Process, goal: int) -> None:
        modules = self.copies(process)
        manifest = modules["longtake.manifests.store"].Manifest(self.place, "videos", "key", SCHEMA)
        values = self.facts.saw(self.facts.stored, manifest.read(["key", "value"]).to_pylist(), "the judge")
        if set(values) != set(KEYS):
            raise self.facts.broken(f"{sorted(set(KEYS) - set(values))} have no row at the end")
        if any(value < goal for value in values.values()):
            raise self.facts.broken(f"old rows at the end: {values}")
        if manifest.rows() != len(KEYS):
            raise self.facts.broken(f"{manifest.rows()} rows in the files for {len(KEYS)} keys after a compaction")
        folder = modules["longtake.manifests.store"].open_folder(self.place) / "frames"
        for key in KEYS:
            if folder.read(key) != f"{key} {goal}".encode() * 20:
                raise self.facts.broken(f"the frames of {key} are not those of its row")


WORLDS = 30  # Undisturbed worlds that are played to find the call sites.
RARE = 0.15  # Share of seeds that have one more fault at a site that fewer than half of the worlds reach.


def sites(medium: Medium, codes: Mapping[str, types.CodeType]) -> dict[str, list[int]]:
    """The call sites of undisturbed worlds; for each world that reaches a site, the number of its calls there."""
    reached: dict[str, list[int]] = {}
    for seed in range(WORLDS):
        world = World(-1 - seed)
        Bench(world, codes, medium).play()
        for site, count in world.sites.items():
            reached.setdefault(site, []).append(count)
    return dict(sorted(reached.items()))


def draw(seed: int, reached: Mapping[str, Sequence[int]], medium: Medium) -> list[Fault]:
    """The faults of a seed: one, now and then two or three, each at a call of a site; and now and then one at a rare site."""
    chance = random.Random(f"faults {seed}")
    faults = [_fault(chance, list(reached), reached, medium) for _ in range(chance.choice([1, 1, 1, 2, 3]))]
    rare = [site for site, counts in reached.items() if len(counts) < WORLDS / 2]
    if rare and chance.random() < RARE:
        faults.append(_fault(chance, rare, reached, medium))
    return faults


def _fault(chance: random.Random, among: Sequence[str], reached: Mapping[str, Sequence[int]], medium: Medium) -> Fault:
    site = chance.choice(among)
    kinds = ON_DISK if medium == "disk" else IN_BUCKET
    if site.endswith("os.write"):
        kinds = (*kinds, "torn")
    return Fault(chance.choice(kinds), site, chance.randint(1, max(reached[site])))


def play(
    seed: int,
    codes: Mapping[str, types.CodeType],
    found: Mapping[Medium, Mapping[str, Sequence[int]]],
    log: bool = False,
) -> World:
    """One seed. Raises Broken, Stuck, and what else ended a process, with the world as its `world`."""
    medium: Medium = "disk" if seed % 2 else "bucket"
    world = World(seed, draw(seed, found[medium], medium), log=log)
    try:
        Bench(world, codes, medium).play()
    except (Broken, Stuck) as error:
        error.add_note("\n".join(world.history or ()))
        raise
    return world
