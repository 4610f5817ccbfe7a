// The studio's page: it holds what is set, sends requests to the server, and draws the answers.

import {parse, same, write} from "./address.js";
import {besideTables} from "./beside.js";
import {fill, large, rest, showMarks} from "./clips.js";
import {$, ask, count, element, fault, guarded, lasting, newest, percent, plural, rangeText} from "./dom.js";
import {funnelChoice, funnelTables} from "./funnels.js";
import {Gate} from "./gate.js";
import {agreementTable, Marks, ratersTable} from "./marks.js";
import {drawFunnel, drawTotals, mostDecisive, Small} from "./overview.js";
import {costTable, Running} from "./run.js";
import {Strip} from "./strip.js";
import {Steps} from "./undo.js";

// A person sets tiers, tier, gate and end (the chosen ones), selection, a (A of A | B), which (the list), seed and draws (the audit),
// and clip (the open one). The server answers with the rest.
const state = {
  tiers: {}, start: {}, tier: null, gate: null, end: "low", selection: {source: "", uri: "", caption: ""}, a: {}, which: "kept",
  seed: null, draws: 30, clip: null, filters: {}, recipes: [], whole: null, funnel: [], counts: null, focus: null, proposed: {},
};
const small = {};
const SOON = 150;  // Milliseconds between two requests of a drag: the page computes the totals of a drag without the server.
const SETTLES = 250;  // Milliseconds after a change until the sections further down are drawn again.
let gate, strip, marks, steps, running;

const question = () => ({
  tiers: state.tiers, tier: state.tier, selection: state.selection,
  against: state.a.tiers ? {tiers: state.a.tiers} : {recipe: state.a.recipe},
});
const range = (name = state.gate) => state.tiers[state.tier][name] ?? null;

// ── deciding ──────────────────────────────────────────────────────────────────────────────────────────────────────

const decide = newest(async () => {
  const {tier} = state;
  const asked = JSON.stringify(question());
  $("main").setAttribute("aria-busy", "true");
  try {
    const answer = await ask("/api/decide", {...question(), gate: state.gate, whole: !state.whole});
    if (answer.whole) state.whole = answer.whole;
    // An answer to an older request is drawn only where the page cannot count by itself.
    if (asked === JSON.stringify(question()) || (tier === state.tier && !state.focus?.sweep)) draw(tier, answer);
    else if (tier === state.tier) drawOthers(answer);  // An older answer is good enough for the gates that are not dragged.
    fault(null);
  } finally {
    if (asked === JSON.stringify(question())) $("main").setAttribute("aria-busy", "false");
  }
});

let due = 0;
function decideSoon() {
  due ||= setTimeout(() => {
    due = 0;
    decide();
  }, SOON);
}

function draw(tier, answer) {
  state.counts = answer.counts[tier];
  state.seconds = answer.kept_seconds[tier];
  state.funnel = answer.funnel;
  $("selected").textContent = plural(answer.selected, "clip");
  drawTotals(state.counts, state.seconds, state.counts);
  drawFunnel(answer.funnel, state.gate, choose);
  drawOthers(answer);
  if (state.gate) {
    gate.draw(state.whole[state.gate], answer.histograms[state.gate], state.counts.gates[state.gate]);
    if (answer.line) strip.slide(answer.line, range(), state.end, false);
  }
}

function drawOthers(answer) {
  state.histograms = answer.histograms;
  const {gates} = answer.counts[state.tier];
  for (const [name, shown] of Object.entries(small)) shown.draw(state.whole[name], answer.histograms[name], gates[name]);
}

// Draw a movement at once, without the server: when the end was chosen, all counts for each of its places were requested.
function drawAt() {
  const {focus} = state;
  const now = range();
  if (!now || !focus?.sweep || focus.gate !== state.gate || focus.end !== state.end || focus.key !== keyOf()) return false;
  const value = now[state.end === "low" ? 0 : 1];
  const at = value === null ? focus.places.length : focus.places.indexOf(value);
  if (at < 0 || !state.counts) return false;
  const {sweep} = focus;
  const of = (name) => sweep[name][at];
  drawTotals({kept: of("kept"), rejected: of("rejected"), undecided: of("undecided")}, of("seconds"), null);
  let reach = state.funnel[0]?.["reach it"] ?? 0;
  const rows = focus.order.map((name, i) => {
    const left = sweep.left[i][at];
    const row = {...state.funnel.find((each) => each.gate === name), gate: name, "reach it": reach, "fall at it": reach - left, left};
    reach = left;
    return row;
  });
  drawFunnel(rows, state.gate, choose);
  gate.tell({failed: of("failed"), alone: of("alone"), so_far: of("so_far")});
  const line = state.end === "low" ? [focus.ranks[at], focus.line[1]] : [focus.line[0], focus.ranks[at]];
  strip.slide(line, now, state.end, false);
  return true;
}

