// The spectrum: eigenvalues of both ends by rank, with the range of the shuffles' behind them.
import { scaleLinear } from "d3-scale";
import { redraw, short, svg } from "./dom.js";
import { choosable } from "./keys.js";
import { listen, set, state } from "./state.js";

const HEIGHT = 300;
const EDGE = { left: 56, right: 8, top: 22, bottom: 22 };

export function bars(data) {
  const place = document.getElementById("bars");
  const { values, null: shuffles } = data.spectrum;
  const ranks = Math.max(values[0].length, values[1].length);
  const all = [...values[0], ...values[1], ...shuffles.flat().flatMap((band) => [band.low, band.high]), 0];
  let hits = [];
  choosable(place, data, (g) => {
    const { side, rank } = data.groups[g];
    const band = shuffles[side][rank];
    return `eigenvalue ${short(values[side][rank])}${band ? `, shuffled rows ${short(band.low)} to ${short(band.high)}` : ""}`;
  });
  const mark = () => hits.forEach(({ column, g }) => column.classList.toggle("on", g === state.group));

  redraw(place, (width) => {
    place.replaceChildren();
    hits = [];
    const chart = svg(place, "svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `Eigenvalues: the largest is ${short(values[0][0] ?? 0)}, the smallest ${short(values[1][0] ?? 0)}; the table of figures has all of them` });
    const y = scaleLinear([Math.min(...all), Math.max(...all)], [HEIGHT - EDGE.bottom, EDGE.top]).nice();
    const step = (width - EDGE.left - EDGE.right) / ranks;
    for (const tick of y.ticks(6)) {
      svg(chart, "line", { class: tick === 0 ? "grid one" : "grid", x1: EDGE.left, x2: width, y1: y(tick), y2: y(tick) });
      svg(chart, "text", { class: "faint", x: EDGE.left - 6, y: y(tick) + 4, "text-anchor": "end" }, short(tick));
    }
    for (const side of [0, 1]) {
      values[side].forEach((value, rank) => {
        const column = svg(chart, "g");
        const x = EDGE.left + step * rank;
        const band = shuffles[side][rank];
        if (band) svg(column, "rect", { class: "band", x: x + 0.06 * step, width: 0.88 * step, y: y(Math.max(band.high, 0)), height: Math.abs(y(band.low > 0 ? 0 : band.low) - y(band.high < 0 ? 0 : band.high)) });
        svg(column, "rect", { class: side ? "fill-b" : "fill-a", x: x + 0.22 * step, width: 0.56 * step, y: Math.min(y(value), y(0)), height: Math.max(Math.abs(y(value) - y(0)), 0.5) });
        const g = data.groups.findIndex((group) => group.side === side && group.rank === rank);
        if (g < 0) return;
        svg(column, "text", { class: "faint", x: x + step / 2, y: side ? HEIGHT - 6 : 14, "text-anchor": "middle" }, step > 26 || rank % 5 === 0 ? data.groups[g].tag : "");
        const hit = svg(column, "rect", { class: "hit", x, width: step, y: side ? y(0) : 0, height: side ? HEIGHT - y(0) : y(0) });
        svg(hit, "title", {}, `${data.groups[g].tag}: ${short(value)}`);
        hit.addEventListener("click", () => set({ group: g, point: -1 }));
        hits.push({ column, g });
      });
    }
    mark();
  });
  listen(mark);
}
