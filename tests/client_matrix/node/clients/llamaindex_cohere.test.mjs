// LlamaIndex.TS for Cohere, which reranks nodes.

import assert from "node:assert/strict";
import { CohereRerank } from "@llamaindex/cohere";
import { TextNode } from "@llamaindex/core/schema";
import * as matrix from "../matrix.mjs";

const { QUERY, DOCUMENTS } = matrix;
const NODES = DOCUMENTS.map((text) => ({ node: new TextNode({ text }), score: 0 }));
const connect = (root = matrix.SERVER, more = {}) =>
  new CohereRerank({ model: matrix.RERANKER, apiKey: matrix.KEY, baseUrl: root, topN: 3, ...more });

const ranking = (nodes) => nodes.map(({ node, score }) => ({ index: DOCUMENTS.indexOf(node.text), score }));

matrix.client(import.meta.url, ["@llamaindex/cohere"], (check) => {
  check("rerank", "postprocessNodes orders the nodes as the plain request does, with topN", async () => {
    const expected = await matrix.plainRanking({ top_n: 3 });

    const nodes = await connect().postprocessNodes(NODES, QUERY);

    matrix.assertSameRanking(expected, ranking(nodes));
  });

  check("error", "an unknown model is Cohere's NotFoundError with the message", async () => {
    const error = await matrix.rejection(connect(matrix.SERVER, { model: matrix.UNKNOWN }).postprocessNodes(NODES, QUERY));

    assert.equal(error.constructor.name, "NotFoundError");
    assert.match(error.body.message, /^model 'no-such-model' not found/);
  });

  check("retry", "a 429 is retried", async () => {
    const expected = await matrix.plainRanking({ top_n: 3 });
    await matrix.arm(1);

    const nodes = await connect(matrix.FLAKY).postprocessNodes(NODES, QUERY);

    matrix.assertSameRanking(expected, ranking(nodes));
    assert.equal(await matrix.count(), 2);
  });
});
