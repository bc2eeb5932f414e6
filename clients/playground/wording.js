// What the server's names mean, in words.

export const MODES = {
  dual: "Both looks; the answer that the model is surer of is given.",
  regions: "Both looks; the second one at each place that the question is about.",
  search: "Both looks, then deeper into the part that was looked at, until an answer is sure enough.",
  adaptive: "The second look is left out where the first answer is sure enough.",
  macro: "One look, at the whole picture.",
  micro: "The part that the question is about is looked at, and that answer is given.",
  off: "The model as it is without DualFocus.",
};

export const LOOKS = {
  macro: { title: "First look", subject: "the whole picture" },
  micro: { title: "Second look", subject: "that part, enlarged" },
};

/** The words for a look behind the first, which is number 1. */
export const lookWords = (number) => (number === 2 ? LOOKS.micro : { title: `${nth(number)} look`, subject: "another part, enlarged" });

const nth = (number) => ["First", "Second", "Third", "Fourth", "Fifth"][number - 1] ?? `${number}th`;

export const LOOKING = "Looking …";

/** What is being done, while it is. */
export const PROGRESS = {
  waiting: "Waiting for its turn …",
  grounding: "Finding where to look …",
  macro: "Looking at the whole picture …",
  micro: "Looking again, at that part …",
};

/** Which turn a name is of: of a search they are numbered, as in micro-2. */
export const kindOf = (turn) => turn.split("-")[0];

export const STAGES = {
  queue: "waiting for its turn",
  fetch: "taking the picture in",
  decode: "opening the picture",
  macro: "first answer",
  grounding: "where to look",
  grounder: "where to look, from the grounder",
  crop: "cutting that part out",
  micro: "second answer",
  select: "choosing",
};

export const TURNS = { macro: "first answer", grounding: "where to look", micro: "second answer" };

/** Why the answer is the one that it is: from the `dualfocus` field of an answer, in a sentence or two. */
export function reason(found) {
  const words = REASONS[found.selection];
  const why = words ? words(found) : `The server's reason is “${found.selection}”, which this page does not know.`;
  return [why, ENDINGS[found.ending]].filter(Boolean).join(" ");
}

/** Which look an answer is of, in words. */
function chosenLook(found) {
  const place = (found.looks ?? []).findIndex((look) => look.chosen);
  const number = place < 0 ? (found.winner === "micro" ? 2 : 1) : place + 1;
  return `${nth(number).toLowerCase()} look`;
}

// Why there was no look further than those, where there may be more than two.
const ENDINGS = {
  sure: "Its doubt was gone, so it looked no further.",
  enough: "What it saw was enough, it said, so it looked no further.",
  max_looks: "It may take no more looks than these.",
  no_other_place: "There was no other place to look at.",
  all_shown: "The last part was shown with all its pixels: enlarging it further would show nothing new.",
  look_failed: "The last look came to nothing.",
  tool_call: "There was no need to look on.",
  timed_out: "The time was up before it could look further.",
};

const REASONS = {
  lower_perplexity: (found) =>
    found.looks?.length > 2
      ? `The ${chosenLook(found)} was the surest: of its answers, the model found this the least surprising.`
      : `The ${chosenLook(found)} was the surer one: of its two answers, the model found this the less surprising.`,
  only_answer: (found) => `Only the ${found.winner === "micro" ? "second" : "first"} look was asked for.`,
  only_option: () => "The other answer named none of the options that the question offers.",
  no_option: () => "Neither answer named one of the options that the question offers, so the first answer stands.",
  other_answer_empty: () => "The other look gave an empty answer, and an empty answer never wins.",
  other_answer_cut: () => "The other look's answer was cut before its end, and such an answer never beats one that is whole.",
  same_answer: () => "Both looks say the same, so the first answer stands.",
  tool_call: () => "The first look called a tool, and that call is the answer.",
  nothing_asked: () => "Nothing was asked about the picture, so there was no place to look for.",
  no_grounding: () => "This model can't say where something is, so the first answer stands.",
  nothing_to_enlarge: () => "The place that the model named was already shown as large as it can be, so the first answer stands.",
  same_place: () => "It is the place of another look, so it was not looked at again.",
  several_pictures: () => "There are several pictures, and it was not said which to look into, so the first answer stands.",
  image_limit: () => "The server takes no more pictures in one question than there are, so the first answer stands.",
  timed_out: () => "The time was up before the second look was done, so the first answer stands.",
  skipped: () => "The first answer was sure enough, so the second look was left out.",
  no_box: (found) =>
    "Asked where to look, the model named no place, so the first answer stands." +
    (found.grounding?.text ? ` It wrote: “${found.grounding.text}”.` : ""),
  grounder_failed: () => "What the server asks where to look gave no place that can be used, so the first answer stands.",
  grounder_timed_out: () => "What the server asks where to look took too long, so the first answer stands.",
  empty_box: () => "The place that the model named holds no pixel of the picture, so the first answer stands.",
  context_full: () => "The second look did not fit into what the model can read at once, so the first answer stands.",
  micro_failed: () => "The second look ended in an error, which the server's log has; the first answer stands.",
};

