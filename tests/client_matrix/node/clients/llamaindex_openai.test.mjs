// LlamaIndex.TS for OpenAI. Its OpenAI client decodes every response as base64; it sends ten texts per request.

import assert from "node:assert/strict";
import { OpenAIEmbedding } from "@llamaindex/openai";
import * as matrix from "../matrix.mjs";

const { TEXTS, UNKNOWN } = matrix;
const connect = (root = matrix.SERVER, more = {}) =>
  new OpenAIEmbedding({ model: matrix.EMBEDDER, apiKey: matrix.KEY, baseURL: `${root}/v1`, ...more });

matrix.client(import.meta.url, ["@llamaindex/openai"], (check) => {
  check("embeddings", "getTextEmbeddingsBatch returns the plain request's vectors, over several requests", async () => {
    const texts = [...TEXTS, ...matrix.DOCUMENTS, ...TEXTS, ...matrix.DOCUMENTS];
    const expected = await matrix.plainVectors(texts);

    const vectors = await connect().getTextEmbeddingsBatch(texts);

    matrix.assertSameVectors(expected, vectors);
  });

  check("embeddings", "getTextEmbedding accepts dimensions", async () => {
    const expected = await matrix.plainVectors([TEXTS[2]], { dimensions: 64 });

    const vector = await connect(matrix.SERVER, { dimensions: 64 }).getTextEmbedding(TEXTS[2]);

    matrix.assertSameVectors(expected, [vector]);
  });

  check("error", "an unknown model is OpenAI's error with its code and message", async () => {
    const error = await matrix.rejection(connect(matrix.SERVER, { model: UNKNOWN }).getTextEmbedding("a"));

    assert.equal(error.constructor.name, "NotFoundError");
    assert.equal(error.code, "model_not_found");
    assert.match(error.message, /The model `no-such-model` does not exist/);
  });

  check("retry", "a 429 is retried", async () => {
    const expected = await matrix.plainVectors(TEXTS);
    await matrix.arm(1);

    const vectors = await connect(matrix.FLAKY).getTextEmbeddings(TEXTS);

    matrix.assertSameVectors(expected, vectors);
    assert.equal(await matrix.count(), 2);
  });
});
