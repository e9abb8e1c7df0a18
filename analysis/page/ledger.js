// Every test image by arm and seed: filters, marks that become a relabelling csv, and what the marked images do to the arms.
const ledgerHost = document.getElementById("ledger");
if (ledgerHost && data.ledger) {
  const given = data.ledger,
    images = given.files.length,
    PAGE = 10,
    CODES = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  const decode = (text) => [...text].map((sign) => CODES.indexOf(sign));
  const truth = decode(given.truth),
    said = given.runs.map((run) => decode(run.said));
  const armRuns = given.arms.map((_, arm) => [...given.runs.keys()].filter((r) => given.runs[r].arm === arm));
  const share = given.arms.map((_, arm) => truth.map((t, i) => armRuns[arm].filter((r) => said[r][i] === t).length / armRuns[arm].length));
  const rightIn = truth.map((t, i) => said.filter((one) => one[i] === t).length);
  const guess = truth.map((_, i) => {
    const times = new Map();
    for (const one of said) times.set(one[i], (times.get(one[i]) ?? 0) + 1);
    return [...times].sort((a, b) => b[1] - a[1])[0];
  });
  const shown = {
    kind: "doubts",
    a: Math.max(0, given.winner),
    b: Math.max(0, given.baseline),
    class: "",
    patient: "",
    order: "agree",
    page: 0,
  };
  const kinds = {
    doubts: ["no run is right", (i) => rightIn[i] === 0],
    wins: ["the first arm is right, the second wrong", (i) => share[shown.a][i] > 0.5 && share[shown.b][i] < 0.5],
    wrong: ["the first arm is wrong", (i) => share[shown.a][i] < 0.5],
    marked: ["marked", (i) => state.marks.has(given.index[i])],
    all: ["every image", () => true],
  };
  const orders = {
    agree: ["most agreed first", (i) => -guess[i][1]],
    sure: ["the winner's surest mistakes first", (i) => (said[best][i] === truth[i] ? 1000 : 0) - given.sure[i]],
    file: ["by file", (i) => i],
  };
  if (!rightIn.some((n) => n === 0)) shown.kind = given.winner >= 0 && given.baseline >= 0 ? "wins" : "wrong";
  // A mark of an image that is not here, with no class of these, or with the label that the image has already, is none.
  state.marks = new Map(
    [...state.marks].filter(
      ([index, to]) => given.index.includes(index) && Number.isInteger(to) && to >= -1 && to < given.classes.length && to !== truth[given.index.indexOf(index)],
    ),
  );
  // The address has what is chosen by name; what this page does not have is passed over.
  const usual = { ...shown },
    lists = { a: given.arms, b: given.arms, class: given.classes, patient: given.patients };
  for (const [name, value] of Object.entries(state.ledger)) {
    if (Object.hasOwn(lists, name) && lists[name].includes(value)) shown[name] = name.length > 1 ? String(lists[name].indexOf(value)) : lists[name].indexOf(value);
    else if ((name === "kind" && Object.hasOwn(kinds, value)) || (name === "order" && Object.hasOwn(orders, value))) shown[name] = value;
    else if (name === "page") shown.page = (+value || 1) - 1;
  }
  const keep = () => {
    state.ledger = {};
    for (const name of Object.keys(usual))
      if (String(shown[name]) !== String(usual[name])) state.ledger[name] = name === "page" ? shown.page + 1 : (lists[name]?.[shown[name]] ?? shown[name]);
    changed();
  };
  const best = Math.max(
    0,
    given.runs.findIndex((run) => run.key === given.best),
  );
  const found = () =>
    [...truth.keys()]
      .filter(
        (i) =>
          kinds[shown.kind][1](i) &&
          (shown.class === "" || truth[i] === +shown.class) &&
          (shown.patient === "" || given.patient[i] === +shown.patient),
      )
      .sort((p, q) => orders[shown.order][1](p) - orders[shown.order][1](q) || p - q);
  const bar = el("p", { className: "controls" }),
    counted = el("p", { className: "quiet" }),
    hold = el("div", { className: "wide" }),
    pager = el("p", { className: "controls" }),
    effect = el("div");
  counted.setAttribute("aria-live", "polite");
  const again = (name) => (value) => {
    shown[name] = name === "a" || name === "b" ? +value : value;
    shown.page = 0;
    draw();
    keep();
  };
  const arms = given.arms.map((name, i) => [i, clip(name, 30)]);
  bar.append(
    select(
      "Images",
      Object.entries(kinds).map(([id, [name]]) => [id, name]),
      shown.kind,
      again("kind"),
    ),
    select("first arm", arms, shown.a, again("a")),
    select("second arm", arms, shown.b, again("b")),
    select("class", [["", "all"], ...given.classes.map((name, i) => [i, name])], shown.class, again("class")),
  );
  if (given.patients.length)
    bar.append(select("patient", [["", "all"], ...given.patients.map((name, i) => [i, name || "not known"])], shown.patient, again("patient")));
  bar.append(
    select(
      "order",
      Object.entries(orders).map(([id, [name]]) => [id, name]),
      shown.order,
      again("order"),
    ),
  );
  const tally = (some, of, names, most) => {
    const times = new Map();
    for (const i of some) times.set(of[i], (times.get(of[i]) ?? 0) + 1);
    const sorted = [...times].sort((a, b) => b[1] - a[1]);
    return (
      sorted
        .slice(0, most)
        .map(([k, n]) => `${names[k] || "not known"} ${n}`)
        .join(", ") + (sorted.length > most ? `, and ${sorted.length - most} more` : "")
    );
  };
  const picture = (i) => {
    const place = given.pictures[i],
      heat = document.querySelector(`#heat-${given.index[i]} img`);
    if (heat) return heat.cloneNode(); // the image, and where each arm looks
    if (place === undefined) return el("span", { className: "no-picture" });
    const x = (place % 12) * given.tile,
      y = Math.floor(place / 12) * given.tile,
      box = el("span", { className: "picture", role: "img" });
    box.setAttribute("aria-label", given.files[i]);
    box.style.background = `url(${given.sheet}) -${x}px -${y}px`;
    box.style.width = box.style.height = `${given.tile}px`;
    return box;
  };
  const breaks = (name) => name.replaceAll("_", "_\u200b"); // where a line may end
  const row = (i) => {
    const marks = given.arms.map((name, arm) => {
      const cell = el("td", {
        className: "hits",
        title: `${name}: ` + armRuns[arm].map((r) => `seed ${given.runs[r].seed} ${given.classes[said[r][i]]}`).join(", "),
      });
      for (const r of armRuns[arm])
        cell.append(el("b", { className: said[r][i] === truth[i] ? "yes" : "no" }, said[r][i] === truth[i] ? "✓" : "✗"));
      return cell;
    });
    const options = [["", "–"], ["-1", "leave out"], ...given.classes.map((name, c) => [c, name]).filter(([c]) => c !== truth[i])];
    const mark = select("", options, state.marks.get(given.index[i]) ?? "", (value) => {
      if (value === "") state.marks.delete(given.index[i]);
      else state.marks.set(given.index[i], +value);
      known = text();
      changed();
      foot();
    });
    mark.lastChild.setAttribute("aria-label", `mark of ${given.files[i]}`);
    const [c, n] = guess[i],
      who = given.patients.length ? given.patients[given.patient[i]] : "";
    return el(
      "tr",
      {},
      el("td", {}, picture(i)),
      el("th", { scope: "row" }, given.files[i].split("/").at(-1), el("span", { className: "of" }, who ? `patient ${who}` : "")),
      el("td", { className: "left" }, breaks(given.classes[truth[i]])),
      el("td", { className: "left" }, `${breaks(given.classes[c])} (${n} of ${said.length})`),
      el("td", { className: "left" }, mark),
      ...marks,
    );
  };
  const draw = () => {
    const some = found(),
      pages = Math.max(1, Math.ceil(some.length / PAGE));
    shown.page = Math.max(0, Math.min(pages - 1, shown.page));
    counted.textContent =
      `${some.length} of ${plural(images, "image")}` +
      (some.length ? `; by class: ${tally(some, truth, given.classes, 8)}` : "") +
      (some.length && given.patients.length ? `; by patient: ${tally(some, given.patient, given.patients, 6)}` : "") +
      ".";
    const head = el(
      "tr",
      {},
      el("th", {}, ""),
      el("th", { className: "left" }, "Image"),
      el("th", { className: "left" }, "Truth"),
      el("th", { className: "left" }, "Said most"),
      el("th", { className: "left" }, "Mark"),
      ...given.arms.map((name) => el("th", { scope: "col", title: name, className: "hits" }, el("bdi", {}, clip(name, 14)))),
    );
    hold.replaceChildren(
      el(
        "table",
        { className: "tight ledger" },
        el("caption", {}, "A sign for each seed: ✓ right, ✗ wrong."),
        el("thead", {}, head),
        el("tbody", {}, ...some.slice(shown.page * PAGE, (shown.page + 1) * PAGE).map(row)),
      ),
    );
    foot();
  };
  const foot = () => {
    const pages = Math.max(1, Math.ceil(found().length / PAGE));
    const to = (step, name) => {
      const b = el("button", { type: "button", disabled: shown.page + step < 0 || shown.page + step >= pages }, name);
      b.addEventListener("click", () => {
        shown.page += step;
        draw();
        keep();
        const [back, on] = [pager.firstChild, pager.children[1]]; // made anew: who turns pages by keys goes on from the same button
        (step < 0 ? (back.disabled ? on : back) : on.disabled ? back : on).focus();
      });
      return b;
    };
    const save = el("button", { type: "button", disabled: !state.marks.size }, "relabelling csv");
    save.addEventListener("click", () => download("relabelling.csv", csv()));
    pager.replaceChildren(
      to(-1, "earlier"),
      ` ${shown.page + 1} of ${pages} `,
      to(1, "later"),
      " ",
      save,
      ` ${plural(state.marks.size, "image")} marked`,
    );
    tellEffect();
  };
  const csv = () => {
    const quote = (text) => `"${String(text).replaceAll('"', '""')}"`,
      place = new Map(given.index.map((index, i) => [index, i]));
    const rows = [...state.marks]
      .filter(([index]) => place.has(index))
      .sort((a, b) => a[0] - b[0])
      .map(([index, to]) => {
        const i = place.get(index),
          who = given.patients.length ? given.patients[given.patient[i]] : "";
        return [given.files[i], who, given.classes[truth[i]], to < 0 ? "" : given.classes[to], to < 0 ? "leave out" : "relabel", given.data]
          .map(quote)
          .join(",");
      });
    return ["file,patient,label,new_label,mark,data", ...rows, ""].join("\n");
  };
  // What the marks do to the arms: chosen by looking at the arms' mistakes, so it is a what-if and no result.
  const tellEffect = () => {
    if (!state.marks.size) return effect.replaceChildren();
    const to = truth.map((t, i) => (state.marks.has(given.index[i]) ? state.marks.get(given.index[i]) : t)),
      left = to.map((t) => t >= 0);
    const accuracy = (r, labels, some) => {
      let n = 0,
        hit = 0;
      labels.forEach((t, i) => {
        if (some[i]) {
          n++;
          hit += said[r][i] === t;
        }
      });
      return n ? (100 * hit) / n : null;
    };
    const every = truth.map(() => true),
      before = said.map((_, r) => accuracy(r, truth, every)),
      after = said.map((_, r) => accuracy(r, to, left));
    const mean = (values) => (values.length && values.every((v) => v !== null) ? values.reduce((a, b) => a + b) / values.length : null);
    const gain = (arm, values) => {
      if (given.baseline < 0 || arm === given.baseline) return null;
      const base = new Map(armRuns[given.baseline].map((r) => [given.runs[r].seed, values[r]]));
      return mean(
        armRuns[arm].filter((r) => base.has(given.runs[r].seed) && values[r] !== null).map((r) => values[r] - base.get(given.runs[r].seed)),
      );
    };
    const rows = given.arms.map((name, arm) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, named(name)),
        ...[
          two(mean(armRuns[arm].map((r) => before[r]))),
          two(mean(armRuns[arm].map((r) => after[r]))),
          two(gain(arm, before), true),
          two(gain(arm, after), true),
        ].map((v) => el("td", {}, v)),
      ),
    );
    const base = given.baseline < 0 ? "a baseline" : given.arms[given.baseline];
    effect.replaceChildren(
      el(
        "div",
        { className: "wide" },
        el(
          "table",
          { className: "tight", id: "what-if" },
          el(
            "caption",
            {},
            `A what-if and no result: accuracy, %, and gain over ${base}, points, with the ${plural(state.marks.size, "marked image")} ` +
              `left out or relabelled. They were chosen by looking at these runs' mistakes.`,
          ),
          el(
            "thead",
            {},
            el(
              "tr",
              {},
              ...["Arm", "accuracy, %", "with the marks, %", "gain, points", "with the marks, points"].map((name) =>
                el("th", { scope: "col" }, name),
              ),
            ),
          ),
          el("tbody", {}, ...rows),
        ),
      ),
    );
  };
  ledgerHost.append(bar, counted, hold, pager, effect);
  const text = () => [...state.marks].join(";");
  let known = null;
  views.push((light) => {
    if (light || text() === known) return;
    known = text();
    draw();
  });
}
