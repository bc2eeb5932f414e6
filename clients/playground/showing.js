// An answer, or an error, as elements.

import { pictureWithBox } from "./drawing.js";
import { make } from "./elements.js";
import { cacheBars, duration, stageBars } from "./measures.js";
import { DEGRADED, LOOKS, problemWords, reason } from "./wording.js";

const SILENT = "(the answer is empty)";

/** Fill `place` with an answer to a question about a picture. */
export function showAnswer(place, completion, asked) {
  const found = completion.dualfocus;
  const text = completion.choices[0].message.content || SILENT;
  const parts = found
    ? [verdict(text, asked.question, reason(found), found), looks(found, asked.picture), measures(completion)]
    : [verdict(text, asked.question, "The model's own chat answered, with one look and nothing to compare."), plain(completion)];
  place.replaceChildren(...parts);
}

/** What a screen reader is told of it. */
export function spoken(completion) {
  const found = completion.dualfocus;
  const text = completion.choices[0].message.content || SILENT;
  return `Answer: ${text}.${found ? ` ${reason(found)}` : ""}`;
}

/** Fill `place` with an error. */
export function showProblem(place, refused) {
  const { title, advice } = problemWords(refused);
  place.replaceChildren(make("h2", {}, title), ...[refused.message, advice].filter(Boolean).map((text) => make("p", {}, text)));
}

function verdict(text, question, why, found = {}) {
  return make(
    "div",
    { class: DEGRADED.has(found.selection) ? "verdict degraded" : "verdict" },
    make("p", { class: "asked" }, question),
    make("h2", { id: "answer-title" }, text),
    make("p", { class: "why" }, why),
    ...(found.notes ?? []).map((note) => make("p", { class: "note hint" }, note)),
  );
}

function looks(found, picture) {
  const first = look("macro", found, [pictureWithBox(picture.address, found.box, found.crop), legend(found)]);
  const second = look("micro", found, [cropOf(found)]);
  return make("div", { class: "looks" }, first, second);
}

function look(name, found, seen) {
  const won = found.winner === name;
  const { title, subject } = LOOKS[name];
  return make(
    "article",
    { class: `look card ${name}${won ? " winner" : ""}`, "aria-label": `${title}: ${subject}` },
    make("header", {}, make("h3", {}, title), make("span", { class: "subject" }, subject), won ? make("span", { class: "badge" }, "chosen") : null),
    make("div", { class: "seen" }, ...seen),
    said(found[name]),
  );
}

function said(answer) {
  if (!answer) return make("p", { class: "said none" }, "No answer of this look.");
  return make(
    "div",
    { class: "said" },
    make("p", { class: "text" }, answer.text || SILENT),
    make("dl", {}, measure("perplexity", answer.perplexity)),
  );
}

function measure(name, value) {
  return make("div", { title: "1 is certain; the lower, the surer" }, make("dt", {}, name), make("dd", {}, value.toFixed(2)));
}

function legend(found) {
  if (!found.box && !found.crop) return make("p", { class: "legend" }, "Nothing was marked.");
  return make(
    "p",
    { class: "legend" },
    found.box ? make("span", { class: "key-box" }, "where the model looked") : null,
    found.crop ? make("span", { class: "key-crop" }, "what it was shown enlarged") : null,
  );
}

function cropOf(found) {
  if (!found.crop_image) return make("p", { class: "no-crop" }, "Nothing was enlarged.");
  const [left, top, right, bottom] = found.crop;
  return make(
    "figure",
    {},
    make("img", { src: found.crop_image, alt: "The part of the picture that was enlarged" }),
    make("figcaption", {}, `${right - left} × ${bottom - top} pixels of the picture`),
  );
}

function measures(completion) {
  const { stages, turns, seconds } = completion.dualfocus;
  const total = make("p", { class: "total hint" }, `${duration(seconds)} from the first turn to the choice, by ${completion.model}.`);
  return make("div", { class: "measures" }, stageBars(stages), cacheBars(completion.usage, turns), total);
}

function plain(completion) {
  return make("p", { class: "total hint" }, `${completion.usage.prompt_tokens} prompt tokens, answered by ${completion.model}.`);
}
