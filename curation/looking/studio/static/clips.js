// Clips: as cards, and one of them at large, with its video. Everything that comes from outside is put in as text.

import {count, digits, element} from "./gates.js";

// A drag shows hundreds of clips, and its questions must not wait for their pictures: these come when it rests, and while
// it goes on, after half a second; two at a time, and none of a card that is gone.
const REST = 120;
const PATIENCE = 500;
const waiting = [];
let loading = 0;
let moved = 0;
let due = 0;
let later = 0;

export function rest() {
  moved = performance.now();
}

function load() {
  const now = performance.now();
  if (now < Math.min(moved + REST, due)) {
    clearTimeout(later);
    later = setTimeout(load, Math.min(moved + REST, due) - now);
    return;
  }
  while (loading < 2 && waiting.length) {
    const [picture, address] = waiting.shift();
    if (!picture.isConnected) continue;
    loading += 1;
    const done = () => {
      loading -= 1;
      load();
    };
    picture.addEventListener("load", done, {once: true});
    picture.addEventListener("error", done, {once: true});
    picture.src = address;
  }
}

// A score, and a word where some gate of the tier has none of this clip.
export function scoreOf(clip) {
  const score = clip.score === null ? clip.id.slice(0, 8) : digits(clip.score);
  return clip.measured ? score : `${score}, not all measured`;
}

export function card(clip, mark, open, marked) {
  const picture = clip.frames
    ? element("img", {alt: ""})
    : element("span", {class: "blank"}, "no frames stored");
  if (clip.frames) {
    picture.addEventListener("error", () => picture.replaceWith(element("span", {class: "blank"}, "no picture")), {once: true});
    if (!waiting.length) due = performance.now() + PATIENCE;
    waiting.push([picture, `/clips/${clip.id}/2.jpg`]);
    setTimeout(load);  // when it is on the page
  }
  const score = scoreOf(clip);
  return element("li", {"data-clip": clip.id},
    element("button", {type: "button", class: "open-clip", "aria-label": `open clip ${clip.id.slice(0, 8)}, score ${score}`, onclick: () => open(clip.id)},
      picture, element("span", {class: "score"}, score)),
    marking(clip.id, mark, marked));
}

export function marking(id, mark, marked) {
  const buttons = ["good", "bad"].map((kind) => element("button", {
    type: "button", class: kind, "data-mark": kind, "aria-pressed": String(mark === kind), "aria-label": `mark ${id.slice(0, 8)} ${kind}`,
    onclick: (event) => marked(id, event.currentTarget.getAttribute("aria-pressed") === "true" ? null : kind),
  }, kind));
  return element("div", {class: "marking", "data-marks": id}, ...buttons);
}

export function showMarks(marks) {
  for (const group of document.querySelectorAll("[data-marks]")) {
    for (const button of group.children) {
      button.setAttribute("aria-pressed", String(marks[group.dataset.marks] === button.dataset.mark));
    }
  }
}

export function large(clip, tier, mark, marked) {
  const parts = [
    element("h2", {id: "clip-title"}, "Clip ", element("code", {}, clip.clip_id)),
    element("p", {class: "note"}, element("bdi", {}, clip.uri), `, ${clip.start.toFixed(2)} to ${clip.end.toFixed(2)} s`),
    player(clip),
    marking(clip.clip_id, mark, marked),
  ];
  for (const [name, verdict] of Object.entries(clip.verdicts)) {
    const lines = clip.reasons[name];
    const by = verdict === "rejected" && clip.alone[name] ? ` by one gate ${clip.alone[name]}` : "";
    parts.push(element("p", {class: verdict === "kept" ? "fine" : "why"}, element("b", {}, `${name}: ${verdict}${by}`)));
    if (clip.doubts[name].length) parts.push(element("p", {class: "note"}, element("bdi", {}, clip.doubts[name].join("; "))));
    if (lines.length) parts.push(element("ul", {class: "why"}, ...lines.map((line) => element("li", {}, element("bdi", {}, line)))));
  }
  if (clip.caption) parts.push(element("p", {dir: "auto", class: "caption"}, clip.caption));
  if (clip.frames || clip.sub_captions.length) {
    parts.push(element("ul", {class: "frames"}, ...[0, 1, 2, 3, 4].map((i) => element("li", {},
      clip.frames ? element("img", {alt: `keyframe ${i + 1}`, src: `/clips/${clip.clip_id}/${i}.jpg`}) : "",
      element("span", {dir: "auto"}, clip.sub_captions[i] || "")))));
  }
  const scores = Object.entries({...clip.scores, ...clip.answers}).map(([name, value]) =>
    element("tr", {}, element("th", {scope: "row"}, name), element("td", {class: "n"}, clip.answers[name] ?? digits(value))));
  parts.push(element("table", {}, element("caption", {}, "scores"), element("tbody", {}, ...scores)));
  return parts;
}

