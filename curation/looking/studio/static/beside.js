// A | B shows the clips that two settings keep, and the clips that enter and leave from A to B.

import {count, element, lasting, plural} from "./dom.js";
import {fill} from "./clips.js";

export function besideTables(found, tier, how) {
  const cells = (clips, seconds) => [element("td", {class: "n"}, count(clips)), element("td", {class: "n"}, lasting(seconds))];
  const heads = [["", 1], ["A keeps", 2], ["B keeps", 2], ["enter", 2], ["leave", 2]];
  const table = element("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "A and B"}, element("table", {id: "ab"},
    element("caption", {}, "Clips and their length"),
    element("thead", {}, element("tr", {}, ...heads.map(([head, span]) => (head ? element("th", {scope: "col", colspan: span, class: "n"}, head) : element("td"))))),
    element("tbody", {}, ...Object.entries(found.tiers).map(([name, row]) => element("tr", {"data-tier": name, class: name === tier ? "chosen" : ""},
      element("th", {scope: "row"}, name), ...cells(row.a.clips, row.a.seconds), ...cells(row.b.clips, row.b.seconds),
      ...cells(row.entering, row.entering_seconds), ...cells(row.leaving, row.leaving_seconds))))));
  const now = found.tiers[tier];
  const columns = [["entering", "Enter with B", "No clip enters: A keeps all that B keeps."], ["leaving", "Leave with B", "No clip leaves: B keeps all that A keeps."]]
    .map(([which, title, why]) => {
      const list = element("ul", {class: "cards-of-clips", "data-list": which});
      fill(list, found.cards[which], why, how);
      return element("div", {}, element("h3", {}, `${title}: ${count(now[which])}, ${lasting(now[`${which}_seconds`])}`), list);
    });
  const may = now.undecided ? element("p", {class: "note"}, `${plural(now.undecided, "clip")} of ${tier} ${now.undecided === 1 ? "is" : "are"} undecided under B: `
    + "scores are missing that nothing needed before. A run measures them, and more clips may enter.") : "";
  return [table, may, element("div", {class: "halves"}, ...columns)];
}
