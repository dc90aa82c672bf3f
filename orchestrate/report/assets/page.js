"use strict";
/* Draws the page from the JSON in it. Text from data goes through textContent only. */
const SVG = "http://www.w3.org/2000/svg";
const RAMP = [[255, 255, 229], [217, 240, 163], [120, 198, 121], [35, 132, 67], [0, 69, 41]];
const UNKNOWN = "#c4c8c5", MISSING = 65535, PAGE = 50, DAY = 86400000;
const STATUS = ["no row", "observed", "all masked", "no acquisition"];
const meta = JSON.parse(document.getElementById("meta").textContent);
const at = (id) => document.getElementById(id);
const loaded = new Map();
const now = { box: null, variable: null, field: -1, shown: [], page: 0, view: null, day: null };

/* --- small helpers --- */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value; else made.setAttribute(key, value);
  }
  made.append(...children.map((child) => (child instanceof Node ? child : document.createTextNode(String(child)))));
  return made;
}
function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
const said = (value) => (value === null || value === undefined || value === "" ? "–" : String(value));
const number = (value, digits = 3) => (Number.isFinite(value) ? value.toFixed(digits) : "–");
const whole = (value) => Number(value).toLocaleString("en-US");
const many = (count, one, several) => `${whole(count)} ${count === 1 ? one : several}`;
const date = (first, day) => new Date(Date.parse(first) + day * DAY).toISOString().slice(0, 10);
const time = (text) => said(text).slice(0, 16).replace("T", " ");

