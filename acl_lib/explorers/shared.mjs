// What all explorers share: the losses of acl_lib on unit vectors, and controls that everyone can use.
// `module` in __init__.py puts this text before that of an explorer: one script a page, no imports.

// ---- mathematics: rows of unit length; rows b and b + B are the two views of clip b

export const dot = (a, b) => a.reduce((sum, v, k) => sum + v * b[k], 0);

export function unit(a) {
  const norm = Math.sqrt(dot(a, a));
  return a.map((v) => v / norm);
}

// 2 atan2(|u - v|, |u + v|): exact near 0 and 180 degrees, where arccos is not
export function angle(u, v) {
  let apart = 0, along = 0;
  for (let k = 0; k < u.length; k++) {
    apart += (u[k] - v[k]) ** 2;
    along += (u[k] + v[k]) ** 2;
  }
  return 2 * Math.atan2(Math.sqrt(apart), Math.sqrt(along));
}

// d theta / d u is -(v - u cos) / sin: nothing along u itself, nothing where the two coincide
function addAngleGradient(into, u, v, theta, weight) {
  const sin = Math.sin(theta), cos = Math.cos(theta);
  if (sin < 1e-9) return;
  for (let k = 0; k < u.length; k++) into[k] -= (weight * (v[k] - u[k] * cos)) / sin;
}

const zeros = (rows) => rows.map((u) => u.map(() => 0));

// Cross-entropy of each view picking its partner out of the 2B - 1 others (acl_lib.losses.nt_xent).
// A margin above 0 makes the positive's cosine smaller first (NT-Xent-AM).
export function ntXent(rows, temperature, margin = 0) {
  const n = rows.length, gradient = zeros(rows);
  let loss = 0;
  for (let i = 0; i < n; i++) {
    const partner = (i + n / 2) % n;
    const logits = rows.map((v, k) => (dot(rows[i], v) - (k === partner ? margin : 0)) / temperature);
    const top = Math.max(...logits.filter((_, k) => k !== i));
    const weights = logits.map((l, k) => (k === i ? 0 : Math.exp(l - top)));
    const sum = weights.reduce((a, b) => a + b);
    loss += Math.log(sum) + top - logits[partner];
    for (let k = 0; k < n; k++) {
      if (k === i) continue;
      const force = (weights[k] / sum - (k === partner ? 1 : 0)) / temperature / n;
      for (let d = 0; d < rows[i].length; d++) {
        gradient[i][d] += force * rows[k][d];
        gradient[k][d] += force * rows[i][d];
      }
    }
  }
  return { loss: loss / n, gradient: tangent(rows, gradient) };
}

// Squared angles of positives, squared shortfalls of negatives (acl_lib.losses.angular_margin).
export function angularMargin(rows, margin, reduction = "paper_scaled") {
  const n = rows.length, clips = n / 2, gradient = zeros(rows);
  const [wPositive, wNegative] = {
    paper_scaled: [(2 * 128) / 25, (2 * 128 * (2 * 128 - 2)) / 25],
    paper_code: [(2 * clips) / 25, (2 * clips * (2 * clips - 2)) / 25],
    mean: [1, 1],
  }[reduction];
  let positive = 0, negative = 0;
  for (let i = 0; i < n; i++) {
    for (let k = i + 1; k < n; k++) {
      const theta = angle(rows[i], rows[k]), same = k === i + clips;
      if (!same && theta >= margin) continue;
      const off = same ? theta : theta - margin; // what the square is taken of
      const share = same ? wPositive / clips : (2 * wNegative) / (n * (n - 2));
      if (same) positive += off * off;
      else negative += off * off;
      addAngleGradient(gradient[i], rows[i], rows[k], theta, 2 * off * share);
      addAngleGradient(gradient[k], rows[k], rows[i], theta, 2 * off * share);
    }
  }
  const loss = (wPositive * positive) / clips + (wNegative * 2 * negative) / (n * (n - 2));
  return { loss, gradient: tangent(rows, gradient) };
}

// On the sphere only what is at right angles to a point moves it.
export function tangent(rows, gradient) {
  return gradient.map((g, i) => {
    const along = dot(g, rows[i]);
    return g.map((v, k) => v - along * rows[i][k]);
  });
}

// alpha * NT-Xent + (1 - alpha) * angular margin, the same points taken for z and for h.
export function acl(rows, { alpha, temperature, margin, reduction }) {
  const contrast = ntXent(rows, temperature), angular = angularMargin(rows, margin, reduction);
  return {
    loss: alpha * contrast.loss + (1 - alpha) * angular.loss,
    contrast: contrast.loss,
    angular: angular.loss,
    pulls: contrast.gradient.map((g) => g.map((v) => -alpha * v)),
    pushes: angular.gradient.map((g) => g.map((v) => -(1 - alpha) * v)),
  };
}

