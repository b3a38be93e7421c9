// OpenAI's official client in the major versions in use. Versions 4 and 6 decode every response to their default request
// as base64: a list of numbers would become wrong values without an error.

import assert from "node:assert/strict";
import * as matrix from "../matrix.mjs";
import { batchChecks } from "./openai_batches.mjs";

const INPUT = { model: matrix.EMBEDDER, input: matrix.TEXTS };

export function openaiChecks(alias, OpenAI) {
  const connect = (root = matrix.SERVER, more = {}) =>
    new OpenAI({ baseURL: `${root}/v1`, apiKey: matrix.KEY, ...more });
  const client = connect();

  matrix.client(import.meta.url, [alias], (check, [version]) => {
    check("embeddings", "the default, base64, returns the plain request's vectors", async () => {
      const expected = await matrix.plainVectors(matrix.TEXTS);

      const reply = await client.embeddings.create(INPUT);

      matrix.assertSameVectors(expected, reply.data.map((item) => item.embedding));
      assert.deepEqual(reply.data.map((item) => item.index), [0, 1, 2]);
      assert.equal(reply.usage.total_tokens, reply.usage.prompt_tokens);
      assert.ok(reply.usage.prompt_tokens > matrix.TEXTS.length);
    });

    check("embeddings", "requested floats equal the plain request's", async () => {
      const expected = await matrix.plainVectors(matrix.TEXTS);

      const reply = await client.embeddings.create({ ...INPUT, encoding_format: "float" });

      matrix.assertSameVectors(expected, reply.data.map((item) => item.embedding));
    });

    check("embeddings", "requested base64 is returned undecoded, with the same values", async () => {
      const expected = await matrix.plainVectors(matrix.TEXTS);

      const reply = await client.embeddings.create({ ...INPUT, encoding_format: "base64" });

      const decoded = reply.data.map((item) => new Float32Array(new Uint8Array(Buffer.from(item.embedding, "base64")).buffer));
      matrix.assertSameVectors(expected, decoded);
    });

    check("embeddings", "one text, dimensions and token ids are accepted", async () => {
      const [expected] = await matrix.plainVectors("hello world", { dimensions: 64 });

      const ids = await client.embeddings.create({ model: matrix.EMBEDDER, input: [15339, 1917], dimensions: 64 });
      const text = await client.embeddings.create({ model: matrix.EMBEDDER, input: "hello world", dimensions: 64 });

      matrix.assertSameVectors([expected, expected], [ids.data[0].embedding, text.data[0].embedding]);
    });

    check("other", "withResponse and asResponse show the request id and OpenAI's headers", async () => {
      const { data, response, request_id: id } = await client.embeddings.create(INPUT).withResponse();
      const raw = await client.embeddings.create(INPUT).asResponse();

      assert.match(id, /^req_/);
      assert.equal(data._request_id, id);
      assert.equal(response.headers.get("x-request-id"), id);
      assert.match(raw.headers.get("openai-processing-ms"), /^\d+$/);
      assert.equal(raw.headers.get("openai-version"), "2020-10-01");
      assert.equal((await raw.json()).object, "list");
    });

    check("other", "models are listed page by page, and retrieved by a name with a slash", async () => {
      const names = [];
      for await (const model of client.models.list()) names.push(model.id);

      const models = await Promise.all(names.map((name) => client.models.retrieve(name)));

      assert.ok(names.some((name) => name.includes("/")));
      assert.deepEqual(models.map((model) => [model.id, model.object]), names.map((name) => [name, "model"]));
    });

    check("other", "the client under test is the installed version", async () => {
      const name = await matrix.userAgent((root) => connect(root).embeddings.create(INPUT));

      assert.equal(name, `OpenAI/JS ${version}`);
    });

    batchChecks(check, client);

    check("error", "an unknown model is a NotFoundError with code, type, message and request id", async () => {
      const error = await matrix.rejection(client.embeddings.create({ ...INPUT, model: matrix.UNKNOWN }));

      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.equal(error.status, 404);
      assert.equal(error.code, "model_not_found");
      assert.equal(error.type, "invalid_request_error");
      assert.match(error.message, /404 The model `no-such-model` does not exist/);
      assert.match(error.requestID ?? error.request_id, /^req_/);
    });

    check("error", "a wrong key is an AuthenticationError that doesn't contain it", async () => {
      const unauthorized = connect(matrix.SERVER, { apiKey: matrix.WRONG_KEY });

      const error = await matrix.rejection(unauthorized.embeddings.create(INPUT));

      assert.ok(error instanceof OpenAI.AuthenticationError);
      assert.equal(error.code, "invalid_api_key");
      assert.match(error.message, /Incorrect API key provided/);
      assert.ok(!error.message.includes(matrix.WRONG_KEY));
    });

    check("error", "an empty list is a BadRequestError with the reason", async () => {
      const error = await matrix.rejection(client.embeddings.create({ ...INPUT, input: [] }));

      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.match(error.message, /input cannot be an empty array/);
    });

    check("retry", "a 429 is retried", async () => {
      const expected = await matrix.plainVectors(matrix.TEXTS);
      await matrix.arm(1);

      const reply = await connect(matrix.FLAKY).embeddings.create(INPUT);

      matrix.assertSameVectors(expected, reply.data.map((item) => item.embedding));
      assert.equal(await matrix.count(), 2);
    });

    check("retry", "without retries a 429 is a RateLimitError with its code", async () => {
      await matrix.arm(1);

      const error = await matrix.rejection(connect(matrix.FLAKY, { maxRetries: 0 }).embeddings.create(INPUT));

      assert.ok(error instanceof OpenAI.RateLimitError);
      assert.equal(error.code, "rate_limit_exceeded");
      assert.equal(await matrix.count(), 1);
    });
  });
}
