// Figures of the runs: a scatter of any two columns, curves over each other, parallel coordinates, the score against each setting.
const plots = (explorer) => {
  const enough = data.search?.enough;
  const every = [...runs.id.keys()];
  const defaults = {
    x: enough ? "trial" : (column(data.metric.replace(/^val_/, "test_")) ?? column("seconds")).id,
    y: data.metric,
  };
  if (!column(defaults.y)) defaults.y = "seconds";
  const axis = (name) => column(state[name]) ?? column(defaults[name]);
  const zoom = { plot: null, curve: null };

  const grid = el("div", { className: "pair" });
  explorer.append(grid);
  const zoomBar = (name, redraw) => {
    const into = el("button", { type: "button" }, "zoom to chosen"),
      out = el("button", { type: "button" }, "whole");
    into.addEventListener("click", () => {
      zoom[name] = state.chosen.size ? [...state.chosen] : every.filter(visible);
      redraw();
    });
    out.addEventListener("click", () => {
      zoom[name] = null;
      redraw();
    });
    return [into, out];
  };
  const part = () => grid.appendChild(el("div"));

  // Scatter of any two columns.
  let update = () => {};
  const scatterHost = part(),
    scatterBar = scatterHost.appendChild(el("p", { className: "controls" }));
  const drawScatter = (width) => {
    const [cx, cy] = [axis("x"), axis("y")],
      of = zoom.plot ?? every;
    const [x, y] = [cx, cy].map((c) =>
      axisOf(
        of.map((i) => c.values[i]),
        { log: c.log, whole: c.id === "trial" || c.id === "seed" },
      ),
    );
    const { svg, layer, px, py, box } = frame(width, 300, x, y, [cx.name, cy.name]);
    if (cx.id === "trial" && cy.id === data.metric && data.search?.steps.length && !zoom.plot) {
      const steps = [...data.search.steps, [data.search.last, data.search.steps.at(-1)[1]]];
      layer.append(
        svgOf("path", {
          class: "best",
          d: steps.map(([t, v], i) => (i ? `H${px(Math.min(t, data.search.last))}V${py(v)}` : `M${px(t)} ${py(v)}`)).join(""),
        }),
      );
    }
    const where = every.map((i) => {
      const [vx, vy] = [cx.values[i], cy.values[i]];
      if (vx === null || vy === null) return null;
      const shift = x.words ? (((i * 7919) % 17) / 17 - 0.5) * 10 : 0; // so that equal words do not hide each other
      const at = [px(vx) + shift, py(vy)];
      return at[0] < box.left - 1 || at[0] > box.right + 6 || at[1] < box.top - 6 || at[1] > box.bottom + 1 ? null : at;
    });
    const marks = where.map((at, i) => {
      if (!at) return null;
      const [a, b] = at,
        done = runs.status[i] === 0;
      const mark = done
        ? dot(runs.group[i], a, b, 5)
        : svgOf("path", { d: `M${a - 4} ${b - 4}l8 8m0 -8l-8 8`, stroke: color(runs.group[i]), class: "mark cross" });
      layer.append(listen(mark, i));
      return mark;
    });
    brush(svg, (a, b, c, d) =>
      every.filter((i) => where[i] && where[i][0] >= a && where[i][0] <= c && where[i][1] >= b && where[i][1] <= d),
    );
    svg.addEventListener("dblclick", () => {
      zoom.plot = null;
      redrawScatter();
    });
    update = follow(svg, marks);
    return svg;
  };
  const redrawScatter = figure(
    scatterHost,
    "A mark for each run; a cross did not complete. The line, where there is one: the best so far",
    drawScatter,
  );
  const options = runs.columns.map((c) => [c.id, c.name]);
  const pickAxis = (name, label) =>
    select(label, options, axis(name).id, (id) => {
      state[name] = id === defaults[name] ? "" : id;
      zoom.plot = null;
      redrawScatter();
      changed();
    });
  scatterBar.append(pickAxis("x", "Across"), pickAxis("y", "Up"), ...zoomBar("plot", () => redrawScatter()));
  views.push(() => update());

  // Curves over each other.
  if (data.curves.measures.length) {
    let follows = () => {};
    const host = part(),
      controls = host.appendChild(el("p", { className: "controls" }));
    const usual = (
      data.curves.measures.findLast((m) => m.id.endsWith(`: ${data.metric}`)) ??
      data.curves.measures.findLast((m) => m.id.endsWith(": loss")) ??
      data.curves.measures[0]
    ).id;
    const measure = () => data.curves.measures.find((m) => m.id === state.curve) ?? data.curves.measures.find((m) => m.id === usual);
    const draw = (width) => {
      const lines = Object.entries(data.curves.lines[measure().id]).map(([i, [epochs, values]]) => [
        +i,
        values.map((v, n) => [Array.isArray(epochs) ? epochs[n] : epochs + n, v]),
      ]);
      const of = lines.filter(([i]) => !zoom.curve || zoom.curve.includes(i)),
        points = of.flatMap(([, line]) => line);
      const x = axisOf(
          points.map((p) => p[0]),
          { pad: 0.02, whole: true },
        ),
        y = axisOf(points.map((p) => p[1]));
      const { svg, layer, px, py } = frame(width, 300, x, y, ["epoch", measure().name]);
      const marks = new Array(count).fill(null),
        where = new Map();
      for (const [i, line] of of) {
        const at = line.map(([e, v]) => [px(e), py(v)]);
        where.set(i, at);
        const mark = svgOf("g", { class: "line" }),
          d = at.map((p) => p.map((v) => v.toFixed(1)).join(" ")).join("L");
        mark.append(
          svgOf("path", { d: `M${d}`, class: "wide-hit" }),
          svgOf("path", {
            d: `M${d}`,
            stroke: color(runs.group[i]),
            "stroke-dasharray": ["", "6 3", "2 3", "8 3 2 3"][Math.floor(runs.group[i] / 8) % 4] || undefined,
          }),
        );
        const end = at.at(-1);
        if (runs.status[i] !== 0)
          mark.append(svgOf("path", { d: `M${end[0] - 3} ${end[1] - 3}l6 6m0 -6l-6 6`, stroke: color(runs.group[i]) }));
        else if (at.length === 1) mark.append(svgOf("circle", { cx: end[0], cy: end[1], r: 3, fill: color(runs.group[i]) }));
        layer.append(listen(mark, i));
        marks[i] = mark;
      }
      brush(svg, (a, b, c, d) =>
        [...where].filter(([, at]) => at.some((p) => p[0] >= a && p[0] <= c && p[1] >= b && p[1] <= d)).map(([i]) => i),
      );
      svg.addEventListener("dblclick", () => {
        zoom.curve = null;
        redraw();
      });
      follows = follow(svg, marks);
      return svg;
    };
    const redraw = figure(host, "A line for each run, in the colour of its arm; a cross where one was stopped or broke", draw);
    controls.append(
      select(
        "Curve",
        data.curves.measures.map((m) => [m.id, m.name]),
        measure().id,
        (id) => {
          state.curve = id === usual ? "" : id;
          zoom.curve = null;
          redraw();
          changed();
        },
      ),
      ...zoomBar("curve", () => redraw()),
    );
    views.push(() => follows());
  }

  // Parallel coordinates: from ten completed trials on.
  const searched = runs.columns.filter((c) => runs.searched.includes(c.id)).slice(0, 9);
  if (enough && searched.length > 1) {
    let follows = () => {};
    const host = explorer.appendChild(el("div")),
      score = column(data.metric);
    const lines = every.filter((i) => score && score.values[i] !== null && column("trial").values[i] !== null);
    figure(
      host,
      `Parallel coordinates of the trials, from the worst (orange) to the best (blue) by ${score?.name ?? data.metric}; ` +
        `below an axis: the setting does not count there`,
      (width) => {
        const columns = [...searched, score],
          narrow = width < 560,
          height = narrow ? 46 * columns.length + 40 : 300;
        const svg = svgOf("svg", { viewBox: `0 0 ${width} ${height}` }),
          layer = svgOf("g"),
          text = svgOf("g", { class: "words" });
        svg.append(layer, text);
        const axes = columns.map((c) =>
          axisOf(
            lines.map((i) => c.values[i]),
            { log: c.log, pad: 0 },
          ),
        );
        const span = narrow ? width - 40 : height - 90,
          step = narrow ? 46 : (width - 130) / (columns.length - 1);
        const at = (k, v) => {
          // upright axes side by side, or lying ones below each other where the page is narrow
          const place = v === null ? -0.06 : axes[k].place(v);
          return narrow ? [24 + span * place, 34 + step * k] : [50 + step * k, 48 + span * (1 - place)];
        };
        columns.forEach((c, k) => {
          const spot = (place) => (narrow ? [24 + span * place, 34 + step * k] : [50 + step * k, 48 + span * (1 - place)]);
          const [[x1, y1], [x2, y2]] = [spot(0), spot(1)];
          text.append(svgOf("line", { x1, y1, x2, y2, class: "axis" }));
          text.append(
            svgOf(
              "text",
              narrow
                ? { x: 4, y: y1 - 9, class: "name" }
                : {
                    x: k === columns.length - 1 ? width - 4 : x1,
                    y: k % 2 ? 14 : 30,
                    "text-anchor": k === columns.length - 1 ? "end" : "middle",
                    class: "name",
                  },
              clip(c.name, narrow ? 40 : Math.floor((2 * step) / 7)),
            ),
          );
          const ticks = axes[k].ticks(narrow ? span / 2 : span, narrow ? 90 : 60);
          if (!narrow || !axes[k].words)
            for (const [place, word] of ticks) {
              const [a, b] = spot(place);
              text.append(
                svgOf(
                  "text",
                  narrow ? { x: a, y: b + 13, "text-anchor": "middle", class: "halo" } : { x: a + 5, y: b + 4, class: "halo" },
                  clip(word, Math.floor(step / 7)),
                ),
              );
            }
        });
        const [low, high] = [Math.min(...lines.map((i) => score.values[i])), Math.max(...lines.map((i) => score.values[i]))],
          marks = new Array(count).fill(null),
          where = new Map();
        for (const i of [...lines].sort((a, b) => (data.maximize ? 1 : -1) * (score.values[a] - score.values[b]))) {
          const good = ((score.values[i] - low) / (high - low || 1)) * 100,
            path = columns.map((c, k) => at(k, c.values[i]));
          where.set(i, path);
          const d = "M" + path.map((p) => p.map((v) => v.toFixed(1)).join(" ")).join("L"),
            mark = svgOf("g", { class: "line" });
          mark.append(
            svgOf("path", { d, class: "wide-hit" }),
            svgOf("path", {
              d,
              style: `stroke:color-mix(in oklab, var(--best) ${(data.maximize ? good : 100 - good).toFixed(0)}%, var(--worst))`,
            }),
          );
          layer.append(listen(mark, i));
          marks[i] = mark;
        }
        brush(svg, (a, b, c, d) =>
          [...where].filter(([, path]) => path.some((p) => p[0] >= a && p[0] <= c && p[1] >= b && p[1] <= d)).map(([i]) => i),
        );
        follows = follow(svg, marks);
        return svg;
      },
    );
    views.push(() => follows());
  }

  // Score against each searched setting, small; from ten completed trials on.
  if (enough && searched.length) {
    const order = data.search.importance.map((one) => `param.${one.name}`),
      rank = (c) => order.indexOf(c.id) + 1 || 99;
    const host = explorer.appendChild(el("div", { className: "many" })),
      score = column(data.metric);
    for (const c of [...searched].sort((a, b) => rank(a) - rank(b)).slice(0, 6)) {
      let follows = () => {};
      figure(host, `${score.name} against ${c.name}`, (width) => {
        const some = every.filter((i) => column("trial").values[i] !== null && score.values[i] !== null && c.values[i] !== null);
        const { svg, layer, px, py } = frame(
          width,
          180,
          axisOf(
            some.map((i) => c.values[i]),
            { log: c.log },
          ),
          axisOf(some.map((i) => score.values[i])),
          [c.name, "%"],
          { left: 38 },
        );
        const marks = new Array(count).fill(null),
          where = new Map();
        for (const i of some) {
          where.set(i, [px(c.values[i]), py(score.values[i])]);
          layer.append((marks[i] = listen(dot(runs.group[i], px(c.values[i]), py(score.values[i]), 4), i)));
        }
        brush(svg, (a, b, e, f) => [...where].filter(([, p]) => p[0] >= a && p[0] <= e && p[1] >= b && p[1] <= f).map(([i]) => i));
        follows = follow(svg, marks);
        return svg;
      });
      views.push(() => follows());
    }
  }
};
