// LangChain.js for Cohere. It takes a Cohere client, which has the server's URL.

import assert from "node:assert/strict";
import { CohereEmbeddings, CohereRerank } from "@langchain/cohere";
import { Document } from "@langchain/core/documents";
import { Cohere, CohereClient } from "cohere-ai";
import * as matrix from "../matrix.mjs";

const { TEXTS, QUERY, DOCUMENTS, UNKNOWN } = matrix;
const client = (root = matrix.SERVER) => new CohereClient({ token: matrix.KEY, environment: root });
const embeddings = (root, more = {}) =>
  new CohereEmbeddings({ model: matrix.COHERE_EMBEDDER, client: client(root), ...more });
const reranker = (root, more = {}) => new CohereRerank({ model: matrix.RERANKER, client: client(root), ...more });

matrix.client(import.meta.url, ["@langchain/cohere"], (check) => {
  check("embeddings", "embedDocuments returns the plain request's vectors, in batches too", async () => {
    const expected = await matrix.plainCohereVectors(TEXTS, "search_document");

    const whole = await embeddings().embedDocuments(TEXTS);
    const batches = await embeddings(matrix.SERVER, { batchSize: 2 }).embedDocuments(TEXTS);

    matrix.assertSameVectors([...expected, ...expected], [...whole, ...batches]);
  });

  check("embeddings", "embedQuery returns the vector of a query", async () => {
    const expected = await matrix.plainCohereVectors([QUERY], "search_query");

    const vector = await embeddings().embedQuery(QUERY);

    matrix.assertSameVectors(expected, [vector]);
  });

  check("rerank", "rerank returns the best three as the plain request does", async () => {
    const expected = await matrix.plainRanking({ top_n: 3 });

    const found = await reranker().rerank(DOCUMENTS, QUERY);

    matrix.assertSameRanking(expected, found.map(({ index, relevanceScore: score }) => ({ index, score })));
  });

  check("rerank", "compressDocuments returns the documents in that order, with their scores", async () => {
    const expected = await matrix.plainRanking();
    const documents = DOCUMENTS.map((pageContent) => new Document({ pageContent }));

    const found = await reranker(matrix.SERVER, { topN: DOCUMENTS.length }).compressDocuments(documents, QUERY);

    const index = ({ pageContent }) => DOCUMENTS.indexOf(pageContent);
    matrix.assertSameRanking(
      expected, found.map((document) => ({ index: index(document), score: document.metadata.relevanceScore })),
    );
  });

  check("error", "an unknown model is Cohere's NotFoundError with the message, from both", async () => {
    const errors = await Promise.all([
      matrix.rejection(embeddings(matrix.SERVER, { model: UNKNOWN }).embedQuery("a")),
      matrix.rejection(reranker(matrix.SERVER, { model: UNKNOWN }).rerank(DOCUMENTS, QUERY)),
    ]);

    for (const error of errors) {
      assert.ok(error instanceof Cohere.NotFoundError);
      assert.match(error.body.message, /^model 'no-such-model' not found/);
    }
  });

  check("retry", "embeddings and rerank are retried after a 429", async () => {
    const expected = [await matrix.plainCohereVectors([QUERY], "search_query"), await matrix.plainRanking({ top_n: 3 })];

    await matrix.arm(1);
    const vector = await embeddings(matrix.FLAKY).embedQuery(QUERY);
    const sentForEmbed = await matrix.count();
    await matrix.arm(1);
    const found = await reranker(matrix.FLAKY).rerank(DOCUMENTS, QUERY);

    matrix.assertSameVectors(expected[0], [vector]);
    matrix.assertSameRanking(expected[1], found.map(({ index, relevanceScore: score }) => ({ index, score })));
    assert.deepEqual([sentForEmbed, await matrix.count()], [2, 2]);
  });
});
