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
.acl-x{--ink:var(--pst-color-text-base,var(--jp-ui-font-color1,#222));--ground:var(--pst-color-background,var(--jp-layout-color1,#fff));
--one:#0062a3;--two:#b34700;--three:#006b4f;--four:#8b3a76;color:var(--ink);font:14px/1.45 system-ui,sans-serif;max-width:46rem}
html[data-theme=dark] .acl-x,[data-jp-theme-light=false] .acl-x{--one:#6bb8ff;--two:#ff9d66;--three:#4fd0a5;--four:#e3a1d0}
.acl-x .row{display:grid;grid-template-columns:11rem 1fr 5rem;gap:.6rem;align-items:center;margin:.25rem 0}
.acl-x input[type=range]{width:100%;accent-color:var(--one);height:1.6rem;margin:0}
.acl-x :is(input,button,select,[tabindex]):focus-visible{outline:3px solid #e8a200;outline-offset:2px}
.acl-x output{font-variant-numeric:tabular-nums;text-align:right}
.acl-x .bar{display:flex;flex-wrap:wrap;gap:.4rem .8rem;align-items:center;margin:.5rem 0}
.acl-x :is(button,select){font:inherit;color:inherit;background:transparent;border:1px solid currentColor;border-radius:.3rem;padding:.25rem .7rem;min-height:2rem}
.acl-x option{color:#222;background:#fff}
.acl-x svg{display:block;width:100%;touch-action:none;overflow:visible}
.acl-x svg text{fill:currentColor;font-size:12px}
.acl-x .axis{stroke:currentColor;stroke-opacity:.5;fill:none}
.acl-x table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums;width:auto}
.acl-x :is(th,td){padding:.1rem .7rem .1rem 0;text-align:right;font-weight:normal;background:transparent;color:inherit;border:0}
.acl-x th:first-child{text-align:left}
.acl-x p{margin:.4rem 0}
@media (max-width:30rem){.acl-x .row{grid-template-columns:1fr 4rem}.acl-x .row label{grid-column:1/-1}}`;

const SVG = "http://www.w3.org/2000/svg";

export function make(tag, attributes = {}, ...children) {
  const element = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

let counter = 0;

// The frame of an explorer: style, sliders for numbers of the model, and the same numbers in a link.
export function frame({ model, el }, title, sliders) {
  const root = make("div", { class: "acl-x", role: "group", "aria-label": title }, make("style", {}, STYLE));
  const names = Object.fromEntries(sliders.map((s) => [s.link, s.name]));
  if (model.page && location.hash.includes("=")) {
    for (const [key, text] of new URLSearchParams(location.hash.slice(1))) {
      const of = sliders.find((s) => s.link === key), value = Number(text);
      if (of && Number.isFinite(value)) model.set(of.name, Math.min(of.max, Math.max(of.min, value)));
    }
  }
  const rows = sliders.map(({ name, label, min, max, step, unit: unitName = "", digits = 2 }) => {
    const id = `acl-x-${++counter}`;
    const input = make("input", { id, type: "range", min, max, step, "data-lm-suppress-shortcuts": "true" });
    const output = make("output", { for: id });
    const show = () => {
      const text = `${Number(model.get(name)).toFixed(digits)}${unitName}`;
      input.value = model.get(name);
      input.setAttribute("aria-valuetext", text);
      output.textContent = text;
    };
    input.addEventListener("input", () => {
      model.set(name, Number(input.value));
      model.save_changes();
    });
    input.addEventListener("change", () => {
      if (!model.page) return;
      const kept = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
      for (const [key, of] of Object.entries(names)) kept.set(key, model.get(of));
      history.replaceState(null, "", `#${kept}`);
    });
    model.on(`change:${name}`, show);
    show();
    root.append(make("div", { class: "row" }, make("label", { for: id }, label), input, output));
    return () => model.off(`change:${name}`, show);
  });
  el.replaceChildren(root);
  return { root, close: () => rows.forEach((off) => off()) };
}

// Calls draw with the width in real pixels, so that text keeps its size on a phone.
export function onWidth(element, draw) {
  const watch = new ResizeObserver(() => draw(Math.max(280, element.clientWidth)));
  watch.observe(element);
  return () => watch.disconnect();
}

export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