// The settings on which the film of the chosen gate depends: all but the moved end of the gate itself, except where the score depends
// on what the gates keep.
function keyOf() {
  const {[state.gate]: own, ...others} = state.tiers[state.tier];
  const tiers = state.followsOthers ? state.tiers : others;
  const other = own?.[state.end === "low" ? 1 : 0] ?? null;
  return JSON.stringify([state.tier, state.gate, tiers, state.selection, state.end, other]);
}

const lookAtGate = newest(async () => {
  if (!state.gate) return;
  const key = keyOf();
  const found = await ask("/api/focus", {...question(), gate: state.gate, end: state.end});
  if (key !== keyOf()) return;  // The settings have changed, so a newer request is made.
  found.key = key;
  state.followsOthers = found.sweep === null;
  state.focus = found;
  strip.show(found, range(), state.end, JSON.stringify([...JSON.parse(key).slice(0, 4)]));
  drawCurve();
});

function drawCurve() {
  const {focus} = state;
  if (!focus || focus.gate !== state.gate || focus.end !== state.end) return;
  const i = state.end === "low" ? 0 : 1;
  const own = focus.own?.[i];
  gate.drawCurve(focus.end, focus.places, focus.sweep?.seconds, [
    ["own", own, state.published.includes(state.recipe) ? "the paper’s" : "the recipe’s"],
    ["proposed", state.proposed[state.gate]?.[i], "where your marks put it:"],
    ["now", range()?.[i], "now"],
  ]);
  gate.place();
}

// ── what is set ───────────────────────────────────────────────────────────────────────────────────────────────────

let settled = "{}";
let further = 0;

// End a change: it becomes a step to undo, it is written into the address, and the whole page is drawn again.
function commit(said) {
  const before = settled;
  settled = JSON.stringify(state.tiers);
  if (before !== settled) steps.add({kind: "set", before: JSON.parse(before), after: structuredClone(state.tiers), tier: state.tier, gate: state.gate, end: state.end});
  address();
  refresh(said);
}

async function refresh(said) {
  rest();
  clearTimeout(due);
  due = 0;
  await decide();
  if (said) $("said").textContent = `${said} ${$("totals").textContent}`;
  await lookAtGate();
  clearTimeout(further);
  further = setTimeout(follow, SETTLES);
}

function follow() {
  list();
  agree();
  beside();
  audit();
  price();
}

function changed(end, now, done) {
  const began = performance.now();
  rest();
  const gates = state.tiers[state.tier];
  if (now === null) delete gates[state.gate];
  else gates[state.gate] = now;
  const turned = state.end !== end;
  state.end = end;
  small[state.gate].set(now, true);
  const local = drawAt();
  performance.measure("studio drawing", {start: began, end: performance.now()});
  // The measured time ends when the frame is drawn: in a task after the callback that precedes the frame.
  const measured = () => requestAnimationFrame(() => setTimeout(() => performance.measure("studio step", {start: began, end: performance.now()})));
  if (done) {
    commit(`${state.gate} ${rangeText(now)}.`);
    return;
  }
  if (local) measured();
  else decide().then(measured);
  if (turned) lookAtGate();
  if (local) decideSoon();
}

// The end that rejects more of the clips that no other gate rejects.
function endOf(name, now) {
  if (!now || now[0] === null || now[1] === null) return now && now[0] === null ? "high" : "low";
  const {low, high} = state.filters[name];
  const bins = state.histograms?.[name] ?? [];
  const beyond = (is) => bins.reduce((sum, n, i) => sum + (is(low + ((i + 0.5) * (high - low)) / bins.length) ? n : 0), 0);
  return beyond((value) => value > now[1]) > beyond((value) => value < now[0]) ? "high" : "low";
}

