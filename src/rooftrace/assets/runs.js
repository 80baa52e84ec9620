"use strict";
const all = (selector) => [...document.querySelectorAll(selector)];

// A click on a column's head sorts by it; a second click reverses the order. Rows without a value come last.
for (const head of all("th[data-column]")) {
  head.addEventListener("click", () => {
    const column = Number(head.dataset.column);
    const down = head.getAttribute("aria-sort") === "ascending";
    const body = head.closest("table").tBodies[0];
    const key = (row) => row.cells[column].dataset.order;
    const less = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (!x || !y) return !x - !y;
      return down ? less(y, x) : less(x, y);
    });
    body.append(...rows);
    all("th[data-column]").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  });
}

const select = document.querySelector("#figure");
if (select) {
  const show = () => all("[data-figure]").forEach((one) => { one.hidden = one.dataset.figure !== select.value; });
  select.addEventListener("change", show);
  select.closest("p").hidden = false;
  show();
}

// A run can be left out of the curves, and stands out of them while one points at its name.
for (const box of all("[data-toggle]")) {
  const of = () => all(`.series[data-series="${box.dataset.toggle}"]`);
  box.addEventListener("change", () => of().forEach((one) => one.classList.toggle("out", !box.checked)));
  const entry = box.closest("label");
  entry.addEventListener("mouseenter", () => {
    document.body.classList.add("pointing");
    of().forEach((one) => one.classList.add("meant"));
  });
  entry.addEventListener("mouseleave", () => {
    document.body.classList.remove("pointing");
    of().forEach((one) => one.classList.remove("meant"));
  });
}
const every = document.querySelector("#every");
if (every) every.addEventListener("change", () => all("[data-toggle]").forEach((box) => {
  box.checked = every.checked;
  box.dispatchEvent(new Event("change"));
}));
