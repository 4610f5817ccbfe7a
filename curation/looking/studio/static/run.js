// The work that a run would have to do, and the progress of a run.

import {$, ask, count, element, guarded, lasting, plural} from "./dom.js";

const DOES = {scan: "films to read again", score: "clips to measure on stored frames", caption: "clips to caption", export: "clips to encode"};

export function costTable(found) {
  const some = found.filter((row) => row.rows);
  if (!some.length) return [element("p", {}, "Nothing has to be computed for these gates: a run only writes the datasets anew.")];
  const known = some.every((row) => row.cpu_seconds !== null);
  const sum = some.reduce((seconds, row) => seconds + (row.cpu_seconds ?? 0), 0);
  return [element("p", {}, "A run would compute at least: ", ...some.flatMap((row, i) => [i ? "; " : "", element("b", {}, count(row.rows)), ` ${DOES[row.stage]}`,
    row.cpu_seconds === null ? " (no run has measured the time)" : ` (${lasting(row.cpu_seconds)} of CPU)`]),
  `. ${known || sum ? `In all, these take some ${lasting(sum)} of CPU${known ? "" : " and the time that is not known"}, by the measure of earlier runs.` : ""}`)];
}

export class Running {
  // over() is called when a run has ended.
  constructor(over) {
    this.over = over;
    this.timer = 0;
    this.was = "none";
    $("stop").addEventListener("click", guarded(async () => this.draw(await ask("/api/stop", {}))));
  }

  async start(recipe) {
    this.was = "running";
    this.draw(await ask("/api/run", {recipe}));
    this.watch();
  }

  async watch() {
    clearTimeout(this.timer);
    try {
      this.draw(await ask("/api/run"));
    } catch {
      // The server does not answer at the moment: the timer below asks again.
    }
    if (this.was === "running") this.timer = setTimeout(() => this.watch(), 1000);
  }

  draw(found) {
    const ended = this.was === "running" && found.state !== "running" && found.state !== "none";
    this.was = found.state;
    $("run").disabled = found.state === "running";
    $("stop").hidden = found.state !== "running";
    if (found.state === "none") return;
    const stages = (found.status?.stages ?? []).map((stage) => {
      const share = stage.rows ? stage.done / stage.rows : stage.state === "ended" ? 1 : 0;
      return element("li", {}, element("b", {}, stage.stage), ` ${stage.state}: ${count(stage.done)} of ${plural(stage.rows, "row")}`
        + `${stage.errors ? `, ${plural(stage.errors, "error")}` : ""}${stage.seconds_left ? `, some ${lasting(stage.seconds_left)} left` : ""}`,
      element("progress", {max: 1, value: share, "aria-label": `${stage.stage}, ${(100 * share).toFixed(0)} %`}));
    });
    const words = {running: "The run is at work", ended: "The run has ended", stopped: "The run was stopped; the same recipe goes on from there", failed: `The run failed (exit code ${found.code})`};
    $("progress").replaceChildren(
      element("p", {class: found.state === "failed" ? "why" : "", id: "run-state", "data-state": found.state, role: "status"}, `${words[found.state]}, ${lasting(found.seconds)}.`),
      element("p", {}, element("code", {}, found.command.join(" "))), element("ul", {class: "stages"}, ...stages),
      found.status?.limited_by ? element("p", {class: "note"}, `It is limited by ${found.status.limited_by.by}: ${found.status.limited_by.why}`) : "",
      element("details", {open: found.state === "failed"}, element("summary", {}, "the last lines that the run printed"), element("pre", {tabindex: 0}, found.log)));
    if (ended) this.over();
  }
}
