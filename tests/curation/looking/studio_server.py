"""A real `longtake studio` for tests: the command in a process of its own, and questions to it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        assert self.status == 200, self.body
        return json.loads(self.body)


@dataclass(frozen=True)
class Studio:
    url: str
    process: subprocess.Popen[str]

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()

    def ask(self, path: str, question: Any = None, method: str | None = None, **headers: str) -> Answer:
        """headers: `sec_fetch_site` for sec-fetch-site. A question goes as JSON."""
        address = urlsplit(self.url)
        connection = HTTPConnection(address.hostname or "", address.port or 0, timeout=60)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        body = None
        if question is not None:
            sent.setdefault("content-type", "application/json")
            body = question if isinstance(question, bytes) else json.dumps(question).encode()
        try:
            connection.request(method or ("GET" if question is None else "POST"), path, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()


@contextmanager
def studio(workspace: str, *options: str) -> Iterator[Studio]:
    """The studio on a free port, ended by its process id."""
    command = [sys.executable, "-m", "longtake", "studio", workspace, "--port", "0", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + process.stdout.read()
        yield Studio(found[0], process)
    finally:
        process.terminate()
        process.communicate(timeout=30)
