// A pretraining epoch by epoch, recorded or running: curves, and a map of clips that training never sees.
import { button, frame, legend, make, onWidth, plot, still } from "./shared.mjs";

const GROUPS = [["same clip", "var(--one)", ""], ["same class", "var(--two)", "8 4"], ["other class", "var(--three)", "2 4"]];
const MEASURES = [
  ["angles", "median angle of two patches", "degrees"],
  ["loss", "loss", ""],
  ["nt_xent", "NT-Xent", "nats"],
  ["angular", "angular term", "rad²"],
  ["class_gap", "class gap", "cosine"],
  ["alignment", "alignment", "squared distance"],
  ["uniformity", "uniformity", "log"],
  ["tolerance", "tolerance", "cosine"],
];
const INKS = ["var(--one)", "var(--two)", "var(--three)", "var(--four)"];
const MARKS = ["M-4,0A4,4 0 1 1 4,0A4,4 0 1 1 -4,0Z", "M-3.6,-3.6H3.6V3.6H-3.6Z", "M0,-5L4.6,3.6H-4.6Z", "M0,-5L5,0L0,5L-5,0Z", "M0,5L4.6,-3.6H-4.6Z", "M-1.6,-5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z"];

// Lines of one measure: [{ name, group, points [[epoch, value], ...] }], without the epochs that lack it.
export function series(runs, names, measure) {
  const parts = measure === "angles" ? GROUPS.map(([group]) => [group, (row) => row.angles[group]]) : [["", (row) => row[measure]]];
  return names.flatMap((name) => parts.map(([group, of]) => ({
    name,
    group,
    points: runs[name].epochs.map((row) => [row.epoch, of(row)]).filter(([, value]) => value !== null && value !== undefined),
  })));
}

// Which row the slider's place means in a run that may be shorter.
export const rowAt = (rows, place) => rows[Math.max(0, Math.min(rows.length - 1, Math.round(place)))];

// What an epoch shows, in a sentence.
export function told(name, row) {
  const { "same clip": clip, "same class": kind, "other class": other } = row.angles;
  const number = (value, unit = "") => (value === null || value === undefined ? "unknown" : `${value.toFixed(unit ? 0 : 2)}${unit}`);
  const when = row.epoch === 0 ? `Untrained (${name})` : `${name} after epoch ${Number(row.epoch.toFixed(1))}`;
  return `${when}: patches of a clip are ${number(clip, "°")} apart, of its class ${number(kind, "°")}, of other classes ${number(other, "°")} (medians in h); class gap ${number(row.class_gap)}.`;
}

// Middle and half the side of the square that a map fills.
export function square(map) {
  const [x, y] = [0, 1].map((axis) => [Math.min, Math.max].map((most) => most(...map.map((at) => at[axis]))));
  return { middle: [(x[0] + x[1]) / 2, (y[0] + y[1]) / 2], half: 0.54 * Math.max(x[1] - x[0], y[1] - y[0], 1e-6) };
}

const look = (k) => [INKS[k % INKS.length], MARKS[Math.floor(k / INKS.length + k) % MARKS.length]];

function classKey(labels, classes) {
  const bar = make("div", { class: "bar", style: "font-size:.85em;gap:.1rem .7rem" });
  [...new Set(labels)].sort((a, b) => a - b).forEach((label, k) => {
    const [fill, d] = look(k);
    const mark = make("svg:svg", { viewBox: "-6 -6 12 12", width: 12, height: 12, style: "width:12px;display:inline-block", "aria-hidden": "true" }, make("svg:path", { d, fill }));
    bar.append(make("span", {}, mark, ` ${classes[label].replaceAll("_", " ")}`));
  });
  return bar;
}

