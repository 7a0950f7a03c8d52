// The keyboard: a chart that has the focus chooses groups by arrow keys, and a screen reader says what it shows of each.
import { set, state } from "./state.js";

const said = document.getElementById("said");

/** Tells a screen reader something. */
export const say = (text) => {
  said.textContent = text;
};

/** The group that a key leads to from the chosen one; undefined for other keys. */
export function steps(data, event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return undefined;
  const count = data.groups.length;
  switch (event.key) {
    case "ArrowUp":
    case "ArrowLeft":
      return (state.group + count - 1) % count;
    case "ArrowDown":
    case "ArrowRight":
      return (state.group + 1) % count;
    case "Home":
      return 0;
    case "End":
      return count - 1;
  }
  return undefined;
}

/** Lets an element take the focus, and screen readers pass its keys on to it. */
export function focusable(element, kind) {
  element.tabIndex = 0;
  element.setAttribute("role", "application");
  element.setAttribute("aria-roledescription", kind);
}

/** Makes a chart choose groups by keys. `tell(g)` says what it shows of a group. */
export function choosable(element, data, tell) {
  focusable(element, "chart");
  element.addEventListener("keydown", (event) => {
    const group = steps(data, event);
    if (group === undefined) return;
    event.preventDefault();
    set({ group, point: -1 });
    say(`${data.groups[group].name}: ${tell(group)}`);
  });
}
