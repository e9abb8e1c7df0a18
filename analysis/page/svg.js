// The tip at the pointer, and a small layer over SVG: axes whose ticks do not touch, frames, brushing, and a figure as a file of its own.
// --- the tip ------------------------------------------------------------------------------------------------------------------------
const tip = el("div", { id: "tip", hidden: true, role: "status" });
document.body.append(tip);
const showTip = (event, words) => {
  tip.textContent = words;
  tip.hidden = false;
  const left = event.clientX + 14 + tip.offsetWidth > innerWidth - 8 ? event.clientX - tip.offsetWidth - 10 : event.clientX + 14;
  tip.style.left = Math.max(4, left) + scrollX + "px";
  tip.style.top = Math.max(4, event.clientY - tip.offsetHeight - 10) + scrollY + "px";
};
const hideTip = () => {
  tip.hidden = true;
};
const tipped = (mark, words, more) => {
  mark.addEventListener("pointermove", (event) => showTip(event, typeof words === "function" ? words() : words));
  mark.addEventListener("pointerleave", hideTip);
  if (more) mark.addEventListener("click", more);
  return mark;
};
// What the pointer does, by keys: Enter and Space choose, and the words stand there while it has the focus.
const keyed = (mark, words, act) => {
  mark.setAttribute("role", "button");
  mark.setAttribute("aria-label", words);
  mark.addEventListener("focus", () => {
    const { left, top } = mark.getBoundingClientRect();
    if (mark.matches(":focus-visible")) showTip({ clientX: left, clientY: top }, words);
  });
  mark.addEventListener("blur", hideTip);
  mark.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    act();
  });
};

