"""The simulation of the store: its disk keeps the rules it claims to, a seed replays, promises hold, planted faults are found."""

from __future__ import annotations

import errno
import random

import pytest

from benchmarks.simulation.campaign import call_sites, run
from benchmarks.simulation.copies import compiled
from benchmarks.simulation.disk import Disk, Machine
from benchmarks.simulation.planted import PLANTED, Planted
from benchmarks.simulation.scenario import play


class Calm:
    """A world without faults, for one process."""

    now, random = 0.0, random.Random(0)

    def step(self, process: object, call: str) -> None:
        """Nothing happens."""

    def linger(self, process: object) -> None:
        """Nobody else is there."""


class Nobody:
    """A process."""

    dead = False

    def __init__(self) -> None:
        self.locks: set[int] = set()


def machine() -> Machine:
    """A machine with an empty disk that has the folder /d."""
    made = Machine(Calm(), Nobody(), Disk())
    made.makedirs("/d")
    made.disk.root.sync()
    return made


def after_power_cuts(made: Machine, path: str) -> set[bytes | None]:
    """What a file may hold after a power cut; None: it is gone."""
    import copy

    found: set[bytes | None] = set()
    for seed in range(60):
        disk = copy.deepcopy(made.disk)
        disk.power_cut(random.Random(seed))
        try:
            found.add(disk.find(path).data)  # type: ignore[union-attr]
        except FileNotFoundError:
            found.add(None)
    return found


def write(made: Machine, path: str, data: bytes, sync: bool) -> None:
    """A file, written anew."""
    with made.open(path, "wb") as file:
        file.write(data)
        if sync:
            made.fsync(file.fileno())


def sync_folder(made: Machine, path: str) -> None:
    number = made.os_open(path, 0)
    made.fsync(number)
    made.close(number)


def test_what_was_not_synced_may_be_gone_or_torn() -> None:
    made = machine()
    write(made, "/d/a", b"abc", sync=False)
    assert after_power_cuts(made, "/d/a") == {None, b"", b"a", b"ab", b"abc"}
    sync_folder(made, "/d")
    assert after_power_cuts(made, "/d/a") == {b"", b"a", b"ab", b"abc"}


def test_a_file_needs_its_name_to_be_synced_too() -> None:
    made = machine()
    write(made, "/d/a", b"abc", sync=True)
    assert after_power_cuts(made, "/d/a") == {None, b"abc"}
    sync_folder(made, "/d")
    assert after_power_cuts(made, "/d/a") == {b"abc"}


def test_a_new_folder_that_was_not_synced_takes_its_files_with_it() -> None:
    made = machine()
    made.makedirs("/d/new")
    write(made, "/d/new/a", b"abc", sync=True)
    sync_folder(made, "/d/new")
    assert after_power_cuts(made, "/d/new/a") == {None, b"abc"}
    sync_folder(made, "/d")
    assert after_power_cuts(made, "/d/new/a") == {b"abc"}


def test_a_rename_is_old_or_new_until_it_is_synced() -> None:
    made = machine()
    write(made, "/d/a", b"old", sync=True)
    sync_folder(made, "/d")
    write(made, "/d/b", b"new", sync=True)
    made.replace("/d/b", "/d/a")
    assert after_power_cuts(made, "/d/a") == {b"old", b"new"}
    sync_folder(made, "/d")
    assert after_power_cuts(made, "/d/a") == {b"new"}


def test_the_disk_refuses_as_the_system_does() -> None:
    made = machine()
    with pytest.raises(FileNotFoundError):
        made.open("/d/a", "rb")
    with pytest.raises(FileNotFoundError):
        made.open("/e/a", "wb")
    write(made, "/d/a", b"1", sync=False)
    with pytest.raises(FileExistsError):
        made.open("/d/a", "xb")
    with pytest.raises(FileExistsError):
        made.link("/d/a", "/d/a")
    with pytest.raises(NotADirectoryError):
        made.listdir("/d/a")
    with pytest.raises(OSError, match=r".*") as caught:
        made.makedirs("/d")
    assert caught.value.errno == errno.EEXIST


def test_a_seed_is_one_history() -> None:
    found = call_sites()
    for seed in (3, 8):
        one, two = (play(seed, compiled(), found, log=True).history for _ in range(2))
        assert one == two
        assert one


@pytest.mark.slow
def test_promises_hold_under_every_seed() -> None:
    """`make simulate` plays 10,000."""
    outcome = run(range(100))
    assert not outcome.broken
    assert sum(outcome.hits.values()) > 50, "faults have to happen for this to prove anything"


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_a_planted_fault_fits_the_code(planted: Planted) -> None:
    """A fault that no longer fits is not planted, and the campaign that looks for it would end there."""
    compiled({planted.module: [(planted.old, planted.new)]})


# Those that a few seeds find. The others need hundreds.
_SOON = {planted.name: planted for planted in PLANTED if "compact" not in planted.name}


@pytest.mark.campaign
@pytest.mark.slow
@pytest.mark.parametrize(
    "planted", [_SOON[name] for name in sorted(_SOON) if "turn" not in name and "second" not in name]
)
def test_a_planted_fault_is_found_soon(planted: Planted) -> None:
    assert run(range(150), planted, until_broken=True).broken


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_a_planted_fault_is_found_within_a_thousand_seeds(planted: Planted) -> None:
    assert run(range(1000), planted, until_broken=True).broken
