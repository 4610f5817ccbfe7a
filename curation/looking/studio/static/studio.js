// The studio's page: state, questions to the server, and what is drawn of the answers.

import {GateCard, count, digits, drawn, element} from "./gates.js";
import {funnelChoice, funnelTables} from "./funnels.js";
import {agreementTable, card, large, rest, scoreOf, showMarks} from "./clips.js";

const $ = (id) => document.getElementById(id);
const state = {tier: null, tiers: {}, start: {}, gate: null, end: "low", marks: {}, rater: "", others: {}, whole: {}, fresh: true};
const cards = {};
const wide = matchMedia("(min-width: 75.01rem)");
let asking = false;
let again = false;
let moved = null;  // when the movement was made that is not drawn yet

async function ask(path, question) {
  const answer = await fetch(path, question === undefined ? {} : {
    method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(question),
  });
  if (!answer.ok) throw Object.assign(new Error(await answer.text()), {status: answer.status});
  return answer.json();
}

function fault(error) {
  $("fault").textContent = error ? String(error.message || error) : "";
  $("fault").hidden = !error;
}

const guarded = (act) => async (...given) => {
  try {
    await act(...given);
    fault(null);
  } catch (error) {
    fault(error);
  }
};

// ── deciding ──────────────────────────────────────────────────────────────────────────────────────────────────────

function selection() {
  const form = $("filter");
  return {source: form.source.value, uri: form.uri.value, caption: form.caption.value};
}

// One question at a time; movements made meanwhile are asked for once it is answered.
async function decide() {
  rest();
  moved ??= performance.now();
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  $("main").setAttribute("aria-busy", "true");
  try {
    do {
      again = false;
      const since = moved;
      moved = null;
      const tier = state.tier;
      const gate = state.gate;
      const answer = await ask("/api/decide", {
        tiers: state.tiers, tier, gate, end: gate ? state.end : null, selection: selection(), whole: state.fresh,
      });
      if (answer.whole) state.whole = answer.whole;
      state.fresh = false;
      const drawing = performance.now();
      draw(tier, gate, answer);
      performance.measure("studio drawing", {start: drawing, end: performance.now()});
      await new Promise(requestAnimationFrame);
      performance.measure("studio step", {start: since, end: performance.now()});
    } while (again);
    fault(null);
  } catch (error) {
    fault(error);
  } finally {
    asking = false;
    $("main").setAttribute("aria-busy", "false");
  }
}

function draw(tier, gate, answer) {
  if (tier !== state.tier) return;
  const counts = answer.counts[tier];
  const change = counts.entering || counts.leaving ? ` (+${count(counts.entering)} −${count(counts.leaving)})` : "";
  const hours = (answer.kept_seconds[tier] / 3600).toPrecision(3);
  $("totals").replaceChildren(...["kept", "rejected", "undecided", "error"].map((verdict) => element("li", {"data-total": verdict},
    element("b", {}, count(counts[verdict])), verdict + (verdict === "kept" ? `, ${hours} h${change}` : ""))));
  for (const [name, shown] of Object.entries(cards)) {
    shown.draw(state.whole[name], answer.histograms[name], counts.gates[name]);
  }
  drawFunnel(answer.funnel);
  $("selected").textContent = `${count(answer.selected)} clips`;
  if (answer.near && gate === state.gate) drawNear(answer.near);
}

function drawFunnel(rows) {
  const whole = Math.max(1, rows.length ? rows[0]["reach it"] : 1);
  const part = (n) => (1000 * n) / whole;
  const told = rows.some((row) => row["not known"]);  // a column that is hardly ever needed
  const lines = rows.map((row) => {
    const svg = drawn("svg", {class: "bar", viewBox: "0 0 1000 10", preserveAspectRatio: "none", "aria-hidden": "true"});
    svg.append(drawn("rect", {class: "whole", width: 1000, height: 10}),
      drawn("rect", {class: "kept", width: part(row.left), height: 10}),
      drawn("rect", {class: "fall", x: part(row.left), width: part(row["fall at it"]), height: 10}));
    return element("tr", {"data-gate": row.gate},
      element("th", {scope: "row"}, element("button", {type: "button", onclick: () => choose(row.gate, null, true)}, row.gate)),
      element("td", {class: "w"}, svg), element("td", {class: "n"}, row["fall at it"] ? `−${count(row["fall at it"])}` : "0"),
      ...(told ? [element("td", {class: "n"}, count(row["not known"]))] : []), element("td", {class: "n left"}, count(row.left)));
  });
  const focused = document.activeElement?.closest?.("#funnel tr")?.dataset.gate;
  $("funnel").replaceChildren(element("table", {},
    element("thead", {}, element("tr", {}, element("th", {scope: "col"}, "gate"), element("td", {}),
      element("th", {scope: "col", class: "n"}, "fall"),
      ...(told ? [element("th", {scope: "col", class: "n", title: "measured, and the score cannot be told"}, "not known")] : []), element("th", {scope: "col", class: "n"}, "left"))),
    element("tbody", {}, ...lines)));
  if (focused) $("funnel").querySelector(`tr[data-gate="${CSS.escape(focused)}"] button`)?.focus();
}

