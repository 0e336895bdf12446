// Charts, sorting, filters, search and the choice of a block of a table. Nothing is loaded or sent.
"use strict";

const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

// ---- sort: each column heading becomes a button -------------------------------------------------------------------

function valueOf(row, column) {
  const text = row.cells[column].textContent.trim().replace("\u2212", "-");
  const number = parseFloat(text);
  return Number.isNaN(number) || !/^-?\d/.test(text) ? text : number;
}

function compare(a, b) {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? -1 : 1;
}

function sort(table, head, down) {
  const column = head.cellIndex;
  all(".heads th", table).forEach((one) => one.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  for (const body of table.tBodies) {
    const rows = all("tr:not(.group)", body).map((row) => [valueOf(row, column), row]);
    rows.sort((a, b) => (down ? compare(b[0], a[0]) : compare(a[0], b[0])));
    body.append(...rows.map(([, row]) => row));
  }
}

function sortable(table) {
  for (const head of all(".heads th:not([aria-sort])", table)) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head, head.getAttribute("aria-sort") === "ascending"));
    head.append(button);
    head.setAttribute("aria-sort", "none");
  }
}

all("table.sortable").forEach(sortable);

// ---- cards: on a phone a row is a card without headings, so a list of columns sorts ----------------------------------

const roles = { TABLE: "table", CAPTION: "caption", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TD: "cell" };

for (const table of all("table.cards")) {
  for (const one of [table, ...all("*", table)]) if (roles[one.tagName]) one.setAttribute("role", roles[one.tagName]); // kept when styled as cards
  for (const one of all("th", table)) one.setAttribute("role", one.scope === "col" ? "columnheader" : "rowheader");
  const headings = all(".heads th", table);
  if (!headings.length) continue;
  const options = headings.flatMap((head, index) => [0, 1].map((down) => [`${index} ${down}`, `${head.textContent} ${down ? "↓" : "↑"}`]));
  const label = choice("Sort by", [["", "original order"], ...options], (value) => {
    const [index, down] = value.split(" ");
    if (value) sort(table, headings[Number(index)], down === "1");
  });
  label.classList.add("phone");
  table.parentElement.before(label);
}

// ---- charts: drawn when they come near the screen, in the colours of the page -----------------------------------------

const root = document.documentElement;
const CONFIG = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };
const PRINT_WIDTH = 680; // pixels of an A4 page between its margins

// Colours are names of style variables, such as --series-1 or --series-1/0.2 with an opacity.
function resolved(value, key = "") {
  if (Array.isArray(value)) return value.map((one) => resolved(one, key));
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, resolved(one, name)]));
  if (typeof value !== "string" || !key.endsWith("color") || !value.startsWith("--")) return value;
  const [name, opacity] = value.split("/");
  const colour = getComputedStyle(root).getPropertyValue(name).trim();
  return opacity ? colour + Math.round(255 * opacity).toString(16).padStart(2, "0") : colour;
}

const charts = all("figure.chart").map((figure) => ({
  figure,
  plot: figure.querySelector(".plot"),
  ...JSON.parse(figure.querySelector("script").textContent),
  isDrawn: false,
}));

function styled(chart) {
  const font = { ...chart.layout.font, family: getComputedStyle(document.body).fontFamily };
  return [resolved(chart.traces), resolved({ ...chart.layout, font })];
}

// The library is text until the first chart is drawn: the numbers need not wait for it.
function loadLibrary() {
  if (window.Plotly) return;
  const script = document.createElement("script");
  script.textContent = document.getElementById("library").textContent;
  document.head.append(script);
}

function draw(chart, width) {
  loadLibrary();
  const [traces, layout] = styled(chart);
  chart.isDrawn = true;
  return Plotly.react(chart.plot, traces, width ? { ...layout, width } : { ...layout, autosize: true }, CONFIG);
}

function redraw(width) {
  for (const chart of charts) if (chart.isDrawn || width) draw(chart, width);
}

async function save(chart, format) {
  loadLibrary();
  const [traces, layout] = styled(chart);
  const size = { width: chart.plot.clientWidth || 800, height: chart.layout.height + 60 };
  const whole = { ...layout, ...size, showlegend: traces.length > 1, paper_bgcolor: getComputedStyle(root).getPropertyValue("--paper").trim() };
  whole.title = { text: chart.title, font: { size: 14 } };
  whole.margin = { ...layout.margin, t: 52 };
  const scale = format === "png" ? 2 : 1;
  await Plotly.downloadImage({ data: traces, layout: whole }, { format, scale, filename: chart.title.replace(/[^\w]+/g, "_"), ...size });
}

