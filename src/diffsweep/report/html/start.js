"use strict";
// Controls, keys and the first view.

function option(value, text, now) {
  return h("option", { value, selected: value === now }, text);
}

function buildBar() {
  const names = data.axes.map((axis) => axis.name);
  const axesFor = (key) =>
    h(
      "select",
      { id: key, onchange: (event) => chooseAxis(key, event.target.value) },
      option("", "none", null),
      ...names.map((name) => option(name, name, null)),
    );
  const metrics = h(
    "select",
    { id: "metric", onchange: (event) => change({ metric: event.target.value, least: "", most: "" }) },
    ...data.measures.map((measure) => option(measure.name, measure.name, null)),
  );
  const orders = { axes: "by axes", best: "best first", worst: "worst first" };
  const order = h(
    "select",
    { id: "order", onchange: (event) => change({ order: event.target.value }) },
    ...Object.entries(orders).map(([value, text]) => option(value, text, null)),
  );
  const bound = (id) =>
    h("input", {
      id,
      type: "number",
      step: "any",
      ariaLabel: `${id} of the metric`,
      oninput: (event) => change({ [id]: event.target.value }),
    });
  const size = h("input", {
    id: "size",
    type: "range",
    min: 32,
    max: 384,
    step: 8,
    oninput: (event) => chooseSize(event.target.value),
  });
  const color = h("input", {
    id: "color",
    type: "checkbox",
    onchange: (event) => change({ color: event.target.checked ? "1" : "" }),
  });
  const labelled = (text, field) => (
    (field.ariaLabel = text),
    h("label", { title: text }, h("span", {}, text), " ", field)
  );
  const pictures = [
    labelled("rows", axesFor("rows")),
    labelled("columns", axesFor("cols")),
    labelled("order", order),
    labelled("size", size),
    labelled("colours", color),
  ];
  for (const element of pictures) element.className = "onlypictures";
  const range = h("label", {}, "from ", bound("least"), " to ", bound("most"));
  $("choices").append(...pictures.slice(0, 2), labelled("metric", metrics), range, ...pictures.slice(2));
  for (const axis of data.axes.filter((axis) => axis.values.length > 1)) {
    const select = h(
      "select",
      { onchange: () => filterBy(axis.name, select.value) },
      option("", "all", null),
      ...axis.values.map((text, k) => option(String(k), text, null)),
    );
    select.dataset.axis = axis.name;
    $("filters").append(labelled(axis.name, select));
  }
  $("query").addEventListener("input", () => change({ query: $("query").value }));
  $("bar").addEventListener("submit", (event) => event.preventDefault());
  $("bar").addEventListener("reset", (event) => {
    event.preventDefault();
    only = new Map();
    state = { ...defaults(), tab: state.tab, pick: state.pick, mode: state.mode };
    change({});
  });
}

/** The other of rows and columns gives way where it had the axis. */
function chooseAxis(key, name) {
  const other = key === "rows" ? "cols" : "rows";
  change({ [key]: name, order: "axes", ...(name && state[other] === name ? { [other]: state[key] } : {}) });
}

function chooseSize(size) {
  state.size = size;
  resize(Number(size));
  hideCard();
  writeAddress();
}

function filterBy(name, place) {
  if (place === "") only.delete(name);
  else only.set(name, Number(place));
  change({});
}

function showBar() {
  for (const id of ["rows", "cols", "metric", "order", "query", "least", "most"])
    if ($(id).value !== state[id]) $(id).value = state[id];
  $("color").checked = state.color !== "";
  for (const select of $("filters").querySelectorAll("select")) {
    const place = only.get(select.dataset.axis);
    select.value = place === undefined ? "" : String(place);
  }
  $("bar").hidden = ["table", "about"].includes(state.tab);
  for (const element of document.querySelectorAll(".onlypictures")) element.hidden = state.tab !== "pictures";
  const hint = state.tab === "pictures" && !state.pick ? ": pick two to compare" : "";
  $("count").value = `${shownCells().length} of ${counted("cell", data.ids.length)}${hint}`;
}

let drawn = ""; // what the pictures were drawn for: a pick redraws none of them

