"use strict";
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  document.documentElement.classList.add("scripted");

  // Tables: a click on a heading sorts; what is missing stays at the end; the dense model stays on top.
  const key = (row, index) => {
    const cell = row.cells[index];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    return text === "–" || text === "" ? null : text;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  const sort = (heading) => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    const body = heading.closest("table").tBodies[heading.closest("table").tBodies.length - 1];
    all("th", heading.parentNode).forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    Array.from(body.rows)
      .map((row) => [key(row, heading.cellIndex), row])
      .sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : down ? compare(b, a) : compare(a, b)))
      .forEach(([, row]) => body.append(row));
  };
  all("table.sortable thead th").forEach((heading) =>
    heading.querySelector("button").addEventListener("click", () => sort(heading)));

  const plot = document.getElementById("plot");
  if (!plot) return;

  // Tooltips: beside the point and inside the plot; below the point where neither side has room.
  const hide = () => {
    all(".tip", plot).forEach((tip) => { tip.hidden = true; });
    all(".lit").forEach((lit) => lit.classList.remove("lit"));
  };
  const show = (point) => {
    hide();
    const tip = document.getElementById("tip" + point.dataset.row);
    const frame = plot.getBoundingClientRect();
    const spot = point.querySelector(".reach").getBoundingClientRect();
    const x = spot.left + spot.width / 2 - frame.left, y = spot.top + spot.height / 2 - frame.top;
    tip.hidden = false;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    const right = x + 16 + width <= frame.width, left = x - 16 - width >= 0;
    const start = right ? x + 16 : left ? x - 16 - width : Math.min(Math.max(0, x - width / 2), frame.width - width);
    const top = right || left ? Math.max(0, Math.min(y - height / 2, frame.height - height)) : y + 16;
    tip.style.left = start + "px";
    tip.style.top = top + "px";
    all(`tr[data-row="${point.dataset.row}"]`).forEach((row) => row.classList.add("lit"));
  };
  all(".point", plot).forEach((point) => {
    point.addEventListener("pointerenter", () => show(point));
    point.addEventListener("pointerleave", hide);
    point.addEventListener("focus", () => show(point));
    point.addEventListener("blur", hide);
    point.addEventListener("click", () => show(point));
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  all("tr[data-row]").forEach((row) => {
    const points = all(`.point[data-row="${row.dataset.row}"]`, plot);
    row.addEventListener("pointerenter", () => points.forEach((point) => point.classList.add("lit")));
    row.addEventListener("pointerleave", () => points.forEach((point) => point.classList.remove("lit")));
  });

  // Switches: which size, which scale, which methods.
  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
  const choose = () => {
    const view = `${chosen("view")} ${chosen("scale")}`;
    hide();
    all(".view", plot).forEach((each) => each.toggleAttribute("hidden", each.dataset.view !== view));
  };
  all('input[name="view"], input[name="scale"]').forEach((input) => input.addEventListener("change", choose));
  all(".legend button").forEach((button) => button.addEventListener("click", () => {
    const off = button.getAttribute("aria-pressed") === "true";
    button.setAttribute("aria-pressed", String(!off));
    hide();
    all(`.series[data-series="${button.dataset.series}"]`, plot).forEach((each) => each.toggleAttribute("hidden", off));
  }));
  choose();
})();
