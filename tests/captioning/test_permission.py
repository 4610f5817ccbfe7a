"""Where pictures and keys may go: nowhere that only a recipe names, unless the user has said so."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longtake.captioning import endpoint, permission
from longtake.captioning.chat import CaptionerFault, ChatRequest
from longtake.captioning.endpoint import Endpoint
from longtake.captioning.permission import Permission, PermissionFault, allow, host_of, parse_host, plain_url
from longtake.captioning.registry import make_captioner
from longtake.captioning.settings import EndpointSettings
from longtake.presto.errors import PrestoError
from longtake.presto.expand import expand

KEY = "sk-test-0f6c8a1b"
VENDOR = "https://api.vendor.example/v1"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (endpoint.ENDPOINT, endpoint.MODEL, endpoint.KEY, endpoint.KEY_FILE):
        monkeypatch.delenv(name, raising=False)


class Listener:
    """A server on loopback that notes every request, and answers each with `status` and `body`."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []  # The path and the header Authorization of each request.
        self.status, self.body = 200, b'{"data": []}'
        self.headers: dict[str, str] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append((self.path, self.headers.get("Authorization")))
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(outer.body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever)


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    made.thread.start()
    yield made
    made.server.shutdown()
    made.thread.join()
    made.server.server_close()


def openai(**settings: Any) -> Any:
    return make_captioner("openai", {"model": "tiny", **settings})


# ── addresses ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("api.vendor.example", "api.vendor.example:443"),
        ("API.Vendor.example:8443", "api.vendor.example:8443"),
        ("https://api.vendor.example/v1/", "api.vendor.example:443"),
        ("http://node7/v1", "node7:80"),
        ("[fd00::1]:8000", "[fd00::1]:8000"),
    ],
)
def test_a_host_as_a_user_types_it(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "*", "a b", "me:key@host", "host:99999", "host/?q", "ftp://host", "hôte", "127.0.0.1\\@evil.example",
        "evil.example#127.0.0.1", "host\n", "host,other", "https://", "a" * 3000,
    ],
)  # fmt: skip
def test_what_is_no_host(text: str) -> None:
    if text.strip() == "host":
        assert parse_host(text) == "host:443"  # The text is a valid line of the file.
        return
    with pytest.raises(ValueError, match="is no host"):
        parse_host(text)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1@evil.example/v1", "http://127.0.0.1\\@evil.example/v1", "http://127.0.0.1\n.evil.example/v1",
        "http://127.0.0.1 /v1", "http://ⓛocalhost/v1", "http://@host/v1", "http://host:x/v1", "http://[::1/v1", "http:///v1",
    ],
)  # fmt: skip
def test_addresses_that_parsers_read_differently_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="endpoint is a URL"):
        plain_url(url)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1.evil.example/v1", "http://127.1/v1", "http://0.0.0.0/v1", "http://localhost.evil.example/v1"],
)
def test_what_only_looks_like_this_machine_needs_permission(url: str) -> None:
    assert not Permission().may_ask(plain_url(url))


def test_host_and_port_count_exactly_and_plain_http_gets_no_key() -> None:
    given = Permission(hosts=frozenset(["api.vendor.example:443", "node7:8000"]))
    assert given.may_have_key(VENDOR)
    for other in (
        "https://api.vendor.example:8443/v1", "http://api.vendor.example/v1", "https://vendor.example/v1",
        "https://x.api.vendor.example/v1", "https://api.vendor.example./v1",
    ):  # fmt: skip
        assert not given.may_ask(other), other
    assert given.may_ask("http://node7:8000/v1")
    assert not given.may_have_key("http://node7:8000/v1")
    assert not given.may_have_key("http://api.vendor.example:443/v1")
    own = Permission(own=frozenset(["http://node7:8000"]))
    assert own.may_have_key("http://node7:8000/v1")
    assert not own.may_ask("https://node7:8000/v1")
    for here in ("http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:8000/v1"):
        assert Permission().may_ask(here)
        assert not Permission().may_have_key(here)
        assert Permission(hosts=frozenset([host_of(here)])).may_have_key(here)


# ── what the user has allowed ────────────────────────────────────────────────────────────────────────────────────────


def test_a_host_is_remembered_for_this_user_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Permission.of_user().hosts
    assert allow(VENDOR) == allow("api.vendor.example") == "api.vendor.example:443"
    allow("other.example:8443")
    file = permission.permissions_file()
    assert file == Path(os.environ["XDG_CONFIG_HOME"], "longtake", "endpoints")
    assert file.read_text() == "api.vendor.example:443\nother.example:8443\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    monkeypatch.setenv(permission.ALLOWED, " job.example , https://second.example/v1")
    monkeypatch.setenv(permission.ENDPOINT, "http://node7:8000/v1")
    assert Permission.of_user() == Permission(
        frozenset(["api.vendor.example:443", "other.example:8443", "job.example:443", "second.example:443"]),
        frozenset(["http://node7:8000"]),
    )


