// The part of the address after # holds what is set and looked at: a person who opens the address sees the same.

const OPEN = "";
const written = (range) => (range ? range.map((end) => (end === null ? OPEN : String(end))).join("..") : "off");

function read(text) {
  if (text === "off") return null;
  const ends = text.split("..");
  if (ends.length !== 2) throw new Error(`a gate is written LOW..HIGH or off, not “${text}”`);
  const range = ends.map((end) => (end === OPEN ? null : Number(end)));
  if (range.some((end) => end !== null && !Number.isFinite(end))) throw new Error(`a gate is written LOW..HIGH or off, not “${text}”`);
  if (range[0] === null && range[1] === null) return null;
  if (range[0] !== null && range[1] !== null && range[0] > range[1]) throw new Error(`${range[0]} lies above ${range[1]}: nothing would pass`);
  return range;
}

export const same = (one, other) => written(one) === written(other);

// The address names only gates whose ends differ from those of the recipe.
function putGates(into, tiers, start, before) {
  for (const [tier, gates] of Object.entries(start)) {
    for (const name of new Set([...Object.keys(gates), ...Object.keys(tiers[tier])])) {
      if (!same(tiers[tier][name], gates[name])) into.set(`${before}${tier}.${name}`, written(tiers[tier][name]));
    }
  }
}

function takeGates(from, start, before, filters) {
  const tiers = structuredClone(start);
  for (const [key, text] of from) {
    if (!key.startsWith(before)) continue;
    const tier = Object.keys(start).find((each) => key.startsWith(`${before}${each}.`));
    if (!tier) continue;
    const name = key.slice(before.length + tier.length + 1);
    if (!(name in filters)) throw new Error(`the link names a gate that this recipe has not: ${name}`);
    const range = read(text);
    if (range) tiers[tier][name] = range;
    else delete tiers[tier][name];
  }
  return tiers;
}

const PLAIN = ["source", "uri", "caption"];

export function write(state) {
  const told = new URLSearchParams();
  told.set("tier", state.tier);
  if (state.gate) {
    told.set("gate", state.gate);
    told.set("end", state.end);
  }
  putGates(told, state.tiers, state.start, "");
  for (const key of PLAIN) if (state.selection[key]) told.set(key, state.selection[key]);
  if (state.which !== "kept") told.set("which", state.which);
  if (state.a.tiers) {
    told.set("a", "*");
    putGates(told, state.a.tiers, state.start, "a.");
  } else if (state.a.recipe !== state.recipes[0]) told.set("a", state.a.recipe);
  if (state.seed !== null) told.set("audit", `${state.seed}/${state.draws}`);
  if (state.clip) told.set("clip", state.clip);
  return `#${told}`;
}

// Read the part of an address after #. Raises an Error that says which part of it makes no sense.
export function parse(hash, {start, filters, recipes}) {
  const from = new URLSearchParams(hash.replace(/^#/, ""));
  const tier = from.get("tier") ?? Object.keys(start)[0];
  if (!(tier in start)) throw new Error(`the link names a tier that this recipe has not: ${tier}`);
  const gate = from.get("gate");
  if (gate !== null && !(gate in filters)) throw new Error(`the link names a gate that this recipe has not: ${gate}`);
  const a = from.get("a") ?? recipes[0];
  if (a !== "*" && !recipes.includes(a)) throw new Error(`the link names a recipe that the studio does not have: ${a}`);
  const audit = (from.get("audit") ?? "").match(/^(\d{1,9})\/(\d{1,3})$/);
  return {
    tier, gate, end: from.get("end") === "high" ? "high" : "low", tiers: takeGates(from, start, "", filters),
    selection: Object.fromEntries(PLAIN.map((key) => [key, from.get(key) ?? ""])), which: from.get("which") ?? "kept",
    a: a === "*" ? {tiers: takeGates(from, start, "a.", filters)} : {recipe: a},
    seed: audit ? Number(audit[1]) : null, draws: audit ? Number(audit[2]) : 30, clip: from.get("clip"),
  };
}
