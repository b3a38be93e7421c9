// The page in a real browser, as a person uses it: `make test-page`. Needs node, npm and Chromium.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createServer as createHttpServer } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { PANES, PYTHON, browser, csv, folder, freePort, open, post, prepare, serve, server } from "./support.mjs";

const AXE = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const KEY = "nf-browser-test-key";
const PAYLOADS = [
  "<script>window.hacked=1</script>",
  "<img src=x onerror=window.hacked=1>",
  '"><svg onload=window.hacked=1>',
  "'-window.hacked=1-'",
  "javascript:window.hacked=1",
  "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
  "<a href=javascript:window.hacked=1>x</a>",
  "{{window.hacked=1}}",
  "${window.hacked=1}",
  "</textarea><script>window.hacked=1</script>",
  "<body onload=window.hacked=1>",
  "<math><mtext><img src=x onerror=window.hacked=1></mtext></math>",
  "<style>@import '//elsewhere.test';</style>",
  "<link rel=stylesheet href=//elsewhere.test>",
  "<base href=//elsewhere.test/>",
  "<form action=//elsewhere.test><button>x</button></form>",
  "<details open ontoggle=window.hacked=1>",
  "\u202e<b>x</b>",
  "<object data=javascript:window.hacked=1></object>",
  "&lt;script&gt;window.hacked=1&lt;/script&gt;",
];

prepare();

async function cosine(a, b) {
  const { data } = await post("v1/embeddings", { model: "text-embedding-3-small", input: [a, b] });
  return data[0].embedding.reduce((sum, value, at) => sum + value * data[1].embedding[at], 0);
}

test("compare: the matrix and the pairs show the API's similarities", async () => {
  const page = await open("try");
  await page.fill("textarea", "a cat on the sofa\nstock prices fell\n고양이가 소파에 있다");
  await page.waitForFunction(() => document.querySelectorAll(".heat tbody tr").length === 3);
  await page.hover(".heat tbody tr:nth-child(1) td:nth-of-type(2)");
  const shown = await page.textContent(".readout b");
  const expected = await cosine("a cat on the sofa", "stock prices fell");
  assert.ok(Math.abs(Number(shown) - expected) < 2e-3, `${shown} ${expected}`);
  assert.match(await page.textContent(".readout"), /1: a cat on the sofa ↔ 2: stock prices fell/);
  assert.deepEqual(await page.locator(".heat .on").allTextContents(), ["2", "1a cat on the sofa"]);
  assert.equal(await page.locator(".pairs li:not(.gap)").count(), 3);
  await page.selectOption("select >> nth=-1", "int8");
  await page.waitForSelector("text=Against float32");
  assert.match(await page.textContent(".result > .about:last-child"), /384 bytes per vector/);
  assert.deepEqual(page.faults, []);
  await page.close();
});

test("compare: nearest pairs are divided at the largest gap, and all are shown on demand", async () => {
  const page = await open("try");
  await page.waitForSelector(".pairs .gap");
  await page.click("button:text-is('Show all 15 pairs')");
  const values = (await page.locator(".pairs b").allTextContents()).map(Number);
  assert.equal(values.length, 15);
  const gaps = values.slice(1).map((value, at) => values[at] - value);
  const above = await page.locator(".pairs li:has(~ .gap) b").count();
  assert.ok(Math.abs(gaps[above - 1] - Math.max(...gaps)) < 2e-3, `${gaps} ${above}`);
  assert.match(await page.textContent(".pairs .gap"), new RegExp(`${gaps[above - 1].toFixed(2)}`));
  await page.close();
});

test("compare: what is shown is marked as old until the new result, and one text has tokens", async () => {
  const page = await open("try");
  await page.waitForSelector(".pairs li");
  await page.route("**/v1/embeddings", (route) => setTimeout(() => route.continue(), 500));
  await page.fill("textarea", "a cat\na dog");
  assert.equal(await page.locator(".result[aria-busy=true]").count(), 1);
  await page.waitForSelector(".result:not([aria-busy])");
  assert.equal(await page.locator(".pairs li").count(), 1);
  await page.click("button:text-is('Clear')");
  await page.waitForSelector("text=Write at least two texts");
  assert.equal(await page.locator(".tokens > *").count(), 0);
  await page.keyboard.type("a single text");
  await page.waitForSelector(".tokens li");
  await page.close();
});

