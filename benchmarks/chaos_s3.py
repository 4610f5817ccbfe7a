"""Faults of an object store, for a long time: `make chaos-s3`, or `python -m benchmarks.chaos_s3 --faults 100 --seed 1`.

A workspace lies on a real S3 server (moto, on loopback) behind a proxy that answers 503, resets connections, cuts bodies, waits,
loses an answer after the request was done, has a full disk, and lets credentials expire; now and then another run on the same
workspace is started beside. The seed decides which request meets which fault. What ends a run is answered by the same command.
At the end of a round, rows are those of a run in which nothing happened, and each clip of the dataset is what its index says.
A campaign has as many rounds as it takes for the faults that were asked for, 120 in `make chaos-s3`; a round has 60 at most, and
15 minutes for them. Prints a line per round and how many faults there were; exits with 1 if anything was lost, there twice, or
different, if a fault ended in a traceback, or if there were fewer faults (`--minutes`).
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import http.server
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from typer.testing import CliRunner

from benchmarks.chaos import OF_THE_RUN
from longtake.curation.cli.main import app
from longtake.curation.errors import SetupError
from longtake.curation.pipeline import run
from longtake.curation.stages.stage import Options
from longtake.curation.workspace import Workspace
from longtake.filters import registry
from longtake.manifests import lock
from longtake.manifests.dataset.switch import published
from longtake.manifests.lock import WorkspaceBusy
from longtake.manifests.store import StoreError
from tests.curation.workbench import CLIPS_EACH, MANIFESTS, PLUGIN, Bench, videos

BUCKET = "chaos"
# Share of the requests that meet a fault. Clients ask again by themselves, and some faults have to get through to the run.
RATE = 0.03
WAIT_SECONDS = 0.2
# Requests in a row that an expired credential refuses, so that a client that asks again is refused again.
EXPIRED_REQUESTS = 8
# Writes in a row that a store with a full disk refuses.
FULL_REQUESTS = 6
# Seconds. The lock of a run whose last request was lost is free after this time in the test, and not after two minutes.
STALE_SECONDS = 4.0
TRIES = 80  # The same command may be given so many times in a round: each of its faults, 60 at most, may end a run.
# Faults of a round, and seconds in which they happen. After either the same command has to end, whichever state they left.
MOST, ROUND_SECONDS = 60, 900.0
KINDS = ("503", "reset", "cut", "wait", "lost", "expired", "burst", "full")
_ERROR = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>a fault of the chaos</Message></Error>'


@dataclass
class Weather:
    """Decides which request meets which fault. calm: none does. most: faults of a round, after which it is calm. met: what
    happened so far."""

    seed: str
    most: int = 0
    calm: bool = True
    number: int = 0
    expired: int = 0
    down: int = 0
    full: int = 0
    met: Counter[str] = field(default_factory=Counter)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def next(self, writes: bool) -> str | None:
        """What the next request meets. writes: whether it stores something."""
        with self.turn:
            if self.calm:
                return None
            self.number += 1
            if self.expired:
                self.expired -= 1
                return "expired"
            if self.down:
                self.down -= 1
                return "503"
            if self.full and writes:
                self.full -= 1
                return "full"
            luck = random.Random(f"{self.seed} {self.number}")
            if luck.random() >= RATE or sum(self.met[kind] for kind in KINDS) >= self.most:
                return None
            kind = luck.choice(KINDS)
            self.met[kind] += 1
            if kind == "expired":
                self.expired = EXPIRED_REQUESTS
            elif kind == "burst":  # The refusals outlast the client's patience.
                self.down, kind = 12, "503"
            elif kind == "full":
                self.full, kind = FULL_REQUESTS, "full" if writes else "wait"
            return kind


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    weather: Weather
    port: int

    def do(self) -> None:
        body = self._body()
        fault = self.weather.next(self.command in ("PUT", "POST"))
        if fault == "reset":
            return self._drop()
        if fault == "503":
            return self._answer(503, {"Retry-After": "0"}, _ERROR % b"SlowDown")
        if fault == "expired":
            return self._answer(400, {}, _ERROR % b"ExpiredToken")
        if fault == "full":
            return self._answer(507, {}, _ERROR % b"XMinioStorageFull")
        if fault == "wait":
            time.sleep(WAIT_SECONDS)
        there = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            skipped = {"expect", "connection", "transfer-encoding"}
            there.request(
                self.command, self.path, body, {k: v for k, v in self.headers.items() if k.lower() not in skipped}
            )
            answer = there.getresponse()
            data = answer.read()
            if fault == "lost":
                return self._drop()
            half = len(data) // 2 if fault == "cut" and len(data) > 1 else None
            self._answer(answer.status, dict(answer.getheaders()), data, half)
        finally:
            there.close()
        return None

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, headers: dict[str, str], data: bytes, half: int | None = None) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if half is None else data[:half])
        if half is not None:
            self._drop()

    def _drop(self) -> None:
        """End the connection, so that the other side sees a reset."""
        with suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    def handle(self) -> None:
        with suppress(OSError, ValueError):
            super().handle()

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def server() -> Iterator[int]:
    """A real S3 server on loopback, with the bucket; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=1).close()
                break
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def store() -> Iterator[Weather]:
    """The server behind the proxy; what this process and its children take for S3 is the proxy."""
    with server() as port:
        weather = Weather("0")
        handler = type("Handler", (_Handler,), {"weather": weather, "port": port})
        proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        names = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        names |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}", "AWS_MAX_ATTEMPTS": "2"}
        before = {name: os.environ.get(name) for name in names}
        os.environ.update(names)
        try:
            import s3fs

            s3fs.S3FileSystem.clear_instance_cache()
            s3fs.S3FileSystem().mkdir(BUCKET)
            yield weather
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
            proxy.shutdown()
            s3fs.S3FileSystem.clear_instance_cache()


