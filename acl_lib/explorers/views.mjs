// Two patches of a clip become two views: every step in the hand, both to see and to hear.
import { button, dot, frame, make, onWidth, random, ticks } from "./shared.mjs";

// ---- mathematics: a patch is an array of bands, band 0 lowest, each an array of frames, in log10 power

const every = (patch, change) => patch.map((row, f) => row.map((v, t) => change(v, f, t)));
const least = (patch) => patch.reduce((low, row) => row.reduce((a, b) => Math.min(a, b), low), Infinity);
const most = (patch) => patch.reduce((high, row) => row.reduce((a, b) => Math.max(a, b), high), -Infinity);
const turned = (patch) => Array.from(patch[0], (_, t) => Float64Array.from(patch, (row) => row[t]));

// Power over that of the loudest cell; 37 decades below it is where the library's float32 ends.
function relativePower(patch) {
  const top = most(patch);
  return { top, power: every(patch, (v) => 10 ** Math.max(v - (Number.isFinite(top) ? top : 0), -37)) };
}

// A background in a patch, in power, at a fraction of the patch's energy (acl_lib.views.mix_back).
export function mixBack(patch, background, ratio) {
  const fore = relativePower(patch), back = relativePower(background);
  if (!Number.isFinite(fore.top) || !Number.isFinite(back.top)) return patch;
  const energy = (power) => power.reduce((sum, row) => row.reduce((a, b) => a + b, sum), 0);
  const share = (ratio * energy(fore.power)) / energy(back.power);
  return every(fore.power, (p, f, t) => Math.log10((1 - ratio) * p + share * back.power[f][t]) + fore.top);
}

// Rows first .. first + size - 1, stretched linearly over all rows, as Pillow does (acl_lib.augment).
export function stretch(rows, first, size) {
  const all = rows.length;
  return rows.map((_, r) => {
    const place = Math.min(Math.max((2 * r + 1) * size - all, 0), 2 * all * (size - 1)) / (2 * all);
    const whole = Math.floor(place), weight = place - whole;
    const lower = rows[first + whole], upper = rows[first + whole + (weight > 0 ? 1 : 0)];
    return lower.map((v, k) => v + weight * (upper[k] - v));
  });
}

export function resizedCrop(patch, { low, bands, first, frames }) {
  return stretch(turned(stretch(turned(patch), first, frames)), low, bands);
}

// Bands and frames of the first box that fits, from uniform draws [area, shape] of every try
// (acl_lib.augment.RandomResizedCrop.box); the whole patch where none does.
export function cropSize(nBands, nFrames, scale, tries) {
  for (const [u, v] of tries) {
    const area = nBands * nFrames * (scale + (1 - scale) * u);
    const ratio = Math.exp(Math.log(3 / 4) + (Math.log(4 / 3) - Math.log(3 / 4)) * v);
    const bands = Math.round(Math.sqrt(area * ratio)), frames = Math.round(Math.sqrt(area / ratio));
    if (bands >= 1 && bands <= nBands && frames >= 1 && frames <= nFrames) return { bands, frames };
  }
  return { bands: nBands, frames: nFrames };
}

export const compander = (patch, factor) => every(patch, (v) => v * factor);

// Runs [start, width] of bands and of frames get the smallest value of the patch.
export function mask(patch, { bands = [], frames = [] }) {
  const low = least(patch), inside = (runs, k) => runs.some(([start, width]) => k >= start && k < start + width);
  const time = Array.from(patch[0], (_, t) => inside(frames, t));
  return patch.map((row, f) => (inside(bands, f) ? row.map(() => low) : row.map((v, t) => (time[t] ? low : v))));
}

export function blur(patch, sigma, radius = 5) {
  const taps = Array.from({ length: 2 * radius + 1 }, (_, k) => Math.exp(-0.5 * ((k - radius) / sigma) ** 2));
  const sum = taps.reduce((a, b) => a + b);
  const smooth = (rows) => rows.map((row) => row.map((_, t) => {
    let value = 0;
    for (let k = -radius; k <= radius; k++) {
      const at = Math.abs(t + k); // reflected at the borders, without the border itself
      value += (taps[k + radius] / sum) * row[at < row.length ? at : 2 * row.length - 2 - at];
    }
    return value;
  }));
  return turned(smooth(turned(smooth(patch))));
}

