// The small panel beside the pointer: what a sample is.
import { html } from "./dom.js";
import { set } from "./state.js";

const tip = document.getElementById("tip");
let sheet;

/** What a sample is, in one line: for the tip and for screen readers. */
export function describe(data, point) {
  const p = data.points[point];
  const parts = [p.id && p.id !== String(p.index) ? `${p.id} (row ${p.index})` : `row ${p.index}`];
  if (p.class !== undefined) parts.push(data.classes[p.class]);
  const tags = data.member[point].map((g) => data.groups[g].tag);
  if (tags.length > 0) parts.push(`in ${tags.join(", ")}`);
  return parts.join(" · ");
}

/** Shows the tip for some samples near a place of the window, with a last line of text. */
export function showTip(data, points, x, y, line) {
  tip.replaceChildren();
  if (data.atlas) {
    const twins = html(tip, "div", "twins");
    for (const point of points) picture(twins, data.atlas, point);
  }
  for (const point of points) {
    html(tip, "p", "", describe(data, point));
    if (data.points[point].text) html(tip, "p", "faint", data.points[point].text);
  }
  if (line) html(tip, "p", "faint", line);
  place(x, y);
}

/** Shows a text in the tip. */
export function showText(text, x, y) {
  tip.replaceChildren();
  html(tip, "p", "", text);
  place(x, y);
}

export const hideTip = () => {
  tip.hidden = true;
};

function place(x, y) {
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 16 + width > innerWidth ? x - 16 - width : x + 16;
  const top = y + 16 + height > innerHeight ? y - 16 - height : y + 16;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}

/** Draws a point's cell of the atlas. */
function picture(parent, atlas, point) {
  const canvas = html(parent, "canvas");
  canvas.width = canvas.height = 192;
  const draw = () =>
    canvas.getContext("2d").drawImage(sheet, (point % atlas.columns) * atlas.cell, Math.floor(point / atlas.columns) * atlas.cell,
      atlas.cell, atlas.cell, 0, 0, canvas.width, canvas.height);
  if (!sheet) {
    sheet = new Image();
    sheet.src = atlas.url;
  }
  if (sheet.complete) draw();
  else sheet.addEventListener("load", draw, { once: true });
}

/** Makes elements with data-point inside a container show their sample and mark it on the map. */
export function samples(data, container) {
  container.addEventListener("pointerover", (event) => {
    const item = event.target.closest("[data-point]");
    if (!item) return;
    const point = Number(item.dataset.point);
    set({ point });
    showTip(data, [point], event.clientX, event.clientY);
  });
  container.addEventListener("pointerout", (event) => {
    if (!event.target.closest("[data-point]")) return;
    set({ point: -1 });
    hideTip();
  });
}
