// Data with planted groups, the page that specalign makes of it, and a browser to open it in.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { chromium } from "playwright-core";

const PROGRAM = process.env.SPECALIGN_BINARY ?? resolve(import.meta.dirname, "../../../bin/specalign");
const CLASSES = ["only in A", "only in B", "in both", "in neither"];
const HOSTILE = ['</script><script>alert("in a text")</script>', "<img src=x onerror=alert(1)>", "\u202egnipool\u202c \u2066x", "a\u0000b\tc", "x".repeat(10_000)];

export const folder = mkdtempSync(join(tmpdir(), "specalign-report-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

/** Writes an array as an .npy file of version 1. */
function npy(name, descr, shape, data) {
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape.join(", ")},), }`;
  const header = text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11) + "\n";
  const start = Buffer.alloc(10 + header.length);
  start.write("\x93NUMPY\x01\x00", "latin1");
  start.writeUInt16LE(header.length, 8);
  start.write(header, 10);
  writeFileSync(join(folder, name), Buffer.concat([start, Buffer.from(data.buffer)]));
  return join(folder, name);
}

/** Normal numbers from a seed (Lehmer's generator and Box and Muller's method). */
function gaussian(seed) {
  let s = seed;
  const uniform = () => (s = (s * 48271) % 2147483647) / 2147483647;
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** n samples of four classes: the first only A holds together, the second only B, the third both, the fourth neither. */
export function planted(n) {
  const normal = gaussian(1);
  const files = [24, 32].map((d, side) => {
    const centres = CLASSES.map(() => Array.from({ length: d }, normal));
    const rows = new Float32Array(n * d);
    for (let i = 0; i < n; i++) {
      const c = i % 4;
      const held = c === 2 || c === side;
      for (let j = 0; j < d; j++) rows[i * d + j] = held ? 2 * centres[c][j] + 0.3 * normal() : normal();
    }
    return npy(`${["first", "second"][side]}.npy`, "<f4", [n, d], rows);
  });
  const images = new Uint8Array(n * 12 * 12 * 3).map((_, at) => (Math.floor(at / 432) % 4) * 60 + (at % 3) * 20);
  const labels = Array.from({ length: n }, (_, i) => CLASSES[i % 4]);
  const texts = Array.from({ length: n }, (_, i) => (i % 3 === 0 ? HOSTILE[(i / 3) % HOSTILE.length] : `text number ${i}`));
  const ids = Array.from({ length: n }, (_, i) => (i % 5 === 0 ? `</script>&"'${i}` : `sample-${i}`));
  return {
    files,
    images: npy("images.npy", "|u1", [n, 12, 12, 3], images),
    labels: list("labels.txt", labels),
    texts: list("texts.txt", texts),
    ids: list("ids.txt", ids),
    captions: list("captions.txt", labels.map((label) => `Seen ${label}.`)),
  };
}

function list(name, lines) {
  writeFileSync(join(folder, name), lines.join("\n") + "\n");
  return join(folder, name);
}

/** Runs compare and returns the page's path. */
export function page(name, files, ...flags) {
  const path = join(folder, name);
  execFileSync(PROGRAM, ["compare", ...files, "--report", path, ...flags], { stdio: ["ignore", "ignore", "pipe"] });
  return path;
}

export const launch = () =>
  chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: process.getuid() === 0 ? ["--no-sandbox"] : [] });

/**
 * Opens a page from its file. Returns the playwright page; whatever goes wrong in it (errors on the console, exceptions,
 * dialogs, requests) is collected in its `complaints`.
 */
export async function open(browser, path, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, offline: true, reducedMotion: "reduce", ...options });
  const view = await context.newPage();
  view.complaints = [];
  view.on("console", (message) => ["error", "warning"].includes(message.type()) && view.complaints.push(message.text()));
  view.on("pageerror", (error) => view.complaints.push(String(error)));
  view.on("dialog", (dialog) => {
    view.complaints.push(`a dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  view.on("request", (request) => {
    if (!request.url().startsWith("data:") && request.url() !== `file://${path}`) view.complaints.push(`a request: ${request.url()}`);
  });
  await view.goto(`file://${path}`);
  await view.waitForSelector("html.settled", { state: "attached", timeout: 60_000 });
  return view;
}
