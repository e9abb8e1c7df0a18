"use strict";
// Tables that sort: a click or Enter on a head; one tab stop a table, arrow keys go from head to head.
const arrows = (host, items, keys) => {
  // One tab stop for several things: the arrow keys go from one to the next.
  const list = () => [...host.querySelectorAll(items)].filter((item) => !item.hidden && !item.closest("[hidden]"));
  const settle = () => {
    const all = list();
    const first = all.find((item) => item.tabIndex === 0) ?? all[0];
    host.querySelectorAll(items).forEach((item) => {
      item.tabIndex = item === first ? 0 : -1;
    });
  };
  host.addEventListener("keydown", (event) => {
    const all = list(),
      at = all.indexOf(document.activeElement),
      step = keys[event.key];
    if (step === undefined || at < 0) return;
    event.preventDefault();
    const next = all[Math.max(0, Math.min(all.length - 1, at + step))];
    all[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  settle();
  return settle;
};
const updown = { ArrowUp: -1, ArrowDown: 1, Home: -1e9, End: 1e9 };
const sideways = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 };
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
        if ((x === "") !== (y === "")) return x === "" ? 1 : -1; // what was not measured stays below in both directions
        const order = x !== "" && y !== "" && !isNaN(x) && !isNaN(y) ? x - y : x.localeCompare(y);
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows);
    });
  });
  arrows(table.tHead, "button", sideways);
});
