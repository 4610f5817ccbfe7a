// Marks are sent one by one, and this browser keeps each until it is on the server's disk. The tables compare marks and gates.

import {$, ask, count, element, fault, percent, plural} from "./dom.js";

export class Marks {
  // question() returns what is set. changed(onDisk) is called when the marks have changed.
  constructor(workspace, {question, changed}) {
    Object.assign(this, {workspace, question, changed});
    this.who = "";
    this.marks = {};
    this.notes = {};
    this.others = {};
    this.raters = null;
    this.unsent = new Map();
    this.sending = false;
    this.retry = 0;
  }

  shelf() {
    return `longtake mark/${this.workspace}/${this.who}/`;
  }

  async become(who) {
    if (this.unsent.size) throw new Error(`${plural(this.unsent.size, "mark")} of ${this.who} wait to be saved: the rater stays`);
    this.who = who;
    await this.read();
    try {
      for (const key of Object.keys(localStorage)) {
        if (key.startsWith(this.shelf())) this.unsent.set(key.slice(this.shelf().length), JSON.parse(localStorage.getItem(key)));
      }
    } catch {
      // A browser without storage keeps unsent marks only as long as the page is open.
    }
    this.put(this.marks);
    if (this.unsent.size) this.send();
  }

  async read() {
    const found = await ask("/api/marks", {who: this.who});
    if (found.who !== this.who) this.who = found.who;
    Object.assign(this, {notes: found.notes, others: found.others, raters: found.raters});
    this.put(found.marks);
  }

  put(marks) {
    this.marks = {...marks};
    for (const [clip, {mark, note}] of this.unsent) {
      if (mark === null) delete this.marks[clip];
      else this.marks[clip] = mark;
      if (note) this.notes[clip] = note;
    }
    this.changed();
  }

  keep(clip) {
    try {
      if (this.unsent.has(clip)) localStorage.setItem(this.shelf() + clip, JSON.stringify(this.unsent.get(clip)));
      else localStorage.removeItem(this.shelf() + clip);
    } catch {
      // A browser without storage keeps unsent marks only as long as the page is open.
    }
  }

  mark(clip, mark, note = this.notes[clip] ?? "") {
    this.unsent.set(clip, {mark, note});
    if (note) this.notes[clip] = note;
    else delete this.notes[clip];
    this.keep(clip);
    this.put(this.marks);
    this.send();
  }

  drop(clip, sent) {
    if (this.unsent.get(clip) !== sent) return;  // The clip was marked again while the mark was sent.
    this.unsent.delete(clip);
    this.keep(clip);
  }

  async send() {
    if (this.sending) return;
    this.sending = true;
    clearTimeout(this.retry);
    const {tiers} = this.question();
    try {
      while (this.unsent.size) {
        const [clip, sent] = this.unsent.entries().next().value;
        try {
          const found = await ask("/api/mark", {clip, mark: sent.mark, note: sent.note, who: this.who, tiers});
          this.drop(clip, sent);
          this.put(found.marks);
        } catch (error) {
          if (error.status !== 400 && error.status !== 404) throw error;
          this.drop(clip, sent);  // The server will never accept this mark: show its error, and send the next one.
          fault(error);
        }
      }
      this.tellUnsent(null);
    } catch (error) {
      this.tellUnsent(error);
      this.retry = setTimeout(() => this.send(), 3000);
    } finally {
      this.sending = false;
    }
    this.changed(true);
  }

  tellUnsent(error) {
    const n = this.unsent.size;
    $("unsent").hidden = !n || !error;
    if (n && error) {
      $("unsent").textContent = `${n === 1 ? "1 mark is" : `${n} marks are`} not saved yet (${error.message}). `
        + `${n === 1 ? "It is" : "They are"} kept in this browser and sent again every 3 seconds.`;
    }
  }
}

const within = (x, ends) => (x === null ? "–" : `${percent(x)} (${ends.map((end) => (100 * end).toFixed(0)).join("–")})`);

export function agreementTable(found, use) {
  const line = (name, row, proposal, checked) => element("tr", {}, element("th", {scope: "row"}, name),
    ...[within(row.precision, row.precision_interval), within(row.recall, row.recall_interval), `${count(row.good_passed)} / ${count(row.bad_passed)}`, `${count(row.good_failed)} / ${count(row.bad_failed)}`]
      .map((text) => element("td", {class: "n"}, text)), element("td", {}, proposal), element("td", {class: "n"}, checked),
    element("td", {class: "end"}, row.for_precision ?? "–"));
  const checkedText = (row) => (row.checked ? `${within(row.checked.precision, row.checked.precision_interval)}, recall ${within(row.checked.recall, row.checked.recall_interval)}`
    : row.range ? "too few marks for halves" : "–");
  const rows = Object.entries(found.gates).map(([name, row]) => line(name, row,
    row.range ? element("button", {type: "button", "data-propose": name, onclick: () => use(name, row.proposed)}, `use ${row.range}`) : "–", checkedText(row)));
  const wanted = Object.values(found.gates)[0]?.wanted ?? 0.9;
  const heads = ["gate", "precision", "recall", "good / bad let through", "stopped", "proposed", "proposed, on the other half", `for precision ${percent(wanted)}`];
  const answers = Object.entries(found.questions).map(([name, row]) => element("li", {},
    `${name}: ${percent(row.agrees)} of ${count(row.clips)} answers agree with the marks (95 % interval ${percent(row.low)} to ${percent(row.high)})`));
  const silent = Object.entries(found.gates).filter(([, row]) => row.silent).map(([name, row]) => `${name} (${row.silent})`).join(", ");
  const told = answers.length ? element("ul", {class: "note", "aria-label": "answers and marks"}, ...answers) : "";
  const whole = found.tier_checked;
  return element("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "agreement with the marks"}, told, element("table", {},
    element("caption", {}, "Marked clips that have a score; the 95 % interval is in brackets"),
    element("thead", {}, element("tr", {}, ...heads.map((head, i) => element("th", {scope: "col", class: (i && i < 5) || i === 6 ? "n" : ""}, head)))),
    element("tbody", {}, line("the whole tier", found.tier, "–", found.checking ? `as set: ${within(whole.precision, whole.precision_interval)}` : "–"), ...rows)),
    element("p", {class: "note"}, `A clip’s id decides for good which half its mark belongs to: one half chooses a threshold, the other (${plural(found.checking, "mark")}) shows how good the choice is.`),
    silent ? element("p", {class: "note"}, `The marks say nothing about ${silent}.`) : "");
}

export function ratersTable(found) {
  if (!found || found.pairs.length === 0) return [];
  return [element("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "raters"}, element("table", {},
    element("caption", {}, "Raters on the clips that both marked"),
    element("thead", {}, element("tr", {}, ...["raters", "clips", "they agree", "kappa"].map((head, i) => element("th", {scope: "col", class: i ? "n" : ""}, head)))),
    element("tbody", {}, ...found.pairs.map((pair) => element("tr", {}, element("th", {scope: "row"}, element("bdi", {}, pair.one), " and ", element("bdi", {}, pair.other)),
      ...[count(pair.clips), within(pair.same / pair.clips, [pair.low, pair.high]), pair.kappa === null ? "–" : pair.kappa.toFixed(2)]
        .map((text) => element("td", {class: "n"}, text))))))),
  element("p", {class: "note"}, `The raters disagree about ${plural(found.disputed.length, "clip")}. Kappa is the agreement beyond chance: it is 1 at most, and 0 where the raters agree as often as by chance.`)];
}
