// How much of the gradient each negative gets, against its cosine, for NT-Xent, NT-Xent-AM and ACL.
import { frame, make, onWidth } from "./shared.mjs";

// A batch around one anchor: its positive at a cosine, and `negatives` others at evenly spread cosines.
// The gradient of the anchor's loss for the cosine of each negative (acl_lib: nt_xent,
// nt_xent_additive, acl with the anchor's share of the angular term).
export function penalties({ temperature, margin, additive, alpha, positive, cosines, clips = 128 }) {
  const share = (gap) => {
    const top = Math.max(positive - gap, ...cosines);
    const own = Math.exp((positive - gap - top) / temperature);
    const weights = cosines.map((s) => Math.exp((s - top) / temperature));
    const sum = own + weights.reduce((a, b) => a + b);
    return weights.map((w) => w / sum / temperature);
  };
  const contrast = share(0);
  // 2B anchors share NT-Xent's mean; the authors' sum over ordered pairs is divided by 25
  const angular = cosines.map((s) => {
    const theta = Math.acos(Math.min(1, Math.max(-1, s))), sin = Math.sin(theta);
    return theta < margin && sin > 1e-6 ? ((2 * clips) / 25) * ((2 * (margin - theta)) / sin) : 0;
  });
  return {
    contrast,
    additive: share(additive),
    acl: contrast.map((c, k) => alpha * c + (1 - alpha) * angular[k]),
  };
}

const LINES = [
  ["contrast", "NT-Xent", "var(--one)", ""],
  ["additive", "NT-Xent-AM", "var(--two)", "8 4"],
  ["acl", "ACL", "var(--three)", "2 4"],
];

function render({ model, el }) {
  const { root, close } = frame({ model, el }, "Penalty explorer", [
    { name: "temperature", link: "tau", label: "temperature τ", min: 0.03, max: 1, step: 0.01 },
    { name: "alpha", link: "alpha", label: "α, weight of NT-Xent", min: 0, max: 1, step: 0.05 },
    { name: "margin", link: "m", label: "angular margin m", min: 0.05, max: 1.5, step: 0.05, unit: " rad" },
    { name: "additive", link: "am", label: "additive margin", min: 0, max: 0.5, step: 0.05 },
    { name: "positive", link: "pos", label: "cosine of the positive", min: 0, max: 1, step: 0.05 },
  ]);
  const height = 300, left = 52, right = 12, top = 12, bottom = 42;
  const svg = make("svg:svg", { role: "img", height });
  const key = make("div", { class: "bar" }), say = make("p", { "aria-live": "polite" });
  for (const [, name, colour, dash] of LINES) {
    const line = make("svg:line", { x1: 0, x2: 34, y1: 7, y2: 7, stroke: colour, "stroke-width": 3, "stroke-dasharray": dash });
    const mark = make("svg:svg", { width: 34, height: 14, style: "width:34px;display:inline-block", "aria-hidden": "true" }, line);
    key.append(make("span", {}, mark, ` ${name}`));
  }
  root.append(key, svg, say);
  const cosines = Array.from({ length: 254 }, (_, k) => -1 + (2 * k) / 253);

  function draw(width = Math.max(280, root.clientWidth)) {
    const settings = { ...Object.fromEntries(["temperature", "alpha", "margin", "additive", "positive"].map((k) => [k, model.get(k)])), cosines };
    const found = penalties(settings);
    const most = Math.max(1e-9, ...LINES.flatMap(([name]) => found[name]));
    const X = (s) => left + ((s + 1) / 2) * (width - left - right);
    // the cube root keeps weak and strong penalties in one picture
    const Y = (v) => height - bottom - Math.cbrt(v / most) * (height - top - bottom);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const parts = [make("svg:path", { class: "axis", d: `M${left},${top}V${height - bottom}H${width - right}` })];
    for (const s of [-1, -0.5, 0, 0.5, 1]) {
      parts.push(make("svg:text", { x: X(s), y: height - bottom + 16, "text-anchor": "middle" }, s));
    }
    for (const share of [0.001, 0.01, 0.1, 1]) {
      parts.push(make("svg:text", { x: left - 6, y: Y(share * most) + 4, "text-anchor": "end" }, String(Number((share * most).toPrecision(1)))));
    }
    parts.push(make("svg:text", { x: (left + width) / 2, y: height - 8, "text-anchor": "middle" }, "cosine of the negative"));
    parts.push(make("svg:text", { x: left + 6, y: top + 8 }, "push per negative (cube-root scale)"));
    for (const [name, , colour, dash] of LINES) {
      const d = found[name].map((v, k) => `${X(cosines[k]).toFixed(1)},${Y(v).toFixed(1)}`).join("L");
      parts.push(make("svg:path", { d: `M${d}`, fill: "none", stroke: colour, "stroke-width": 2.5, "stroke-dasharray": dash, "data-name": name }));
    }
    svg.replaceChildren(...parts);
    const total = found.contrast.reduce((a, b) => a + b);
    const hard = found.contrast.filter((_, k) => cosines[k] > 0.5).reduce((a, b) => a + b) / total;
    const degrees = ((settings.margin * 180) / Math.PI).toFixed(0);
    const odds = Math.exp(settings.additive / settings.temperature);
    say.textContent = `With NT-Xent, ${(100 * hard).toFixed(0)} % of the push goes to negatives with a cosine above 0.5. `
      + `The angular margin pushes only closer than ${degrees} degrees; the additive one divides the positive's odds by ${odds.toPrecision(2)}.`;
    svg.setAttribute("aria-label", `Push on a negative against its cosine, three losses. ${say.textContent}`);
  }
  const redraw = () => draw();
  model.on("change", redraw);
  const unwatch = onWidth(root, draw);
  return () => {
    unwatch();
    model.off("change", redraw);
    close();
  };
}

export default { render };
