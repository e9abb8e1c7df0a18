// What all figures share: the data, small words for making elements and text, and what is chosen, which the address keeps.
const data = JSON.parse(document.getElementById("data").textContent);
const { runs } = data,
  count = runs.id.length;
const NS = "http://www.w3.org/2000/svg";
const svgOf = (name, attributes = {}, text) => {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
};
const el = (name, attributes = {}, ...inside) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...inside);
  return made;
};
const select = (label, options, value, change) => {
  const box = el("select", {}, ...options.map(([id, name]) => el("option", { value: id, selected: String(id) === String(value) }, name)));
  box.addEventListener("change", () => change(box.value));
  box.setAttribute("aria-label", label);
  return el("label", {}, label + " ", box);
};
const two = (value, signed) => {
  if (value === null || value === undefined) return "–";
  const rounded = Math.round(value * 100) / 100 + 0;
  return (signed && rounded >= 0 ? "+" : "") + rounded.toFixed(2);
};
const plain = (value) => (value === null ? "not set" : typeof value === "number" ? String(+value.toPrecision(4)) : value);
// The middle is left out: arms often differ at their ends alone.
const clip = (text, most) => {
  if (text.length <= most) return text;
  const tail = Math.floor((most - 1) / 2);
  return text.slice(0, Math.max(1, most - 1 - tail)) + "…" + (tail > 0 ? text.slice(-tail) : "");
};
// A name that somebody gave, in its own direction; whole at the pointer where it is long.
const named = (name, most = 60) => el("bdi", name.length > most ? { title: name } : {}, clip(name, most));
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

// --- what is chosen -----------------------------------------------------------------------------------------------------------------
const column = (id) => runs.columns.find((one) => one.id === id);
const state = { chosen: new Set(), hot: -1, off: new Set(), words: "", x: "", y: "", curve: "", metric: {}, ledger: {}, marks: new Map() };
const searchable = runs.what.map((what, i) =>
  [
    what,
    `seed=${column("seed").values[i]}`,
    runs.statuses[runs.status[i]],
    runs.id[i],
    ...runs.columns.filter((c) => c.id.startsWith("param.")).map((c) => `${c.name}=${plain(c.values[i])}`),
  ]
    .join(" ")
    .toLowerCase(),
);
let wanted = [];
const visible = (i) => !state.off.has(runs.group[i]) && wanted.every((word) => searchable[i].includes(word));
const views = [];
const changed = () => {
  wanted = state.words.toLowerCase().split(/\s+/).filter(Boolean);
  views.forEach((view) => view());
  const hash = new URLSearchParams();
  if (state.chosen.size) hash.set("runs", [...state.chosen].map((i) => runs.id[i]).join(","));
  for (const group of state.off) hash.append("off", runs.groups[group]); // by name: a report that is written again may have others
  for (const name of ["words", "x", "y", "curve"]) if (state[name]) hash.set(name, state[name]);
  if (Object.keys(state.metric).length)
    hash.set(
      "metric",
      Object.entries(state.metric)
        .map((pair) => pair.join(":"))
        .join(","),
    );
  for (const [name, value] of Object.entries(state.ledger)) hash.set(`ledger.${name}`, value);
  if (state.marks.size) hash.set("marks", [...state.marks].map((pair) => pair.join(":")).join(","));
  const text = hash.toString();
  if (text || location.hash.includes("=")) history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
};
const restore = () => {
  if (!location.hash.includes("=")) return;
  const hash = new URLSearchParams(location.hash.slice(1)),
    listed = (name) => (hash.get(name) ?? "").split(",").filter(Boolean);
  state.chosen = new Set(
    listed("runs")
      .map((id) => runs.id.indexOf(id))
      .filter((i) => i >= 0),
  );
  state.off = new Set(
    hash
      .getAll("off")
      .map((name) => runs.groups.indexOf(name))
      .filter((group) => group >= 0),
  );
  state.ledger = Object.fromEntries([...hash].filter(([name]) => name.startsWith("ledger.")).map(([name, value]) => [name.slice(7), value]));
  state.words = hash.get("words") ?? "";
  for (const axis of ["x", "y"]) state[axis] = column(hash.get(axis)) ? hash.get(axis) : "";
  state.curve = hash.get("curve") ?? "";
  state.metric = Object.fromEntries(listed("metric").map((pair) => pair.split(":")));
  state.marks = new Map(listed("marks").map((pair) => pair.split(":").map(Number)));
};
restore();
const choose = (some, add) => {
  if (!add) state.chosen = new Set(some);
  else for (const i of some) state.chosen[state.chosen.has(i) && some.length === 1 ? "delete" : "add"](i);
  changed();
};
const pick = (i, event) => {
  const only = state.chosen.size === 1 && state.chosen.has(i);
  choose(only ? [] : [i], event.shiftKey || event.ctrlKey || event.metaKey);
};
const hover = (i) => {
  if (state.hot === i) return;
  state.hot = i;
  views.forEach((view) => view(true));
};
// Each figure hands over an element a run: what is switched off hides, what is not chosen fades, what is under the pointer stands out.
const follow = (host, marks) => {
  const update = () => {
    host.classList.toggle("has", state.chosen.size > 0);
    marks.forEach((mark, i) => {
      if (!mark) return;
      mark.classList.toggle("off", !visible(i));
      mark.classList.toggle("on", state.chosen.has(i));
      mark.classList.toggle("hot", state.hot === i);
    });
  };
  update();
  return update;
};
const runWords = (i) => {
  const score = column(data.metric),
    tested = column(data.metric.replace(/^val_/, "test_"));
  const lines = [`${runs.what[i]}, seed ${column("seed").values[i]}, ${runs.statuses[runs.status[i]]}`];
  for (const one of new Set([score, tested])) if (one && one.values[i] !== null) lines.push(`${one.name}: ${two(one.values[i])}`);
  return lines.join("\n");
};
