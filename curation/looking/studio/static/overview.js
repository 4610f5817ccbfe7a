// The overview of a tier: totals, the funnel, and a small histogram for each gate, which is also a button.

import {bars, upwards} from "./axis.js";
import {$, count, drawn, element, lasting, plural, rangeText, tell} from "./dom.js";

const VERDICTS = ["kept", "rejected", "undecided", "error"];

// Draw the totals of a tier. counts: clips by verdict. seconds: length of the kept clips. change: clips that enter and leave, null if
// not known.
export function drawTotals(counts, seconds, change) {
  const place = $("totals");
  if (!place.children.length) {
    place.append(...VERDICTS.map((verdict) => element("li", {"data-total": verdict}, element("b"), element("span"))));
  }
  VERDICTS.forEach((verdict, i) => {
    const [number, words] = place.children[i].children;
    if (counts[verdict] !== undefined) tell(number, count(counts[verdict]));
    const moved = change && (change.entering || change.leaving) ? ` (+${count(change.entering)} −${count(change.leaving)})` : "";
    tell(words, verdict === "kept" ? `kept, ${lasting(seconds)}${moved}` : verdict === "error" ? "errors" : verdict);
  });
}

export function drawFunnel(rows, chosen, choose) {
  const place = $("funnel");
  const whole = Math.max(1, rows.length ? rows[0]["reach it"] : 1);
  const told = rows.some((row) => row["not known"]);  // The column is drawn only where a clip needs it, which is rare.
  const form = rows.map((row) => row.gate).join() + told;
  if (place.dataset.form !== form) {
    place.dataset.form = form;
    if (!rows.length) {
      place.replaceChildren(element("p", {class: "note"}, "This tier has no gate: it keeps every clip that is no error. Choose a gate below, and set an end of it."));
    } else {
      place.replaceChildren(element("table", {},
        element("thead", {}, element("tr", {}, element("th", {scope: "col"}, "gate"), element("td", {}),
          element("th", {scope: "col", class: "n"}, "fall"),
          ...(told ? [element("th", {scope: "col", class: "n", title: "The clip was measured, and its score is not known."}, "not known")] : []),
          element("th", {scope: "col", class: "n"}, "left"))),
        element("tbody", {}, ...rows.map((row) => element("tr", {"data-gate": row.gate},
          element("th", {scope: "row"}, element("button", {type: "button", onclick: () => choose(row.gate)}, row.gate)),
          element("td", {class: "w"}, drawn("svg", {class: "bar", viewBox: "0 0 1000 10", preserveAspectRatio: "none", "aria-hidden": "true"},
            drawn("rect", {class: "whole", width: 1000, height: 10}), drawn("rect", {class: "kept", height: 10}), drawn("rect", {class: "fall", height: 10}))),
          element("td", {class: "n fallen"}), ...(told ? [element("td", {class: "n unknown"})] : []), element("td", {class: "n left"}))))));
    }
  }
  rows.forEach((row, i) => {
    const line = place.querySelectorAll("tbody tr")[i];
    const [, kept, fall] = line.querySelectorAll("rect");
    kept.setAttribute("width", (1000 * row.left) / whole);
    fall.setAttribute("x", (1000 * row.left) / whole);
    fall.setAttribute("width", (1000 * row["fall at it"]) / whole);
    tell(line.querySelector(".fallen"), row["fall at it"] ? `−${count(row["fall at it"])}` : "0");
    if (told) tell(line.querySelector(".unknown"), count(row["not known"]));
    tell(line.querySelector(".left"), count(row.left));
    line.classList.toggle("chosen", row.gate === chosen);
    line.querySelector("button").toggleAttribute("aria-current", row.gate === chosen);
  });
  drawMini(rows, whole, chosen);
}

// Draw the funnel as one bar for narrow windows: first the clips that are left, then those that fall, those of the last gate first.
function drawMini(rows, whole, chosen) {
  const place = $("mini");
  let svg = place.firstElementChild;
  if (!svg || svg.childElementCount !== rows.length + 1) {
    svg = drawn("svg", {viewBox: "0 0 1000 10", preserveAspectRatio: "none"}, drawn("rect", {class: "kept", height: 10}),
      ...rows.map(() => drawn("rect", {height: 10})));
    place.replaceChildren(svg);
  }
  const [left, ...falls] = svg.children;
  left.setAttribute("width", rows.length ? (1000 * rows.at(-1).left) / whole : 1000);
  falls.forEach((fall, i) => {
    const row = rows[i];
    fall.setAttribute("class", row.gate === chosen ? "fall this" : i % 2 ? "fall odd" : "fall");
    fall.setAttribute("x", (1000 * row.left) / whole);
    fall.setAttribute("width", (1000 * row["fall at it"]) / whole);
  });
}

export class Small {
  constructor(name, filter, choose) {
    this.name = name;
    this.filter = filter;
    this.paths = ["all", "others"].map((kind) => drawn("path", {class: kind}));
    this.shades = [0, 1].map(() => drawn("rect", {class: "out", y: 0, height: 100}));
    this.range = element("span", {class: "note"});
    this.told = element("span", {class: "told"});
    this.button = element("button", {type: "button", class: "gate-card", id: `gate-${name}`, "aria-pressed": "false", onclick: () => choose(name)},
      element("span", {class: "row between"}, element("b", {}, name), this.range),
      drawn("svg", {viewBox: "0 0 64 100", preserveAspectRatio: "none", "aria-hidden": "true"}, ...this.paths, ...this.shades), this.told);
    this.root = element("li", {}, this.button);
  }

  set(range, chosen) {
    const {low, high} = this.filter;
    const share = [0, 1].map((i) => (!range || range[i] === null ? i : Math.min(1, Math.max(0, (range[i] - low) / (high - low)))));
    this.shades[0].setAttribute("width", 64 * share[0]);
    this.shades[1].setAttribute("x", 64 * share[1]);
    this.shades[1].setAttribute("width", 64 * (1 - share[1]));
    tell(this.range, rangeText(range));
    this.button.classList.toggle("off", !range);
    this.button.setAttribute("aria-pressed", String(chosen));
  }

  draw(whole, others, counts) {
    const {at} = upwards(Math.max(1, ...whole));
    [bars(whole, at), bars(others, at)].forEach((path, i) => {
      if (this.paths[i].getAttribute("d") !== path) this.paths[i].setAttribute("d", path);
    });
    const alone = counts ? counts.only_failure + counts.only_failure_so_far : 0;
    tell(this.told, !counts ? "off" : counts.failed ? `rejects ${count(counts.failed)}, ${alone ? `${count(alone)} by itself` : "none by itself"}`
      : counts.missing ? `rejects none; no score of ${plural(counts.missing, "clip")}` : "rejects none");
  }
}

// The most decisive gate: it rejects the most clips that no other gate rejects.
export function mostDecisive(gates) {
  const by = (counts) => counts.only_failure + counts.only_failure_so_far;
  return Object.entries(gates).sort(([, a], [, b]) => by(b) - by(a) || b.failed - a.failed)[0]?.[0] ?? null;
}
