// The guest as lanes: a row for each vCPU around the moment shown, what collapses hold above them.

import { countUpTo } from "./run.js";
import { time } from "./timeline.js";

const LEFT = 56; // CSS pixels for the names
const HEAD = 30;

export class Lanes {
  constructor(run, colours, chooseFault) {
    this.run = run;
    this.colours = colours;
    this.width_ns = 0;
    this.root = document.createElement("div");
    this.root.className = "lanes";
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.root.append(this.canvas);
    this.context = this.canvas.getContext("2d");
    this.canvas.addEventListener("click", (event) => {
      const found = this.faultAt(event.offsetX, event.offsetY);
      if (found !== null) chooseFault(found);
    });
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX, event.offsetY));
  }

  layout(width) {
    this.ratio = window.devicePixelRatio || 1;
    this.wide = Math.max(200, width - 2);
    this.lane = this.run.vcpus > 24 ? 9 : this.run.vcpus > 12 ? 12 : 18;
    this.high = HEAD + Math.max(1, this.run.vcpus) * this.lane + 4;
    this.drawnVcpus = this.run.vcpus;
    this.canvas.width = this.wide * this.ratio;
    this.canvas.height = this.high * this.ratio;
    this.canvas.style.width = `${this.wide}px`;
    this.canvas.style.height = `${this.high}px`;
  }

  get from() { return this.run.t - this.width_ns * 0.6; }
  x(t) { return LEFT + ((t - this.from) / this.width_ns) * (this.wide - LEFT); }
  y(vcpu) { return HEAD + vcpu * this.lane; }

  draw() {
    const { run, context: c, colours, lane, wide, high, ratio } = this;
    if (this.drawnVcpus !== run.vcpus) this.layout(this.wide + 2);
    const from = this.from, until = from + this.width_ns, now = run.t;
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, wide, high);
    c.font = "11px system-ui, sans-serif";
    c.textBaseline = "middle";
    const begin = Math.max(LEFT, this.x(run.zero)), end = Math.min(wide, this.x(Math.min(now, run.last)));
    c.fillStyle = colours.running;
    if (end > begin) for (let vcpu = 0; vcpu < run.vcpus; vcpu += 1) c.fillRect(begin, this.y(vcpu) + lane / 2 - 1, end - begin, 2);
    c.save();
    c.beginPath();
    c.rect(LEFT, 0, wide - LEFT, high);
    c.clip();
    this.collapses(c, from, until);
    this.stalls(c, from, until);
    this.sleeps(c, from, until, now);
    c.fillStyle = colours.veil; // what has not happened yet
    if (this.x(now) < wide) c.fillRect(this.x(now), HEAD, wide - this.x(now), high - HEAD);
    c.fillStyle = colours.cursor;
    c.fillRect(this.x(now) - 0.75, 0, 1.5, high);
    c.restore();
    c.fillStyle = colours.soft;
    c.fillText("collapses", 2, 9);
    c.fillText(`${time(this.width_ns)}`, 2, 22);
    const every = lane < 11 ? 4 : 1;
    for (let vcpu = 0; vcpu < run.vcpus; vcpu += every) c.fillText(`vCPU ${vcpu}`, 2, this.y(vcpu) + lane / 2);
    if (!run.vcpus) c.fillText("no guest", LEFT + 6, HEAD + lane / 2);
    this.ticks(c, from);
  }

  ticks(c, from) {
    const step = 10 ** Math.floor(Math.log10(this.width_ns / 3));
    c.fillStyle = this.colours.soft;
    for (let t = Math.ceil((from - this.run.zero) / step) * step; t <= from - this.run.zero + this.width_ns; t += step) {
      const x = this.x(t + this.run.zero);
      if (x < LEFT) continue;
      c.fillRect(x, HEAD - 4, 1, 4);
      if (x < this.wide - 40) c.fillText(time(t), x + 3, HEAD - 7);
    }
  }

  collapses(c, from, until) {
    const { began, ended, level, length: count } = this.run.collapses;
    for (let place = Math.max(0, countUpTo(began, from) - 2); place < count && began[place] <= until; place += 1) {
      if (ended[place] < from) continue;
      const x = this.x(began[place]), wide = Math.max(1.5, this.x(ended[place]) - x);
      c.fillStyle = this.colours.levels[level[place]];
      c.fillRect(x, 3, wide, 11);
    }
  }

  stalls(c, from, until) {
    const { began, ended, vcpu, length: count } = this.run.stalls;
    c.fillStyle = this.colours.hatch(c);
    for (let place = Math.max(0, countUpTo(ended, from) - 256); place < count; place += 1) {
      if (began[place] > until && place > 256) break;
      if (ended[place] >= from && began[place] <= until)
        c.fillRect(this.x(began[place]), this.y(vcpu[place]) + 1, Math.max(1, this.x(ended[place]) - this.x(began[place])), this.lane - 2);
    }
  }

  sleeps(c, from, until, now) {
    c.fillStyle = this.colours.asleep;
    for (const [faults, place] of this.run.faultsWithin(from, until)) {
      const x = this.x(faults.began[place]);
      c.fillRect(x, this.y(faults.vcpu[place]) + 2, Math.max(1, this.x(faults.ended[place]) - x), this.lane - 4);
    }
    for (const [vcpu, { since }] of this.run.asleep) {
      const x = Math.max(LEFT, this.x(since));
      c.fillRect(x, this.y(vcpu) + 2, Math.max(2, this.x(now) - x), this.lane - 4);
    }
  }

  /** The number of the fault under a point, or beside it; null if there is none. */
  faultAt(x, y) {
    const vcpu = Math.floor((y - HEAD) / this.lane);
    const t = this.from + ((x - LEFT) / (this.wide - LEFT)) * this.width_ns, near = (this.width_ns / this.wide) * 6;
    let best = null, least = near;
    for (const [faults, place] of this.run.faultsWithin(t - near, t + near)) {
      if (faults.vcpu[place] !== vcpu) continue;
      const away = Math.max(0, faults.began[place] - t, t - faults.ended[place]);
      if (away <= least) [best, least] = [faults.number[place], away];
    }
    return best;
  }

  point(x, y) {
    const found = this.faultAt(x, y);
    this.canvas.title = found === null ? "" : `fault ${found}: click for where its time went`;
  }
}