function show() {
  hideCard();
  for (const tab of TABS) {
    $(tab).hidden = tab !== state.tab;
    $(`tab-${tab}`).ariaSelected = String(tab === state.tab);
    $(`tab-${tab}`).tabIndex = tab === state.tab ? 0 : -1;
  }
  showBar();
  showPanel();
  const { pick: _, mode: __, ...seen } = state;
  const wanted = JSON.stringify([seen, ...only]);
  if (wanted === drawn) return mark();
  drawn = wanted;
  ({ pictures: showPictures, table: showTable, cells: showCells, curves: showCurves })[state.tab]?.();
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
  if (event.key === "Escape" && !$("keys").open) {
    if (typing) event.target.blur();
    else change({ pick: "" });
  } else if (typing || $("keys").open) return;
  else if (event.key === "/") {
    if ($("bar").hidden) change({ tab: "pictures" });
    $("query").focus();
    $("query").select();
  } else if (event.key === "?") $("keys").showModal();
  else if (event.key >= "1" && event.key <= String(TABS.length)) change({ tab: TABS[event.key - 1] });
  else if (picks().length === 2 && ["s", "w", "d"].includes(event.key))
    change({ mode: Object.keys(MODES).find((mode) => mode[0] === event.key) });
  else if (event.target.matches("[role=tab]") && event.key.startsWith("Arrow")) stepTab(event.key);
  else if (!stepTile(event)) return;
  event.preventDefault();
}

function stepTab(key) {
  const way = ["ArrowRight", "ArrowDown"].includes(key) ? 1 : -1;
  const tab = TABS[(TABS.indexOf(state.tab) + way + TABS.length) % TABS.length];
  change({ tab });
  $(`tab-${tab}`).focus();
}

/** Arrows, Enter and Space on a picture; an arrow anywhere else in the view goes to the first. */
function stepTile(event) {
  const element = tileOf(event.target);
  const arrow = /^Arrow(Left|Right|Up|Down)$/.test(event.key);
  if (!element) {
    const first = document.querySelector('#pictures .tile[tabindex="0"]');
    if (!arrow || state.tab !== "pictures" || !first || !event.target.matches("main, body")) return false;
    first.focus();
    return true;
  }
  if (["Enter", " "].includes(event.key)) pick(Number(element.dataset.i));
  else if (arrow) {
    const next = neighbour(element, event.key);
    if (next) {
      element.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }
  } else return false;
  return true;
}

const dark = () =>
  (document.documentElement.style.colorScheme ||
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function turnTheme() {
  document.documentElement.style.colorScheme = dark() ? "light" : "dark";
  if (state.tab === "curves") showCurves();
}

function showFailed(event) {
  event.preventDefault();
  change({ tab: "about" });
  $("failed").scrollIntoView();
}

buildBar();
for (const tab of TABS) $(`tab-${tab}`).addEventListener("click", () => change({ tab }));
$("tofailed")?.addEventListener("click", showFailed);
$("theme").addEventListener("click", turnTheme);
$("help").addEventListener("click", () => $("keys").showModal());
document.addEventListener("keydown", keys);
window.addEventListener("hashchange", () => (readAddress(), show()));
$("pictures").addEventListener(
  "click",
  (event) => tileOf(event.target) && pick(Number(tileOf(event.target).dataset.i)),
);
$("pictures").addEventListener("pointerover", (event) =>
  tileOf(event.target) ? showCard(tileOf(event.target)) : hideCard(),
);
$("pictures").addEventListener("pointerleave", hideCard);
$("pictures").addEventListener(
  "focusin",
  (event) => tileOf(event.target)?.matches(":focus-visible") && showCard(tileOf(event.target)),
);
$("pictures").addEventListener("focusout", hideCard);
document.querySelector("main").addEventListener("scroll", hideCard);
document.addEventListener("load", (event) => event.target.matches?.("img") && sharpen(event.target), true);
document.addEventListener(
  "error",
  (event) => event.target.matches?.("img") && event.target.replaceWith(gone("unreadable")),
  true,
);
readAddress();
show();
