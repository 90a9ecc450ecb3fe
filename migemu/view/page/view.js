// The page: puts the pictures of one or two runs together, and plays them on one clock.

import { Details, element } from "./details.js";
import { Lanes } from "./lanes.js";
import { MemoryPicture } from "./memory.js";
import { Run, get } from "./run.js";
import { Timeline, bytes, time } from "./timeline.js";

const $ = (id) => document.getElementById(id);
const LIVE_EVERY_MS = 200;
/** After its end: the picture may be made anew, exact; and somebody is still looking. */
const OVER_EVERY_MS = 1500;
const NUMBERS_EVERY_MS = 150;
const SINGLE_EVENTS_PER_S = 6;
const WHOLE_RUN_S = 20;
/** CSS pixels that the lanes need to stand beside the picture of memory, and between the two. */
const BESIDE_MIN = 380;
const BESIDE_GAP = 16;
/** Natural logarithms of the speeds, in seconds of the run a second. */
const SLOWEST = Math.log(1e-7);
const FASTEST = Math.log(10);
const dark = matchMedia("(prefers-color-scheme: dark)");

/** The colours of the moment, for canvases: from the server's palette and the page's own style. */
const makeColours = (palette) => {
  const rgb = (text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
  const colours = { phases: palette.phases, names: palette.states, asleep: palette.asleep, running: palette.running };
  colours.words = (state) => `${palette.states[state & 7].words}${state & 8 ? ", written by the guest" : ""}`;
  colours.update = () => {
    const style = getComputedStyle(document.documentElement), own = (name) => style.getPropertyValue(name).trim();
    Object.assign(colours, { cursor: own("--cursor"), soft: own("--soft"), missing: own("--missing"), panel: own("--panel") });
    colours.rate = palette.states[3].colour;
    colours.veil = dark.matches ? "#13131770" : "#ffffff80";
    colours.halo = dark.matches ? "#131317cc" : "#ffffffcc";
    colours.table = dark.matches ? "#6b6b78" : "#a9a9b6";
    colours.css = Array.from({ length: 16 }, (_, state) => state & 8 ? palette.written : palette.states[state & 7].colour || colours.missing);
    colours.levels = [3, 4, 5, 6, 7].map((state) => palette.states[state].colour);
    const all = colours.css.map(rgb);
    colours.red = Float64Array.from(all, ([r]) => r);
    colours.green = Float64Array.from(all, ([, g]) => g);
    colours.blue = Float64Array.from(all, ([, , b]) => b);
    colours.packed = Uint32Array.from(all, ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0);
    colours.summed = Int32Array.from(all, ([r, g, b]) => r | (g << 10) | (b << 20));
    colours.stack = [[7], [6], [5], [4], [3], [2]].map((states) => [palette.states[states[0]].colour, [...states, states[0] | 8]]);
    colours.pattern = null;
  };
  colours.hatch = (context) => {
    if (!colours.pattern) {
      const tile = document.createElement("canvas");
      tile.width = tile.height = 6;
      const c = tile.getContext("2d");
      c.strokeStyle = dark.matches ? "#ffffffb0" : "#000000a0";
      c.lineWidth = 1.6;
      c.beginPath();
      for (const by of [-6, 0, 6]) { c.moveTo(by, 6); c.lineTo(by + 6, 0); }
      c.stroke();
      colours.pattern = context.createPattern(tile, "repeat");
    }
    return colours.pattern;
  };
  colours.update();
  return colours;
};

/** Everything that is shown of one run. */
class Panel {
  constructor(run, colours, page) {
    Object.assign(this, { run, colours, page });
    this.root = element("section", "", { class: "run", "aria-label": run.name });
    this.memory = new MemoryPicture(run, colours, (chosen) => this.choose(chosen));
    this.lanes = new Lanes(run, colours, (number) => this.details.showFault(number));
    this.details = new Details(run, colours, {
      go: (each) => page.goRecord(run, each.chunk, each.row + 1), say: page.say, closed: () => { this.memory.selected = null; },
      choosePage: (chosen) => this.choose(chosen),
    });
    const head = element("header"), kind = element("span", run.kind, { class: `kind ${run.kind}` });
    this.stage = element("span", "", { class: "soft stage" });
    head.append(element("h2", run.name), kind, this.stage);
    for (const line of [...run.missing, run.problem].filter(Boolean)) head.append(element("p", line, { class: "missing" }));
    const pictures = element("div", "", { class: "pictures" });
    this.caption = element("p", "", { class: "caption" });
    const guest = element("p", "", { class: "caption" });
    const keys = element("span", "", { class: "keys" });
    for (const [words, colour] of [["running", colours.running], ["asleep on a fault", colours.asleep], ["held up by a collapse", "hatched"]]) {
      const key = element("i", "", { class: `key ${colour === "hatched" ? colour : ""}` });
      key.style.background = colour;
      keys.append(key, `${words} `);
    }
    guest.append(element("span", "vCPUs"), keys);
    const left = element("div"), right = element("div", "", { class: "guest" });
    left.append(this.caption, this.memory.root);
    right.append(guest, this.lanes.root);
    pictures.append(left, right);
    Object.assign(this, { left, right, pictures });
    const side = element("div", "", { class: "side" });
    side.append(this.legend(), this.figures(), this.details.root);
    this.root.append(head, pictures, side);
    this.memory.canvas.addEventListener("keydown", (event) => this.walk(event));
  }

  legend() {
    const table = element("table", "", { class: "legend" }), body = element("tbody");
    table.append(element("caption", "4K pieces, at this moment"), body);
    this.cells = [];
    const own = new Set(Object.keys(this.run.levels));
    const levels = { 4: "CONT_PTE", 6: "CONT_PMD" };
    const add = (words, colour, states) => {
      const row = element("tr"), key = element("i", "", { class: "key" }), first = element("th", "", { scope: "row" });
      if (colour === "hatched") key.classList.add("hatched"); else key.style.background = colour || "var(--missing)";
      first.append(key, words);
      const number = element("td"), share = element("td");
      row.append(first, number, share);
      body.append(row);
      this.cells.push([number, share, states]);
    };
    for (const { state, words, colour } of this.colours.names)
      if (!levels[state] || own.has(levels[state])) add(words, colour, [state, state | 8]);
    add("written by the guest", this.colours.css[8], [8, 9, 10, 11, 12, 13, 14, 15]);
    add("stalled: under a collapse", "hatched", null);
    return table;
  }

  figures() {
    const root = element("div", "", { class: "figures" });
    this.numbers = {};
    for (const [name, words] of [["rate", "came per second"], ["asleep", "vCPUs asleep"], ["p50", "fault p50, now"], ["p99", "fault p99, now"]]) {
      const box = element("div"), value = element("b", "-");
      box.append(value, element("span", words));
      root.append(box);
      this.numbers[name] = value;
    }
    return root;
  }

  choose(chosen) {
    this.memory.selected = chosen;
    this.page.active = this.run;
    this.details.showPage(chosen);
  }

  walk(event) {
    if (event.key === "Enter" && this.memory.selected !== null) this.choose(this.memory.selected);
    else if (event.key.startsWith("Arrow")) {
      const to = this.memory.beside(event.key);
      if (to !== null && to !== undefined) {
        this.memory.selected = to;
        this.page.say(`page ${to}: ${this.colours.words(this.run.states[to])}`);
      }
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  layout(high) {
    const wide = this.pictures.clientWidth;
    this.memory.layout(wide, high);
    const rest = wide - this.memory.cssWide - BESIDE_GAP, beside = rest >= BESIDE_MIN;
    this.pictures.classList.toggle("beside", beside);
    this.left.style.width = beside ? `${this.memory.cssWide}px` : "";
    this.lanes.layout(beside ? rest : wide);
    this.lanes.root.style.maxHeight = beside ? `${Math.max(220, this.memory.cssHigh)}px` : "";
  }

  draw() {
    this.memory.draw();
    this.lanes.draw();
    this.details.draw();
  }

  tell() {
    const { run } = this;
    let collapsing = 0;
    for (const place of run.collapsing()) collapsing += run.collapses.pages[place];
    for (const [number, share, states] of this.cells) {
      const n = states ? states.reduce((sum, state) => sum + run.counts[state], 0) : collapsing;
      const words = n.toLocaleString("en"), part = `${((100 * n) / run.pages).toFixed(1)} %`;
      if (number.textContent !== words) { number.textContent = words; share.textContent = part; }
    }
    const { rate, p50, p99 } = run.figures();
    this.numbers.rate.textContent = bytes(rate);
    this.numbers.asleep.textContent = `${run.asleep.size} of ${run.vcpus}`;
    this.numbers.p50.textContent = p50 === undefined ? "-" : time(p50);
    this.numbers.p99.textContent = p99 === undefined ? "-" : time(p99);
    const stage = run.marks.filter(([t]) => t <= run.t).at(-1)?.[1] ?? "before the start";
    const number = (run.chunks[run.chunk]?.event ?? 0) + run.at;
    this.stage.textContent = `stage: ${stage}; event ${Math.min(number, run.events).toLocaleString("en")} of ${run.events.toLocaleString("en")}`;
    const last = run.lastEvent();
    const cells = this.memory.zoom >= 0 ? "a square is a 4K piece" : `a pixel is ${4 ** -this.memory.zoom} pieces`;
    this.caption.replaceChildren(element("span", `Memory: ${cells}, a block is ${this.run.perPmd === 512 ? "2M" : `${this.run.perPmd} pieces`}`), element("b", last ? this.told(last) : ""));
    const mapped = [3, 4, 5, 6, 7].reduce((sum, state) => sum + run.counts[state] + run.counts[state | 8], 0);
    this.memory.canvas.setAttribute("aria-label", `Memory of ${run.name}: ${((100 * mapped) / run.pages).toFixed(1)} % mapped. Arrows walk, Enter shows the history of a page.`);
    this.lanes.canvas.setAttribute("aria-label", `${run.asleep.size} of ${run.vcpus} vCPUs asleep`);
  }

  told(last) {
    const who = last.vcpu >= 0 ? `vCPU ${last.vcpu} ` : "";
    const where = last.first === null ? "" : last.count > 1 ? ` ${last.count} pages from ${last.first}` : ` page ${last.first}`;
    return `${who}${last.event}${last.urgent ? " (urgent)" : ""}${where}`;
  }
}

class Page {
  constructor(said) {
    this.runs = said.runs.map((each, number) => new Run(number, each, said));
    this.colours = makeColours(said.palette);
    this.say = (words) => { $("said").textContent = words; };
    this.active = this.runs[0];
    this.panels = this.runs.map((run) => new Panel(run, this.colours, this));
    $("runs").classList.toggle("two", this.runs.length > 1);
    $("runs").replaceChildren(...this.panels.map((panel) => panel.root));
    this.timeline = new Timeline($("bar"), this.runs, this.colours, (tau) => this.go(tau));
    document.title = `${this.runs.map((run) => run.name).join(", ")} - migemu view`;
    this.tau = Math.min(0, this.timeline.until);
    this.playing = false;
    this.single = 0;
    this.live = this.runs.some((run) => !run.ended);
    this.following = this.live;
    this.laneFactor = 1;
    this.frames = 0;
    this.toldAt = 0;
    this.exact = null; // a record that is gone to exactly, not by its time: [run, chunk, at]
    this.controls();
    this.relayout();
    this.setSpeed(Math.round(100 * (Math.log((this.timeline.until - this.timeline.from) / WHOLE_RUN_S / 1e9) - SLOWEST) / (FASTEST - SLOWEST)));
    requestAnimationFrame((now) => this.frame(now));
    if (this.live) this.watch();
    setInterval(() => { this.fps = this.frames; this.frames = 0; document.body.dataset.fps = this.fps; $("fps").textContent = `${this.fps} frames a second.`; }, 1000);
  }

  // --- time ---

  /** Show this moment of all runs. */
  go(tau, exact = null) {
    this.tau = Math.min(Math.max(tau, this.timeline.from), this.timeline.until);
    this.exact = exact;
    this.pending = true;
    if (!exact) this.following = this.live && this.tau >= this.timeline.until;
  }

  goRecord(run, chunk, at) {
    this.pause();
    this.active = run;
    this.go(this.tau, [run, chunk, at]);
  }

  step(n) {
    this.pause();
    this.steps = (this.steps ?? 0) + n;
  }

  jump(what, direction) {
    this.pause();
    this.wantedJump = [what, direction];
  }

  pause() { if (this.playing) this.toggle(); this.following = false; }

  toggle() {
    this.playing = !this.playing;
    this.exact = null;
    if (this.playing && this.tau >= this.timeline.until && !this.live) this.go(Math.min(0, this.timeline.from));
    $("play").textContent = this.playing ? "❚❚" : "▶";
    $("play").setAttribute("aria-label", this.playing ? "Pause" : "Play");
    this.say(this.playing ? "playing" : `paused at ${time(this.tau)}`);
  }

  /** 0 is one event at a time; 1 to 100 from `SLOWEST` to `FASTEST`, logarithmically. */
  setSpeed(value) {
    this.speed = value <= 0 ? 0 : Math.exp(SLOWEST + ((FASTEST - SLOWEST) * Math.min(100, value)) / 100);
    $("speed").value = value;
    const words = this.speed === 0 ? "single events" : `${time(this.speed * 1e9)} a second`;
    $("speed-told").textContent = words;
    $("speed").setAttribute("aria-valuetext", words);
  }

  frame(now) {
    const passed = Math.min(100, now - (this.last ?? now));
    this.last = now;
    this.frames += 1;
    this.move(passed);
    const look = this.look();
    if (look !== this.drawnLook) {
      this.drawnLook = look;
      for (const panel of this.panels) panel.draw();
      this.timeline.draw(this.tau);
    }
    if (now - this.toldAt > NUMBERS_EVERY_MS) { this.toldAt = now; this.tell(); }
    requestAnimationFrame((later) => this.frame(later));
  }

  /** All that the pictures depend on: while it stays the same nothing is drawn. */
  look() {
    const each = this.panels.map(({ run, memory, lanes, details }) =>
      `${run.chunk} ${run.at} ${run.t} ${run.allDirty} ${run.cache.size} ${run.fetched} ${run.last} ${memory.selected} ${lanes.width_ns} ${lanes.wide} ${details.asked}`);
    return `${this.tau} ${this.timeline.stale} ${this.timeline.wide} ${each}`;
  }

  move(passed) {
    if (this.playing && this.speed === 0) {
      this.single += (passed / 1000) * SINGLE_EVENTS_PER_S;
      if (this.single >= 1) { this.single = 0; this.steps = (this.steps ?? 0) + 1; }
    } else if (this.playing && !this.pending) {
      this.tau = Math.min(this.timeline.until, this.tau + passed * 1e6 * this.speed);
      this.pending = true;
      if (this.tau >= this.timeline.until && !this.live) this.toggle();
    } else if (this.following) { this.tau = this.timeline.until; this.pending = true; }
    if (this.wantedJump && !this.pending) this.tryJump();
    if (this.steps && !this.pending) {
      const t = this.active.step(this.steps);
      if (t !== null) this.stepped(t);
    }
    if (!this.pending && !this.runs.some((run) => run.changed)) return;
    for (const run of this.runs) run.changed = false;
    this.pending = !this.runs.map((run) => this.exact?.[0] === run ? this.showExact(run) : run.seek(run.zero + this.tau)).every(Boolean);
  }

  showExact(run) {
    const [, chunk, at] = this.exact;
    if (!run.seekRecord(chunk, at)) return false;
    this.tau = run.t - run.zero;
    return true;
  }

  stepped(t) {
    this.steps = 0;
    this.tau = t - this.active.zero;
    this.exact = [this.active, this.active.chunk, this.active.at];
    this.pending = this.runs.length > 1;
  }

  tryJump() {
    const [what, direction] = this.wantedJump;
    if (what === "collapse") {
      const t = this.active.nextCollapse(direction);
      this.wantedJump = null;
      if (t === undefined) this.say(`no ${direction > 0 ? "later" : "earlier"} collapse`);
      else this.go(t - this.active.zero);
      return;
    }
    const found = this.active.nextFault(direction);
    if (found === null) return; // being fetched
    this.wantedJump = null;
    if (found === undefined) this.say(`no ${direction > 0 ? "later" : "earlier"} fault`);
    else this.go(this.tau, [this.active, ...found]);
  }

  tell() {
    for (const panel of this.panels) panel.tell();
    $("clock").textContent = `${time(this.tau)} of ${time(this.timeline.until)}`;
    $("bar").setAttribute("aria-valuemin", Math.round(this.timeline.from / 1e3));
    $("bar").setAttribute("aria-valuemax", Math.round(this.timeline.until / 1e3));
    $("bar").setAttribute("aria-valuenow", Math.round(this.tau / 1e3));
    $("bar").setAttribute("aria-valuetext", `${time(this.tau)} since the guest runs at the destination`);
    $("follow").hidden = !this.live;
    $("follow").setAttribute("aria-pressed", String(this.following));
    document.body.dataset.shown = this.pending ? "" : `${this.runs.map((run) => `${run.chunk}:${run.at}`).join(" ")}`;
  }

  // --- a run that goes on ---

  async watch() {
    try {
      for (const run of this.runs) {
        const said = await get(`run/${run.number}/now?after=${Math.max(0, run.chunks.length - 1)}`);
        if (said.generation !== run.generation) {
          const all = await get("runs");
          run.begin(all.runs[run.number]);
          this.relayout();
        } else run.take(said);
        run.changed = true;
        this.timeline.stale = true;
        this.setLanes();
      }
      const goesOn = this.runs.some((run) => !run.ended);
      if (this.live && !goesOn) { this.following = false; this.pending = true; this.say("the run is over"); }
      this.live = goesOn;
      this.trouble("");
    } catch (error) {
      this.trouble(`migemu does not answer any more (${error.message}); what has come so far stays.`);
    }
    setTimeout(() => this.watch(), this.live ? LIVE_EVERY_MS : OVER_EVERY_MS);
  }

  trouble(words) { $("trouble").textContent = words; $("trouble").hidden = !words; }

  // --- the page ---

  setLanes() {
    const run = this.active, faults = Math.max(1, run.faults), span = Math.max(1, run.last - run.zero);
    const wide = Math.min(span, Math.max(span / 400, (span / faults) * Math.max(1, run.vcpus) * 6)) * this.laneFactor;
    for (const panel of this.panels) panel.lanes.width_ns = Math.max(1000, wide);
  }

  relayout() {
    const phone = window.innerWidth <= 700;
    this.timeline.layout($("bar").clientWidth);
    const high = Math.max(160, window.innerHeight * (phone ? 0.42 : 0.58) - 40);
    for (const panel of this.panels) panel.layout(high);
    this.setLanes();
    this.pending = true;
  }

  controls() {
    const on = (id, act) => $(id).addEventListener("click", act);
    on("play", () => this.toggle());
    on("first", () => this.go(this.timeline.from));
    on("last", () => this.go(this.timeline.until));
    on("back", () => this.step(-1));
    on("on", () => this.step(1));
    on("fault", () => this.jump("fault", 1));
    on("collapse", () => this.jump("collapse", 1));
    on("follow", () => { this.following = !this.following; });
    on("help-button", () => this.help());
    $("speed").addEventListener("input", () => this.setSpeed(Number($("speed").value)));
    $("speed").addEventListener("keydown", (event) => { if (event.key.startsWith("Arrow")) event.stopPropagation(); });
    document.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("resize", () => this.relayout());
    dark.addEventListener("change", () => { this.colours.update(); for (const panel of this.panels) panel.memory.paint(); this.timeline.stale = true; });
  }

  help() {
    $("help").hidden = !$("help").hidden;
    $("help-button").setAttribute("aria-expanded", String(!$("help").hidden));
    this.relayout();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const span = this.timeline.until - this.timeline.from;
    const acts = {
      " ": () => this.toggle(), ArrowLeft: () => this.step(event.shiftKey ? -100 : -1), ArrowRight: () => this.step(event.shiftKey ? 100 : 1),
      f: () => this.jump("fault", 1), F: () => this.jump("fault", -1), c: () => this.jump("collapse", 1), C: () => this.jump("collapse", -1),
      "+": () => this.setSpeed(Math.min(100, Number($("speed").value) + 4)), "=": () => this.setSpeed(Math.min(100, Number($("speed").value) + 4)),
      "-": () => this.setSpeed(Math.max(0, Number($("speed").value) - 4)),
      Home: () => this.go(this.timeline.from), End: () => this.go(this.timeline.until),
      PageUp: () => this.go(this.tau - span / 20), PageDown: () => this.go(this.tau + span / 20),
      "[": () => { this.laneFactor /= 2; this.setLanes(); }, "]": () => { this.laneFactor *= 2; this.setLanes(); },
      "?": () => this.help(), Escape: () => this.panels.forEach((panel) => { if (!panel.details.root.hidden) panel.details.close(); }),
    };
    const act = acts[event.key];
    if (!act || (event.key === " " && event.target instanceof HTMLButtonElement)) return;
    event.preventDefault();
    act();
  }
}

const begun = async () => {
  for (;;) {
    const said = await get("runs");
    if (said.runs.length) return said;
    $("waiting").hidden = false;
    await new Promise((done) => setTimeout(done, LIVE_EVERY_MS));
  }
};

try {
  window.page = new Page(await begun());
  $("waiting").hidden = true;
  document.body.dataset.ready = "1";
} catch (error) {
  $("trouble").textContent = `The run cannot be shown: ${error.message}`;
  $("trouble").hidden = false;
  throw error;
}