def rows_of(workspace: Workspace) -> dict[str, pd.DataFrame]:
    """All manifests by key, without what may differ from run to run."""
    found = {}
    for name, key in MANIFESTS.items():
        table = getattr(workspace, name).read().to_pandas().set_index(key).sort_index()
        table = table.drop(columns=[column for column in table.columns if column in {*OF_THE_RUN, "clips"}])
        found[name] = table.reindex(sorted(table.columns), axis=1).astype(str)
    return found


def check(workspace: Workspace, wanted: dict[str, pd.DataFrame]) -> None:
    """Raises AssertionError unless rows and dataset are whole."""
    for name, table in rows_of(workspace).items():
        assert table.index.is_unique, f"{name}: rows twice"
        assert table.equals(wanted[name]), f"{name}: other rows than of the undisturbed run"
    place = workspace.folder / "dataset" / "pretrain"
    index = published(place, ["path", "sha256"])
    assert index is not None, "there is no dataset"
    assert index.num_rows == len(wanted["clips"])
    for path, digest in zip(*index.to_pydict().values(), strict=True):
        assert hashlib.sha256(place.read(path)).hexdigest() == digest, path


class _Nobody:
    """A progress that shows nothing."""

    def begin(self, stage: str, rows: int) -> None: ...

    def advance(self, report: Any) -> None: ...

    def end(self, stage: str, total: Any, seconds: float) -> None: ...


def beside(place: str, recipe: Path, films: Path, met: Counter[str]) -> threading.Thread:
    """Another run on the same workspace at the same moment: neither waits, and one of the two stops."""

    def other() -> None:
        workspace = Workspace(place, remembers=True)
        try:
            run(workspace, workspace.recipe(str(recipe)), [str(films)], Options(engine="inline"), _Nobody())
            met["two at once, the second did it"] += 1
        except WorkspaceBusy:
            met["two at once, one stopped"] += 1
        except (SetupError, StoreError, OSError):
            met["two at once, a fault ended one"] += 1

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    return thread


