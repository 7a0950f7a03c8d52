// Words with a glossary entry show it when they are pointed at or reached by keyboard.
import { hideTip, showText } from "./tip.js";

export function terms() {
  for (const link of document.querySelectorAll("a.term")) {
    const entry = document.querySelector(`${link.hash} dd`);
    if (!entry) continue;
    entry.id = `${link.hash.slice(1)}-text`;
    link.setAttribute("aria-describedby", entry.id);
    const show = () => {
      const box = link.getBoundingClientRect();
      showText(entry.textContent, box.left, box.bottom - 10);
    };
    link.addEventListener("pointerenter", show);
    link.addEventListener("focus", show);
    link.addEventListener("pointerleave", hideTip);
    link.addEventListener("blur", hideTip);
  }
  document.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
  // Not "scroll": moving along a map by keyboard may scroll it into view.
  for (const moved of ["wheel", "touchmove"]) document.addEventListener(moved, hideTip, { passive: true });
}
