// Connect: what to write or enter in each client, with this server's address and its models' names.
import { address, hasKey, models } from "../api.js";
import { copyButton, h } from "../dom.js";

export async function open() {
  const served = await models();
  const embedder = served.find((model) => model.tasks.includes("embed"));
  const rankers = served.filter((model) => model.tasks.includes("rank"));
  const ranker = (rankers.find((model) => model.score_is_probability) ?? rankers[0])?.name ?? "rerank-v3.5";
  const about = {
    url: address,
    model: embedder?.name ?? "text-embedding-3-small",
    limit: embedder?.max_tokens ?? 512,
    ranker,
    key: hasKey() ? "YOUR-KEY" : "unused",
  };
  const buttons = [],
    panels = [];
  for (const [name, parts] of Object.entries(CLIENTS)) {
    const at = buttons.length,
      id = `client-${at}`;
    buttons.push(
      h(
        "button",
        { type: "button", role: "tab", id: `${id}-tab`, "aria-controls": id, onclick: () => select(at) },
        name,
      ),
    );
    panels.push(
      h(
        "div",
        { role: "tabpanel", id, "aria-labelledby": `${id}-tab`, tabindex: 0 },
        parts.map(([title, text]) => snippet(title, text(about))),
      ),
    );
  }

  function select(chosen, focus = false) {
    buttons.forEach((button, at) => {
      button.setAttribute("aria-selected", at === chosen);
      button.tabIndex = at === chosen ? 0 : -1;
      panels[at].hidden = at !== chosen;
    });
    if (focus) buttons[chosen].focus();
  }

  const tabs = h(
    "div",
    {
      role: "tablist",
      class: "tabs",
      "aria-label": "Clients",
      onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        select((buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length, true);
      },
    },
    buttons,
  );
  select(0);
  return {
    element: h(
      "section",
      {},
      h("h1", {}, "Connect your app"),
      h(
        "p",
        { class: "lead" },
        "Any client of OpenAI, Cohere, Ollama, Jina, Voyage or Text Embeddings Inference works: change its address, and its model's name if you like.",
      ),
      h("div", { class: "clients" }, tabs, h("div", {}, panels)),
    ),
  };
}

function snippet(title, text) {
  return h(
    "figure",
    {},
    h("figcaption", {}, title, copyButton(() => `${text}\n`)),
    h("pre", { tabindex: 0 }, h("code", {}, text)),
  );
}

