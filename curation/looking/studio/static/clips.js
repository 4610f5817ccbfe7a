// Clips are shown as cards, play in place of their picture, and one of them is shown large. All text of a workspace is put in as text,
// never as HTML.

import {ask, digits, element, lasting} from "./dom.js";

// A drag shows hundreds of clips, and its requests must not wait for the pictures of these clips. The pictures of the film are loaded
// first, and a picture whose card was removed is not loaded.
const REST = 120;  // Milliseconds without a movement after which pictures are loaded.
const PATIENCE = 500;  // Milliseconds after which pictures are loaded although a drag goes on.
const AT_ONCE = 4;  // Pictures that are loaded at once: the browser opens some six connections, and others are left for requests.
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
  while (loading < AT_ONCE && waiting.length) {
    const [image, address] = waiting.shift();
    if (!image.isConnected) continue;
    loading += 1;
    const done = () => {
      loading -= 1;
      load();
    };
    image.addEventListener("load", done, {once: true});
    image.addEventListener("error", done, {once: true});
    image.src = address;
  }
}

const TRIES = 5;  // Tries to load a picture: sources are read one after the other, so a picture may be ready a few seconds later.
const none = (why) => element("span", {class: "blank"}, why);

// The picture of a clip. Where it cannot be shown yet, a sentence says why, and the picture replaces the sentence later.
export function picture(clip, first = false) {
  const address = `/clips/${clip.id}/2.jpg`;
  const made = (n) => {
    const image = element("img", {alt: "", draggable: "false"});
    image.addEventListener("error", async () => {
      const answer = await fetch(address).catch(() => null);
      const blank = none(answer && !answer.ok ? await answer.text() : "Its picture cannot be read.");
      image.replaceWith(blank);
      if (answer?.status === 503 && n < TRIES) setTimeout(() => blank.isConnected && blank.replaceWith(made(n + 1)), 2000 * n);
    }, {once: true});
    if (!waiting.length) due = performance.now() + PATIENCE;
    const wanted = [image, n > 1 ? `${address}?${n}` : address];
    if (first) waiting.unshift(wanted);
    else waiting.push(wanted);
    setTimeout(load);  // The picture is loaded after the caller has put it on the page.
    return image;
  };
  return made(1);
}

// A player plays one clip at a time over its picture: the video, or, where the browser cannot play it, the pictures in turn.
export class Player {
  clip = null;

  toggle(clip, place, from) {
    if (this.clip === clip.id) this.stop();
    else this.play(clip, place, from);
  }

  async play(clip, place, from = "hover") {
    this.stop();
    this.clip = clip.id;
    this.from = from;
    this.place = place;
    let found;
    try {
      found = await ask(`/api/playing/${encodeURIComponent(clip.id)}`);
    } catch {
      return;
    }
    if (this.clip !== clip.id) return;
    if (found.changed) {
      this.flip(clip, place.appendChild(element("span", {})));
      return;
    }
    const video = element("video", {muted: true, playsinline: true, preload: "auto", "aria-label": "the clip plays"});
    video.muted = true;
    const begin = found.start ?? 0;
    video.src = `/clips/${clip.id}/${found.what}.video${found.end === null ? "" : `#t=${begin.toFixed(2)},${found.end.toFixed(2)}`}`;
    const again = () => {
      video.currentTime = begin;
      video.play().catch(() => {});
    };
    video.addEventListener("timeupdate", () => {
      if (found.end !== null && video.currentTime >= found.end - 0.05) again();
    });
    video.addEventListener("ended", again);
    video.addEventListener("error", () => {
      if (this.clip === clip.id) this.flip(clip, video);
    });
    place.append(video);
    this.shown = video;
    video.play().catch(() => {});
  }

  // Show the stored pictures of a clip in turn, since the browser cannot play its video, or the film is another one now.
  flip(clip, video) {
    const image = element("img", {alt: "", class: "flip"});
    video.replaceWith(image);
    this.shown = image;
    let at = 0;
    const turn = () => {
      image.src = `/clips/${clip.id}/${at}.jpg`;
      at = (at + 1) % 5;
    };
    turn();
    this.turning = setInterval(turn, 400);
  }

  stop() {
    clearInterval(this.turning);
    this.shown?.remove();
    this.shown = this.clip = null;
  }
}

// The score of a clip at the chosen gate; the beginning of its id where the clip has no score.
const scoreOf = (clip) => (clip.score === null ? clip.id.slice(0, 8) : digits(clip.score));

export function card(clip, mark, open, marked) {
  const score = scoreOf(clip);
  const facts = `${clip.verdict}, ${lasting(clip.seconds)}${clip.by?.length ? `, by ${clip.by.join(", ")}` : ""}`;
  return element("li", {"data-clip": clip.id, "data-verdict": clip.verdict},
    element("button", {type: "button", class: "open-clip", "aria-label": `open clip ${clip.id.slice(0, 8)}, score ${score}, ${facts}`, onclick: () => open(clip.id)},
      element("span", {class: "picture"}, picture(clip)), element("span", {class: "score"}, score), element("span", {class: "facts"}, facts)),
    marking(clip.id, mark, marked));
}

