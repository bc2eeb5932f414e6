// Anthropic's client for Node asks one image question, whole and streamed: BASE_URL MODEL FILE [TEXT].
import { readFileSync } from 'node:fs';
import Anthropic from '@anthropic-ai/sdk';

const [baseURL, model, path, text = 'What is in the cup?'] = process.argv.slice(2);
const [, media_type, data] = readFileSync(path, 'utf8').match(/^data:(.*);base64,(.*)$/s);
const client = new Anthropic({ baseURL: baseURL.replace(/\/v1$/, ''), apiKey: 'none' });
const content = [{ type: 'image', source: { type: 'base64', media_type, data } }, { type: 'text', text }];
const body = { model, max_tokens: 32, messages: [{ role: 'user', content }] };
const whole = await client.messages.create(body);
let winner;
const stream = client.messages.stream(body);
for await (const event of stream) winner = event.dualfocus?.winner ?? winner;
const streamed = (await stream.finalMessage()).content[0].text;
console.log(JSON.stringify({ text: whole.content[0].text, streamed, dualfocus: whole.dualfocus, winner }));