// What a strength makes of the settings: 0 leaves the patch alone, 1 takes them as they are.
export function scaled(settings, strength) {
  return {
    mix: Math.min(0.9, settings.mix * strength),
    crop: Math.max(0.1, 1 - strength * (1 - settings.crop)),
    compander: Math.max(0.1, 1 - strength * (1 - settings.compander)),
    noise: settings.noise * strength,
    timeMasks: settings.timeMasks,
    frequencyMasks: settings.frequencyMasks,
    width: Math.round(settings.width * strength),
    blurred: settings.blurred && strength > 0,
  };
}

// A generator of its own for each step of each view: a slider changes its own step alone.
function drawer(seed, view, step) {
  const draw = random((seed + 1) * 1000003 + view * 7919 + step * 104729);
  for (let k = 0; k < 8; k++) draw();
  return draw;
}

// Two of n clips, other than `clip` and than each other.
export function backgrounds(clip, n, seed) {
  const draw = drawer(seed, 0, 9);
  const first = 1 + Math.floor(draw() * (n - 1));
  let second = 1 + Math.floor(draw() * (n - 2));
  if (second >= first) second++;
  return [(clip + first) % n, (clip + second) % n];
}

// One view, in the order of acl_lib.training.augmentations, and what was drawn for it.
export function view(patch, background, settings, seed, which) {
  const nBands = patch.length, nFrames = patch[0].length, drawn = {};
  let x = settings.mix > 0 ? mixBack(patch, background, settings.mix) : patch;
  if (settings.crop < 1) {
    const draw = drawer(seed, which, 1);
    const size = cropSize(nBands, nFrames, settings.crop, Array.from({ length: 10 }, () => [draw(), draw()]));
    const low = Math.floor(draw() * (nBands - size.bands + 1)), first = Math.floor(draw() * (nFrames - size.frames + 1));
    drawn.box = { low, first, ...size };
    x = resizedCrop(x, drawn.box);
  }
  if (settings.compander < 1) {
    drawn.factor = settings.compander + (1 - settings.compander) * drawer(seed, which, 2)();
    x = compander(x, drawn.factor);
  }
  const runs = (step, count, n) => {
    const draw = drawer(seed, which, step);
    return Array.from({ length: count }, () => {
      const width = Math.floor(draw() * (Math.min(settings.width, n) + 1));
      return [Math.floor(draw() * (n - width + 1)), width];
    });
  };
  x = mask(x, { bands: runs(3, settings.frequencyMasks, nBands) });
  x = mask(x, { frames: runs(4, settings.timeMasks, nFrames) });
  if (settings.noise > 0) {
    const draw = drawer(seed, which, 5);
    drawn.sigma = settings.noise * draw();
    x = every(x, (v) => v + drawn.sigma * Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw()));
  }
  if (settings.blurred) {
    drawn.blur = 0.1 + 1.9 * drawer(seed, which, 6)();
    x = blur(x, drawn.blur);
  }
  return { x, drawn };
}

// How near two views are, cell by cell: cosine once both are standardised, mean distance in log10 units.
export function likeness(a, b, mean, std) {
  const [u, v] = [a, b].map((patch) => patch.flatMap((row) => Array.from(row, (value) => (value - mean) / std)));
  const cosine = dot(u, v) / Math.sqrt(dot(u, u) * dot(v, v));
  return { cosine, apart: (std * u.reduce((sum, value, k) => sum + Math.abs(value - v[k]), 0)) / u.length };
}

// ---- sound

// Tones of every band, evenly spread between the borders to its neighbours, none farther apart than `gap` Hz.
export function voices(centres, gap = 60) {
  return centres.map((centre, m) => {
    const below = m ? (centre - centres[m - 1]) / 2 : (centres[1] - centre) / 2;
    const above = m < centres.length - 1 ? (centres[m + 1] - centre) / 2 : below;
    const count = Math.max(1, Math.ceil((below + above) / gap));
    return Array.from({ length: count }, (_, k) => centre - below + ((k + 0.5) / count) * (below + above));
  });
}

