// An answer, or an error, as elements.

import { pictureWithPlaces } from "./drawing.js";
import { make } from "./elements.js";
import { cacheBars, duration, stageBars } from "./measures.js";
import { DEGRADED, FAILED, LOOKS, lookWords, problemWords, reason } from "./wording.js";

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
  const places = placesOf(found);
  const whole = [pictureWithPlaces(picture.address, places), legend(places)];
  const first = look("macro", LOOKS.macro, { answer: found.macro, chosen: found.winner === "macro" }, whole);
  return make("div", { class: "looks" }, first, ...furtherLooks(found));
}

/** Where was looked: by several looks, or at several regions, or at one. */
function placesOf(found) {
  if (found.looks?.length > 0) return found.looks.slice(1);
  return regionsOf(found);
}

function regionsOf(found) {
  return found.regions?.length > 1 ? found.regions : [found];
}

function furtherLooks(found) {
  const [, ...further] = found.looks ?? [];
  if (further.length === 0) {
    const second = { answer: found.micro, chosen: found.winner === "micro" };
    return [look("micro", LOOKS.micro, second, regionsOf(found).map(cropOf))];
  }
  return further.map((each, place) => look("micro", lookWords(place + 2), each, [cropOf(each)]));
}

function look(name, { title, subject }, { answer, chosen, failed }, seen) {
  return make(
    "article",
    { class: `look card ${name}${chosen ? " winner" : ""}`, "aria-label": `${title}: ${subject}` },
    make("header", {}, make("h3", {}, title), make("span", { class: "subject" }, subject), chosen ? make("span", { class: "badge" }, "chosen") : null),
    make("div", { class: name === "micro" && seen.length > 1 ? "seen several" : "seen" }, ...seen),
    said(answer, failed),
  );
}

function said(answer, failed) {
  if (!answer) return make("p", { class: "said none" }, FAILED[failed] ?? "No answer of this look.");
  return make(
    "div",
    { class: "said" },
    make("p", { class: "text" }, answer.text || SILENT),
    make("dl", {}, measure("perplexity", answer.perplexity)),
  );
}

function measure(name, value) {
  return make("div", { title: "1 is certain; the lower, the surer" }, make("dt", {}, name), make("dd", {}, value?.toFixed(2) ?? "∞"));
}

function legend(places) {
  const [boxes, crops] = ["box", "crop"].map((mark) => places.some((place) => place[mark]));
  if (!boxes && !crops) return make("p", { class: "legend" }, "Nothing was marked.");
  return make(
    "p",
    { class: "legend" },
    boxes ? make("span", { class: "key-box" }, "where the model looked") : null,
    crops ? make("span", { class: "key-crop" }, "what it was shown enlarged") : null,
  );
}

function cropOf(place) {
  if (!place.crop_image) return make("p", { class: "no-crop" }, "Nothing was enlarged.");
  const [left, top, right, bottom] = place.crop;
  return make(
    "figure",
    {},
    make("img", { src: place.crop_image, alt: "The part of the picture that was enlarged" }),
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
