// LangChain.js for OpenAI. It uses OpenAI's client and its own retries.

import assert from "node:assert/strict";
import { OpenAIEmbeddings } from "@langchain/openai";
import * as matrix from "../matrix.mjs";

const { TEXTS, UNKNOWN } = matrix;
const connect = (root = matrix.SERVER, more = {}) =>
  new OpenAIEmbeddings({
    model: matrix.EMBEDDER, apiKey: matrix.KEY, configuration: { baseURL: `${root}/v1` }, ...more,
  });

matrix.client(import.meta.url, ["@langchain/openai"], (check) => {
  check("embeddings", "embedDocuments returns the plain request's vectors, in batches too", async () => {
    const expected = await matrix.plainVectors(TEXTS);

    const whole = await connect().embedDocuments(TEXTS);
    const batches = await connect(matrix.SERVER, { batchSize: 2 }).embedDocuments(TEXTS);

    matrix.assertSameVectors([...expected, ...expected], [...whole, ...batches]);
  });

  check("embeddings", "embedQuery accepts dimensions and replaces newlines by spaces", async () => {
    const expected = await matrix.plainVectors(["a cat on the sofa"], { dimensions: 64 });

    const vector = await connect(matrix.SERVER, { dimensions: 64 }).embedQuery("a cat\non the sofa");

    matrix.assertSameVectors(expected, [vector]);
  });

  check("error", "an unknown model is LangChain's MODEL_NOT_FOUND with OpenAI's fields and message", async () => {
    const error = await matrix.rejection(connect(matrix.SERVER, { model: UNKNOWN }).embedQuery("a"));

    assert.equal(error.lc_error_code, "MODEL_NOT_FOUND");
    assert.equal(error.status, 404);
    assert.equal(error.code, "model_not_found");
    assert.match(error.message, /The model `no-such-model` does not exist/);
  });

  check("error", "a wrong key is LangChain's MODEL_AUTHENTICATION", async () => {
    const error = await matrix.rejection(connect(matrix.SERVER, { apiKey: matrix.WRONG_KEY }).embedQuery("a"));

    assert.equal(error.lc_error_code, "MODEL_AUTHENTICATION");
    assert.match(error.message, /Incorrect API key provided/);
  });

  check("retry", "LangChain itself retries after a 429", async () => {
    const expected = await matrix.plainVectors(TEXTS);
    await matrix.arm(1);

    const vectors = await connect(matrix.FLAKY).embedDocuments(TEXTS);

    matrix.assertSameVectors(expected, vectors);
    assert.equal(await matrix.count(), 2);
  });

  check("retry", "without retries a 429 is LangChain's MODEL_RATE_LIMIT", async () => {
    await matrix.arm(1);

    const error = await matrix.rejection(connect(matrix.FLAKY, { maxRetries: 0 }).embedQuery("a"));

    assert.equal(error.lc_error_code, "MODEL_RATE_LIMIT");
    assert.equal(error.status, 429);
  });
});