def test_a_list_that_others_can_write_allows_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    allow(VENDOR)
    file = permission.permissions_file()
    file.chmod(0o622)
    with pytest.raises(PermissionFault, match="can be written by others, so it allows nothing"):
        Permission.of_user()
    file.chmod(0o600)
    file.write_text("good.example\n*\n")
    with pytest.raises(PermissionFault, match=r"endpoints: '\*' is no host"):
        Permission.of_user()
    monkeypatch.setenv(permission.ALLOWED, "a b")
    with pytest.raises(PermissionFault, match="LONGTAKE_ALLOW_ENDPOINTS: 'a b' is no host"):
        Permission.of_user()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(PermissionFault, match=r"cannot write .*; or set LONGTAKE_ALLOW_ENDPOINTS=host:443"):
        allow("host")


# ── the captioner ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_recipes_address_gets_nothing_before_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key and no picture: the message names the host, the variable and what to type. Nothing is looked up or sent."""
    monkeypatch.setattr(Endpoint, "_look", None)  # A call of it fails.
    for set_key, named in ((False, "and no key"), (True, "the key in the environment variable LONGTAKE_CAPTION_KEY")):
        if set_key:
            monkeypatch.setenv(endpoint.KEY, KEY)
        for act in ("check", "examine"):
            with pytest.raises(CaptionerFault) as caught:
                getattr(openai(endpoint=VENDOR), act)()
            message = str(caught.value)
            assert VENDOR in message
            assert named in message
            assert "--allow-endpoint api.vendor.example:443" in message
            assert "LONGTAKE_ALLOW_ENDPOINTS=api.vendor.example:443" in message
            assert KEY not in message


def test_an_allowed_address_over_plain_http_gets_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Endpoint, "_look", None)
    monkeypatch.setenv(endpoint.KEY, KEY)
    monkeypatch.setenv(permission.ALLOWED, "node7:8000")
    with pytest.raises(CaptionerFault, match=r"not sent to node7:8000 over plain http.*LONGTAKE_CAPTION_ENDPOINT=http"):
        openai(endpoint="http://node7:8000/v1").check()


def test_a_loopback_address_of_a_recipe_is_asked_without_the_key(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(endpoint.KEY, KEY)
    openai(endpoint=listener.url).check()
    assert listener.seen == [("/v1/models", None)]
    listener.status = 401
    with pytest.raises(
        CaptionerFault, match=r"wants a key \(HTTP 401\), and none was sent \(the key in .* is not sent"
    ):
        openai(endpoint=listener.url).check()
    monkeypatch.setenv(permission.ALLOWED, host_of(listener.url))
    listener.status = 200
    openai(endpoint=listener.url).check()
    assert listener.seen[-1] == ("/v1/models", f"Bearer {KEY}")


def test_the_users_own_address_gets_the_key(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(endpoint.KEY, KEY)
    monkeypatch.setenv(permission.ENDPOINT, listener.url)
    openai().check()
    assert listener.seen == [("/v1/models", f"Bearer {KEY}")]


def test_the_doctors_look_sends_no_key(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(endpoint.KEY, KEY)
    monkeypatch.setenv(permission.ENDPOINT, listener.url)
    for listener.status in (200, 401):  # A server that wants a key has not seen one, so its refusal is no fault.
        (line,) = openai().examine()
        assert "the key in the environment variable LONGTAKE_CAPTION_KEY to http://127.0.0.1" in line
    assert {key for _, key in listener.seen} == {None}


def test_a_worker_follows_the_driver_and_not_its_own_home(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(endpoint.KEY, KEY)
    monkeypatch.setenv(permission.ENDPOINT, listener.url)
    driver = openai()
    handed = Permission.of_user()
    monkeypatch.delenv(permission.ENDPOINT)
    assert driver.resolved is not None
    worker = make_captioner("openai", driver.resolved)
    worker.permit(handed)
    worker.check()
    assert listener.seen[-1] == ("/v1/models", f"Bearer {KEY}")
    allow(VENDOR)  # A permission on the worker's machine decides nothing.
    other = make_captioner("openai", {**driver.resolved, "endpoint": VENDOR})
    other.permit(handed)
    with pytest.raises(CaptionerFault, match="nothing is sent to an address that a recipe names"):
        other.check()


def test_nothing_is_asked_without_permission_even_if_nobody_checked() -> None:
    captioner = Endpoint(EndpointSettings(endpoint=VENDOR, model="tiny"))
    captioner.permit(Permission())
    question = ChatRequest("", "", (), {}, 0, 0.0, 16)
    with pytest.raises(CaptionerFault, match="nothing is sent to an address"):
        asyncio.run(captioner.answer(question))


def test_the_refiner_needs_permission_too(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(permission.ENDPOINT, listener.url)
    with pytest.raises(CaptionerFault, match=r"api\.vendor\.example:443"):
        openai(refiner={"endpoint": VENDOR}).check()


# ── the trainer's prompts ────────────────────────────────────────────────────────────────────────────────────────────


def test_expand_follows_no_redirect_with_the_key(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(endpoint.KEY, KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    prompts = [f"A storm comes near over {what}." for what in ("the sea", "a field", "a town", "a wood", "a hill")]
    listener.body = json.dumps({"choices": [{"message": {"content": json.dumps({"prompts": prompts})}}]}).encode()
    assert expand("a storm", 5, listener.url, "m") == prompts
    assert listener.seen == [("/v1/chat/completions", f"Bearer {KEY}")]
    listener.status, listener.headers = 302, {"Location": f"{listener.url}/elsewhere"}
    with pytest.raises(PrestoError, match="HTTP 302"):
        expand("a storm", 5, listener.url, "m")
    assert len(listener.seen) == 2