// A sound from a patch alone: tones of fixed random phase in each band, as loud as the band says.
// `level` is the amplitude of a tone whose band has power 1. Returns samples and the gain they got.
export function sounded(patch, { centres, level, rate, hop }) {
  const frames = patch[0].length, length = (frames - 1) * hop, wav = new Float64Array(length), draw = random(1);
  voices(centres).forEach((tones, m) => {
    const loud = Float64Array.from(patch[m], (v) => level * Math.sqrt(10 ** v / tones.length));
    for (const tone of tones) {
      const phase = 2 * Math.PI * draw(), turn = (2 * Math.PI * tone) / rate, twice = 2 * Math.cos(turn);
      let now = Math.cos(phase), before = Math.cos(phase - turn); // cos(a + t) = 2 cos t cos a - cos(a - t)
      for (let t = 0; t < frames - 1; t++) {
        const slope = (loud[t + 1] - loud[t]) / hop;
        let amplitude = loud[t];
        for (let n = t * hop; n < (t + 1) * hop; n++) {
          wav[n] += amplitude * now;
          amplitude += slope;
          [now, before] = [twice * now - before, now];
        }
      }
    }
  });
  const peak = wav.reduce((high, v) => Math.max(high, Math.abs(v)), 1e-9);
  const gain = Math.min(0.9 / peak, 100); // silence stays silent
  return { wav: wav.map((v) => v * gain), gain };
}

// 16-bit WAV, one channel.
export function wavFile(wav, rate) {
  const bytes = new DataView(new ArrayBuffer(44 + 2 * wav.length));
  const text = (at, words) => [...words].forEach((c, k) => bytes.setUint8(at + k, c.charCodeAt(0)));
  text(0, "RIFF");
  bytes.setUint32(4, 36 + 2 * wav.length, true);
  text(8, "WAVEfmt ");
  bytes.setUint32(16, 16, true);
  for (const [at, value] of [[20, 1], [22, 1], [32, 2], [34, 16]]) bytes.setUint16(at, value, true);
  bytes.setUint32(24, rate, true);
  bytes.setUint32(28, 2 * rate, true);
  text(36, "data");
  bytes.setUint32(40, 2 * wav.length, true);
  wav.forEach((v, n) => bytes.setInt16(44 + 2 * n, Math.round(32767 * v), true));
  return bytes.buffer;
}

// ---- page

// Frames of a clip back from their bytes, as bands.
export function unpacked({ cells, low, step }, bands) {
  const bytes = Uint8Array.from(atob(cells), (c) => c.charCodeAt(0)), frames = bytes.length / bands;
  return Array.from({ length: bands }, (_, f) => Float64Array.from({ length: frames }, (_, t) => low + step * bytes[t * bands + f]));
}

// Dark to light and nearly even to the eye, also without red or green: nine colours, the rest between them.
const SCALE = ["#000004", "#1c1044", "#4f127b", "#812581", "#b5367a", "#e55064", "#fb8761", "#fec287", "#fcfdbf"]
  .map((c) => [1, 3, 5].map((k) => parseInt(c.slice(k, k + 2), 16)));

export function colour(share) {
  const place = Math.min(1, Math.max(0, share)) * (SCALE.length - 1), k = Math.min(SCALE.length - 2, Math.floor(place));
  return SCALE[k].map((v, c) => Math.round(v + (place - k) * (SCALE[k + 1][c] - v)));
}

const LEFT = 50, TOP = 22, BOTTOM = 36, RIGHT = 10;

