// The page of a comparison with planted groups, in a real browser.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import axe from "axe-core";
import { launch, open, page, planted } from "./fixture.js";

const N = 400;
let browser;
let data;
let full; // with everything that a page can have

before(async () => {
  browser = await launch();
  data = planted(N);
  full = page("full.html", data.files, "--top", "4", "--images", data.images, "--labels", data.labels, "--texts", data.texts, "--ids", data.ids);
});
after(() => browser?.close());

/** The tags of all groups, as the list has them. */
const listed = (view) => view.locator(".row .tag").allTextContents();

/** Counts the different colours in a canvas, up to 50: one that was not drawn has one. */
const colours = (canvas) =>
  canvas.evaluate((element) => {
    const { data: pixels } = element.getContext("2d").getImageData(0, 0, element.width, element.height);
    const seen = new Set();
    for (let i = 0; i < pixels.length && seen.size < 50; i += 4) seen.add(pixels.slice(i, i + 4).join());
    return seen.size;
  });

test("says in one sentence what each model sees, and names the planted groups", async () => {
  const view = await open(browser, full);
  const headline = (await view.locator("h1").innerText()).replace(/\s+/g, " ");
  assert.match(headline, /\d groups? (is|are) clearly closer together in first than in second: .*only in A/);
  assert.match(headline, /\d groups? (is|are) clearly closer together in second than in first: .*only in B/);
  assert.match(await view.locator("#group-A1 h3").innerText(), /^A1 (mostly )?only in A$/);
  assert.match(await view.locator("#group-B1 h3").textContent(), /^B1 (mostly )?only in B$/);
  assert.deepEqual(view.complaints, []);
  await view.context().close();
});

test("shows members drawn at random beside those with the highest scores", async () => {
  const view = await open(browser, full);
  const pictures = (kind) => view.locator(`#group-A1 .${kind} img`).evaluateAll((images) => images.map((image) => image.dataset.point));
  const [random, strong] = [await pictures("random"), await pictures("strong")];
  assert.equal(random.length, 24);
  assert.equal(strong.length, 20);
  assert.notDeepEqual(random.slice(0, 20), strong);
  assert.match(await view.locator("#group-A1 caption").innerText(), /all \d+ members/);
  // The row says what the verdict comes from, in figures and in words, and shows pictures of both kinds.
  const row = view.locator('.row[href="#group-A1"]');
  assert.match((await row.locator(".odds").innerText()).replace(/\s+/g, " "), /^A [\d.]+ % B [\d.]+ % ×(\d+|over 100|[\d.]+)$/);
  assert.match(await row.locator(".unseen").textContent(), /% of all pairs are closer than its typical one in first, in second [\d.]+ %: .* times as many$/);
  const kinds = await row.locator(".strip img").evaluateAll((images) => images.map((image) => image.className));
  assert.deepEqual(kinds, [...Array(6).fill(""), "strong", "strong"]);
  const chosen = view.locator("#group-A1");
  assert.match(await chosen.locator(".sure").innerText(), /^How sure: ×.* was measured from .* members?.*\.$/);
  assert.ok(!(await chosen.locator(".exact").isVisible()), "the solver's figures are not behind a fold");
  // On the maps, too, members drawn at random come first.
  const legend = () => view.locator("#legend").innerText();
  assert.match(await legend(), /members of A1, drawn at random\s+rings: its highest scores/);
  await view.locator('.row[href="#group-B1"]').click();
  assert.match(await legend(), /members of B1, drawn at random/);
  await view.context().close();
});

test("lists clear groups first, folds away those that neither model holds closer, and leads back to the list", async () => {
  const view = await open(browser, full);
  const order = await listed(view);
  assert.deepEqual([order[0], order.length], ["A1", 8]);
  const fold = view.locator("details.neither").last();
  const tag = await fold.locator(".tag").first().textContent();
  assert.ok(!(await fold.locator(".row").first().isVisible()));
  // Walking to one of them unfolds it.
  for (let i = 0; i < order.indexOf(tag); i++) await view.getByRole("button", { name: "Next group" }).click();
  assert.equal(await view.locator('.row[aria-current="true"] .tag').innerText(), tag);
  assert.ok(await fold.locator(".row").first().isVisible());
  await view.locator("#back").click();
  assert.equal(await view.evaluate(() => document.activeElement.hash), `#group-${tag}`);
  assert.ok(await view.evaluate(() => document.activeElement.getBoundingClientRect().top < innerHeight));
  assert.deepEqual(view.complaints, []);
  await view.context().close();
});

