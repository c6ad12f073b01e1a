// Recorded sweeps over alpha and temperature: a map of cells or curves with intervals, and which record says so.
import { WAYS, frame, legend, make, onWidth, plot, toward } from "./shared.mjs";

// The cells of a sweep under one loss and measure; what the sweep lacks gives way to the first of its kind.
export function chosen({ points, measures, losses }, { sweep, measure, loss }) {
  const all = points.filter((p) => p.sweep === sweep);
  const hasLoss = losses.map(([key]) => key).filter((key) => all.some((p) => p.losses.includes(key)));
  const useLoss = hasLoss.includes(loss) ? loss : hasLoss[0];
  const mine = all.filter((p) => p.losses.includes(useLoss));
  const has = measures.filter(([key]) => mine.some((p) => key in p.measures));
  const [, , kind] = measures.find(([key]) => key === measure);
  const [useMeasure] = has.find(([key]) => key === measure) ?? has.find(([, , other]) => other === kind) ?? has[0];
  const cells = mine.filter((p) => useMeasure in p.measures).map((p) => ({ ...p, ...p.measures[useMeasure] }));
  return { cells, loss: useLoss, measure: useMeasure, hasLoss, has: has.map(([key]) => key) };
}

// Best cell, how many others have an interval that meets its own, lowest, and the mean over cells.
export function summary(cells) {
  const best = cells.reduce((a, b) => (b.value > a.value ? b : a));
  const least = cells.reduce((a, b) => (b.value < a.value ? b : a));
  const others = cells.filter((c) => c !== best);
  const meets = best.low === null ? null : others.filter((c) => c.low !== null && c.high >= best.low && c.low <= best.high).length;
  return { best, least, meets, others: others.length, mean: cells.reduce((sum, c) => sum + c.value, 0) / cells.length };
}

// Lowest and highest of what is drawn, ends of intervals included.
export function range(cells) {
  return { min: Math.min(...cells.map((c) => c.low ?? c.value)), max: Math.max(...cells.map((c) => c.high ?? c.value)) };
}

// cividis, from dark to light: rising lightness, which colour-blind readers see as others do
const CIVIDIS = [[0, 34, 78], [50, 72, 109], [107, 112, 117], [164, 154, 119], [206, 190, 99], [254, 232, 56]];

export function shade(share) {
  const at = Math.min(1, Math.max(0, share)) * (CIVIDIS.length - 1), k = Math.min(CIVIDIS.length - 2, Math.floor(at));
  return CIVIDIS[k].map((v, i) => Math.round(v + (at - k) * (CIVIDIS[k + 1][i] - v)));
}

