// Views of a few clips on the unit circle or sphere, moved by the gradient of ACL or by hand.
import { acl, angle, button, descend, frame, make, measures, onWidth, place, random, still, unit } from "./shared.mjs";

const COLOURS = ["var(--one)", "var(--two)", "var(--three)", "var(--four)"];
const SHAPES = ["M-6,0A6,6 0 1 1 6,0A6,6 0 1 1 -6,0Z", "M-5.5,-5.5H5.5V5.5H-5.5Z", "M0,-7L6.5,5H-6.5Z", "M0,-7.5L7.5,0L0,7.5L-7.5,0Z"];
const NAMES = ["circle", "square", "triangle", "diamond"];

const SUMS = [["mean", "as means"], ["paper_code", "summed as in the authors' code"], ["paper_scaled", "summed as theirs at 128 clips"]];

export const classes = (clips) => Array.from({ length: clips }, (_, b) => Math.floor((b * 4) / clips));

// The same start on every machine: the views of a clip up to 35 degrees on either side of its place.
export function start(clips, dimensions, quarter, seed = 7) {
  const draw = random(seed);
  for (let k = 0; k < 8; k++) draw();
  const centres = Array.from({ length: clips }, () => unit(Array.from({ length: dimensions }, () => draw() - 0.5)));
  const views = [...centres, ...centres].map((c) => place(c.map((v) => v + 0.8 * (draw() - 0.5)), false));
  return views.map((v) => place(quarter ? v.map(Math.abs) : v, quarter));
}

export function swapped(rows, a, b) {
  const clips = rows.length / 2, next = [...rows];
  for (const view of [0, clips]) [next[a + view], next[b + view]] = [rows[b + view], rows[a + view]];
  return next;
}