test("draws every chart", async () => {
  const view = await open(browser, full);
  for (const name of ["canvas.map", "canvas.heat"]) {
    const canvases = view.locator(name);
    assert.equal(await canvases.count(), 2, name);
    for (let i = 0; i < 2; i++) assert.ok((await colours(canvases.nth(i))) > 3, `${name} ${i} is empty`);
  }
  assert.equal(await view.locator("#violins path.violin").count(), 16);
  for (const path of await view.locator("#violins path.violin").all()) assert.doesNotMatch(await path.getAttribute("d"), /NaN|Infinity/);
  assert.ok((await view.locator("#bars .hit").count()) === 8);
  assert.ok((await view.locator("#bars .band").count()) > 0, "the shuffles are not drawn");
  assert.ok(await view.locator(".row .strip img").first().evaluate((image) => image.naturalWidth > 0));
  await view.context().close();
});

test("chooses a group by click, in the overview, the charts and the map", async () => {
  const view = await open(browser, full);
  const shown = async () => (await view.locator(".group:visible h3 .tag").allInnerTexts()).join();
  assert.equal(await shown(), "A1");
  await view.locator('.row[href="#group-B1"]').click();
  assert.equal(await shown(), "B1");
  assert.equal(await view.locator('.row[aria-current="true"] .tag').innerText(), "B1");
  assert.ok(await view.locator("canvas.map").first().isVisible());
  await view.locator('#violins [data-group="A2"] .hit').click();
  assert.equal(await shown(), "A2");
  await view.locator("#bars .hit").nth(1).click();
  assert.equal(await shown(), "A2");
  const order = await listed(view);
  const at = order.indexOf("A2");
  await view.getByRole("button", { name: "Next group" }).click();
  assert.equal(await shown(), order[at + 1]);
  await view.getByRole("button", { name: "Previous group" }).click();
  await view.getByRole("button", { name: "Previous group" }).click();
  assert.equal(await shown(), order[at - 1]);
  const heat = view.locator("canvas.heat").first();
  await heat.scrollIntoViewIfNeeded();
  const { width, height } = await heat.boundingBox();
  await heat.click({ position: { x: width - 3, y: height - 3 } });
  assert.equal(await shown(), order[7]);
  assert.equal(new URL(view.url()).hash, `#group-${order[7]}`);
  assert.deepEqual(view.complaints, []);
  await view.context().close();
});

test("shows a sample that is pointed at in the map, and chooses its group by click", async () => {
  const view = await open(browser, full);
  await view.locator('.row[href="#group-B1"]').click();
  await view.mouse.move(0, 0);
  const map = view.locator("canvas.map").first();
  await map.scrollIntoViewIfNeeded();
  const box = await map.boundingBox();
  // Points that are pointed at in a grid: each must be described, and one of A's groups can be chosen.
  let [met, chosen] = [0, false];
  for (let y = 8; y < box.height && !chosen; y += 9) {
    for (let x = 8; x < box.width && !chosen; x += 9) {
      await view.mouse.move(box.x + x, box.y + y);
      if (!(await view.locator("#tip").isVisible())) continue;
      const said = await view.locator("#tip p").first().innerText();
      assert.match(said, /row \d+/);
      assert.match(said, /only in A|only in B|in both|in neither/);
      assert.ok(await view.locator("#tip canvas").isVisible());
      met++;
      const tag = said.match(/in (A\d)$/)?.[1];
      if (!tag) continue;
      await view.mouse.click(box.x + x, box.y + y);
      assert.equal(await view.locator(".group:visible h3 .tag").innerText(), tag);
      chosen = true;
    }
  }
  assert.ok(met > 0 && chosen, `${met} points met, none of a group of A's`);
  await view.mouse.move(0, 0);
  assert.ok(!(await view.locator("#tip").isVisible()));
  assert.deepEqual(view.complaints, []);
  await view.context().close();
});

test("works by keyboard alone", async () => {
  const view = await open(browser, full);
  await view.keyboard.press("Tab");
  assert.equal(await view.evaluate(() => document.activeElement.textContent), "Skip to the groups");
  await view.locator('.row[href="#group-A1"]').focus();
  await view.keyboard.press("Enter");
  assert.equal(await view.evaluate(() => document.activeElement.id), "group-A1");
  await view.locator("canvas.map").first().focus();
  await view.keyboard.press("ArrowRight");
  assert.match(await view.locator("#said").textContent(), /^1 of \d+: .*in .*A1/);
  await view.keyboard.press("ArrowRight");
  assert.match(await view.locator("#said").textContent(), /^2 of /);
  await view.keyboard.press("ArrowLeft");
  await view.keyboard.press("ArrowLeft");
  assert.match(await view.locator("#said").textContent(), /^(\d+) of \1: /);
  await view.keyboard.press("ArrowDown");
  assert.ok((await view.locator("#said").textContent()).startsWith(`group ${(await listed(view))[1]}`));
  assert.ok(await view.locator("#tip").isVisible());
  await view.keyboard.press("Escape");
  assert.ok(!(await view.locator("#tip").isVisible()));
  await view.locator('a.term[href="#term-average"]').first().focus();
  assert.match(await view.locator("#tip").innerText(), /the mean over [\d,]+ random pairs/);
  assert.deepEqual(view.complaints, []);
  await view.context().close();
});