// Black or white, whichever stands out more; at least 4.58 to 1 on any ground.
export function inkOn(rgb) {
  const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

// The lines of a chart: over alpha one for each temperature, over the temperature one for each name.
// Where the loss has no temperature, its cell belongs to every line over alpha, and to the whole axis
// over the temperature.
export function linesOf(cells, axis) {
  const taus = [...new Set(cells.map((c) => c.temperature).filter((t) => t !== null))].sort((a, b) => a - b);
  if (axis === "alpha") {
    const without = cells.filter((c) => c.temperature === null);
    const along = (some) => [...without, ...some].sort((a, b) => a.alpha - b.alpha);
    if (!taus.length) return [{ name: "no temperature", cells: along([]) }];
    return taus.map((tau) => ({ name: `τ = ${tau}`, cells: along(cells.filter((c) => c.temperature === tau)) }));
  }
  const names = [...new Map([...cells].sort((a, b) => a.alpha - b.alpha).map((c) => [c.name, c])).keys()];
  return names.map((name) => ({ name, cells: cells.filter((c) => c.name === name).sort((a, b) => a.temperature - b.temperature) }));
}

// Those of the places, given as [value, position], whose names fit side by side on a chart of this width.
export function apart(places, width, room = 34) {
  const [first, last] = [places[0][1], places.at(-1)[1]], scale = (width - 64) / (last - first || 1);
  let end = -Infinity;
  return places.filter(([, at]) => {
    const fits = (at - end) * scale >= room;
    if (fits) end = at;
    return fits;
  }).map(([value]) => value);
}

const PALETTE = ["var(--one)", "var(--two)", "var(--three)", "var(--four)"];
const STROKES = ["", "8 4", "2 4", "10 3 2 3", "5 2"];
const MARKS = [
  "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0", "M-4,-4H4V4H-4Z", "M0,-5.5L5,4H-5Z", "M0,-6L6,0L0,6L-6,0Z",
  "M0,5.5L5,-4H-5Z", "M-5,-1.5H-1.5V-5H1.5V-1.5H5V1.5H1.5V5H-1.5V1.5H-5Z", "M-5,-2H5V2H-5Z",
];
const OWN_STYLE = `.acl-x[data-explorer=results] :is(label,select){max-width:100%}
.acl-x[data-explorer=results] .small{font-size:11px}`;
const SETTINGS = ["sweep", "measure", "loss", "view", "axis"];

function render({ model, el }) {
  const data = { points: model.get("points"), measures: model.get("measures"), losses: model.get("losses") };
  const luck = model.get("luck"), sweeps = model.get("sweeps");
  const named = (list) => list.map(([key, words]) => [key, words]);
  const { root, close } = frame({ model, el }, { name: "results", title: "Results explorer" }, [
    { kind: "choice", name: "sweep", link: "sweep", label: "sweep", options: named(sweeps) },
    { kind: "choice", name: "measure", link: "measure", label: "measure", options: named(data.measures) },
    { kind: "choice", name: "loss", link: "loss", label: "loss", options: named(data.losses) },
    { kind: "choice", name: "view", link: "view", label: "view", options: [["map", "map"], ["curves", "curves"]] },
    { kind: "choice", name: "axis", link: "axis", label: "curves over", options: [["alpha", "α"], ["temperature", "temperature"]] },
  ]);
  const svg = make("svg:svg", { role: "group" }), key = make("div"), told = make("p"), say = make("p", { "aria-live": "polite" });
  root.append(make("style", {}, OWN_STYLE), key, svg, told, say);
  let items = [], at = 0, drawn = "";

  const about = (list, wanted) => list.find(([name]) => name === wanted);
  const isPercent = (measure) => about(data.measures, measure)[2] === "accuracy";
  const number = (value, measure) => (isPercent(measure) ? `${value.toFixed(1)} %` : value.toFixed(3));
  const where = (c) => `alpha ${c.alpha}${c.temperature === null ? ", no temperature" : `, temperature ${c.temperature}`}`;
  const runs = ({ each }) => (each.length > 1 ? `${each.length} seeds` : "1 run");
  function sureness({ low, high, interval }, measure) {
    if (low === null) return "no interval";
    const kind = { seeds: "Student's over seeds", clips: "Wilson's over clips" }[interval];
    return `95 % interval ${number(low, measure)} to ${number(high, measure)}, ${kind}`;
  }
  function line(c, measure) {
    const seeds = c.seeds.length ? `, ${c.seeds.length > 1 ? "seeds" : "seed"} ${c.seeds.join(", ")}` : ", one run, seed not printed";
    const each = c.each.length > 1 ? ` (${c.each.map((v) => number(v, measure)).join(", ")})` : "";
    const n = c.n === null ? "" : `, n = ${c.n} clips${c.each.length > 1 ? " a seed" : ""}`;
    return `${c.name.split(",")[0]}, ${where(c)}: ${number(c.value, measure)}; ${sureness(c, measure)}${n}${seeds}${each}. Record: ${c.records.join(", ")}.`;
  }

  function pick(k, focus) {
    items[at]?.node.setAttribute("tabindex", -1);
    items[at]?.edge.setAttribute("stroke-opacity", 0);
    at = k;
    items[at].node.setAttribute("tabindex", 0);
    items[at].edge.setAttribute("stroke-opacity", 1);
    told.textContent = items[at].words;
    if (focus) items[at].node.focus();
  }

  // a cell or dot that mouse, finger and keys can ask; its centre is where the arrow keys find it
  function item(c, x, y, measure, edge, ...parts) {
    const words = line(c, measure), k = items.length;
    const node = make("svg:g", { tabindex: -1, role: "img", "aria-label": words, "data-lm-suppress-shortcuts": "true" }, ...parts, edge);
    edge.setAttribute("stroke-opacity", 0);
    for (const event of ["pointerenter", "focus", "click"]) node.addEventListener(event, () => pick(k));
    node.addEventListener("keydown", (event) => {
      if (!WAYS[event.key]) return;
      event.preventDefault();
      event.stopPropagation();
      pick(toward(items.map(({ x, y }) => [x, y]), k, WAYS[event.key]), true);
    });
    items.push({ node, edge, words, x, y, cell: c });
    return node;
  }

  function drawMap(width, cells, measure) {
    const alphas = [...new Set(cells.map((c) => c.alpha))].sort((a, b) => b - a);
    const taus = [...new Set(cells.map((c) => c.temperature).filter((t) => t !== null))].sort((a, b) => a - b);
    const columns = taus.length || 1, left = 34, top = 26, high = 44;
    const wide = Math.min(110, (width - left) / columns), bottom = top + alphas.length * high;
    svg.setAttribute("viewBox", `0 0 ${width} ${bottom + 42}`);
    svg.setAttribute("height", bottom + 42);
    const { best, least } = summary(cells);
    const parts = [make("svg:text", { x: 0, y: 14 }, "α, weight of the first term")];
    alphas.forEach((alpha, row) => {
      const y = top + row * high;
      parts.push(make("svg:text", { x: left - 8, y: y + high / 2 + 4, "text-anchor": "end" }, alpha));
      const spans = cells.filter((c) => c.alpha === alpha && c.temperature === null);
      const slots = spans.length ? [[spans[0], 0, columns]] : taus.map((tau, k) => [cells.find((c) => c.alpha === alpha && c.temperature === tau), k, 1]);
      for (const [c, k, across] of slots) {
        const box = { x: left + k * wide + 1, y: y + 1, width: across * wide - 2, height: high - 2 };
        const middle = box.x + box.width / 2;
        const text = (words, dy, attributes) => make("svg:text", { x: middle, y: y + dy, "text-anchor": "middle", ...attributes }, words);
        if (!c) {
          parts.push(make("svg:rect", { ...box, class: "axis", "stroke-dasharray": "3 4" }), text(wide < 46 ? "–" : "no run", high / 2 + 4, { class: "small" }));
          continue;
        }
        const rgb = shade((c.value - least.value) / (best.value - least.value || 1)), fill = `rgb(${rgb})`, style = `fill:${inkOn(rgb)}`;
        const small = wide * across < 46 ? `× ${c.each.length}` : runs(c);
        const edge = make("svg:rect", { x: box.x + 2, y: box.y + 2, width: box.width - 4, height: box.height - 4, fill: "none", stroke: inkOn(rgb), "stroke-width": 2.5 });
        const value = isPercent(measure) ? c.value.toFixed(1) : c.value.toFixed(wide * across < 46 ? 2 : 3);
        const node = item(c, middle, y + high / 2, measure, edge, make("svg:rect", { ...box, fill }), text(value, 19, { style }), text(small, 35, { style, class: "small" }));
        node.style.backgroundColor = fill; // not painted in SVG; a test of contrast reads it
        parts.push(node);
      }
    });
    taus.forEach((tau, k) => parts.push(make("svg:text", { x: left + (k + 0.5) * wide, y: bottom + 16, "text-anchor": "middle" }, tau)));
    parts.push(make("svg:text", { x: left + (columns * wide) / 2, y: bottom + 34, "text-anchor": "middle" }, taus.length ? "temperature τ" : "no temperature in this loss"));
    svg.replaceChildren(...parts);
    key.replaceChildren(make("p", {}, `Colours run from ${number(least.value, measure)} (dark) to ${number(best.value, measure)} (light): ${about(data.measures, measure)[1]}.`));
  }

  function drawCurves(width, cells, measure, axis) {
    const lines = linesOf(cells, axis).map((l, k) => ({ ...l, colour: PALETTE[k % 4], dash: STROKES[k % 5], mark: MARKS[k % 7] }));
    const of = (c) => (axis === "alpha" ? c.alpha : c.temperature);
    const places = [...new Set(cells.map(of).filter((v) => v !== null))].sort((a, b) => a - b);
    const [first, last] = [places[0], places.at(-1)], { min, max } = range(cells), room = 0.06 * (max - min || 1);
    const log = axis !== "alpha", pad = log ? 1.2 : 0.05;
    const x = log
      ? { min: first / pad, max: last * pad, label: "temperature τ (logarithmic)", ticks: apart(places.map((v) => [v, Math.log(v)]), width), to: Math.log }
      : { min: Math.max(-pad, first - pad), max: Math.min(1 + pad, last + pad), label: "α, weight of the first term", ticks: apart(places.map((v) => [v, v]), width) };
    const ends = (cell) => (of(cell) === null ? [[x.min, cell.value], [x.max, cell.value]] : [[of(cell), cell.value]]);
    const scales = plot(svg, width, {
      height: 320,
      x,
      y: { min: min - room, max: max + room, label: about(data.measures, measure)[1] },
      lines: lines.map(({ name, cells: own, colour, dash }) => ({ name, colour, dash, points: own.flatMap(ends) })),
    });
    const seen = new Set();
    lines.forEach(({ cells: own, colour, mark }, k) => {
      for (const c of own) {
        if (seen.has(c)) continue; // alpha 0 is the beginning of every line
        seen.add(c);
        const shared = lines.filter((l) => l.cells.includes(c)).length > 1;
        const px = scales.X(of(c) ?? x.min) + (of(c) === null ? 10 : shared ? 0 : 5 * (k - (lines.length - 1) / 2)), py = scales.Y(c.value);
        const stroke = shared ? "var(--ink)" : colour, fill = stroke;
        const parts = [make("svg:rect", { x: px - 8, y: py - 12, width: 16, height: 24, fill: "transparent" })];
        if (c.low !== null) {
          const [low, high] = [scales.Y(c.low), scales.Y(c.high)];
          parts.push(make("svg:path", { d: `M${px},${low}V${high}M${px - 3},${low}h6M${px - 3},${high}h6`, stroke, "stroke-width": 1.2, fill: "none" }));
        }
        parts.push(make("svg:path", { d: mark, transform: `translate(${px},${py})`, fill }));
        const edge = make("svg:circle", { cx: px, cy: py, r: 9, fill: "none", stroke: "var(--ink)", "stroke-width": 2 });
        svg.append(item(c, px, py, measure, edge, ...parts));
      }
    });
    const bar = legend(lines);
    bar.querySelectorAll("svg").forEach((mark, k) => mark.append(make("svg:path", { d: lines[k].mark, transform: "translate(17,7)", fill: lines[k].colour })));
    key.replaceChildren(bar);
  }

  function finding(found, given) {
    const { cells, measure } = found, { best, least, meets, others, mean } = summary(cells), name = about(data.measures, measure)[1].replace(" (%)", ""), words = name[0].toUpperCase() + name.slice(1);
    if (cells.length === 1) return `${words}: one cell, ${number(best.value, measure)}; ${sureness(best, measure)}.`;
    if (!isPercent(measure)) {
      return `${words} runs from ${number(least.value, measure)} (${where(least)}) to ${number(best.value, measure)} (${where(best)}); `
        + (best.low === null ? "single runs, so without an interval." : `intervals of both: ${sureness(least, measure)}; ${sureness(best, measure)}.`);
    }
    const lead = `${words}: the best of ${cells.length} cells is ${where(best)} with ${number(best.value, measure)}; ${sureness(best, measure)}.`;
    if (meets === null) return `${lead} It was picked after the fact from single runs, and these tell nothing of another seed.`;
    const told = `${lead} The intervals of ${meets} of the other ${others} meet its own: by them alone, these cannot be told from it.`;
    const chance = luck[`${given.sweep}/${found.loss}/${measure}`];
    if (!chance) return `${told} It was picked after the fact, and single runs tell nothing of another seed.`;
    return `${told} It was picked after the fact and lies ${(best.value - mean).toFixed(1)} points above the mean of all cells; were all settings equal, the best of ${chance.cells} would lie ${chance.gain.toFixed(1)} above it by luck, given the spread of the seeds within cells.`;
  }

  function draw(width = Math.max(280, root.clientWidth)) {
    const given = Object.fromEntries(SETTINGS.map((name) => [name, model.get(name)])), found = chosen(data, given);
    const { cells, measure } = found, notes = [];
    for (const [name, has] of [["measure", found.has], ["loss", found.hasLoss]]) {
      const list = name === "loss" ? data.losses : data.measures;
      for (const option of root.querySelectorAll("option")) if (about(list, option.value)) option.disabled = !has.includes(option.value);
      if (!has.includes(given[name])) notes.push(`This sweep has no ${about(list, given[name])[1]}; shown is ${about(list, found[name])[1]}. It has: ${has.map((k) => about(list, k)[1]).join("; ")}.`);
    }
    const taus = new Set(cells.map((c) => c.temperature).filter((t) => t !== null)), axis = taus.size > 1 ? given.axis : "alpha";
    if (given.view === "curves" && axis !== given.axis) notes.push("This sweep has no second temperature; the curves run over α.");
    const before = drawn === JSON.stringify(given) ? at : -1, focused = svg.contains(document.activeElement);
    drawn = JSON.stringify(given);
    items = [];
    at = 0;
    if (given.view === "map") drawMap(width, cells, measure);
    else drawCurves(width, cells, measure, axis);
    const { best } = summary(cells);
    pick(before >= 0 && before < items.length ? before : items.findIndex(({ cell }) => cell === best), focused);
    say.textContent = [...notes, finding(found, given), about(sweeps, given.sweep)[2]].join(" ");
    svg.setAttribute("aria-label", `${about(sweeps, given.sweep)[1]}, ${given.view === "map" ? "alpha by temperature" : `curves over ${axis}`}. ${finding(found, given)}`);
  }
  const redraw = () => draw();
  for (const name of SETTINGS) model.on(`change:${name}`, redraw);
  const unwatch = onWidth(root, draw);
  return () => {
    unwatch();
    for (const name of SETTINGS) model.off(`change:${name}`, redraw);
    close();
  };
}

export default { render };
