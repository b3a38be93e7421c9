// What the JavaScript rows share: where the server is, what is sent, and plain requests to compare a client's numbers with.
// It knows no client library.

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
export const WRONG_KEY = "sk-wrong-key-of-somebody";

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
  assert.ok(value, `${name} has to say what these tests run against`);
  return value.replace(/\/$/, "");
}

/**
 * Declare the checks of a client, under its name and version as installed. `aliases` are folders in node_modules beside
 * the test file; `declare` gets a function (kind, sentence, body) for one check, and the versions.
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

/** Ask without any client; fails unless the answer is a success. */
export async function ask(path, body) {
  const answer = await fetch(SERVER + path, {
    method: body === undefined ? "GET" : "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${KEY}` },
    body: JSON.stringify(body),
  });
  assert.equal(answer.status, 200, `${path}: ${await answer.clone().text()}`);
  return answer.json();
}

export async function plainVectors(input, more = {}) {
  const { data } = await ask("/v1/embeddings", { model: EMBEDDER, input, ...more });
  return data.map((item) => item.embedding);
}

export async function plainCohereVectors(texts, inputType) {
  const body = { model: COHERE_EMBEDDER, texts, input_type: inputType, embedding_types: ["float"] };
  return (await ask("/v2/embed", body)).embeddings.float;
}

export async function plainRanking(more = {}) {
  const { results } = await ask("/v2/rerank", { model: RERANKER, query: QUERY, documents: DOCUMENTS, ...more });
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
    assert.ok(Array.from(actual[i]).every(Number.isFinite), `vector ${i} has something that is no number`);
    const closeness = cosine(vector, Array.from(actual[i]));
    assert.ok(closeness > 0.9999, `vector ${i} has a cosine of ${closeness} to the plain request's`);
  });
}

/** Compare order and scores, of lists of {index, score}; scores as far as half precision lets them agree. */
export function assertSameRanking(expected, actual) {
  assert.deepEqual(actual.map((found) => found.index), expected.map((found) => found.index));
  expected.forEach(({ score }, i) => {
    assert.ok(Math.abs(actual[i].score - score) < 0.002, `place ${i}: ${actual[i].score} instead of ${score}`);
  });
}

/** Let the proxy before the server refuse the next n POST requests with 429. */
export async function arm(n = 1) {
  const answer = await fetch(`${FLAKY}/__arm?n=${n}`, { method: "POST" });
  assert.ok(answer.ok);
}

/** Count the POST requests that reached the proxy since it was armed, the refused ones too. */
export async function count() {
  return Number(await (await fetch(`${FLAKY}/__count`)).text());
}

/** Give what a promise was rejected with; fails if it wasn't. */
export async function rejection(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  return assert.fail("nothing was thrown");
}

/** Give what a client calls itself in its requests, told by a server that refuses all of them. */
export async function userAgent(call) {
  const heard = [];
  const listener = createServer((request, response) => {
    heard.push(request.headers["user-agent"]);
    response.writeHead(400, { "content-type": "application/json", connection: "close" }).end("{}");
  });
  await once(listener.listen(0, "127.0.0.1"), "listening");
  try {
    await rejection(call(`http://127.0.0.1:${listener.address().port}`));
  } finally {
    listener.close();
  }
  return heard[0];
}
