// The official client for Node asks one image question, whole and streamed: BASE_URL MODEL FILE.
import { readFileSync } from 'node:fs';
import OpenAI from 'openai';

const [baseURL, model, path] = process.argv.slice(2);
const image = readFileSync(path, 'utf8');
const client = new OpenAI({ baseURL, apiKey: 'none' });
const content = [
  { type: 'image_url', image_url: { url: image } },
  { type: 'text', text: 'What is in the cup?' },
];
const body = { model, messages: [{ role: 'user', content }] };
const whole = await client.chat.completions.create(body);
let streamed = '';
for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? '';
}
console.log(JSON.stringify({ text: whole.choices[0].message.content, streamed, dualfocus: whole.dualfocus }));
