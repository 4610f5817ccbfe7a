"""`longtake studio`: the page and its questions over HTTP, for one person on this machine.

Who may ask: a page of ours in a browser on this machine. Other sites are refused by the Host header (a name that was made
to point here), by Sec-Fetch-Site and Origin (a page elsewhere that calls us). Away from this machine, by a token, too.
"""

from __future__ import annotations

import json
import math
import mimetypes
import os
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from longtake.curation.access import Access, Source, is_plain_file, open_source
from longtake.curation.errors import RowError, SetupError
from longtake.curation.looking.pictures import NoStrip
from longtake.curation.looking.studio import choosing, writing
from longtake.curation.looking.studio.asked import StudioError
from longtake.curation.looking.studio.session import Session
from longtake.curation.recipe import RecipeError
from longtake.manifests.folder import in_words, local_path
from longtake.manifests.members import container_of

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_BODY = 1_000_000  # Bytes of the body of a request.
# Digits of a whole number in a request: a gate's end has some 17, and a number of 400 digits is no float.
MOST_DIGITS = 40
_PIECE = 1 << 20
_COOKIE = "longtake_studio"
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_KINDS = {"css": "text/css", "js": "text/javascript"}
_ASSET = re.compile(r"[a-z]+\.(css|js)")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")  # 18 digits reach to an exabyte.

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Guard:
    """Lets nobody in but the page itself. token: asked for if it is not None."""

    def __init__(self, app: Any, token: str | None) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        refusal = self._refusal(request)
        if refusal is not None:
            await PlainTextResponse(refusal, 403, _HEADERS)(scope, receive, send)
            return
        # A form of another site cannot send this type without asking first.
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.method not in ("GET", "HEAD") and kind != "application/json":
            await PlainTextResponse("questions are JSON", 400, _HEADERS)(scope, receive, send)
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in _HEADERS.items()),
                ]
                if self.token is not None and "token" in request.query_params:
                    cookie = f"{_COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
                    message["headers"].append((b"set-cookie", cookie.encode()))
            await send(message)

        await self.app(scope, receive, with_headers)

    def _refusal(self, request: Request) -> str | None:
        host = request.headers.get("host", "")
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        if self.token is None and name.strip("[]") not in LOOPBACK:
            return "this studio answers to 127.0.0.1 and localhost only"
        # A link of another site may open the page, but a frame may not.
        top = request.url.path == "/" and request.headers.get("sec-fetch-dest") == "document"
        if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not top:
            return "no requests from other sites"
        if request.method not in ("GET", "HEAD"):
            origin = request.headers.get("origin")
            if origin is not None and origin.rpartition("//")[2] != host:
                return "no requests from other sites"
        if self.token is not None:
            given = request.query_params.get("token") or request.cookies.get(_COOKIE) or ""
            if not secrets.compare_digest(given.encode(), self.token.encode()):
                return "open the address that `longtake studio` printed: it holds a token"
        return None


