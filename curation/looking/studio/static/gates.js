// One gate: a histogram with two handles, and the same two ends as number fields.

const SVG = "http://www.w3.org/2000/svg";

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);  // strings become text, whatever is in them
  return made;
}

export function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export const count = (n) => n.toLocaleString("en");
export const digits = (x) => (x === null || x === undefined ? "–" : typeof x === "number" ? String(Number(x.toPrecision(4))) : x);

export class GateCard {
  // changed(name, end, [low, high] or null for off, done) is called at each movement; done: the last of them
  constructor(name, filter, changed, chosen) {
    this.name = name;
    this.filter = filter;
    this.changed = changed;
    this.range = [null, null];
    this.step = 10 ** Math.floor(Math.log10((filter.high - filter.low) / 150));
    this.on = element("input", {type: "checkbox", "aria-label": `gate ${name} is on`, onchange: () => this.toggle()});
    this.svg = drawn("svg", {viewBox: "0 0 64 100", preserveAspectRatio: "none", "aria-hidden": "true"});
    this.paths = ["all", "others"].map((kind) => drawn("path", {class: kind}));
    this.shades = [0, 1].map(() => drawn("rect", {class: "out", y: 0, height: 100, x: 0, width: 0}));
    this.svg.append(...this.paths, ...this.shades);
    this.handles = ["low", "high"].map((end, i) => element("div", {
      class: `handle ${end}`, role: "slider", tabindex: 0, "aria-label": `${end} end of ${name}`,
      "aria-valuemin": filter.low, "aria-valuemax": filter.high,
      onpointerdown: (event) => this.grab(event, i), onkeydown: (event) => this.key(event, i), onfocus: () => chosen(name, end),
    }));
    this.fields = ["low", "high"].map((end, i) => element("input", {
      type: "number", step: "any", "aria-label": `${end} end of ${name}, empty: open`, placeholder: "open",
      onchange: () => this.typed(i), onfocus: () => chosen(name, end),
    }));
    this.told = element("p", {class: "told"});
    this.plot = element("div", {class: "plot"}, this.svg, ...this.handles);
    this.root = element("section", {class: "gate-card", id: `gate-${name}`, "aria-label": `gate ${name}`},
      element("h3", {}, this.on, element("span", {}, name), element("span", {class: "note"}, filter.unit)),
      this.plot,
      element("div", {class: "axis", "aria-hidden": "true"}, element("span", {}, digits(filter.low)), element("span", {}, digits(filter.high))),
      element("div", {class: "ends"}, ...this.fields), this.told);
  }

  // null: no such gate
  set(range) {
    this.on.checked = range !== null;
    this.root.classList.toggle("off", range === null);
    if (range !== null) this.range = [...range];
    this.place();
  }

  get value() {
    return this.on.checked && (this.range[0] !== null || this.range[1] !== null) ? [...this.range] : null;
  }

  place() {
    const {low, high} = this.filter;
    const share = this.range.map((end, i) => end === null ? i : Math.min(1, Math.max(0, (end - low) / (high - low))));
    this.handles.forEach((handle, i) => {
      const end = this.range[i];
      handle.style.left = `${100 * share[i]}%`;
      handle.classList.toggle("open", end === null);
      handle.setAttribute("aria-valuenow", end === null ? (i ? high : low) : end);
      handle.setAttribute("aria-valuetext", end === null ? "open" : digits(end));
      if (document.activeElement !== this.fields[i]) this.fields[i].value = end === null ? "" : end;
    });
    this.shades[0].setAttribute("width", 64 * share[0]);
    this.shades[1].setAttribute("x", 64 * share[1]);
    this.shades[1].setAttribute("width", 64 * (1 - share[1]));
  }

  move(i, value, done) {
    const {low, high} = this.filter;
    if (value !== null) {
      value = Number((Math.round(value / this.step) * this.step).toPrecision(12));
      const other = this.range[1 - i];
      if (other !== null) value = i ? Math.max(value, other) : Math.min(value, other);
      if (i ? value >= high : value <= low) value = null;  // beyond the scale: open
    }
    if (value === this.range[i] && !done) return;
    this.range[i] = value;
    this.on.checked = true;
    this.root.classList.remove("off");
    this.place();
    this.changed(this.name, i ? "high" : "low", this.value, done);
  }

  grab(event, i) {
    if (event.button) return;
    event.preventDefault();
    const handle = this.handles[i];
    handle.focus();
    handle.setPointerCapture(event.pointerId);
    const box = this.plot.getBoundingClientRect();
    const {low, high} = this.filter;
    const at = (e) => low + ((e.clientX - box.left) / box.width) * (high - low);
    const move = (e) => this.move(i, at(e), false);
    const end = () => {
      handle.removeEventListener("pointermove", move);
      handle.removeEventListener("lostpointercapture", end);
      this.move(i, this.range[i], true);
    };
    handle.addEventListener("pointermove", move);
    handle.addEventListener("lostpointercapture", end);
  }

  key(event, i) {
    const {low, high} = this.filter;
    const now = this.range[i] === null ? (i ? high : low) : this.range[i];
    const to = {
      ArrowLeft: now - this.step, ArrowDown: now - this.step, ArrowRight: now + this.step, ArrowUp: now + this.step,
      PageDown: now - 10 * this.step, PageUp: now + 10 * this.step, Home: low, End: high,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.move(i, to, true);
  }

  typed(i) {
    const text = this.fields[i].value;
    const value = text === "" ? null : Number(text);
    const other = this.range[1 - i];
    const wrong = value !== null && (!Number.isFinite(value) || (other !== null && (i ? value < other : value > other)));
    this.fields[i].setAttribute("aria-invalid", String(wrong));
    if (wrong) return;
    this.range[i] = value;  // exactly what was typed
    this.on.checked = value !== null || other !== null;
    this.root.classList.toggle("off", !this.on.checked);
    this.place();
    this.changed(this.name, i ? "high" : "low", this.value, true);
  }

  toggle() {
    this.root.classList.toggle("off", !this.on.checked);
    this.changed(this.name, "low", this.value, true);
  }

  // whole, others: clips per bin; counts: of the gate, or undefined where it is off
  draw(whole, others, counts) {
    const top = Math.max(1, ...whole);
    const scaled = Math.max(1, ...others);  // of their own: they are few
    [bars(whole, top), bars(others, Math.max(scaled, top / 8))].forEach((path, i) => {
      if (this.paths[i].getAttribute("d") !== path) this.paths[i].setAttribute("d", path);
    });
    const told = counts
      ? `rejects ${count(counts.failed)}; alone ${count(counts.only_failure)}, alone so far ${count(counts.only_failure_so_far)}; `
        + `no score ${count(counts.missing - counts.not_known)}` + (counts.not_known ? `; not known ${count(counts.not_known)}` : "") + (counts.uncertain ? `; uncertain ${count(counts.uncertain)}` : "")
      : "off";
    if (this.told.textContent !== told) this.told.textContent = told;
  }
}

function bars(counts, top) {
  let path = "";
  counts.forEach((n, i) => {
    if (n) path += `M${i} 100V${(100 - (100 * n) / top).toFixed(2)}h.92V100z`;
  });
  return path;
}
