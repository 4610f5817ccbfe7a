// The chosen gate: its histogram with two handles, two fields for the same ends, and a curve of the hours kept by place of an end.

import {bars, short, ticks, upwards} from "./axis.js";
import {count, digits, drawn, element, lasting, rangeText, tell} from "./dom.js";

const ENDS = ["low", "high"];

export class Gate {
  // changed(end, range, done) is called at each movement of an end, with done true at the last one; range is [low, high], or null if
  // the gate is off. chosen(end) is called when an end has the focus. undo(back) replaces the browser's undo (back true) and redo.
  constructor(place, {changed, chosen, undo}) {
    this.changed = changed;
    this.typing = null;  // The index of the end whose field holds a number that is not set yet.
    this.range = [null, null];
    this.places = {low: null, high: null};
    this.on = element("input", {type: "checkbox", id: "gate-on", onchange: () => this.toggle()});
    this.title = element("h2", {id: "h-focus"});
    this.unit = element("span", {class: "note"});
    this.svg = drawn("svg", {viewBox: "0 0 64 100", preserveAspectRatio: "none", "aria-hidden": "true"});
    this.paths = ["all", "others"].map((kind) => drawn("path", {class: kind}));
    this.shades = [0, 1].map(() => drawn("rect", {class: "out", y: 0, height: 100, x: 0, width: 0}));
    this.svg.append(...this.paths, ...this.shades);
    this.up = element("div", {class: "up", "aria-hidden": "true"});
    this.along = element("div", {class: "along", "aria-hidden": "true"});
    this.handles = ENDS.map((end, i) => element("div", {
      class: `handle ${end}`, role: "slider", tabindex: 0, "data-end": end,
      onpointerdown: (event) => this.grab(event, i), onkeydown: (event) => this.key(event, i), onfocus: () => chosen(end),
    }));
    this.fields = ENDS.map((end, i) => element("input", {
      type: "number", step: "any", placeholder: "open", "data-end": end, "aria-describedby": "refused",
      oninput: () => { this.typing = i; }, onchange: () => this.typed(i), onfocus: () => chosen(end),
      onblur: () => {
        this.typing = null;
        this.place();
      },
      onbeforeinput: (event) => {
        if (!event.inputType.startsWith("history")) return;
        // The browser's own undo would change the text of the field, but not the gate.
        event.preventDefault();
        undo(event.inputType === "historyUndo");
      },
    }));
    this.refused = element("p", {class: "why", id: "refused", role: "alert", hidden: true});
    this.told = element("p", {class: "told"});
    this.plot = element("div", {class: "plot"}, this.svg, ...this.handles);
    this.curve = drawn("svg", {viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true"});
    this.line = drawn("path", {class: "hours"});
    this.curve.append(this.line);
    this.marks = element("div", {class: "marks-on", "aria-hidden": "true"});
    this.hoursUp = element("div", {class: "up", "aria-hidden": "true"});
    this.legend = element("p", {class: "note", id: "curve-told"});
    place.replaceChildren(
      element("div", {class: "row between"}, element("div", {class: "row"}, this.title, this.unit,
        element("label", {class: "on", for: "gate-on"}, this.on, " gate is on")), element("div", {class: "ends"},
        ...this.fields.map((field, i) => element("label", {}, i ? "at most " : "at least ", field)))),
      this.refused, this.told,
      element("div", {class: "chart histogram"}, this.up, this.plot, this.along),
      element("div", {class: "chart curve"}, this.hoursUp, element("div", {class: "plot", id: "curve"}, this.curve, this.marks)), this.legend);
  }

  // Show a gate. range: [low, high], or null if the tier does not have this gate.
  show(name, filter, range) {
    this.filter = filter;
    if (name !== this.name) {
      this.name = name;
      this.places = {low: null, high: null};
      tell(this.title, name);
      tell(this.unit, filter.unit);
      this.say(null);
      this.line.setAttribute("d", "");
      this.marks.replaceChildren();
      const {low, high} = filter;
      this.along.replaceChildren(...ticks(low, high, 6).map((at) => {
        const tick = element("span", {}, digits(at));
        tick.style.left = `${(100 * (at - low)) / (high - low)}%`;
        return tick;
      }));
      ENDS.forEach((end, i) => {
        this.handles[i].setAttribute("aria-label", `${end} end of ${name}`);
        this.handles[i].setAttribute("aria-valuemin", low);
        this.handles[i].setAttribute("aria-valuemax", high);
        this.fields[i].setAttribute("aria-label", `${end} end of ${name}, empty: open`);
        this.fields[i].value = "";
      });
      this.on.setAttribute("aria-label", `gate ${name} is on`);
    }
    this.set(range);
  }

  set(range) {
    this.on.checked = range !== null;
    this.plot.classList.toggle("off", range === null);
    this.range = range === null ? (this.remembered?.[this.name] ?? [null, null]) : [...range];
    if (range !== null) this.remembered = {...this.remembered, [this.name]: [...range]};
    this.place();
  }

  get value() {
    return this.on.checked && (this.range[0] !== null || this.range[1] !== null) ? [...this.range] : null;
  }

  place() {
    const {low, high} = this.filter;
    const share = this.range.map((end, i) => (end === null ? i : Math.min(1, Math.max(0, (end - low) / (high - low)))));
    this.handles.forEach((handle, i) => {
      const end = this.range[i];
      handle.style.left = `${100 * share[i]}%`;
      handle.classList.toggle("open", end === null);
      handle.setAttribute("aria-valuenow", end === null ? (i ? high : low) : Math.min(high, Math.max(low, end)));
      handle.setAttribute("aria-valuetext", end === null ? "open" : digits(end));
      // A number that is being typed is not replaced.
      if (this.typing !== i) this.fields[i].value = end === null ? "" : end;
    });
    const off = !this.on.checked;
    this.shades[0].setAttribute("width", off ? 0 : 64 * share[0]);
    this.shades[1].setAttribute("x", 64 * share[1]);
    this.shades[1].setAttribute("width", off ? 0 : 64 * (1 - share[1]));
    if (this.now) this.now.style.left = `${100 * share[this.end === "high" ? 1 : 0]}%`;
  }

  // The place nearest to a value among those that were counted, or a multiple of the step where no place is known; null (an open end)
  // beyond the scale.
  snapped(i, value) {
    const {low, high, step} = this.filter;
    if (i ? value >= high : value <= low) return null;
    const places = this.places[ENDS[i]];
    if (!places?.length) return Number((Math.round(value / step) * step).toPrecision(12));
    let [first, last] = [0, places.length - 1];
    while (first < last) {
      const middle = (first + last) >> 1;
      if (places[middle] < value) first = middle + 1;
      else last = middle;
    }
    return first && value - places[first - 1] < places[first] - value ? places[first - 1] : places[first];
  }

  move(i, value, done) {
    if (value !== null) value = this.snapped(i, value);
    const other = this.range[1 - i];
    if (value !== null && other !== null) value = i ? Math.max(value, other) : Math.min(value, other);
    if (value === this.range[i] && !done) return;
    this.range[i] = value;
    this.on.checked = true;
    this.plot.classList.remove("off");
    this.say(null);
    this.place();
    this.changed(ENDS[i], this.value, done);
  }

  grab(event, i) {
    if (event.button) return;
    event.preventDefault();
    const handle = this.handles[i];
    handle.focus({preventScroll: true});
    handle.setPointerCapture(event.pointerId);
    const box = this.plot.getBoundingClientRect();
    const {low, high} = this.filter;
    const at = (e) => low + ((e.clientX - box.left) / box.width) * (high - low);
    let moved = false;
    const move = (e) => {
      moved = true;
      this.move(i, at(e), false);
    };
    const end = () => {
      handle.removeEventListener("pointermove", move);
      handle.removeEventListener("lostpointercapture", end);
      if (moved) this.changed(ENDS[i], this.value, true);
    };
    handle.addEventListener("pointermove", move);
    handle.addEventListener("lostpointercapture", end);
  }

  key(event, i) {
    const {low, high, step} = this.filter;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const now = this.range[i] === null ? (i ? high : low) : this.range[i];
    const to = {
      ArrowLeft: now - step, ArrowDown: now - step, ArrowRight: now + step, ArrowUp: now + step,
      PageDown: now - 10 * step, PageUp: now + 10 * step, Home: low, End: high,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.move(i, to, true);
  }

  say(text) {
    this.refused.textContent = text ?? "";
    this.refused.hidden = !text;
    for (const field of this.fields) field.removeAttribute("aria-invalid");
  }

  typed(i) {
    const field = this.fields[i];
    this.typing = null;
    const value = field.value === "" ? null : Number(field.value);
    const other = this.range[1 - i];
    const stays = `${this.name} stays ${rangeText(this.value)}.`;
    const wrong = field.validity.badInput || (value !== null && !Number.isFinite(value)) ? `That is no number. ${stays}`
      : value !== null && other !== null && (i ? value < other : value > other)
        ? `${i ? `At most ${value} is below at least ${other}` : `At least ${value} is above at most ${other}`}: no clip could pass. ${stays}` : null;
    if (wrong) {
      this.place();
      if (field.validity.badInput) field.value = "";
      this.say(wrong);
      field.setAttribute("aria-invalid", "true");
      this.place();
      return;
    }
    this.say(null);
    this.range[i] = value;  // A typed number is not moved to the nearest place.
    this.on.checked = value !== null || other !== null;
    this.plot.classList.toggle("off", !this.on.checked);
    this.place();
    this.changed(ENDS[i], this.value, true);
  }

  toggle() {
    if (this.on.checked && this.range[0] === null && this.range[1] === null) {
      this.say(`Both ends of ${this.name} are open: set one of them, and the gate is on.`);
      this.on.checked = false;
      return;
    }
    this.plot.classList.toggle("off", !this.on.checked);
    this.place();
    this.changed("low", this.value, true);
  }

  // whole, others: clips in each bin, of all clips and of those that no other gate rejects. counts: the counts of the gate, undefined
  // if the gate is off.
  draw(whole, others, counts) {
    const {at, ticks: marks} = upwards(Math.max(1, ...whole));
    [bars(whole, at), bars(others, at)].forEach((path, i) => {
      if (this.paths[i].getAttribute("d") !== path) this.paths[i].setAttribute("d", path);
    });
    this.label(this.up, marks.map((n) => [at(n), short(n)]), "clips");
    this.tell(counts && {
      failed: counts.failed, alone: counts.only_failure, so_far: counts.only_failure_so_far,
      rest: `; no score ${count(counts.missing - counts.not_known)}` + (counts.not_known ? `; not known ${count(counts.not_known)}` : "")
        + (counts.uncertain ? `; uncertain ${count(counts.uncertain)}` : ""),
    });
  }

  label(place, marks, what) {
    const told = JSON.stringify(marks);
    if (place.dataset.told === told) return;
    place.dataset.told = told;
    place.replaceChildren(element("b", {}, what), ...marks.map(([at, text]) => {
      const tick = element("span", {}, text);
      tick.style.bottom = `${100 * at}%`;
      return tick;
    }));
  }

  tell(counts) {
    tell(this.told, counts ? `rejects ${count(counts.failed)}; alone ${count(counts.alone)}, alone so far ${count(counts.so_far)}${counts.rest ?? ""}`
      : "This gate is off: it rejects nothing.");
  }

  // Draw the hours kept for each place of an end. seconds: one for each place, and one more for the open end. lines: [[class, value,
  // words]].
  drawCurve(end, places, seconds, lines) {
    this.end = end;
    this.places[end] = places;
    const {low, high} = this.filter;
    if (!seconds) {
      this.line.setAttribute("d", "");
      this.marks.replaceChildren();
      this.now = null;
      tell(this.legend, "Hours kept are not drawn: this recipe looks for near-duplicates, whose score depends on what other gates keep.");
      return;
    }
    const most = Math.max(...seconds);
    const top = most || 1;
    const [unit, word] = top >= 3600 ? [3600, "hours"] : top >= 60 ? [60, "minutes"] : [1, "seconds"];
    const points = places.map((value, i) => [value, seconds[i]]).filter(([value]) => value >= low && value <= high);
    const ends = end === "low" ? [[low, seconds.at(-1)], ...points, [high, points.at(-1)?.[1] ?? 0]]
      : [[low, points[0]?.[1] ?? 0], ...points, [high, seconds.at(-1)]];
    const x = (value) => (1000 * (value - low)) / (high - low);
    this.line.setAttribute("d", `M${ends.map(([value, kept]) => `${x(value).toFixed(1)} ${(100 - (96 * kept) / top).toFixed(2)}`).join("L")}`);
    this.label(this.hoursUp, ticks(0, top / unit, 2).map((n) => [(0.96 * n * unit) / top, digits(n)]), word);
    const shown = lines.filter(([, value]) => value !== null && value !== undefined);
    this.marks.replaceChildren(...shown.map(([kind, value, words]) => {
      const mark = element("i", {class: kind, title: words});
      mark.style.left = `${Math.min(100, Math.max(0, x(value) / 10))}%`;
      if (kind === "now") this.now = mark;
      return mark;
    }));
    this.legend.replaceChildren(element("span", {}, `The curve shows the length kept for each place of this end (${end === "low" ? "at least" : "at most"}): up to ${lasting(most)}. `),
      ...shown.flatMap(([kind, value, words]) => [element("i", {class: `key-line ${kind}`}), `${words} ${digits(value)} `]));
  }
}