def make_app(
    session: Session, token: str | None = None, access: Access | None = None, options: Sequence[str] = ()
) -> Guard:
    """The studio as an ASGI application. token: asked for if it is not None. access: what lets it play remote sources (None:
    what the environment gives). options: of `longtake curate`, for a run that a page begins."""
    access = access or Access.load()
    runs = writing.Runs(session, options)

    def page(request: Request) -> Response:
        text = (files("longtake.curation.looking.studio") / "static" / "index.html").read_text(encoding="utf-8")
        return Response(text, media_type="text/html", headers={"cache-control": "no-store"})

    def asset(request: Request) -> Response:
        name = request.path_params["name"]
        kind = _ASSET.fullmatch(name)
        folder = files("longtake.curation.looking") / ("report" if name == "report.css" else "studio/static")
        if kind is None or not (folder / name).is_file():
            return PlainTextResponse("no such file", 404)
        text = (folder / name).read_text(encoding="utf-8")
        return Response(text, media_type=_KINDS[kind[1]], headers={"cache-control": "no-cache"})

    def picture(request: Request) -> Response:
        number = request.path_params["number"]
        if len(number) != 1 or number not in "01234":
            return PlainTextResponse("a clip has pictures 0 to 4", 404)
        shown = session.picture(request.path_params["clip"], int(number))
        if isinstance(shown, NoStrip):
            return PlainTextResponse(shown.why, 503 if shown.again else 404)
        return Response(shown, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    def video(request: Request) -> Response:
        clip = request.path_params["clip"]
        if request.path_params["what"] == "encoded":
            encoded = session.encoded(clip)
            if encoded is None:
                return PlainTextResponse("this clip is not encoded", 404)
            return _video(Source(encoded), request.headers.get("range"))
        uri = session.source(clip)
        return _video(access.source(uri, session.needs_access(uri)), request.headers.get("range"))

    async def ask(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BODY:
                return PlainTextResponse("too much of a question", 413)
        return await run_in_threadpool(answer, request.path_params["what"], parse_question(body))

    def answer(what: str, question: dict[str, Any]) -> Response:
        answers: dict[str, Callable[[], Any]] = {
            "decide": lambda: session.decide(question),
            "focus": lambda: session.focus(question),
            "film": lambda: session.film(question),
            "beside": lambda: session.beside(question),
            "clips": lambda: session.clips(question),
            "clip": lambda: session.clip(question),
            "marks": lambda: choosing.marks_of(session, question),
            "mark": lambda: choosing.mark(session, question),
            "agreement": lambda: choosing.agreement_of(session, question),
            "audit": lambda: choosing.audit(session, question),
            "cost": lambda: writing.cost(session, question),
            "funnels": lambda: writing.funnels(session, question),
            "save": lambda: writing.save(session, question),
            "reload": lambda: session.reload(),
            "run": lambda: runs.start(question),
            "stop": lambda: runs.stop(),
        }
        if what not in answers:
            return PlainTextResponse("no such question", 404)
        return JSONResponse(answers[what]())

    def state(request: Request) -> Response:
        return JSONResponse(session.state())

    def origins(request: Request) -> Response:
        return JSONResponse(session.sources())

    def playing(request: Request) -> Response:
        return JSONResponse(session.playing(request.path_params["clip"]))

    def run_state(request: Request) -> Response:
        return JSONResponse(runs.state())

    routes = [
        Route("/", page),
        Route("/static/{name}", asset),
        Route("/api/state", state),
        Route("/api/sources", origins),
        Route("/api/run", run_state),
        Route("/api/playing/{clip}", playing),
        Route("/api/{what}", ask, methods=["POST"]),
        Route("/clips/{clip}/{number}.jpg", picture),
        Route("/clips/{clip}/{what:str}.video", video),
    ]
    handlers: dict[Any, Any] = {
        KeyError: lambda request, error: PlainTextResponse("no such clip", 404),
        StudioError: lambda request, error: PlainTextResponse(str(error), 400),
        RecipeError: lambda request, error: PlainTextResponse(str(error), 400),
        SetupError: lambda request, error: PlainTextResponse(str(error), 500),
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token)


def parse_question(body: bytes) -> dict[str, Any]:
    """A question out of a request's body. Raises StudioError for what is no JSON object, and for what JSON allows but nothing
    here can hold: numbers without end, infinite ones, half a character."""

    def whole(text: str) -> int:
        if len(text) > MOST_DIGITS:
            raise StudioError(f"a number of {len(text)} digits")
        return int(text)

    def broken(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise StudioError(f"{text[:40]} is no number")
        return value

    try:
        question = json.loads(body.decode("utf-8"), parse_int=whole, parse_float=broken, parse_constant=broken)
        json.dumps(question, ensure_ascii=False).encode("utf-8")  # Half of a surrogate pair cannot be encoded.
    except StudioError:
        raise
    except (ValueError, RecursionError) as error:
        raise StudioError(f"questions are JSON: {str(error)[:200]}") from error
    if not isinstance(question, dict):
        raise StudioError("a question is an object")
    return question


def _video(source: Source, wanted: str | None) -> Response:
    """A video file, or the part of it that a player asks for."""
    kind = mimetypes.guess_type(source.uri)[0] or ""
    kind = kind if kind.startswith("video/") else "video/mp4"
    path = local_path(source.uri)
    if path is not None and (container_of(source.uri) is None or is_plain_file(source.uri)):
        return FileResponse(path, media_type=kind) if path.is_file() else PlainTextResponse("the file is gone", 404)
    try:
        file = open_source(source)
        size = file.seek(0, os.SEEK_END)
    except RowError as error:
        return PlainTextResponse(source.redact(str(error)), 404)
    except Exception as error:  # A remote filesystem raises errors of its own kinds.
        return PlainTextResponse(source.redact(f"cannot be opened: {in_words(error)}"), 404)
    match = _RANGE.fullmatch(wanted or "")
    first, last = 0, size - 1
    if match and (match[1] or match[2]):
        first = int(match[1]) if match[1] else max(0, size - int(match[2]))
        last = min(last, int(match[2])) if match[1] and match[2] else last
        if first > last:
            file.close()
            return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
    headers = {"accept-ranges": "bytes", "content-length": str(last - first + 1)}
    if match:
        headers["content-range"] = f"bytes {first}-{last}/{size}"
    return StreamingResponse(_pieces(file, first, last), 206 if match else 200, headers, kind)


def _pieces(file: Any, first: int, last: int) -> Iterator[bytes]:
    with file:
        file.seek(first)
        while first <= last and (piece := file.read(min(_PIECE, last - first + 1))):
            first += len(piece)
            yield piece


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on; port 0 takes a free one. Raises SetupError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(128)  # A browser that opens the address at once waits for the answer.
    except OSError as error:
        hint = "; choose another with --port, or 0 for a free one" if port else ""
        raise SetupError(f"cannot listen on {host}:{port}: {error.strerror or error}{hint}") from error
    return bound


def serve(
    session: Session, bound: socket.socket, token: str | None, access: Access | None = None, options: Sequence[str] = ()
) -> None:
    """Answer until Ctrl-C, about a session that has begun."""
    config = uvicorn.Config(
        make_app(session, token, access, options), log_level="warning", server_header=False, ws="none", lifespan="off",
        use_colors=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run(sockets=[bound])
    finally:
        session.close()


def address(bound: socket.socket, host: str, token: str | None) -> str:
    """What to open in a browser."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{bound.getsockname()[1]}/" + (f"?token={token}" if token else "")
