// Bundles the report's program into dist/report.js, for the Go program to embed.
import { readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const LIMIT = 250_000; // bytes; every report carries the program
const here = dirname(fileURLToPath(import.meta.url));

const { outputFiles, metafile } = await build({
  absWorkingDir: here,
  entryPoints: ["src/main.js"],
  bundle: true,
  minify: true,
  format: "iife",
  target: ["chrome111", "firefox115", "safari16.4"],
  charset: "ascii",
  legalComments: "none",
  metafile: true,
  write: false,
});

// The licences of what was bundled, which ask to be kept with every copy.
const packages = [...new Set(Object.keys(metafile.inputs).flatMap((path) => path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1] ?? []))].sort();
const notices = await Promise.all(
  packages.map(async (name) => {
    const folder = join(here, "node_modules", name);
    const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    for (const file of ["LICENSE", "LICENSE.md", "LICENSE.txt", "license"]) {
      const text = await readFile(join(folder, file), "utf8").catch(() => null);
      if (text !== null) return `${name} ${version}, ${license}\n${text.trim()}`;
    }
    throw new Error(`${name}: no licence text in its package`);
  }),
);
// A closing tag would end the script element that the page puts the program into.
const code = outputFiles[0].text.replaceAll("</script", "<\\/script").replaceAll("<!--", "<\\!--");
const bundle = `/*\n${notices.join("\n\n").replaceAll("*/", "* /")}\n*/\n${code}`;
if (bundle.length > LIMIT) throw new Error(`the bundle has ${bundle.length} bytes, more than ${LIMIT}`);
await writeFile(join(here, "dist/report.js"), bundle);
console.log(`report/web/dist/report.js: ${bundle.length} bytes, with ${packages.join(", ")}`);
