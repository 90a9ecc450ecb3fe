// Memory as a picture: each hugetlb page a square of its 4K pieces, each 2M of it a block, in reading order.
//
// Pixels are kept as one array; only blocks that have changed are computed and put on the canvas. What is under way (a
// collapse, who sleeps, the page that was chosen) lies on a canvas above.

const GAP = 10; // CSS pixels between hugetlb pages
const LABEL = 15;
const up = (log) => [1 << Math.ceil(log / 2), 1 << Math.floor(log / 2)];

export class MemoryPicture {
  constructor(run, colours, choose) {
    this.run = run;
    this.colours = colours;
    this.choose = choose;
    this.root = document.createElement("div");
    this.root.className = "memory";
    this.canvas = document.createElement("canvas");
    this.above = document.createElement("canvas");
    this.root.append(this.canvas, this.above);
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-roledescription", "map of memory");
    this.selected = null;
    this.hovered = null;
    this.canvas.addEventListener("click", (event) => {
      const page = this.pageAt(event.offsetX, event.offsetY);
      if (page !== null) this.choose(page);
    });
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX, event.offsetY));
    this.canvas.addEventListener("pointerleave", () => { this.hovered = null; this.canvas.title = ""; });
    this.measure();
  }

  measure() {
    const { perPmd, perPud } = this.run;
    const inner = Math.log2(perPmd), outer = Math.log2(perPud / perPmd);
    [this.blockWide, this.blockHigh] = up(inner);
    const [high, wide] = up(outer);
    this.blocksWide = wide;
    this.cellsWide = wide * this.blockWide;
    this.cellsHigh = high * this.blockHigh;
  }

  /** Lay the pictures out for a width and height in CSS pixels: as large as they fit, however many stand in a row. */
  layout(width, height) {
    const ratio = window.devicePixelRatio || 1;
    const count = this.run.pages / this.run.perPud, shape = this.cellsHigh / this.cellsWide;
    let best = 0;
    for (let across = 1; across <= count; across += 1) {
      const down = Math.ceil(count / across);
      const wide = Math.min((width + GAP) / across - GAP, ((height + GAP) / down - GAP - LABEL) / shape);
      if (wide > best) { best = wide; this.across = across; this.down = down; }
    }
    best = Math.max(4, Math.min(best, this.cellsWide * 64));
    if (best === 4) { this.across = Math.max(1, Math.floor((width + GAP) / (4 + GAP))); this.down = Math.ceil(count / this.across); }
    // Pixels are whole cells, or whole shares of one; the browser scales what is left.
    this.zoom = Math.min(6, Math.max(-8, Math.round(Math.log2((best * ratio) / this.cellsWide) + 0.15)));
    this.ratio = (this.cellsWide * 2 ** this.zoom) / best;
    this.wide = best;
    this.high = best * shape;
    this.cssWide = this.across * (this.wide + GAP) - GAP;
    this.cssHigh = this.down * (this.high + LABEL + GAP) - GAP;
    for (const canvas of [this.canvas, this.above]) {
      canvas.width = Math.max(1, Math.ceil(this.cssWide * this.ratio));
      canvas.height = Math.max(1, Math.ceil(this.cssHigh * this.ratio));
      canvas.style.width = `${canvas.width / this.ratio}px`;
      canvas.style.height = `${canvas.height / this.ratio}px`;
    }
    this.context = this.canvas.getContext("2d", { alpha: true });
    this.over = this.above.getContext("2d");
    this.image = new ImageData(this.canvas.width, this.canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.run.allDirty = true;
    this.labels();
  }

  /** The colours, anew: light or dark. */
  paint() {
    this.run.allDirty = true;
    this.labels();
  }

  origin(hugepage) {
    const column = hugepage % this.across, row = Math.floor(hugepage / this.across);
    return [Math.round(column * (this.wide + GAP) * this.ratio), Math.round((row * (this.high + LABEL + GAP) + LABEL) * this.ratio)];
  }

  labels() {
    const { context, ratio } = this;
    this.pixels.fill(0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.captions = [];
    if (this.wide < 34) return;
    context.font = `${11 * ratio}px system-ui, sans-serif`;
    context.fillStyle = this.colours.soft;
    for (let hugepage = 0; hugepage < this.run.pages / this.run.perPud; hugepage += 1) {
      const [x, y] = this.origin(hugepage);
      const long = this.run.perPud * this.run.pageBytes === 2 ** 30 ? `${hugepage}: 1G page` : `page ${hugepage}`;
      this.captions.push([this.wide < 90 ? String(hugepage) : long, x, y - 4 * ratio]);
    }
  }

  draw() {
    const { run } = this;
    const { dirty } = run;
    let changed = 0;
    if (run.allDirty) {
      for (let block = 0; block < dirty.length; block += 1) this.block(block);
      dirty.fill(0);
      run.allDirty = false;
      this.context.putImageData(this.image, 0, 0);
      this.context.font = `${11 * this.ratio}px system-ui, sans-serif`;
      this.context.fillStyle = this.colours.soft;
      for (const [text, x, y] of this.captions) this.context.fillText(text, x, y);
    } else {
      let left = Infinity, top = Infinity, right = 0, bottom = 0;
      const rects = [];
      for (let block = dirty.indexOf(1); block >= 0; block = dirty.indexOf(1, block + 1)) {
        const [x, y, wide, high] = this.block(block);
        dirty[block] = 0;
        changed += 1;
        rects.push([x, y, wide, high]);
        left = Math.min(left, x); top = Math.min(top, y);
        right = Math.max(right, x + wide); bottom = Math.max(bottom, y + high);
      }
      if (changed > 48) { // the labels lie between the pictures: they are put back
        this.context.putImageData(this.image, 0, 0, left, top, right - left, bottom - top);
        for (const [text, x, y] of this.captions) if (y > top - 2 && y < bottom + 20) this.context.fillText(text, x, y);
      } else for (const rect of rects) this.context.putImageData(this.image, 0, 0, ...rect);
    }
    this.overlay();
  }

  /** Compute the pixels of one 2M; where they are: [x, y, width, height]. */
  block(block) {
    const { run, pixels, blockWide, blockHigh, zoom } = this;
    const perPud = run.perPud / run.perPmd;
    const hugepage = (block / perPud) | 0, within = block - hugepage * perPud;
    const [left, top] = this.origin(hugepage);
    const x0 = (within % this.blocksWide) * blockWide, y0 = ((within / this.blocksWide) | 0) * blockHigh;
    const first = block * run.perPmd, stride = this.canvas.width;
    const { states } = run;
    const { packed, red, green, blue } = this.colours;
    if (zoom >= 0) {
      const size = 1 << zoom, edge = size >= 6 ? 1 : 0;
      let at = first;
      for (let row = 0; row < blockHigh; row += 1)
        for (let column = 0; column < blockWide; column += 1, at += 1) {
          const colour = packed[states[at] & 15], x = left + (x0 + column) * size;
          for (let y = top + (y0 + row) * size, end = y + size - edge; y < end; y += 1) pixels.fill(colour, y * stride + x, y * stride + x + size - edge);
        }
      return [left + x0 * size, top + y0 * size, blockWide * size, blockHigh * size];
    }
    if (zoom === -1 && blockWide > 1 && blockHigh > 1) return this.halved(first, left + x0 / 2, top + y0 / 2);
    const factor = 1 << -zoom, wide = Math.max(1, blockWide / factor), high = Math.max(1, blockHigh / factor);
    const stepX = blockWide / wide, stepY = blockHigh / high, share = 1 / (stepX * stepY);
    const px = left + Math.floor(x0 / factor), py = top + Math.floor(y0 / factor);
    for (let row = 0; row < high; row += 1)
      for (let column = 0; column < wide; column += 1) {
        let r = 0, g = 0, b = 0;
        const corner = first + row * stepY * blockWide + column * stepX;
        for (let dy = 0; dy < stepY; dy += 1)
          for (let dx = 0, at = corner + dy * blockWide; dx < stepX; dx += 1, at += 1) {
            const state = states[at] & 15;
            r += red[state]; g += green[state]; b += blue[state];
          }
        pixels[(py + row) * stride + px + column] = (255 << 24) | ((b * share) << 16) | ((g * share) << 8) | (r * share);
      }
    return [px, py, wide, high];
  }

  /** The pixels of one 2M, each the mean of four pieces: red, green and blue are summed as one number, 10 bits each. */
  halved(first, px, py) {
    const { blockWide, blockHigh, pixels } = this;
    const { states } = this.run, { summed } = this.colours;
    const stride = this.canvas.width, wide = blockWide / 2, high = blockHigh / 2;
    for (let row = 0; row < high; row += 1) {
      let at = first + 2 * row * blockWide, to = (py + row) * stride + px;
      for (const end = to + wide; to < end; to += 1, at += 2) {
        const below = at + blockWide;
        const sum = summed[states[at] & 15] + summed[states[at + 1] & 15] + summed[states[below] & 15] + summed[states[below + 1] & 15];
        pixels[to] = 0xff000000 | ((sum >> 6) & 0xff0000) | ((sum >> 4) & 0xff00) | ((sum >> 2) & 0xff);
      }
    }
    return [px, py, wide, high];
  }

  /** Where a page, or a span of pages, is on the canvas: [x, y, width, height] in device pixels. */
  place(first, pages) {
    const { run } = this;
    const scale = 2 ** this.zoom, hugepage = Math.floor(first / run.perPud);
    const [left, top] = this.origin(hugepage);
    if (pages >= run.perPud) return [left, top, this.wide * this.ratio, this.high * this.ratio];
    const block = Math.floor((first % run.perPud) / run.perPmd);
    let x = (block % this.blocksWide) * this.blockWide, y = Math.floor(block / this.blocksWide) * this.blockHigh;
    if (pages >= run.perPmd) return [left + x * scale, top + y * scale, this.blockWide * scale, this.blockHigh * scale];
    const within = first % run.perPmd;
    x += within % this.blockWide;
    y += Math.floor(within / this.blockWide);
    return [left + x * scale, top + y * scale, Math.max(1, scale), Math.max(1, scale)];
  }

  overlay() {
    const { over, run, ratio, colours } = this;
    over.clearRect(0, 0, this.above.width, this.above.height);
    for (const place of run.collapsing()) {
      const { first, pages } = run.collapses;
      over.fillStyle = colours.hatch(over);
      over.strokeStyle = colours.cursor;
      over.lineWidth = 1.5 * ratio;
      for (let at = first[place], end = at + pages[place]; at < end; at += run.perPmd) {
        const whole = pages[place] >= run.perPud;
        const rect = this.place(at, whole ? run.perPud : run.perPmd);
        over.fillRect(...rect);
        over.strokeRect(...rect);
        if (whole) break;
      }
    }
    over.strokeStyle = colours.asleep;
    over.lineWidth = 1.5 * ratio;
    for (const { page } of run.asleep.values()) {
      const [x, y, wide, high] = this.place(page, 1), size = 3 * ratio;
      over.strokeRect(x + wide / 2 - size, y + high / 2 - size, 2 * size, 2 * size);
    }
    if (this.selected !== null) {
      const [x, y, wide, high] = this.place(this.selected - (this.selected % run.perPmd), run.perPmd);
      over.strokeStyle = colours.cursor;
      over.lineWidth = 2 * ratio;
      over.strokeRect(x - ratio, y - ratio, wide + 2 * ratio, high + 2 * ratio);
      const [px, py, pw, ph] = this.place(this.selected, 1), size = Math.max(4 * ratio, pw / 2);
      over.beginPath();
      over.arc(px + pw / 2, py + ph / 2, size + 2 * ratio, 0, 2 * Math.PI);
      over.stroke();
    }
  }

  /** The page under a point in CSS pixels; null between the pictures. */
  pageAt(cssX, cssY) {
    const { run, ratio } = this;
    const column = Math.floor(cssX / (this.wide + GAP)), row = Math.floor(cssY / (this.high + LABEL + GAP));
    const hugepage = row * this.across + column;
    if (column >= this.across || hugepage >= run.pages / run.perPud) return null;
    const [left, top] = this.origin(hugepage), scale = 2 ** this.zoom;
    const x = Math.floor((cssX * ratio - left) / scale), y = Math.floor((cssY * ratio - top) / scale);
    if (x < 0 || y < 0 || x >= this.cellsWide || y >= this.cellsHigh) return null;
    const block = Math.floor(y / this.blockHigh) * this.blocksWide + Math.floor(x / this.blockWide);
    return hugepage * run.perPud + block * run.perPmd + (y % this.blockHigh) * this.blockWide + (x % this.blockWide);
  }

  point(x, y) {
    const page = this.pageAt(x, y);
    if (page === this.hovered) return;
    this.hovered = page;
    this.canvas.title = page === null ? "" : `page ${page}: ${this.colours.words(this.run.states[page])}`;
  }

  /** Walk: the page that lies beside the chosen one. */
  beside(key) {
    const from = this.selected ?? 0;
    const [x, y, wide, high] = this.place(from, 1);
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    const scale = 2 ** this.zoom;
    if (this.selected === null) return 0;
    return this.pageAt((x + scale / 2 + by[0] * Math.max(scale, wide)) / this.ratio, (y + scale / 2 + by[1] * Math.max(scale, high)) / this.ratio);
  }
}