test("walks through the groups by arrow keys on every chart, and says what it shows of each", async () => {
  const view = await open(browser, full);
  const shown = async () => (await view.locator(".group:visible h3 .tag").allInnerTexts()).join();
  const charts = [["#violins", /^group \w\d, .*: mean distance [\d.]+ in first, [\d.]+ in second$/], ["#bars", /^group \w\d, .*: eigenvalue [\d.]+, shuffled rows [\d.]+ to [\d.]+$/],
    ["canvas.heat >> nth=0", /^group \w\d, .*: mean similarity of its members [\d.]+ in first, -?[\d.]+ in second$/], ["canvas.heat >> nth=1", /^group /]];
  const order = await listed(view);
  for (const [chart, said] of charts) {
    await view.locator(chart).focus();
    assert.notEqual(await view.locator(chart).evaluate((element) => getComputedStyle(element).outlineStyle), "none", `${chart}: the focus is not seen`);
    await view.keyboard.press("Home");
    await view.keyboard.press("ArrowDown");
    assert.equal(await shown(), order[1], chart);
    assert.match(await view.locator("#said").textContent(), said);
    assert.ok((await view.locator("#said").textContent()).startsWith(`group ${order[1]}`), chart);
    await view.keyboard.press("ArrowUp");
    await view.keyboard.press("ArrowLeft");
    assert.equal(await shown(), order[7], chart);
    await view.keyboard.press("End");
    assert.equal(await shown(), order[7], chart);
    await view.keyboard.press("ArrowRight");
    assert.equal(await shown(), "A1", chart);
  }
  assert.deepEqual(view.complaints, []);
  await view.context().close();
});

test("reaches every control by Tab", async () => {
  const view = await open(browser, full);
  const wanted = await view.locator(":is(.row, #back, canvas.map, canvas.heat, .chart, button, select, summary):visible").count();
  const met = new Set();
  for (let i = 0; i < 200; i++) {
    await view.keyboard.press("Tab");
    const [control, seen] = await view.evaluate(() => {
      const element = document.activeElement;
      if (!element.matches(".row, #back, canvas, .chart, button, select, summary")) return [null, true];
      return [[...document.querySelectorAll("*")].indexOf(element), getComputedStyle(element).outlineStyle !== "none"];
    });
    assert.ok(seen, "a control with the focus is not marked");
    if (control !== null) met.add(control);
    if (met.size === wanted) break;
  }
  assert.equal(met.size, wanted);
  await view.context().close();
});

test("colours by label", async () => {
  const view = await open(browser, full);
  await view.locator("#colour").selectOption("class");
  assert.deepEqual((await view.locator("#legend li").allInnerTexts()).slice(2).sort(), ["in both", "in neither", "only in A", "only in B"]);
  await view.context().close();
});

test("lays the map out the same each time", async () => {
  const pictures = [];
  for (let round = 0; round < 2; round++) {
    const view = await open(browser, full);
    pictures.push(await view.locator("canvas.map").first().evaluate((canvas) => canvas.toDataURL()));
    await view.context().close();
  }
  assert.equal(pictures[0], pictures[1]);
});

test("shows hostile texts and ids as text", async () => {
  const view = await open(browser, full);
  assert.equal(await view.locator("script").count(), 2);
  assert.equal(await view.locator("img[src=x]").count(), 0);
  const everything = await view.evaluate(() => document.body.innerText + document.body.textContent);
  assert.ok(everything.includes('</script><script>alert("in a text")</script>'));
  assert.doesNotMatch(everything, /[\u202a-\u202e\u2066-\u2069]|x{500}/);
  assert.deepEqual(view.complaints, []);
  await view.context().close();
});

