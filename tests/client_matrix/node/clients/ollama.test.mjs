// Ollama's official client. It never retries, so an error must reach the caller with its message.

import assert from "node:assert/strict";
import { Ollama } from "ollama";
import * as matrix from "../matrix.mjs";

const connect = (host, key = matrix.KEY) => new Ollama({ host, headers: { authorization: `Bearer ${key}` } });
const client = connect(matrix.SERVER);

/** Return the name of the first model that the server lists. */
const served = async () => (await client.list()).models[0].model;

matrix.client(import.meta.url, ["ollama"], (check, [version]) => {
  check("embeddings", "embed returns the plain request's vectors, of unit length, and counts tokens", async () => {
    const expected = await matrix.plainVectors(matrix.TEXTS);

    const reply = await client.embed({ model: await served(), input: matrix.TEXTS });

    matrix.assertSameVectors(expected, reply.embeddings);
    assert.ok(Math.abs(Math.hypot(...reply.embeddings[0]) - 1) < 1e-4);
    assert.ok(reply.prompt_eval_count > matrix.TEXTS.length);
    assert.ok(reply.total_duration > 0);
  });

  check("embeddings", "embed accepts one text, dimensions, and Ollama's name of the model", async () => {
    const expected = await matrix.plainVectors([matrix.TEXTS[0]], { dimensions: 64 });

    const reply = await client.embed({ model: "all-minilm", input: matrix.TEXTS[0], dimensions: 64 });

    matrix.assertSameVectors(expected, reply.embeddings);
  });

  check("embeddings", "embeddings, deprecated, returns one vector of the same direction", async () => {
    const [expected] = await matrix.plainVectors([matrix.TEXTS[1]]);

    const reply = await client.embeddings({ model: await served(), prompt: matrix.TEXTS[1] });

    matrix.assertSameVectors([expected], [reply.embedding]);
  });

  check("other", "list and show describe the model", async () => {
    const { models } = await client.list();

    const shown = await client.show({ model: models[0].model });

    assert.equal(models[0].name, models[0].model);
    assert.ok(Date.parse(models[0].modified_at) > 0);
    assert.ok(models[0].details);
    assert.ok(shown.details);
    assert.ok(shown.capabilities.includes("embedding"));
  });

  check("other", "version returns a version number", async () => {
    const reply = await client.version();

    assert.match(reply.version, /^\d+\.\d+\.\d+/);
  });

  check("other", "the client under test is the installed version", async () => {
    const name = await matrix.userAgent((root) => connect(root).version());

    assert.equal(name.split(" ")[0], `ollama-js/${version}`);
  });

  check("other", "ps lists what is loaded", async () => {
    const { models } = await client.ps();

    assert.ok(models.some((model) => model.model.length > 0));
  });

  check("error", "an unknown model is a ResponseError with 404 and Ollama's message", async () => {
    const error = await matrix.rejection(client.embed({ model: matrix.UNKNOWN, input: "a" }));

    assert.equal(error.name, "ResponseError");
    assert.equal(error.status_code, 404);
    assert.equal(typeof error.error, "string");
    assert.match(error.message, /model "no-such-model" not found/);
  });

  check("error", "a wrong key is a ResponseError with 401 and a message", async () => {
    const error = await matrix.rejection(connect(matrix.SERVER, matrix.WRONG_KEY).list());

    assert.equal(error.name, "ResponseError");
    assert.equal(error.status_code, 401);
    assert.equal(typeof error.error, "string");
  });

  check("no_retry", "a 429 is a ResponseError with its message, and is not retried", async () => {
    const model = await served();
    await matrix.arm(1);

    const error = await matrix.rejection(connect(matrix.FLAKY).embed({ model, input: "a" }));

    assert.equal(error.name, "ResponseError");
    assert.equal(error.status_code, 429);
    assert.equal(typeof error.error, "string");
    assert.equal(await matrix.count(), 1);
  });
});
