// Clips as points of a map under four networks: seen and heard, with their nearest neighbours in h.
import { WAYS, button, frame, make, onWidth, still, toward } from "./shared.mjs";

// Of each clip that counts, the share of its neighbours with its class; then their mean.
export function neighbourShare(neighbours, labels, counts) {
  let sum = 0, clips = 0;
  neighbours.forEach((near, i) => {
    if (!counts[i]) return;
    sum += near.filter((k) => labels[k] === labels[i]).length / near.length;
    clips++;
  });
  return sum / clips;
}

// The nearest point that counts, no farther than `reach`; -1 for none.
export function under(points, x, y, reach, counts) {
  let best = -1, least = reach;
  points.forEach(([a, b], k) => {
    const length = Math.hypot(a - x, b - y);
    if (counts[k] && length < least) [best, least] = [k, length];
  });
  return best;
}

// Addresses { sound, picture } of a clip: files beside the page, or asked from the kernel.
function clipMedia(model, clip) {
  if (model.page) return Promise.resolve({ sound: `${model.get("media")}/${clip}.mp3`, picture: `${model.get("media")}/${clip}.webp` });
  return new Promise((found) => {
    const take = (message) => {
      if (message.clip !== clip) return;
      model.off("msg:custom", take);
      found(message);
    };
    model.on("msg:custom", take);
    model.send({ clip });
  });
}

const FORMS = [
  "M5,0A5,5 0 1 1 -5,0A5,5 0 1 1 5,0Z",
  "M-4.4,-4.4H4.4V4.4H-4.4Z",
  "M0,-5.6L5.4,4.2H-5.4Z",
  "M0,-6L6,0L0,6L-6,0Z",
  "M-2,-5.6H2V-2H5.6V2H2V5.6H-2V2H-5.6V-2H-2Z",
];
const INKS = ["var(--one)", "var(--two)", "var(--three)", "var(--four)"];
const look = (label) => ({ d: FORMS[Math.floor(label / INKS.length) % FORMS.length], ink: INKS[label % INKS.length] });

// !important: the theme frames pictures in the dark
const LOOK = `
.acl-x .map{display:flex;flex-wrap:wrap;gap:.5rem 1rem;align-items:flex-start}
.acl-x .map>svg{width:auto}
.acl-x .map .clip{flex:1 1 15rem;min-width:0}
.acl-x .map img{display:block;height:96px;max-width:100%;padding:0!important;background:#000!important}
.acl-x .map ol{margin:.3rem 0;padding-left:1.3rem}
.acl-x .map li{margin:.2rem 0}
.acl-x .map li button{padding:.1rem .6rem}
.acl-x .map [role=button]{cursor:pointer}
.acl-x .map [role=button]:focus{outline:none}
.acl-x .map [role=button]:focus-visible path{stroke:#e8a200;stroke-width:4}
.acl-x .key{display:flex;flex-wrap:wrap;gap:.1rem .8rem;font-size:12px}
.acl-x .key svg{display:inline-block;width:14px;vertical-align:-2px}`;

