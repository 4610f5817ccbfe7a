"""`openai`: the progressive method over any OpenAI-compatible endpoint (vLLM, SGLang, a vendor).

What a server does wrong costs at most its request: it is sent again, later and later (with jitter, and not before the time
that `Retry-After` names), until `tries` are used up or `patience` is over. What no request can survive (a wrong key, an
unknown model, a ceiling that is reached) stops the run. An answer is read up to `max_answer_kib` and no further.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from longtake.captioning.allowance import Admission, Allowance, Allowing, Terms
from longtake.captioning.base import Running
from longtake.captioning.chat import (
    CaptionerFault,
    ChatAnswer,
    ChatBackend,
    ChatFailed,
    ChatRequest,
    Finish,
)
from longtake.captioning.completions import encoded, message_of, read_completion, seconds_of, status_said
from longtake.captioning.permission import (
    ALLOWED,
    ENDPOINT,
    OPTION,
    Permission,
    PermissionFault,
    host_of,
    is_loopback,
    plain_url,
)
from longtake.captioning.progressive import Progressive
from longtake.captioning.settings import KEY, KEY_FILE, MODEL, EndpointSettings, Settings
from longtake.manifests.folder import in_words

if TYPE_CHECKING:
    import aiohttp

CHECK_SECONDS = 10.0
END_SECONDS = 5.0  # Seconds after its time limit at which a request is over for certain.
# Seconds. The pauses before a request is sent again grow from the first to the longest; the server may ask for more.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
# Fields that some servers refuse, each with the field that replaces it.
OPTIONAL: dict[str, str | None] = {"response_format": None, "seed": None, "max_tokens": "max_completion_tokens"}
_GUESS = "response_format"  # The field that is left out where a server refuses a request and names none.
# Azure, OpenAI and DashScope (HTTP 400) and OpenRouter (403) say one of these where their filter refuses the pictures or words of
# a request.
_FILTERED = (
    b"content_filter", b"content_policy_violation", b"data_inspection_failed", b"DataInspectionFailed", b"flagged_input",
)  # fmt: skip


class OpenAI(Progressive):
    """The progressive method, its questions put to an OpenAI-compatible endpoint."""

    name: ClassVar[str] = "openai"
    settings_type: ClassVar[type[Settings]] = EndpointSettings

    @classmethod
    def backend(cls, settings: EndpointSettings) -> Endpoint:
        return Endpoint(settings)

    @property
    def running(self) -> Running:
        """One worker, unless told otherwise: requests wait for the server, not for a core. Twice as many clips flow as
        requests may fly, since a clip has one in flight most of the time, and a batch waits for its slowest."""
        assert isinstance(self.describer, Endpoint)
        at_once = 1 + math.ceil(2 * self.describer.concurrency / Running().batch)
        return Running(workers=self.describer.settings.workers, at_once=at_once)

    @property
    def resolved(self) -> dict[str, Any]:
        """Endpoint and model as they were found here: workers elsewhere may have another environment."""
        assert isinstance(self.describer, Endpoint)
        settings = self.method.model_dump(exclude_unset=True) | self.describer.resolved
        settings["prompts"] = {"name": self.templates.name, **self.templates.templates}
        if self.method.refiner and isinstance(self.refiner, Endpoint):
            settings["refiner"] = self.method.refiner | {
                key: self.refiner.resolved[key] for key in ("endpoint", "model") if self.refiner.resolved[key]
            }
        return settings


def _at_once(coroutine: Coroutine[Any, Any, None]) -> None:
    """Wait for it, in a loop of its own in a thread of its own: in a notebook this thread has a loop that runs."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, coroutine).result()