// Mean angle between the two views of a clip, in degrees.
export function meanAngle(rows) {
  const clips = rows.length / 2;
  let sum = 0;
  for (let b = 0; b < clips; b++) sum += angle(rows[b], rows[b + clips]);
  return ((sum / clips) * 180) / Math.PI;
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

// A point moved by 3 degrees: around, clockwise to the right; on the sphere also towards the poles.
export function nudged(point, across, up) {
  const t = (3 * Math.PI) / 180, around = (point.length === 2 ? -across + up : -across) * t;
  const [x, y, z] = point, turned = [x * Math.cos(around) - y * Math.sin(around), x * Math.sin(around) + y * Math.cos(around)];
  if (z === undefined) return unit(turned);
  const lift = Math.asin(Math.max(-1, Math.min(1, z))) + up * t, flat = Math.hypot(...turned) || 1e-9;
  const high = Math.max(-1.55, Math.min(1.55, lift));
  return unit([(turned[0] / flat) * Math.cos(high), (turned[1] / flat) * Math.cos(high), Math.sin(high)]);
}

function panel(title, hooks, narrow) {
  const svg = make("svg:svg", { role: "group", "aria-label": title, "data-lm-suppress-shortcuts": "true" });
  const under = make("svg:g"), arrows = make("svg:g", { "aria-hidden": "true" }), points = make("svg:g");
  svg.append(under, arrows, points);
  const caption = make("div", { style: "text-align:center" }, title);
  const box = make("div", { style: `flex:1 1 ${narrow ? 8 : 16}rem;min-width:0` }, caption, svg);
  let rows = [], turn = { yaw: 0.5, pitch: 0.35 }, size = 300;

  const flat = () => rows[0].length === 2;
  function seen(u) {
    if (flat()) return [u[0], u[1], 1];
    const [x, y, z] = u, c = Math.cos(turn.yaw), s = Math.sin(turn.yaw), p = Math.cos(turn.pitch), q = Math.sin(turn.pitch);
    const across = c * x + s * y, deep = -s * x + c * y;
    return [across, p * z + q * deep, -p * deep + q * z];
  }
  function unseen(a, b, front) {
    const r = Math.hypot(a, b);
    if (flat()) return unit([a || 1e-9, b]);
    const [x, y] = r > 0.999 ? [(a / r) * 0.999, (b / r) * 0.999] : [a, b], depth = (front ? 1 : -1) * Math.sqrt(1 - x * x - y * y);
    const c = Math.cos(turn.yaw), s = Math.sin(turn.yaw), p = Math.cos(turn.pitch), q = Math.sin(turn.pitch);
    const z = p * y + q * depth, deep = q * y - p * depth;
    return unit([c * x - s * deep, s * x + c * deep, z]);
  }
  const middle = () => size / 2, radius = () => size / 2 - 26;
  const at = (u) => {
    const [x, y, depth] = seen(u);
    return [middle() + radius() * x, middle() - radius() * y, depth];
  };

  function arrow(k, d, colour, dash) {
    const line = arrows.children[k] ?? arrows.appendChild(make("svg:path", { "stroke-width": 2, fill: "none" }));
    line.setAttribute("d", d);
    line.setAttribute("stroke", colour);
    line.setAttribute("stroke-dasharray", dash);
  }

  function draw(next, found, labels) {
    rows = next;
    svg.setAttribute("viewBox", `0 0 ${size} ${size}`);
    const clips = rows.length / 2;
    const ground = [make("svg:circle", { class: "axis", cx: middle(), cy: middle(), r: radius() })];
    if (!flat()) {
      for (const axis of [0, 1, 2]) {
        const d = Array.from({ length: 61 }, (_, k) => {
          const t = (k * Math.PI) / 30, u = [0, 0, 0];
          u[(axis + 1) % 3] = Math.cos(t);
          u[(axis + 2) % 3] = Math.sin(t);
          return at(u).slice(0, 2).map((v) => v.toFixed(1)).join(",");
        });
        ground.push(make("svg:path", { class: "axis", d: `M${d.join("L")}`, "stroke-dasharray": "2 4" }));
      }
    }
    for (let b = 0; b < clips; b++) {
      const [x1, y1] = at(rows[b]), [x2, y2] = at(rows[b + clips]);
      ground.push(make("svg:line", { x1, y1, x2, y2, stroke: COLOURS[labels[b]], "stroke-opacity": 0.6 }));
    }
    under.replaceChildren(...ground);
    const longest = Math.max(1e-3, ...[...found.pulls, ...found.pushes].map((f) => Math.hypot(...f)));
    let drawn = 0; // none for points at rest
    for (const [forces, colour, dash] of [[found.pulls, "var(--ink)", ""], [found.pushes, "#e8a200", "4 2"]]) {
      forces.forEach((f, i) => {
        const length = Math.hypot(...f) / longest;
        if (length < 0.02) return;
        const [x1, y1] = at(rows[i]), reach = (0.3 * Math.sqrt(length)) / Math.hypot(...f);
        const [a, b] = seen(f.map((v) => v * reach));
        const x2 = x1 + radius() * a, y2 = y1 - radius() * b, to = Math.atan2(y2 - y1, x2 - x1);
        const barbs = [2.6, -2.6].map((turn) => `M${x2},${y2}l${6 * Math.cos(to + turn)},${6 * Math.sin(to + turn)}`);
        arrow(drawn++, `M${x1},${y1}L${x2},${y2}`, colour, dash);
        arrow(drawn++, barbs.join(""), colour, "");
      });
    }
    while (arrows.children.length > drawn) arrows.lastChild.remove();
    if (flat()) svg.removeAttribute("tabindex");
    else svg.setAttribute("tabindex", 0);
    while (points.children.length > rows.length) points.lastChild.remove();
    while (points.children.length < rows.length) points.append(handle(points.children.length));
    rows.forEach((u, i) => {
      const [x, y, depth] = at(u), mark = points.children[i], b = i % clips;
      const words = `clip ${b + 1}, view ${i < clips ? 1 : 2}, ${NAMES[labels[b]]}`;
      const degrees = Math.round((Math.atan2(u[1], u[0]) * 180) / Math.PI);
      mark.setAttribute("transform", `translate(${x.toFixed(2)},${y.toFixed(2)}) scale(${depth < 0 ? 0.75 : 1})`);
      mark.setAttribute("aria-label", words);
      mark.setAttribute("aria-valuenow", degrees);
      mark.setAttribute("aria-valuetext", `${degrees} degrees`);
      const [shape] = mark.children;
      shape.setAttribute("d", SHAPES[labels[b]]);
      shape.setAttribute("stroke", COLOURS[labels[b]]);
      shape.setAttribute("fill", i < clips ? COLOURS[labels[b]] : "var(--ground)");
      shape.setAttribute("opacity", depth < 0 ? 0.55 : 1);
    });
  }

  function handle(i) {
    const reach = make("svg:circle", { r: 14, fill: "transparent" });
    const mark = make("svg:g", { tabindex: 0, role: "slider", "aria-valuemin": -180, "aria-valuemax": 180, style: "cursor:grab;touch-action:none", "data-lm-suppress-shortcuts": "true" }, make("svg:path", { "stroke-width": 2 }), reach);
    let held = false, front = true;
    mark.addEventListener("pointerdown", (event) => {
      held = true;
      front = seen(rows[i])[2] >= 0;
      mark.setPointerCapture(event.pointerId);
      event.stopPropagation();
    });
    mark.addEventListener("pointermove", (event) => {
      if (!held) return;
      const place = svg.getBoundingClientRect(), scale = size / place.width;
      const x = ((event.clientX - place.left) * scale - middle()) / radius(), y = (middle() - (event.clientY - place.top) * scale) / radius();
      hooks.move(i, unseen(x, y, front));
    });
    for (const end of ["pointerup", "pointercancel"]) mark.addEventListener(end, () => { held = false; });
    mark.addEventListener("keydown", (event) => {
      const [across, up] = ARROWS[event.key] ?? [];
      if (across === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      hooks.move(i, nudged(rows[i], across, up));
    });
    return mark;
  }

  svg.addEventListener("keydown", (event) => {
    const [across, up] = ARROWS[event.key] ?? [];
    if (across === undefined || flat()) return;
    event.preventDefault();
    hooks.turn(across / 10, -up / 10);
  });
  let from = null;
  svg.addEventListener("pointerdown", (event) => { from = [event.clientX, event.clientY]; });
  svg.addEventListener("pointermove", (event) => {
    if (!from || flat() || !event.buttons) return;
    hooks.turn((event.clientX - from[0]) / 120, (event.clientY - from[1]) / 120);
    from = [event.clientX, event.clientY];
  });
  svg.addEventListener("pointerup", () => { from = null; });
  return {
    box,
    caption,
    draw,
    turn: (by, up) => { turn = { yaw: turn.yaw + by, pitch: Math.max(-1.5, Math.min(1.5, turn.pitch + up)) }; },
    resize: (to) => { size = to; },
  };
}

function render({ model, el }) {
  const small = model.get("small"); // the picture and what moves it, nothing to measure
  const controls = [
    { name: "alpha", link: "alpha", label: "α, weight of NT-Xent", min: 0, max: 1, step: 0.05 },
    { name: "temperature", link: "tau", label: "temperature τ", min: 0.03, max: 1, step: 0.01 },
    { name: "margin", link: "m", label: "margin m", min: 0.05, max: 1.5, step: 0.05, unit: " rad" },
    { name: "clips", link: "clips", label: "clips", min: 8, max: 16, step: 4, digits: 0 },
    { kind: "tick", name: "sphere", link: "sphere", label: "sphere (drag or arrow keys turn it)" },
    { kind: "tick", name: "quarter", link: "quarter", label: "no negative coordinates (h ≥ 0)" },
    { kind: "tick", name: "compare", link: "compare", label: "α = 1 beside it" },
    { kind: "choice", name: "reduction", link: "sum", label: "angular term", options: SUMS },
  ];
  const { root, close } = frame({ model, el }, { name: "circle", title: "Circle explorer" }, small ? controls.slice(0, 1) : controls);
  const again = () => { pause(); reset(); };
  const play = button("Play", () => (timer ? pause() : run()));
  const bar = make("div", { class: "bar" }, play, button("Reset", again));
  if (!small) bar.append(button("Step", () => { pause(); advance(1); }), button("Swap two clips", swap));
  const hooks = {
    move(i, point) {
      pause();
      for (const side of sides) side.rows = side.rows.map((u, k) => (k === i ? place(point, model.get("quarter")) : u));
      note = "";
      paint();
    },
    turn(by, up) {
      for (const side of sides) side.panel.turn(by, up);
      paint();
    },
  };
  const sides = [
    { panel: panel("", hooks, small), alpha: () => model.get("alpha") },
    { panel: panel("α = 1: NT-Xent alone", hooks, small), alpha: () => 1 },
  ];
  const board = make("div", { style: "display:flex;flex-wrap:wrap;gap:.5rem" }, sides[0].panel.box, sides[1].panel.box);
  const key = make("p", {}, "Filled and empty: the two views of a clip. Shapes: classes, which no loss here knows. Solid arrows: the force of NT-Xent; dashed arrows: that of the angular term. The longest arrow is the strongest force.");
  const table = make("table"), say = make("p", { "aria-live": "polite" });
  if (small) root.style.maxWidth = "36rem";
  root.append(...(small ? [board, bar, say, key] : [bar, board, table, say, key]));
  const [pace, most] = small ? [70, 120] : [30, 300]; // milliseconds of a step; steps at one go
  let timer = null, steps = 0, note = "";

  const settings = (side) => ({ alpha: side.alpha(), temperature: model.get("temperature"), margin: model.get("margin"), reduction: model.get("reduction"), quarter: model.get("quarter") });
  function reset() {
    for (const side of sides) {
      side.rows = start(model.get("clips"), model.get("sphere") ? 3 : 2, model.get("quarter"));
      side.length = 1;
    }
    steps = 0;
    note = "";
    paint();
  }
  function advance(count) {
    for (const side of sides) {
      for (let k = 0; k < count; k++) {
        const next = descend(side.rows, settings(side), side.length);
        side.rows = next.rows;
        side.length = next.length;
      }
    }
    steps += count;
    note = "";
    paint();
  }
  function run() {
    if (still()) return advance(most);
    play.textContent = "Pause";
    timer = setInterval(() => {
      advance(1);
      if (steps % most === 0) pause();
    }, pace);
  }
  function pause() {
    if (!timer) return;
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    paint();
  }
  function swap() {
    pause();
    const clips = model.get("clips"), labels = classes(clips), last = labels.findIndex((c) => c === 2);
    const before = sides[0].found.loss, gap = measures(sides[0].rows, labels).classGap;
    for (const side of sides) side.rows = swapped(side.rows, 0, last);
    paint();
    const after = measures(sides[0].rows, labels).classGap;
    note = `Clips 1 and ${last + 1} have changed places: the loss was ${before.toFixed(4)} and is ${sides[0].found.loss.toFixed(4)}, the class gap was ${gap.toFixed(2)} and is ${after.toFixed(2)}. `;
    paint();
  }
  function paint() {
    const labels = classes(model.get("clips")), shown = model.get("compare") ? sides : sides.slice(0, 1);
    sides[1].panel.box.style.display = model.get("compare") ? "" : "none";
    sides[0].panel.caption.textContent = `α = ${Number(model.get("alpha")).toFixed(2)}`;
    for (const side of sides) {
      side.found = acl(side.rows, settings(side));
      if (shown.includes(side)) side.panel.draw(side.rows, side.found, labels);
    }
    const line = (name, of) => make("tr", {}, make("th", { scope: "row" }, name), ...shown.map((side) => make("td", {}, of(side))));
    const number = (of) => (side) => of(side).toFixed(3);
    const measured = new Map(shown.map((side) => [side, measures(side.rows, labels)]));
    table.replaceChildren(
      make("tr", {}, make("th", {}, "on the same points"), ...shown.map((side) => make("th", { scope: "col" }, `α = ${side.alpha().toFixed(2)}`))),
      line("NT-Xent (nats)", number((s) => s.found.contrast)),
      line("angular term (rad²)", number((s) => s.found.angular)),
      line("ACL", number((s) => s.found.loss)),
      line("angle of a clip's views (degrees)", number((s) => meanAngle(s.rows))),
      line("alignment", number((s) => measured.get(s).alignment)),
      line("uniformity", number((s) => measured.get(s).uniformity)),
      line("tolerance", number((s) => measured.get(s).tolerance)),
      line("class gap", number((s) => measured.get(s).classGap)),
    );
    const told = `${note}Step ${steps}: the two views of a clip are ${meanAngle(sides[0].rows).toFixed(0)} degrees apart on average.`;
    if (!timer) say.textContent = told;
  }
  const redraw = () => paint();
  for (const name of ["clips", "sphere", "quarter"]) model.on(`change:${name}`, again);
  for (const name of ["alpha", "temperature", "margin", "reduction", "compare"]) model.on(`change:${name}`, redraw);
  reset();
  const screen = new IntersectionObserver(([board]) => {
    if (!board.isIntersecting) return;
    screen.disconnect();
    if (!timer && !steps) run();
  }, { threshold: 0.5 });
  if (model.get("play")) screen.observe(board);
  const unwatch = onWidth(board, (width) => {
    const both = model.get("compare") && width > (small ? 270 : 560);
    for (const side of sides) side.panel.resize(both ? width / 2 - 8 : Math.min(width, 420));
    paint();
  });
  return () => {
    pause();
    screen.disconnect();
    unwatch();
    for (const name of ["clips", "sphere", "quarter"]) model.off(`change:${name}`, again);
    for (const name of ["alpha", "temperature", "margin", "reduction", "compare"]) model.off(`change:${name}`, redraw);
    close();
  };
}

export default { render };
