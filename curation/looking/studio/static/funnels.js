// The clips that other recipes would keep: a choice of recipes, and the tables that the server makes.

import {count, element} from "./dom.js";

const cell = (value, i, left) => (i === 0 ? element("th", {scope: "row"}, element("bdi", {}, value))
  : element("td", i < left ? {} : {class: "n"}, typeof value === "number" ? count(value) : value));

function table({title, heads, rows, left}) {
  return element("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": title}, element("table", {},
    element("caption", {}, title),
    element("thead", {}, element("tr", {}, ...heads.map((head, i) => element("th", i < left ? {scope: "col"} : {scope: "col", class: "n"}, head)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((value, i) => cell(value, i, left)))))));
}

export function funnelTables(found) {
  return [element("p", {class: "note"}, `${found.headline}. A letter stands for a tier of a recipe; in the lower tables a recipe stands for its first tier.`),
    ...found.tables.flatMap((one) => one.legend ? [table(one), element("p", {class: "note"}, one.legend)] : [table(one)]), ...found.notes.map((note) => element("p", {class: "note"}, element("bdi", {}, note)))];
}

// A choice of recipes. When the list of recipes changes, the recipes that are ticked stay ticked.
export function funnelChoice(place, recipes, published) {
  const known = new Map([...place.querySelectorAll("input")].map((box) => [box.value, box.checked]));
  place.replaceChildren(...recipes.map((name) => element("label", {},
    element("input", {type: "checkbox", name: "recipe", value: name, checked: known.get(name) ?? published.includes(name)}), ` ${name}`)));
}