async function unsqueeze(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
async function unpack(packed) {
  if (!packed) return null;
  const planes = await unsqueeze(packed.data), count = planes.length / 2, values = new Float32Array(count);
  for (let index = 0; index < count; index++) {
    const steps = planes[index] + 256 * planes[count + index];
    values[index] = steps === MISSING ? NaN : packed.low + packed.step * steps;
  }
  return values;
}
async function load(index) {
  if (loaded.has(index)) return loaded.get(index);
  const box = JSON.parse(at(`box-${index}`).textContent);
  box.fields = JSON.parse(new TextDecoder().decode(await unsqueeze(box.fields)));
  box.status = await unsqueeze(box.status);
  for (const one of box.variables) {
    for (const layer of ["observed", "estimate", "sigma"]) one[layer] = await unpack(one[layer]);
    one.latest = latest(one, box);
    one.range = range(one.latest, one.valid_range);
  }
  loaded.set(index, box);
  return box;
}
function latest(variable, box) {
  const from = variable.estimate || variable.observed, values = new Float32Array(box.fields.length).fill(NaN);
  for (let field = 0; field < box.fields.length; field++) {
    for (let day = box.days - 1; day >= 0; day--) {
      const value = from[field * box.days + day];
      if (Number.isFinite(value)) { values[field] = value; break; }
    }
  }
  return values;
}
function range(values, valid) {
  const known = Array.from(values).filter(Number.isFinite).sort((one, other) => one - other);
  if (!known.length) return [0, 1];
  const pick = (share) => known[Math.min(known.length - 1, Math.floor(share * known.length))];
  const low = pick(0.02), high = pick(0.98);
  if (high > low) return [low, high];
  return [Math.max(low - 0.5, valid ? valid[0] : -Infinity), Math.min(low + 0.5, valid ? valid[1] : Infinity)];
}
function rgb(value, [low, high]) {
  const scaled = Math.min(1, Math.max(0, (value - low) / (high - low))) * (RAMP.length - 1);
  const lower = Math.min(RAMP.length - 2, Math.floor(scaled)), part = scaled - lower;
  return RAMP[lower].map((channel, index) => Math.round(channel + part * (RAMP[lower + 1][index] - channel)));
}
const colour = (value, limits) => (Number.isFinite(value) ? `rgb(${rgb(value, limits).join(",")})` : UNKNOWN);

/* --- tables --- */
function table(target, headings, rows, empty) {
  const made = element("thead", {}, element("tr", {}, ...headings.map(([text, kind]) => element("th", { class: kind || "", scope: "col" }, text))));
  const body = element("tbody");
  for (const row of rows) {
    const line = element("tr", row.chosen ? { class: "chosen" } : {});
    row.cells.forEach((cell, index) => line.append(element("td", { class: headings[index][1] || "" }, cell instanceof Node ? cell : said(cell))));
    body.append(line);
  }
  if (!rows.length) body.append(element("tr", {}, element("td", { colspan: headings.length }, empty)));
  target.replaceChildren(made, body);
}

/* --- the map --- */
async function drawMap() {
  const box = now.box, variable = now.variable, map = at("map");
  const margin = Math.max(box.width, box.height) * 0.02;
  now.all = [-margin, -margin, box.width + 2 * margin, box.height + 2 * margin];
  now.view = [...now.all];
  const frame = document.createDocumentFragment();
  if (variable.quicklook) {
    const image = shape("image", { x: 0, y: 0, width: box.width, height: box.height, preserveAspectRatio: "none", "aria-hidden": "true" });
    image.setAttribute("href", await picture(variable));
    frame.append(image);
  }
  frame.append(shape("rect", { x: 0, y: 0, width: box.width, height: box.height, class: "edge" }));
  now.paths = box.fields.map((field, index) => {
    const outline = field.rings.map((polygon) => polygon.map(ringPath).join("")).join("");
    const path = shape("path", { d: outline, class: "field", "fill-rule": "evenodd", fill: colour(variable.latest[index], variable.range), "data-field": index });
    const title = document.createElementNS(SVG, "title");
    title.textContent = `${field.id}: ${number(variable.latest[index])}`;
    path.append(title);
    frame.append(path);
    return path;
  });
  map.replaceChildren(frame);
  map.setAttribute("aria-label", `Map of ${many(box.fields.length, "field", "fields")} of box ${box.id}, coloured by the latest ${variable.name}`);
  at("map-title").textContent = `Box ${box.id}: latest ${variable.name} on ${said(meta.boxes[now.index].last_day)}`;
  at("extent").textContent = `${whole(box.width)} x ${whole(box.height)}, ${box.resolution}`;
  drawLegend();
  look();
}
function ringPath(ring) {
  let text = "";
  for (let index = 0; index < ring.length; index += 2) text += `${index ? "L" : "M"}${ring[index]} ${ring[index + 1]}`;
  return `${text}Z`;
}
async function picture(variable) {
  const { width, height } = variable.quicklook, values = await unpack(variable.quicklook);
  const canvas = element("canvas"), limits = variable.range;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  values.forEach((value, index) => image.data.set(Number.isFinite(value) ? [...rgb(value, limits), 255] : [0, 0, 0, 0], 4 * index));
  context.putImageData(image, 0, 0);
  return canvas.toDataURL();
}
function drawLegend() {
  const [low, high] = now.variable.range, canvas = at("legend"), context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    context.fillStyle = colour(low + (high - low) * x / canvas.width, now.variable.range);
    context.fillRect(x, 0, 1, canvas.height);
  }
  at("legend-low").textContent = number(low, 2);
  at("legend-high").textContent = number(high, 2);
}
function look() { at("map").setAttribute("viewBox", now.view.join(" ")); }
function zoom(factor, x = now.view[0] + now.view[2] / 2, y = now.view[1] + now.view[3] / 2) {
  const scale = Math.min(1, Math.max(factor * now.view[2], now.all[2] / 200) / now.all[2]) * now.all[2] / now.view[2];
  now.view = [x - (x - now.view[0]) * scale, y - (y - now.view[1]) * scale, now.view[2] * scale, now.view[3] * scale];
  if (now.view[2] >= now.all[2] * 0.999) now.view = [...now.all];
  look();
}
function middle(field) {
  let west = Infinity, east = -Infinity, north = Infinity, south = -Infinity;
  for (const polygon of field.rings) {
    for (let index = 0; index < polygon[0].length; index += 2) {
      west = Math.min(west, polygon[0][index]); east = Math.max(east, polygon[0][index]);
      north = Math.min(north, polygon[0][index + 1]); south = Math.max(south, polygon[0][index + 1]);
    }
  }
  return [(west + east) / 2, (north + south) / 2];
}
function neighbour(dx, dy) {
  if (now.field < 0) return 0;
  const [x, y] = middle(now.box.fields[now.field]);
  let best = now.field, least = Infinity;
  now.box.fields.forEach((field, index) => {
    const [otherX, otherY] = middle(field), along = (otherX - x) * dx + (otherY - y) * dy;
    const across = Math.abs((otherX - x) * dy) + Math.abs((otherY - y) * dx);
    if (index !== now.field && along > 0 && along + 2 * across < least) { best = index; least = along + 2 * across; }
  });
  return best;
}