function choose(name, end = null, scroll = true) {
  state.gate = name;
  const now = range(name);
  state.end = end ?? endOf(name, now);
  show();
  address();
  lookAtGate();
  decide();
  if (state.which.startsWith("alone")) list();
  if (scroll) $("focus").scrollIntoView({block: "nearest"});
}

// Draw all that is set.
function show() {
  for (const [name, shown] of Object.entries(small)) shown.set(range(name), name === state.gate);
  for (const radio of document.querySelectorAll("#tiers input")) radio.checked = radio.value === state.tier;
  for (const [key, value] of Object.entries(state.selection)) {
    const field = $("filter").elements[key];
    if (field.tagName === "SELECT" && value && ![...field.options].some((each) => each.value === value)) field.append(element("option", {value}, value));
    if (field.value !== value) field.value = value;
  }
  $("which").value = state.which;
  $("draws").value = state.draws;
  showRecipes();
  if (state.gate) {
    gate.show(state.gate, state.filters[state.gate], range());
    if (state.whole && state.counts) gate.tell(undefined);
  }
}

// Write what is set into the address. push: as a new entry of the browser's history.
function address(push = true) {
  const hash = write(state);
  if (hash === location.hash) return;
  if (push) history.pushState(null, "", hash);
  else history.replaceState(null, "", hash);
}

// Set what the address says. An address that makes no sense changes nothing, and a sentence says why.
function come() {
  const selected = JSON.stringify(state.selection);
  try {
    Object.assign(state, parse(location.hash, state));
    fault(null, "address");
  } catch (error) {
    fault(`${error.message}. What is set stays.`, "address");
    return;
  }
  if (JSON.stringify(state.selection) !== selected) state.whole = null;
  settled = JSON.stringify(state.tiers);
}

async function arrive() {
  const open = state.clip;
  const {gate: before} = state;
  come();
  state.gate ??= before;
  show();
  if (state.clip && state.clip !== open) look(state.clip, false);
  if (!state.clip && $("clip").open) $("clip").close();
  await refresh();
}

async function step(made, back) {
  if (made.kind === "mark") {
    marks.mark(made.clip, back ? made.before : made.after);
    $("said").textContent = `${back ? "Undone" : "Done again"}: the mark of a clip.`;
    return;
  }
  Object.assign(state, {tiers: structuredClone(back ? made.before : made.after), tier: made.tier, gate: made.gate, end: made.end});
  settled = JSON.stringify(state.tiers);
  show();
  address();
  await refresh(back ? "Undone." : "Done again.");
}

// ── clips ─────────────────────────────────────────────────────────────────────────────────────────────────────────

const how = () => ({marks: marks.marks, open: look, marked});

function marked(clip, kind) {
  const before = marks.marks[clip] ?? null;
  if (before === kind) return;
  steps.add({kind: "mark", clip, before, after: kind});
  marks.mark(clip, kind);
}

const look = guarded(async (id, push = true) => {
  const [clip, playing] = await Promise.all([ask("/api/clip", {...question(), clip: id}), ask(`/api/playing/${encodeURIComponent(id)}`)]);
  state.clip = id;
  $("clip-body").replaceChildren(...large(clip, playing, {
    mark: marks.marks[id], marked, note: marks.notes[id],
    noted: (text) => {
      if (marks.marks[id]) marks.mark(id, marks.marks[id], text);
      else marks.notes[id] = text;  // The note is sent with the mark, once the clip is marked.
    },
  }));
  if (!$("clip").open) $("clip").showModal();
  address(push);
});

let listed = [];
const list = newest(async (more = false) => {
  const start = more ? listed.length : 0;
  const found = await ask("/api/clips", {...question(), which: state.which, gate: state.gate, who: marks.who, start, count: more ? 24 : 12});
  listed = [...(more ? listed : []), ...found.clips];
  const words = $("which").selectedOptions[0].textContent;
  const why = {
    kept: "This tier keeps no clip as it is set. The funnel shows the fall at each gate: loosen the gate with the greatest fall.",
    entering: "No clip enters: what is set keeps none that A does not keep.", leaving: "No clip leaves: what is set keeps all that A keeps.",
    good: "You have marked no clip good yet.", bad: "You have marked no clip bad yet.",
    alone: `No clip is rejected by ${state.gate} alone.`, "alone so far": `No clip is rejected by ${state.gate} alone so far.`,
    undecided: "Every clip that no gate rejects has all its scores.", error: "No clip ended in an error.", rejected: "No clip is rejected.",
  };
  fill($("listed"), listed, why[state.which], how());
  $("listed-of").textContent = found.of ? `${count(listed.length)} of ${plural(found.of, "clip")}: ${words}` : "";
  $("more").hidden = listed.length >= found.of;
});

