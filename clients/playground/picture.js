// The picture that is asked about: chosen, dropped, pasted, or the sample.

// A browser knows no type of some of what the server reads.
const ENDINGS = /\.(heic|heif|avif|webp|tiff?|jp2|p[bgp]m)$/i;

const isPicture = ({ type, name }) => type.startsWith("image/") || (type === "" && ENDINGS.test(name));

/** Read a file as the page uses it: `name`, `dataUrl` for the request, `address` for showing it. */
export async function readPicture(file) {
  return { name: file.name || "picture.png", dataUrl: await dataUrlOf(file), address: URL.createObjectURL(file) };
}

/** Let go of what a picture holds in memory. */
export function forget(picture) {
  URL.revokeObjectURL(picture.address);
}

/** Fetch the drawing that comes with the page. */
export async function samplePicture() {
  const response = await fetch(new URL("sample.png", import.meta.url));
  if (!response.ok) throw new Error("The sample is missing.");
  return readPicture(new File([await response.blob()], "sample.png", { type: "image/png" }));
}

/** Call `take` with each picture that is chosen, dropped anywhere or pasted, `refuse` where it is something else. */
export function watchPictures({ input, zone, take, refuse }) {
  const offer = (files) => {
    if (files.length === 0) return;
    const file = [...files].find(isPicture);
    if (file) take(file);
    else refuse(files[0].name);
  };
  input.addEventListener("change", () => {
    offer(input.files);
    input.value = ""; // the same file may be chosen again
  });
  document.addEventListener("paste", (event) => offer(event.clipboardData.files));
  watchDrops(zone, offer);
}

function watchDrops(zone, offer) {
  const mark = (event, over) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    zone.classList.toggle("over", over);
  };
  document.addEventListener("dragover", (event) => mark(event, true));
  document.addEventListener("dragleave", (event) => mark(event, false));
  document.addEventListener("drop", (event) => {
    mark(event, false);
    offer(event.dataTransfer.files);
  });
}

function dataUrlOf(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}
