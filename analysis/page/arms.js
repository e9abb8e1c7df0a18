// For each table: of every arm the gain over the baseline, ours with its interval beside the paper's, and the level beside it.
const armRows = (table, metric, width, kind) => {
  const gain = kind === "gain",
    narrow = width < 430;
  const { rows } = table;
  const left = narrow ? 10 : Math.min(206, 18 + 7.2 * Math.max(...rows.map((row) => clip(row.name, 26).length)));
  const each = narrow ? 50 : 38,
    top = 30,
    height = top + each * rows.length + 40;
  const ours = (cell) => (gain ? cell.gain : cell.level),
    paper = (cell) => (gain ? cell.paperGain : cell.paper);
  const cells = rows.map((row) => row.cells[metric]);
  const values = cells.flatMap((cell) => [...(ours(cell) ?? []), ...(paper(cell) ?? []), ...(gain ? [0] : cell.seeds.map((s) => s[1]))]);
  const x = axisOf(values, { pad: 0.06 }),
    none = { place: () => 0, ticks: () => [] };
  const { svg, layer, px, box } = frame(
    width,
    height,
    x,
    none,
    [gain ? `gain over ${table.baseline}, points` : `${table.metrics[metric].name}, %`, ""],
    { left, right: 14, top, bottom: 40 },
  );
  for (const [at] of x.ticks(box.right - box.left)) {
    const v = box.left + (box.right - box.left) * at;
    svg.querySelector(".grid").append(svgOf("line", { x1: v, x2: v, y1: top, y2: box.bottom }));
  }
  rows.forEach((_, r) => {
    if (r % 2 === 0) svg.prepend(svgOf("rect", { x: 0, width, y: top + each * r, height: each, class: "band" }));
  });
  if (gain) layer.append(svgOf("line", { x1: px(0), x2: px(0), y1: top, y2: box.bottom, class: "zero" }));
  rows.forEach((row, r) => {
    const cell = cells[r],
      y = top + each * (r + 0.5) + (narrow ? 10 : 0),
      line = svgOf("g", { class: "arm" });
    const name = svgOf(
      "text",
      narrow ? { x: left, y: y - 16 } : { x: left - 10, y: y + 4, "text-anchor": "end" },
      clip(row.name, narrow ? 44 : 26),
    );
    line.append(name);
    const whisker = ([value, low, high], at, kind_) => {
      if (low !== null) line.append(svgOf("line", { x1: px(low), x2: px(high), y1: at, y2: at, class: kind_ }));
      const d = kind_ === "theirs" ? `M${px(value)} ${at - 5}l5 5l-5 5l-5 -5z` : undefined;
      line.append(d ? svgOf("path", { d, class: kind_ }) : svgOf("circle", { cx: px(value), cy: at, r: 5, class: kind_ }));
    };
    if (ours(cell)) whisker(ours(cell), y, "ours");
    else
      line.append(
        svgOf(
          "text",
          { x: Math.max(left, box.left) + 2, y: y + (paper(cell) ? 8 : 4), class: "state" },
          clip(
            gain && row.name === table.baseline
              ? "baseline"
              : cell.word && !row.state
                ? `published: ${cell.word}`
                : row.state || "no pair of runs",
            Math.floor((box.right - box.left) / 6.4),
          ),
        ),
      );
    if (!gain) for (const [, v] of cell.seeds) line.append(svgOf("circle", { cx: px(v), cy: y + 8, r: 2.5, class: "seed" }));
    if (paper(cell)) whisker(paper(cell), y - (narrow ? 7 : 9), "theirs");
    const said = (name_, given, signed) =>
      given
        ? `\n${name_}: ${two(given[0], signed)}${given[1] === null ? "" : ` (${two(given[1], signed)} to ${two(given[2], signed)})`}`
        : "";
    const mine = row.runs.map((id) => runs.id.indexOf(id)).filter((i) => i >= 0);
    line.append(svgOf("rect", { x: 0, width, y: top + each * r, height: each, class: "hit" }));
    const words =
      row.name +
      said("ours", ours(cell), gain) +
      said("published", paper(cell), gain) +
      (gain ? "" : `\nseeds: ${cell.seeds.map((s) => two(s[1])).join(", ") || "none"}`);
    keyed(tipped(line, words, () => choose(mine)), words, () => choose(mine));
    line.dataset.runs = mine.join(" ");
    layer.append(line);
  });
  const several = cells.filter((cell) => cell.gain && cell.gain[1] !== null).length > 1;
  const said = gain ? `ours, ${several ? "simultaneous " : ""}95 % interval` : "ours, 95 % interval; small: seeds";
  const legend = svgOf("g", { class: "words" });
  const last = legend.appendChild(svgOf("circle", { cx: 12, cy: 12, r: 5, class: "ours" }));
  legend.append(svgOf("text", { x: 22, y: 16 }, said));
  if (cells.some((cell) => paper(cell))) {
    const at = 38 + 6.2 * said.length;
    legend.append(svgOf("path", { d: `M${at} 7l5 5l-5 5l-5 -5z`, class: "theirs" }), svgOf("text", { x: at + 10, y: 16 }, "published"));
  }
  svg.append(legend);
  svg.setAttribute("role", "group");
  arrows(svg, ".arm", updown);
  return svg;
};
document.querySelectorAll(".arms").forEach((host) => {
  const table = data.tables.find((one) => one.slug === host.dataset.table);
  const metric = () =>
    Math.max(
      0,
      table.metrics.findIndex((m) => m.id === state.metric[table.slug]),
    );
  const pair = el("div", { className: "pair" }),
    redraws = [];
  if (table.metrics.length > 1)
    host.append(
      el(
        "p",
        { className: "controls" },
        select(
          "Metric",
          table.metrics.map((m, i) => [i, m.name]),
          metric(),
          (value) => {
            if (+value) state.metric[table.slug] = table.metrics[value].id;
            else delete state.metric[table.slug];
            changed();
            redraws.forEach((draw) => draw());
          },
        ),
      ),
    );
  host.append(pair);
  const theirs = table.rows.some((row) => row.cells.some((cell) => cell.paper));
  const gains = table.rows.some((row) => row.cells.some((cell) => cell.gain || cell.paperGain));
  const several = table.rows.filter((row) => row.cells.some((cell) => cell.gain && cell.gain[1] !== null)).length > 1;
  if (gains)
    redraws.push(
      figure(
        pair,
        `Gain of each arm over ${table.baseline}: ours with ${several ? "the interval that holds for all arms together" : "its 95 % interval"}${theirs ? ", and the paper's" : ""}`,
        (width) => armRows(table, metric(), width, "gain"),
      ),
    );
  redraws.push(
    figure(
      pair,
      `Level of each arm: every seed, mean with its 95 % interval${theirs ? ", and the published value with its standard deviation" : ""}`,
      (width) => armRows(table, metric(), width, "level"),
    ),
  );
  const update = () =>
    pair.querySelectorAll(".arm").forEach((line) => {
      const mine = line.dataset.runs.split(" ").filter(Boolean).map(Number);
      line.classList.toggle("on", mine.length > 0 && mine.some((i) => state.chosen.has(i)));
      line.classList.toggle(
        "faded",
        mine.length > 0 && (mine.every((i) => !visible(i)) || (state.chosen.size > 0 && !mine.some((i) => state.chosen.has(i)))),
      );
      line.classList.toggle("hot", mine.includes(state.hot));
    });
  views.push(update);
});
