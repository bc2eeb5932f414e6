// The picture with what the model looked at drawn on it.

import { draw, make } from "./elements.js";

/**
 * Return the picture with places drawn on it: of each the box (x1, y1, x2, y2 as shares of width and height) and the crop
 * (left, top, right, bottom in pixels); either may be null.
 */
export function pictureWithPlaces(address, places) {
  const marked = places.filter(({ box, crop }) => box || crop);
  const picture = make("img", { src: address, alt: altOf(marked) });
  const frame = make("div", { class: "framed" }, picture);
  if (marked.length > 0) {
    // The size is the picture's own, upright, as the server counts it.
    picture.addEventListener("load", () => {
      frame.append(overlay(picture.naturalWidth, picture.naturalHeight, marked));
    });
  }
  return frame;
}

function altOf(places) {
  const looked = places.filter(({ box }) => box).map(({ box }) => {
    const [left, top, right, bottom] = box.map((share) => `${Math.round(share * 100)} %`);
    return `from ${left} to ${right} of its width and ${top} to ${bottom} of its height`;
  });
  return looked.length > 0 ? `The whole picture. The model looked ${looked.join(", then ")}.` : "The whole picture";
}

function overlay(width, height, places) {
  const layer = draw("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const { box, crop } of places) {
    if (crop) layer.append(rectangle("crop-line", crop));
    if (box) layer.append(rectangle("box-line", [box[0] * width, box[1] * height, box[2] * width, box[3] * height]));
  }
  return layer;
}

function rectangle(name, [left, top, right, bottom]) {
  const place = { x: left, y: top, width: right - left, height: bottom - top };
  // Twice: a light line under the coloured one stands out on any picture.
  return draw("g", {}, draw("rect", { ...place, class: `${name} under` }), draw("rect", { ...place, class: name }));
}
