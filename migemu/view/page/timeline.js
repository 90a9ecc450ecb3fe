// The bar of time: what maps the memory, how fast pieces come and how long faults take, over the whole run; and where
// we are. A row of pictures for each run, on one axis of time since its guest runs at the destination.

const ROW = 104;
const ROW_OF_TWO = 76;
const AXIS = 16;
/** Share of a row that what maps the memory takes; rates and latencies stand below it. */
const SHARES = 0.52;

/** A length of time for people. */
export const time = (ns) => {
  const most = Math.abs(ns);
  const [unit, size] = most >= 1e9 ? ["s", 1e9] : most >= 1e6 ? ["ms", 1e6] : most >= 1e3 ? ["us", 1e3] : ["ns", 1];
  const value = ns / size;
  return `${Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(unit === "ns" ? 0 : 2)} ${unit}`;
};

export const bytes = (n) => {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["KB", 1e3]]) if (n >= size) return `${(n / size).toFixed(n >= 100 * size ? 0 : 1)} ${unit}`;
  return `${Math.round(n)} B`;
};

export class Timeline {
  constructor(root, runs, colours, go) {
    this.root = root;
    this.runs = runs;
    this.colours = colours;
    this.canvas = root.querySelector("canvas");
    this.context = this.canvas.getContext("2d");
    this.drawn = document.createElement("canvas");
    const to = (event) => go(this.at(event.clientX - this.canvas.getBoundingClientRect().left));
    root.addEventListener("pointerdown", (event) => { root.setPointerCapture(event.pointerId); to(event); });
    root.addEventListener("pointermove", (event) => { if (event.buttons) to(event); });
  }

  /** The span of time that all runs fit, in ns since each one's zero. */
  get from() { return Math.min(...this.runs.map((run) => Math.min(0, run.first - run.zero))); }
  get until() { return Math.max(...this.runs.map((run) => run.last - run.zero), 1); }

  x(t) { return ((t - this.from) / (this.until - this.from)) * this.wide; }
  at(x) { return this.from + (Math.min(Math.max(0, x), this.wide) / this.wide) * (this.until - this.from); }

  layout(width) {
    this.ratio = window.devicePixelRatio || 1;
    this.wide = Math.max(100, Math.floor(width));
    this.row = this.runs.length > 1 ? ROW_OF_TWO : ROW;
    this.high = this.runs.length * this.row + AXIS;
    for (const canvas of [this.canvas, this.drawn]) {
      canvas.width = this.wide * this.ratio;
      canvas.height = this.high * this.ratio;
    }
    this.canvas.style.width = `${this.wide}px`;
    this.canvas.style.height = `${this.high}px`;
    this.stale = true;
  }

