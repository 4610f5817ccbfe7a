"""A real Chromium, a real workspace of small films, and the studio on it. Run by `make e2e`, not by `make test`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console

from longtake.curation.cli.progress import Progress
from longtake.curation.pipeline import run
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.curation.stages.stage import Options
from longtake.curation.workspace import Workspace
from tests.corpus import SMALL, Encoding, film, pan
from tests.curation.looking.studio_server import Studio, studio

SHOTS = Path(os.environ.get("LONGTAKE_SHOTS", "build/shots"))  # Pictures of the pages are saved into this folder.
SPEEDS = (0, 1, 2, 3, 4, 6, 8, 10)  # Pixels per frame: each speed gives another score of flow.


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "no Chromium: apt-get install chromium, or name one in CHROMIUM"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


class Watched:
    """A page, and what happened on it that should not."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.faults: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("dialog", lambda dialog: (self.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(60_000)
    yield Watched(context.new_page())
    context.close()


def small_recipe() -> Recipe:
    return parse_recipe(
        {
            "name": "films",
            "splitting": {"detector": "none", "dissolves": False, "min_seconds": 2, "window_seconds": 2},
            "sampling": {"partner_seconds": 0.1},
            "filters": {"width": {}, "fps": {}, "grayscale": {}, "psnr": {}, "flow": {"backend": "dis"}},
            "tiers": {
                "pretrain": {
                    "width": ">= 64",
                    "fps": "[5, 60]",
                    "grayscale": "[1, 254]",
                    "psnr": "[1, 100]",
                    "flow": ">= 2",
                },
                "finetune": {"grayscale": "[1, 254]", "flow": ">= 100"},
            },
            "export": {"frames": 48, "fps": 24, "preset": "ultrafast", "crf": 30},
        },
        source="e2e",
    )


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Films of a camera that pans at SPEEDS, gone the whole way; one of them in a format that no browser plays."""
    folder = tmp_path_factory.mktemp("e2e")
    videos = folder / "videos"
    videos.mkdir()
    for speed in SPEEDS:
        film(videos / f"{speed:02}.mp4", pan("table", (speed, 0), (100, 60), SMALL, 50), Encoding(size=SMALL))
    film(
        videos / "old.avi", pan("table", (5, 0), (100, 60), SMALL, 50), Encoding(codec="mpeg4", size=SMALL, options=())
    )
    workspace = Workspace(str(folder / "workspace"))
    with Progress(Console(quiet=True)) as progress:
        run(workspace, small_recipe(), [str(videos)], Options(engine="inline"), progress)
    return workspace


@pytest.fixture
def films(made: Workspace, tmp_path: Path) -> Workspace:
    """A copy of its own."""
    shutil.copytree(made.path, tmp_path / "workspace")
    return Workspace(str(tmp_path / "workspace"))


@pytest.fixture
def served(films: Workspace) -> Iterator[Studio]:
    with studio(films.path) as running:
        yield running