// A log-mel on a canvas, with axes around it that are text.
function board(height) {
  const canvas = make("canvas", { role: "img", style: `position:absolute;left:${LEFT}px;top:${TOP}px` });
  const svg = make("svg:svg", { "aria-hidden": "true", style: "position:relative" });
  const box = make("div", { style: "position:relative" }, canvas, svg);
  let inner = 100;
  return {
    box,
    canvas,
    svg,
    seconds: (x, span) => ((x - LEFT) / inner) * span,
    draw(patch, width, { title, from, hop, centres, low, high }) {
      const bands = patch.length, frames = patch[0].length;
      inner = width - LEFT - RIGHT;
      canvas.width = frames;
      canvas.height = bands;
      canvas.style.cssText += `;width:${inner}px;height:${height}px;image-rendering:pixelated`;
      const picture = new ImageData(frames, bands);
      patch.forEach((row, f) => row.forEach((v, t) => {
        const at = 4 * ((bands - 1 - f) * frames + t);
        picture.data.set([...colour((v - low) / (high - low)), 255], at);
      }));
      canvas.getContext("2d").putImageData(picture, 0, 0);
      const end = (frames - 1) * hop, parts = [make("svg:text", { x: LEFT, y: 14 }, title)];
      for (const v of ticks(0, end, width > 500 ? 6 : width > 200 ? 3 : 2)) {
        parts.push(make("svg:text", { x: LEFT + (v / end) * inner, y: TOP + height + 15, "text-anchor": "middle" }, String(Number((v + from).toFixed(2)))));
      }
      parts.push(make("svg:text", { x: LEFT + inner / 2, y: TOP + height + 31, "text-anchor": "middle" }, "time (s)"));
      for (const hertz of [200, 1000, 3000, 8000]) {
        const band = centres.findIndex((c) => c >= hertz);
        if (band < 0) continue;
        parts.push(make("svg:text", { x: LEFT - 5, y: TOP + height * (1 - band / bands) + 4, "text-anchor": "end" }, hertz < 1000 ? `${hertz} Hz` : `${hertz / 1000} kHz`));
      }
      svg.setAttribute("viewBox", `0 0 ${width} ${height + TOP + BOTTOM}`);
      svg.setAttribute("height", height + TOP + BOTTOM);
      svg.replaceChildren(...parts);
      return { X: (s) => LEFT + (s / end) * inner, end };
    },
  };
}

function player(label) {
  const sound = make("audio", { controls: "", preload: "metadata", "aria-label": label, style: "width:100%;height:2.5rem", "data-lm-suppress-shortcuts": "true" });
  return { sound, box: make("div", { style: "margin:.2rem 0 .6rem" }, make("div", {}, label), sound) };
}

const SETTINGS = ["mix", "crop", "compander", "noise", "timeMasks", "frequencyMasks", "width", "blurred"];
const MARKS = [["#0062a3", ""], ["#b34700", "7 4"]]; // on white, whatever the page is

