// Elements, numbers in words, and requests to the server. A text is put into the page as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function tell(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

export const count = (n) => n.toLocaleString("en");
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;
export const digits = (x) => (x === null || x === undefined ? "–" : typeof x === "number" ? String(Number(x.toPrecision(4))) : x);
export const percent = (x) => (x === null || x === undefined ? "–" : `${(100 * x).toFixed(0)} %`);

export function lasting(seconds) {
  if (seconds < 60) return `${digits(Number(seconds.toFixed(1)))} s`;
  if (seconds < 3600) return `${digits(Number((seconds / 60).toFixed(1)))} min`;
  return `${count(Number((seconds / 3600).toPrecision(3)))} h`;
}

export const rangeText = (range) => (range === null || range === undefined ? "off"
  : range[0] === null ? `≤ ${digits(range[1])}` : range[1] === null ? `≥ ${digits(range[0])}` : `${digits(range[0])} to ${digits(range[1])}`);

export async function ask(path, question) {
  const answer = await fetch(path, question === undefined ? {} : {
    method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(question),
  });
  if (!answer.ok) throw Object.assign(new Error(await answer.text()), {status: answer.status});
  return answer.json();
}

// Show an error, or remove it (null). of: the action that failed; the success of one action does not remove the error of another.
export function fault(error, of = "asking") {
  if (!error && $("fault").dataset.of !== of) return;
  $("fault").textContent = error ? String(error.message || error) : "";
  $("fault").hidden = !error;
  $("fault").dataset.of = of;
}

export const guarded = (act) => async (...given) => {
  try {
    await act(...given);
  } catch (error) {
    fault(error);
  }
};

// Run an action once at a time. Of the calls that arrive while it runs, only the newest is made afterwards.
export function newest(act) {
  let busy = false;
  let next = null;
  return async (...given) => {
    if (busy) {
      next = given;
      return;
    }
    busy = true;
    try {
      let now = given;
      do {
        next = null;
        await act(...now);
        now = next;
      } while (now);
    } catch (error) {
      fault(error);
    } finally {
      busy = false;
      next = null;
    }
  };
}
