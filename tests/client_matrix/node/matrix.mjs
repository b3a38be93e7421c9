// What all Node.js clients' tests share: the server's URL, texts, and the expected answers by plain HTTP requests.
// No client library.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { describe, test } from "node:test";

export const SERVER = setting("NEARFAR_URL");
export const FLAKY = setting("NEARFAR_FLAKY_URL");
export const KEY = setting("NEARFAR_KEY");

export const EMBEDDER = "text-embedding-3-small";
export const VOYAGE_EMBEDDER = "voyage-3.5";
export const COHERE_EMBEDDER = "embed-english-v3.0";
export const RERANKER = "rerank-v3.5";
export const VOYAGE_RERANKER = "rerank-2.5";
export const UNKNOWN = "no-such-model";
export const WRONG_KEY = "sk-wrong-key-of-another";

export const TEXTS = ["a cat on the sofa", "stock prices fell", "Der Mond scheint über dem Fluß 🌙"];
export const QUERY = "Where is the cat?";
export const DOCUMENTS = [
  "Bananas are yellow.",
  "The cat sat on the mat.",
  "Rates rose by a quarter point.",
  "Dogs chase cats, which is why ours hides.",
];

function setting(name) {
  const value = process.env[name];
  assert.ok(value, `${name} must be set: it is what these tests run against`);
  return value.replace(/\/$/, "");
}

/**
 * Declare a client's checks under its name and installed version. `aliases` are folders in the test file's node_modules;
 * `declare` is called with a function (kind, sentence, body) that declares one check, and with the versions.
 */
export function client(testFile, aliases, declare) {
  const packages = aliases.map((alias) => installed(testFile, alias));
  const check = (kind, sentence, body) => test(`${kind}: ${sentence}`, body);
  describe(packages.map(({ name, version }) => `${name}@${version}`).join(" + "), () => {
    declare(check, packages.map(({ version }) => version));
  });
}

function installed(testFile, alias) {
  return JSON.parse(readFileSync(new URL(`node_modules/${alias}/package.json`, testFile), "utf8"));
}

/** Send a plain HTTP request and return the decoded body. Fails unless the status is 200. */
export async function request(path, body) {
  const response = await fetch(SERVER + path, {
    method: body === undefined ? "GET" : "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${KEY}` },
    body: JSON.stringify(body),
  });
  assert.equal(response.status, 200, `${path}: ${await response.clone().text()}`);
  return response.json();
}

export async function plainVectors(input, more = {}) {
  const { data } = await request("/v1/embeddings", { model: EMBEDDER, input, ...more });
  return data.map((item) => item.embedding);
}

export async function plainCohereVectors(texts, inputType) {
  const body = { model: COHERE_EMBEDDER, texts, input_type: inputType, embedding_types: ["float"] };
  return (await request("/v2/embed", body)).embeddings.float;
}

export async function plainRanking(more = {}) {
  const { results } = await request("/v2/rerank", { model: RERANKER, query: QUERY, documents: DOCUMENTS, ...more });
  return results.map((found) => ({ index: found.index, score: found.relevance_score }));
}

export function cosine(a, b) {
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** Compare vector by vector. Half precision moves a vector by up to 1 - 0.9999 between one batch and another. */
export function assertSameVectors(expected, actual) {
  assert.equal(actual.length, expected.length);
  expected.forEach((vector, i) => {
    assert.equal(actual[i].length, vector.length);
    assert.ok(Array.from(actual[i]).every(Number.isFinite), `vector ${i} has a value that is not finite`);
    const similarity = cosine(vector, Array.from(actual[i]));
    assert.ok(similarity > 0.9999, `vector ${i} has a cosine of ${similarity} to the plain request's`);
  });
}

/** Compare order and scores of lists of {index, score}, with the tolerance of half precision. */
export function assertSameRanking(expected, actual) {
  assert.deepEqual(actual.map((found) => found.index), expected.map((found) => found.index));
  expected.forEach(({ score }, i) => {
    assert.ok(Math.abs(actual[i].score - score) < 0.002, `rank ${i}: ${actual[i].score} instead of ${score}`);
  });
}

/** Make the proxy in front of the server reject the next n POST requests with 429. */
export async function arm(n = 1) {
  const response = await fetch(`${FLAKY}/__arm?n=${n}`, { method: "POST" });
  assert.ok(response.ok);
}

/** Return the number of POST requests to the proxy since it was armed, including rejected ones. */
export async function count() {
  return Number(await (await fetch(`${FLAKY}/__count`)).text());
}

/** Return the error that a promise is rejected with. Fails if it isn't rejected. */
export async function rejection(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  return assert.fail("nothing was thrown");
}

/** Return the User-Agent header of a client's requests, as seen by a server that rejects all of them. */
export async function userAgent(call) {
  const userAgents = [];
  const listener = createServer((incoming, response) => {
    userAgents.push(incoming.headers["user-agent"]);
    response.writeHead(400, { "content-type": "application/json", connection: "close" }).end("{}");
  });
  await once(listener.listen(0, "127.0.0.1"), "listening");
  try {
    await rejection(call(`http://127.0.0.1:${listener.address().port}`));
  } finally {
    listener.close();
  }
  return userAgents[0];
}