def one_round(bench: Bench, films: Path, place: str, weather: Weather, wanted: dict[str, pd.DataFrame]) -> list[str]:
    """One workspace from nothing to its dataset; what was wrong."""
    recipe, wrong = bench.recipe(), list[str]()
    command = ["curate", str(films), "-o", place, "-r", str(recipe), "--engine", "inline"]
    luck = random.Random(f"{weather.seed} two")
    others, began = list[threading.Thread](), time.monotonic()
    for _ in range(TRIES):
        weather.calm = time.monotonic() - began > ROUND_SECONDS
        weather.met["runs"] += 1
        if luck.random() < 0.3:
            others.append(beside(place, recipe, films, weather.met))
        result = CliRunner().invoke(app, command)
        if result.exception and not isinstance(result.exception, SystemExit):
            told = traceback.format_exception(result.exception)
            wrong.append(f"ended in a traceback: {''.join(told[-6:])}")
        if result.exit_code == 0:
            break
        for other in others:  # The run that goes on may be this one.
            other.join()
        time.sleep(STALE_SECONDS / 2)  # A person does not give the command again at once.
    else:
        wrong.append(f"not done after {TRIES} tries; the last said: {result.output[-600:]}")
    for other in others:
        other.join()
    weather.calm = True
    if CliRunner().invoke(app, command).exit_code:
        wrong.append("not done after the faults were over")
    try:
        check(Workspace(place), wanted)
    except AssertionError as error:
        wrong.append(str(error))
    return wrong


def campaign(faults: int, films: int, seed: int, minutes: float | None = None) -> tuple[Counter[str], list[str]]:
    """Rounds until so many faults happened; those, and what was wrong."""
    sys.path.insert(0, str(PLUGIN))
    registry.available.cache_clear()
    lock.STALE_SECONDS, lock.HEARTBEAT_SECONDS = STALE_SECONDS, 1.0
    met, wrong, began = Counter[str](), list[str](), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-s3-") as scratch, store() as weather:
        corpus = Path(scratch) / "films"
        videos(corpus, films)
        calm = Bench(Path(scratch) / "calm")
        result = CliRunner().invoke(app, [*calm.command("curate", corpus)[3:], "--engine", "inline"])
        assert result.exit_code == 0, result.output
        wanted = rows_of(Workspace(str(calm.workspace)))
        assert len(wanted["clips"]) == films * CLIPS_EACH
        number = 0
        while sum(met[kind] for kind in KINDS) < faults:
            if minutes is not None and time.monotonic() - began > minutes * 60:
                break
            number, at = number + 1, time.monotonic()
            weather.seed, weather.number, weather.met = f"{seed} {number}", 0, Counter()
            weather.most = min(MOST, faults - sum(met[kind] for kind in KINDS))
            weather.expired = weather.down = weather.full = 0
            bench = Bench(Path(scratch) / f"round{number}")
            bad = one_round(bench, corpus, f"s3://{BUCKET}/{seed}-{number}", weather, wanted)
            lines = bench.lines()
            again = sum(lines.values()) - len(lines)
            told = ", ".join(f"{kind} {count}" for kind, count in sorted(weather.met.items()))
            how = "WRONG: " + "; ".join(bad) if bad else f"whole; {again} measurements done again"
            print(f"{number:>4}  {weather.number} requests, {told}, {time.monotonic() - at:.0f} s: {how}", flush=True)
            met += weather.met
            wrong += bad
            print(f"      {sum(met[kind] for kind in KINDS)} of {faults} faults so far", flush=True)
    return met, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=120, help="at least")
    parser.add_argument("--videos", type=int, default=3)
    parser.add_argument("--seed", type=int, default=None, help="to repeat a campaign; default: another one each time")
    parser.add_argument("--minutes", type=float, default=None, help="begin no round after so many")
    given = parser.parse_args()
    seed = random.randrange(10**6) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    met, wrong = campaign(given.faults, given.videos, seed, given.minutes)
    total = sum(met[kind] for kind in KINDS)
    if total < given.faults:
        wrong.append(f"only {total} of {given.faults} faults happened")
    told = ", ".join(f"{kind} {count}" for kind, count in sorted(met.items()))
    print(f"{total} faults ({told}): {f'{len(wrong)} things WRONG' if wrong else 'all rows equal'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