// Wang and Isola's alignment and uniformity, Wang and Liu's tolerance, and the gap between classes.
export function measures(rows, labels) {
  const n = rows.length, clips = n / 2;
  let near = 0, spread = 0, pairs = 0, same = 0, sames = 0, other = 0, others = 0;
  for (let b = 0; b < clips; b++) near += 2 - 2 * dot(rows[b], rows[b + clips]);
  for (let i = 0; i < n; i++) {
    for (let k = i + 1; k < n; k++) {
      const cosine = dot(rows[i], rows[k]);
      if (k < clips) { spread += Math.exp(-2 * (2 - 2 * cosine)); pairs++; }
      if (labels[i % clips] === labels[k % clips]) { same += cosine; sames++; }
      else { other += cosine; others++; }
    }
  }
  return {
    alignment: near / clips,
    uniformity: Math.log(spread / pairs),
    tolerance: same / sames,
    classGap: same / sames - other / others,
  };
}

// One step downhill along the sphere, as long as it may be without going up; returns the next length.
export function descend(rows, settings, length) {
  const now = acl(rows, settings);
  const force = now.pulls.map((p, i) => p.map((v, k) => v + now.pushes[i][k]));
  const longest = Math.max(...force.map((f) => Math.sqrt(dot(f, f))));
  if (longest < 1e-9) return { rows, length };
  let step = Math.min(length, 0.05 / longest); // never more than 3 degrees at once
  for (let tries = 0; tries < 30; tries++, step /= 2) {
    const next = rows.map((u, i) => place(u.map((v, k) => v + step * force[i][k]), settings.quarter));
    if (acl(next, settings).loss < now.loss) return { rows: next, length: 1.5 * step };
  }
  return { rows, length: step };
}

// A point back on the sphere; behind a ReLU no coordinate may be negative.
export function place(point, quarter) {
  if (!quarter) return unit(point);
  const cut = point.map((v) => Math.max(v, 0));
  return dot(cut, cut) > 0 ? unit(cut) : unit(point.map(Math.abs));
}

// Numbers in [0, 1) that are the same on every machine.
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 4294967296;
  };
}

// ---- controls

export const STYLE = `
.acl-x{scroll-margin-top:5rem;--ink:var(--pst-color-text-base,var(--jp-ui-font-color1,#222));--ground:var(--pst-color-background,var(--jp-layout-color1,#fff));
--one:#0062a3;--two:#b34700;--three:#006b4f;--four:#8b3a76;color:var(--ink);font:14px/1.45 system-ui,sans-serif;max-width:46rem}
html[data-theme=dark] .acl-x,[data-jp-theme-light=false] .acl-x{--one:#6bb8ff;--two:#ff9d66;--three:#4fd0a5;--four:#e3a1d0}
.acl-x .set{display:grid;grid-template-columns:11rem 1fr 5rem;gap:.6rem;align-items:center;margin:.25rem 0}
.acl-x input[type=range]{width:100%;accent-color:var(--one);height:1.6rem;margin:0}
.acl-x :is(input,button,select,[tabindex]):focus-visible{outline:3px solid #e8a200;outline-offset:2px}
.acl-x output{font-variant-numeric:tabular-nums;text-align:right}
.acl-x .bar{display:flex;flex-wrap:wrap;gap:.4rem .8rem;align-items:center;margin:.5rem 0}
.acl-x :is(button,select){font:inherit;color:inherit;background:transparent;border:1px solid currentColor;border-radius:.3rem;padding:.25rem .7rem;min-height:2rem}
.acl-x option{color:#222;background:#fff}
.acl-x svg{display:block;width:100%;touch-action:pan-y;overflow:visible}
.acl-x svg text{fill:currentColor;font-size:12px}
.acl-x .axis{stroke:currentColor;stroke-opacity:.5;fill:none}
.acl-x table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums;width:auto}
.acl-x :is(th,td){padding:.1rem .7rem .1rem 0;text-align:right;font-weight:normal;background:transparent;color:inherit;border:0}
.acl-x th:first-child{text-align:left}
.acl-x p{margin:.4rem 0}
.acl-x a{color:var(--one)}
.acl-x .link{font-size:.85em}
@media (max-width:30rem){.acl-x .set{grid-template-columns:1fr 4rem}.acl-x .set label{grid-column:1/-1}}`;

const SVG = "http://www.w3.org/2000/svg";