// Fill a list with cards of clips. Cards that the list has already stay, so their pictures are not loaded again.
export function fill(list, clips, why, {marks, open, marked}) {
  const known = new Map([...list.children].map((child) => [child.dataset.clip, child]));
  const made = clips.map((clip) => {
    const old = known.get(clip.id);
    if (!old || old.dataset.verdict !== clip.verdict) return card(clip, marks[clip.id], open, marked);
    old.querySelector(".score").textContent = scoreOf(clip);
    return old;
  });
  if (!made.length) made.push(element("li", {class: "none"}, why));
  if (made.length !== list.children.length || made.some((child, i) => child !== list.children[i])) list.replaceChildren(...made);
}

export function marking(id, mark, marked, tabindex = 0) {
  const buttons = ["good", "bad"].map((kind) => element("button", {
    type: "button", class: kind, tabindex, "data-mark": kind, "aria-pressed": String(mark === kind), "aria-label": `mark ${id.slice(0, 8)} ${kind}`,
    onclick: (event) => marked(id, event.currentTarget.getAttribute("aria-pressed") === "true" ? null : kind),
  }, kind));
  return element("div", {class: "marking", "data-marks": id}, ...buttons);
}

export function showMarks(marks) {
  for (const group of document.querySelectorAll("[data-marks]")) {
    for (const button of group.children) button.setAttribute("aria-pressed", String(marks[group.dataset.marks] === button.dataset.mark));
  }
}

// One clip, large, with its scores and verdicts. noted(text) is called when the rater has written a note.
export function large(clip, playing, {mark, marked, note, noted}) {
  const field = element("textarea", {rows: 2, maxlength: 2000, id: "note", onchange: () => noted(field.value)});
  field.value = note ?? "";
  const parts = [
    element("h2", {id: "clip-title"}, "Clip ", element("code", {}, clip.clip_id)),
    element("p", {class: "note"}, element("bdi", {}, clip.uri), `, ${clip.start.toFixed(2)} to ${clip.end.toFixed(2)} s`,
      ...(clip.crop ? [", ", element("bdi", {class: "crop"}, clip.crop)] : [])),
    player(clip, playing),
    marking(clip.clip_id, mark, marked),
    element("label", {class: "noted", for: "note"}, "note, kept with your mark ", field),
  ];
  for (const [name, verdict] of Object.entries(clip.verdicts)) {
    const lines = clip.reasons[name];
    const by = verdict === "rejected" && clip.alone[name] ? ` by one gate ${clip.alone[name]}` : "";
    parts.push(element("p", {class: verdict === "kept" ? "fine" : "why"}, element("b", {}, `${name}: ${verdict}${by}`)));
    if (clip.doubts[name].length) parts.push(element("p", {class: "note"}, element("bdi", {}, clip.doubts[name].join("; "))));
    if (lines.length) parts.push(element("ul", {class: "why"}, ...lines.map((line) => element("li", {}, element("bdi", {}, line)))));
  }
  if (clip.caption) parts.push(element("p", {dir: "auto", class: "caption"}, clip.caption));
  parts.push(element("ul", {class: "frames"}, ...[0, 1, 2, 3, 4].map((i) => {
    const image = element("img", {alt: `picture ${i + 1} of 5`, src: `/clips/${clip.clip_id}/${i}.jpg`});
    image.addEventListener("error", () => image.remove(), {once: true});
    return element("li", {}, image, element("span", {dir: "auto"}, clip.sub_captions[i] || ""));
  })));
  const scores = Object.entries({...clip.scores, ...clip.answers}).map(([name, value]) =>
    element("tr", {}, element("th", {scope: "row"}, name), element("td", {class: "n"}, clip.answers[name] ?? digits(value))));
  parts.push(element("table", {}, element("caption", {}, "scores"), element("tbody", {}, ...scores)));
  return parts;
}

function player(clip, playing) {
  if (playing.changed) return element("p", {class: "why"}, playing.changed);
  const encoded = playing.what === "encoded";
  const span = encoded ? "" : `#t=${clip.start.toFixed(2)},${clip.end.toFixed(2)}`;
  const video = element("video", {
    controls: true, muted: true, preload: "metadata", "aria-label": "the clip", src: `/clips/${clip.clip_id}/${playing.what}.video${span}`,
  });
  const note = element("p", {class: "note"}, encoded ? `the encoded clip${clip.pace > 1 ? `, ${clip.pace.toFixed(2)} times as fast as it was filmed` : ""}` : `the source, ${clip.codec || "codec unknown"}`);
  video.addEventListener("error", () => {
    note.className = "why";
    note.textContent = `this browser cannot play it (${clip.codec || "codec unknown"}), or the file is not there any more; `
      + "`longtake export` encodes kept clips as H.264, which every browser plays";
  });
  return element("div", {}, video, note);
}

