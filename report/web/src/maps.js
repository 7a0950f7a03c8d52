// The two maps: the same points as each model places them. What is pointed at in one is marked in both.
import { colour, context, redraw, ring, svg } from "./dom.js";
import { fitted, layout } from "./layout.js";
import { listen, set, state } from "./state.js";
import { focusable, say, steps } from "./keys.js";
import { describe, hideTip, showTip } from "./tip.js";

const COLOURS = 10; // classes with a colour of their own
const EDGE = 14; // free space round the points, in pixels
const REACH = 14; // how near the pointer must be to a point
const SLICE = 16; // milliseconds of layout at a time
const FRAME = 150; // milliseconds between two pictures of it

export function maps(data) {
  const canvases = [...document.querySelectorAll("canvas.map")];
  const contexts = [];
  let places = [[], []]; // of the points in the unit square
  let size = 0;
  let by = "group";

  const position = (side, point) => places[side][point].map((v) => EDGE + v * (size - 2 * EDGE));
  const dot = (c, side, point, radius) => {
    const [x, y] = position(side, point);
    c.beginPath();
    c.arc(x, y, radius, 0, 2 * Math.PI);
  };

  const draw = () => {
    if (size === 0) return;
    const sides = [colour("--a"), colour("--b")];
    const classes = Array.from({ length: COLOURS }, (_, i) => colour(`--c${i}`));
    const [grey, focus, ground] = ["--point", "--focus", "--ground"].map(colour);
    const chosen = data.groups[state.group];
    contexts.forEach((c, side) => {
      c.clearRect(0, 0, size, size);
      data.points.forEach((p, point) => {
        const group = data.member[point][0];
        const hue = by === "class" ? classes[p.class] : group === undefined ? undefined : sides[data.groups[group].side];
        c.globalAlpha = by === "class" || hue === undefined ? 0.7 : 0.45;
        c.fillStyle = hue ?? grey;
        dot(c, side, point, 2.2);
        c.fill();
      });
      c.globalAlpha = 1;
      const hue = (point) => (by === "class" ? (classes[data.points[point].class] ?? grey) : sides[chosen.side]);
      for (const point of chosen.strong) {
        dot(c, side, point, 3.5);
        ring(c, hue(point), ground, 1.5);
      }
      for (const point of chosen.shown) {
        c.fillStyle = hue(point);
        c.strokeStyle = ground;
        c.lineWidth = 1.5;
        dot(c, side, point, 5.5);
        c.fill();
        c.stroke();
      }
      if (state.point >= 0) {
        dot(c, side, state.point, 9);
        ring(c, focus, ground);
      }
    });
  };

  redraw(canvases[0], (width) => {
    size = width;
    canvases.forEach((canvas, side) => (contexts[side] = context(canvas, width, width)));
    draw();
  });
  listen((_, changed) => {
    draw();
    if (changed.has("group")) legend(data, by);
  });
  settle(data, (found) => {
    places = found;
    draw();
  });

  /** The point nearest to a place on a map; points of the chosen group win where it is close. */
  const nearest = (side, x, y) => {
    let [best, least] = [-1, REACH];
    data.points.forEach((_, point) => {
      const [px, py] = position(side, point);
      const distance = Math.hypot(px - x, py - y) - (data.member[point].includes(state.group) ? 3 : 0);
      if (distance < least) [best, least] = [point, distance];
    });
    return best;
  };

  canvases.forEach((canvas, side) => {
    focusable(canvas, "map");
    const pointed = (event) => {
      const box = canvas.getBoundingClientRect();
      return nearest(side, event.clientX - box.left, event.clientY - box.top);
    };
    canvas.addEventListener("pointermove", (event) => {
      const point = pointed(event);
      set({ point });
      if (point < 0) hideTip();
      else showTip(data, [point], event.clientX, event.clientY);
    });
    canvas.addEventListener("pointerleave", () => {
      set({ point: -1 });
      hideTip();
    });
    canvas.addEventListener("click", (event) => {
      const point = pointed(event);
      const of = point < 0 ? [] : data.member[point];
      // A sample of several groups: each click chooses the next of them.
      if (of.length > 0) set({ group: of[(of.indexOf(state.group) + 1) % of.length], point });
    });
    canvas.addEventListener("keydown", (event) => {
      const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const group = along ? state.group : steps(data, event);
      if (group === undefined) return;
      event.preventDefault();
      const across = !along;
      const { shown, strong, name } = data.groups[group];
      const points = [...shown, ...strong];
      const at = across ? 0 : points.indexOf(state.point);
      const next = across ? 0 : at < 0 ? (along > 0 ? 0 : points.length - 1) : (at + along + points.length) % points.length;
      set({ group, point: points[next] });
      const [x, y] = position(side, state.point);
      const box = canvas.getBoundingClientRect();
      showTip(data, [state.point], box.left + x, box.top + y);
      const text = data.points[state.point].text;
      say(`${across ? `${name}. ` : ""}${next + 1} of ${points.length}: ${describe(data, state.point)}${text ? `. ${text}` : ""}`);
    });
    canvas.addEventListener("blur", () => {
      set({ point: -1 });
      hideTip();
    });
  });

  const select = document.getElementById("colour");
  select.addEventListener("change", () => {
    by = select.value;
    legend(data, by);
    draw();
  });
  legend(data, by);
}

