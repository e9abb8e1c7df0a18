// The runs: words and arms that filter them, what is chosen in words, the figures, and the table. What is chosen in one is chosen in all.
const explorer = document.getElementById("explore");
if (explorer && count) {
  const every = [...runs.id.keys()];

  // Controls: words, arms.
  const bar = el("div", { className: "controls", role: "group" });
  const words = el("input", {
    type: "search",
    value: state.words,
    placeholder: "words: scratch seed=1 failed …",
    "aria-label": "Show only runs with these words",
  });
  words.addEventListener("input", () => {
    state.words = words.value;
    changed();
  });
  const chips = el("div", { className: "chips", role: "group" });
  chips.setAttribute("aria-label", "Arms shown");
  runs.groups.forEach((name, group) => {
    const chip = el("button", { type: "button", className: "chip" }, swatch(group), named(name));
    chip.addEventListener("click", () => {
      state.off[state.off.has(group) ? "delete" : "add"](group);
      changed();
    });
    chips.append(chip);
    views.push(() => chip.setAttribute("aria-pressed", String(!state.off.has(group))));
  });
  arrows(chips, "button", { ...sideways, ArrowUp: -1, ArrowDown: 1 });
  bar.append(words, chips);
  const told = el("div", { id: "chosen" });
  told.setAttribute("aria-live", "polite");
  explorer.append(bar, told);

  const details = el("div", { id: "details" });
  // What is chosen, in words: of one run its facts, of several what differs.
  const tell = () => {
    const some = [...state.chosen],
      seen = every.filter(visible).length;
    const head = el(
      "p",
      {},
      some.length
        ? `${plural(some.length, "run")} chosen`
        : `${seen === count ? plural(count, "run") : `${seen} of ${plural(count, "run")} shown`}; none chosen. `,
    );
    if (!some.length) {
      head.append(
        el(
          "span",
          { className: "quiet" },
          "A click, Space in the table, or a rectangle pulled over a figure chooses; Shift adds; Escape lets go.",
        ),
      );
      details.replaceChildren();
      return told.replaceChildren(head);
    }
    const score = column(data.metric),
      values = score ? some.map((i) => score.values[i]).filter((v) => v !== null) : [];
    if (values.length > 1)
      head.append(`, on average of ${values.length} with ${score.name}: ${two(values.reduce((a, b) => a + b) / values.length)}`);
    const clear = el("button", { type: "button" }, "let go");
    clear.addEventListener("click", () => choose([]));
    head.append(" ", clear);
    told.replaceChildren(head);
    const parts = [];
    if (some.length <= 4) {
      const varied = runs.columns.filter(
        (c) => c.id.startsWith("param.") && (some.length === 1 || new Set(some.map((i) => c.values[i])).size > 1),
      );
      const rows = varied.map((c) =>
        el("tr", {}, el("th", { scope: "row" }, c.name), ...some.map((i) => el("td", {}, plain(c.values[i])))),
      );
      const names = el(
        "tr",
        {},
        el("th", {}, some.length === 1 ? "setting that varies" : "setting that differs"),
        ...some.map((i) => el("th", { scope: "col" }, `${clip(runs.what[i], 30)}, seed ${column("seed").values[i]}`)),
      );
      parts.push(
        varied.length
          ? el("div", { className: "wide" }, el("table", { className: "tight" }, el("thead", {}, names), el("tbody", {}, ...rows)))
          : el("p", { className: "quiet" }, "Their settings are the same."),
      );
    }
    if (some.length === 1) {
      const { facts, files } = runs.told[some[0]];
      const list = el("p", { className: "quiet facts-of-run" });
      for (const [name, value] of Object.entries(facts)) list.append(`${name} `, el("code", {}, value), el("br"));
      files.forEach(([word, address]) => list.append(el("a", { href: address }, word), " "));
      parts.push(list);
    }
    details.replaceChildren(...parts);
  };
  let last = "";
  views.push((light) => {
    // a new list only where something else is chosen: what is read aloud must not be repeated at every hover
    const now = [...state.chosen].join() + every.filter(visible).length;
    if (!light && now !== last) {
      last = now;
      tell();
    }
  });

  plots(explorer);
  explorer.append(details); // below the figures, which must not move when something is chosen

  // The table of runs: its rows stand in the page already.
  const table = document.getElementById("runs-table"),
    rows = runs.id.map((id) => document.getElementById(`run-${id}`));
  table.setAttribute("role", "grid");
  table.setAttribute("aria-multiselectable", "true");
  rows.forEach((row, i) => {
    row.tabIndex = -1;
    row.cells[0].prepend(swatch(runs.group[i]));
    row.addEventListener("pointerenter", () => hover(i));
    row.addEventListener("pointerleave", () => hover(-1));
    row.addEventListener("focus", () => hover(i));
    row.addEventListener("blur", () => hover(-1));
    row.addEventListener("click", (event) => pick(i, event));
    row.addEventListener("keydown", (event) => {
      if (event.key === " " || event.key === "Enter") {
        event.preventDefault();
        pick(i, { shiftKey: event.shiftKey || event.key === " " });
      }
    });
  });
  const body = table.tBodies[0],
    settle = arrows(body, "tr", updown);
  body.addEventListener("keydown", (event) => {
    if (event.key === "a" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      choose(every.filter(visible));
    }
  });
  views.push((light) => {
    rows.forEach((row, i) => {
      row.hidden = !visible(i);
      row.setAttribute("aria-selected", String(state.chosen.has(i)));
      row.classList.toggle("hot", state.hot === i);
    });
    if (!light) settle();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
    if (event.key === "Escape" && state.chosen.size) choose([]);
  });
  views.push((light) => {
    if (!light && document.activeElement !== words) words.value = state.words;
  });
}