const beside = newest(async () => {
  $("swap").hidden = false;
  $("besides").replaceChildren(...besideTables(await ask("/api/beside", question()), state.tier, how()));
});

// ── marks ─────────────────────────────────────────────────────────────────────────────────────────────────────────

const agree = newest(async () => {
  const said = Object.values(marks.marks);
  const good = said.filter((kind) => kind === "good").length;
  const others = Object.entries(marks.others).map(([who, n]) => `${who} ${count(n)}`).join(", ");
  $("marked").textContent = `${good} good, ${said.length - good} bad, by ${marks.who}. A threshold is proposed from three of each kind on; `
    + `each mark is saved at once.${others ? ` The marks of other raters do not count in the tables below: ${others}.` : ""}`;
  $("raters").replaceChildren(...ratersTable(marks.raters));
  if (!said.length) {
    $("agreement").replaceChildren(element("p", {class: "none"}, "No clip is marked yet. Mark some clips on both sides of the line with g and b: this section then compares your marks with each gate."));
    $("lost").replaceChildren();
    state.proposed = {};
    return;
  }
  const found = await ask("/api/agreement", {...question(), who: marks.who});
  $("agreement").replaceChildren(agreementTable(found, (name, proposed) => {
    state.tiers[state.tier][name] = proposed;
    choose(name, proposed[0] === null ? "high" : "low");
    commit(`${name} ${rangeText(proposed)}.`);
  }));
  state.proposed = Object.fromEntries(Object.entries(found.gates).map(([name, row]) => [name, row.proposed]));
  drawCurve();
  drawLost(found.lost);
});

function drawLost({of, clips}) {
  if (!of) {
    $("lost").replaceChildren();
    return;
  }
  const cards = element("ul", {class: "cards-of-clips", id: "lost-clips"});
  fill(cards, clips, "", how());
  $("lost").replaceChildren(element("p", {class: "why"}, element("b", {}, `You would lose ${of === 1 ? "this one" : `these ${count(of)}`} that you marked good.`),
    of > clips.length ? ` Shown: ${count(clips.length)}.` : ""), cards);
}

const audit = newest(async () => {
  if (state.seed === null) {
    $("audited").textContent = "";
    $("audit").replaceChildren();
    return;
  }
  const {kept, clips, told} = await ask("/api/audit", {...question(), who: marks.who, seed: state.seed, count: state.draws});
  $("audited").textContent = !kept ? "" : told.marked
    ? `${count(told.good)} of ${plural(told.marked, "marked clip")} ${told.good === 1 ? "is" : "are"} good: of all ${count(kept)} kept clips ${percent(told.share)} are `
      + `(95 % interval ${percent(told.low)} to ${percent(told.high)})${told.marked < told.drawn ? `. ${plural(told.drawn - told.marked, "drawn clip")} to go` : ""}.`
    : `${plural(told.drawn, "clip")} of ${count(kept)} kept ones drawn: mark each good or bad.`;
  fill($("audit"), clips, "The tier keeps no clip, so none can be drawn.", how());
});

let marksSettle = 0;
function marksChanged(onDisk) {
  showMarks(marks.marks);
  const good = Object.values(marks.marks).filter((kind) => kind === "good").length;
  $("marked").textContent = $("marked").textContent.replace(/^\d+ good, \d+ bad/, `${good} good, ${Object.keys(marks.marks).length - good} bad`);
  clearTimeout(marksSettle);
  marksSettle = setTimeout(() => {
    agree();
    audit();
    if (["good", "bad"].includes(state.which)) list();
  }, onDisk ? 0 : SETTLES);
}

// ── recipes ───────────────────────────────────────────────────────────────────────────────────────────────────────