/* --- a field --- */
function choose(index) {
  if (now.field >= 0 && now.paths[now.field]) now.paths[now.field].classList.remove("chosen");
  now.field = index;
  now.day = null;
  if (index < 0) return;
  const path = now.paths[index];
  path.classList.add("chosen");
  at("map").append(path);
  drawField();
  drawFields();
}
function drawField() {
  const box = now.box, field = box.fields[now.field], variable = now.variable;
  at("field-title").textContent = `Field ${field.id}`;
  const facts = [["box", box.id], ["planted", field.planted], ["harvest", field.harvest], ["crop", field.crop],
    ["inside the box", `${(100 * field.covered).toFixed(1)} %`], [`latest ${variable.name}`, number(variable.latest[now.field])],
    ["version", field.versions > 1 ? `${said(field.version)} (the ${field.versions}th)` : field.version], ["from file", field.file],
    ...Object.entries(field.properties)];
  at("facts").replaceChildren(...facts.filter(([, value]) => value).map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  drawSeries();
  if (at("numbers").open) drawNumbers();
}
function values(day) {
  const place = now.field * now.box.days + day, variable = now.variable;
  const pick = (layer) => (variable[layer] ? variable[layer][place] : NaN);
  return { status: now.box.status[place], observed: pick("observed"), estimate: pick("estimate"), sigma: pick("sigma") };
}
function drawSeries() {
  const box = now.box, field = box.fields[now.field], chart = at("series");
  const wide = Math.max(320, Math.round(chart.parentElement.clientWidth - 40)), high = Math.round(Math.min(340, Math.max(220, wide * 0.5)));
  const left = 44, right = 10, top = 10, bottom = 26;
  chart.setAttribute("viewBox", `0 0 ${wide} ${high}`);
  const days = [];
  for (let day = 0; day < box.days; day++) if (values(day).status) days.push(day);
  const frame = document.createDocumentFragment();
  if (!days.length) {
    const text = shape("text", { x: left, y: high / 2 });
    text.textContent = "No rows yet: the next run writes them.";
    chart.replaceChildren(text);
    chart.setAttribute("aria-label", `Field ${field.id} has no rows yet`);
    at("readout").textContent = "";
    return;
  }
  const first = days[0], last = days[days.length - 1];
  let low = Infinity, peak = -Infinity;
  for (const day of days) {
    const one = values(day), band = Number.isFinite(one.sigma) ? 2 * one.sigma : 0;
    for (const value of [one.observed, one.estimate - band, one.estimate + band]) {
      if (Number.isFinite(value)) { low = Math.min(low, value); peak = Math.max(peak, value); }
    }
  }
  if (!Number.isFinite(low)) [low, peak] = [0, 1];
  const pad = (peak - low) * 0.06 || 0.05;
  low -= pad;
  peak += pad;
  const x = (day) => left + (day - first) / Math.max(1, last - first) * (wide - left - right);
  const y = (value) => top + (peak - value) / (peak - low) * (high - top - bottom);
  now.scale = { x, first, last, left, right, wide, high, top, bottom };
  const step = niceStep((peak - low) / 4), digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  for (let value = Math.ceil(low / step) * step; value <= peak; value += step) {
    const text = shape("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" });
    text.textContent = value.toFixed(Math.min(6, digits));
    frame.append(shape("path", { d: `M${left} ${y(value)}H${wide - right}`, class: "grid" }), text);
  }
  const ticks = Math.max(2, Math.floor(wide / 130));
  for (let tick = 0; tick < ticks; tick++) {
    const day = Math.round(first + (last - first) * tick / (ticks - 1));
    const text = shape("text", { x: x(day), y: high - 6, "text-anchor": tick === 0 ? "start" : tick === ticks - 1 ? "end" : "middle" });
    text.textContent = date(box.first_day, day);
    frame.append(text);
  }
  for (const [begin, end] of gaps(days)) {
    frame.append(shape("rect", { x: x(begin), y: top, width: Math.max(2, x(Math.min(end, last)) - x(begin)), height: high - top - bottom, class: "gap" }));
  }
  const known = days.filter((day) => Number.isFinite(values(day).estimate));
  if (known.length) {
    const edge = (sign) => known.map((day) => { const one = values(day); return `${x(day).toFixed(1)} ${y(one.estimate + sign * 2 * (one.sigma || 0)).toFixed(1)}`; });
    frame.append(shape("path", { d: `M${edge(1).join("L")}L${edge(-1).reverse().join("L")}Z`, class: "band" }));
    frame.append(shape("path", { d: `M${known.map((day) => `${x(day).toFixed(1)} ${y(values(day).estimate).toFixed(1)}`).join("L")}`, class: "estimate" }));
  }
  const planted = field.planted ? Math.round((Date.parse(field.planted) - Date.parse(box.first_day)) / DAY) : null;
  if (planted !== null && planted >= first && planted <= last) frame.append(shape("path", { d: `M${x(planted)} ${top}V${high - bottom}`, class: "planted" }));
  const seen = days.filter((day) => Number.isFinite(values(day).observed));
  for (const day of seen) frame.append(shape("circle", { cx: x(day), cy: y(values(day).observed), r: seen.length > 120 ? 2.5 : 4, class: "seen" }));
  frame.append(shape("path", { d: "", class: "cursor", id: "cursor" }));
  chart.replaceChildren(frame);
  chart.setAttribute("aria-label", `${now.variable.name} of field ${field.id} from ${date(box.first_day, first)} to ${date(box.first_day, last)}: ${seen.length} days observed, latest ${number(now.variable.latest[now.field])}. Arrow keys tell each day.`);
  point(last);
}
function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) * power;
}
function gaps(days) {
  const found = [];
  let begin = null;
  for (const day of days) {
    const one = values(day);
    if (begin !== null && Number.isFinite(one.observed)) { found.push([begin, day]); begin = null; }
    else if (begin === null && one.status === 2) begin = day;
  }
  if (begin !== null) found.push([begin, days[days.length - 1] + 1]);
  return found;
}
function point(day) {
  const { x, first, last, top, high, bottom } = now.scale;
  now.day = Math.min(last, Math.max(first, day));
  const one = values(now.day);
  at("cursor").setAttribute("d", `M${x(now.day)} ${top}V${high - bottom}`);
  at("readout").textContent = `${date(now.box.first_day, now.day)}: ${STATUS[one.status]}, observed ${number(one.observed)}, estimate ${number(one.estimate)} ± ${number(2 * one.sigma)}`;
}
function drawNumbers() {
  if (now.field < 0) return;
  const rows = [];
  for (let day = now.box.days - 1; day >= 0; day--) {
    const one = values(day);
    if (one.status) rows.push({ cells: [date(now.box.first_day, day), STATUS[one.status], number(one.observed), number(one.estimate), number(one.sigma)] });
  }
  table(at("series-table"), [["date", "whole"], ["status"], ["observed", "number"], ["estimate", "number"], ["sigma", "number"]], rows, "No rows yet.");
}

