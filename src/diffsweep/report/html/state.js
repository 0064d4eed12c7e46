"use strict";
// What the page shows, and its place in the address: `#tab=pictures&rows=seed&f.mask.softness=3`.

const data = JSON.parse(document.getElementById("data").textContent);
const TABS = ["pictures", "table", "cells", "curves", "about"];
const NONE = "–";

const $ = (id) => document.getElementById(id);
const axisOf = new Map(data.axes.map((axis) => [axis.name, axis]));
const measureOf = new Map(data.measures.map((measure) => [measure.name, measure]));
const exactOf = new Map(data.measures.map((measure) => [measure.name, new Set(measure.exact)]));

/** An element; strings among the children become text, never markup. */
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const measured = data.measures.find((measure) => measure.values.some((value) => value !== null)) ?? data.measures[0];
const defaults = () => ({
  tab: "pictures",
  rows: data.rows ?? "",
  cols: data.cols ?? "",
  metric: measured.name,
  order: "axes",
  color: "",
  size: "",
  query: "",
  least: "",
  most: "",
  mode: "side",
  pick: "",
  y: measured.name,
  x: "",
  by: "",
});
let state = defaults();
let only = new Map(); // an axis's name -> the place of the one value that is shown

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  state = defaults();
  only = new Map();
  for (const [key, value] of given) {
    if (Object.hasOwn(state, key)) state[key] = value;
    const axis = key.startsWith("f.") && axisOf.get(key.slice(2));
    const place = axis ? axis.values.indexOf(value) : -1;
    if (place >= 0) only.set(axis.name, place);
  }
  const names = ["", ...axisOf.keys()];
  if (!TABS.includes(state.tab)) state.tab = "pictures";
  for (const key of ["rows", "cols"]) if (!names.includes(state[key])) state[key] = "";
  if (!measureOf.has(state.metric)) state.metric = defaults().metric;
}

let writing = 0; // browsers allow few changes of an address a second

function writeAddress() {
  if (location.protocol === "about:") return; // in the frame of another page, it has no address of its own
  clearTimeout(writing);
  writing = setTimeout(() => history.replaceState(null, "", address()), 200);
}

function address() {
  const usual = defaults();
  const entries = Object.entries(state).filter(([key, value]) => value !== usual[key]);
  for (const [name, place] of only) entries.push([`f.${name}`, axisOf.get(name).values[place]]);
  return `#${new URLSearchParams(entries)}`;
}

/** Change what is shown, and show it. */
function change(changes) {
  Object.assign(state, changes);
  writeAddress();
  show();
}

// --- a cell's words

const valueAt = (axis, i) => (axis.at[i] < 0 ? "" : axis.values[axis.at[i]]);
const settingsOf = (i) => data.axes.filter((axis) => axis.at[i] >= 0).map((axis) => [axis.name, valueAt(axis, i)]);
const label = (i) =>
  settingsOf(i)
    .map(([name, value]) => `${name}=${value}`)
    .join(", ") || data.ids[i];
const failed = (i) => data.reasons[i] !== null;
const kindsOf = (i) => data.pictures.kinds[data.pictures.at[i]];

/** A picture's address: its file, or itself where the page holds its pictures; nothing for one that is left out. */
function path(id, name = "image") {
  if (!data.embedded) return `../../cells/${id.slice(0, 2)}/${id}/${name}.png`;
  return data.embedded.uris[data.embedded.at[`${id}/${name}`]];
}

const gone = (text) => h("div", { className: "gone" }, text);
const LEFT_OUT = "not in this file";

function counted(what, number) {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

function numberText(measure, i) {
  if (exactOf.get(measure.name).has(i)) return "exact";
  const value = measure.values[i];
  return value === null ? NONE : value.toFixed(measure.places);
}

function commandOf(i) {
  const words = data.axes.filter((axis) => axis.at[i] >= 0).map((axis) => axis.words[axis.at[i]]);
  return [data.before, ...words, data.after].join(" ");
}

// --- which cells are shown, in which order

/** Where a cell stands on a metric: an exact picture beyond every other, one without a value nowhere. */
function standing(measure, i) {
  if (exactOf.get(measure.name).has(i)) return measure.direction === "lower" ? -Infinity : Infinity;
  return measure.values[i];
}

function shownCells() {
  const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
  const measure = measureOf.get(state.metric);
  const least = state.least === "" ? -Infinity : Number(state.least);
  const most = state.most === "" ? Infinity : Number(state.most);
  const ranged = state.least !== "" || state.most !== "";
  const chosen = [...only].map(([name, place]) => [axisOf.get(name).at, place]);
  const found = [];
  for (let i = 0; i < data.ids.length; i++) {
    if (!chosen.every(([at, place]) => at[i] === place)) continue;
    if (words.length) {
      const text =
        `${label(i)} ${data.ids[i]} ${data.reasons[i] === null ? "" : `failed ${data.reasons[i]}`}`.toLowerCase();
      if (!words.every((word) => text.includes(word))) continue;
    }
    if (ranged) {
      const value = standing(measure, i);
      if (value === null || value < least || value > most) continue;
    }
    found.push(i);
  }
  return found;
}

/** By the metric, the best or the worst first; cells without a value last. */
function ranked(cells) {
  const measure = measureOf.get(state.metric);
  const up = (measure.direction === "higher") === (state.order === "worst");
  return [...cells].sort((a, b) => {
    const [x, y] = [standing(measure, a), standing(measure, b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return x === y ? a - b : x < y === up ? -1 : 1;
  });
}

/** A colour for a number between the least and the most of those shown. */
function colors(measure, cells) {
  const [least, most] = d3.extent(cells, (i) => measure.values[i]);
  const scale = d3.scaleSequential([least, most === least ? least + 1 : most], d3.interpolateViridis);
  return (i) => (measure.values[i] === null ? null : scale(measure.values[i]));
}
