"use strict";
// The pictures: rows and columns by any two axes, or one flow; the card that follows the pointer; the arrow keys.

let lines = []; // the tiles as they stand, for the arrow keys

function showPictures() {
  const cells = state.order === "axes" ? shownCells() : ranked(shownCells());
  const [rows, cols] = state.order === "axes" ? [axisOf.get(state.rows), axisOf.get(state.cols)] : [];
  const paint = state.color ? colors(measureOf.get(state.metric), cells) : () => null;
  resize(Number(state.size) || usualSize(rows && cols ? Math.max(1, new Set(cells.map((i) => cols.at[i])).size) : 0));
  lines = [];
  near.disconnect();
  const parts = !cells.length
    ? [h("p", { className: "faint" }, "No cell is left: the filters above leave none.")]
    : rows && cols
      ? blocks(cells, rows, cols, paint)
      : (rows || cols) && varyingIn(cells).length > 1
        ? flows(cells, rows ?? cols, paint)
        : [flow(cells, paint, null)];
  $("pictures").replaceChildren(strip(cells) ?? "", ...parts);
  mark();
}

/** Show the pictures at so many pixels; those that are enlarged by their own pixels. */
function resize(size) {
  document.documentElement.style.setProperty("--size", `${size}px`);
  $("size").value = size;
  for (const image of document.querySelectorAll(".tile img[src]")) sharpen(image);
}

/** Its place's size is not asked of the page, which would have to be laid out for that. */
function sharpen(image) {
  const room = tileOf(image) ? Number($("size").value) : 400;
  image.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) <= room);
}

/** As large as fits beside one another, within reason. */
function usualSize(columns) {
  if (!columns) return 96;
  return Math.max(64, Math.min(128, Math.floor((window.innerWidth - 220) / columns) - 4));
}

const varyingIn = (cells) => data.axes.filter((axis) => cells.some((i) => axis.at[i] !== axis.at[cells[0]]));

function grouped(cells, key) {
  const found = new Map();
  for (const i of cells) {
    const name = key(i);
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(i);
  }
  return found;
}

/** A block for each choice of the other axes, a line for each value of `rows`. */
function blocks(cells, rows, cols, paint) {
  const varying = varyingIn(cells).filter((axis) => axis !== rows && axis !== cols);
  const columns = [...new Set(cells.map((i) => cols.at[i]))].sort((a, b) => a - b);
  const longest = d3.max([cols.name, rows.name, ...rows.values], (text) => text.length) + 2;
  const word = d3.max(rows.values.flatMap((text) => text.split(/\s+/)), (text) => text.length); // which none breaks
  $("pictures").style.setProperty("--label", `${Math.max(Math.min(9, 0.42 * longest), Math.min(18, 0.6 * word))}rem`);
  return [...grouped(cells, (i) => varying.map((axis) => axis.at[i]).join()).values()].map((own) => {
    const title = varying.map((axis) => `${axis.name} = ${valueAt(axis, own[0])}`).join(", ");
    const block = h("section", { className: "block" }, above(title, own, cells));
    block.style.setProperty("--n", columns.length);
    const grid = h("div", { role: "grid", ariaLabel: title || `${rows.name} by ${cols.name}` });
    grid.append(header(rows, cols, columns));
    for (const [place, line] of [...grouped(own, (i) => rows.at[i])].sort((a, b) => a[0] - b[0])) {
      const at = grouped(line, (i) => cols.at[i]);
      const text = place < 0 ? NONE : rows.values[place];
      const start = h("div", { className: "start", role: "rowheader", title: text }, text);
      const tiles = columns.map((column) =>
        at.has(column) ? tile(at.get(column)[0], paint) : h("div", { role: "gridcell" }),
      );
      start.append(strip(line, own) ?? "");
      grid.append(h("div", { className: "line tiles", role: "row" }, start, ...tiles));
      lines.push(tiles);
    }
    block.append(grid);
    return block;
  });
}

function header(rows, cols, columns) {
  const names = columns.map((place) => {
    const text = place < 0 ? NONE : cols.values[place];
    return h("div", { role: "columnheader", title: text }, text);
  });
  const corner = h("div", { role: "columnheader" }, h("div", {}, `${cols.name} →`), h("div", {}, `${rows.name} ↓`));
  return h("div", { className: "line head", role: "row" }, corner, ...names);
}

/** One axis alone: a flow of pictures for each of its values. */
function flows(cells, axis, paint) {
  return [...grouped(cells, (i) => axis.at[i])]
    .sort((a, b) => a[0] - b[0])
    .map(([place, own]) => {
      const title = place < 0 ? `without ${axis.name}` : `${axis.name} = ${axis.values[place]}`;
      return h("section", { className: "block flowing" }, above(title, own, cells), flow(own, paint, axis));
    });
}

function flow(cells, paint, without) {
  const varying = varyingIn(cells).filter((axis) => axis !== without);
  const tiles = cells.map((i) => tile(i, paint, varying.map((axis) => valueAt(axis, i)).join(" · ")));
  lines.push(tiles);
  const words = varying.length ? h("p", { className: "faint" }, varying.map((axis) => axis.name).join(" · ")) : "";
  return h("div", { className: "flow" }, words, ...tiles);
}

