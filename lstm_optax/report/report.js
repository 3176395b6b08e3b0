"use strict";
const root = document.documentElement;
const themeButton = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return (root.dataset.theme ?? (systemDark.matches ? "dark" : "light")) === "dark";
}

function nameTheme() {
  themeButton.textContent = isDark() ? "Light colours" : "Dark colours";
}

themeButton.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
systemDark.addEventListener("change", nameTheme);
nameTheme();

// Charts: each is drawn when it is first near the window, and then obeys the legend.
const hidden = new Set();
const errorsOnly = 1; // a chart whose curves are all hidden would warn of empty axes
const views = []; // of the charts that have curves

async function draw(place) {
  const spec = JSON.parse(document.getElementById(place.dataset.spec).textContent);
  try {
    const options = { renderer: "svg", actions: false, ast: true, logLevel: errorsOnly };
    const result = await vegaEmbed(place, spec, options);
    if (spec.params?.some((param) => param.name === "hidden")) {
      views.push(result.view);
      await obeyLegend(result.view);
    }
    place.dataset.drawn = "";
  } catch (error) {
    place.textContent = "This chart could not be drawn.";
    console.error(error);
  }
}

function obeyLegend(view) {
  return view.signal("hidden", [...hidden]).runAsync();
}

const near = new IntersectionObserver((entries) => {
  entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    near.unobserve(entry.target);
    draw(entry.target);
  });
}, { rootMargin: "600px" });
document.querySelectorAll(".chart").forEach((place) => near.observe(place));

// Legend: each button shows or hides one curve in all charts.
const keys = [...document.querySelectorAll("#legend button[data-series]")];

function show(key, shown) {
  key.setAttribute("aria-pressed", String(shown));
  hidden[shown ? "delete" : "add"](key.dataset.series);
}

function obeyAll() {
  views.forEach(obeyLegend);
}

keys.forEach((key) => key.addEventListener("click", () => {
  show(key, key.getAttribute("aria-pressed") !== "true");
  obeyAll();
}));
document.querySelectorAll("#legend button[data-all]").forEach((button) => {
  button.addEventListener("click", () => {
    keys.forEach((key) => show(key, button.dataset.all === "show"));
    obeyAll();
  });
});

// Tables: a button in a header sorts the rows; cells without a value stay last.
function compareCells(a, b) {
  const [x, y] = [a.dataset.value ?? "", b.dataset.value ?? ""];
  if (x === "" || y === "") return (x === "") - (y === "");
  const [p, q] = [Number(x), Number(y)];
  return Number.isNaN(p) || Number.isNaN(q) ? x.localeCompare(y) : p - q;
}

document.querySelectorAll("table.sorts thead th").forEach((header) => {
  const button = header.querySelector("button");
  button?.addEventListener("click", () => {
    const descending = header.getAttribute("aria-sort") === "ascending";
    const body = header.closest("table").tBodies[0];
    const column = header.cellIndex;
    const rows = [...body.rows].sort((r, s) => {
      const [a, b] = [r.cells[column], s.cells[column]];
      const empty = !a.dataset.value || !b.dataset.value;
      return compareCells(a, b) * (descending && !empty ? -1 : 1);
    });
    header.parentElement.querySelectorAll("th").forEach((other) => {
      const order = other !== header ? "none" : descending ? "descending" : "ascending";
      other.setAttribute("aria-sort", order);
      const mark = other.querySelector("button span");
      if (mark) mark.textContent = { none: "↕", ascending: "↑", descending: "↓" }[order];
    });
    body.append(...rows);
  });
});
