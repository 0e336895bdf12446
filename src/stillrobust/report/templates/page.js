// Sorting, filters, search and the choice of a block of a table. Nothing is loaded or sent.
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
  for (const one of all("section [data-run]")) one.toggleAttribute("hidden", !shown.has(one.dataset.run));
  for (const section of all("section")) section.hidden = !section.querySelector("[data-run]:not([hidden])");
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
