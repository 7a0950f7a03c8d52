// Choosing a group: the rows of the overview, the panel beside the map, its buttons, and the address's fragment.
import { html } from "./dom.js";
import { listen, set, state } from "./state.js";
import { samples } from "./tip.js";

const RANDOM = 6; // pictures of members drawn at random in a row of the overview
const STRONG = 2; // of those with the highest scores, behind them

export function groups(data) {
  const articles = [...document.querySelectorAll(".group")];
  const rows = data.groups.map((group) => document.querySelector(`.row[href="#group-${group.tag}"]`));
  rows.forEach((row, g) => {
    const strip = row.querySelector(".strip");
    if (!strip) return;
    const random = [...articles[g].querySelectorAll(".random img")].slice(0, RANDOM);
    const strong = [...articles[g].querySelectorAll(".strong img")].slice(0, STRONG + RANDOM - random.length);
    for (const [i, image] of [...random, ...strong].entries()) {
      html(strip, "img", random.length > 0 && i >= random.length ? "strong" : "").src = image.src;
      strip.lastChild.alt = "";
    }
  });

  const open = (tag, scroll) => {
    const g = data.groups.findIndex((group) => group.tag === tag);
    if (g < 0) return;
    set({ group: g, point: -1 });
    if (scroll) {
      document.getElementById("map").scrollIntoView({ block: "start" });
      articles[g].focus({ preventScroll: true });
    }
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#group-"]');
    if (!link) return;
    event.preventDefault();
    open(link.hash.slice("#group-".length), true);
  });
  const step = (by) => set({ group: (state.group + by + data.groups.length) % data.groups.length, point: -1 });
  document.getElementById("previous").addEventListener("click", () => step(-1));
  document.getElementById("next").addEventListener("click", () => step(1));
  document.querySelector(".walk").hidden = false;
  document.getElementById("back").addEventListener("click", (event) => {
    event.preventDefault();
    rows[state.group].scrollIntoView({ block: "center" });
    rows[state.group].focus({ preventScroll: true });
  });
  // Paper has no fold.
  const folds = [...document.querySelectorAll(".neither, details.figures")];
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = folds.filter((fold) => !fold.open);
    for (const fold of opened) fold.open = true;
  });
  addEventListener("afterprint", () => {
    for (const fold of opened) fold.open = false;
  });
  samples(data, document.querySelector(".chosen"));

  const first = state.group;
  const show = (_, changed) => {
    if (changed.has("group")) {
      const group = data.groups[state.group];
      const fold = rows[state.group].closest("details");
      if (fold) fold.open = true;
      articles.forEach((article, g) => article.classList.toggle("on", g === state.group));
      rows.forEach((row, g) => (g === state.group ? row.setAttribute("aria-current", "true") : row.removeAttribute("aria-current")));
      document.getElementById("which").textContent = `${group.tag} (${state.group + 1} of ${data.groups.length})`;
      if (location.hash.startsWith("#group-") || state.group !== first) history.replaceState(null, "", `#group-${group.tag}`);
    }
    for (const item of document.querySelectorAll(".thumbs li, .texts li")) {
      const point = item.dataset.point ?? item.firstChild.dataset.point;
      item.classList.toggle("here", Number(point) === state.point);
    }
  };
  listen(show);
  document.documentElement.classList.add("live");
  show(state, new Set(["group"]));
  if (location.hash.startsWith("#group-")) open(location.hash.slice("#group-".length), false);
}
