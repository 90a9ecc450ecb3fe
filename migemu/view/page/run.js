// A run as the browser plays it: chunks of events as typed arrays, and the states of all pages at the moment shown.
//
// `seek(t)` and `step(n)` go to a moment; where its chunk has not been fetched yet they begin to fetch it, and the
// picture stays as it is until then. Going on within a chunk applies its events; going back begins at its snapshot.

const NO_PAGE = 0xffffffff;
const PART = 0xff;
const CHUNKS_KEPT = 24;
const SIZES = { "<f8": [8, Float64Array], "<u4": [4, Uint32Array], "<i2": [2, Int16Array], u1: [1, Uint8Array] };

export const get = async (path, kind = "json") => {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  return answer[kind]();
};

/** The columns of a block of bytes, each as a typed array. */
export const columns = (buffer, fields) => {
  const width = fields.reduce((sum, [, type]) => sum + SIZES[type][0], 0);
  const count = Math.floor(buffer.byteLength / width);
  const found = { length: count };
  let at = 0;
  for (const [name, type] of fields) {
    const [size, Kind] = SIZES[type];
    found[name] = new Kind(buffer, at, count);
    at += size * count;
  }
  return found;
};

/** How many of the ascending `values` are at most `value`. */
export const countUpTo = (values, value) => {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= value) low = middle + 1; else high = middle;
  }
  return low;
};

export class Run {
  constructor(number, said, shared) {
    this.number = number;
    this.shared = shared;
    this.kinds = Object.fromEntries(shared.kinds.map((name, place) => [name, place]));
    this.tables = shared.tables.map((table) => Uint8Array.from(table));
    this.begin(said);
  }

  /** What is known of it, from the beginning or anew. */
  begin(said) {
    Object.assign(this, {
      name: said.name, kind: said.kind, generation: said.generation, pages: said.pages, pageBytes: said.page_bytes,
      missing: said.missing, levels: said.levels, perPmd: said.levels.PMD, perPud: said.hugepage_pages,
    });
    this.states = new Uint8Array(this.pages);
    this.counts = new Float64Array(16);
    this.counts[0] = this.pages;
    this.dirty = new Uint8Array(this.pages / this.perPmd);
    this.allDirty = true;
    this.cache = new Map();
    this.fetched = 0; // how often something has come: the lanes are drawn again then
    this.chunk = -1;
    this.at = 0;
    this.t = said.first;
    this.chunks = [];
    this.collapses = columns(new ArrayBuffer(0), this.shared.collapse_fields);
    this.stalls = columns(new ArrayBuffer(0), this.shared.stall_fields);
    this.asleep = new Map();
    this.take(said);
  }

  /** News of a run that goes on. */
  take(said) {
    for (const name of ["events", "first", "last", "vcpus", "faults", "problem", "marks", "overview", "ended"]) this[name] = said[name];
    this.zero = said.zero ?? said.first;
    const known = said.chunk_count - said.chunks.length;
    this.chunks.length = Math.min(this.chunks.length, known);
    this.chunks.push(...said.chunks);
    if (said.collapse_count !== this.collapses.length) this.fetchColumns("collapses", this.shared.collapse_fields);
    if (said.stall_count !== this.stalls.length) this.fetchColumns("stalls", this.shared.stall_fields);
  }

  async fetchColumns(name, fields) {
    this[name] = columns(await get(`run/${this.number}/${name}`, "arrayBuffer"), fields);
    this.changed = true;
    this.fetched += 1;
  }

  /** The chunk of that number: at once if it is here, else null, and it is being fetched. */
  loaded(number, withState = false) {
    const about = this.chunks[number];
    if (!about) return null;
    let entry = this.cache.get(number);
    const stale = entry && entry.records < about.records;
    if (!entry) this.cache.set(number, entry = { records: -1, events: null, faults: null, state: null, busy: false, stateBusy: false });
    if ((entry.events === null || stale) && !entry.busy) this.fetchChunk(number, entry);
    if (withState && entry.state === null && !entry.stateBusy) this.fetchState(number, entry);
    this.cache.delete(number);
    this.cache.set(number, entry); // the latest asked for is the last to go
    while (this.cache.size > CHUNKS_KEPT) this.cache.delete(this.cache.keys().next().value);
    return entry.events && (!withState || entry.state) ? entry : null;
  }

