// What is shown of a page that was clicked (its place in the page table, its history) and of a fault (its phases).

import { get } from "./run.js";
import { bytes, time } from "./timeline.js";

export const element = (name, words = "", attributes = {}) => {
  const made = document.createElement(name);
  if (words !== "") made.textContent = words;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

const hex = (n) => `0x${n.toString(16)}`;

export class Details {
  constructor(run, colours, { go, say, closed, choosePage }) {
    Object.assign(this, { run, colours, go, say, closed, choosePage });
    this.root = element("section", "", { class: "details", "aria-label": `What was chosen in ${run.name}` });
    this.root.hidden = true;
    this.page = null;
    this.asked = 0;
  }

  close() {
    this.root.hidden = true;
    this.page = null;
    this.tree = null;
    this.asked += 1;
    this.closed();
  }

  begin(title) {
    this.tree = null;
    this.asked += 1;
    this.root.hidden = false;
    this.root.replaceChildren();
    const head = element("header"), close = element("button", "×", { type: "button", "aria-label": "Close", title: "Close (Esc)" });
    close.addEventListener("click", () => this.close());
    head.append(element("h3", title), close);
    this.root.append(head);
    return this.asked;
  }

  // --- a page ---

  async showPage(page) {
    const { run } = this;
    const asked = this.begin(`Page ${page.toLocaleString("en")}`);
    this.page = page;
    this.state = element("p");
    this.tree = element("canvas", "", { class: "tree", role: "img" });
    this.history = element("div", "reading its history...", { class: "scroll", tabindex: 0, "aria-label": "History" });
    const where = `byte ${hex(page * run.pageBytes)} of the memory, 4K piece ${page % run.perPmd} of its 2M`;
    this.root.append(this.state, element("p", where, { class: "soft" }), element("h3", "In the page table"), this.tree, element("h3", "All that happened to it"), this.history);
    this.draw();
    let said;
    try { said = await get(`run/${run.number}/page/${page}`); } catch (error) { said = { error }; }
    if (asked !== this.asked) return;
    if (said.error) { this.history.textContent = `it cannot be read: ${said.error.message}`; return; }
    this.rows = said.events;
    const more = said.count > said.events.length ? `; the last ${said.events.length} of ${said.count}` : "";
    this.history.replaceChildren(this.table(said.events, `${said.count} events${more}`));
    this.say(`page ${page}, ${this.colours.words(run.states[page])}, ${said.count} events`);
    this.drawn = undefined;
  }

  table(events, caption) {
    const table = element("table", "", { class: "history" });
    table.append(element("caption", caption, { class: "soft" }));
    const head = element("thead"), row = element("tr");
    for (const words of ["time", "event", ""]) row.append(element("th", words, { scope: "col" }));
    head.append(row);
    const body = element("tbody");
    for (const each of events) {
      const line = element("tr"), when = element("td"), jump = element("button", time(each.t - this.run.zero), { type: "button", title: "Go there" });
      jump.addEventListener("click", () => this.go(each));
      when.append(jump);
      line.append(when, element("td", each.event), element("td", this.words(each)));
      line.dataset.number = each.number;
      line.dataset.chunk = each.chunk;
      line.dataset.row = each.row;
      body.append(line);
    }
    table.append(head, body);
    return table;
  }

  words(each) {
    const told = [];
    if (each.node === "source") told.push("at the source");
    if (each.event === "carried") told.push(`left the link (${each.detail ?? "?"})`);
    if (each.count > 1) told.push(`${each.count} pages from ${each.first}`);
    if (each.level && each.level !== "PTE") told.push(each.level);
    if (each.vcpu !== undefined) told.push(`vCPU ${each.vcpu}`);
    if (each.write) told.push("write");
    if (each.urgent) told.push("urgent");
    if (each.zero) told.push("zero, without payload");
    else if (each.detail && each.event !== "carried") told.push(each.detail);
    if (each.wire) told.push(`waited ${time(each.wire.started - each.wire.enqueued)}, ${bytes(each.wire.frame_bytes)}`);
    return told.join(", ");
  }

  // --- a fault ---

  async showFault(number) {
    const { run } = this;
    const asked = this.begin(`Fault ${number}`);
    this.page = null;
    let said;
    try { said = await get(`run/${run.number}/fault/${number}`); } catch (error) {
      if (asked === this.asked) this.root.append(element("p", `it cannot be read: ${error.message}`));
      return;
    }
    if (asked !== this.asked) return;
    const latency = said.ended - said.began;
    const about = element("p"), to = element("button", `page ${said.page.toLocaleString("en")}`, { type: "button" });
    to.addEventListener("click", () => this.choosePage(said.page));
    about.append(`vCPU ${said.vcpu} slept ${time(latency)} on `, to, `: ${said.cause}.`);
    const bar = element("div", "", { class: "phases", role: "img", "aria-label": "Phases of the latency" });
    const table = element("table"), body = element("tbody");
    table.append(element("caption", "Where its time went"), body);
    said.phases.forEach(([name, length], place) => {
      const part = element("i", "", { title: `${name}: ${time(length)}` });
      part.style.flex = `${length} 0 0`;
      part.style.background = this.colours.phases[place];
      if (length) bar.append(part);
      const row = element("tr"), key = element("i", "", { class: "key" }), first = element("th", "", { scope: "row" });
      key.style.background = this.colours.phases[place];
      first.append(key, name);
      row.append(first, element("td", time(length)), element("td", `${((100 * length) / latency || 0).toFixed(1)} %`));
      body.append(row);
    });
    this.root.append(about, bar, table, ...this.ahead(said), element("h3", "Meanwhile, to this page"));
    const scroll = element("div", "", { class: "scroll", tabindex: 0, "aria-label": "Events about its page" });
    scroll.append(this.table(said.events, `${said.events.length} events`));
    this.root.append(scroll);
    this.say(`fault ${number} of vCPU ${said.vcpu}: ${time(latency)}, ${said.cause}`);
  }

  ahead(said) {
    const total = said.main_ahead + said.preempt_ahead;
    const words = total
      ? `${bytes(said.main_ahead)} of the main channel and ${bytes(said.preempt_ahead)} of the preempt channel.`
      : this.run.kind === "measured" ? "Not known: in a measured run nobody sees the wire." : "Nothing.";
    const made = [element("h3", "In front of it at the source"), element("p", words)];
    if (!said.ahead.length) return made;
    const scroll = element("div", "", { class: "scroll", tabindex: 0, "aria-label": "Frames in front" });
    const table = element("table", "", { class: "history" }), body = element("tbody");
    table.append(element("caption", `${said.ahead.length} frames`, { class: "soft" }), body);
    for (const each of said.ahead) {
      const row = element("tr");
      row.append(element("td", each.detail), element("td", `${each.count} page${each.count > 1 ? "s" : ""} from ${each.first}`),
        element("td", `${bytes(each.wire.frame_bytes)}, on the wire ${time(each.wire.departed - each.wire.started)}`));
      body.append(row);
    }
    scroll.append(table);
    return [...made, scroll];
  }

  // --- what follows the moment shown ---

  draw() {
    if (this.root.hidden) return;
    if (this.tree && this.page !== null) this.drawTree();
    const key = `${this.run.chunk}:${this.run.at}`;
    if (key === this.drawn) return;
    this.drawn = key;
    let latest = null;
    for (const row of this.root.querySelectorAll("tr[data-number]")) {
      row.classList.remove("now");
      const chunk = Number(row.dataset.chunk);
      if (chunk < this.run.chunk || (chunk === this.run.chunk && Number(row.dataset.row) < this.run.at)) latest = row;
    }
    latest?.classList.add("now");
  }

  /** The entries on the way to the page: one of 1G or a table of 2M entries, and there one or a table of 4K entries. */
  drawTree() {
    const { run, page, tree, colours } = this;
    const ratio = window.devicePixelRatio || 1, wide = Math.max(240, this.root.clientWidth - 24), high = 214;
    if (tree.width !== Math.round(wide * ratio)) {
      tree.width = Math.round(wide * ratio);
      tree.height = high * ratio;
      tree.style.width = `${wide}px`;
      tree.style.height = `${high}px`;
    }
    const state = run.states[page], level = state & 7;
    this.state.textContent = `Now: ${colours.words(state)}.`;
    const c = tree.getContext("2d");
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, wide, high);
    c.font = "11px system-ui, sans-serif";
    const pud = Math.floor(page / run.perPud), pmd = Math.floor(page / run.perPmd), perPud = run.perPud / run.perPmd;
    const told = [];
    const label = (words, y) => { c.fillStyle = colours.cursor; c.fillText(words, 0, y); told.push(words); };
    // the entry of the hugetlb page
    const isLeaf = level === 7;
    label(`entry ${pud} of the 1G level: ${isLeaf ? "one leaf maps all of it" : "a table of 2M entries"}`, 10);
    const puds = run.pages / run.perPud, size = Math.min(14, wide / puds - 1);
    for (let each = 0; each < puds; each += 1) {
      c.fillStyle = (run.states[each * run.perPud] & 7) === 7 ? colours.css[7] : colours.table;
      c.fillRect(each * (size + 1), 15, size, 12);
      if (each === pud) { c.strokeStyle = colours.cursor; c.lineWidth = 2; c.strokeRect(each * (size + 1) - 1, 14, size + 2, 14); }
    }
    if (!isLeaf) {
      const whole = level === 5, first = pud * run.perPud;
      label(`entry ${pmd % perPud} of its table: ${whole ? "one leaf maps the 2M" : "a table of 4K entries, or none yet"}`, 46);
      const across = Math.min(perPud, 128), cell = wide / across;
      for (let each = 0; each < perPud; each += 1) {
        const at = first + each * run.perPmd, here = run.states[at] & 7, end = run.states[at + run.perPmd - 1] & 7;
        c.fillStyle = here >= 5 && here === end ? colours.css[here] : this.anyMapped(at) ? colours.table : colours.missing;
        c.fillRect((each % across) * cell, 51 + Math.floor(each / across) * 9, Math.max(1, cell - 0.7), 8);
      }
      const mine = pmd % perPud;
      c.strokeStyle = colours.cursor;
      c.lineWidth = 2;
      c.strokeRect((mine % across) * cell - 1, 50 + Math.floor(mine / across) * 9, cell + 1.5, 10);
    }
    if (level < 5 || level === 6) {
      const first = pmd * run.perPmd;
      label(`entry ${page % run.perPmd} of its table: ${level >= 3 ? "a leaf" : "none"}`, 106);
      const across = Math.min(run.perPmd, 64), cell = wide / across, rows = Math.ceil(run.perPmd / across), tall = Math.min(12, 100 / rows);
      for (let each = 0; each < run.perPmd; each += 1) {
        c.fillStyle = colours.css[run.states[first + each] & 15];
        c.fillRect((each % across) * cell, 111 + Math.floor(each / across) * tall, Math.max(1, cell - 0.8), tall - 0.8);
      }
      const mine = page % run.perPmd;
      c.strokeStyle = colours.cursor;
      c.lineWidth = 2;
      c.strokeRect((mine % across) * cell - 1, 110 + Math.floor(mine / across) * tall, cell + 1.2, tall + 1.2);
    }
    tree.setAttribute("aria-label", told.join("; "));
  }

  anyMapped(first) {
    for (let at = first; at < first + this.run.perPmd; at += 1) if ((this.run.states[at] & 7) >= 3) return true;
    return false;
  }
}