for (const colorScheme of ["light", "dark"]) {
  for (const width of [1280, 400]) {
    test(`is accessible, ${colorScheme}, ${width} pixels wide`, async () => {
      const view = await open(browser, full, { colorScheme, viewport: { width, height: 860 }, bypassCSP: true, reducedMotion: "reduce" });
      await view.evaluate(axe.source);
      const { violations } = await view.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
      assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((node) => node.html.slice(0, 120)).join(" ")}`), []);
      assert.ok(await view.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "it scrolls sideways");
      const ground = await view.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number)[0]);
      assert.ok(colorScheme === "dark" ? ground < 64 : ground > 192, `the ground is ${ground}`);
      await view.context().close();
    });
  }
}

test("prints all groups, without what needs a pointer", async () => {
  const view = await open(browser, full, { colorScheme: "dark" });
  await view.emulateMedia({ media: "print" });
  assert.equal(await view.locator(".group:visible").count(), 8);
  assert.ok(!(await view.locator(".tools").isVisible()));
  assert.equal(await view.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgb(255, 255, 255)");
  assert.deepEqual(view.complaints, []);
  await view.context().close();
});

test("paints light for paper, and dark again after it", async () => {
  const view = await open(browser, full, { colorScheme: "dark" });
  await view.evaluate(() => {
    const marks = () => {
      const canvas = document.querySelector("canvas.map");
      const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
      copy.drawImage(canvas, 0, 0);
      const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
      const has = (r, g, b) => data.some((v, i) => i % 4 === 0 && v === r && data[i + 1] === g && data[i + 2] === b && data[i + 3] === 255);
      return has(0x1f, 0x5f, 0xbf) ? "light" : has(0x7d, 0xb1, 0xff) ? "dark" : "neither";
    };
    window.painted = [marks()];
    for (const moment of ["beforeprint", "afterprint"]) addEventListener(moment, () => window.painted.push(marks()));
  });
  assert.ok((await view.pdf()).length > 50_000);
  assert.equal(await view.locator("details[open]").count(), 0, "what was unfolded for paper is not folded again");
  assert.deepEqual(await view.evaluate(() => window.painted), ["dark", "light", "dark"]);
  assert.deepEqual(view.complaints, []);
  await view.context().close();
});

test("says everything but the charts without JavaScript", async () => {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const view = await context.newPage();
  await view.goto(`file://${full}`);
  assert.equal(await view.locator(".group:visible").count(), 8);
  assert.match(await view.locator("noscript").innerText(), /JavaScript/);
  await context.close();
});

test("forbids itself to fetch", async () => {
  const view = await open(browser, full);
  const blocked = await view.evaluate(() => fetch("https://example.org/").then(() => "fetched", (error) => error.name));
  assert.equal(blocked, "TypeError");
  assert.ok(view.complaints.some((c) => c.includes("Content Security Policy")));
  await view.context().close();
});

test("is complete with nothing but the embeddings", async () => {
  const path = page("plain.html", data.files);
  const view = await open(browser, path);
  assert.match(await view.locator("h1").innerText(), /clearly closer together in first than in second\./);
  assert.match(await view.locator(".lead").innerText(), /--labels, --images or --texts would show/);
  assert.equal(await view.locator("canvas.map").count(), 2);
  assert.match(readFileSync(path, "utf8"), /specalign compare .*first\.npy .*second\.npy --report/);
  assert.deepEqual(view.complaints, []);
  await view.context().close();
});

test("names the groups by the words of their texts where there are no labels", async () => {
  const view = await open(browser, page("texts.html", data.files, "--texts", data.captions));
  assert.match((await view.locator("h1").innerText()).replace(/\s+/g, " "), /than in second: .*A1 \(mostly “a”.* than in first: .*B1 \(mostly “b”/);
  assert.match(await view.locator('.row[href="#group-A1"] .title').innerText(), /^mostly “a”/);
  assert.match(await view.locator("#group-A1 caption").innerText(), /What tells its texts apart/);
  assert.match(await view.locator("#group-A1 .classes").innerText(), /^\s*a\s+\d+ %\s+25 % of all/m);
  assert.deepEqual(view.complaints, []);
  await view.context().close();
});

test("makes no claim about distances that were not measured", async () => {
  const view = await open(browser, page("bare.html", data.files, "--validate=false", "--certify=false", "--permutations=0", "--koda=0"));
  assert.match(await view.locator("h1").innerText(), /sees \d+ groups more than .* was not measured/s);
  assert.equal(await view.locator(".row.unclear, .row .bell").count(), 0);
  assert.doesNotMatch(await view.evaluate(() => document.body.innerText), /NaN|undefined|clearly/);
  assert.deepEqual(view.complaints, []);
  await view.context().close();
});

test("says that two equal embeddings see the same groups", async () => {
  const view = await open(browser, page("same.html", [data.files[0], data.files[0]]));
  assert.match(await view.locator("h1").innerText(), /see the same groups/);
  assert.deepEqual(view.complaints, []);
  await view.context().close();
});