for (const chart of charts) {
  const tools = document.createElement("span");
  tools.className = "tools";
  for (const format of ["PNG", "SVG"]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = format;
    button.setAttribute("aria-label", `Save as ${format}: ${chart.title}`);
    button.addEventListener("click", () => save(chart, format.toLowerCase()));
    tools.append(button);
  }
  chart.figure.querySelector("figcaption").prepend(tools);
}

const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      watcher.unobserve(entry.target);
      draw(charts.find((chart) => chart.plot === entry.target));
    }
  },
  { rootMargin: "300px" }
);
addEventListener("load", () => setTimeout(() => charts.forEach((chart) => watcher.observe(chart.plot))));

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
addEventListener("beforeprint", () => {
  root.classList.add("printing");
  redraw(PRINT_WIDTH);
});
addEventListener("afterprint", () => {
  root.classList.remove("printing");
  redraw();
});

// A series is shown if its button is pressed and no filter hides its run.
function updateSeries(group) {
  const buttons = all(".legend [data-series]", group);
  for (const chart of charts.filter((one) => group.contains(one.figure))) {
    for (const trace of chart.traces) {
      const button = buttons[trace.meta];
      if (button) trace.visible = button.getAttribute("aria-pressed") === "true" && !button.hidden;
    }
    if (chart.isDrawn) draw(chart);
  }
}

for (const group of all(".chart-group")) {
  const buttons = all(".legend [data-series]", group);
  for (const button of buttons) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "false");
      updateSeries(group);
    });
  }
  if (buttons.length < 10) continue;
  const every = document.createElement("button");
  every.type = "button";
  every.className = "every";
  every.textContent = "Show all";
  every.addEventListener("click", () => {
    const pressed = buttons.some((one) => one.getAttribute("aria-pressed") === "false");
    buttons.forEach((one) => one.setAttribute("aria-pressed", pressed));
    updateSeries(group);
  });
  group.querySelector(".legend").prepend(every);
}

for (const picture of all(".picture.several")) {
  const choices = all(".choice", picture);
  const options = choices.map((one, index) => [String(index), one.dataset.choice]);
  const form = document.createElement("form");
  form.className = "filters";
  form.append(choice("Show", options, (value) => choices.forEach((one, index) => (one.hidden = String(index) !== value))));
  picture.prepend(form);
}

// ---- filter and search: apply to the table and to every figure ------------------------------------

const filters = document.getElementById("filters");

function filter() {
  const words = document.getElementById("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = all("select", filters).filter((select) => select.value);
  const rows = all("#runs tr[data-run]");
  const shown = new Set();
  for (const row of rows) {
    const text = `${row.textContent} ${row.dataset.run}`.toLowerCase();
    row.hidden =
      !words.every((word) => text.includes(word)) || !chosen.every((select) => row.dataset[select.dataset.filter] === select.value);
    if (!row.hidden) shown.add(row.dataset.run);
  }
  for (const body of document.getElementById("runs").tBodies) body.hidden = !body.querySelector("[data-run]:not([hidden])");
  for (const one of all(".group [data-run]")) one.toggleAttribute("hidden", !shown.has(one.dataset.run));
  for (const group of all(".group:not(tr)")) {
    const runs = all("[data-run]", group);
    group.hidden = runs.length > 0 && runs.every((one) => one.hidden);
  }
  all("main .chart-group").forEach(updateSeries);
  filters.querySelector("output").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
}

if (filters) {
  filters.hidden = false;
  filters.addEventListener("input", filter);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(filter));
  filter();
}

// ---- blocks: a table with several bodies shows the chosen one ------------------------------------------------

function choice(title, options, choose) {
  const label = document.createElement("label");
  label.className = "choose";
  const select = document.createElement("select");
  options.forEach(([value, text]) => select.add(new Option(text, value)));
  select.addEventListener("change", () => choose(select.value));
  label.append(`${title} `, select);
  choose(options[0][0]);
  return label;
}

for (const table of all("table.heat")) {
  const bodies = [...table.tBodies];
  if (bodies.length < 2) continue;
  table.classList.add("chosen");
  const options = bodies.map((body, index) => [String(index), body.dataset.block]);
  const choose = (value) => bodies.forEach((body, index) => (body.hidden = String(index) !== value));
  const form = document.createElement("form");
  form.className = "filters";
  form.append(choice("Show", options, choose));
  table.parentElement.before(form);
}

// ---- classes: the table has those with the largest drop; the others come from the numbers behind it --------------------------

