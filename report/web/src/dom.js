// Small helpers round the document: elements, colours of the current theme, packed numbers.

const NARROWEST = 100; // pixels that a chart needs
const SVG = "http://www.w3.org/2000/svg";

/** Creates an SVG element with attributes, inside parent. */
export function svg(parent, tag, attributes = {}, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

/** Creates an HTML element with a class, inside parent. */
export function html(parent, tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

/** Reads a custom property of the style sheet, such as "--a". */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Unpacks base64 into a typed array (numbers are little-endian, as on every machine that runs a browser). */
export function unpack(text, Type) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Type(bytes.buffer, 0, bytes.length / Type.BYTES_PER_ELEMENT);
}

/** Calls draw now, and again whenever the theme or the element's width changes, and for print. */
export function redraw(element, draw) {
  let width = 0;
  new ResizeObserver(() => {
    const now = element.clientWidth;
    if (now < NARROWEST || now === width) return; // not laid out yet, or nothing new
    width = now;
    draw(width);
  }).observe(element);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => width && draw(width));
  for (const moment of ["beforeprint", "afterprint"]) addEventListener(moment, () => width && draw(width));
}

/** Prepares a canvas of width x height CSS pixels for the screen's resolution and returns its context, cleared. */
export function context(canvas, width, height) {
  const scale = Math.max(window.devicePixelRatio || 1, 2); // 2 also on coarse screens, because pages are printed
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.height = `${height}px`;
  const c = canvas.getContext("2d");
  c.scale(scale, scale);
  return c;
}

/** Strokes the current path so that it is seen on any colour: in one colour, with a seam of another. */
export function ring(c, colour, seam, thickness = 3) {
  for (const [style, width] of [[seam, 2 * thickness], [colour, thickness]]) {
    c.strokeStyle = style;
    c.lineWidth = width;
    c.stroke();
  }
}

/** A number for people: three significant digits. */
export const short = (x) => (x === 0 ? "0" : Number(x.toPrecision(3)).toString());
