// Draws every figure of the page. A figure is the JSON in a <script> beside its <div>; what a picture of a hugetlb page
// shows stands once, base64, in #map-N, for both of its figures.
"use strict";
(() => {
  const json = (id) => JSON.parse(document.getElementById(id).textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const pictures = new Map();

  const picture = (id) => {
    if (!pictures.has(id)) {
      const said = json(id);
      const how = bytes(said.how);
      const arrived = new Uint16Array(bytes(said.arrived).buffer);
      const digits = Math.max(0, -Math.floor(Math.log10(said.unit)));
      const rows = (value) => Array.from({ length: said.rows }, (_, row) =>
        Array.from({ length: said.columns }, (_, column) => value(row * said.columns + column)));
      pictures.set(id, {
        how: rows((at) => how[at]),
        words: rows((at) => said.words[how[at]]),
        arrived: rows((at) => (arrived[at] === said.never ? null : Number((arrived[at] * said.unit).toFixed(digits)))),
      });
    }
    return pictures.get(id);
  };

  const fill = (trace, id) => {
    const { how, words, arrived } = picture(id);
    trace.z = trace.name === "arrived" ? arrived : how;
    trace.text = words;
    trace.customdata = arrived;
  };

  const divs = [...document.querySelectorAll(".figure")];
  for (const div of divs) {
    const figure = json(div.dataset.figure);
    if (div.dataset.map) fill(figure.data[0], div.dataset.map);
    Plotly.newPlot(div, figure.data, figure.layout, {
      responsive: true, displaylogo: false,
      modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]], // no sharing
    });
  }
  const fit = (printing) => {
    document.body.classList.toggle("printing", printing);
    for (const div of divs) {
      const height = div.dataset.height ??= div.layout.height;
      Plotly.relayout(div, printing
        ? { autosize: false, width: div.clientWidth, height: Math.round(height * 0.8) }
        : { autosize: true, width: null, height: Number(height) });
    }
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
  window.addEventListener("beforeprint", () => fit(true));
  window.addEventListener("afterprint", () => fit(false));
  document.body.dataset.drawn = String(divs.length);
})();