  async fetchChunk(number, entry) {
    entry.busy = true;
    try {
      const [events, faults] = await Promise.all(["events", "faults"].map((what) => get(`run/${this.number}/${what}/${number}`, "arrayBuffer")));
      entry.events = columns(events, this.shared.event_fields);
      entry.faults = columns(faults, this.shared.fault_fields);
      entry.records = entry.events.length;
      this.changed = true;
      this.fetched += 1;
    } finally { entry.busy = false; }
  }

  async fetchState(number, entry) {
    entry.stateBusy = true;
    try {
      entry.state = new Uint8Array(await get(`run/${this.number}/state/${number}`, "arrayBuffer"));
      this.changed = true;
    } finally { entry.stateBusy = false; }
  }

  /** The number of the chunk in which time `t` lies. */
  chunkAt(t) {
    let low = 0, high = this.chunks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.chunks[middle].began <= t) low = middle + 1; else high = middle;
    }
    return Math.max(0, low - 1);
  }

  /** Show the moment `t`, all its events included. Whether it is shown: false while something is being fetched. */
  seek(t) {
    if (!this.chunks.length) return true;
    const number = this.chunkAt(t);
    const ahead = number - this.chunk;
    if (ahead >= 0 && ahead <= 2 && this.chunk >= 0 && (ahead > 0 || t >= this.t)) { // go on from where it is
      while (this.chunk < number) {
        const here = this.loaded(this.chunk);
        if (!here || here.events.length < this.chunks[this.chunk].records || !this.loaded(this.chunk + 1)) return false;
        this.apply(here.events, here.events.length);
        this.chunk += 1;
        this.at = 0;
      }
    } else if (!this.restore(number)) return false;
    const here = this.loaded(number);
    if (!here) return false;
    this.loaded(number + 1);
    this.apply(here.events, countUpTo(here.events.t, t));
    this.t = t;
    return true;
  }

  /** Show record `at` of chunk `number` as the last one that happened. */
  seekRecord(number, at) {
    if (number === this.chunk && at >= this.at) {
      const here = this.loaded(number);
      if (!here) return false;
      this.apply(here.events, at);
    } else {
      if (!this.restore(number)) return false;
      this.apply(this.loaded(number).events, at);
    }
    this.t = at > 0 ? this.loaded(number).events.t[at - 1] : this.chunks[number].began;
    return true;
  }

  /** The beginning of a chunk. */
  restore(number) {
    const here = this.loaded(number, true);
    if (!here) return false;
    this.states.set(here.state);
    this.counts.set(this.chunks[number].counts);
    this.asleep = new Map(this.chunks[number].asleep.map(([vcpu, page, since]) => [vcpu, { page, since }]));
    this.allDirty = true;
    this.chunk = number;
    this.at = 0;
    return true;
  }

  /** `n` events on, or back; the time of the last one that has happened then, or null while it is being fetched. */
  step(n) {
    let number = Math.max(0, this.chunk), at = this.at;
    while (n !== 0) {
      const here = this.loaded(number);
      if (!here) return null;
      if (n > 0) {
        if (at >= here.events.length) {
          if (number + 1 >= this.chunks.length) break;
          number += 1;
          at = 0;
          continue;
        }
        at += 1;
        while (at < here.events.length && here.events.kind[at] === PART) at += 1;
        n -= 1;
      } else {
        if (at === 0) {
          if (number === 0) break;
          if (!this.loaded(number - 1)) return null;
          number -= 1;
          at = this.loaded(number).events.length;
          continue;
        }
        at -= 1;
        while (at > 0 && here.events.kind[at] === PART) at -= 1;
        n += 1;
      }
    }
    return this.seekRecord(number, at) ? this.t : null;
  }

  /** Let records up to `end` of the current chunk happen; back to the beginning first, if that lies behind. */
  apply(events, end) {
    if (end < this.at && !this.restore(this.chunk)) return;
    const { states, counts, dirty, tables, perPmd, kinds } = this;
    const { first, count, table, kind } = events;
    for (let place = this.at; place < end; place += 1) {
      const becomes = table[place];
      if (becomes !== 0) {
        const from = first[place], until = from + count[place], change = tables[becomes];
        for (let page = from; page < until; page += 1) {
          const before = states[page], after = change[before];
          if (before !== after) {
            states[page] = after;
            counts[before] -= 1;
            counts[after] += 1;
          }
        }
        for (let block = (from / perPmd) | 0, last = ((until - 1) / perPmd) | 0; block <= last; block += 1) dirty[block] = 1;
      }
      const what = kind[place];
      if (what === kinds.faulted) this.asleep.set(events.vcpu[place], { page: first[place], since: events.t[place] });
      else if (what === kinds.woken || what === kinds.killed) this.asleep.delete(events.vcpu[place]);
    }
    this.at = Math.max(end, 0);
  }

  /** The event that happened last, as the numbers of its record; null before the first. */
  lastEvent() {
    const here = this.chunk >= 0 ? this.loaded(this.chunk) : null;
    if (!here || !this.at) return null;
    let at = this.at - 1;
    while (at > 0 && here.events.kind[at] === PART) at -= 1;
    const e = here.events;
    return {
      t: e.t[at], event: this.shared.kinds[e.kind[at]], first: e.first[at] === NO_PAGE ? null : e.first[at], count: e.count[at],
      vcpu: e.vcpu[at], level: this.shared.level_names[e.level[at]] ?? "", urgent: Boolean(e.flags[at] & 2), zero: Boolean(e.flags[at] & 4),
      node: e.flags[at] & 8 ? "source" : e.flags[at] & 16 ? "link" : "destination",
    };
  }

  /** Faults that are known and overlap [from, until], of the chunks that have been fetched. */
  *faultsWithin(from, until) {
    for (let number = this.chunkAt(from), last = Math.min(this.chunks.length - 1, this.chunkAt(until) + 1); number <= last; number += 1) {
      const faults = this.cache.get(number)?.faults ?? (number - this.chunkAt(from) < 6 ? this.loaded(number)?.faults : null);
      if (!faults) continue;
      for (let place = 0; place < faults.length; place += 1)
        if (faults.ended[place] >= from && faults.began[place] <= until) yield [faults, place];
    }
  }

  /** The beginning of the next fault after the moment shown (or before it); undefined if there is none, null: fetching. */
  nextFault(direction) {
    const t = this.t;
    for (let number = Math.max(0, this.chunk); number >= 0 && number < this.chunks.length; number += direction) {
      const here = this.loaded(number);
      if (!here) return null;
      const { kind, t: times } = here.events;
      const begin = number === this.chunk ? this.at + (direction > 0 ? 0 : -1) : direction > 0 ? 0 : kind.length - 1;
      for (let place = begin; place >= 0 && place < kind.length; place += direction)
        if (kind[place] === this.kinds.faulted && (direction > 0 || times[place] < t || place < this.at - 1)) return [number, place + 1];
    }
    return undefined;
  }

  /** The beginning of the next collapse after the moment shown, or of the last one before it. */
  nextCollapse(direction) {
    let best;
    for (const began of this.collapses.began)
      if (direction > 0 ? began > this.t && !(began >= best) : began < this.t && !(began <= best)) best = began;
    return best;
  }

  /** The collapses that are under way at the moment shown. */
  *collapsing() {
    const { began, ended, length: count } = this.collapses;
    for (let place = Math.max(0, countUpTo(began, this.t) - 64); place < count && began[place] <= this.t; place += 1)
      if (ended[place] > this.t) yield place;
  }

  /** Numbers of the bin of the overview that the moment shown lies in: bytes a second, faults, p50, p99. */
  figures() {
    const { step_ns: step, received, latency } = this.overview;
    const bin = (rows) => {
      const place = countUpTo(rows.map((row) => row[0]), this.t) - 1;
      return place >= 0 && this.t < rows[place][0] + step ? rows[place] : null;
    };
    const came = bin(received), slept = bin(latency);
    return { rate: came ? ((came[1] + came[2]) * 1e9) / step : 0, faults: slept ? slept[1] : 0, p50: slept?.[2], p99: slept?.[3] };
  }
}
