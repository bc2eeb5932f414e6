// The official client for Node asks one image question by the Responses API, whole and streamed: BASE_URL MODEL FILE [TEXT].
import { readFileSync } from 'node:fs';
import OpenAI from 'openai';

const [baseURL, model, path, text = 'What is in the cup?'] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: 'none' });
const content = [
  { type: 'input_image', image_url: readFileSync(path, 'utf8'), detail: 'auto' },
  { type: 'input_text', text },
];
const body = { model, input: [{ role: 'user', content }] };
const whole = await client.responses.create(body);
let streamed = '';
for await (const event of await client.responses.create({ ...body, stream: true })) {
  if (event.type === 'response.output_text.delta') streamed += event.delta;
}
console.log(JSON.stringify({ text: whole.output_text, streamed, dualfocus: whole.dualfocus }));
