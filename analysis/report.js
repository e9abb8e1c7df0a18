"use strict";
// Sorting of tables and the tips of linked points; without this script tables stand in the study's order and tips are the browser's own.
document.querySelectorAll("table.sortable").forEach((table) => {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending" || (!head.hasAttribute("aria-sort") && head.classList.contains("left"));
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => {
        const given = row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
        return given === "–" ? "" : given;
      };
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if ((x === "") !== (y === "")) return x === "" ? 1 : -1;  // what was not measured stays below in both directions
        const order = x !== "" && y !== "" && !isNaN(x) && !isNaN(y) ? x - y : x.localeCompare(y);
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows);
    });
  });
});
const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
tip.setAttribute("role", "status");
document.body.append(tip);
document.querySelectorAll("svg a").forEach((link) => {
  const title = link.querySelector("title");
  if (!title) return;
  const words = title.textContent;
  link.setAttribute("aria-label", words);
  const show = () => {
    title.textContent = "";
    const box = link.getBoundingClientRect();
    tip.textContent = words;
    tip.hidden = false;
    tip.style.left = Math.max(4, Math.min(box.left + scrollX + 12, scrollX + innerWidth - tip.offsetWidth - 20)) + "px";
    tip.style.top = box.top + scrollY - tip.offsetHeight - 6 + "px";
  };
  const hide = () => { tip.hidden = true; title.textContent = words; };
  for (const name of ["mouseenter", "focus"]) link.addEventListener(name, show);
  for (const name of ["mouseleave", "blur"]) link.addEventListener(name, hide);
});
const openRun = () => {
  const row = document.getElementById(location.hash.slice(1));
  const details = row?.querySelector("details");
  if (details && row.id.startsWith("run-")) details.open = true;
};
addEventListener("hashchange", openRun);
openRun();