/* --- all fields --- */
function search() {
  const words = at("search").value.trim().toLowerCase();
  now.shown = [];
  now.box.fields.forEach((field, index) => {
    const text = [field.id, field.crop || "", ...Object.values(field.properties)].join("\n").toLowerCase();
    if (text.includes(words)) now.shown.push(index);
  });
  now.page = 0;
  drawFields();
}
function drawFields() {
  const box = now.box, pages = Math.max(1, Math.ceil(now.shown.length / PAGE)), begin = now.page * PAGE;
  const rows = now.shown.slice(begin, begin + PAGE).map((index) => {
    const field = box.fields[index], button = element("button", { type: "button", "data-field": index }, field.id);
    if (index === now.field) button.setAttribute("aria-current", "true");
    return { chosen: index === now.field, cells: [button, number(now.variable.latest[index]), field.planted, field.crop, `${(100 * field.covered).toFixed(0)} %`] };
  });
  const focused = document.activeElement && document.activeElement.closest("#field-table button");
  table(at("field-table"), [["field"], [`latest ${now.variable.name}`, "number"], ["planted", "whole"], ["crop"], ["inside", "number"]], rows, "No field fits.");
  if (focused) { const again = at("field-table").querySelector(`button[data-field="${now.field}"]`); if (again) again.focus(); }
  at("fields-title").textContent = `${many(now.shown.length, "field", "fields")} of box ${box.id}`;
  at("page").textContent = `Page ${now.page + 1} of ${pages}`;
  at("before").disabled = now.page === 0;
  at("after").disabled = now.page >= pages - 1;
}

