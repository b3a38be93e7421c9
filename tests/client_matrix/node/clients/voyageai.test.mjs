// Voyage's official client. Its paths are OpenAI's for embeddings and Cohere's for reranking.

import assert from "node:assert/strict";
import { VoyageAIClient, VoyageAIError } from "voyageai";
import * as matrix from "../matrix.mjs";

const { TEXTS, QUERY, DOCUMENTS, UNKNOWN } = matrix;
const EMBED = { model: matrix.VOYAGE_EMBEDDER, input: TEXTS };
const RERANK = { model: matrix.VOYAGE_RERANKER, query: QUERY, documents: DOCUMENTS };
const connect = (root = matrix.SERVER, apiKey = matrix.KEY) => new VoyageAIClient({ apiKey, environment: `${root}/v1` });
const client = connect();

const ranking = (reply) => reply.data.map((found) => ({ index: found.index, score: found.relevanceScore }));

matrix.client(import.meta.url, ["voyageai"], (check, [version]) => {
  check("embeddings", "embed returns the plain request's vectors, and counts tokens", async () => {
    const expected = await matrix.plainVectors(TEXTS);

    const reply = await client.embed(EMBED);

    matrix.assertSameVectors(expected, reply.data.map((item) => item.embedding));
    assert.deepEqual(reply.data.map((item) => item.index), [0, 1, 2]);
    assert.ok(reply.usage.totalTokens > TEXTS.length);
  });

  check("embeddings", "embed accepts Voyage's options", async () => {
    const expected = await matrix.plainVectors(TEXTS, { dimensions: 256 });

    const reply = await client.embed({ ...EMBED, inputType: "document", truncation: true, outputDimension: 256 });

    matrix.assertSameVectors(expected, reply.data.map((item) => item.embedding));
  });

  check("embeddings", "int8 values are of the same vectors", async () => {
    const [expected] = await matrix.plainVectors(TEXTS);

    const reply = await client.embed({ ...EMBED, inputType: "document", outputDtype: "int8" });

    assert.ok(reply.data[0].embedding.every(Number.isInteger));
    assert.ok(matrix.cosine(expected, reply.data[0].embedding) > 0.99);
  });

  check("rerank", "rerank orders the documents as the plain request does, with their texts on request", async () => {
    const expected = await matrix.plainRanking();

    const plain = await client.rerank(RERANK);
    const asked = await client.rerank({ ...RERANK, topK: 2, returnDocuments: true });

    matrix.assertSameRanking(expected, ranking(plain));
    matrix.assertSameRanking(expected.slice(0, 2), ranking(asked));
    assert.deepEqual(asked.data.map((found) => found.document), asked.data.map((found) => DOCUMENTS[found.index]));
    assert.ok(plain.usage.totalTokens > DOCUMENTS.length);
  });

  check("other", "the client under test is the installed version", async () => {
    const name = await matrix.userAgent((root) => connect(root).embed(EMBED));

    assert.equal(name, `voyageai/${version}`);
  });

  check("error", "an unknown model is a VoyageAIError with Voyage's status and detail", async () => {
    const errors = await Promise.all([
      matrix.rejection(client.embed({ ...EMBED, model: UNKNOWN, inputType: "query" })),
      matrix.rejection(client.rerank({ ...RERANK, model: UNKNOWN, topK: 1 })),
    ]);

    for (const error of errors) {
      assert.ok(error instanceof VoyageAIError);
      assert.equal(error.statusCode, 400);
      assert.match(error.body.detail, /no-such-model/);
    }
  });

  check("error", "the detail is present even if no field in the request is specific to Voyage", async () => {
    const error = await matrix.rejection(client.embed({ ...EMBED, model: UNKNOWN }));

    assert.ok(error instanceof VoyageAIError);
    assert.match(error.body.detail, /no-such-model/);
  });

  check("error", "a wrong key is a VoyageAIError with 401 and a detail", async () => {
    const error = await matrix.rejection(connect(matrix.SERVER, matrix.WRONG_KEY).embed(EMBED));

    assert.ok(error instanceof VoyageAIError);
    assert.equal(error.statusCode, 401);
    assert.equal(typeof error.body.detail, "string");
  });

  check("retry", "embeddings and rerank are retried after a 429", async () => {
    const expected = [await matrix.plainVectors(TEXTS), await matrix.plainRanking()];
    const flaky = connect(matrix.FLAKY);

    await matrix.arm(1);
    const embedded = await flaky.embed(EMBED);
    const sentForEmbed = await matrix.count();
    await matrix.arm(1);
    const ranked = await flaky.rerank(RERANK);

    matrix.assertSameVectors(expected[0], embedded.data.map((item) => item.embedding));
    matrix.assertSameRanking(expected[1], ranking(ranked));
    assert.deepEqual([sentForEmbed, await matrix.count()], [2, 2]);
  });
});