function showRecipes() {
  const kept = state.a.tiers ? [["*", "the setting that was kept"]] : [];
  const options = [...kept, ...state.recipes.map((name) => [name, name])];
  const now = state.a.tiers ? "*" : state.a.recipe;
  const form = JSON.stringify([options, now]);
  if ($("a").dataset.form !== form) {
    $("a").dataset.form = form;
    $("a").replaceChildren(...options.map(([value, text]) => element("option", {value, selected: value === now}, text)));
  }
  $("swap").disabled = !state.a.tiers && state.a.recipe !== state.recipes[0];
}

const funnels = guarded(async () => {
  const recipes = [...$("others").querySelectorAll("input:checked")].map((box) => box.value);
  $("compared").replaceChildren(element("p", {class: "note"}, "The recipes decide about all clips …"));
  try {
    $("compared").replaceChildren(...funnelTables(await ask("/api/funnels", {tiers: state.tiers, recipes})));
  } catch (error) {
    $("compared").replaceChildren();
    throw error;
  }
});

const price = newest(async () => {
  $("cost").replaceChildren(...costTable(await ask("/api/cost", question())));
});

// Save the recipe, and call then(name) once it is saved. A recipe of the same name is replaced only if replace is true: else the page
// asks.
const save = async (replace, then = null) => {
  const form = $("save");
  if (!form.reportValidity()) return;
  const done = await ask("/api/save", {tiers: state.tiers, name: form.elements.name.value, replace});
  if (done.exists) {
    $("saved").replaceChildren(element("p", {}, `${done.exists} exists already. `,
      element("button", {type: "button", onclick: guarded(() => save(true, then))}, then ? "Replace it and run" : "Replace it")));
    return;
  }
  const file = URL.createObjectURL(new Blob([done.yaml], {type: "application/yaml"}));
  $("saved").replaceChildren(
    element("p", {}, "Saved: ", element("code", {}, done.saved)),
    element("p", {}, element("code", {}, `longtake tiers '${state.workspace}' -r '${done.saved}'`)),
    element("p", {}, element("a", {href: file, download: `${form.elements.name.value}.yaml`}, "download the recipe")));
  state.recipes = done.recipes;
  showRecipes();
  funnelChoice($("others"), done.recipes.slice(1), state.published);
  if (then) await then(done.name);
};

// ── the page ──────────────────────────────────────────────────────────────────────────────────────────────────────

const begin = guarded(async () => {
  const found = await ask("/api/state");
  Object.assign(state, {
    tiers: structuredClone(found.tiers), start: found.tiers, workspace: found.workspace, filters: found.filters, recipes: found.recipes,
    recipe: found.recipe, published: found.published, tier: Object.keys(found.tiers)[0], a: {recipe: found.recipes[0]},
  });
  settled = JSON.stringify(state.tiers);
  $("where").replaceChildren(element("bdi", {}, found.workspace), `, recipe ${found.recipe}, ${plural(found.clips, "clip")}`);
  for (const name of Object.keys(found.tiers)) {
    const radio = element("input", {type: "radio", name: "tier", value: name});
    radio.addEventListener("change", () => {
      state.tier = name;
      show();
      address();
      refresh(`Tier ${name}.`);
    });
    $("tiers").append(element("label", {}, radio, ` ${name}`));
  }
  marks = new Marks(found.workspace, {question, changed: marksChanged});
  steps = new Steps(found.workspace, step, () => {
    $("undo").disabled = !steps?.done.length;
    $("redo").disabled = !steps?.undone.length;
  });
  steps.changed();
  gate = new Gate($("focus"), {
    changed, undo: (back) => (back ? steps.undo() : steps.redo()),
    chosen: (end) => {
      if (end === state.end) return;
      state.end = end;
      address(false);
      lookAtGate();
    },
  });
  strip = new Strip($("strip"), {question, marked, open: look, marks: () => marks.marks, turn: (name) => choose(name)});
  for (const [name, filter] of Object.entries(found.filters)) {
    small[name] = new Small(name, filter, (each) => choose(each));
    $("gates").append(small[name].root);
  }
  funnelChoice($("others"), found.recipes.slice(1), found.published);
  $("save").elements.name.value = `${found.recipe}-mine`;
  running = new Running(async () => {
    await ask("/api/reload", {});
    location.reload();  // Nothing is lost: the address holds all that is set.
  });
  come();
  show();
  await decide();
  if (!state.gate && state.counts) choose(mostDecisive(state.counts.gates) ?? Object.keys(found.filters)[0], null, false);
  else lookAtGate();
  address(false);
  performance.mark("studio ready");
  let who = found.rater;
  try {
    who = localStorage.getItem(`longtake rater/${found.workspace}`) ?? who;
  } catch {
    // A browser without storage begins with the rater that the studio began with.
  }
  await marks.become(who);
  $("who").value = marks.who;
  follow();
  running.watch();
  if (state.clip) look(state.clip, false);
  const places = await ask("/api/sources");
  const known = new Set([...$("filter").source.options].map((each) => each.value));
  $("filter").source.append(...places.filter(([place]) => !known.has(place)).map(([place, n]) => element("option", {value: place}, `${place} (${count(n)})`)));
});