function render({ model, el }) {
  const clips = model.get("clips"), centres = model.get("centres"), hop = model.get("hop") / model.get("rate");
  const size = model.get("frames"), longest = (size - 1) * hop;
  const mels = clips.map((clip) => unpacked(clip, centres.length)), last = mels[0][0].length - size;
  const plain = (v) => String(Number(v.toPrecision(3)));
  const where = { min: 0, max: Number((last * hop).toFixed(2)), step: 0.01, unit: " s" };
  const { root, close } = frame({ model, el }, { name: "views", title: "Two views of a clip" }, [
    { kind: "choice", name: "clip", link: "clip", label: "clip", options: clips.map(({ name }, k) => [String(k), name]) },
    { name: "first", link: "i", label: "view 1 starts at", ...where },
    { name: "second", link: "j", label: "view 2 starts at", ...where },
    { name: "strength", link: "s", label: "strength of all steps", min: 0, max: 4, step: 0.1, text: (v) => `× ${v.toFixed(1)}` },
    { name: "mix", link: "mix", label: "mix-back weight λ", min: 0, max: 0.9, step: 0.01 },
    { name: "crop", link: "crop", label: "crop: least area kept", min: 0.2, max: 1, step: 0.05 },
    { name: "compander", link: "c", label: "compander: least factor", min: 0.25, max: 1, step: 0.05 },
    { name: "noise", link: "noise", label: "noise: largest deviation", min: 0, max: 1, step: 0.01 },
    { name: "timeMasks", link: "tm", label: "time masks", min: 0, max: 3, step: 1, digits: 0 },
    { name: "frequencyMasks", link: "fm", label: "frequency masks", min: 0, max: 3, step: 1, digits: 0 },
    { name: "width", link: "w", label: "widest mask", min: 1, max: 40, step: 1, text: (v) => `${v} cells` },
    { name: "seed", link: "seed", label: "draw", min: 0, max: 99, step: 1, text: (v) => `no. ${v}` },
    { kind: "tick", name: "blurred", link: "blur", label: "Gaussian blur" },
  ]);
  const whole = board(130), pair = [board(150), board(150)];
  const source = player("The clip, as recorded"), sounds = [1, 2].map((k) => player(`View ${k}, from its picture`));
  const notes = [1, 2].map(() => make("p", { style: "font-size:.9em" }));
  const both = make("div", { style: "display:flex;flex-wrap:wrap;gap:.5rem" });
  pair.forEach((one, k) => both.append(make("div", { style: "flex:1 1 9rem;min-width:0" }, one.box, sounds[k].box, notes[k])));
  const say = make("p", { "aria-live": "polite" });
  const theirs = model.get("theirs"), off = [theirs.timeMasks + theirs.frequencyMasks ? "" : ", no masks", theirs.blurred ? "" : ", no blur"].join("");
  const know = make("p", {}, `The authors' code draws λ up to ${theirs.mix}, keeps ${theirs.crop} of the area or more, takes factors from ${theirs.compander} and noise up to ${theirs.noise}${off}.`);
  const [, sliders, bar] = root.children; // pictures above the sliders: both fit a screen
  bar.append(button("Draw anew", anew), button("As the authors", authors));
  root.append(bar, whole.box, source.box, both, say, sliders, know);
  let views = [], addresses = [], later = null, seen = false, held = null, shown = null;

  const at = (name) => Math.min(last, Math.max(0, Math.round(model.get(name) / hop)));
  const cut = (mel, start) => mel.map((row) => row.slice(start, start + size));
  const put = (name, value) => { model.set(name, value); model.save_changes(); };
  function anew() {
    const seed = (Number(model.get("seed")) + 1) % 100, draw = drawer(seed, 0, 8);
    for (const name of ["first", "second"]) model.set(name, Number((Math.floor(draw() * (last + 1)) * hop).toFixed(2)));
    put("seed", seed);
  }

  function authors() {
    model.set("strength", 1);
    for (const [name, value] of Object.entries(theirs)) model.set(name, value);
    model.save_changes();
  }

  function paint() {
    const clip = Number(model.get("clip")), seed = model.get("seed"), mel = mels[clip], starts = [at("first"), at("second")];
    const asked = Object.fromEntries(SETTINGS.map((name) => [name, model.get(name)])), settings = scaled(asked, model.get("strength"));
    const behind = backgrounds(clip, clips.length, seed);
    const patches = starts.map((start) => cut(mel, start));
    views = patches.map((patch, k) => {
      const other = mels[behind[k]], from = Math.floor(drawer(seed, k + 1, 7)() * (last + 1));
      return view(patch, cut(other, from), settings, seed, k + 1);
    });
    const width = Math.max(280, whole.box.clientWidth), half = Math.max(130, pair[0].box.clientWidth);
    const [low, high] = clips[clip].range, look = { hop, centres, low, high };
    const { X } = whole.draw(mel, width, { ...look, title: `${clips[clip].name}: the clip`, from: 0 });
    starts.forEach((start, k) => {
      const [stroke, dash] = MARKS[k], x = X(start * hop) + 1.5, y = TOP + 3 + 6 * k;
      const size = { x, y, width: X(longest) - LEFT - 3, height: 124 - 12 * k, fill: "none" };
      whole.svg.append(
        make("svg:rect", { ...size, stroke: "#fff", "stroke-width": 6 }),
        make("svg:rect", { ...size, stroke, "stroke-width": 3, "stroke-dasharray": dash, "data-view": k + 1 }),
        make("svg:rect", { x: x + 3, y: y + 3 + 22 * k, width: 18, height: 18, fill: "var(--ground)" }),
        make("svg:text", { x: x + 12, y: y + 17 + 22 * k, "text-anchor": "middle", style: "font-weight:bold" }, k + 1),
      );
    });
    views.forEach(({ x }, k) => pair[k].draw(x, half, { ...look, title: `view ${k + 1}`, from: starts[k] * hop }));
    const overlap = Math.max(0, longest - Math.abs(starts[0] - starts[1]) * hop);
    const scale = [model.get("mean"), model.get("std")];
    const before = likeness(...patches, ...scale), after = likeness(views[0].x, views[1].x, ...scale);
    views.forEach(({ x, drawn }, k) => {
      const did = [];
      if (settings.mix > 0) did.push(`${clips[behind[k]].name} behind it at λ = ${plain(settings.mix)}`);
      if (drawn.box) did.push(`crop of ${drawn.box.bands} bands by ${drawn.box.frames} frames`);
      if (drawn.factor) did.push(`factor ${drawn.factor.toFixed(2)}`);
      if (settings.frequencyMasks + settings.timeMasks) did.push(`${settings.frequencyMasks + settings.timeMasks} masks of up to ${settings.width} cells`);
      if (drawn.sigma) did.push(`noise of ${plain(drawn.sigma)}`);
      if (drawn.blur) did.push(`blur of ${drawn.blur.toFixed(1)} cells`);
      notes[k].textContent = did.length ? `Drawn: ${did.join("; ")}.` : "Nothing was done to it.";
      pair[k].canvas.setAttribute("aria-label", `Log-mel of view ${k + 1}, ${clips[clip].name} from ${(starts[k] * hop).toFixed(2)} s. ${notes[k].textContent}`);
    });
    whole.canvas.setAttribute("aria-label", `Log-mel of the clip, ${clips[clip].name}; view 1 is cut at ${(starts[0] * hop).toFixed(2)} s, view 2 at ${(starts[1] * hop).toFixed(2)} s`);
    say.textContent = `The two views share ${overlap > 0.005 ? `${overlap.toFixed(2)} s` : "nothing"} of the clip. Untouched, their cells are ${before.apart.toFixed(2)} log10 units apart on average, with a cosine of ${before.cosine.toFixed(2)}; `
      + `as the network gets them, ${after.apart.toFixed(2)} units and a cosine of ${after.cosine.toFixed(2)}.`;
    if (shown !== clip) source.sound.src = clips[clip].sound;
    shown = clip;
    clearTimeout(later);
    if (seen) later = setTimeout(hear, 250); // once the slider rests
  }
  function hear() {
    const voice = { centres, level: model.get("level"), rate: model.get("rate"), hop: model.get("hop") };
    const before = addresses;
    addresses = views.map(({ x }) => URL.createObjectURL(new Blob([wavFile(sounded(x, voice).wav, voice.rate)], { type: "audio/wav" })));
    addresses.forEach((address, k) => { sounds[k].sound.src = address; });
    before.forEach((address) => URL.revokeObjectURL(address));
  }

  // a box goes where a pointer draws it; up and down stay the page's
  whole.svg.style.cursor = "grab";
  const second = (event) => {
    const place = whole.svg.getBoundingClientRect();
    return whole.seconds(event.clientX - place.left, (mels[0][0].length - 1) * hop);
  };
  whole.svg.addEventListener("pointerdown", (event) => {
    const s = second(event), off = ["first", "second"].map((name) => s - at(name) * hop);
    const far = off.map((d) => Math.abs(d - longest / 2));
    const k = far[0] <= far[1] ? 0 : 1;
    if (off[k] < 0 || off[k] > longest) return;
    held = { name: ["first", "second"][k], off: off[k] };
    whole.svg.setPointerCapture(event.pointerId);
  });
  whole.svg.addEventListener("pointermove", (event) => {
    if (!held) return;
    put(held.name, Number((Math.min(last, Math.max(0, Math.round((second(event) - held.off) / hop))) * hop).toFixed(2)));
  });
  for (const end of ["pointerup", "pointercancel"]) whole.svg.addEventListener(end, () => { held = null; });

  const screen = new IntersectionObserver(([entry]) => {
    if (!entry.isIntersecting) return;
    screen.disconnect();
    seen = true;
    hear();
  });
  screen.observe(both);
  model.on("change", paint);
  const unwatch = onWidth(whole.box, paint);
  paint();
  return () => {
    screen.disconnect();
    clearTimeout(later);
    addresses.forEach((address) => URL.revokeObjectURL(address));
    unwatch();
    model.off("change", paint);
    close();
  };
}

export default { render };