class Endpoint(ChatBackend):
    """One model at one endpoint."""

    def __init__(self, settings: EndpointSettings) -> None:
        super().__init__()
        self.settings = settings
        endpoint = settings.endpoint or os.environ.get(ENDPOINT)
        try:
            self.url = plain_url(endpoint) if endpoint else None
        except ValueError as error:
            raise ValueError(f"{ENDPOINT}: {error}") from None
        self.model = settings.model or os.environ.get(MODEL) or ""
        self.concurrency = max(1, settings.concurrency // settings.workers)
        self.permission: Permission | None = None
        self._session: aiohttp.ClientSession | None = None
        self._refused: set[str] = set()  # Optional fields that this server does not accept.
        self._allowances: Callable[[str], Allowing] | None = None
        self._allowance: Allowing | None = None
        self._run, self._worker = "", secrets.token_hex(8)
        self._slots: asyncio.Semaphore | None = None

    @property
    def identity(self) -> str:  # type: ignore[override]
        """The model, and not where it is served: captions that were paid for survive a move."""
        if not self.model:
            raise CaptionerFault(self._unconfigured("model", MODEL))
        return f"openai:{self.model}"

    @property
    def resolved(self) -> dict[str, Any]:
        return self.settings.model_dump(exclude_unset=True) | {"endpoint": self.url, "model": self.model or None}

    def _unconfigured(self, what: str, variable: str) -> str:
        return (
            f"the captioner openai has no {what}: set captioning.settings.{what} in the recipe, or the environment "
            f"variable {variable} (docs/captioning.md says more)"
        )

    # ── before any work ──────────────────────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        """Configured, allowed, reachable, the key accepted, and the model served, where the server tells."""
        self._check_settings()
        self._check_permission()
        _at_once(self._look(self._sent_key()))

    def examine(self) -> list[str]:
        """As `check`, with no key sent; says what a run would send where."""
        self._check_settings()
        self._check_permission()
        _at_once(self._look(None))
        return [f"a run sends {self._what()} to {self.url}{self._withheld()}"]

    def _check_settings(self) -> None:
        if self.url is None:
            raise CaptionerFault(self._unconfigured("endpoint", ENDPOINT))
        _ = self.identity
        if self.settings.cost_ceiling is not None and self.settings.prompt_price is None:
            raise CaptionerFault("cost_ceiling needs prompt_price and completion_price, per million tokens")
        self.key()

    def permit(self, permission: Permission) -> None:
        self.permission = permission

    def share(self, run: str, allowances: Callable[[str], Allowing]) -> None:
        self._run, self._allowances = run, allowances

    def _permitted(self) -> Permission:
        """What the driver said, or else what this user's own configuration says. Raises CaptionerFault."""
        if self.permission is None:
            try:
                self.permission = Permission.of_user()
            except PermissionFault as error:
                raise CaptionerFault(str(error)) from None
        return self.permission

    def _check_permission(self) -> None:
        """Raises CaptionerFault unless the endpoint may be sent what a run would send."""
        assert self.url is not None
        if self._permitted().may_ask(self.url) and (
            self.key() is None or is_loopback(self.url) or self._permitted().may_have_key(self.url)
        ):
            return
        host = host_of(self.url)
        if self._permitted().may_ask(self.url):
            raise CaptionerFault(
                f"the recipe names the endpoint {self.url}, and the key in {self._source()} is not sent to {host} over "
                f"plain http, where everybody on the way can read it: use https, unset the variable, or make it your own "
                f"word with {ENDPOINT}={self.url}"
            )
        raise CaptionerFault(
            f"the recipe names the endpoint {self.url}, and nothing is sent to an address that a recipe names before you "
            f"allow it: a run would send {self._what()} to {host}; if you trust it, repeat the command with {OPTION} {host}, "
            f"or set {ALLOWED}={host} for a job"
        )

    def _what(self) -> str:
        return "pictures and texts of the clips" + (
            f" and the key in {self._source()}" if self._would_send_key() else ", and no key"
        )

    def _would_send_key(self) -> bool:
        assert self.url is not None
        return self.key() is not None and not (is_loopback(self.url) and not self._permitted().may_have_key(self.url))

    def _withheld(self) -> str:
        """Why there is a key that is not sent; nothing where there is none."""
        if self.key() is None or self._would_send_key():
            return ""
        assert self.url is not None
        return (
            f" (the key in {self._source()} is not sent, since a recipe names the address; {OPTION} "
            f"{host_of(self.url)} would send it)"
        )

    def _source(self) -> str:
        """Where the key comes from, for messages."""
        if self._of_file():
            return f"the file that {KEY_FILE} names"
        return f"the environment variable {self.settings.api_key_env}"

    def _of_file(self) -> bool:
        return not os.environ.get(self.settings.api_key_env, "").strip() and (
            self.settings.api_key_env == KEY and bool(os.environ.get(KEY_FILE))
        )

    def key(self) -> str | None:
        """The key, if there is one. Raises CaptionerFault if the file that should hold it does not."""
        if not self._of_file():
            key = os.environ.get(self.settings.api_key_env, "").strip()
        else:
            file = os.environ[KEY_FILE]
            try:
                key = Path(file).expanduser().read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise CaptionerFault(f"the key file {file} ({KEY_FILE}) cannot be read: {in_words(error)}") from None
            if not key:
                raise CaptionerFault(f"the key file {file} ({KEY_FILE}) must hold one line: the key")
        if key and not re.fullmatch(r"[!-~]+", key):
            raise CaptionerFault(f"{self._source()} must hold one line of plain characters: the key")
        return key or None

    def _sent_key(self) -> str | None:
        """The key, if the endpoint may have it."""
        assert self.url is not None
        return self.key() if self._permitted().may_have_key(self.url) else None

    async def _look(self, key: str | None) -> None:
        """key: to be sent with the question, if it is not None."""
        import aiohttp

        try:
            async with self._new_session(key) as session:
                timeout = aiohttp.ClientTimeout(total=CHECK_SECONDS)
                async with session.get(f"{self.url}/models", timeout=timeout, allow_redirects=False) as response:
                    status, body = response.status, await self._body(response)
        except _TooLong:
            return  # Routers have more models than any answer is long.
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CaptionerFault(
                f"the endpoint {self.url} does not answer: {self.hidden(str(error) or type(error).__name__)}; is the "
                "server started?"
            ) from None
        if status in (401, 403) and not (key is None and self._would_send_key()):
            raise CaptionerFault(self._key_refused(status))
        if status != 200:
            return  # Some servers do not list their models.
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            served = [str(entry["id"]) for entry in json.loads(body)["data"]]
            if served and self.model not in served:
                raise CaptionerFault(
                    f"the endpoint {self.url} serves no model {self.model!r}; it has: {', '.join(served[:10])}"
                )

    def _key_refused(self, status: int) -> str:
        if self._would_send_key():
            return f"the endpoint {self.url} refuses the key (HTTP {status}); it is taken from {self._source()}"
        none = self._withheld() or f": put it into the environment variable {self.settings.api_key_env}"
        return f"the endpoint {self.url} wants a key (HTTP {status}), and none was sent{none}"

    def hidden(self, text: str) -> str:
        """`text` without the key: servers quote it back."""
        key = self.key()
        return text.replace(key, "[key]") if key else text

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def answer(self, request: ChatRequest) -> ChatAnswer:
        guesses: set[str] = set()
        try:
            return await self._answer(request, guesses)
        except BaseException:
            # The request itself may have been bad, and not the field: others are sent with it.
            self._refused -= guesses
            raise

    async def _answer(self, request: ChatRequest, guesses: set[str]) -> ChatAnswer:
        """See `answer`. guesses: takes in the fields that were left out though the server named none."""
        started, failures, sent = time.monotonic(), 0, 0
        problem, fault = "", None
        while failures < self.settings.request_tries and time.monotonic() - started < self.settings.patience:
            sent += 1
            outcome = await self._in_turn(request)
            if isinstance(outcome, ChatAnswer):
                return ChatAnswer(
                    outcome.text, outcome.finish, outcome.prompt_tokens, outcome.completion_tokens, attempts=sent
                )
            problem, fault = outcome.reason, outcome.fault
            if outcome.final:
                break
            if outcome.other_fields:
                guesses |= outcome.guesses
                sent -= 1
                continue
            failures += outcome.counts
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** max(0, failures - 1)) * random.uniform(0.5, 1.5)
            if outcome.wait is not None:
                pause = min(outcome.wait, self.settings.patience) + random.uniform(0, 0.25)
            await self._rest(pause)
        raise ChatFailed(f"{problem} (sent {sent} times)", max(1, sent), fault)

    async def _in_turn(self, request: ChatRequest) -> ChatAnswer | _Failure:
        # The limit keeps few requests in line at the allowance, and not those of all clips.
        self._slots = self._slots or asyncio.Semaphore(self.settings.concurrency)
        async with self._slots:
            ticket, quiet = await self._let_in(), 0.0
            assert self._allowance is not None
            try:
                with self.meter:
                    outcome = await self._send(request)
                if isinstance(outcome, ChatAnswer):
                    self.meter.paid(outcome)
                elif outcome.wait is not None:
                    # All requests wait: the server would refuse each further one as well.
                    quiet = min(outcome.wait, self.settings.patience)
            finally:
                self._allowance.leave(ticket, quiet)
            return outcome

    async def _let_in(self) -> str:
        """A place for a request. Raises CaptionerFault once nothing may be sent any more."""
        if self._allowance is None:
            assert self.url is not None
            self._allowance = self._allowances(self.url) if self._allowances is not None else Allowance()
        settings = self.settings
        terms = Terms(
            self._run,
            self._worker,
            settings.concurrency,
            settings.timeout + END_SECONDS,
            settings.requests_per_minute,
            settings.token_ceiling,
            settings.cost_ceiling,
            (settings.prompt_price or 0.0, settings.completion_price or 0.0),
        )
        while True:
            if self.fault is not None:
                raise self.fault
            spent = self.meter.prompt_tokens, self.meter.completion_tokens
            admission: Admission = await self._allowance.enter(terms, spent)
            if admission.refusal is not None:
                raise CaptionerFault(admission.refusal)
            if admission.ticket is not None:
                return admission.ticket

    async def _rest(self, seconds: float) -> None:
        """Sleep, but not on when the run stops."""
        until = time.monotonic() + seconds
        while self.fault is None and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 1.0))

    async def _send(self, request: ChatRequest) -> ChatAnswer | _Failure:
        import aiohttp

        if self._session is None:
            self._check_permission()
            self._session = self._new_session(self._sent_key())
        fields = self._fields(request)
        try:
            async with self._session.post(
                f"{self.url}/chat/completions",
                data=encoded(fields, request),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,  # After a redirect the key would be sent to another address.
            ) as response:
                body = await self._body(response)
                return self._understood(response.status, response.headers, body, fields)
        except _TooLong as error:
            return _Failure(str(error))
        except TimeoutError:
            return _Failure(f"no answer within {self.settings.timeout:g} s", fault="timed_out")
        except (aiohttp.ClientError, OSError) as error:
            reason = f"the connection failed: {self.hidden(str(error) or type(error).__name__)}"
            return _Failure(reason, fault="unreachable")

    def _new_session(self, key: str | None) -> aiohttp.ClientSession:
        import aiohttp

        return aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=aiohttp.ClientTimeout(total=self.settings.timeout, sock_connect=min(30.0, self.settings.timeout)),
            connector=aiohttp.TCPConnector(limit=self.concurrency, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
        )

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """The body, if it is not too long: what the server says of its length is not believed."""
        limit = self.settings.max_answer_kib * 1024
        parts, size = [], 0
        async for part in response.content.iter_chunked(65_536):
            parts.append(part)
            size += len(part)
            if size > limit:
                response.close()
                raise _TooLong(f"an answer of more than {self.settings.max_answer_kib} KiB")
        return b"".join(parts)

    def _fields(self, request: ChatRequest) -> dict[str, Any]:
        """The request's body, but for its messages."""
        fields: dict[str, Any] = {
            "model": self.model,
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "caption", "strict": True, "schema": dict(request.schema)},
            },
        }
        for name in self._refused:
            value = fields.pop(name)
            if (instead := OPTIONAL[name]) is not None:
                fields[instead] = value
        return fields

    def _understood(
        self, status: int, headers: Mapping[str, str], body: bytes, fields: Mapping[str, Any]
    ) -> ChatAnswer | _Failure:
        if status == 200:
            outcome = read_completion(body)
            if isinstance(outcome, ChatAnswer):
                return outcome
            if (said := status_said(body)) is None:
                return _Failure(outcome)
            status = said
        message = self.hidden(message_of(body))
        answered = f"HTTP {status}{f': {message}' if message else ''}"
        if status in (400, 403) and any(word in body[:4096] for word in _FILTERED):
            return ChatAnswer("", Finish.REFUSED, 0, 0)
        if status in (401, 403):
            raise CaptionerFault(self._key_refused(status))
        if status == 404:
            raise CaptionerFault(
                f"the endpoint {self.url} knows no chat completions, or no model {self.model!r}: {answered}"
            )
        if status == 402 or b"insufficient_quota" in body[:4096]:
            raise CaptionerFault(f"the endpoint {self.url} wants to be paid first: {answered}")
        if status in (400, 422):
            return self._with_other_fields(message, fields) or _Failure(answered, final=True)
        wait = seconds_of(headers.get("Retry-After"))
        if status == 429:
            return _Failure(answered, counts=0, wait=2.0 if wait is None else wait, fault="throttled")
        if status in (408, 409, 425) or status >= 500:
            faults = {503: "throttled", 408: "timed_out", 504: "timed_out"}
            return _Failure(answered, wait=wait, fault=faults.get(status, "unreachable"))
        return _Failure(answered, final=True)

    def _with_other_fields(self, message: str, fields: Mapping[str, Any]) -> _Failure | None:
        """If the server may have stumbled over an optional field: leave that out from now on."""
        sent = [name for name in OPTIONAL if name in fields]
        named = [name for name in sent if name in message]
        guesses = set() if named else {_GUESS}.intersection(sent)
        left_out = {*named, *guesses}
        if not left_out:
            return None
        self._refused |= left_out
        return _Failure(f"the server does not take {', '.join(sorted(left_out))}", other_fields=True, guesses=guesses)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class _TooLong(OSError):
    """An answer beyond the limit."""


class _Failure:
    """Why a request got no answer. counts: 1 if it counts as a try. wait: seconds that the server asks for. final: it
    would fail again. other_fields: it is worth sending at once, without the fields that were refused. guesses: those that may
    have been, though the server named none. fault: see `CaptionError`."""

    __slots__ = ("counts", "fault", "final", "guesses", "other_fields", "reason", "wait")

    def __init__(
        self,
        reason: str,
        *,
        counts: int = 1,
        wait: float | None = None,
        final: bool = False,
        other_fields: bool = False,
        guesses: Collection[str] = (),
        fault: str | None = None,
    ) -> None:
        self.fault, self.guesses = fault, frozenset(guesses)
        self.reason, self.counts, self.wait, self.final, self.other_fields = reason, counts, wait, final, other_fields