function drawNear(near) {
  const end = state.tiers[state.tier][state.gate]?.[state.end === "low" ? 0 : 1];
  $("near-of").textContent = end === null || end === undefined
    ? `This end of ${state.gate} is open.`
    : `${state.gate} ${state.end === "low" ? "≥" : "≤"} ${digits(end)}: of the clips that no other gate rejects, the nearest ones; first those that every gate has a score of.`;
  for (const side of ["inside", "outside"]) fill($(side), near[side]);
}

function fill(list, clips) {
  const known = new Map([...list.children].map((child) => [child.dataset.clip, child]));
  const made = clips.map((clip) => {
    const old = known.get(clip.id);
    if (!old) return card(clip, state.marks[clip.id], open, mark);
    old.querySelector(".score").textContent = scoreOf(clip);
    return old;  // its picture is there
  });
  if (!made.length) made.push(element("li", {class: "note none"}, "none"));
  if (made.length !== list.children.length || made.some((child, i) => child !== list.children[i])) list.replaceChildren(...made);
}

// ── gates ─────────────────────────────────────────────────────────────────────────────────────────────────────────

function changed(name, end, range, done) {
  const gates = state.tiers[state.tier];
  if (range === null) delete gates[name];
  else gates[name] = range;
  choose(name, end);
  decide().then(() => {
    if (done) $("said").textContent = `${$("totals").textContent}`;
    if (done) agree();
  });
}

function choose(name, end, look = false) {
  const range = state.tiers[state.tier][name];
  end ??= range && range[0] === null ? "high" : "low";
  const other = state.gate !== name || state.end !== end;
  state.gate = name;
  state.end = end;
  for (const [each, shown] of Object.entries(cards)) shown.root.classList.toggle("chosen", each === name);
  place();
  if (look) {
    cards[name].root.scrollIntoView({block: "nearest"});
    cards[name].handles[end === "low" ? 0 : 1].focus({preventScroll: true});
  }
  if (other) decide();
}

// Where there is no room beside the gates, the clips go below the gate that is moved.
function place() {
  const beside = $("beside");
  const before = wide.matches ? $("work") : cards[state.gate]?.root;
  if (before && before.nextElementSibling !== beside) before.after(beside);
}

function showTier() {
  for (const [name, shown] of Object.entries(cards)) shown.set(state.tiers[state.tier][name] ?? null);
  state.gate ??= Object.keys(state.tiers[state.tier])[0] ?? null;
  place();
  decide();
  agree();
}

// ── clips and marks ───────────────────────────────────────────────────────────────────────────────────────────────

const open = guarded(async (id) => {
  const clip = await ask(`/api/clip/${encodeURIComponent(id)}`);
  $("clip-body").replaceChildren(...large(clip, state.tier, state.marks[id], mark));
  $("clip").showModal();
});

// A mark is kept in this browser until the server has it on its disk: neither a lost connection nor a reload loses one.
const unsent = new Map();
let sending = false;
let retry = 0;
const shelf = () => `longtake mark/${state.workspace}/${state.rater}/`;

function keep(clip) {
  try {
    if (unsent.has(clip)) localStorage.setItem(shelf() + clip, JSON.stringify(unsent.get(clip)));
    else localStorage.removeItem(shelf() + clip);
  } catch {
    // A browser without storage keeps it as long as the page is open.
  }
}

function findKept() {
  try {
    for (const key of Object.keys(localStorage)) {
      if (key.startsWith(shelf())) unsent.set(key.slice(shelf().length), JSON.parse(localStorage.getItem(key)));
    }
  } catch {
    // As above.
  }
}

function shown(marks) {
  state.marks = {...marks};
  for (const [clip, kind] of unsent) {
    if (kind === null) delete state.marks[clip];
    else state.marks[clip] = kind;
  }
  showMarks(state.marks);
}

function tellUnsent(error) {
  const n = unsent.size;
  $("unsent").hidden = !n || !error;
  if (n && error) {
    $("unsent").textContent = `${n === 1 ? "1 mark is" : `${n} marks are`} not saved yet (${error.message}). `
      + `${n === 1 ? "It is" : "They are"} kept in this browser and sent again every 3 seconds.`;
  }
}

function drop(clip, kind) {
  if (unsent.get(clip) !== kind) return;  // it was marked anew meanwhile
  unsent.delete(clip);
  keep(clip);
}

async function send() {
  if (sending) return;
  sending = true;
  clearTimeout(retry);
  try {
    while (unsent.size) {
      const [clip, kind] = unsent.entries().next().value;
      try {
        const marks = await ask("/api/mark", {clip, mark: kind});
        drop(clip, kind);
        shown(marks);
      } catch (error) {
        if (error.status !== 400 && error.status !== 404) throw error;
        drop(clip, kind);  // It will never be taken: say so, and go on.
        fault(error);
      }
    }
    tellUnsent(null);
  } catch (error) {
    tellUnsent(error);
    retry = setTimeout(send, 3000);
  } finally {
    sending = false;
  }
  agree();
}