function render({ model, el }) {
  const [names, labels, classes, unheard, sources, networks] = ["names", "labels", "classes", "unheardClips", "sources", "networks"].map((k) => model.get(k));
  const all = names.map(() => 1), some = unheard.some((flag) => !flag); // whether a network heard any
  const { root, close } = frame({ model, el }, { name: "map", title: "Map of clips" }, [
    { kind: "choice", name: "network", link: "net", label: "network", options: Object.keys(networks).map((name) => [name, name]) },
    { kind: "choice", name: "kind", link: "map", label: "map", options: ["PCA", "UMAP"].map((name) => [name, name]) },
    { kind: "choice", name: "highlight", link: "class", label: "class", options: [["all", "all"], ...classes.map((name) => [name, name])] },
    { kind: "choice", name: "clip", link: "clip", label: "clip", options: names.map((name, k) => [name, `${classes[labels[k]]}, ${name}`]) },
    { kind: "tick", name: "unheard", link: "unheard", label: "only clips that no network heard" },
    { kind: "tick", name: "hover", link: "hover", label: "play on hover" },
  ]);
  root.append(make("style", {}, LOOK));
  const svg = make("svg:svg", { role: "group" }), lines = make("svg:g", { style: "pointer-events:none", fill: "none", stroke: "var(--ink)", "stroke-width": 1.5 }), dots = make("svg:g");
  svg.append(dots, lines);
  const picture = make("img", { width: 50 }), head = make("p"), credit = make("p", { class: "link" }), missing = make("p", { role: "status" });
  const audio = make("audio", { preload: "none" }), list = make("ol");
  const playing = button("Play", () => (audio.paused ? play(shown()) : audio.pause()));
  const card = make("div", { class: "clip" }, head, picture, make("div", { class: "bar" }, playing), missing, credit, make("p", {}, "Nearest in h, by cosine:"), list);
  const say = make("p", { "aria-live": "polite" }), facts = make("p");
  const key = make("div", { class: "key" }, ...classes.map((name, k) => make("span", {}, mark(k), ` ${name}`)));
  const hint = make("p", { class: "link" }, `${some ? "Filled: clips that no network heard; hollow: clips that the networks were trained on. " : "No network heard any of these clips. "}Point at a clip to see it, click or press Enter to hear it; arrow keys go to the next one. ${model.get("corpusLine")}`);
  root.append(make("div", { class: "map" }, svg, card), key, say, facts, hint);

  let at = [], size = 420, hovered = -1, focus = false, frameId = 0, wait = 0;
  const chosen = () => Math.max(0, names.indexOf(model.get("clip")));
  const shown = () => (hovered >= 0 ? hovered : chosen());
  const counts = () => (model.get("unheard") ? unheard : all);
  const now = () => networks[model.get("network")];

  const handles = names.map((name, k) => {
    const { d, ink } = look(labels[k]);
    const handle = make("svg:g", { role: "button", tabindex: -1, "aria-label": `${classes[labels[k]]}, clip ${name}`, "data-lm-suppress-shortcuts": "true" });
    handle.append(make("svg:path", { d, stroke: ink, "stroke-width": 1.5, fill: unheard[k] ? ink : "var(--ground)" }));
    handle.addEventListener("keydown", (event) => keyed(event, k));
    handle.addEventListener("focus", () => { focus = true; });
    handle.addEventListener("blur", () => { focus = false; });
    dots.append(handle);
    return handle;
  });

  function mark(label) {
    const { d, ink } = look(label);
    return make("svg:svg", { viewBox: "-7 -7 14 14", height: 14, "aria-hidden": "true" }, make("svg:path", { d, fill: ink }));
  }

  function choose(k) {
    hovered = -1;
    model.set("clip", names[k]);
    model.save_changes();
  }

  function keyed(event, k) {
    const step = WAYS[event.key];
    if (!step && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    if (!step) return play(k);
    const next = toward(at, k, step, counts());
    choose(next);
    handles[next].focus({ preventScroll: true });
  }

  // the place of a pointer in the pixels that the points are counted in
  function pointed(event, reach) {
    const box = svg.getBoundingClientRect();
    return under(at, event.clientX - box.left, event.clientY - box.top, reach, counts());
  }
  svg.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") preview(pointed(event, 14)); });
  svg.addEventListener("pointerleave", () => preview(-1));
  svg.addEventListener("click", (event) => {
    const k = pointed(event, 26);
    if (k < 0) return;
    choose(k);
    play(k);
  });

  function preview(k) {
    if (k === hovered) return;
    hovered = k;
    clearTimeout(wait);
    if (k >= 0 && model.get("hover")) wait = setTimeout(() => play(k), 150);
    paint();
  }

  const known = {};
  const files = (k) => (known[k] ??= clipMedia(model, names[k]));
  async function play(k) {
    const { sound } = await files(k);
    audio.src = sound;
    audio.play().catch(() => {}); // a browser that wants a click first; a missing file is told below
  }
  const gone = () => {
    missing.textContent = "This clip's sound or picture is not beside the page. Build the book again, or run the notebook in JupyterLab.";
  };
  audio.addEventListener("error", gone);
  picture.addEventListener("error", gone);
  const told = () => { playing.textContent = audio.paused ? "Play" : "Stop"; };
  for (const event of ["play", "pause", "ended"]) audio.addEventListener(event, told);

  // Screen places of a map's points: its own extent fills the picture, both ways alike.
  function places() {
    const points = now().maps[model.get("kind")];
    const spans = [0, 1].map((d) => points.map((p) => p[d])).map((v) => [Math.min(...v), Math.max(...v)]);
    const scale = (size - 28) / Math.max(...spans.map(([low, high]) => high - low), 1e-9);
    return points.map((p) => p.map((v, d) => size / 2 + (d ? -1 : 1) * scale * (v - (spans[d][0] + spans[d][1]) / 2)));
  }

  function travel() {
    const from = at, to = places(), start = performance.now();
    cancelAnimationFrame(frameId);
    if (still() || !from.length) {
      at = to;
      return paint();
    }
    const step = (time) => {
      const t = Math.min(1, Math.max(0, (time - start) / 600)), ease = t * t * (3 - 2 * t);
      at = to.map((p, k) => p.map((v, d) => from[k][d] + ease * (v - from[k][d])));
      move();
      if (t < 1) frameId = requestAnimationFrame(step);
    };
    frameId = requestAnimationFrame(step);
    paint();
  }

  function move() {
    at.forEach(([x, y], k) => {
      const grown = k === shown() ? 1.9 : near().includes(k) ? 1.45 : 1;
      handles[k].setAttribute("transform", `translate(${x.toFixed(1)},${y.toFixed(1)}) scale(${grown})`);
    });
    const [x1, y1] = at[shown()];
    const ring = make("svg:circle", { cx: x1, cy: y1, r: 12, "stroke-width": 2.5 });
    lines.replaceChildren(ring, ...near().map((k) => make("svg:line", { x1, y1, x2: at[k][0], y2: at[k][1], "stroke-dasharray": alike(k) ? "" : "3 4" })));
  }
  const near = () => now().neighbours[shown()];
  const alike = (k) => labels[k] === labels[shown()];

  let seen = -1;
  function paint() {
    if (!at.length) return;
    const k = shown(), visible = counts(), highlight = model.get("highlight");
    handles.forEach((handle, i) => {
      const lit = i === k || near().includes(i);
      handle.style.display = visible[i] || lit ? "" : "none";
      handle.setAttribute("opacity", lit || highlight === "all" || classes[labels[i]] === highlight ? 1 : 0.18);
      handle.setAttribute("tabindex", i === chosen() ? 0 : -1);
      if (lit) handle.setAttribute("aria-pressed", i === k);
      else handle.removeAttribute("aria-pressed");
    });
    move();
    const count = near().filter(alike).length, of = near().length;
    head.textContent = `${classes[labels[k]]}, clip ${names[k]}, ${unheard[k] ? "which no network heard" : "which the trained networks heard"}`;
    credit.textContent = model.get("credits")[k];
    playing.setAttribute("aria-label", `Play or stop ${classes[labels[k]]}, clip ${names[k]}`);
    if (seen !== k) drawClip(k);
    list.replaceChildren(...near().map((i, place) => {
      const hear = button("Play", () => play(i));
      hear.setAttribute("aria-label", `Play neighbour ${place + 1}, ${classes[labels[i]]}`);
      const same = alike(i) ? "same class" : "other class";
      return make("li", {}, hear, ` ${classes[labels[i]]}, ${now().cosines[k][place].toFixed(3)}: ${same}${sources[i] === sources[k] ? ", same recording" : ""}`);
    }));
    const clips = visible.filter(Boolean).length, share = 100 * neighbourShare(now().neighbours, labels, visible);
    const words = `${model.get("network")}, ${model.get("kind")}: ${classes[labels[chosen()]]}, clip ${names[chosen()]}.`;
    if (hovered < 0) {
      say.textContent = `${words} ${count} of its ${of} nearest neighbours in h share its class. Over the ${clips} clips shown, ${share.toFixed(0)} % of the neighbours do${some && !model.get("unheard") ? ", trained ones included" : ""}.`;
      svg.setAttribute("aria-label", `Map of ${clips} clips. ${say.textContent}`);
    }
    const { probe, geometry } = now(), percent = (v) => (100 * v).toFixed(1);
    facts.textContent = `Measured on the ${probe.n} unheard clips, not on the map: a linear probe of h reads ${percent(probe.accuracy)} % of their classes (95 % interval ${probe.interval.map(percent).join(" to ")}); uniformity ${geometry.uniformity.toFixed(2)}, tolerance ${geometry.tolerance.toFixed(2)}, class gap ${geometry.class_gap.toFixed(2)}.`;
  }

  // the picture of a clip; an answer that comes after the next question is dropped
  async function drawClip(k) {
    seen = k;
    missing.textContent = "";
    const found = await files(k);
    if (seen !== k) return;
    picture.removeAttribute("width");
    picture.alt = `Log-mel of ${classes[labels[k]]}, clip ${names[k]}: time to the right, low sounds at the bottom`;
    picture.src = found.picture;
  }

  const redraw = () => {
    if (model.get("unheard") && !unheard[chosen()]) return choose(unheard.indexOf(1));
    if (focus) handles[chosen()].focus({ preventScroll: true });
    paint();
  };
  const moved = () => travel();
  for (const name of ["network", "kind"]) model.on(`change:${name}`, moved);
  for (const name of ["unheard", "highlight", "clip"]) model.on(`change:${name}`, redraw);
  const unwatch = onWidth(root, (width) => {
    size = Math.min(width, 400);
    svg.setAttribute("viewBox", `0 0 ${size} ${size}`);
    svg.setAttribute("width", size);
    svg.setAttribute("height", size);
    svg.style.width = `${size}px`;
    cancelAnimationFrame(frameId);
    at = places();
    paint();
  });
  return () => {
    unwatch();
    cancelAnimationFrame(frameId);
    clearTimeout(wait);
    audio.pause();
    for (const name of ["network", "kind"]) model.off(`change:${name}`, moved);
    for (const name of ["unheard", "highlight", "clip"]) model.off(`change:${name}`, redraw);
    close();
  };
}

export default { render };