function mapOf() {
  const svg = make("svg:svg", { role: "img" }), caption = make("div", { style: "text-align:center" });
  const box = make("div", { style: "flex:1 1 15rem;min-width:0" }, caption, svg);
  const ground = make("svg:rect", { class: "axis", x: 1, y: 1 }), points = make("svg:g");
  svg.append(ground, points);
  const gentle = still() ? "" : "transition:transform .35s ease-out";
  function draw(title, row, labels, classes) {
    const { middle, half } = square(row.map), size = Math.max(220, Math.min(box.clientWidth, 440)), kinds = [...new Set(labels)].sort((a, b) => a - b);
    caption.textContent = title;
    svg.setAttribute("viewBox", `0 0 ${size} ${size}`);
    svg.style.maxWidth = `${size}px`;
    svg.style.margin = "0 auto";
    svg.setAttribute("aria-label", `Map of ${labels.length} clips that training never sees, by PCA of h: ${title}`);
    for (const side of ["width", "height"]) ground.setAttribute(side, size - 2);
    while (points.children.length > labels.length) points.lastChild.remove();
    while (points.children.length < labels.length) points.append(make("svg:path", { style: gentle, "stroke-width": 0.7, stroke: "var(--ground)" }));
    row.map.forEach(([x, y], k) => {
      const mark = points.children[k], [fill, d] = look(kinds.indexOf(labels[k]));
      mark.setAttribute("d", d);
      mark.setAttribute("fill", fill);
      mark.style.transform = `translate(${((1 + (x - middle[0]) / half) * size / 2).toFixed(1)}px,${((1 - (y - middle[1]) / half) * size / 2).toFixed(1)}px)`;
      if (!mark.firstChild) mark.append(make("svg:title", {}, classes[labels[k]].replaceAll("_", " ")));
    });
  }
  return { box, draw };
}