/* --- the store --- */
function drawStore() {
  const boxes = meta.boxes, sum = (name) => boxes.reduce((total, one) => total + one[name], 0);
  const lag = boxes.length ? Math.max(...boxes.map((one) => one.lag)) : null;
  at("where").textContent = `${meta.store} · made ${time(meta.made)} UTC · geofield ${meta.version}`;
  const figures = [[boxes.length === 1 ? "box" : "boxes", whole(boxes.length)], [sum("fields") === 1 ? "field" : "fields", whole(sum("fields"))], ["rows", whole(sum("rows"))],
    ["fields waiting", whole(meta.late.waiting)], ["refused rows", whole(meta.refused.total)], ["largest lag", lag === null ? "–" : `${whole(lag)} d`]];
  at("figures").replaceChildren(...figures.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  if (meta.errors.length) {
    at("errors").hidden = false;
    at("errors").replaceChildren(element("h2", {}, "What could not be read"), ...meta.errors.map((one) => element("p", {}, `${said(one.box)}: ${one.kind}: ${one.message}`)));
  }
  table(at("box-table"), [["box"], ["from", "whole"], ["last day", "whole"], ["behind", "number"], ["days", "number"], ["with imagery", "number"], ["fields", "number"], ["waiting", "number"], ["rows", "number"], ["rows to write", "number"]],
    boxes.map((one) => ({ cells: [one.id, one.start, one.last_day, element("span", one.lag > 7 ? { class: "late" } : {}, `${whole(one.lag)} d`), whole(one.days), whole(one.acquisitions), whole(one.fields), whole(one.late), whole(one.rows), whole(one.rows_missing)] })), meta.errors.length ? `${many(meta.errors.length, "box", "boxes")} could not be read.` : "There is no box yet.");
  at("late-note").textContent = `${whole(meta.late.waiting)} wait for the next run; ${whole(meta.late.total - meta.late.waiting)} came late and are complete.` + (meta.late.total > meta.late.rows.length ? ` The first ${whole(meta.late.rows.length)} are listed.` : "");
  table(at("late-table"), [["field"], ["box"], ["came (UTC)", "whole"], ["first day", "whole"], ["state", "whole"], ["reason", "wide"]],
    meta.late.rows.map((one) => ({ cells: [one.field, one.box, time(one.came), one.first_day, element("span", one.waits ? { class: "late" } : {}, one.waits ? "waits" : "complete"), one.reason] })), "No field came late.");
  at("refused-note").textContent = meta.refused.total > meta.refused.rows.length ? `The first ${whole(meta.refused.rows.length)} of ${whole(meta.refused.total)}; all lie beside their files.` : "";
  table(at("refused-table"), [["file"], ["row", "number"], ["field"], ["rule"], ["reason", "wide"]],
    meta.refused.rows.map((one) => ({ cells: [one.file, one.row, one.field_id, one.rule, one.reason] })), "Nothing was refused.");
  at("runs-note").textContent = meta.runs.length ? "The last ones first; each opens to its receipt." : "Nothing was run yet.";
  at("runs").replaceChildren(...meta.runs.map((one) => {
    const made = element("details", { class: "run" }), failed = one.errors.length;
    const words = [one.run_id, `until ${said(one.until)}`, said(one.cluster), `${whole(one.days)} days`, `${whole(one.amended)} amended`, `${whole(one.rows)} rows`, `${whole(one.late)} late fields`, `${whole(one.source_reads)} reads`];
    made.append(element("summary", {}, ...words.map((word) => element("span", {}, word)), element("span", failed ? { class: "late" } : {}, one.finished ? (failed ? `${failed} failed` : "done") : "not finished")));
    made.addEventListener("toggle", () => { if (made.open && made.children.length === 1) made.append(element("pre", { tabindex: "0" }, JSON.stringify(one.receipt, null, 1))); });
    return made;
  }));
}

async function showBox(index) {
  now.index = index;
  now.box = await load(index);
  now.field = -1;
  const select = at("variable");
  select.replaceChildren(...now.box.variables.map((one, place) => element("option", { value: place }, one.name)));
  await showVariable(Math.max(0, now.box.variables.findIndex((one) => one.estimate)));
  search();
  if (now.box.fields.length) choose(0);
  document.body.dataset.ready = String(index);
}
async function showVariable(place) {
  at("variable").value = String(place);
  now.variable = now.box.variables[place];
  const field = now.field;
  now.field = -1;
  await drawMap();
  if (field >= 0) choose(field);
}
function listen() {
  const map = at("map");
  at("box").addEventListener("change", () => showBox(Number(at("box").value)));
  at("variable").addEventListener("change", () => showVariable(Number(at("variable").value)));
  at("search").addEventListener("input", search);
  at("before").addEventListener("click", () => { now.page--; drawFields(); });
  at("after").addEventListener("click", () => { now.page++; drawFields(); });
  at("zoom-in").addEventListener("click", () => zoom(0.6));
  at("zoom-out").addEventListener("click", () => zoom(1 / 0.6));
  at("zoom-all").addEventListener("click", () => { now.view = [...now.all]; look(); });
  at("numbers").addEventListener("toggle", () => { if (at("numbers").open) drawNumbers(); });
  at("field-table").addEventListener("click", (event) => { const button = event.target.closest("button"); if (button) choose(Number(button.dataset.field)); });
  let grip = null, moved = false;
  map.addEventListener("click", (event) => { const path = event.target.closest(".field"); if (path && !moved) choose(Number(path.dataset.field)); });
  map.addEventListener("pointerdown", (event) => { grip = [event.clientX, event.clientY]; moved = false; });
  map.addEventListener("pointermove", (event) => {
    if (!grip || !event.buttons || event.pointerType === "touch") return;
    const scale = now.view[2] / map.clientWidth, dx = event.clientX - grip[0], dy = event.clientY - grip[1];
    if (!moved && Math.hypot(dx, dy) < 5) return;
    moved = true;
    now.view[0] -= dx * scale;
    now.view[1] -= dy * scale;
    grip = [event.clientX, event.clientY];
    look();
  });
  window.addEventListener("pointerup", () => { grip = null; });
  map.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const spot = new DOMPoint(event.clientX, event.clientY).matrixTransform(map.getScreenCTM().inverse());
    zoom(event.deltaY < 0 ? 0.8 : 1.25, spot.x, spot.y);
  }, { passive: false });
  map.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (way && now.box.fields.length) choose(neighbour(...way));
    else if (event.key === "+" || event.key === "=") zoom(0.6);
    else if (event.key === "-") zoom(1 / 0.6);
    else if (event.key === "0") { now.view = [...now.all]; look(); }
    else return;
    event.preventDefault();
  });
  const chart = at("series");
  chart.addEventListener("pointermove", (event) => {
    if (now.field < 0 || !now.scale) return;
    const spot = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse()), { first, last, left, right, wide } = now.scale;
    point(Math.round(first + (spot.x - left) / (wide - left - right) * (last - first)));
  });
  chart.addEventListener("keydown", (event) => {
    if (now.day === null || !["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
    point({ ArrowLeft: now.day - 1, ArrowRight: now.day + 1, Home: now.scale.first, End: now.scale.last }[event.key]);
    event.preventDefault();
  });
  window.addEventListener("resize", () => { if (now.field >= 0) drawSeries(); });
}

drawStore();
listen();
at("box").replaceChildren(...meta.boxes.map((one, index) => element("option", { value: index }, one.id)));
if (meta.boxes.length) showBox(0);
else document.body.dataset.ready = "none";
