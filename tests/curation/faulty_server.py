"""A web server on loopback whose answers go wrong as they are told to: for tests of faults of the world."""

from __future__ import annotations

import http.server
import re
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

FAULTS = ("403", "401", "429", "503", "500", "reset", "cut")
KINDS = {
    "403": "credentials", "401": "credentials", "429": "throttled", "503": "throttled", "500": "unreachable",
    "reset": "unreachable", "cut": "unreachable", "hang": "timed_out",
}  # fmt: skip


@dataclass
class Faulty:
    """A server of a folder. fault: what goes wrong with every request: a status, `reset`, `hang`, `cut`; None: nothing.
    only: names of the files that it goes wrong with; empty: all. after: requests for a range that go well first. says: which of
    ETag and Last-Modified it sends."""

    url: str
    fault: str | None = None
    only: set[str] = field(default_factory=set)
    after: int = 0
    says: set[str] = field(default_factory=set)
    asked: int = 0
    released: threading.Event = field(default_factory=threading.Event)


@contextmanager
def faulty_server(folder: Path) -> Iterator[Faulty]:
    """It knows single byte ranges, as every object store does."""
    state = Faulty("")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = folder / self.path.lstrip("/").split("?")[0]
            state.asked += 1
            if state.fault and (not state.only or path.name in state.only):
                if state.after and self.command == "HEAD":
                    pass
                elif state.after:
                    state.after -= 1
                else:
                    return self.go_wrong(state.fault, path)
            if not path.is_file():
                return self.send_error(404)
            return self.answer(path)

        do_HEAD = do_GET

        def answer(self, path: Path, cut: bool = False) -> None:
            data = path.read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if asked:
                start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
                data = data[start : end + 1]
            else:
                self.send_response(200)
            tags = {
                "ETag": f'"{zlib.crc32(path.read_bytes()):x}"',
                "Last-Modified": formatdate(path.stat().st_mtime, usegmt=True),
            }
            for name in state.says:
                self.send_header(name, tags[name])
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.close_connection = True

        def go_wrong(self, fault: str, path: Path) -> None:
            if fault.isdigit():
                self.send_error(int(fault))
            elif fault == "cut":
                self.answer(path, cut=True)
            elif fault == "hang":
                state.released.wait(60)
                self.close_connection = True
            else:  # A socket with no time to linger sends RST when it is closed.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Silence."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Silence: clients that are killed leave as they please."""

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield state
        finally:
            state.released.set()
            server.shutdown()
