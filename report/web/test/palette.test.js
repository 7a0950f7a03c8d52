// The colours of the style sheet, as numbers: contrast after WCAG 2.2, and distances (CIEDE2000) as readers with each kind
// of colour blindness see them (Machado, Oliveira and Fernandes 2009, complete deficiency).
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { test } from "node:test";
import { differenceCiede2000, filterDeficiencyDeuter, filterDeficiencyProt, filterDeficiencyTrit, parse, wcagContrast, wcagLuminance } from "culori";

const EYES = { normal: (c) => c, protanopia: filterDeficiencyProt(1), deuteranopia: filterDeficiencyDeuter(1), tritanopia: filterDeficiencyTrit(1) };
const CLASSES = Array.from({ length: 10 }, (_, i) => `c${i}`);
// Distances that small dots need; about 2 is what can be seen at all between large areas.
const SIDES = 30;
const MARKS = 13;
const TEXT = 4.5; // WCAG's contrasts
const SHAPES = 3;

const sheet = readFileSync(resolve(import.meta.dirname, "../../page.css"), "utf8");
const [light, changes] = [...sheet.matchAll(/:root(?::not\(\.printing\))? \{([^}]*)\}/g)].map(([, rules]) =>
  Object.fromEntries([...rules.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map(([, name, value]) => [name, parse(value)])),
);
const distance = differenceCiede2000();

for (const [theme, colours] of Object.entries({ light, dark: { ...light, ...changes } })) {
  const contrast = (name, ground) => wcagContrast(colours[name], colours[ground]);

  test(`texts and marks stand out from their grounds, ${theme}`, () => {
    for (const ground of ["ground", "panel", "a-soft", "b-soft"]) {
      for (const name of ["text", "faint", "a", "b"]) assert.ok(contrast(name, ground) >= TEXT, `${name} on ${ground}: ${contrast(name, ground)}`);
      assert.ok(contrast("focus", ground) >= SHAPES, `focus on ${ground}`);
    }
    for (const name of CLASSES) assert.ok(contrast(name, "panel") >= SHAPES, `${name} on panel: ${contrast(name, "panel")}`);
  });

  for (const [eyes, seen] of Object.entries(EYES)) {
    const apart = (names, least) =>
      names.forEach((x, i) =>
        names.slice(i + 1).forEach((y) => {
          const d = distance(seen(colours[x]), seen(colours[y]));
          assert.ok(d >= least, `${x} and ${y} are ${d.toFixed(1)} apart, less than ${least}`);
        }),
      );

    test(`colours that mean something can be told apart, ${theme}, ${eyes}`, () => {
      apart(["a", "b", "point"], SIDES);
      apart(["a", "b", "null"], SIDES);
      apart([...CLASSES, "point"], MARKS);
      // A heat map is read by lightness.
      const [low, middle, high] = ["heat-0", "heat-1", "heat-2"].map((name) => wcagLuminance(seen(colours[name])));
      assert.ok((middle - low) * (high - middle) > 0, "the ramp turns back");
    });
  }
}
