// Draws every figure of the page. plotly.js stands in #plotly, compressed; a figure is the JSON in a <script> beside its
// <div>, compressed if it is long; what a picture of a hugetlb page shows stands once, compressed, in #map-N, for both of its figures.
"use strict";
(async () => {
  const unpacked = (text) => {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip")));
  };

  const json = async (id) => {
    const { type, textContent } = document.getElementById(id);
    return JSON.parse(type === "application/gzip" ? await unpacked(textContent).text() : textContent);
  };

  // A column by its numbers, or its words; what has none stands last. The second time the other way round.
  for (const table of document.querySelectorAll(".sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const by = (row) => row.cells[column].dataset.by;
      const order = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b) * (down ? -1 : 1);
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort((one, other) =>
        (by(one) === "") - (by(other) === "") || order(by(one), by(other))));
    }));
  }

  const divs = [...document.querySelectorAll(".figure")];
  if (!("DecompressionStream" in window)) {
    for (const div of divs) div.textContent = "This browser is older than 2023 and cannot unpack the figures.";
    return;
  }
  const script = document.createElement("script");
  script.textContent = await unpacked(document.getElementById("plotly").textContent).text();
  document.head.append(script);

  const pictures = new Map();
  const picture = async (id) => {
    const given = await json(id);
    const how = new Uint8Array(await unpacked(given.how).arrayBuffer());
    const arrived = new Uint16Array(await unpacked(given.arrived).arrayBuffer());
    const digits = Math.max(0, -Math.floor(Math.log10(given.unit)));
    const rows = (value) => Array.from({ length: given.rows }, (_, row) =>
      Array.from({ length: given.columns }, (_, column) => value(row * given.columns + column)));
    return {
      how: rows((at) => how[at]),
      words: rows((at) => given.words[how[at]]),
      arrived: rows((at) => (arrived[at] === given.never ? null : Number((arrived[at] * given.unit).toFixed(digits)))),
    };
  };
  for (const id of new Set(divs.map((div) => div.dataset.map).filter(Boolean))) pictures.set(id, await picture(id));
  const figures = new Map();
  for (const { dataset } of divs) figures.set(dataset.figure, await json(dataset.figure));

  // Figures are drawn for a white page. On a dark one inks and papers change places, and dark colours become lighter.
  const DARK = {
    "#000000": "#f2f2f2", "#1a1a1a": "#e8e8e8", "#444": "#9aa0a8", "#e6e6e6": "#363b43", "#fff": "#16181c",
    "#EDEDED": "#2c3037", "rgba(255,255,255,0.8)": "rgba(22,24,28,0.8)", "#0072B2": "#4da6e0", "#D55E00": "#ff8540",
    "#009E73": "#2fc79b", "rgba(0,114,178,0.18)": "rgba(77,166,224,0.25)",
  };
  const DATA = new Set(["x", "y", "z", "text", "ticktext", "name", "customdata", "hovertemplate", "legendgroup"]);
  const coloured = (value, dark) => {
    if (typeof value === "string") return dark ? DARK[value] ?? value : value;
    if (Array.isArray(value)) return value.map((each) => coloured(each, dark));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, each]) =>
      [key, DATA.has(key) ? each : coloured(each, dark)]));
  };

  // On a narrow page: bars of colour below their figure, less room at its sides, and one tick in two.
  const NARROW = 520;
  const flat = (bar) => ({ ...bar, orientation: "h", x: 0.5, y: -0.16, xanchor: "center", yanchor: "top", len: 1,
    title: { ...bar.title, side: "top" }, tickangle: 0, tickfont: { size: 9 } });
  const sparse = (axis) => {
    const every = (list) => (list && list.length > 2 ? list.filter((_, place) => place % 2 === 0) : list);
    const thinned = axis.tickvals ? { tickvals: every(axis.tickvals), ticktext: every(axis.ticktext) } : {};
    return { ...axis, ...thinned, tickfont: { ...axis.tickfont, size: 9 }, ...(axis.type === "category" && { tickangle: -90 }) };
  };
  const narrowed = ({ data, layout }) => {
    const bars = layout.coloraxis?.colorbar || data.some((trace) => trace.colorbar);
    return {
      data: data.map((trace) => ({
        ...trace, ...(trace.colorbar && { colorbar: flat(trace.colorbar) }),
        ...(trace.texttemplate && { textfont: { ...trace.textfont, size: 8 } }),
      })),
      layout: {
        ...layout, font: { ...layout.font, size: 11 }, xaxis: sparse(layout.xaxis),
        legend: { ...layout.legend, font: { size: 10 } },
        margin: { ...layout.margin, l: 44, r: 10, b: bars ? 110 : layout.margin.b },
        ...(bars && !layout.yaxis.scaleanchor && { height: layout.height + 60 }),
        ...(layout.coloraxis && { coloraxis: { ...layout.coloraxis, colorbar: flat(layout.coloraxis.colorbar) } }),
        ...(layout.yaxis.scaleanchor && { height: 470 }),
      },
    };
  };

  const wantsDark = matchMedia("(prefers-color-scheme: dark)");
  const CONFIG = {
    responsive: true, displaylogo: false,
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]], // no sharing
  };
  const shown = (div, printing) => {
    let drawn = figures.get(div.dataset.figure);
    if (div.dataset.map) {
      const { how, words, arrived } = pictures.get(div.dataset.map);
      const [trace] = drawn.data;
      const z = trace.name === "arrived" ? arrived : how;
      drawn = { ...drawn, data: [{ ...trace, z, text: words, customdata: arrived }] };
    }
    const { data, layout } = div.clientWidth < NARROW && !printing ? narrowed(drawn) : drawn;
    const dark = wantsDark.matches && !printing;
    const size = printing
      ? { autosize: false, width: div.clientWidth, height: Math.round(layout.height * 0.8) }
      : { autosize: true };
    return [data.map((trace) => coloured(trace, dark)), { ...coloured(layout, dark), ...size }];
  };
  const redraw = (printing) => {
    document.body.classList.toggle("printing", printing);
    for (const div of divs) {
      const [data, layout] = shown(div, printing);
      div.style.minHeight = `${layout.height}px`;
      Plotly.react(div, data, layout, CONFIG);
    }
  };
  for (const div of divs) {
    const [data, layout] = shown(div, false);
    div.style.minHeight = `${layout.height}px`;
    Plotly.newPlot(div, data, layout, CONFIG);
  }
  let wasNarrow = document.body.clientWidth < NARROW;
  window.addEventListener("resize", () => {
    const isNarrow = document.body.clientWidth < NARROW;
    if (isNarrow !== wasNarrow && !document.body.classList.contains("printing")) redraw(false);
    wasNarrow = isNarrow;
  });
  wantsDark.addEventListener("change", () => redraw(false));
  window.addEventListener("beforeprint", () => redraw(true));
  window.addEventListener("afterprint", () => redraw(false));
  document.body.dataset.drawn = String(divs.length);
})();