export function make(tag, attributes = {}, ...children) {
  const element = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

let counter = 0;

// The frame of an explorer: style, labelled controls for values of the model, and the same values in
// a link, such as #alpha=0.3&tau=0.2; x=circle in it means that explorer alone.
// A control is { kind, name, link, label } and, by its kind,
//   "slider" (or no kind): min, max, step, unit, digits, text: value => words instead of both
//   "tick": nothing more      "choice": options [[value, words], ...]
// Sliders stand below each other; ticks and choices share a row. `close` takes the calls back.
export function frame({ model, el }, { name, title }, controls) {
  const root = make("div", { class: "acl-x", role: "group", "aria-label": title, "data-explorer": name }, make("style", {}, STYLE));
  const wide = make("div"), bar = make("div", { class: "bar" });
  const made = controls.map((control) => ({ control, ...(MAKERS[control.kind] ?? slider)(control, model) }));
  for (const { control, node } of made) (control.kind ? bar : wide).append(node);
  root.append(wide, bar);
  for (const { control, show } of made) {
    model.on(`change:${control.name}`, show);
    show();
  }
  const off = [() => made.forEach(({ control, show }) => model.off(`change:${control.name}`, show))];
  if (model.page) off.push(linked(root, name, model, controls));
  el.replaceChildren(root);
  return { root, close: () => off.forEach((call) => call()) };
}

function put(model, name, value) {
  model.set(name, value);
  model.save_changes();
}

function slider({ name, label, min, max, step, unit: unitName = "", digits = 2, text }, model) {
  const id = `acl-x-${++counter}`;
  const input = make("input", { id, type: "range", min, max, step, "data-lm-suppress-shortcuts": "true" });
  const output = make("output", { for: id });
  input.addEventListener("input", () => put(model, name, Number(input.value)));
  const show = () => {
    const value = Number(model.get(name)), words = text ? text(value) : `${value.toFixed(digits)}${unitName}`;
    input.value = value;
    input.setAttribute("aria-valuetext", words);
    output.textContent = words;
  };
  return { node: make("div", { class: "set" }, make("label", { for: id }, label), input, output), show };
}

const MAKERS = {
  tick({ name, label }, model) {
    const input = make("input", { type: "checkbox", "data-lm-suppress-shortcuts": "true" });
    input.addEventListener("change", () => put(model, name, input.checked));
    return { node: make("label", {}, input, ` ${label}`), show: () => { input.checked = model.get(name); } };
  },
  choice({ name, label, options }, model) {
    const input = make("select", { "data-lm-suppress-shortcuts": "true" });
    input.append(...options.map(([value, words]) => make("option", { value }, words)));
    input.addEventListener("change", () => put(model, name, input.value));
    return { node: make("label", {}, `${label} `, input), show: () => { input.value = model.get(name); } };
  },
};

// Values from the address into the model, and the model's values into a link below the explorer.
function linked(root, name, model, controls) {
  const link = make("a", {}, "Link to these settings");
  const told = () => {
    const all = new URLSearchParams({ x: name });
    for (const { link: key, name: of } of controls) all.set(key, typeof model.get(of) === "boolean" ? Number(model.get(of)) : model.get(of));
    link.setAttribute("href", `#${all}`);
  };
  const read = () => {
    root.removeAttribute("data-explorer-asked");
    if (!location.hash.includes("=")) return;
    const asked = new URLSearchParams(location.hash.slice(1));
    if (asked.has("x") && asked.get("x") !== name) return;
    const taken = controls.filter((control) => asked.has(control.link)).map((control) => {
      const value = fromLink(asked.get(control.link), control);
      if (value !== undefined) model.set(control.name, value);
      return value;
    });
    if (!taken.some((value) => value !== undefined) && asked.get("x") !== name) return;
    const others = [...document.querySelectorAll("[data-explorer-asked]")];
    if (others.some((other) => other.dataset.explorerAsked === location.hash)) return; // the upper one is shown
    root.setAttribute("data-explorer-asked", location.hash);
    setTimeout(() => root.scrollIntoView({ block: "start" }));
  };
  window.addEventListener("hashchange", read);
  model.on("change", told);
  read();
  told();
  setTimeout(() => root.append(make("p", { class: "link" }, link))); // below all that the explorer adds
  return () => {
    window.removeEventListener("hashchange", read);
    model.off("change", told);
  };
}

// The value that a link gives a control, or undefined where it is none.
export function fromLink(text, { kind, min, max, options }) {
  if (kind === "tick") return { 0: false, 1: true }[text];
  if (kind === "choice") return options.map(([value]) => value).find((value) => value === text);
  const value = Number(text);
  return text.trim() && Number.isFinite(value) ? Math.min(max, Math.max(min, value)) : undefined;
}

export function button(text, act) {
  const made = make("button", { type: "button", "data-lm-suppress-shortcuts": "true" }, text);
  made.addEventListener("click", act);
  return made;
}

// ---- a chart

// Round numbers that cover a range.
export function ticks(min, max, count = 5) {
  const rough = (max - min) / count, ten = 10 ** Math.floor(Math.log10(rough));
  const step = ten * [1, 2, 5, 10].find((m) => m * ten >= 0.7 * rough);
  const first = Math.ceil(min / step - 1e-9);
  return Array.from({ length: Math.floor(max / step + 1e-9) - first + 1 }, (_, k) => Number(((first + k) * step).toPrecision(6)));
}

// Draws axes and lines into an svg element and returns its scales.
// axis: { min, max, label, ticks, to }, with `to` Math.log or another rising function;
// line: { name, points [[x, y], ...], colour, dash, dots }. Text keeps its size: `width` is in pixels.
export function plot(svg, width, { height = 240, x, y, lines }) {
  const left = 50, right = 14, top = 24, bottom = 40;
  const scale = ({ min, max, to = (v) => v }, from, end) => {
    const low = to(min), high = to(max);
    return (v) => from + ((to(v) - low) / (high - low || 1)) * (end - from);
  };
  const X = scale(x, left, width - right), Y = scale(y, height - bottom, top);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  const parts = [make("svg:path", { class: "axis", d: `M${left},${top}V${height - bottom}H${width - right}` })];
  const words = (v) => String(Number(v.toPrecision(3)));
  for (const v of x.ticks ?? ticks(x.min, x.max, width > 500 ? 8 : 4)) {
    parts.push(make("svg:text", { x: X(v), y: height - bottom + 16, "text-anchor": "middle" }, words(v)));
  }
  for (const v of y.ticks ?? ticks(y.min, y.max)) {
    parts.push(make("svg:line", { class: "axis", x1: left, x2: width - right, y1: Y(v), y2: Y(v), "stroke-dasharray": "1 5" }));
    parts.push(make("svg:text", { x: left - 6, y: Y(v) + 4, "text-anchor": "end" }, words(v)));
  }
  parts.push(make("svg:text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, x.label));
  parts.push(make("svg:text", { x: 4, y: 12 }, y.label));
  const path = (points) => `M${points.map(([a, b]) => `${X(a).toFixed(1)},${Y(b).toFixed(1)}`).join("L")}`;
  for (const { name, points, colour, dash = "", dots } of lines) {
    if (!points.length) continue;
    parts.push(make("svg:path", { d: path(points), fill: "none", stroke: colour, "stroke-width": 2.5, "stroke-dasharray": dash, "data-name": name }));
    if (dots) for (const [a, b] of points) parts.push(make("svg:circle", { cx: X(a), cy: Y(b), r: 4, fill: colour }));
  }
  svg.replaceChildren(...parts);
  return { X, Y };
}

// The key of a chart's lines, as a row of strokes with their names.
export function legend(lines) {
  const bar = make("div", { class: "bar" });
  for (const { name, colour, dash = "" } of lines) {
    const line = make("svg:line", { x1: 0, x2: 34, y1: 7, y2: 7, stroke: colour, "stroke-width": 3, "stroke-dasharray": dash });
    const mark = make("svg:svg", { width: 34, height: 14, style: "width:34px;display:inline-block", "aria-hidden": "true" }, line);
    bar.append(make("span", {}, mark, ` ${name}`));
  }
  return bar;
}

// ---- points that one walks between with the arrow keys

export const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// The point that an arrow key leads to: the nearest that counts within 45 degrees of its direction, or
// else on that side, or else the same again.
export function toward(points, from, [dx, dy], counts) {
  const [x, y] = points[from];
  let best = from, least = Infinity;
  points.forEach(([a, b], k) => {
    const along = (a - x) * dx + (b - y) * dy, across = Math.abs((a - x) * dy) + Math.abs((b - y) * dx);
    const far = along + 2 * across + (across > along ? 1e6 : 0);
    if (k === from || along < 0.5 || (counts && !counts[k]) || far >= least) return;
    [best, least] = [k, far];
  });
  return best;
}

// Calls draw with the width in real pixels, so that text keeps its size on a phone.
export function onWidth(element, draw) {
  const watch = new ResizeObserver(() => draw(Math.max(280, element.clientWidth)));
  watch.observe(element);
  return () => watch.disconnect();
}

export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