/** A block's title, and the reference pictures that are its own. */
const above = (title, own, cells) => h("div", { className: "title" }, h("h3", {}, title), strip(own, cells) ?? "");

/** The reference pictures that these cells share, but not with all of those around them. */
function strip(cells, around = null) {
  const shared = Object.entries(data.references).filter(
    ([name, at]) => cells.length && one(at, cells) && !(around && one(at, around)) && path(data.ids[cells[0]], name),
  );
  return shared.length ? h("div", { className: "strip" }, ...shared.map(([name]) => reference(cells[0], name))) : null;
}

const one = (at, cells) => at[cells[0]] >= 0 && cells.every((i) => at[i] === at[cells[0]]);

function reference(i, name) {
  const image = h("img", { loading: "lazy", width: 48, height: 48, alt: name, src: path(data.ids[i], name) });
  return h("figure", {}, image, h("figcaption", { className: "faint" }, name));
}

function tile(i, paint, text = "") {
  const measure = measureOf.get(state.metric);
  const number = h("span", {}, numberText(measure, i));
  const color = paint(i);
  if (color) Object.assign(number.style, { background: color, color: d3.lab(color).l > 60 ? "#000" : "#fff" });
  const here = !failed(i) && path(data.ids[i]);
  const picture = here
    ? h("img", { decoding: "async", draggable: false, alt: "" })
    : gone(failed(i) ? "failed" : LEFT_OUT);
  const words = text ? h("span", { className: "faint" }, text) : null;
  const ariaLabel = `${label(i)}: ${failed(i) ? "failed" : `${measure.name} ${numberText(measure, i)}`}`;
  const found = h(
    "div",
    { className: "tile", role: text ? "button" : "gridcell", tabIndex: -1, ariaLabel },
    picture,
    words,
    number,
  );
  found.dataset.i = i;
  if (here) near.observe(picture);
  return found;
}

/** Pictures are read as they come near the view. (`loading=lazy` reads thousands ahead, where they are small.) */
const near = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      target.src = path(data.ids[tileOf(target).dataset.i]);
    }
  },
  { root: document.querySelector("main"), rootMargin: "300px" },
);

// --- what the pointer and the keys do

const tileOf = (target) => target.closest?.(".tile") ?? null;

function showCard(element) {
  const i = Number(element.dataset.i);
  const facts = h("dl", { className: "facts" });
  for (const [name, value] of [...settingsOf(i), ...numbersOf(i), ["cell", data.ids[i]]])
    facts.append(h("dt", {}, name), h("dd", {}, value));
  $("card").replaceChildren(facts);
  if (failed(i)) $("card").prepend(h("p", {}, `failed: ${data.reasons[i]}`));
  $("card").hidden = false;
  const [box, own] = [element.getBoundingClientRect(), $("card").getBoundingClientRect()];
  const right = box.right + 8 + own.width < window.innerWidth;
  $("card").style.left = `${Math.max(4, right ? box.right + 8 : box.left - 8 - own.width)}px`;
  $("card").style.top = `${Math.max(4, Math.min(box.top, window.innerHeight - own.height - 6))}px`;
}

const numbersOf = (i) =>
  data.measures
    .filter((measure) => measure.values[i] !== null || exactOf.get(measure.name).has(i))
    .map((measure) => [
      measure.name + ({ higher: " ↑", lower: " ↓" }[measure.direction] ?? ""),
      numberText(measure, i),
    ]);

const hideCard = () => ($("card").hidden = true);

/** The tiles of the picked cells are framed; the first tile, or the first picked, is where Tab comes in. */
function mark() {
  const picked = picks();
  for (const element of document.querySelectorAll(".tile.first, .tile.second")) {
    element.classList.remove("first", "second");
    element.ariaSelected = element.ariaPressed = null;
  }
  for (const [n, i] of picked.entries()) {
    const element = document.querySelector(`.tile[data-i="${i}"]`);
    if (!element) continue;
    element.classList.add(n ? "second" : "first");
    if (element.role === "button") element.ariaPressed = "true";
    else element.ariaSelected = "true";
  }
  for (const element of document.querySelectorAll('.tile[tabindex="0"]')) element.tabIndex = -1;
  const entry = document.querySelector(".tile.first, .tile.second") ?? document.querySelector(".tile");
  if (entry) entry.tabIndex = 0;
}

/** The tile one step away: in a grid by lines and columns, in a flow by what stands above and below. */
function neighbour(element, key) {
  const y = lines.findIndex((line) => line.includes(element));
  const x = lines[y].indexOf(element);
  const step = key === "ArrowLeft" ? -1 : key === "ArrowRight" ? 1 : 0;
  if (step) return reach(lines[y], x + step, step);
  const way = key === "ArrowUp" ? -1 : 1;
  const beside = lines[y].filter((other) => other.offsetTop === element.offsetTop).length;
  if (!element.getAttribute("role").includes("grid") && lines[y][x + way * beside]) return lines[y][x + way * beside];
  for (let next = y + way; lines[next]; next += way) {
    const tile = lines[next][Math.min(x, lines[next].length - 1)];
    if (tile?.classList.contains("tile")) return tile;
  }
  return null;
}

function reach(line, x, step) {
  while (line[x] && !line[x].classList.contains("tile")) x += step;
  return line[x] ?? null;
}
