// One question to the server, and what may come back instead of an answer.

// Beside the page, also under a proxy's prefix.
const API = new URL("../v1/", import.meta.url);

/** Where the server's endpoint is, for the commands that are copied. */
export const BASE = API.href.replace(/\/$/, "");

/** What the server, or the way to it, said instead of an answer: `code` and `status` where there are any. */
export class Refused extends Error {
  constructor(message, { status = 0, code = "" } = {}) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The request's body. `picture` is the image's URL. */
export function bodyOf({ picture, question, mode, model }) {
  const content = [
    { type: "image_url", image_url: { url: picture } },
    { type: "text", text: question },
  ];
  return { ...(model && { model }), messages: [{ role: "user", content }], dualfocus: { mode } };
}

/** Ask; returns the chat completion. Throws Refused, or an AbortError once `signal` says stop. */
export async function ask(body, key, signal) {
  // The page shows what the model was shown.
  const dualfocus = { ...body.dualfocus, ...(body.dualfocus.mode !== "off" && { return_crop: true }) };
  return call("chat/completions", key, { method: "POST", body: JSON.stringify({ ...body, dualfocus }), signal });
}

/** The name of the model that is served. Throws Refused. */
export async function servedModel(key) {
  const { data } = await call("models", key, {});
  return data[0].id;
}

async function call(route, key, options) {
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await reached(() => fetch(new URL(route, API), { ...options, headers }));
  const text = await reached(() => response.text());
  const content = parsed(text);
  if (response.ok && content !== null) return content;
  throw refusal(response.status, content);
}

/** Only the way to the server fails so; a request that was stopped stays what it is. */
async function reached(step) {
  try {
    return await step();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error instanceof TypeError) throw new Refused("", { code: "unreachable" });
    throw error;
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function refusal(status, content) {
  const { message = "", code = "" } = content?.error ?? {};
  return new Refused(message, { status, code: code ?? "" });
}
