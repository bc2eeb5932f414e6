// The question as a command and as a program. A key is never written into them, only the variable that holds it.

import { BASE, bodyOf } from "./asking.js";

const VARIABLE = "DUALFOCUS_API_KEY";
// Stands where the picture goes, which comes before the question's text.
const PLACE = "@@picture@@";

/** The question as a shell command; the picture is read from its file in the current folder. */
export function asCurl({ name, question, mode, model, keyed }) {
  const body = JSON.stringify(bodyOf({ picture: PLACE, question, mode, model }));
  // In a here-document the shell reads $, ` and \ still.
  const escaped = body.replace(/[\\$`]/g, "\\$&");
  const picture = `"data:${typeOf(name)};base64,$(base64 < ${quoted(name)} | tr -d '\\n')"`;
  const key = keyed ? ` -H "Authorization: Bearer $${VARIABLE}"` : "";
  // A function: in a string of `replace`, $ has a meaning.
  const sent = escaped.replace(`"${PLACE}"`, () => picture);
  return `curl -s ${BASE}/chat/completions${key} -H 'Content-Type: application/json' -d @- <<END\n${sent}\nEND\n`;
}

/** The question as a program with OpenAI's client. */
export function asPython({ name, question, mode, model, keyed }) {
  const key = keyed ? `os.environ["${VARIABLE}"]` : '"none"';
  return `import base64
${keyed ? "import os\n" : ""}from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(BASE)}, api_key=${key})
picture = base64.b64encode(Path(${JSON.stringify(name)}).read_bytes()).decode()
answer = client.chat.completions.create(
    model=${JSON.stringify(model)},
    messages=[{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": f"data:${typeOf(name)};base64,{picture}"}},
        {"type": "text", "text": ${JSON.stringify(question)}}]}],
    extra_body={"dualfocus": {"mode": ${JSON.stringify(mode)}}},
)
print(answer.choices[0].message.content)
`;
}

/** Put text on the clipboard; where the page may not (without TLS, say), mark it in a field to be copied by hand. */
export async function copy(text, byHand) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    byHand.value = text;
    byHand.hidden = false;
    byHand.focus();
    byHand.select();
    return false;
  }
}

function typeOf(name) {
  const ending = name.split(".").pop().toLowerCase();
  return `image/${{ jpg: "jpeg", tif: "tiff" }[ending] ?? ending}`;
}

function quoted(name) {
  return `'${name.replaceAll("'", "'\\''")}'`;
}
