// Steps that can be undone and done again. They are kept for this window and for each workspace, so a reload does not lose them.

const MOST = 200;  // Steps that can be undone, which bounds what the browser stores.

export class Steps {
  // apply(step, back) makes a step, or undoes it (back true). changed() is called when the steps that can be undone have changed.
  constructor(name, apply, changed) {
    this.name = `longtake steps/${name}`;
    this.apply = apply;
    this.changed = changed;
    this.done = [];
    this.undone = [];
    try {
      const kept = JSON.parse(sessionStorage.getItem(this.name));
      if (kept) [this.done, this.undone] = [kept.done, kept.undone];
    } catch {
      // A browser without storage forgets the steps with the page.
    }
    changed();
  }

  add(step) {
    this.done.push(step);
    if (this.done.length > MOST) this.done.shift();
    this.undone = [];
    this.keep();
  }

  async undo() {
    const step = this.done.pop();
    if (!step) return;
    this.undone.push(step);
    this.keep();
    await this.apply(step, true);
  }

  async redo() {
    const step = this.undone.pop();
    if (!step) return;
    this.done.push(step);
    this.keep();
    await this.apply(step, false);
  }

  keep() {
    try {
      sessionStorage.setItem(this.name, JSON.stringify({done: this.done, undone: this.undone}));
    } catch {
      // A browser without storage forgets the steps with the page.
    }
    this.changed();
  }
}