function render({ model, el }) {
  const live = model.get("live"), runs = () => model.get("runs");
  const known = Object.keys(runs()), plan = () => Math.max(1, ...Object.values(runs()).map((run) => run.plan));
  const options = [...known.map((name) => [name, name]), ["both", "both"]];
  const place = { name: "epoch", link: "epoch", label: "epoch", min: 0, max: plan(), step: 1, text: (value) => {
    const first = Object.values(runs())[0];
    return first ? String(Number(rowAt(first.epochs, value).epoch.toFixed(1))) : "0";
  } };
  const { root, close } = frame({ model, el }, { name: "training", title: "Training explorer" }, [
    ...(live ? [{ name: "temperature", link: "tau", label: "temperature τ", min: 0.03, max: 1, step: 0.01 }] : []),
    place,
    ...(known.length > 1 ? [{ kind: "choice", name: "shown", link: "net", label: "network", options }] : []),
    { kind: "choice", name: "measure", link: "show", label: "curve", options: MEASURES.map(([value, words, unit]) => [value, unit ? `${words} (${unit})` : words]) },
  ]);
  const scrubber = root.querySelectorAll("input[type=range]")[live ? 1 : 0];
  const play = button("Play", () => (timer ? pause() : run()));
  const bar = make("div", { class: "bar" }, play), status = make("p", { "aria-live": "polite", "data-status": "" });
  const key = make("div"), classesKey = make("div"), say = make("p", { "aria-live": "polite" });
  const chart = make("svg:svg", { role: "img" }), steps = make("svg:svg", { role: "img" });
  const chartBox = make("div", { style: "flex:2 1 19rem;min-width:0" }, chart), maps = [mapOf(), mapOf()];
  const board = make("div", { style: "display:flex;flex-wrap:wrap;gap:.5rem 1rem" }, chartBox, maps[0].box, maps[1].box);
  const about = make("p", { style: "font-size:.85em" });
  root.style.maxWidth = "60rem";
  root.append(bar, ...(live ? [status, steps] : []), key, board, say, classesKey, about);
  const ask = (what) => {
    model.set("ask", what);
    model.save_changes();
  };
  const begin = button("Start", () => ask("start"));
  const hold = button("Pause", () => ask(model.get("phase") === "paused" ? "resume" : "pause"));
  const keep = button("Stop and keep", () => ask("stop"));
  if (live) bar.prepend(begin, hold, keep);
  let timer = null;

  const shown = () => {
    const names = Object.keys(runs());
    return names.includes(model.get("shown")) ? [model.get("shown")] : names;
  };
  // a running training has an axis that grows with it
  const far = () => (live ? Math.min(plan(), Math.max(4, 1.25 * (model.get("steps").at(-1)?.[0] ?? 0))) : plan());
  const end = () => Math.max(0, ...shown().map((name) => runs()[name].epochs.length - 1));
  const go = (to) => {
    model.set("epoch", to);
    model.save_changes();
  };
  function run() {
    if (still()) return go(end());
    if (model.get("epoch") >= end()) go(0);
    play.textContent = "Pause playing";
    timer = setInterval(() => (model.get("epoch") >= end() ? pause() : go(Math.round(model.get("epoch")) + 1)), 400);
  }
  function pause() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }
  function line(svg, scale, at, height, words) {
    const x = scale.X(at);
    svg.append(make("svg:line", { x1: x, x2: x, y1: 24, y2: height - 40, stroke: "currentColor", "stroke-width": 1.5, "stroke-dasharray": words ? "3 3" : "" }));
    if (words) svg.append(make("svg:text", { x: x + 3, y: 34 }, words));
  }
  function edges(lines) {
    const values = lines.flatMap(({ points }) => points.map(([, v]) => v)), low = Math.min(...values), high = Math.max(...values);
    const room = 0.05 * (high - low) || 0.5;
    if (low > 0 && high > 20 * low) return { min: 0.8 * low, max: 1.2 * high, to: Math.log, ticks: [0.01, 0.1, 1, 10, 100, 1000].filter((v) => v > 0.8 * low && v < 1.2 * high) };
    return { min: low - room, max: high + room };
  }

  function draw() {
    const names = shown(), all = runs(), rows = names.map((name) => rowAt(all[name].epochs, model.get("epoch")));
    if (live) drawLive();
    board.style.display = names.length ? "flex" : "none";
    if (!names.length) return;
    const [, words, unit] = MEASURES.find(([value]) => value === model.get("measure"));
    const both = names.length > 1;
    const lines = series(all, names, model.get("measure")).map(({ name, group, points }) => {
      const second = both && name === names[1];
      const [, colour, dash] = GROUPS.find(([of]) => of === group) ?? ["", INKS[second ? 1 : 0], second ? "8 4" : ""];
      return { name: [group, both || !group ? name : ""].filter(Boolean).join(", "), points, colour, dash, dots: second };
    });
    chartBox.style.flexBasis = both ? "100%" : "19rem";
    maps[1].box.style.display = both ? "" : "none";
    const width = Math.max(260, chartBox.clientWidth), height = both ? 260 : 300, edge = edges(lines);
    const heading = unit ? `${words} (${unit})` : words;
    const scale = plot(chart, width, { height, x: { min: 0, max: far(), label: "epoch (0: untrained)" }, y: { ...edge, label: edge.to ? `${heading}, logarithmic` : heading }, lines });
    line(chart, scale, rows[0].epoch, height);
    for (const [at, tau] of live ? model.get("marks") : []) line(chart, scale, at, height, `τ ${tau.toFixed(2)}`);
    const grouped = both && model.get("measure") === "angles";
    key.replaceChildren(legend(grouped ? GROUPS.map(([name, colour, dash]) => ({ name, colour, dash })) : lines));
    if (both) key.firstChild.append(make("span", {}, `without dots: ${names[0]}; with dots: ${names[1]}`));
    rows.forEach((row, k) => maps[k].draw(`${names[k]}, epoch ${Number(row.epoch.toFixed(1))}`, row, model.get("labels"), model.get("classes")));
    say.textContent = names.map((name, k) => told(name, rows[k])).join(" ");
    chart.setAttribute("aria-label", `${heading} against the epoch. ${say.textContent}`);
    classesKey.replaceChildren(classKey(model.get("labels"), model.get("classes")));
    about.textContent = `${live ? "Trained here" : "Recorded"}: ${model.get("about")}. All curves and maps are of ${model.get("labels").length} clips that training never sees; a map turns as little as it can from one epoch to the next.`;
  }
  function drawLive() {
    const phase = model.get("phase"), on = phase === "running" || phase === "paused";
    scrubber.max = Math.max(1, end());
    scrubber.value = model.get("epoch");
    begin.textContent = phase === "idle" ? "Start" : "Start again";
    hold.textContent = phase === "paused" ? "Resume" : "Pause";
    for (const control of [hold, keep]) control.style.display = on ? "" : "none";
    status.textContent = phase === "idle" ? "Start trains a network from its beginning; the kernel stays free for other cells." : model.get("status");
    const points = model.get("steps");
    steps.style.display = points.length > 1 ? "" : "none";
    if (points.length < 2) return;
    const lines = [{ name: "steps", points, colour: "var(--four)" }], edge = edges(lines), width = Math.max(260, root.clientWidth);
    const scale = plot(steps, width, { height: 170, x: { min: 0, max: far(), label: "epoch" }, y: { ...edge, label: "loss of each training step, at the temperature set" }, lines });
    for (const [at, tau] of model.get("marks")) line(steps, scale, at, 170, `τ ${tau.toFixed(2)}`);
    steps.setAttribute("aria-label", `Loss of each training step: ${points.at(-1)[1].toFixed(2)} in the last of ${points.length}`);
  }
  let asked = 0;
  const redraw = () => { // several traits change at once
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      draw();
    });
  };
  const byHand = () => { if (timer) pause(); };
  scrubber.addEventListener("input", byHand);
  model.on("change", redraw);
  const unwatch = onWidth(root, draw);
  return () => {
    pause();
    cancelAnimationFrame(asked);
    unwatch();
    model.off("change", redraw);
    close();
  };
}

export default { render };
