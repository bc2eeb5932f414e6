// The AI SDK asks one image question by OpenAI's default API, whole and streamed: BASE_URL MODEL FILE [TEXT].
import { readFileSync } from 'node:fs';
import { createOpenAI } from '@ai-sdk/openai';
import { generateText, streamText } from 'ai';

const [baseURL, model, path, text = 'What is in the cup?'] = process.argv.slice(2);
const content = [
  { type: 'image', image: readFileSync(path, 'utf8') },
  { type: 'text', text },
];
const asked = { model: createOpenAI({ baseURL, apiKey: 'none' })(model), messages: [{ role: 'user', content }] };
const whole = await generateText(asked);
let streamed = '';
let told;
for await (const part of streamText({ ...asked, includeRawChunks: true }).fullStream) {
  if (part.type === 'error') throw part.error;
  if (part.type === 'text-delta') streamed += part.text;
  if (part.type === 'raw') told = part.rawValue.response?.dualfocus ?? told;
}
const { dualfocus } = whole.response.body;
console.log(JSON.stringify({ text: whole.text, streamed, dualfocus, winner: told.winner }));