// --- a small layer over SVG ---------------------------------------------------------------------------------------------------------
// Eight colours, then the same with another shape.
const color = (group) => `var(--c${group % 8})`;
const swatch = (group) => el("i", { className: `swatch k${Math.floor(group / 8) % 3}`, style: `background:${color(group)}` });
const dot = (group, x, y, r) => {
  const fill = color(group),
    kind = Math.floor(group / 8) % 3;
  if (kind === 0) return svgOf("circle", { cx: x, cy: y, r, fill, class: "mark" });
  const d =
    kind === 1
      ? `M${x - r * 0.85} ${y - r * 0.85}h${1.7 * r}v${1.7 * r}h${-1.7 * r}z`
      : `M${x} ${y - 1.15 * r}l${1.1 * r} ${1.95 * r}h${-2.2 * r}z`;
  return svgOf("path", { d, fill, class: "mark" });
};
const nice = (low, high, most) => {
  const raw = (high - low) / Math.max(1, most) || 1,
    power = 10 ** Math.floor(Math.log10(raw));
  const every = (step) => {
    const ticks = [];
    for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + 1e-9 * step; t += step) ticks.push(+t.toPrecision(12));
    return ticks;
  };
  // One or two ticks tell no scale: then the next finer step.
  const steps = [10, 5, 2, 1, 0.5, 0.2, 0.1].map((f) => f * power),
    first = steps.findLastIndex((s) => s >= raw);
  return steps.slice(first).map(every).find((ticks) => ticks.length > 2) ?? every(steps[first]);
};
// An axis of numbers, their logarithms, or words: place of a value between 0 and 1, and ticks that do not touch at `room` pixels.
const axisOf = (values, { log = false, low, high, pad = 0.04, whole = false } = {}) => {
  const given = values.filter((v) => v !== null && v !== undefined);
  if (given.some((v) => typeof v !== "number")) {
    const words = [...new Set(given.map(plain))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const place = (v) => (words.indexOf(plain(v)) + 0.5) / words.length;
    return {
      place,
      words,
      ticks: (room) => {
        const step = Math.max(1, Math.ceil((18 * words.length) / room));
        return words.filter((_, i) => i % step === 0).map((word) => [place(word), word]);
      },
    };
  }
  const turn = log && given.every((v) => v > 0) ? Math.log10 : (v) => v;
  let from = low ?? Math.min(...given),
    to = high ?? Math.max(...given);
  if (!given.length && low === undefined) [from, to] = [0, 1];
  [from, to] = [turn(from), turn(to)];
  const wide = (to - from || Math.abs(from) || 1) * pad;
  if (low === undefined) from -= wide;
  if (high === undefined) to += wide;
  const place = (v) => (turn(v) - from) / (to - from || 1);
  return {
    place,
    ticks: (room, each = 70) => {
      const most = Math.max(2, Math.floor(room / each));
      if (turn !== Math.log10)
        return nice(from, to, most)
          .filter((t) => !whole || Number.isInteger(t))
          .map((t) => [place(t), String(t)]);
      const powers = [];
      for (let p = Math.floor(from); p <= to; p++) for (const f of to - from < 1.5 ? [1, 2, 5] : [1]) powers.push(f * 10 ** p);
      const within = powers.filter((t) => place(t) >= 0 && place(t) <= 1),
        there = within.length > 2 ? within : nice(10 ** from, 10 ** to, most),
        step = Math.ceil(there.length / most);
      return there.filter((_, i) => i % step === 0).map((t) => [place(t), String(+t.toPrecision(3))]);
    },
  };
};
// A figure with a frame and two axes; `draw` is given the inner layer and functions from values to pixels, at every width anew.
const figure = (host, words, draw) => {
  const made = el("figure"),
    hold = el("div", { className: "plot" }),
    caption = el("figcaption", {}, words + " ");
  const save = el("button", { type: "button", className: "quiet", title: "save this figure as an SVG file" }, "SVG");
  save.addEventListener("click", () =>
    download(`${(words.split(/[:.;]/)[0] || "figure").replace(/\W+/g, "-").toLowerCase()}.svg`, alone(hold.firstChild)),
  );
  made.append(hold, caption);
  caption.append(save);
  host.append(made);
  let drawn = 0;
  const redraw = () => {
    const width = Math.max(260, Math.round(hold.clientWidth || 700));
    drawn = width;
    const svg = draw(width);
    if (!svg.hasAttribute("role")) svg.setAttribute("role", "img"); // what is in an image cannot be reached
    svg.setAttribute("aria-label", words);
    hold.replaceChildren(svg);
  };
  redraw();
  new ResizeObserver(() => {
    if (hold.clientWidth && Math.abs(hold.clientWidth - drawn) > 8) redraw();
  }).observe(hold);
  return redraw;
};
const frame = (width, height, x, y, names, { left = 48, right = 12, top = 8, bottom = 38 } = {}) => {
  const svg = svgOf("svg", { viewBox: `0 0 ${width} ${height}` }),
    inner = { w: width - left - right, h: height - top - bottom };
  const px = (v) => left + inner.w * x.place(v),
    py = (v) => top + inner.h * (1 - y.place(v));
  const grid = svgOf("g", { class: "grid" }),
    words = svgOf("g", { class: "words" }),
    layer = svgOf("g");
  for (const [at, text] of y.ticks(inner.h, 34)) {
    const h = top + inner.h * (1 - at);
    grid.append(svgOf("line", { x1: left, x2: width - right, y1: h, y2: h }));
    words.append(svgOf("text", { x: left - 6, y: h + 4, "text-anchor": "end" }, clip(text, Math.floor(left / 6.4))));
  }
  const each = x.words ? inner.w / x.words.length : 70,
    seen = x.words ? x.ticks(inner.w / 2.2) : x.ticks(inner.w);
  for (const [at, text] of seen)
    words.append(
      svgOf(
        "text",
        { x: left + inner.w * at, y: height - bottom + 16, "text-anchor": "middle" },
        x.words ? clip(text, Math.floor(Math.max(each, inner.w / seen.length) / 7)) : text,
      ),
    );
  words.append(
    svgOf(
      "text",
      { x: left + inner.w / 2, y: height - 6, "text-anchor": "middle", class: "name" },
      clip(names[0], Math.floor(inner.w / 6.4)),
    ),
  );
  words.append(
    svgOf(
      "text",
      { transform: `translate(11 ${top + inner.h / 2}) rotate(-90)`, "text-anchor": "middle", class: "name" },
      clip(names[1], Math.floor(inner.h / 6.2)),
    ),
  );
  grid.append(svgOf("line", { x1: left, x2: width - right, y1: height - bottom, y2: height - bottom, class: "base" }));
  svg.append(grid, layer, words);
  return { svg, layer, px, py, box: { left, right: width - right, top, bottom: height - bottom } };
};
// Pulling a rectangle over a figure chooses what lies in it; a click on nothing lets go.
const brush = (svg, inside) => {
  let from = null,
    box = null,
    pulled = false;
  const at = (event) => {
    const r = svg.getBoundingClientRect(),
      k = svg.viewBox.baseVal.width / r.width;
    return [(event.clientX - r.left) * k, (event.clientY - r.top) * k];
  };
  svg.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch" || event.button) return;
    from = at(event);
    event.preventDefault();
  });
  const move = (event) => {
    if (!from) return;
    const to = at(event);
    if (!box && Math.hypot(to[0] - from[0], to[1] - from[1]) < 5) return;
    if (!box) {
      svg.append((box = svgOf("rect", { class: "brush" })));
      svg.setPointerCapture(event.pointerId);
      hideTip();
    }
    for (const [name, value] of [
      ["x", Math.min(from[0], to[0])],
      ["y", Math.min(from[1], to[1])],
      ["width", Math.abs(to[0] - from[0])],
      ["height", Math.abs(to[1] - from[1])],
    ])
      box.setAttribute(name, value);
  };
  svg.addEventListener("pointermove", move);
  svg.addEventListener("pointerup", (event) => {
    if (box) {
      const [x, y, w, h] = ["x", "y", "width", "height"].map((name) => +box.getAttribute(name));
      choose(inside(x, y, x + w, y + h).filter(visible), event.shiftKey);
      box.remove();
      pulled = true; // the click that ends the pull is none
    }
    from = box = null;
  });
  svg.addEventListener("click", (event) => {
    if (!pulled && event.target === svg && state.chosen.size) choose([]);
    pulled = false;
  });
};
const listen = (mark, i) => {
  mark.addEventListener("pointerenter", () => hover(i));
  mark.addEventListener("pointerleave", () => {
    hover(-1);
    hideTip();
  });
  mark.addEventListener("pointermove", (event) => showTip(event, runWords(i)));
  mark.addEventListener("click", (event) => {
    event.stopPropagation();
    pick(i, event);
  });
  return mark;
};

// --- files --------------------------------------------------------------------------------------------------------------------------
const download = (name, text) => {
  const link = el("a", {
    download: name,
    href: URL.createObjectURL(new Blob([text], { type: name.endsWith("svg") ? "image/svg+xml" : "text/csv" })),
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
const alone = (svg) => {
  // The figure by itself: what the page's style gives it stands in it.
  const copy = svg.cloneNode(true),
    [here, there] = [svg, copy].map((one) => [one, ...one.querySelectorAll("*")]);
  here.forEach((one, i) => {
    const style = getComputedStyle(one);
    for (const name of [
      "fill",
      "stroke",
      "stroke-width",
      "stroke-dasharray",
      "opacity",
      "font-size",
      "font-family",
      "font-weight",
      "display",
    ])
      there[i].style.setProperty(name, style.getPropertyValue(name));
  });
  copy.setAttribute("xmlns", NS);
  copy.style.background = getComputedStyle(document.body).backgroundColor;
  return new XMLSerializer().serializeToString(copy);
};
