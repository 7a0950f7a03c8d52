// Distances inside each group: A's distribution above the line, B's below it.
import { area, curveMonotoneX } from "d3-shape";
import { scaleLinear } from "d3-scale";
import { redraw, short, svg } from "./dom.js";
import { choosable } from "./keys.js";
import { listen, set, state } from "./state.js";

const ROW = 38;
const TOP = 26;
const STEPS = 80;

/** Gaussian kernel density estimate of sorted values, with Silverman's rule of thumb. */
export function density(values, at) {
  const n = values.length;
  const mean = values.reduce((s, v) => s + v, 0) / n;
  const deviation = Math.sqrt(values.reduce((s, v) => s + (v - mean) ** 2, 0) / Math.max(n - 1, 1));
  const spread = (values[Math.floor(0.75 * (n - 1))] - values[Math.floor(0.25 * (n - 1))]) / 1.34;
  const width = Math.max(0.9 * Math.min(deviation, spread || deviation) * n ** -0.2, 0.01);
  return at.map((x) => values.reduce((s, v) => s + Math.exp(-0.5 * ((x - v) / width) ** 2), 0) / (n * width * Math.sqrt(2 * Math.PI)));
}

export function violins(data) {
  const place = document.getElementById("violins");
  // A little beyond the largest distance, where the estimated densities have ended.
  const end = 1.08 * Math.max(1.3, ...data.groups.flatMap((group) => group.pairs.map((pairs) => pairs[pairs.length - 1] ?? 0)));
  const at = Array.from({ length: STEPS + 1 }, (_, i) => (i * end) / STEPS);
  const shapes = data.groups.map((group) => group.pairs.map((pairs) => (pairs.length > 1 ? density(pairs, at) : at.map(() => 0))));
  let rows = [];
  const means = (group) => (group.pairs[0].length > 0 ? `mean distance ${short(group.mean[0])} in ${data.names[0]}, ${short(group.mean[1])} in ${data.names[1]}` : "distances were not measured");
  choosable(place, data, (g) => means(data.groups[g]));
  const mark = () => rows.forEach((row, g) => row.classList.toggle("on", g === state.group));

  redraw(place, (width) => {
    place.replaceChildren();
    const narrow = width < 600;
    const left = narrow ? 44 : 250;
    const height = TOP + ROW * data.groups.length + 8;
    const chart = svg(place, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Distances inside each group in both models; the table of figures has their means" });
    const x = scaleLinear([0, end], [left, width - 12]);
    for (const tick of x.ticks(narrow ? 4 : 8)) {
      svg(chart, "line", { class: tick === 1 ? "grid one" : "grid", x1: x(tick), x2: x(tick), y1: TOP, y2: height });
      svg(chart, "text", { class: "faint", x: x(tick), y: 16, "text-anchor": "middle" }, tick === 1 ? "1 = average" : tick);
    }
    rows = data.groups.map((group, g) => {
      const middle = TOP + ROW * (g + 0.5);
      const row = svg(chart, "g", { "data-group": group.tag });
      svg(row, "text", { x: 6, y: middle + 5, class: group.side ? "fill-b" : "fill-a", "font-weight": 650 }, group.tag);
      if (!narrow) svg(row, "text", { x: 50, y: middle + 5 }, fitting(group.title ?? "", 28));
      group.pairs.forEach((pairs, side) => {
        if (pairs.length === 0) return;
        const tallest = Math.max(...shapes[g][side], 1e-9);
        const up = side ? 1 : -1;
        const shape = area().x((_, i) => x(at[i])).y0(middle).y1((d) => middle + (up * 0.46 * ROW * d) / tallest).curve(curveMonotoneX);
        svg(row, "path", { class: `violin ${side ? "fill-b" : "fill-a"}`, d: shape(shapes[g][side]) });
        svg(row, "circle", { class: side ? "fill-b" : "fill-a", cx: x(group.mean[side]), cy: middle + up * 5, r: 4 });
      });
      const hit = svg(row, "rect", { class: "hit", x: 0, width, y: middle - ROW / 2, height: ROW });
      svg(hit, "title", {}, `${group.tag}: ${means(group)}`);
      hit.addEventListener("click", () => set({ group: g, point: -1 }));
      return row;
    });
    mark();
  });
  listen(mark);
}

const fitting = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
