// The explorer and the comparison. Every count, interval and test was computed in Python; here they are looked up.
"use strict";
(() => {
  const D = JSON.parse(document.getElementById("report-data").textContent);
  const P = JSON.parse(document.getElementById("report-pictures").textContent);
  const STATES = ["right", "wrong", "uncertified", "abstained"];
  const SAID = { right: "certified right", wrong: "certified wrong", uncertified: "not certified at r", abstained: "abstained", unknown: "not among the certified images" };
  const SIGNS = { right: "✓", wrong: "×", uncertified: "–", abstained: "?" };
  const MOST = 60; // tiles on each side of a comparison
  const NEXT = 100; // tiles in each later frame
  const FIRST = 240; // tiles at first; the page stays short, and one button shows all
  const state = { cert: D.main, stop: D.start, filter: 0, show: new Set(STATES), sort: "risk", find: "", image: null, all: false };
  const $ = (id) => document.getElementById(id);
  const words = (name) => name.replaceAll("_", " ").trim() || name;
  const className = (label) => (label < 0 ? "abstained" : words(D.classes[label]));
  const radiusText = (r) => String(+r.toFixed(6));
  const pictureOf = (kind, idx) => (P[kind] || {})[idx];

  // Elements are made from text alone: no name is ever read as HTML.
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "class") element.className = value;
      else if (key === "style") Object.assign(element.style, value);
      else if (value !== null && value !== undefined) element.setAttribute(key, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }
  function svg(tag, attributes) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  }

  // ---- what an image is at r ----
  function stateAt(cert, i, r) {
    const predict = cert.predict[i];
    if (predict === null) return "unknown";
    if (predict < 0) return "abstained";
    if (cert.radius[i] < r) return "uncertified";
    return predict === D.images.label[i] ? "right" : "wrong";
  }
  const isKnown = (cert, stop) => cert.asked === null || D.stops[stop] <= cert.asked;

  // ---- tiles ----
  const tiles = new Map(); // place of an image → its element, made once
  function tile(i) {
    if (!tiles.has(i)) {
      const button = make("button", { type: "button", class: "tile", tabindex: "-1" });
      button.dataset.place = i;
      tiles.set(i, make("li", {}, button));
    }
    return tiles.get(i);
  }
  const dressed = new WeakMap(); // a tile → the state and the certification that it shows
  function dress(button, cert, i, r) {
    const now = stateAt(cert, i, r), before = dressed.get(button);
    if (before && before[0] === now && before[1] === cert) return; // most tiles stay as they are from one r to the next
    dressed.set(button, [now, cert]);
    const idx = D.images.idx[i];
    if (!button.firstChild) {
      const source = pictureOf("clean", idx);
      button.append(source ? make("img", { src: source, alt: "", decoding: "async" }) : make("span", { class: "number" }, String(idx)));
    }
    button.className = `tile ${now}`;
    const radius = cert.predict[i] >= 0 && cert.predict[i] !== null ? `, answers ${className(cert.predict[i])} with radius ${radiusText(cert.radius[i])}` : "";
    button.setAttribute("aria-label", `image ${idx}, ${className(D.images.label[i])}: ${SAID[now]}${radius}`);
  }

  let ordered = [], order = ""; // places of all images of this certification, and what they are ordered by
  let listed = []; // of them those that pass the filters
  function arrange() {
    const cert = D.certs[state.cert];
    if (order === `${state.cert} ${state.sort}`) return;
    order = `${state.cert} ${state.sort}`;
    const keys = { risk: (i) => cert.risk[i], radius: (i) => (cert.predict[i] < 0 ? -1 : cert.radius[i]), number: (i) => D.images.idx[i] };
    const key = keys[state.sort];
    ordered = D.images.idx.map((_, i) => i).filter((i) => cert.predict[i] !== null).sort((a, b) => key(a) - key(b) || a - b);
  }
  function list() {
    const cert = D.certs[state.cert], labels = new Set(D.filters[state.filter].labels), r = D.stops[state.stop];
    const find = state.find.trim().toLowerCase(), all = state.show.size === STATES.length;
    const found = (i) => !find || String(D.images.idx[i]).startsWith(find) || D.images.name[i].toLowerCase().includes(find);
    listed = ordered.filter((i) => labels.has(D.images.label[i]) && found(i) && (all || state.show.has(stateAt(cert, i, r))));
  }
  let drawn = 0; // how many of the listed are drawn; the others follow, some in each frame, once all are asked for
  function drawTiles(anew) {
    const cert = D.certs[state.cert], r = D.stops[state.stop];
    if (anew) {
      arrange();
      list();
      drawn = Math.min(FIRST, listed.length);
      $("tiles").replaceChildren(...listed.slice(0, drawn).map(tile));
      if (listed.length) reachable(tile(listed[0]).firstChild);
      if (state.all) drawRest(listed);
    }
    for (const i of listed.slice(0, drawn)) dress(tile(i).firstChild, cert, i, r);
    $("more").hidden = state.all || listed.length <= FIRST;
    $("more").textContent = `Show all ${listed.length.toLocaleString("en")} images`;
    const sample = D.images.idx.length < D.all ? " shown of the sample" : "";
    $("summary").textContent = `${listed.length.toLocaleString("en")} images${sample} pass the filters${$("more").hidden ? "" : `; the first ${FIRST} are drawn`}.`;
  }
  function drawRest(of) {
    requestAnimationFrame(() => {
      if (of !== listed || drawn >= listed.length) return; // other filters since, or done
      const cert = D.certs[state.cert], r = D.stops[state.stop];
      const next = listed.slice(drawn, drawn + NEXT);
      $("tiles").append(...next.map(tile));
      for (const i of next) dress(tile(i).firstChild, cert, i, r);
      drawn = Math.min(drawn + NEXT, listed.length);
      drawRest(of);
    });
  }

  // ---- the dial: r, and what is proved there ----
  function drawCounts() {
    const cert = D.certs[state.cert], r = D.stops[state.stop], counts = cert.counts[state.filter];
    const known = isKnown(cert, state.stop);
    const total = known ? STATES.reduce((sum, _, s) => sum + counts[s][state.stop], 0) : 0;
    STATES.forEach((name, s) => {
      const button = stateButtons[s];
      const least = known && cert.bound[state.stop] && name === "right" ? "≥ " : "";
      button.querySelector("b").textContent = known ? `${least}${counts[s][state.stop].toLocaleString("en")}` : "–";
      button.querySelector("span:last-child").textContent = known && total ? `${SAID[name]}, ${((100 * counts[s][state.stop]) / total).toFixed(1)}%` : SAID[name];
      button.setAttribute("aria-pressed", state.show.has(name));
    });
    const grey = D.rms ? `, ${D.rms[state.stop].toFixed(2)} of 255 grey levels (root mean square)` : "";
    const reading = $("reading");
    reading.replaceChildren(make("b", {}, `r = ${radiusText(r)}`), known ? grey : `${grey}. Beyond r = ${cert.asked} no draws were taken to decide anything for this pipeline.`);
    $("radius").setAttribute("aria-valuetext", `r = ${radiusText(r)}`);
    drawWorst(r);
  }
  // Beside r: the worst change of about that length that an attack found, as it is and ten times as strong.
  const worsts = [...document.querySelectorAll(".step[data-length]")].filter((step) => step.querySelector("img"));
  let worstShown = null;
  function drawWorst(r) {
    if (!worsts.length) return;
    const length = (step) => Number(step.dataset.length);
    const inside = worsts.filter((step) => length(step) <= r + 1e-9);
    const step = inside.length ? inside.at(-1) : worsts[0];
    if (step === worstShown) return;
    worstShown = step;
    const [, , once, tenfold] = step.querySelectorAll("img");
    const copy = (image, alt) => make("img", { src: image.src, alt });
    $("worst").hidden = false;
    $("worst").replaceChildren(copy(once, "the change"), copy(tenfold, "the change, ten times as strong"), make("span", {}, `${inside.length ? "The worst change up to this length that an attack found" : "No attack found a change this short; the shortest that fooled an image"} (length ${length(step).toFixed(3)}): as it is, and ten times as strong.`));
  }
  const across = (stop) => (1000 * stop) / Math.max(1, D.stops.length - 1);
  function drawSkyline() {
    const cert = D.certs[state.cert], counts = cert.counts[state.filter], picture = $("skyline");
    const steps = D.stops.map((_, k) => k).filter((k) => isKnown(cert, k));
    const total = STATES.reduce((sum, _, s) => sum + counts[s][0], 0) || 1;
    picture.replaceChildren();
    let base = steps.map(() => 0);
    for (const s of [0, 2, 3, 1]) {
      const top = steps.map((k, n) => base[n] + counts[s][k] / total);
      const x = across; // as the slider: one step for each stop
      const y = (share) => 100 * (1 - share);
      const up = steps.map((k, n) => `${n ? `V${y(top[n])}H${x(k)}` : `M${x(k)} ${y(top[n])}`}`).join("");
      const down = steps.map((k, n) => [k, n]).reverse().map(([k, n]) => `L${x(k)} ${y(base[n])}${n ? `H${x(steps[n - 1])}` : ""}`).join("");
      picture.append(svg("path", { class: `s-${STATES[s]}`, d: `${up}${down}Z` }));
      base = top;
    }
    picture.append(svg("line", { id: "needle", x1: across(state.stop), x2: across(state.stop), y1: 0, y2: 100 }));
  }
  function moveNeedle() {
    $("needle").setAttribute("x1", across(state.stop));
    $("needle").setAttribute("x2", across(state.stop));
  }

  // ---- the address: #image=12&r=0.25&pipeline=…&sigma=0.25 ----
  function remember() {
    const cert = D.certs[state.cert];
    const told = new URLSearchParams();
    if (state.image !== null) told.set("image", D.images.idx[state.image]);
    told.set("r", radiusText(D.stops[state.stop]));
    told.set("pipeline", cert.name);
    told.set("sigma", cert.sigma);
    if (state.filter) told.set("class", D.filters[state.filter].name);
    if (state.show.size < STATES.length) told.set("show", [...state.show].join(","));
    if (state.sort !== "risk") told.set("sort", state.sort);
    try { history.replaceState(null, "", `#${told}`); } catch { /* a page opened from disk may not change its address */ }
  }
  function recall() {
    const hash = location.hash.slice(1);
    if (!hash.includes("=")) return false;
    const told = new URLSearchParams(hash);
    const number = (key) => (told.get(key) ? Number(told.get(key)) : NaN); // of an empty text: none, not 0
    const wanted = D.certs.findIndex((cert) => cert.name === (told.get("pipeline") ?? D.certs[state.cert].name) && (!told.has("sigma") || cert.sigma === number("sigma")));
    if (wanted >= 0) state.cert = wanted;
    if (told.has("r")) state.stop = nearest(number("r"));
    const filter = D.filters.findIndex((one) => one.name === told.get("class"));
    state.filter = Math.max(0, filter);
    const show = (told.get("show") ?? "").split(",").filter((name) => STATES.includes(name));
    state.show = new Set(show.length ? show : STATES);
    if (["risk", "radius", "number"].includes(told.get("sort"))) state.sort = told.get("sort");
    const place = D.images.idx.indexOf(number("image"));
    state.image = place < 0 ? null : place;
    return true;
  }
  function nearest(r) {
    if (!Number.isFinite(r)) return state.stop;
    return D.stops.reduce((best, stop, k) => (Math.abs(stop - r) < Math.abs(D.stops[best] - r) ? k : best), 0);
  }

  // ---- one image ----
  function shot(source, caption) {
    return source ? make("figure", {}, make("img", { src: source, alt: caption }), make("figcaption", {}, caption)) : null;
  }
  function closest(cert, idx) {
    const tried = cert.attempts[idx] || [];
    const own = tried.filter((one) => one[1]);
    const changed = own.find((one) => one[4]);
    return changed || own.at(-1) || tried.find((one) => one[4]) || tried.at(-1) || null;
  }
  function pictured(cert, idx) {
    return idx in cert.pictured ? cert.attempts[idx][cert.pictured[idx]] : null;
  }
  function votes(cert, i) {
    if (!cert.votes || !cert.votes[i]) return make("p", { class: "soft" }, "This table does not hold the votes.");
    const own = cert.votes[i], total = own.reduce((a, b) => a + b, 0), top = own.indexOf(Math.max(...own));
    const body = make("tbody");
    own.forEach((count, label) => {
      const share = total ? count / total : 0, [low, high] = cert.intervals[i][label];
      const bar = svg("svg", { class: "bar", viewBox: "0 0 200 18", preserveAspectRatio: "none", "aria-hidden": "true" });
      bar.append(svg("rect", { class: label === top ? "fill top" : "fill", x: 0, y: 3, height: 12, width: 200 * share }), svg("line", { class: "whisker", x1: 200 * low, x2: 200 * high, y1: 9, y2: 9 }));
      body.append(make("tr", {}, make("th", { scope: "row" }, className(label)), make("td", { class: "track" }, bar), make("td", { class: "n" }, count.toLocaleString("en"), " ", make("span", { class: "ci" }, `${(100 * low).toFixed(1)}–${(100 * high).toFixed(1)}%`))));
    });
    return make("table", { class: "votes" }, make("thead", { class: "sr" }, make("tr", {}, ...["class", "share", "votes and 95% interval of the share"].map((text) => make("th", { scope: "col" }, text)))), body);
  }
  function ruler(cert, i) {
    const idx = D.images.idx[i], tried = (cert.attempts[idx] || []).filter((one) => one[1]);
    const radius = cert.predict[i] < 0 ? 0 : cert.radius[i], group = cert.group_radius ? cert.group_radius[i] : 0;
    const longest = 1.06 * Math.max(D.stops.at(-1), radius, group, ...tried.map((one) => one[2]));
    const left = (r) => ({ left: `${(100 * r) / longest}%` });
    const box = make("div", { class: "ruler", "aria-hidden": "true" });
    const off = cert.predict[i] !== D.images.label[i] ? " off" : "";
    box.append(make("div", { class: `length class-length${off}`, style: { width: `${(100 * radius) / longest}%` } }));
    if (cert.group_radius) {
      const wrong = cert.group[i] !== (D.sick[D.images.label[i]] ? "disease" : "healthy") ? " off" : "";
      box.append(make("div", { class: `length group-length${wrong}`, style: { width: `${(100 * group) / longest}%` } }));
    }
    box.append(make("div", { class: "axis" }));
    const step = [0.05, 0.1, 0.2, 0.25, 0.5, 1, 2, 5].find((size) => longest / size <= 7) || longest / 5;
    for (let r = 0; r <= longest; r += step) box.append(make("div", { class: "tickmark", style: left(r) }, make("span", {}, radiusText(r))));
    box.append(make("div", { class: "at", style: left(Math.min(D.stops[state.stop], longest)) }, make("span", {}, `r = ${radiusText(D.stops[state.stop])}`)));
    for (const one of tried) box.append(make("span", { class: one[4] ? "try changed" : "try", style: left(one[2]), title: D.how[one[0]] }, one[4] ? "×" : "|"));
    return box;
  }
  function detail() {
    const i = state.image, cert = D.certs[state.cert], idx = D.images.idx[i], dialog = $("detail");
    const now = stateAt(cert, i, D.stops[state.stop]);
    const place = listed.indexOf(i);
    const step = (text, label, to) => {
      const button = make("button", { type: "button", "aria-label": label }, text);
      button.disabled = to === undefined;
      button.addEventListener("click", () => open(to));
      return button;
    };
    const close = make("button", { type: "button" }, "Close");
    close.addEventListener("click", () => dialog.close());
    const title = make("h3", { id: "detail-title", tabindex: "-1" }, make("span", { class: `sign ${now}`, "aria-hidden": "true" }, SIGNS[now] || ""), ` Image ${idx}: ${className(D.images.label[i])}`);
    const answer = cert.predict[i] === null ? "This pipeline was not certified on this image." : cert.predict[i] < 0 ? `${cert.name} (σ = ${cert.sigma}) abstains.` : `${cert.name} (σ = ${cert.sigma}) answers ${className(cert.predict[i])}: ${SAID[now]}${now === "uncertified" ? ` = ${radiusText(D.stops[state.stop])}` : ""}.`;
    const worst = pictured(cert, idx), nearestTry = closest(cert, idx);
    const noise = cert.noise ? `noisy ${cert.noise}` : "";
    const shots = make("div", { class: "shots" }, ...[
      shot(pictureOf("clean", idx), "clean"),
      shot(pictureOf(noise, idx), `under noise, σ = ${cert.sigma}`),
      shot(pictureOf(`denoised ${state.cert}`, idx), "denoised"),
      worst && shot(pictureOf(`attacked ${worst[5]}`, idx), `attacked, length ${worst[2].toFixed(3)}`),
      worst && shot(pictureOf(`times10 ${worst[5]}`, idx), "the change ×10"),
      worst && shot(pictureOf(`restored ${state.cert}`, idx), "attacked, under the same noise, denoised"),
    ].filter(Boolean));
    if (!shots.children.length) shots.append(make("p", { class: "soft" }, "There are no pictures of this image in the page."));
    const left = make("div", {}, make("h4", {}, "Votes", cert.draws && cert.draws[i] ? make("span", { class: "soft" }, ` of ${cert.draws[i].toLocaleString("en")} draws, without the pilot`) : null), votes(cert, i));
    const radiusLine = cert.predict[i] === null ? null : make("p", { class: "soft" },
      make("span", { class: "swatch c" }), `radius ${radiusText(cert.radius[i])} `,
      ...(cert.group_radius ? [make("span", { class: "swatch g" }), `group radius ${radiusText(cert.group_radius[i])} (${cert.group[i] === "-1" ? "abstained" : cert.group[i]}) `] : []),
      ...((cert.attempts[idx] || []).some((one) => one[1]) ? [make("br"), "Attacks: × changed the answer, | did not."] : []));
    const attack = nearestTry ? make("p", {}, make("b", {}, nearestTry[4] ? "Closest attack: " : "No attack changed it. The longest: "), `${D.how[nearestTry[0]]}, length ${nearestTry[2].toFixed(3)}, answer ${className(nearestTry[3])}${nearestTry[1] ? "" : " (of what was attacked, not of this pipeline)"}.`) : make("p", { class: "soft" }, "No attack on this image is at hand.");
    const right = make("div", {}, make("h4", {}, "How far the proof reaches"), cert.predict[i] === null ? null : ruler(cert, i), radiusLine, attack);
    const others = make("tbody", {}, ...D.certs.map((one, n) => [one, n]).filter(([one]) => one.predict[i] !== null).map(([one, n]) => {
      const said = stateAt(one, i, D.stops[state.stop]);
      return make("tr", { class: n === state.cert ? "main" : "" }, make("th", { scope: "row" }, `${one.name}, σ = ${one.sigma}`), make("td", {}, className(one.predict[i])), make("td", { class: "n" }, radiusText(one.radius[i])), make("td", {}, isKnown(one, state.stop) ? SAID[said] : "not tried at r"));
    }));
    const table = make("div", { class: "wide" }, make("table", { class: "keep" }, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "pipeline"), make("th", { scope: "col" }, "answer"), make("th", { scope: "col", class: "n" }, "radius"), make("th", { scope: "col" }, `at r = ${radiusText(D.stops[state.stop])}`))), others));
    dialog.replaceChildren(
      make("div", { class: "head" }, title, make("div", {}, step("←", "previous image", listed[place - 1]), step("→", "next image", place < 0 ? undefined : listed[place + 1]), close)),
      make("p", { class: "file" }, D.images.name[i]), make("p", {}, answer), shots, make("div", { class: "pairwise" }, left, right), make("h4", {}, "The same image, all pipelines"), table);
    for (const label of dialog.querySelectorAll(".wide table")) relabel(label);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    title.focus();
  }
  function open(i) {
    state.image = i;
    detail();
    remember();
  }

  // ---- controls ----
  const stateButtons = STATES.map((name) => {
    const button = make("button", { type: "button" }, make("span", { class: `sign ${name}`, "aria-hidden": "true" }, SIGNS[name]), make("b", {}), make("span", {}));
    button.dataset.state = name;
    button.addEventListener("click", () => {
      if (state.show.has(name)) state.show.delete(name); else state.show.add(name);
      if (!state.show.size) state.show = new Set(STATES);
      update(true);
    });
    return button;
  });
  function fill(select, entries) {
    select.replaceChildren(...entries.map(([value, text]) => make("option", { value }, text)));
  }
  function sigmasOf(name) {
    return D.certs.map((cert, n) => [cert, n]).filter(([cert]) => cert.name === name);
  }
  function drawControls() {
    const cert = D.certs[state.cert];
    $("pipeline").value = cert.name;
    fill($("sigma"), sigmasOf(cert.name).map(([one, n]) => [n, String(one.sigma)]));
    $("sigma").value = state.cert;
    $("class").value = state.filter;
    $("sort").value = state.sort;
    $("radius").value = state.stop;
  }
  function update(anew) {
    drawControls();
    drawCounts();
    if (anew) drawSkyline(); else moveNeedle();
    drawTiles(anew || state.show.size < STATES.length);
    remember();
  }
  function start() {
    document.querySelector(".explorer").hidden = false;
    document.querySelector(".states").append(...stateButtons);
    fill($("pipeline"), [...new Set(D.certs.map((cert) => cert.name))].map((name) => [name, name]));
    fill($("class"), D.filters.map((one, n) => [n, words(one.name)]));
    $("radius").max = D.stops.length - 1;
    $("pipeline").addEventListener("change", (event) => {
      const found = sigmasOf(event.target.value), same = found.find(([one]) => one.sigma === D.certs[state.cert].sigma);
      state.cert = (same || found[0])[1];
      update(true);
    });
    $("sigma").addEventListener("change", (event) => { state.cert = Number(event.target.value); update(true); });
    $("class").addEventListener("change", (event) => { state.filter = Number(event.target.value); update(true); });
    $("sort").addEventListener("change", (event) => { state.sort = event.target.value; update(true); });
    $("find").addEventListener("input", (event) => { state.find = event.target.value; update(true); });
    $("radius").addEventListener("input", (event) => { state.stop = Number(event.target.value); update(false); });
    $("more").addEventListener("click", () => { state.all = true; $("more").hidden = true; drawRest(listed); });
    const opened = (event) => { const button = event.target.closest(".tile"); if (button) open(Number(button.dataset.place)); };
    for (const each of document.querySelectorAll("#tiles, .differing")) each.addEventListener("click", opened);
    $("tiles").addEventListener("keydown", walk);
    $("detail").addEventListener("keydown", (event) => {
      if (event.target.matches("select, input")) return;
      const place = listed.indexOf(state.image), to = { ArrowLeft: listed[place - 1], ArrowRight: place < 0 ? undefined : listed[place + 1] }[event.key];
      if (to !== undefined) { open(to); event.preventDefault(); }
    });
    $("detail").addEventListener("close", () => {
      const element = state.image !== null && tiles.get(state.image);
      state.image = null;
      remember();
      if (element && element.isConnected) focusTile(element.firstChild);
    });
    window.addEventListener("hashchange", () => { if (recall()) { update(true); if (state.image !== null) detail(); else if ($("detail").open) $("detail").close(); } });
  }
  let tabStop = null; // the one tile that Tab reaches; arrow keys go on from there
  function reachable(button) {
    if (tabStop) tabStop.setAttribute("tabindex", "-1");
    button.setAttribute("tabindex", "0");
    tabStop = button;
  }
  function focusTile(button) {
    reachable(button);
    button.focus();
  }
  function walk(event) {
    const all = [...$("tiles").querySelectorAll(".tile")], at = all.indexOf(document.activeElement);
    if (at < 0) return;
    const row = all.findIndex((button) => button.offsetTop > all[0].offsetTop);
    const wide = row < 0 ? all.length : row;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + wide, ArrowUp: at - wide, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (all[to]) focusTile(all[to]);
  }

  // ---- two pipelines ----
  function compare() {
    const box = document.querySelector(".comparison");
    if (!box) return;
    box.hidden = false;
    const names = D.certs.map((cert, n) => [n, `${cert.name}, σ = ${cert.sigma}`]);
    const partners = (n) => names.filter(([m]) => m !== n && (D.pairs[`${n}-${m}`] || D.pairs[`${m}-${n}`]));
    const able = names.filter(([n]) => partners(n).length);
    fill($("first"), able);
    const sigma = D.certs[D.main].sigma;
    const first = able.find(([n]) => n !== D.main && D.certs[n].sigma === sigma && partners(n).some(([m]) => m === D.main)) || able[0];
    $("first").value = first[0];
    fill($("at"), D.radii.map((stop, n) => [n, radiusText(D.stops[stop])]));
    $("at").value = Math.max(0, D.radii.indexOf(D.start));
    const choose = (wanted) => {
      const found = partners(Number($("first").value));
      fill($("second"), found);
      $("second").value = found.some(([n]) => n === wanted) ? wanted : found[0][0];
    };
    choose(D.main);
    const draw = () => {
      const a = Number($("first").value), b = Number($("second").value), k = Number($("at").value);
      const told = D.pairs[`${a}-${b}`] || D.pairs[`${b}-${a}`], found = told[k];
      const r = D.stops[D.radii[k]], [one, two] = [D.certs[a], D.certs[b]];
      const named = [["first", one], ["second", two]];
      for (const [id, cert] of named) {
        const name = `${cert.name}${one.sigma === two.sigma ? "" : `, σ = ${cert.sigma}`}`;
        $(`${id}-right`).textContent = `${name} ✓`;
        $(`${id}-not`).textContent = `${name}: not`;
      }
      if (!found) {
        for (const id of ["both", "only-first", "only-second", "neither"]) $(id).textContent = "–";
        $("verdict").textContent = "One of them was not tried at this radius.";
      } else {
        const [both, x, y, neither, p] = found, [firstOnly, secondOnly] = D.pairs[`${a}-${b}`] ? [x, y] : [y, x];
        $("both").textContent = both; $("only-first").textContent = firstOnly; $("only-second").textContent = secondOnly; $("neither").textContent = neither;
        const better = firstOnly > secondOnly ? one : two;
        $("verdict").textContent = firstOnly === secondOnly ? "Neither certifies more images." : `${better.name}, σ = ${better.sigma}, certifies ${Math.abs(firstOnly - secondOnly)} images more; McNemar's exact p ${p < 0.0001 ? "is below 0.0001" : `= ${p.toPrecision(2)}`}.`;
      }
      for (const [id, mine, other] of [["only-first", one, two], ["only-second", two, one]]) {
        const places = found ? D.images.idx.map((_, i) => i).filter((i) => stateAt(mine, i, r) === "right" && stateAt(other, i, r) !== "right") : [];
        const whose = `Only ${mine.name}${mine.sigma === other.sigma ? "" : `, σ = ${mine.sigma}`}`;
        $(`${id}-title`).replaceChildren(whose, make("span", { class: "soft" }, places.length > MOST ? ` the first ${MOST} of ${places.length}` : ""));
        $(`${id}-tiles`).replaceChildren(...places.slice(0, MOST).map((i) => {
          const button = make("button", { type: "button", class: "tile" });
          button.dataset.place = i;
          dress(button, other, i, r);
          return make("li", {}, button);
        }));
        if (!places.length) $(`${id}-tiles`).replaceChildren(make("li", { class: "soft" }, "none"));
      }
    };
    $("first").addEventListener("change", () => { choose(Number($("second").value)); draw(); });
    $("second").addEventListener("change", draw);
    $("at").addEventListener("change", draw);
    draw();
  }

  // On a phone a row of a table becomes a block, and each of its numbers says which column it is from.
  function relabel(table) {
    const heads = [...table.querySelectorAll("thead tr:last-child > *")].map((cell) => cell.textContent.trim());
    for (const row of table.querySelectorAll("tbody tr")) [...row.children].forEach((cell, n) => { if (n && heads[n]) cell.dataset.label = heads[n]; });
  }

  for (const table of document.querySelectorAll(".wide table")) relabel(table);
  recall();
  start();
  update(true);
  compare();
  if (state.image !== null) detail();
})();
