// What matters in the search, calibration, the embedding map and the slots; then the page is filled, and a study at work looked at again.
const into = (id, words, draw) => {
  const host = document.getElementById(id);
  if (host) figure(host, words, draw);
};
if (data.search?.importance.length)
  into(
    "importance",
    "Share of the score's variance that each setting explains alone, with its 95 % range over halves of the trials; " +
      "line: what the largest of all stays below by chance in 95 of 100",
    (width) => {
      const found = data.search.importance,
        left = Math.min(180, 18 + 7.1 * Math.max(...found.map((f) => clip(f.name, 22).length)));
      const x = axisOf(
          found.flatMap((f) => [...f.share, f.chance]),
          { low: 0 },
        ),
        y = { place: () => 0, ticks: () => [] },
        height = 30 * found.length + 48;
      const { svg, layer, px } = frame(width, height, x, y, ["share of the variance of the score's rank, %", ""], { left });
      layer.append(svgOf("line", { x1: px(found[0].chance), x2: px(found[0].chance), y1: 8, y2: height - 38, class: "chance" }));
      found.forEach((f, i) => {
        const at = 23 + 30 * i,
          row = svgOf("g", { class: f.share[0] > f.chance ? "arm" : "arm weak" });
        row.append(
          svgOf("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, clip(f.name, 22)),
          svgOf("line", { x1: px(f.share[1]), x2: px(f.share[2]), y1: at, y2: at, class: "ours" }),
          svgOf("circle", { cx: px(f.share[0]), cy: at, r: 5, class: "ours" }),
          svgOf("rect", { x: 0, width, y: at - 15, height: 30, class: "hit" }),
        );
        tipped(
          row,
          `${f.name}: ${two(f.share[0])} % (${two(f.share[1])} to ${two(f.share[2])}); ` +
            `${f.share[0] > f.chance ? "above" : "not above"} chance (${two(f.chance)} %)`,
        );
        layer.append(row);
      });
      return svg;
    },
  );
if (data.calibration)
  into(
    "calibration-figure",
    "Accuracy of the predictions by their confidence, in 10 bins of equal width, those of 10 predictions or more; thin: single runs; bars: share of the predictions",
    (width) => {
      const { all, runs: single } = data.calibration,
        x = axisOf([], { low: 0, high: 100 }),
        y = axisOf([], { low: 0, high: 100 });
      const { svg, layer, px, py } = frame(Math.min(width, 460), 360, x, y, ["confidence, %", "accuracy, %"]),
        total = all.reduce((sum, b) => sum + b[2], 0);
      layer.append(svgOf("line", { x1: px(0), y1: py(0), x2: px(100), y2: py(100), class: "even" }));
      for (const [c, , n] of all)
        layer.append(
          svgOf("rect", {
            x: px(10 * Math.ceil(c / 10 - 1e-9) - 10) + 2,
            width: px(10) - px(0) - 4,
            y: py((40 * n) / total),
            height: py(0) - py((40 * n) / total),
            class: "bar",
          }),
        );
      for (const line of single)
        layer.append(svgOf("path", { d: "M" + line.map((b) => `${px(b[0])} ${py(b[1])}`).join("L"), class: "thin" }));
      layer.append(svgOf("path", { d: "M" + all.map((b) => `${px(b[0])} ${py(b[1])}`).join("L"), class: "ours-line" }));
      for (const [c, a, n] of all)
        layer.append(
          tipped(
            svgOf("circle", { cx: px(c), cy: py(a), r: 5, class: "ours" }),
            `confidence ${two(c)} %, accuracy ${two(a)} %\n${plural(n, "prediction")} (${two((100 * n) / total)} %)`,
          ),
        );
      return svg;
    },
  );
if (data.map)
  for (const panel of data.map.panels)
    into(
      "map",
      `${panel.name}: test images placed by t-SNE of their embedding (seed ${data.map.seed}), ` +
        `coloured by group; distances between far groups mean little`,
      (width) => {
        const size = Math.min(width, 460),
          svg = svgOf("svg", { viewBox: `0 0 ${size} ${size}`, class: "map" }),
          at = (v) => 10 + (v / 999) * (size - 20),
          files = new Map();
        (data.ledger?.index ?? []).forEach((index, i) => files.set(index, data.ledger.files[i]));
        panel.x.forEach((x, i) => {
          const group = panel.group[i],
            name = panel.names[group] ?? String(group),
            file = files.get(data.map.index[i]),
            [a, b] = [at(x), at(999 - panel.y[i])];
          const mark = dot(Math.max(0, group), a, b, 3.2);
          mark.removeAttribute("class");
          svg.append(tipped(mark, file ? `${name}\n${file}` : name));
        });
        const text = svgOf("g", { class: "words" });
        for (const group of new Set(panel.group)) {
          const own = panel.x.map((x, i) => [x, panel.y[i]]).filter((_, i) => panel.group[i] === group),
            middle = (k) => own.map((p) => p[k]).sort((a, b) => a - b)[own.length >> 1];
          text.append(
            svgOf(
              "text",
              {
                x: Math.max(52, Math.min(size - 52, at(middle(0)))),
                y: Math.max(14, at(999 - middle(1))),
                "text-anchor": "middle",
                class: "halo",
              },
              clip(panel.names[group] ?? String(group), 14),
            ),
          );
        }
        svg.append(text);
        return svg;
      },
    );
if (data.slots)
  into("slots", "What each slot did when; empty is idle, a dotted line a pause of the whole study that was cut out", (width) => {
    const { bars, cuts, end, count: slotCount } = data.slots,
      unit = end > 7200 ? 3600 : end > 120 ? 60 : 1,
      each = Math.max(3, Math.min(22, 300 / slotCount)),
      top = 26;
    const x = axisOf([], { low: 0, high: end / unit, pad: 0 }),
      y = { place: () => 0, ticks: () => [] },
      height = top + each * slotCount + 42;
    const { svg, layer, px } = frame(
      width,
      height,
      x,
      y,
      [`${unit === 3600 ? "hours" : unit === 60 ? "minutes" : "seconds"} since the first run began`, ""],
      { left: 48, top },
    );
    const marks = new Array(count).fill(null),
      seen = new Set();
    for (const [slot, status, from, to, run] of bars) {
      const [a, b] = [px(from / unit), px(to / unit)];
      const bar = svgOf("rect", {
        x: a,
        y: top + each * slot + 1,
        width: Math.max(0.8, b - a - 0.5),
        height: each - 2,
        class: `slot s${status}`,
      });
      seen.add(status);
      if (run >= 0) {
        marks[run] = listen(bar, run);
        bar.addEventListener("pointermove", (event) => showTip(event, `${runWords(run)}\n${(to - from).toFixed(0)} s`));
      } else tipped(bar, `${runs.statuses[status]}, ${(to - from).toFixed(0)} s`);
      layer.append(bar);
    }
    for (const cut of cuts)
      layer.append(svgOf("line", { x1: px(cut / unit), x2: px(cut / unit), y1: top, y2: height - 40, class: "even" }));
    const text = svg.lastChild;
    for (let i = 0; i < slotCount; i += Math.ceil(14 / each))
      text.append(svgOf("text", { x: 42, y: top + each * (i + 0.5) + 4, "text-anchor": "end" }, `slot ${i + 1}`));
    let left = 48;
    for (const status of [...seen].sort()) {
      text.append(
        svgOf("rect", { x: left, y: 4, width: 11, height: 11, class: `slot s${status}` }),
        svgOf("text", { x: left + 15, y: 14 }, runs.statuses[status]),
      );
      left += 28 + 6.8 * runs.statuses[status].length;
    }
    const follows = follow(svg, marks);
    views.push(() => {
      if (svg.isConnected) follows();
    });
    return svg;
  });

// Few tab stops: of the files of a table, and of the buttons of figures that stand together, one each.
document.querySelectorAll(".files").forEach((host) => arrows(host, "a", sideways));
document.querySelectorAll(".pair, .many").forEach((host) => arrows(host, "figcaption button", sideways));

// A link within the page leads there and leaves the address to what is chosen.
document.querySelectorAll('a[href^="#"]').forEach((link) =>
  link.addEventListener("click", (event) => {
    const target = document.getElementById(link.hash.slice(1));
    if (!target) return;
    event.preventDefault();
    target.scrollIntoView();
    target.tabIndex = -1;
    target.focus({ preventScroll: true });
  }),
);
changed();
addEventListener("hashchange", () => {
  restore();
  changed();
});
// A study at work: the page is read anew every half minute, unless somebody is at it, and as long as the file is still being written.
if (document.body.dataset.live) {
  let acted = 0;
  for (const name of ["pointermove", "keydown", "wheel", "touchstart"])
    addEventListener(
      name,
      () => {
        acted = Date.now();
      },
      { passive: true },
    );
  setInterval(() => {
    const young = Date.now() - Date.parse(document.lastModified) < 24 * 3600e3; // a run may take hours
    if (young && Date.now() - acted > 10e3) location.reload();
  }, 30e3);
}