let typing = 0;
$("filter").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    const form = $("filter");
    state.selection = {source: form.source.value, uri: form.uri.value, caption: form.caption.value};
    state.whole = null;
    address();
    refresh();
  }, 250);
});
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("save").addEventListener("submit", (event) => {
  event.preventDefault();
  guarded(save)(false);
});
$("run").addEventListener("click", guarded(() => save(false, (name) => running.start(name))));
$("funnels").addEventListener("submit", (event) => {
  event.preventDefault();
  funnels();
});
$("reset").addEventListener("click", () => {
  state.tiers = structuredClone(state.start);
  show();
  commit("Back to the recipe.");
});
$("undo").addEventListener("click", () => steps.undo());
$("redo").addEventListener("click", () => steps.redo());
$("which").addEventListener("change", () => {
  state.which = $("which").value;
  address();
  list();
});
$("more").addEventListener("click", () => list(true));
$("a").addEventListener("change", () => {
  if ($("a").value !== "*") state.a = {recipe: $("a").value};
  show();
  address();
  refresh();
});
$("pin").addEventListener("click", () => {
  state.a = {tiers: structuredClone(state.tiers)};
  show();
  address();
  refresh("Kept as A.");
});
$("swap").addEventListener("click", () => {
  const now = structuredClone(state.tiers);
  state.tiers = structuredClone(state.a.tiers ?? state.start);
  state.a = {tiers: now};
  show();
  commit("A and B exchanged.");
});
$("draw").addEventListener("click", () => {
  state.seed = Math.floor(Math.random() * 1e9);
  state.draws = Math.min(500, Math.max(1, Number($("draws").value) || 30));
  address();
  audit();
});
$("who").addEventListener("change", guarded(async () => {
  const name = $("who").value.trim();
  try {
    if (name) await marks.become(name);
    try {
      localStorage.setItem(`longtake rater/${state.workspace}`, marks.who);
    } catch {
      // A browser without storage asks for the rater's name again the next time.
    }
    fault(null);
  } finally {
    $("who").value = marks.who;
    follow();
  }
}));
addEventListener("popstate", arrive);
addEventListener("focus", () => marks?.read().catch(() => {}));
addEventListener("beforeunload", (event) => {
  if (marks?.unsent.size) event.preventDefault();  // The browser asks whether to leave the page although marks are not sent.
});
document.addEventListener("keydown", (event) => {
  const typed = event.target.closest("textarea, input:not([type=number]):not([type=checkbox]):not([type=radio])");
  const key = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y") && !typed) {
    event.preventDefault();
    if (key === "y" || event.shiftKey) steps?.redo();
    else steps?.undo();
    return;
  }
  if (event.defaultPrevented || event.target.closest("input, select, textarea, [role=slider], #strip, video")) return;
  if ($("clip").open) {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      strip.go(event.key === "ArrowLeft" ? -1 : 1).then((clip) => clip && look(clip.id));
    } else if ((key === "g" || key === "b") && state.clip) {
      const kind = key === "g" ? "good" : "bad";
      marked(state.clip, marks.marks[state.clip] === kind ? null : kind);
    }
    return;
  }
  if (event.key === " " && event.target.closest("button, summary, a")) return;
  strip?.pressed(event);
});
$("clip").addEventListener("close", () => {
  $("clip-body").replaceChildren();
  if (state.clip) {
    state.clip = null;
    address();
  }
});
begin();
