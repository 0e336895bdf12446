// What the page does beyond showing: sort, filter, search, choose a block of a table. It loads and sends nothing.
"use strict";

const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

// ---- sort: each head of a column becomes a button -------------------------------------------------------------------

function valueOf(row, column) {
  const text = row.cells[column].textContent.trim().replace("\u2212", "-");
  const number = parseFloat(text);
  return Number.isNaN(number) || !/^-?\d/.test(text) ? text : number;
}

function compare(a, b) {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? -1 : 1;
}

function sort(table, head) {
  const column = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending";
  all(".heads th", table).forEach((one) => one.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  for (const body of table.tBodies) {
    const rows = all("tr:not(.group)", body).map((row) => [valueOf(row, column), row]);
    rows.sort((a, b) => (down ? compare(b[0], a[0]) : compare(a[0], b[0])));
    body.append(...rows.map(([, row]) => row));
  }
}

for (const table of all("table.sortable")) {
  for (const head of all(".heads th", table)) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head));
    head.append(button);
    head.setAttribute("aria-sort", "none");
  }
}

// ---- filter and search: what is left out of the table is left out of every figure ------------------------------------

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
  for (const one of all("section [data-run]")) one.toggleAttribute("hidden", !shown.has(one.dataset.run));
  for (const section of all("section")) section.hidden = !section.querySelector("[data-run]:not([hidden])");
  filters.querySelector("output").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} lines`;
}

if (filters) {
  filters.hidden = false;
  filters.addEventListener("input", filter);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(filter));
  filter();
}

// ---- blocks: a table with several bodies shows the one that is chosen ------------------------------------------------

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
  const options = bodies.map((body, index) => [String(index), body.dataset.block]);
  const choose = (value) => bodies.forEach((body, index) => (body.hidden = String(index) !== value));
  const form = document.createElement("form");
  form.className = "filters";
  form.append(choice("Show", options, choose));
  table.parentElement.before(form);
}

// ---- steps: one image and corruption at a time, two models beside each other -----------------------------------------

for (const steps of all(".steps")) {
  const figures = all(".step", steps);
  const names = all(".model", figures[0]).map((model) => model.dataset.model);
  const chosen = [0, Math.min(1, names.length - 1)];
  let at = 0;
  const said = document.createElement("output");
  const worst = (figure) => Math.max(...chosen.map((index) => Number(all(".model", figure)[index].dataset.change)));
  const show = () => {
    figures.sort((a, b) => worst(b) - worst(a)); // of the two models that are shown
    figures.forEach((figure, index) => (figure.hidden = index !== at));
    for (const figure of figures) all(".model", figure).forEach((model, index) => (model.hidden = !chosen.includes(index)));
    said.textContent = `${at + 1} of ${figures.length}, the worst change first`;
  };
  const turn = (text, by) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => {
      at = (at + by + figures.length) % figures.length;
      show();
    });
    return button;
  };
  const form = document.createElement("form");
  form.className = "filters";
  const options = names.map((name, index) => [String(index), name]);
  for (const [place, title] of names.length > 1 ? ["Model", "Beside it"].entries() : []) {
    const label = choice(title, options, (value) => {
      chosen[place] = Number(value);
      at = 0;
      show();
    });
    form.append(label);
    label.querySelector("select").value = String((chosen[place] = place));
  }
  form.append(turn("Previous", -1), turn("Next", 1), said);
  steps.before(form);
  show();
}
