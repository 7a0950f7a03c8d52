// The page's program. The document is complete without it but for the charts; what it draws comes from the JSON block.
import { unpack } from "./dom.js";
import { bars } from "./bars.js";
import { groups } from "./groups.js";
import { heat } from "./heat.js";
import { maps } from "./maps.js";
import { set } from "./state.js";
import { terms } from "./terms.js";
import { violins } from "./violins.js";

// Paper is white: what is painted for it takes the light colours. Registered before any chart, so that it comes first.
addEventListener("beforeprint", () => document.documentElement.classList.add("printing"));
addEventListener("afterprint", () => document.documentElement.classList.remove("printing"));

const data = JSON.parse(document.getElementById("data").textContent);
for (const side of data.sides) {
  side.neighbours = unpack(side.neighbours, Uint16Array);
  side.distances = unpack(side.distances, Float32Array);
  side.start = unpack(side.start, Float32Array);
}
data.member = data.points.map(() => []); // the groups of each point
data.groups.forEach((group, g) => {
  group.pairs = group.pairs.map((text) => unpack(text, Float32Array));
  group.name = `group ${group.tag}${group.title ? `, ${group.title}` : ""}`;
  // What stands for the group: members drawn at random; the samples with the highest scores need not be typical of it.
  group.shown = group.drawn.length > 0 ? group.drawn : group.points;
  group.strong = group.points.filter((point) => !group.shown.includes(point));
  for (const point of [...group.shown, ...group.strong]) data.member[point].push(g);
});
terms();
if (data.groups.length > 0) {
  set({ group: Math.max(0, data.groups.findIndex((group) => group.clear)) });
  groups(data);
  violins(data);
  bars(data);
  heat(data);
  maps(data);
} else {
  document.documentElement.classList.add("settled");
}
