"use strict";

// Airflow keeps the theme that its user chose in this key; without a choice the system's counts.
function followTheme() {
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    // Storage may be off: then the system's theme counts.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
}

// Airflow shows this page in a frame that may neither leave itself nor open a window: the page around does it.
function leaveTheFrame(event) {
  const link = event.target.closest("a[target]");
  if (!link || window.parent === window || event.ctrlKey || event.metaKey || event.shiftKey) return;
  let around;
  try {
    around = window.parent.document.createElement("a");
  } catch {
    return; // another origin's frame: the link is the browser's business
  }
  event.preventDefault();
  around.href = link.href;
  around.rel = "noopener noreferrer";
  around.target = link.target === "_top" ? "_self" : "_blank";
  window.parent.document.body.append(around);
  around.click();
  around.remove();
}

function filterRows(form) {
  const wanted = form.elements.find.value.trim().toLowerCase();
  const state = form.elements.state.value;
  for (const section of document.querySelectorAll("section")) {
    let shown = 0;
    for (const row of section.querySelectorAll(".list tbody tr")) {
      row.hidden =
        (state !== "" && row.dataset.state !== state) ||
        !row.cells[0].textContent.toLowerCase().includes(wanted);
      shown += row.hidden ? 0 : 1;
    }
    section.hidden = shown === 0;
    section.querySelector(".count").textContent = shown.toLocaleString("en");
  }
}

function sortRows(header) {
  const rising = header.getAttribute("aria-sort") !== "ascending";
  for (const other of header.parentElement.cells) {
    if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
  }
  header.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const body = header.closest("table").tBodies[0];
  const key = (row) => row.cells[header.cellIndex].dataset.sort ?? row.cells[header.cellIndex].textContent;
  const order = (one, other) => Number(key(one)) - Number(key(other)) || key(one).localeCompare(key(other));
  const rows = [...body.rows].sort(order);
  body.append(...(rising ? rows : rows.reverse()));
}

followTheme();
addEventListener("storage", followTheme);
addEventListener("click", leaveTheFrame);
addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector(".filter");
  form?.addEventListener("input", () => filterRows(form));
  form?.addEventListener("submit", (event) => event.preventDefault());
  if (form) filterRows(form); // a browser that goes back fills in what was there
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => sortRows(button.parentElement));
  }
});