function mark(clip, kind) {
  unsent.set(clip, kind);
  keep(clip);
  shown(state.marks);
  send();
}

const agree = guarded(async () => {
  const marks = Object.values(state.marks);
  const good = marks.filter((kind) => kind === "good").length;
  const others = Object.entries(state.others).map(([who, n]) => `${who} ${count(n)}`).join(", ");
  $("marked").textContent = `${good} good, ${marks.length - good} bad, by ${state.rater}. A threshold is proposed from three of each on; `
    + `each mark is kept at once.${others ? ` Marks of others, which do not count here: ${others}.` : ""}`;
  if (!marks.length) return $("agreement").replaceChildren();
  const found = await ask("/api/agreement", {tier: state.tier});
  $("agreement").replaceChildren(agreementTable(found, (name, range) => {
    state.tiers[state.tier][name] = range;
    cards[name].set(range);
    changed(name, range[0] === null ? "high" : "low", range, true);
  }));
});

const list = guarded(async () => {
  fill($("listed"), await ask("/api/clips", {tier: state.tier, which: $("which").value, gate: state.gate}));
});

// ── the page ──────────────────────────────────────────────────────────────────────────────────────────────────────

const copied = (tiers) => structuredClone(tiers);

function options(select, values, now) {
  select.replaceChildren(...values.map(([value, text]) => element("option", {value, selected: value === now}, text)));
}

function showRecipes(names, now) {
  options($("compare"), names.map((name) => [name, name]), now);
  funnelChoice($("others"), names.slice(1), state.published);
}

const funnels = guarded(async () => {
  const recipes = [...$("others").querySelectorAll("input:checked")].map((box) => box.value);
  $("compared").replaceChildren(element("p", {class: "note"}, "deciding…"));
  try {
    $("compared").replaceChildren(...funnelTables(await ask("/api/funnels", {tiers: state.tiers, recipes})));
  } catch (error) {
    $("compared").replaceChildren();
    throw error;
  }
});

const save = guarded(async (replace) => {
  const form = $("save");
  const done = await ask("/api/save", {tiers: state.tiers, name: form.elements.name.value, replace});
  if (done.exists) {
    $("saved").replaceChildren(element("p", {}, `${done.exists} is there already. `,
      element("button", {type: "button", onclick: () => save(true)}, "Replace it")));
    return;
  }
  const file = URL.createObjectURL(new Blob([done.yaml], {type: "application/yaml"}));
  $("saved").replaceChildren(
    element("p", {}, "Saved: ", element("code", {}, done.saved)),
    element("p", {}, element("code", {}, `longtake tiers '${state.workspace}' -r '${done.saved}'`)),
    element("p", {}, element("a", {href: file, download: `${form.elements.name.value}.yaml`}, "download the recipe")));
  showRecipes(done.recipes, $("compare").value);
});

const begin = guarded(async () => {
  const found = await ask("/api/state");
  Object.assign(state, {tiers: copied(found.tiers), start: found.tiers, marks: found.marks, workspace: found.workspace});
  Object.assign(state, {rater: found.rater, others: found.others});
  findKept();
  shown(found.marks);
  state.tier = Object.keys(found.tiers)[0];
  $("where").replaceChildren(element("bdi", {}, found.workspace), `, recipe ${found.recipe}, ${count(found.clips)} clips`);
  for (const name of Object.keys(found.tiers)) {
    const radio = element("input", {type: "radio", name: "tier", value: name, checked: name === state.tier});
    radio.addEventListener("change", () => {
      state.tier = name;
      showTier();
    });
    $("tiers").append(element("label", {}, radio, ` ${name}`));
  }
  for (const [name, filter] of Object.entries(found.filters)) {
    cards[name] = new GateCard(name, filter, changed, (each, end) => choose(each, end));
    $("gates").append(cards[name].root);
  }
  state.published = found.published;
  showRecipes(found.recipes, found.recipes[0]);
  $("save").elements.name.value = `${found.recipe}-mine`;
  showTier();
  performance.mark("studio ready");
  if (unsent.size) send();
  const places = await ask("/api/sources");
  $("filter").source.append(...places.map(([place, n]) => element("option", {value: place}, `${place} (${count(n)})`)));
});

wide.addEventListener("change", place);
let typing = 0;
$("filter").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    state.fresh = true;
    decide();
  }, 250);
});
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("save").addEventListener("submit", (event) => {
  event.preventDefault();
  save(false);
});
$("funnels").addEventListener("submit", (event) => {
  event.preventDefault();
  funnels();
});
$("reset").addEventListener("click", () => {
  state.tiers = copied(state.start);
  showTier();
});
$("list").addEventListener("click", list);
$("compare").addEventListener("change", guarded(async () => {
  await ask("/api/compare", {recipe: $("compare").value});
  decide();
}));
addEventListener("beforeunload", (event) => {
  if (unsent.size) event.preventDefault();  // the browser asks whether to leave
});
$("clip").addEventListener("close", () => $("clip-body").replaceChildren());
begin();