test("compare: tokens that don't reach the model are marked", async () => {
  const page = await open("try");
  await page.fill("textarea", `${"word ".repeat(400)}\nshort`);
  await page.waitForSelector(".token.cut");
  assert.match(await page.textContent(".result .warn"), /146 tokens were cut/);
  await page.click(".tokens summary"); // closes it
  await page.click(".result .warn");
  assert.match(await page.textContent(".tokens .warn"), /146 at the end don't reach the model, after “….*word”/);
  const { y } = await page.locator(".token.cut").first().boundingBox();
  assert.ok(y > 60 && y < 900, `${y}`);
  await page.close();
});

test("compare: tokens are parts of the text in every script", async () => {
  const page = await open("try");
  const texts = ["Grüße 🎉 party", "고양이가 소파에", "أين طردي"];
  await page.fill("textarea", texts.join("\n"));
  await page.waitForFunction(() => document.querySelectorAll(".tokens li").length === 3);
  for (const [at, text] of texts.entries()) {
    const tokens = await page.locator(`.tokens li:nth-child(${at + 1}) .token:not(.special)`).allTextContents();
    for (const token of tokens) assert.ok(text.includes(token), `${token} isn't in ${text}`);
    assert.equal(tokens.join("").replaceAll(" ", "").includes("\uFFFD"), false);
  }
  await page.close();
});

test("compare: tokens of a text that runs from right to left do so too, and none is broken", async () => {
  const page = await open("try");
  await page.fill("textarea", `كيف يمكنني إعادة تعيين كلمة المرور\n${"word ".repeat(60)}`);
  await page.waitForFunction(() => document.querySelectorAll(".tokens li").length === 2);
  await page.click(".tokens summary");
  const [[arabic], heights] = await page.evaluate(() => [
    [...document.querySelectorAll(".tokens p")].map((row) => getComputedStyle(row).direction),
    [...document.querySelectorAll(".tokens li:last-child .token")].map((token) => token.offsetHeight),
  ]);
  assert.equal(arabic, "rtl");
  assert.ok(Math.max(...heights) < 2 * Math.min(...heights), `${heights}`);
  await page.close();
});

test("rerank: documents are sorted by the API's scores", async () => {
  const page = await open("rerank");
  const query = "Where is the cat?",
    documents = ["Bananas are yellow.", "The cat sat on the mat."];
  await page.fill("input[type=text]", query);
  await page.fill("textarea", documents.join("\n"));
  await page.waitForFunction(() => document.querySelectorAll(".ranked li").length === 2);
  const { results } = await post("v2/rerank", { model: "rerank-v3.5", query, documents });
  assert.equal(await page.textContent(".ranked li:first-child p"), documents[results[0].index]);
  assert.ok(Math.abs(Number(await page.textContent(".ranked li:first-child b")) - results[0].relevance_score) < 2e-3);
  assert.match(await page.textContent(".ranked li:first-child .moved"), /up, was 2nd/);
  assert.match(await page.textContent(".result .about"), /isn't a probability: it is \(1 \+ cosine\) \/ 2/);
  await page.waitForSelector("strong:text-is('No reranker is served')");
  const all = "nearfar serve sentence-transformers/all-MiniLM-L6-v2 cross-encoder/ms-marco-MiniLM-L6-v2";
  assert.equal(await page.textContent(".notice code"), all);
  assert.equal(await page.locator(".notice button:text-is('Copy')").count(), 1);
  await page.click("button:text-is('Clear')");
  await page.waitForSelector("text=Write a query and at least two documents");
  assert.deepEqual(page.faults, []);
  await page.close();
});

test("rerank: a multi-vector model shows the words that its score is made of", async () => {
  const model = join(folder, PAYLOADS[1]); // shown as text, as all names are
  const script = `import sys; sys.path.insert(0, "../support"); from pathlib import Path; from small_models import write_colbert; write_colbert(Path(${JSON.stringify(model)}), "bert")`;
  spawnSync(PYTHON, ["-c", script]);
  const { url, child } = await serve({ NEARFAR_MODELS: model });
  const page = await open("rerank", {}, url);
  await page.fill("input[type=text]", "<b>where</b>");
  await page.fill("textarea", "the cat is on the mat\nbananas are yellow");
  await page.waitForFunction(() => document.querySelectorAll(".ranked li details").length === 2);
  await page.click(".ranked li:first-child summary");
  await page.waitForSelector(".matches li");
  const matches = await page.locator(".ranked li:first-child .matches b").allTextContents();
  const mean = matches.reduce((sum, value) => sum + Number(value), 0) / matches.length;
  const score = Number(await page.textContent(".ranked > li:first-child > b"));
  assert.ok(Math.abs((1 + mean) / 2 - score) < 5e-3, `${mean} ${score}`); // (1 + MaxSim / n) / 2
  for (const pane of ["models", "connect", "live", "docs"]) {
    await page.click(`header a[href='#/${pane}']`);
    await page.waitForSelector("main h1");
    await page.waitForTimeout(500);
  }
  await page.click("header a[href='#/models']");
  await page.waitForSelector(`.card h2:text-is(${JSON.stringify(PAYLOADS[1])})`);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.deepEqual(page.faults, []);
  await page.close();
  child.kill();
});

test("map: a file becomes points, and a sentence finds its neighbors", async () => {
  const topics = {
    cooking: ["tomato soup", "boil an egg", "bake bread", "season a pan"],
    travel: ["book a flight", "lost luggage", "train to Rome", "hotel near the sea"],
  };
  const rows = Object.entries(topics).flatMap(([topic, texts]) =>
    texts.flatMap((text) => ["", " today", ", please"].map((end) => [text + end, topic])),
  );
  const page = await open("map");
  await page.setInputFiles("#map-file", await csv("topics.csv", [["text", "topic"], ...rows]));
  await page.waitForSelector("canvas:visible", { timeout: 30_000 });
  await page.fill("input[type=search]", "how do I cook eggs");
  await page.press("input[type=search]", "Enter");
  await page.waitForSelector(".neighbors li");
  assert.match(await page.textContent(".neighbors li:first-child"), /boil an egg/);
  const score = Number(await page.textContent(".neighbors li:first-child b"));
  const text = await page.textContent(".neighbors li:first-child .clamped");
  assert.ok(Math.abs(score - (await cosine("how do I cook eggs", text))) < 2e-3);
  await page.selectOption("label:text('Color by') + select", { label: "topic" });
  assert.equal(await page.locator(".legend li").count(), 2);
  const [saved] = await Promise.all([page.waitForEvent("download"), page.click("text=Save picture")]);
  const png = readFileSync(await saved.path());
  const shown = await page.evaluate(() => document.querySelector("canvas").height);
  assert.equal(png.readUInt32BE(20), 2 * (shown + 2 * 28)); // twice as large, with a line for each topic
  await page.waitForSelector("progress", { state: "detached", timeout: 30_000 });
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("text=Save vectors")]);
  const lines = readFileSync(await download.path(), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.equal(lines.length, rows.length);
  assert.equal(lines[0].topic, "cooking");
  assert.equal(lines[0].embedding.length, 384);
  assert.deepEqual(page.faults, []);
  await page.close();
});

test("map: without a file of one's own, the manual is mapped", async () => {
  const page = await open("map");
  await page.click("text=Map the manual");
  await page.waitForSelector("canvas:visible", { timeout: 60_000 });
  await page.selectOption("label:text('Color by') + select", { label: "page" });
  assert.ok((await page.locator(".legend li").allTextContents()).includes("security"));
  assert.deepEqual(page.faults, []);
  await page.close();
});

test("map: outliers, duplicates and neighbors are found, by keyboard too", async () => {
  const texts = [
    "reset my password",
    "reset my password please",
    "forgot my password",
    "change my password",
    "the Arctic tern migrates between poles",
  ];
  const page = await open("map");
  await page.setInputFiles(
    "#map-file",
    await csv("outlier.csv", [["text", "id"], ...texts.map((text, at) => [text, `${at}`])]),
  );
  await page.waitForSelector("canvas:visible", { timeout: 30_000 });
  await page.waitForSelector("progress", { state: "detached", timeout: 30_000 });
  await page.click("button:text-is('Outliers')");
  assert.match(await page.textContent(".neighbors li:first-child"), /Arctic tern/);
  await page.click("button:text-is('Duplicates')");
  assert.match(await page.textContent(".neighbors li:first-child"), /reset my password.*reset my password please/);
  await page.focus("canvas");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Enter");
  assert.match(await page.textContent(".neighbors h2"), /like “reset my password”/);
  assert.deepEqual(page.faults, []);
  await page.close();
});

test("map: rows of the list name their place in the file and light up on the map, and all are shown again", async () => {
  const long = "Molten lava broke through the crust of the sea, rising 3 km, and darkened the sky";
  const rows = ["reset my password", "a password, once more", long, "the Arctic tern"].map((text, at) => [`T-${at}`, text]);
  const page = await open("map");
  await page.setInputFiles("#map-file", await csv("rows.csv", [["ticket", "text"], ...rows]));
  await page.waitForSelector("canvas:visible", { timeout: 30_000 });
  await page.waitForSelector("progress", { state: "detached", timeout: 30_000 });
  const drawn = () =>
    page.evaluate(async () => {
      await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
      return document.querySelector("canvas").toDataURL();
    });
  const all = await drawn();
  await page.click("button:text-is('Duplicates')");
  assert.match(await page.textContent(".pairs li"), /reset my password.*row 1 · ticket T-0.*row 2 · ticket T-1/);
  assert.equal(await page.locator("button[aria-pressed=true]").textContent(), "Duplicates");
  const marked = await drawn();
  await page.hover(".pairs li:first-child");
  assert.match(await page.textContent(".tip:visible"), /reset my password.*row 1/);
  assert.notEqual(await drawn(), marked);
  await page.keyboard.press("Escape");
  assert.equal(await drawn(), all);
  assert.equal(await page.locator(".neighbors > *").count(), 0);
  await page.fill("input[type=search]", long);
  await page.press("input[type=search]", "Enter");
  await page.waitForSelector("h2:text-is('4 texts like “Molten lava broke through the crust of the sea, rising 3 km…”')");
  await page.fill("input[type=search]", "");
  assert.equal(await page.locator(".neighbors > *").count(), 0);
  assert.equal(await drawn(), all);
  await page.click("button:text-is('Outliers')");
  await page.click("button:has-text('Show all')");
  assert.equal(await drawn(), all);
  assert.deepEqual(page.faults, []);
  await page.close();
});

test("map: pasted lines are mapped", async () => {
  const page = await open("map");
  await page.evaluate(() => {
    const clipboardData = new DataTransfer();
    clipboardData.setData("text", "one cat\ntwo cats\nthree dogs");
    document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
  });
  await page.waitForSelector("small:has-text('3 of 3 texts')");
  await page.close();
});

test("a pane that loads slowly says so, and doesn't replace one that was chosen meanwhile", async () => {
  const page = await open("connect");
  let goOn;
  await page.route("**/openapi.json", async (route) => {
    await new Promise((resolve) => (goOn = resolve));
    await route.continue();
  });
  await page.click("nav >> text=Docs");
  await page.waitForSelector("text=Loading…");
  await page.click("nav >> text=Models");
  await page.waitForSelector(".card");
  const loaded = page.waitForResponse("**/openapi.json");
  goOn();
  await loaded;
  await page.waitForTimeout(500);
  assert.equal(await page.textContent("main h1"), "Models");
  await page.close();
});

test("without a server the page says so, and goes on when it is back", async () => {
  const page = await open("try");
  await page.waitForSelector(".heat");
  await page.route("**/v1/**", (route) => route.abort());
  await page.fill("textarea", "one\ntwo");
  await page.waitForSelector("text=The server isn't responding");
  await page.unroute("**/v1/**");
  await page.click("text=Try again");
  await page.waitForFunction(() => document.querySelectorAll(".heat tbody tr").length === 2);
  await page.close();
});

test("when the server was away and returns, the page goes on without a click", async () => {
  const page = await open("try");
  await page.waitForSelector(".heat");
  await page.context().setOffline(true);
  await page.fill("textarea", "one\ntwo");
  await page.waitForSelector("text=The server isn't responding");
  await page.waitForFunction(() => document.querySelector(".status").textContent === "Server not responding");
  await page.context().setOffline(false);
  await page.waitForFunction(() => document.querySelectorAll(".heat tbody tr").length === 2);
  await page.close();
});

test("map: a file that can't be read says why", async () => {
  const page = await open("map");
  const path = join(folder, "bad.csv");
  await writeFile(path, 'text\n"never ends');
  await page.setInputFiles("#map-file", path);
  await page.waitForSelector(".notice.error");
  assert.match(await page.textContent(".notice.error"), /bad.csv can't be read.*quoted field has no end/);
  const parquet = join(folder, "texts.parquet");
  await writeFile(parquet, "PAR1\0\0PAR1");
  await page.setInputFiles("#map-file", parquet);
  await page.waitForSelector(".notice.error:has-text('texts.parquet can')");
  await page.close();
});

test("map: parquet files are read, whatever their compression", async () => {
  const script = `import json, sys, pyarrow as pa, pyarrow.parquet as pq
texts = [None if at == 3 else text for at, text in enumerate(json.loads(sys.argv[2]))]
table = pa.table({"id": range(len(texts)), "text": texts, "topic": pa.array([f"topic {at % 2}" for at in range(len(texts))]).dictionary_encode()})
for codec in ("none", "snappy", "gzip", "zstd", "brotli"):
    pq.write_table(table, f"{sys.argv[1]}/{codec}.parquet", compression=codec, row_group_size=8)
nested = pa.array([[0.5, 1.0]] * len(texts))
pq.write_table(table.append_column("<i>vector</i>", nested), f"{sys.argv[1]}/some.parquet")
pq.write_table(pa.table({"vector": nested}), f"{sys.argv[1]}/nested.parquet")`;
  assert.equal(spawnSync(PYTHON, ["-c", script, folder, JSON.stringify(PAYLOADS)]).status, 0);
  const page = await open("map");
  assert.deepEqual(await page.evaluate(() => performance.getEntriesByType("resource").filter(({ name }) => name.includes("parquet"))), []);
  for (const name of ["none", "snappy", "gzip", "zstd", "some"]) {
    await page.setInputFiles("#map-file", join(folder, `${name}.parquet`));
    await page.waitForSelector(`small:has-text('${PAYLOADS.length - 1} of ${PAYLOADS.length - 1} texts')`);
    await page.selectOption("label:text('Color by') + select", { label: "topic" });
    assert.deepEqual(await page.locator(".legend li").allTextContents(), ["topic 0", "topic 1"]);
    await page.waitForSelector("progress", { state: "detached", timeout: 30_000 });
    await page.focus("canvas");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("Enter");
    assert.equal(await page.textContent(".neighbors li:first-child .clamped"), PAYLOADS[0]);
  }
  await page.waitForSelector("text=nested columns are left out: <i>vector</i>");
  for (const [name, reason] of [["brotli", "Its compression, BROTLI"], ["nested", "Nested columns can't be shown"]]) {
    await page.setInputFiles("#map-file", join(folder, `${name}.parquet`));
    await page.waitForSelector(`.notice.error:has-text("${reason}")`);
  }
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.deepEqual(page.faults, []);
  await page.close();
});

test("connect: what is copied has this server's address and model", async () => {
  const page = await open("connect");
  await page.click("role=tab[name='OpenAI, Python']");
  const text = await page.textContent("role=tabpanel >> visible=true");
  assert.ok(text.includes(`${server.url}/v1`));
  assert.ok(text.includes("sentence-transformers/all-MiniLM-L6-v2"));
  await page.click("role=tab[name='Open WebUI']");
  assert.match(await page.textContent("role=tabpanel >> visible=true"), /ENABLE_RAG_HYBRID_SEARCH=true/); // asks the reranker
  await page.click("role=tab[name='LangChain']");
  assert.match(await page.textContent("role=tabpanel >> visible=true"), /check_embedding_ctx_length=False/); // works offline
  await page.click("role=tab[name='Continue']");
  assert.match(await page.textContent("role=tabpanel >> visible=true"), /^schema: v1$/m); // a whole file
  await page.click("role=tab[name='OpenAI, Python']");
  await page.press("[role=tab][aria-selected=true]", "ArrowDown");
  assert.equal(await page.textContent("[role=tab][aria-selected=true]"), "OpenAI, Node");
  await page.close();
});

test("models: a model is unloaded and loaded again", async () => {
  const page = await open("models");
  await page.click("text=Unload");
  await page.waitForSelector(".badge.unloaded");
  await page.click("button:text-is('Load')");
  await page.waitForSelector(".badge.loaded", { timeout: 60_000 });
  assert.deepEqual(page.faults, []);
  await page.close();
});

test("docs: the manual is searched, and its links stay in the page", async () => {
  const page = await open("docs");
  await page.fill("input[type=search]", "reranker");
  await page.waitForSelector(".side small");
  assert.deepEqual(await page.locator(".side [aria-live] h2").allTextContents(), ["Manual", "Routes"]);
  await page.fill("input[type=search]", "keys scopes");
  await page.waitForSelector(".side small");
  await page.click(".side a[href^='#/docs/manual/security']");
  await page.waitForSelector("article h1:text-is('Security')");
  const blocks = await page.locator("article pre").count();
  assert.equal(await page.locator("article pre + button:text-is('Copy')").count(), blocks);
  assert.ok(blocks > 0);
  assert.equal(await page.locator("header nav a[aria-current]").textContent(), "Docs");
  const links = await page.locator("article a").evaluateAll((found) => found.map((link) => link.getAttribute("href")));
  assert.deepEqual(
    links.filter((link) => !/^(#\/docs|https:)/.test(link)),
    [],
  );
  assert.deepEqual(page.faults, []);
  await page.close();
});

test("docs: a route is tried with the page's key, which is shown nowhere", async () => {
  const { url, child } = await serve({ NEARFAR_API_KEY: KEY });
  const page = await open("docs/api/post/v1/embeddings", {}, url);
  await page.fill("dialog input", KEY); // asked for by the line of the models' state
  await page.click("text=Use key");
  await page.click("button:text-is('Send')");
  await page.waitForSelector(".trial .status-ok:has-text('200')");
  assert.match(await page.textContent(".trial .body"), /"embedding"/);
  await page.click("a[href='#/models']");
  await page.waitForSelector(".badge.loaded");
  assert.equal(await page.locator("dialog[open]").count(), 0);
  await page.goBack();
  await page.waitForSelector(".trial");
  assert.ok(!(await page.content()).includes(KEY));
  assert.deepEqual(
    page.faults.filter((fault) => !fault.includes("401")),
    [],
  );
  await page.close();
  child.kill();
});

test("docs: routes of every protocol are shown, ready to be tried", async () => {
  const page = await open("docs");
  const links = await page.locator(".contents details a").evaluateAll((found) => found.map(({ hash }) => hash));
  assert.ok(links.length > 90);
  const chosen = await page.locator(".contents details li:last-child a").evaluateAll((found) => found.map(({ hash }) => hash));
  assert.equal(chosen.length, 9);
  for (const link of process.env.EVERY_ROUTE ? new Set(links) : chosen) {
    await page.evaluate((hash) => {
      document.querySelector("article").replaceChildren();
      location.hash = hash;
    }, link);
    await page.waitForSelector("button:text-is('Send')");
  }
  assert.deepEqual(page.faults, []);
  await page.close();
});

test("docs: a route shows its fields, and sends paths, queries, forms and bodies", async () => {
  const page = await open("docs/api/post/v2/rerank");
  const model = page.locator("details:has(> summary:text-is('cohere.RerankV2Request')) tr:has(th code:text-is('query'))");
  assert.match(await model.textContent(), /query required.*string/);
  await page.fill(".trial textarea", '{"model": "none"');
  await page.click("button:text-is('Send')");
  await page.waitForSelector(".trial .warn:has-text('400')");
  await page.evaluate(() => (location.hash = "#/docs/api/get/v1/models/{model_id}"));
  await page.fill("label:text('model_id') + input", "sentence-transformers/all-MiniLM-L6-v2");
  await page.click("button:text-is('Send')");
  await page.waitForSelector(".trial .body:has-text('sentence-transformers/all-MiniLM-L6-v2')");
  await page.evaluate(() => (location.hash = "#/docs/api/post/v1/files"));
  await page.setInputFiles("input[type=file]", { name: "b.jsonl", mimeType: "application/jsonl", buffer: Buffer.from("{}\n") });
  await page.click("button:text-is('Send')");
  await page.waitForSelector(".trial .body:has-text('b.jsonl')");
  await page.evaluate(() => (location.hash = "#/docs/api/get/v1/files"));
  await page.fill("label:text('limit') + input", "1");
  const [request] = await Promise.all([page.waitForRequest("**/v1/files*"), page.click("button:text-is('Send')")]);
  assert.equal(new URL(request.url()).search, "?limit=1");
  await page.waitForSelector(".trial .body:has-text('b.jsonl')");
  assert.deepEqual(
    page.faults.filter((fault) => !fault.includes("400")),
    [],
  );
  await page.close();
});

test("live: requests and tokens are counted", async () => {
  const page = await open("live");
  await page.waitForSelector(".numbers dd");
  for (let at = 0; at < 20; at++) await post("v1/embeddings", { model: "text-embedding-3-small", input: `text ${at}` });
  await page.waitForFunction(
    () => {
      const [requests, tokens] = [...document.querySelectorAll(".numbers dd")].map((element) =>
        parseFloat(element.textContent),
      );
      return requests > 1 && tokens > 5;
    },
    undefined,
    { timeout: 15_000 },
  );
  assert.equal(await page.locator(".uplot").count(), 4);
  await post("v1/embeddings", { model: "text-embedding-3-small", input: "word ".repeat(300) });
  await page.waitForSelector("td:nth-child(8):text-is('46')"); // 300 words, of which 254 fit
  await page.click("a[href='#/connect']"); // the samples go on
  for (let at = 0; at < 2; at++) await page.waitForResponse("**/metrics");
  await page.click("a[href='#/live']");
  await page.waitForSelector(".uplot");
  assert.equal(await page.locator(".uplot").count(), 4);
  assert.deepEqual(page.faults, []);
  await page.close();
});

test("a key is asked for once, and kept nowhere", async () => {
  const { url, child } = await serve({ NEARFAR_API_KEY: KEY });
  const page = (await open("try", {}, url).catch(() => null)) ?? browser.contexts().at(-1).pages().at(-1);
  await page.fill("dialog input", KEY);
  await page.click("text=Use key");
  await page.waitForSelector(".heat");
  await page.goto(`${url}/#/rerank`);
  await page.waitForSelector(".ranked li");
  assert.equal(await page.locator("dialog[open]").count(), 0);
  const kept = await page.evaluate(() =>
    JSON.stringify([
      { ...localStorage },
      { ...sessionStorage },
      document.cookie,
      location.href,
      performance.getEntriesByType("resource").map(({ name }) => name),
    ]),
  );
  assert.ok(!kept.includes(KEY));
  await page.goto(`${url}/#/live`); // shows the last requests
  await page.waitForSelector(".list tbody tr");
  assert.ok(!(await page.content()).includes(KEY));
  assert.match(child.log, /v1\/embeddings/);
  assert.ok(!child.log.includes(KEY));
  await page.close();
  child.kill();
});

test("no other page can embed this one", async () => {
  const body = `<iframe src="${server.url}/"></iframe><iframe src="${server.url}/docs/manual"></iframe>`;
  const other = createHttpServer((_, answer) => answer.setHeader("content-type", "text/html").end(body));
  const port = await freePort();
  await new Promise((resolve) => other.listen(port, "127.0.0.1", resolve));
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${port}/`);
  const [, ...frames] = page.frames().map((frame) => frame.url());
  assert.deepEqual(frames, Array(2).fill("chrome-error://chromewebdata/"));
  await page.close();
  other.close();
});

test("a page from elsewhere can't change what is loaded", async () => {
  const page = await browser.newPage();
  await page.route("http://elsewhere.test/", (route) => route.fulfill({ contentType: "text/html", body: "<h1>x</h1>" }));
  await page.goto("http://elsewhere.test/");
  const isReadable = (path) => page.evaluate((url) => fetch(url).then(() => true, () => false), `${server.url}/${path}`);
  assert.deepEqual([false, false, false], [await isReadable("info"), await isReadable("admin/requests"), await isReadable("admin/models")]);
  await page.evaluate(async (url) => {
    const body = JSON.stringify({ model: "sentence-transformers/all-MiniLM-L6-v2" });
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/json"])
      await fetch(`${url}/admin/models/unload`, { method: "POST", mode: "no-cors", headers: { "content-type": type }, body }).catch(() => {});
    const form = Object.assign(document.createElement("form"), { method: "post", action: `${url}/admin/models/unload`, enctype: "text/plain" });
    const field = Object.assign(document.createElement("input"), { name: body.slice(0, -1) + ',"x":"', value: '"}' });
    form.append(field);
    document.body.append(form);
    form.submit();
  }, server.url);
  await sleep(1_000);
  const { models } = await (await fetch(`${server.url}/info`)).json();
  assert.deepEqual(
    models.map(({ state }) => state),
    ["loaded"],
  );
  await page.close();
});

test("texts, columns and file names are shown as text", async () => {
  const page = await open("try");
  await page.fill("textarea", PAYLOADS.join("\n"));
  await page.waitForFunction((count) => document.querySelectorAll(".heat tbody tr").length === count, PAYLOADS.length);
  await page.goto(`${server.url}/#/rerank`);
  await page.fill("input[type=text]", PAYLOADS[1]);
  await page.fill("textarea", PAYLOADS.join("\n"));
  await page.waitForFunction((count) => document.querySelectorAll(".ranked li").length === count, PAYLOADS.length);
  await page.goto(`${server.url}/#/map`);
  const rows = PAYLOADS.map((payload, at) => [payload, PAYLOADS[at % 3]]);
  await page.setInputFiles(
    "#map-file",
    await csv("<img src=x onerror=window.hacked=1>.csv".replaceAll("/", ""), [[PAYLOADS[0], PAYLOADS[1]], ...rows]),
  );
  await page.waitForSelector("canvas:visible", { timeout: 30_000 });
  await page.fill("input[type=search]", PAYLOADS[2]);
  await page.press("input[type=search]", "Enter");
  await page.waitForSelector(".neighbors li");
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.deepEqual(page.faults, []);
  await page.close();
});

test("names, errors and documents that others wrote are shown as text", async () => {
  for (const name of PAYLOADS) await fetch(`${server.url}/${encodeURIComponent(name)}`, { method: "POST", headers: { "x-request-id": name.replace(/[^ -~]/g, "") } });
  const page = await open("live");
  await page.waitForSelector(".list tbody tr");
  await page.goto(`${server.url}/#/docs/api/post/v1/embeddings`);
  await page.fill(".trial textarea", JSON.stringify({ model: PAYLOADS.join(), input: "a" }));
  await page.click("button:text-is('Send')");
  await page.waitForSelector(`.trial .body:has-text(${JSON.stringify(PAYLOADS[0])})`);
  await page.goto(`${server.url}/#/map`);
  const rows = PAYLOADS.map((text, at) => ({ [PAYLOADS[0]]: text, [PAYLOADS[1]]: PAYLOADS[at % 3] }));
  const buffer = Buffer.from(rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  await page.setInputFiles("#map-file", { name: PAYLOADS[1], mimeType: "text/plain", buffer: Buffer.from("\0") });
  await page.waitForSelector(`strong:has-text(${JSON.stringify(PAYLOADS[1])})`);
  await page.setInputFiles("#map-file", { name: "a.jsonl", mimeType: "text/plain", buffer });
  await page.selectOption("label:text('Color by') + select", { label: PAYLOADS[1] });
  assert.equal(await page.locator(".legend li").count(), 3);
  await page.route("**/v1/embeddings", (route) => route.fulfill({ status: 500, json: { error: { message: PAYLOADS.join() } } }));
  await page.fill("input[type=search]", "a");
  await page.press("input[type=search]", "Enter");
  await page.waitForSelector(`.notice.error p:has-text(${JSON.stringify(PAYLOADS[0])})`);
  const operation = { summary: PAYLOADS[0], description: PAYLOADS.join("\n\n"), tags: [PAYLOADS[2]], responses: {} };
  const content = { "application/json": { schema: { properties: { [PAYLOADS[1]]: { enum: PAYLOADS } } } } };
  const api = { tags: [{ name: PAYLOADS[2] }], paths: { "/x": { post: { ...operation, requestBody: { content } } } } };
  await page.route("**/openapi.json", (route) => route.fulfill({ json: api }));
  await page.reload();
  await page.goto(`${server.url}/#/docs/api/post/x`);
  await page.waitForSelector(`h1:text-is(${JSON.stringify(PAYLOADS[0])})`);
  await page.waitForSelector(`th:has-text(${JSON.stringify(PAYLOADS[1])})`);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.deepEqual(
    page.faults.filter((fault) => !/40\d|500/.test(fault)),
    [],
  );
  await page.close();
});

test("no pane has a fault that axe finds, in light and dark, small and large", async () => {
  for (const colorScheme of ["light", "dark"]) {
    for (const viewport of [
      { width: 360, height: 740 },
      { width: 1280, height: 900 },
      { width: 2560, height: 1440 },
    ]) {
      for (const pane of [...PANES, "docs/manual/configuration", "docs/api/post/v2/rerank"]) {
        const page = await open(pane, { colorScheme, viewport });
        await page.waitForLoadState("networkidle").catch(() => {});
        if (pane.startsWith("docs/api")) await page.waitForSelector("button:text-is('Send')");
        await page.evaluate(AXE);
        const found = await page.evaluate(async () =>
          (await axe.run()).violations.map(({ id, nodes }) => `${id}: ${nodes[0].target}`),
        );
        assert.deepEqual(found, [], `${pane} ${colorScheme} ${viewport.width}`);
        if (pane === "try") {
          await page.fill(
            "textarea",
            Array.from({ length: 60 }, (_, at) => `text number ${at} ${"x".repeat(at === 3 ? 500 : 1)}`).join("\n"),
          );
          await page.waitForFunction(() => document.querySelectorAll(".heat tbody tr").length === 60);
        }
        const overflow = await page.evaluate(
          () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
        );
        assert.equal(overflow, 0, `${pane} ${viewport.width}: it scrolls sideways`);
        await page.close();
      }
    }
  }
});

test("the page paints early, shifts nothing and never blocks", async () => {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  await page.addInitScript(() => {
    window.measured = { shift: 0, longest: 0 };
    new PerformanceObserver((list) =>
      list.getEntries().forEach((entry) => {
        if (!entry.hadRecentInput) window.measured.shift += entry.value;
      }),
    ).observe({ type: "layout-shift", buffered: true });
    new PerformanceObserver((list) =>
      list.getEntries().forEach((entry) => {
        window.measured.longest = Math.max(window.measured.longest, entry.duration);
      }),
    ).observe({ type: "longtask", buffered: true });
  });
  await page.goto(server.url);
  await page.waitForSelector(".pairs li");
  await sleep(500);
  const found = await page.evaluate(() => ({
    ...window.measured,
    paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
    bytes: performance.getEntriesByType("resource").reduce((sum, { transferSize }) => sum + transferSize, 0),
    requests: performance.getEntriesByType("resource").length,
  }));
  console.log(
    `first paint ${found.paint.toFixed(0)} ms, ${found.requests} requests, ${found.bytes} bytes, longest task ${found.longest} ms, shift ${found.shift.toFixed(3)}`,
  );
  assert.ok(found.shift < 0.1);
  await page.close();
});
