// The page: what its buttons do, and what is known while it is open. Nothing is stored.

import { ask, bodyOf, servedModel } from "./asking.js";
import { asCurl, asPython, copy } from "./copying.js";
import { forget, readPicture, samplePicture, watchPictures } from "./picture.js";
import { Refused } from "./refused.js";
import { showAnswer, showProblem, spoken } from "./showing.js";
import { kindOf, LOOKING, MODES, PROGRESS } from "./wording.js";

const at = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const SAMPLE_QUESTION = "What number is on the red circle?";
const known = { picture: null, model: "", waiting: null };

const chosenMode = () => document.querySelector("input[name=mode]:checked").value;
const key = () => at.key.value.trim();

function take(picture) {
  known.waiting?.abort();
  if (known.picture) forget(known.picture);
  known.picture = picture;
  at.answer.hidden = at.problem.hidden = true;
  at.preview.src = picture.address;
  at.preview.alt = `Your picture: ${picture.name}`;
  at.preview.hidden = false;
  at.drop.classList.add("filled");
  at["drop-title"].textContent = picture.name;
  at["drop-hint"].textContent = "Choose, drop or paste another";
}

async function takeFile(file) {
  try {
    take(await readPicture(file));
    say(`${file.name} is ready to be asked about.`);
  } catch {
    refuse(new Refused(file.name, { code: "unreadable" }));
  }
}

function say(text) {
  at.status.textContent = text;
}

function refuse(refused) {
  say("");
  at.answer.hidden = true;
  showProblem(at.problem, refused);
  at.problem.hidden = false;
  bringIntoView(at.problem);
}

function bringIntoView(element) {
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ behavior: isCalm ? "auto" : "smooth", block: "nearest" });
}

/** What is missing before a question can be sent: the error's code and the field that wants something. */
function missing() {
  if (!known.picture) return ["no_picture", at.file];
  if (!at.question.value.trim()) return ["no_question", at.question];
  return null;
}

async function send() {
  const lacking = missing();
  if (lacking) {
    refuse(new Refused("", { code: lacking[0] }));
    lacking[1].focus();
    return;
  }
  known.waiting?.abort();
  const waiting = new AbortController();
  known.waiting = waiting;
  begin();
  try {
    await answered({ picture: known.picture, question: at.question.value.trim(), mode: chosenMode() }, waiting.signal);
  } catch (error) {
    failed(error);
  } finally {
    if (known.waiting === waiting) end();
  }
}

async function answered(asked, signal) {
  const body = bodyOf({ ...asked, picture: asked.picture.dataUrl });
  const completion = await ask(body, key(), signal, (doing) => say(PROGRESS[kindOf(doing)] ?? LOOKING));
  nameModel(completion.model);
  showAnswer(at.answer, completion, asked);
  at.problem.hidden = true; // of a file that was dropped meanwhile
  at.answer.hidden = false;
  say(spoken(completion));
  bringIntoView(at.answer);
}

function failed(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof Refused)) reportError(error); // for whoever looks at the console
  refuse(error instanceof Refused ? error : new Refused("", { status: 200 }));
  if (error.status === 401) at.key.focus();
}

function begin() {
  at.problem.hidden = at.answer.hidden = true;
  say(LOOKING);
  document.body.classList.add("waiting");
  at.send.disabled = at.sample.disabled = true;
  at.stop.hidden = false;
}

function end() {
  known.waiting = null;
  document.body.classList.remove("waiting");
  at.send.disabled = at.sample.disabled = false;
  if (document.activeElement === at.stop) at.question.focus(); // it goes away
  at.stop.hidden = true;
}

function nameModel(model) {
  known.model = model;
  at.model.textContent = model;
  at.model.hidden = false;
  tellNeed(false);
}

/** Ask which model is served; where that takes a key, say so. Whatever else is wrong shows with the first question. */
async function meet() {
  try {
    nameModel(await servedModel(key()));
  } catch (error) {
    if (error.status === 401) tellNeed(true);
  }
}

function tellNeed(isNeeded) {
  at["key-hint"].classList.toggle("needed", isNeeded);
  at["key-need"].textContent = isNeeded ? "This server asks for one." : "If the server asks for one.";
}

async function trySample() {
  try {
    take(await samplePicture());
  } catch {
    refuse(new Refused("", { code: "unreachable" }));
    return;
  }
  at.question.value = SAMPLE_QUESTION;
  await send();
}

async function copyAs(write) {
  const lacking = missing();
  at["by-hand"].hidden = true;
  if (lacking) {
    at.copied.textContent = "Choose a picture and write a question first.";
    return;
  }
  const { name } = known.picture;
  const question = at.question.value.trim();
  const text = write({ name, question, mode: chosenMode(), model: known.model, keyed: key() !== "" });
  const isDone = await copy(text, at["by-hand"]);
  const keyFrom = key() ? " and the key from DUALFOCUS_API_KEY" : "";
  const how = isDone ? "Copied." : "The browser keeps the clipboard shut: copy it from the field.";
  at.copied.textContent = `${how} It reads ${name} from the current folder${keyFrom}.`;
}

function explainMode() {
  at["mode-hint"].textContent = MODES[chosenMode()];
}

at.ask.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
at.question.addEventListener("keydown", (event) => {
  // 229: in Safari the key that ends a composition comes after its end.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  if (!at.send.disabled) send();
});
at.stop.addEventListener("click", () => {
  known.waiting?.abort();
  say("Stopped.");
});
at.preview.addEventListener("error", () => {
  at.preview.hidden = true;
  at["drop-hint"].textContent = "This browser can't show it; the server may be able to read it.";
});
at.sample.addEventListener("click", trySample);
at.key.addEventListener("change", meet);
at["copy-curl"].addEventListener("click", () => copyAs(asCurl));
at["copy-python"].addEventListener("click", () => copyAs(asPython));
document.querySelectorAll("input[name=mode]").forEach((each) => each.addEventListener("change", explainMode));
watchPictures({
  input: at.file,
  zone: at.drop,
  take: takeFile,
  refuse: (name) => refuse(new Refused(name, { code: "not_a_picture" })),
});
explainMode();
meet();
