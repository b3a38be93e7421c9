// What the tests of the page share: a server, a browser, and a page that records its faults.

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

export const PYTHON = process.env.PYTHON ?? "python3";
export const PANES = ["try", "rerank", "map", "connect", "models", "live", "docs"];

export let browser, server, folder;

export async function freePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => probe.once("listening", resolve));
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

/** Start a server and return its URL once it is ready. */
export async function serve(environment = {}) {
  const port = await freePort(),
    url = `http://127.0.0.1:${port}`;
  const child = spawn(PYTHON, ["-m", "nearfar", "serve", "--port", port], {
    env: { ...process.env, ...environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  child.log = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (child.log += text));
  for (let attempt = 0; attempt < 600; attempt++) {
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`);
    const ready = await fetch(`${url}/health/ready`).then(
      (answer) => answer.ok,
      () => false,
    );
    if (ready) return { url, child };
    await sleep(200);
  }
  child.kill();
  throw new Error("the server isn't ready after two minutes");
}

/** Start the server and the browser before the tests of a file, and end both after them. */
export function prepare() {
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "nearfar-page-"));
    server = await serve({ NEARFAR_STATE_DIR: join(folder, "state") });
    browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: ["--no-sandbox"],
    });
  });

  after(async () => {
    await browser?.close();
    server?.child.kill();
    await rm(folder, { recursive: true, force: true });
  });
}

/** Open a pane; the page's errors and its requests to other origins end up in `faults`. */
export async function open(pane, options = {}, url = server.url) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, ...options });
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(error.message));
  page.on("console", (message) => message.type() === "error" && page.faults.push(message.text()));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== url && !request.url().startsWith("blob:"))
      page.faults.push(`asked ${request.url()}`);
  });
  await page.goto(`${url}/#/${pane}`);
  await page.waitForSelector("main h1");
  return page;
}

export async function post(path, body) {
  const answer = await fetch(`${server.url}/${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return answer.json();
}

export async function csv(name, rows) {
  const path = join(folder, name);
  await writeFile(path, rows.map((row) => row.map((value) => `"${value.replaceAll('"', '""')}"`).join(",")).join("\n"));
  return path;
}