/** Why one look of several has no answer. */
export const FAILED = {
  no_box: "Asked where to look, the model named no place.",
  empty_box: "The place that was named holds no pixel.",
  same_place: "It is the place of another look, so it was not looked at again.",
  nothing_to_enlarge: "This part was already shown as large as it can be.",
  context_full: "It did not fit into what the model can read at once.",
  image_limit: "The server takes no more pictures in one question.",
  micro_failed: "It ended in an error, which the server's log has.",
  timed_out: "The time was up before it was done.",
};

// Where one look is all there is because something went wrong.
export const DEGRADED = new Set([
  ...["no_box", "empty_box", "context_full", "image_limit", "micro_failed", "timed_out"],
  ...["grounder_failed", "grounder_timed_out"],
]);

/** A title and advice for an error; what the server itself said stands between them. */
export function problemWords({ code, status }) {
  return PROBLEMS[code] ?? PROBLEMS[status] ?? { title: `The server said no${status ? ` (${status})` : ""}`, advice: "" };
}

const PROBLEMS = {
  no_picture: { title: "There is no picture yet", advice: "Choose, drop or paste one, or try the sample." },
  no_question: { title: "There is no question yet", advice: "Write what you want to know about the picture." },
  not_a_picture: { title: "That is no picture", advice: "JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP and TIFF are read." },
  unreadable: { title: "The file can't be read", advice: "Was it moved or deleted? Choose it again." },
  admin_key_needed: { title: "That is for administrators", advice: "It takes a key of another kind." },
  invalid_api_key: { title: "The server needs a valid API key", advice: "Type it in the field above and ask again." },
  unsendable_key: { title: "The API key can't be sent", advice: "It holds a character that no key has: paste it again." },
  invalid_image: {
    title: "The picture can't be read",
    advice: "JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP and TIFF are read; another program may be able to save it as one of these.",
  },
  context_length_exceeded: {
    title: "The question is too long for this model",
    advice: "Ask with fewer words.",
  },
  invalid_value: { title: "The question can't be asked this way", advice: "" },
  body_too_large: {
    title: "The picture is too large to send",
    advice: "Make it smaller, or let the server's operator raise --max-body-bytes.",
  },
  body_too_slow: { title: "The picture took too long to arrive", advice: "A smaller one is there sooner." },
  unsupported_encoding: { title: "The picture was sent packed", advice: "Something between this page and the server did so." },
  too_busy: { title: "The server is busy", advice: "" },
  timeout: { title: "The answer took too long", advice: "Ask again, or look only once (macro)." },
  shutting_down: { title: "The server is stopping", advice: "Ask again in a minute: another may take its place." },
  engine_dead: { title: "The model has stopped", advice: "The server's log says why; its operator has to look." },
  unreachable: {
    title: "The server can't be reached",
    advice: "Is it still running? Is the network there? Nothing was lost: ask again.",
  },
  404: { title: "There is nothing at this address", advice: "Is this page served by the server that it asks?" },
  413: { title: "The picture is too large to send", advice: "What stands before the server refuses it: make it smaller." },
  200: { title: "What came back is no answer", advice: "Something between this page and the server may have changed it." },
};
