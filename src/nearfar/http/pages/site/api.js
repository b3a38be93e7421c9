// Calls this server's own routes. The key stays in this module's memory: never in a URL, a cookie or a storage.

const base = new URL(".", document.baseURI);
let key = "";
let asking = null;

/** The address that clients use, without a slash at its end. */
export const address = base.href.replace(/\/$/, "");

/** Whether a key was asked for. */
export const hasKey = () => key !== "";

class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Send a request, as JSON where it has a body. Return the Response; throws ApiError with the server's own sentence. */
export async function send(path, { body, signal } = {}) {
  let response;
  try {
    response = await fetchWithKey(new URL(path, base), {
      method: body === undefined ? "GET" : "POST",
      headers: body === undefined ? {} : { "content-type": "application/json" },
      signal,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server isn't responding. Is it still running?", 0);
  }
  if (response.ok) return response;
  throw new ApiError(await errorMessage(response), response.status);
}

/** Fetch from this server with the key; where it refuses that, ask for one and try again. */
export async function fetchWithKey(url, options = {}) {
  const headers = new Headers(options.headers);
  if (key && new URL(url, base).origin === base.origin) headers.set("authorization", `Bearer ${key}`);
  const response = await fetch(url, { ...options, headers, credentials: "omit" });
  if (response.status !== 401) return response;
  const refused = key ? await errorMessage(response.clone()) : "";
  return (await askForKey(refused)) ? fetchWithKey(url, options) : response;
}

/** Send a request and return the decoded JSON of its answer. */
export async function call(path, body, signal) {
  return (await send(path, { body, signal })).json();
}

/** Return a Float32Array for each text, and how many tokens were cut. `options` are fields of /v1/embeddings. */
export async function embed(model, texts, options = {}, signal) {
  const response = await send("v1/embeddings", {
    body: { model, input: texts, encoding_format: "base64", ...options },
    signal,
  });
  const answer = await response.json();
  return {
    vectors: answer.data.map(({ embedding }) => decodeFloats(embedding)),
    tokens: answer.usage.total_tokens,
    cut: Number(response.headers.get("x-nearfar-truncated-tokens") ?? 0),
  };
}

/** Return the description of all served models, once they are known. */
export async function models(signal) {
  return (await call("info", undefined, signal)).models;
}

function decodeFloats(base64) {
  return new Float32Array(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer);
}

async function errorMessage(response) {
  const text = await response.text();
  try {
    const body = JSON.parse(text);
    return body.error?.message ?? body.message ?? body.detail ?? body.error ?? text;
  } catch {
    return text || `The server answered ${response.status}.`;
  }
}

/** Ask for the key once, whatever number of requests need it. Return whether there is one now. */
function askForKey(refused) {
  asking ??= new Promise((resolve) => {
    const dialog = document.querySelector("dialog.key");
    dialog.querySelector(".refused").textContent = refused;
    dialog.returnValue = "";
    dialog.addEventListener(
      "close",
      () => {
        const input = dialog.querySelector("input");
        if (dialog.returnValue === "ok") key = input.value.trim();
        input.value = "";
        asking = null;
        resolve(dialog.returnValue === "ok" && key !== "");
      },
      { once: true },
    );
    dialog.showModal();
  });
  return asking;
}
