// How much of the gradient each negative gets, against its cosine, for NT-Xent, NT-Xent-AM and ACL.
import { frame, legend, make, onWidth, plot } from "./shared.mjs";

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
  const { root, close } = frame({ model, el }, { name: "penalty", title: "Penalty explorer" }, [
    { name: "temperature", link: "tau", label: "temperature τ", min: 0.03, max: 1, step: 0.01 },
    { name: "alpha", link: "alpha", label: "α, weight of NT-Xent", min: 0, max: 1, step: 0.05 },
    { name: "margin", link: "m", label: "angular margin m", min: 0.05, max: 1.5, step: 0.05, unit: " rad" },
    { name: "additive", link: "am", label: "additive margin", min: 0, max: 0.5, step: 0.05 },
    { name: "positive", link: "pos", label: "cosine of the positive", min: 0, max: 1, step: 0.05 },
  ]);
  const svg = make("svg:svg", { role: "img" });
  const key = legend(LINES.map(([, name, colour, dash]) => ({ name, colour, dash })));
  const say = make("p", { "aria-live": "polite" });
  root.append(key, svg, say);
  const cosines = Array.from({ length: 254 }, (_, k) => -1 + (2 * k) / 253);

  function draw(width = Math.max(280, root.clientWidth)) {
    const settings = { ...Object.fromEntries(["temperature", "alpha", "margin", "additive", "positive"].map((k) => [k, model.get(k)])), cosines };
    const found = penalties(settings);
    const most = Math.max(1e-9, ...LINES.flatMap(([name]) => found[name]));
    plot(svg, width, {
      height: 300,
      x: { min: -1, max: 1, label: "cosine of the negative" },
      // the cube root keeps weak and strong pushes in one picture
      y: { min: 0, max: most, label: "push per negative (cube-root scale)", to: Math.cbrt, ticks: [0.001, 0.01, 0.1, 1].map((share) => Number((share * most).toPrecision(1))).filter((v) => v <= most) },
      lines: LINES.map(([name, , colour, dash]) => ({ name, colour, dash, points: cosines.map((s, k) => [s, found[name][k]]) })),
    });
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
