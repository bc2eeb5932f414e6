// One question to the server.

import { reached, Refused, refusal } from "./refused.js";
import { isStream, together } from "./streaming.js";

// Beside the page, also under a proxy's prefix.
const API = new URL("../v1/", import.meta.url);

/** Where the server's endpoint is, for the commands that are copied. */
export const BASE = API.href.replace(/\/$/, "");

/** The request's body. `picture` is the image's URL. */
export function bodyOf({ picture, question, mode, model }) {
  const content = [
    { type: "image_url", image_url: { url: picture } },
    { type: "text", text: question },
  ];
  return { ...(model && { model }), messages: [{ role: "user", content }], dualfocus: { mode } };
}

/** Ask; returns the chat completion. `tell` is told what is being done. Throws Refused, or an AbortError once `signal` says stop. */
export async function ask(body, key, signal, tell) {
  // The page shows what the model was shown.
  const shown = body.dualfocus.mode !== "off" && { return_crop: true };
  const dualfocus = { ...body.dualfocus, progress: true, ...shown };
  const asked = { ...body, dualfocus, stream: true, stream_options: { include_usage: true } };
  const response = await call("chat/completions", key, { method: "POST", body: JSON.stringify(asked), signal });
  if (response.ok && isStream(response)) return together(response, tell);
  throw refusal(response.status, await contentOf(response));
}

/** The name of the model that is served. Throws Refused. */
export async function servedModel(key) {
  const response = await call("models", key, {});
  const content = await contentOf(response);
  if (!response.ok || content === null) throw refusal(response.status, content);
  return content.data[0].id;
}

function call(route, key, options) {
  if (/[^\x20-\x7e]/.test(key)) throw new Refused("", { status: 401, code: "unsendable_key" });
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  return reached(() => fetch(new URL(route, API), { ...options, headers }));
}

async function contentOf(response) {
  const text = await reached(() => response.text());
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
