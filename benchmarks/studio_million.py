"""The studio on one million clips: how soon it shows something, how long a step of a drag takes, how much memory.

    python -m benchmarks.studio_million [--clips 1000000] [--steps 40] [--keep FOLDER]

Starts `longtake studio` as a user does, on the workspace that benchmarks.stats_million makes. First over HTTP alone: from
the command to the first funnel, then what is asked when an end of a gate is taken and while it moves, gate by gate. Then,
where Playwright and Chromium are there, in a browser: from opening the page to the drawn funnel, and from the movement of the
mouse to the redrawn one, with a movement every 30 ms.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import psutil

from benchmarks.stats_million import make
from longtake.curation.workspace import Workspace


def ask(url: str, path: str, question: Any = None) -> Any:
    body = None if question is None else json.dumps(question).encode()
    with urlopen(Request(url + path, body, {"content-type": "application/json"}), timeout=120) as answer:
        return json.load(answer)


def quantiles(seconds: list[float]) -> str:
    p50, p95, most = (1000 * float(np.quantile(seconds, q)) for q in (0.5, 0.95, 1))
    return f"median {p50:.0f} ms, p95 {p95:.0f} ms, most {most:.0f} ms ({len(seconds)} steps)"


def over_http(url: str, began: float, steps: int) -> None:
    """The first funnel, then each gate of the first tier moved in `steps` steps, both ends."""
    state = ask(url, "api/state")
    tier = next(iter(state["tiers"]))
    question = {"tiers": state["tiers"], "tier": tier, "whole": True}
    counts = ask(url, "api/decide", question)["counts"][tier]
    print(
        f"command to first funnel: {time.perf_counter() - began:.2f} s; {state['clips']} clips, {counts['kept']} kept"
    )
    seconds, taken, films = [], [], []
    for gate, (low, high) in state["tiers"][tier].items():
        scale = state["filters"][gate]
        for end in ("low", "high"):
            start = time.perf_counter()
            found = ask(url, "api/focus", {"tiers": state["tiers"], "tier": tier, "gate": gate, "end": end})
            taken.append(time.perf_counter() - start)
            start = time.perf_counter()
            around = {
                "tiers": state["tiers"],
                "tier": tier,
                "gate": gate,
                "start": max(0, found["line"][0] - 16),
                "count": 32,
            }
            ask(url, "api/film", around)
            films.append(time.perf_counter() - start)
        for i in range(2):
            for at in np.linspace(scale["low"], scale["high"], steps + 2)[1:-1]:
                ends = [low, high]
                ends[i] = float(min(at, high)) if i == 0 and high is not None else float(at)
                ends[i] = max(ends[i], low) if i == 1 and low is not None else ends[i]
                tiers = state["tiers"] | {tier: state["tiers"][tier] | {gate: ends}}
                start = time.perf_counter()
                ask(url, "api/decide", {"tiers": tiers, "tier": tier, "gate": gate})
                seconds.append(time.perf_counter() - start)
    print(f"an end of a gate is taken, counted for all of its places: {quantiles(taken)}")
    print(f"32 clips of the film of a gate: {quantiles(films)}")
    print(f"a step of a drag over HTTP: {quantiles(seconds)}")
    everything = state["tiers"] | {tier: {}}
    start = time.perf_counter()
    ask(url, "api/decide", {"tiers": everything, "tier": tier})
    print(f"no gate at all: {1000 * (time.perf_counter() - start):.0f} ms")
    for key, text in (("caption", "brown"), ("uri", "00042")):
        start = time.perf_counter()
        found = ask(url, "api/decide", {"tiers": state["tiers"], "tier": tier, "selection": {key: text}, "whole": True})
        print(f"search in {key}: {time.perf_counter() - start:.2f} s, {found['selected']} clips")
    ask(url, "api/decide", question)


def in_browser(url: str, steps: int) -> None:
    """Two gates dragged in Chromium: what the page itself measures, from the movement to the frame after the drawing."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        print("in a browser: not measured, there is no playwright")
        return
    path = shutil.which("chromium")
    if path is None:
        print("in a browser: not measured, there is no chromium")
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        start = time.perf_counter()
        page.goto(url)
        page.locator("#funnel tbody tr").first.wait_for()
        print(f"page opened to funnel drawn: {time.perf_counter() - start:.2f} s")
        page.wait_for_timeout(2000)
        for told, pause in (("one after the other", 250), ("with a movement every 30 ms", 30)):
            page.evaluate("performance.clearMeasures()")
            for gate in ("flow", "ssim"):
                drag(page, gate, steps, pause)
            for what in ("step", "drawing"):
                entries = f"performance.getEntriesByName('studio {what}').map((entry) => entry.duration / 1000)"
                name = "mouse moved to funnel redrawn" if what == "step" else "    of that, drawing"
                print(f"{name}, {told}: {quantiles(page.evaluate(entries))}")
        browser.close()


def drag(page: Any, gate: str, steps: int, pause: int) -> None:
    """Pull the low end of a gate to 80 % of its scale, a movement every `pause` ms."""
    page.locator(f"#gate-{gate}").click()
    page.locator("#h-focus", has_text=gate).wait_for()
    page.wait_for_timeout(1500)
    handle, plot = page.locator("#focus .handle.low"), page.locator("#focus .histogram .plot")
    handle.scroll_into_view_if_needed()
    box, room = handle.bounding_box(), plot.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 40
    goal = room["x"] + 0.8 * room["width"]
    page.mouse.move(x, y)
    page.mouse.down()
    due = time.perf_counter()
    for i in range(1, steps + 1):
        page.mouse.move(x + (goal - x) * i / steps, y)
        due += pause / 1000
        time.sleep(max(0.0, due - time.perf_counter()))
    page.mouse.up()
    page.wait_for_timeout(1000)
    field = page.locator("#focus .ends input").first
    field.fill("0")  # The field goes back to its first value.
    field.press("Enter")
    page.wait_for_timeout(1000)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the studio on many clips.")
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--keep", type=Path, help="make the workspace here, and use it again if it is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = str(options.keep or scratch)
        if not Workspace(folder).clips.parts():
            make(folder, options.clips)
        began = time.perf_counter()
        command = [sys.executable, "-m", "longtake", "studio", folder, "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found, "the studio did not start"
            print(f"load of the machine: {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores")
            print(f"command to address: {time.perf_counter() - began:.2f} s")
            over_http(found[0], began, options.steps)
            in_browser(found[0], options.steps)
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = re.search(r"VmHWM:\s+(\d+)", status)
            assert peak
            resident = psutil.Process(process.pid).memory_info().rss
            print(f"memory: {resident / 2**20:.0f} MiB, at most {int(peak[1]) / 2**10:.0f} MiB")
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
