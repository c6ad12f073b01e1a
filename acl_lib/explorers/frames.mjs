// Sliders over figures that were drawn beforehand: what a page shows where a notebook has live sliders.
import { STYLE, make } from "./shared.mjs";

function render({ model, el }) {
  const axes = model.get("axes"), frames = model.get("frames"), captions = model.get("captions");
  const root = make("div", { class: "acl-x", role: "group", "aria-label": model.get("title") }, make("style", {}, STYLE));
  const picture = make("img", { style: "max-width:100%;background:#fff" }), say = make("p", { "aria-live": "polite" });
  const places = axes.map(([name, values, start], k) => {
    const id = `acl-frames-${name}-${Math.round(performance.now())}-${k}`, last = values.length - 1;
    const input = make("input", { id, type: "range", min: 0, max: last, step: 1, value: start, "data-lm-suppress-shortcuts": "true" });
    const output = make("output", { for: id });
    input.addEventListener("input", show);
    root.append(make("div", { class: "set" }, make("label", { for: id }, name), input, output));
    return { input, output, values };
  });
  function show() {
    let at = 0;
    for (const { input, output, values } of places) {
      at = at * values.length + Number(input.value);
      output.textContent = String(values[Number(input.value)]);
      input.setAttribute("aria-valuetext", output.textContent);
    }
    picture.src = frames[at];
    picture.alt = captions[at];
    say.textContent = captions[at];
  }
  root.append(picture, say);
  el.replaceChildren(root);
  show();
}

export default { render };