const CLIENTS = {
  curl: [
    [
      "Embed",
      ({ url, model, key }) => `curl ${url}/v1/embeddings \\
  -H "content-type: application/json" -H "authorization: Bearer ${key}" \\
  -d '{"model": "${model}", "input": "a cat on the sofa"}'`,
    ],
    [
      "Rerank",
      ({ url, ranker, key }) => `curl ${url}/v2/rerank \\
  -H "content-type: application/json" -H "authorization: Bearer ${key}" \\
  -d '{"model": "${ranker}", "query": "Where is the cat?", "documents": ["Bananas are yellow.", "The cat sat on the mat."]}'`,
    ],
  ],
  "OpenAI, Python": [
    [
      "pip install openai",
      ({ url, model, key }) => `from openai import OpenAI

client = OpenAI(base_url="${url}/v1", api_key="${key}")
reply = client.embeddings.create(model="${model}", input=["a cat on the sofa"])
print(len(reply.data[0].embedding))`,
    ],
  ],
  "OpenAI, Node": [
    [
      "npm install openai",
      ({ url, model, key }) => `import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${url}/v1", apiKey: "${key}" });
const reply = await client.embeddings.create({ model: "${model}", input: ["a cat on the sofa"] });
console.log(reply.data[0].embedding.length);`,
    ],
  ],
  Cohere: [
    [
      "pip install cohere",
      ({ url, ranker, key }) => `import cohere

client = cohere.ClientV2("${key}", base_url="${url}")
documents = ["Bananas are yellow.", "The cat sat on the mat."]
reply = client.rerank(model="${ranker}", query="Where is the cat?", documents=documents)
print([(found.index, found.relevance_score) for found in reply.results])`,
    ],
  ],
  LangChain: [
    [
      "pip install langchain-openai",
      ({ url, model, key }) => `from langchain_openai import OpenAIEmbeddings

embeddings = OpenAIEmbeddings(
    model="${model}",
    base_url="${url}/v1",
    api_key="${key}",
    check_embedding_ctx_length=False,  # sends texts, so that tiktoken downloads no vocabulary
)
print(len(embeddings.embed_query("a cat on the sofa")))`,
    ],
    [
      "pip install langchain-cohere",
      ({ url, ranker, key }) => `from langchain_cohere import CohereRerank

reranker = CohereRerank(model="${ranker}", base_url="${url}", cohere_api_key="${key}", top_n=1)
print(reranker.rerank(["Bananas are yellow.", "The cat sat on the mat."], "Where is the cat?"))`,
    ],
  ],
  LlamaIndex: [
    [
      "pip install llama-index-embeddings-openai-like",
      ({ url, model, key }) => `from llama_index.embeddings.openai_like import OpenAILikeEmbedding

embedding = OpenAILikeEmbedding(model_name="${model}", api_base="${url}/v1", api_key="${key}")
print(len(embedding.get_text_embedding("a cat on the sofa")))`,
    ],
  ],
  LiteLLM: [
    [
      "config.yaml of the proxy",
      ({ url, model, ranker, key }) => `model_list:
  - model_name: embeddings
    litellm_params:
      model: openai/${model}
      api_base: ${url}/v1
      api_key: ${key}
  - model_name: reranker
    litellm_params:
      model: cohere/${ranker}
      api_base: ${url}
      api_key: ${key}`,
    ],
  ],
  "Open WebUI": [
    [
      "Environment, or Admin Settings → Documents",
      ({ url, model, ranker, key }) => `RAG_EMBEDDING_ENGINE=openai
RAG_OPENAI_API_BASE_URL=${url}/v1
RAG_OPENAI_API_KEY=${key}
RAG_EMBEDDING_MODEL=${model}
RAG_EMBEDDING_BATCH_SIZE=64
ENABLE_RAG_HYBRID_SEARCH=true
RAG_RERANKING_ENGINE=external
RAG_EXTERNAL_RERANKER_URL=${url}/v1/rerank
RAG_EXTERNAL_RERANKER_API_KEY=${key}
RAG_RERANKING_MODEL=${ranker}`,
    ],
  ],
  Dify: [
    [
      "Settings → Model Provider → OpenAI-API-compatible → Text Embedding",
      ({ url, model, key, limit }) => `Model Name: ${model}
API Key: ${key}
API endpoint URL: ${url}/v1
Model context size: ${limit}`,
    ],
    [
      "The same → Rerank",
      ({ url, ranker, key }) => `Model Name: ${ranker}
API Key: ${key}
API endpoint URL: ${url}/v1`,
    ],
  ],
  Continue: [
    [
      "~/.continue/config.yaml",
      ({ url, model, ranker, key }) => `name: Local
version: 1.0.0
schema: v1
models:
  - name: nearfar embeddings
    provider: openai
    model: ${model}
    apiBase: ${url}/v1
    apiKey: ${key}
    roles: [embed]
  - name: nearfar reranker
    provider: cohere
    model: ${ranker}
    apiBase: ${url}/v1
    apiKey: ${key}
    roles: [rerank]`,
    ],
  ],
  n8n: [
    [
      "Credentials → OpenAI",
      ({ url, key }) => `API Key: ${key}
Base URL: ${url}/v1`,
    ],
    ["Node “Embeddings OpenAI” → Model, as an expression", ({ model }) => model],
  ],
  Flowise: [
    [
      "Node “OpenAI Custom Embedding”",
      ({ url, model, key }) => `Connect Credential → OpenAI API Key: ${key}
Model Name: ${model}
Additional Parameters → Base Path: ${url}/v1`,
    ],
  ],
  AnythingLLM: [
    [
      "Settings → Embedder → Generic OpenAI",
      ({ url, model, key }) => `Base URL: ${url}/v1
Embedding Model: ${model}
Max embedding chunk length: 1000
API Key: ${key}`,
    ],
  ],
  Ollama: [
    ["Apps that speak to Ollama, for embeddings", ({ url }) => `OLLAMA_HOST=${url}`],
    ["Call", ({ url, model }) => `curl ${url}/api/embed -d '{"model": "${model}", "input": "a cat on the sofa"}'`],
  ],
};