  draw(tau) {
    if (this.stale) this.background();
    const { context: c, ratio } = this;
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, this.canvas.width, this.canvas.height);
    c.drawImage(this.drawn, 0, 0);
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    const x = this.x(tau);
    c.fillStyle = this.colours.veil;
    c.fillRect(x, 0, this.wide - x, this.high - AXIS);
    c.fillStyle = this.colours.cursor;
    c.fillRect(x - 1, 0, 2, this.high - AXIS + 3);
    c.beginPath();
    c.arc(x, this.high - AXIS + 4, 4.5, 0, 2 * Math.PI);
    c.fill();
  }

  background() {
    this.stale = false;
    const c = this.drawn.getContext("2d");
    c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    c.clearRect(0, 0, this.wide, this.high);
    this.runs.forEach((run, place) => {
      c.save();
      c.translate(0, place * this.row);
      const shares = Math.round((this.row - 4) * SHARES);
      this.shares(c, run, shares);
      this.marks(c, run, shares, place);
      c.translate(0, shares + 3);
      this.rates(c, run, this.row - shares - 6);
      c.restore();
    });
    this.axis(c);
  }

  shares(c, run, high) {
    const rows = run.overview.shares ?? [];
    c.fillStyle = this.colours.missing;
    c.fillRect(0, 0, this.wide, high);
    const groups = this.colours.stack; // [colour, states] from the ground up
    let below = rows.map(() => 0);
    for (const [colour, states] of groups) {
      const above = rows.map((row, place) => below[place] + states.reduce((sum, state) => sum + row[1 + state], 0));
      c.beginPath();
      rows.forEach(([t], place) => c.lineTo(this.x(t - run.zero), high - (above[place] / run.pages) * high));
      for (let place = rows.length - 1; place >= 0; place -= 1) c.lineTo(this.x(rows[place][0] - run.zero), high - (below[place] / run.pages) * high);
      c.closePath();
      c.fillStyle = colour;
      c.fill();
      below = above;
    }
  }

  rates(c, run, high) {
    const { received = [], latency = [], step_ns: step } = run.overview;
    c.fillStyle = this.colours.panel;
    c.fillRect(0, 0, this.wide, high);
    const most = Math.max(1, ...received.map((row) => row[1] + row[2]));
    const x = (row) => this.x(row[0] + step / 2 - run.zero);
    c.beginPath();
    received.forEach((row, place) => { if (!place) c.lineTo(x(row), high); c.lineTo(x(row), high - ((row[1] + row[2]) / most) * (high - 13)); });
    if (received.length) c.lineTo(x(received.at(-1)), high);
    c.fillStyle = this.colours.rate;
    c.fill();
    const all = latency.map((row) => row[3]).filter((value) => value > 0);
    const low = Math.log(Math.min(...all) * 0.8), top = Math.log(Math.max(...all) * 1.1);
    c.fillStyle = this.colours.asleep;
    for (const row of latency) c.fillRect(x(row) - 1, high - 2 - ((Math.log(Math.max(1, row[3])) - low) / (top - low)) * (high - 14), 2.4, 2.4);
    c.font = "10px system-ui, sans-serif";
    c.fillStyle = this.colours.soft;
    const said = all.length ? `fault p99, ${time(Math.min(...all))} to ${time(Math.max(...all))}` : "no faults";
    c.fillText(`bytes that came, up to ${bytes((most * 1e9) / (step || 1e9))}/s`, 16, 10);
    const second = 28 + c.measureText("bytes that came, up to 999.9 MB/s  ").width;
    c.fillText(said, second, 10);
    c.fillStyle = this.colours.rate;
    c.fillRect(4, 3, 8, 8);
    c.fillStyle = this.colours.asleep;
    c.fillRect(second - 8, 5, 4, 4);
  }

  marks(c, run, high, place) {
    c.font = "10px system-ui, sans-serif";
    const title = this.runs.length > 1 ? `${place + 1}: ${run.name}, what maps the memory` : "what maps the memory";
    c.fillStyle = this.colours.halo;
    c.fillRect(2, 1, c.measureText(title).width + 6, 12);
    c.fillStyle = this.colours.cursor;
    c.fillText(title, 5, 10);
    let free = c.measureText(title).width + 12;
    for (const [t, words] of run.marks) {
      const x = this.x(t - run.zero);
      if (x < -1 || words === "run") continue;
      c.fillStyle = words.includes(" lost ") ? this.colours.asleep : this.colours.cursor;
      c.fillRect(x, 0, 1, high);
      const wide = c.measureText(words).width + 8;
      const left = x + wide > this.wide ? x - wide : x + 3;
      if (left < free || left < 0) continue;
      c.fillStyle = this.colours.halo;
      c.fillRect(left - 1, 1, wide - 4, 12);
      c.fillStyle = this.colours.cursor;
      c.fillText(words, left + 1, 10);
      free = left + wide;
    }
  }

  axis(c) {
    const span = this.until - this.from;
    const rough = span / Math.max(2, this.wide / 110), power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough) ?? power * 10;
    c.font = "10.5px system-ui, sans-serif";
    c.fillStyle = this.colours.soft;
    for (let t = Math.ceil(this.from / step) * step; t <= this.until; t += step) {
      const x = this.x(t);
      c.fillRect(x, this.high - AXIS, 1, 4);
      const words = t === 0 ? "0" : time(t);
      if (x < this.wide - c.measureText(words).width - 4) c.fillText(words, x + 3, this.high - 3);
    }
  }
}
