// An answer that comes in pieces.

import { Refused, reached, refusal } from "./refused.js";

const TYPE = "text/event-stream";

/** Whether a response is a stream. */
export function isStream(response) {
  return (response.headers.get("Content-Type") ?? "").startsWith(TYPE);
}

/** Put a stream together to the chat completion that comes without one; `tell` is told what is being done. Throws Refused. */
export async function together(response, tell) {
  const whole = { model: "", content: "" };
  for await (const data of eventsOf(response)) {
    if (data === "[DONE]") return asCompletion(whole);
    const piece = JSON.parse(data);
    if (piece.error) throw refusal(0, piece); // the response itself was well
    if (piece.dualfocus?.progress) tell(piece.dualfocus.progress);
    else add(whole, piece);
  }
  throw new Refused("", { code: "unreachable" }); // it was cut off
}

function add(whole, { model, choices, dualfocus, usage }) {
  whole.model = model;
  whole.content += choices[0]?.delta.content ?? ""; // vLLM's own may have none
  whole.dualfocus ??= dualfocus;
  whole.usage ??= usage;
}

function asCompletion({ model, content, dualfocus, usage }) {
  return { model, choices: [{ message: { role: "assistant", content } }], dualfocus, usage };
}

/** What each event holds. Comments, which a server may be told to send, are skipped. */
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reached(() => reader.read());
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) if (event.startsWith("data: ")) yield event.slice("data: ".length);
  }
}
