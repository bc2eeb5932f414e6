// Bars: seconds by stage, and how much of the prompts was in the cache.

import { make } from "./elements.js";
import { STAGES, TURNS } from "./wording.js";

/** Seconds as a person reads them. */
export function duration(seconds) {
  if (seconds >= 1) return `${seconds.toFixed(2)} s`;
  const milliseconds = seconds * 1000;
  return milliseconds < 1 ? "under 1 ms" : `${milliseconds.toFixed(0)} ms`;
}

/** The time of each stage, as bars against the longest. */
export function stageBars(stages) {
  const order = Object.keys(STAGES).filter((name) => name in stages);
  const longest = Math.max(...order.map((name) => stages[name]));
  const rows = order.map((name) => bar(STAGES[name], stages[name] / longest, duration(stages[name]), name));
  return block("Time by stage", "The first answer and where to look run side by side.", rows);
}

/** The share of prompt tokens that were in the cache, of all turns together and of each. */
export function cacheBars(usage, turns) {
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  const rows = Object.entries(turns).map(([name, turn]) =>
    bar(nameOf(name), turn.cached_tokens / turn.prompt_tokens, `${turn.cached_tokens} of ${turn.prompt_tokens}`, "cache"),
  );
  const whole = bar("all together", cached / usage.prompt_tokens, percent(cached, usage.prompt_tokens), "cache");
  const words = `${cached} of ${usage.prompt_tokens} prompt tokens were in the cache and cost nothing again.`;
  return block("Cached", words, [whole, ...rows]);
}

function nameOf(turn) {
  const [kind, number] = turn.split("-");
  return [TURNS[kind] ?? kind, number].filter(Boolean).join(" ");
}

function percent(part, whole) {
  return `${Math.round((100 * part) / whole)} %`;
}

function block(title, words, rows) {
  return make("section", { class: "measure card" }, make("h3", {}, title), make("p", { class: "hint" }, words), make("ul", {}, ...rows));
}

function bar(label, share, value, kind) {
  const filling = make("span", { class: `filling ${kind}` });
  filling.style.width = `${100 * share}%`; // a style sheet knows no share; set so, the policy lets it be
  const line = make("span", { class: "line", "aria-hidden": "true" }, filling);
  return make("li", {}, make("span", { class: "label" }, label), line, make("span", { class: "value" }, value));
}