/** Lays both maps out, a slice of time after another so that the page stays usable, and shows them as they form. */
function settle(data, show) {
  const status = document.getElementById("layout");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const n = data.points.length;
  const at = (side) => data.sides[side].points ?? Array.from({ length: n }, (_, i) => [...data.sides[side].start.subarray(2 * i, 2 * i + 2)]);
  const present = () => show(fitted(at(0), at(1)));
  present();
  if (data.nearest < 3) return; // too few points to speak of neighbours: they stay at their principal components
  const runs = data.sides.map((side) => layout(side, n, data.nearest));
  let done = false;
  let drawn = performance.now();
  const advance = (milliseconds) => {
    const end = performance.now() + milliseconds;
    let slowest = 1;
    while (!done && performance.now() < end) {
      const steps = runs.map((run) => run.next());
      done = steps.every((step) => step.done);
      slowest = Math.min(...steps.map((step) => step.value ?? 1));
    }
    status.textContent = done ? "" : `arranging the maps: ${Math.floor(100 * slowest)} %`;
    if (done || (!still && performance.now() - drawn > FRAME)) {
      present();
      drawn = performance.now();
    }
    if (done) document.documentElement.classList.add("settled");
  };
  const later = () => {
    if (done) return;
    advance(SLICE);
    setTimeout(later, 0);
  };
  setTimeout(later, 0);
  addEventListener("beforeprint", () => advance(Infinity));
}

/** The meaning of the colours. */
function legend(data, by) {
  const list = document.getElementById("legend");
  list.replaceChildren();
  const chosen = data.groups[state.group];
  const mark = (text, attributes) => {
    const item = document.createElement("li");
    const circle = svg(svg(item, "svg", { "aria-hidden": "true" }), "circle", { cx: 6, cy: 6, ...attributes });
    item.append(text);
    list.append(item);
    return circle;
  };
  const entry = (name, text) => {
    mark(text, { r: 3.5 }).style.fill = `var(${name})`;
  };
  mark(chosen.drawn.length > 0 ? `large: members of ${chosen.tag}, drawn at random` : `large: the samples of ${chosen.tag}`, { r: 5.5, fill: "currentColor" });
  if (chosen.drawn.length > 0) mark("rings: its highest scores", { r: 4, fill: "none", stroke: "currentColor", "stroke-width": 1.5 });
  if (by === "class") {
    data.classes.slice(0, COLOURS).forEach((label, i) => entry(`--c${i}`, label));
    if (data.classes.length > COLOURS) entry("--point", "all other labels");
    return;
  }
  entry("--a", `seen by ${data.names[0]}`);
  entry("--b", `seen by ${data.names[1]}`);
  entry("--point", "in no group");
}