function cell(drop) {
  const td = document.createElement("td");
  if (drop === null) return td;
  td.className = `h${Math.round(Math.min(Math.max(drop, 0), 100) / 5)}`;
  td.textContent = String(drop).replace("-", "\u2212");
  return td;
}

for (const block of all(".classes")) {
  const { names, drops } = JSON.parse(block.querySelector("script").textContent);
  const table = block.querySelector("table");
  const few = table.rows[0].cells.length - 1;
  const lines = all("tbody tr[data-run]", table).map((line) => line);
  const status = document.createElement("output");
  const search = document.createElement("input");
  const every = document.createElement("button");
  const show = (chosen) => {
    all(".heads th", table).slice(1).forEach((head) => head.remove());
    for (const index of chosen) {
      const head = document.createElement("th");
      head.scope = "col";
      head.textContent = names[index];
      table.querySelector(".heads").append(head);
    }
    lines.forEach((line, row) => {
      all("td", line).forEach((one) => one.remove());
      line.append(...chosen.map((index) => cell(drops[row][index])));
    });
    table.style.setProperty("--columns", chosen.length);
    table.classList.toggle("wide", chosen.length > few);
    sortable(table);
    status.textContent = `${chosen.length} of ${names.length} classes`;
  };
  const found = () => {
    const words = search.value.toLowerCase().trim();
    const places = names.map((_, index) => index);
    show(words ? places.filter((index) => names[index].toLowerCase().includes(words)) : places.slice(0, few));
  };
  search.type = "search";
  search.autocomplete = "off";
  search.addEventListener("input", found);
  every.type = "button";
  every.textContent = `Show all ${names.length}`;
  every.addEventListener("click", () => show(names.map((_, index) => index)));
  const label = document.createElement("label");
  label.append("Find a class ", search);
  const form = document.createElement("form");
  form.className = "filters";
  form.addEventListener("submit", (event) => event.preventDefault());
  form.append(label, every, status);
  block.prepend(form);
  status.textContent = `${few} of ${names.length} classes`;
}

// ---- steps: one image and corruption at a time, two models side by side -----------------------------------------

for (const steps of all(".steps")) {
  const figures = all(".step", steps);
  const names = all(".model", figures[0]).map((model) => model.dataset.model);
  const chosen = [0, Math.min(1, names.length - 1)];
  const wanted = { corruption: "", class: "", changed: false };
  let at = 0;
  const status = document.createElement("output");
  const form = document.createElement("form");
  form.className = "filters";
  form.setAttribute("role", "group");
  form.setAttribute("aria-label", "Filter the images");
  const worst = (figure) => Math.max(...chosen.map((index) => Number(all(".model", figure)[index].dataset.change)));
  const fits = (figure) =>
    (!wanted.corruption || figure.dataset.corruption === wanted.corruption) &&
    (!wanted.class || JSON.parse(figure.dataset.classes).includes(wanted.class)) &&
    (!wanted.changed || worst(figure) > 0);
  const show = (place) => {
    const open = figures.filter(fits).sort((a, b) => worst(b) - worst(a)); // of the two shown models
    at = open.length ? (place + open.length) % open.length : 0;
    figures.forEach((figure) => (figure.hidden = figure !== open[at]));
    for (const figure of figures) all(".model", figure).forEach((model, index) => (model.hidden = !chosen.includes(index)));
    status.textContent = open.length ? `${at + 1} of ${open.length}, largest change first` : "No match; relax the filters";
  };
  const turn = (text, by) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => show(at + by));
    return button;
  };
  const offer = (title, key, values) => {
    const options = [["", "all"], ...values.sort().map((value) => [value, value])];
    if (options.length > 2) form.append(choice(title, options, (value) => show(((wanted[key] = value), 0))));
  };
  for (const [place, title] of names.length > 1 ? ["Model", "Second model"].entries() : []) {
    const label = choice(title, names.map((name, index) => [String(index), name]), (value) => {
      chosen[place] = Number(value);
      show(0);
    });
    form.append(label);
    label.querySelector("select").value = String((chosen[place] = place));
  }
  offer("Corruption", "corruption", [...new Set(figures.map((figure) => figure.dataset.corruption))]);
  offer("Class", "class", [...new Set(figures.flatMap((figure) => JSON.parse(figure.dataset.classes)))]);
  const only = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.addEventListener("change", () => show(((wanted.changed = box.checked), 0)));
  only.className = "only";
  only.append(box, " Only changed predictions");
  form.append(only, turn("Previous", -1), turn("Next", 1), status);
  steps.before(form);
  show(0);
}