function player(clip) {
  const span = `#t=${clip.start.toFixed(2)},${clip.end.toFixed(2)}`;
  const source = `/clips/${clip.clip_id}/source.video${span}`;
  const video = element("video", {
    controls: true, muted: true, preload: "metadata", "aria-label": "the clip",
    src: clip.encoded ? `/clips/${clip.clip_id}/encoded.video` : source,
  });
  const note = element("p", {class: "note"}, clip.encoded ? `the encoded clip${clip.pace > 1 ? `, ${clip.pace.toFixed(2)} times as fast as it was filmed` : ""}` : `the source, ${clip.codec || "codec unknown"}`);
  video.addEventListener("error", () => {
    note.className = "why";
    note.textContent = `this browser cannot play it (${clip.codec || "codec unknown"}), or the file is not there any more; `
      + "`longtake export` encodes kept clips as H.264, which every browser plays";
  });
  return element("div", {}, video, note);
}

export function agreementTable(found, use) {
  const share = (x) => (x === null ? "–" : `${(100 * x).toFixed(0)} %`);
  const within = (x, ends) => (x === null ? "–" : `${share(x)} (${ends.map((end) => (100 * end).toFixed(0)).join("–")})`);
  const line = (name, row, proposal) => element("tr", {}, element("th", {scope: "row"}, name),
    ...[within(row.precision, row.precision_interval), within(row.recall, row.recall_interval), `${count(row.good_passed)} / ${count(row.bad_passed)}`, `${count(row.good_failed)} / ${count(row.bad_failed)}`]
      .map((text) => element("td", {class: "n"}, text)), element("td", {}, proposal),
    element("td", {class: "end"}, row.for_precision ?? "–"));
  const rows = Object.entries(found.gates).map(([name, row]) => line(name, row,
    row.range ? element("button", {type: "button", "data-propose": name, onclick: () => use(name, row.proposed)}, `use ${row.range}`) : "–"));
  const wanted = Object.values(found.gates)[0]?.wanted ?? 0.9;
  const heads = ["gate", "precision", "recall", "good / bad let through", "stopped", "proposed", `for precision ${share(wanted)}`];
  const answers = Object.entries(found.questions).map(([name, row]) => element("li", {},
    `${name}: ${share(row.agrees)} of ${count(row.clips)} answers agree with the marks (95 % interval ${share(row.low)} to ${share(row.high)})`));
  const silent = Object.entries(found.gates).filter(([, row]) => row.silent).map(([name, row]) => `${name} (${row.silent})`).join(", ");
  const told = answers.length ? element("ul", {class: "note", "aria-label": "answers and marks"}, ...answers) : "";
  return element("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "agreement with the marks"}, told, element("table", {},
    element("caption", {}, "Of the marked clips that have a score; in brackets the 95 % interval"),
    element("thead", {}, element("tr", {}, ...heads.map((head, i) => element("th", {scope: "col", class: i && i < 5 ? "n" : ""}, head)))),
    element("tbody", {}, line("the whole tier", found.tier, "–"), ...rows)),
    silent ? element("p", {class: "note"}, `The marks say nothing about ${silent}.`) : "");
}
