// Heat maps of both kernel matrices over the groups' samples, ordered by group.
import { interpolateRgb } from "d3-interpolate";
import { colour, context, html, redraw, ring, short, svg, unpack } from "./dom.js";
import { choosable } from "./keys.js";
import { listen, set, state } from "./state.js";
import { hideTip, showTip } from "./tip.js";

export function heat(data) {
  const { points, starts, ranges } = data.heat;
  const n = points.length;
  const values = data.heat.values.map((text) => unpack(text, Uint8Array));
  const groupOf = (i) => starts.findLastIndex((start) => start <= i);
  const value = (side, i, j) => ranges[side][0] + (values[side][i * n + j] / 255) * (ranges[side][1] - ranges[side][0]);

  /** The mean similarity of two different members of a group. */
  const inside = (side, g) => {
    let [sum, count] = [0, 0];
    for (let i = starts[g]; i < starts[g + 1]; i++) {
      for (let j = starts[g]; j < i; j++) [sum, count] = [sum + value(side, i, j), count + 1];
    }
    return count > 0 ? sum / count : 0;
  };

  document.querySelectorAll("canvas.heat").forEach((canvas) => {
    const side = Number(canvas.dataset.side);
    const picture = document.createElement("canvas");
    picture.width = picture.height = n;
    const paint = () => {
      const [low, middle, high] = ["--heat-0", "--heat-1", "--heat-2"].map(colour);
      const lower = interpolateRgb(low, middle);
      const upper = interpolateRgb(middle, high);
      const ramp = Array.from({ length: 256 }, (_, v) => (v < 128 ? lower(v / 127.5) : upper((v - 127.5) / 127.5)).match(/\d+/g).map(Number));
      const image = new ImageData(n, n);
      values[side].forEach((v, at) => image.data.set([...ramp[v], 255], 4 * at));
      picture.getContext("2d").putImageData(image, 0, 0);
    };
    let size = 0;
    const draw = () => {
      size = Math.min(canvas.clientWidth, 560);
      const c = context(canvas, size, size);
      canvas.style.width = `${size}px`;
      c.imageSmoothingEnabled = false;
      c.drawImage(picture, 0, 0, size, size);
      const cell = size / n;
      data.groups.forEach((group, g) => {
        const [from, to] = [starts[g] * cell, starts[g + 1] * cell];
        c.strokeStyle = colour(group.side ? "--b" : "--a");
        c.lineWidth = 1;
        c.strokeRect(from, from, to - from, to - from);
      });
      const [from, to] = [starts[state.group] * cell, starts[state.group + 1] * cell];
      c.beginPath();
      c.rect(from, from, to - from, to - from);
      ring(c, colour("--focus"), colour("--ground"));
    };
    redraw(canvas.parentElement, () => {
      canvas.style.width = "";
      paint();
      draw();
    });
    listen((_, changed) => changed.has("group") && draw());
    choosable(canvas, data, (g) => `mean similarity of its members ${data.names.map((name, s) => `${short(inside(s, g))} in ${name}`).join(", ")}`);
    const cellAt = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientY - box.top, event.clientX - box.left].map((v) => Math.max(0, Math.min(n - 1, Math.floor((v / box.width) * n))));
    };
    canvas.addEventListener("pointermove", (event) => {
      const [i, j] = cellAt(event);
      const other = 1 - side;
      showTip(data, [points[i], points[j]], event.clientX, event.clientY,
        `similarity ${short(value(side, i, j))} in ${data.names[side]}, ${short(value(other, i, j))} in ${data.names[other]}`);
    });
    canvas.addEventListener("pointerleave", hideTip);
    canvas.addEventListener("click", (event) => set({ group: groupOf(cellAt(event)[0]), point: -1 }));

    const legend = document.querySelector(`.ramp[data-side="${side}"]`);
    html(legend, "span", "", `unlike, ${short(ranges[side][0])}`);
    const strip = svg(legend, "svg", { "aria-hidden": "true" });
    const gradient = svg(strip, "linearGradient", { id: `ramp-${side}` });
    ["--heat-0", "--heat-1", "--heat-2"].forEach((name, i) => {
      svg(gradient, "stop", { offset: i / 2 }).style.stopColor = `var(${name})`;
    });
    svg(strip, "rect", { width: "100%", height: "100%", fill: `url(#ramp-${side})` });
    html(legend, "span", "", `${short(ranges[side][1])}, alike`);
  });
}
