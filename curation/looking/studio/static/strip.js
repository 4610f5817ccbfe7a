// A gate's clips in the order of its score, as a film that slides past the line where an end of the gate stands.

import {marking, picture, Player} from "./clips.js";
import {ask, count, digits, element, lasting, tell} from "./dom.js";

const AHEAD = 12;  // Clips on each side of the visible ones that are requested with them.
const HELD = 600;  // Clips that the page remembers, which bounds its memory.
const HOVER = 250;  // Milliseconds until a clip under the pointer plays.
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Strip {
  // question() returns what is set, marks() the marks of this rater. marked(clip, kind) marks a clip, open(clip) shows it large, and
  // turn(gate) chooses another gate.
  constructor(place, {question, marked, open, marks, turn}) {
    Object.assign(this, {place, question, marked, open, marks, turn});
    this.list = element("ul", {class: "reel", "aria-label": "clips by their score"});
    this.lines = ["low", "high"].map((end) => element("div", {class: `cut ${end}`, "aria-hidden": "true"}, element("span")));
    this.edges = ["no clip has a lower score", "no clip has a higher score"].map((text) => element("p", {class: "edge note"}, text));
    this.window = element("div", {class: "window"}, ...this.edges, this.list, ...this.lines);
    this.empty = element("div", {class: "empty", hidden: true});
    this.tools = element("div", {class: "row tools"},
      element("button", {type: "button", onclick: () => this.page(-1), "aria-label": "clips with lower scores"}, "‹ lower"),
      element("button", {type: "button", onclick: () => this.center()}, "to the line"),
      element("button", {type: "button", onclick: () => this.page(1), "aria-label": "clips with higher scores"}, "higher ›"),
      this.where = element("span", {class: "note"}));
    place.replaceChildren(this.window, this.empty, this.tools);
    this.known = new Map();  // The clip at each place of the film.
    this.shown = new Map();  // The element at each place of the film.
    this.of = 0;
    this.line = [0, 0];
    this.range = null;
    this.end = "low";
    this.view = 0;
    this.current = null;
    this.player = new Player();
    this.later = 0;
    this.asking = false;
    this.key = null;
    this.width = 168;
    place.addEventListener("keydown", (event) => this.pressed(event));
    this.window.addEventListener("wheel", (event) => {
      const by = Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : event.shiftKey ? event.deltaY : 0;
      if (!by) return;
      event.preventDefault();
      this.look(this.view + by / this.width);
    }, {passive: false});
    this.window.addEventListener("pointerdown", (event) => this.pull(event));
    new ResizeObserver(() => this.measure()).observe(this.window);
  }

  measure() {
    const width = this.window.clientWidth;
    const each = width < 500 ? 132 : 168;
    if (width === this.seen && each === this.width) return;
    this.seen = width;
    this.width = each;
    this.place.style.setProperty("--card", `${each}px`);
    this.draw();
  }

  // Show another film, or the same film under another setting. found: the answer of the server to /api/focus.
  show(found, range, end, key) {
    if (key !== this.key) {
      this.known.clear();
      for (const made of this.shown.values()) made.remove();
      this.shown.clear();
      this.player.stop();
      this.current = null;
    }
    const first = key !== this.key;
    this.key = key;
    this.gate = found.gate;
    this.of = found.clips;
    this.range = range;
    this.window.hidden = this.tools.hidden = !this.of;
    this.empty.hidden = Boolean(this.of);
    if (!this.of) this.explain(found);
    this.slide(found.line, range, end, first);
    this.load();
  }

  explain({gate, empty}) {
    const parts = [];
    if (!empty.counted) parts.push(element("p", {}, "No clip is counted, since none matches the fields of “Look only at”. Change these fields."));
    else if (!empty.scored) {
      parts.push(element("p", {}, `None of the ${count(empty.counted)} clips has a score of ${gate}: it is measured only on clips that no gate has rejected before. `
        + "Loosen the gates before it and run, or run once with --all-scores."));
    } else {
      parts.push(element("p", {}, `${count(empty.scored)} clips have a score of ${gate}, and other gates reject every one of them, so that this gate decides about none. Loosen one of these:`));
    }
    if (empty.gates.length) {
      parts.push(element("p", {class: "row"}, ...empty.gates.slice(0, 6).map(([name, n]) =>
        element("button", {type: "button", onclick: () => this.turn(name)}, `${name} rejects ${count(n)}`))));
    }
    this.empty.replaceChildren(...parts);
  }

  // Move the line: the clips slide along with it.
  slide(line, range, end, jump = true) {
    this.range = range;
    this.end = end;
    const before = this.line[this.end === "low" ? 0 : 1];
    this.line = line;
    const now = line[end === "low" ? 0 : 1];
    if (jump || now !== before) this.view = now;
    this.draw();
    this.later ||= setTimeout(() => {
      this.later = 0;
      this.load();
    }, 90);
  }

  center() {
    this.look(this.line[this.end === "low" ? 0 : 1]);
  }

  page(by) {
    this.look(this.view + by * Math.max(1, Math.floor(this.window.clientWidth / this.width) - 1));
  }

  look(at) {
    this.view = Math.min(this.of, Math.max(0, at));
    this.draw();
    this.load();
  }

  seenPlaces() {
    const half = this.window.clientWidth / this.width / 2;
    return [Math.max(0, Math.floor(this.view - half) - 1), Math.min(this.of, Math.ceil(this.view + half) + 1)];
  }

  async load() {
    if (this.asking || !this.of) return;
    const [first, last] = this.seenPlaces();
    let from = first;
    while (from < last && this.known.has(from)) from += 1;
    if (from >= last) return;
    const start = Math.max(0, first - AHEAD);
    const key = this.key;
    this.asking = true;
    try {
      const found = await ask("/api/film", {...this.question(), gate: this.gate, start, count: last - start + AHEAD});
      if (key !== this.key) return;
      found.clips.forEach((clip, i) => this.known.set(start + i, clip));
      while (this.known.size > HELD) this.known.delete(this.known.keys().next().value);
      if (!found.clips.length) return;
    } catch (error) {
      tell(this.where, String(error.message || error));
      return;
    } finally {
      this.asking = false;
      if (key !== this.key) setTimeout(() => this.load());
    }
    this.draw();
    this.load();
  }

  inside(clip) {
    if (!this.range) return true;
    const [low, high] = clip.span ?? [clip.score, clip.score];
    return (this.range[0] === null || low >= this.range[0]) && (this.range[1] === null || high <= this.range[1]);
  }

  verdict(clip) {
    return !this.inside(clip) ? "rejected" : clip.measured ? "kept" : "undecided";
  }

  distance(clip) {
    const end = this.range?.[this.end === "low" ? 0 : 1];
    if (end === null || end === undefined || typeof clip.score !== "number") return "";
    const by = clip.score - end;
    return `${by < 0 ? "−" : "+"}${Number(Math.abs(by).toPrecision(3))}`;
  }

  draw() {
    if (!this.of) return;
    const [first, last] = this.seenPlaces();
    const middle = this.window.clientWidth / 2;
    for (const [at, made] of this.shown) {
      if ((at < first || at >= last) && !made.contains(document.activeElement)) {
        made.remove();
        this.shown.delete(at);
      }
    }
    for (let at = first; at < last; at += 1) {
      const clip = this.known.get(at);
      let made = this.shown.get(at);
      if (made && clip && made.classList.contains("blank-card")) {
        made.remove();
        made = null;
      }
      if (!made) {
        made = clip ? this.card(clip, at) : element("li", {class: "blank-card"});
        this.shown.set(at, made);
        const next = [...this.list.children].find((child) => Number(child.dataset.at) > at);
        made.dataset.at = at;
        this.list.insertBefore(made, next ?? null);
      }
      if (clip) this.dress(made, clip, at);
    }
    for (const [at, made] of this.shown) made.style.transform = `translateX(${Math.round(middle + (at - this.view) * this.width)}px)`;
    this.lines.forEach((line, i) => {
      const end = this.range?.[i];
      line.hidden = end === null || end === undefined;
      line.style.transform = `translateX(${Math.round(middle + (this.line[i] - this.view) * this.width)}px)`;
      tell(line.firstChild, line.hidden ? "" : `${i ? "≤" : "≥"} ${digits(end)}`);
    });
    this.edges.forEach((edge, i) => {
      edge.style.transform = `translateX(${Math.round(middle + ((i ? this.of : 0) - this.view) * this.width)}px)${i ? "" : " translateX(-100%)"}`;
    });
    const here = this.line[this.end === "low" ? 0 : 1];
    tell(this.where, `${count(here)} ${here === 1 ? "clip" : "clips"} below the line, ${count(this.of - here)} above; ${Math.abs(this.view - here) < 0.5 ? "at the line" : `${count(Math.round(Math.abs(this.view - here)))} clips ${this.view < here ? "below" : "above"} it`}`);
  }

  card(clip, at) {
    const made = element("li", {"data-clip": clip.id},
      element("button", {type: "button", class: "open-clip", tabindex: -1, onclick: () => this.open(clip.id), onfocus: () => this.take(at, false)},
        element("span", {class: "picture"}, picture(clip, true)), element("span", {class: "score"}), element("span", {class: "facts"}, element("b"), element("span"))),
      marking(clip.id, this.marks()[clip.id], this.marked, -1));
    made.addEventListener("pointerenter", (event) => {
      if (event.pointerType !== "mouse" || still.matches) return;
      this.hover = setTimeout(() => this.player.play(clip, made.querySelector(".picture")), HOVER);
    });
    made.addEventListener("pointerleave", () => {
      clearTimeout(this.hover);
      if (this.player.clip === clip.id && this.player.from !== "key") this.player.stop();
    });
    return made;
  }

  dress(made, clip, at) {
    const verdict = this.verdict(clip);
    const distance = this.distance(clip);
    if (made.dataset.verdict !== verdict) made.dataset.verdict = verdict;
    tell(made.querySelector(".score"), digits(clip.score) + (distance ? ` (${distance})` : ""));
    tell(made.querySelector(".facts b"), verdict);
    tell(made.querySelector(".facts span"), `, ${lasting(clip.seconds)}`);
    const button = made.querySelector(".open-clip");
    const name = `open clip ${clip.id.slice(0, 8)}, score ${digits(clip.score)}, ${verdict}${clip.measured ? "" : ", not all measured"}`;
    if (button.getAttribute("aria-label") !== name) button.setAttribute("aria-label", name);
    const first = this.current === null ? at === Math.min(this.of - 1, Math.max(0, Math.round(this.view))) : at === this.current;
    button.tabIndex = first ? 0 : -1;
    made.classList.toggle("current", at === this.current);
  }

  // Choose the clip to which the keys apply.
  take(at, focus = true) {
    if (at < 0 || at >= this.of) return;
    this.current = at;
    const half = this.window.clientWidth / this.width / 2;
    if (at + 0.5 < this.view - half + 0.5) this.view = at + half;
    if (at + 0.5 > this.view + half - 0.5) this.view = at + 1 - half;
    this.draw();
    this.load();
    if (focus) this.shown.get(at)?.querySelector(".open-clip")?.focus({preventScroll: true});
  }

  get chosen() {
    return this.known.get(this.current ?? Math.min(this.of - 1, Math.max(0, Math.round(this.view))));
  }

  async go(by) {
    const from = this.current ?? Math.min(this.of - 1, Math.max(0, Math.round(this.view))) - (by > 0 ? 1 : 0);
    const at = Math.min(this.of - 1, Math.max(0, from + by));
    this.take(at);
    while (!this.known.has(at)) await new Promise((done) => setTimeout(done, 30));
    this.draw();
    this.take(at);
    return this.known.get(at);
  }

  // Act on a key. Returns whether the key has a meaning for the film.
  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || !this.of) return false;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const clip = this.chosen;
    if (key === "ArrowLeft" || key === "ArrowRight") this.go(key === "ArrowLeft" ? -1 : 1);
    else if (key === "g" || key === "b") {
      if (!clip) return false;
      const kind = key === "g" ? "good" : "bad";
      if (this.current === null) this.take(Math.min(this.of - 1, Math.max(0, Math.round(this.view))), false);
      this.marked(clip.id, this.marks()[clip.id] === kind ? null : kind);
    } else if (key === " " && clip) {
      const made = [...this.shown.values()].find((each) => each.dataset.clip === clip.id);
      if (made) this.player.toggle(clip, made.querySelector(".picture"), "key");
    } else return false;
    event.preventDefault();
    return true;
  }

  pull(event) {
    // Only a finger or a pen pulls the film: a person with a mouse has the buttons, the wheel and the keys.
    if (event.button || event.pointerType === "mouse") return;
    const [x, view] = [event.clientX, this.view];
    const move = (e) => {
      if (Math.abs(e.clientX - x) > 6) this.look(view - (e.clientX - x) / this.width);
    };
    const end = () => {
      for (const [name, act] of [["pointermove", move], ["pointerup", end], ["pointercancel", end]]) removeEventListener(name, act);
    };
    for (const [name, act] of [["pointermove", move], ["pointerup", end], ["pointercancel", end]]) addEventListener(name, act);
  }
}
