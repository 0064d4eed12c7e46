"use strict";
// The tables: Tabulator draws the lines in view. Headings are given as text nodes, since it takes strings for markup.

const heading = (cell) => document.createTextNode(cell.getValue());
const numeric = (a, b) => (a ?? -Infinity) - (b ?? -Infinity);
const byText = (a, b) => String(a).localeCompare(String(b), undefined, { numeric: true });

let settingsTable = null;

function showTable() {
  if (settingsTable) return settingsTable.redraw();
  const { header, rows, axes, metrics } = data.table;
  const first = header.length - metrics.length - 2; // axes, n, perhaps failed
  const columns = header.map((name, k) => ({
    title: name,
    titleFormatter: heading,
    field: `c${k}`,
    hozAlign: k < axes.length ? "left" : "right",
    headerSortStartingDir: name.includes("↑") ? "desc" : "asc",
    formatter: (cell) =>
      h("span", { className: cell.getData().best.includes(k) ? "best" : "" }, cell.getData().texts[k]),
    sorter: (a, b) => (a.number === null || b.number === null ? byText(a.text, b.text) : a.number - b.number),
  }));
  const lines = rows.map((row) => {
    const numbers = [
      ...row.numbers,
      ...row.texts.slice(axes.length, first).map(parseFloat),
      ...row.stats.map((stat) => stat[0] ?? -Infinity),
      row.nfe ?? -Infinity,
      row.seconds ?? -Infinity,
    ];
    const fields = Object.fromEntries(row.texts.map((text, k) => [`c${k}`, { text, number: numbers[k] }]));
    return { ...fields, texts: row.texts, best: row.best };
  });
  settingsTable = new Tabulator("#settings", {
    data: lines,
    columns,
    layout: "fitDataFill",
    ...(lines.length > 25 ? { height: "60vh" } : {}),
    columnDefaults: { maxWidth: 340, vertAlign: "middle" },
  });
  settingsTable.on("rowClick", (event, row) => openSetting(row.getData().texts));
}

/** The pictures of one setting. */
function openSetting(texts) {
  only = new Map(
    data.table.axes
      .map((name, k) => [name, axisOf.get(name).values.indexOf(texts[k])])
      .filter(([, place]) => place >= 0),
  );
  change({ tab: "pictures", query: "", least: "", most: "" });
}

let cellsTable = null;
let cellsShown = null; // what the table holds, so that it is filled again only where that changes

function showCells() {
  const cells = shownCells();
  const now = cells.join();
  if (cellsTable && now === cellsShown) return;
  cellsShown = now;
  const lines = cells.map(cellLine);
  if (cellsTable) return cellsTable.replaceData(lines);
  cellsTable = new Tabulator("#all", {
    data: lines,
    columns: cellColumns(),
    layout: "fitDataFill",
    height: "calc(100vh - 13rem)",
    rowHeight: 48,
    placeholder: "No cell is left.",
    columnDefaults: { maxWidth: 340, vertAlign: "middle", headerSortTristate: true },
  });
  cellsTable.on("rowClick", (event, row) => pick(row.getData().i));
}

function cellLine(i) {
  const line = { i, id: data.ids[i], reason: data.reasons[i] ?? "" };
  for (const [k, axis] of data.axes.entries()) line[`a${k}`] = axis.numbers[axis.at[i]] ?? valueAt(axis, i);
  for (const [k, measure] of data.measures.entries()) line[`m${k}`] = standing(measure, i);
  return line;
}

function cellColumns() {
  const found = [
    { title: "image", titleFormatter: heading, field: "i", headerSort: false, width: 58, formatter: thumbnail },
  ];
  for (const [k, axis] of data.axes.entries()) {
    const numbers = axis.numbers.every((number) => number !== null);
    found.push({
      ...column(axis.name, `a${k}`, (cell) => valueAt(axis, cell.getData().i)),
      sorter: numbers ? numeric : byText,
      hozAlign: numbers ? "right" : "left",
      headerFilterFunc: numbers ? within : holds,
    });
  }
  for (const [k, measure] of data.measures.entries()) {
    const arrow = { higher: " ↑", lower: " ↓" }[measure.direction] ?? "";
    found.push({
      ...column(measure.name + arrow, `m${k}`, (cell) => numberText(measure, cell.getData().i)),
      sorter: numeric,
      hozAlign: "right",
      headerSortStartingDir: measure.direction === "higher" ? "desc" : "asc",
      headerFilterFunc: within,
    });
  }
  found.push(column("cell", "id", (cell) => cell.getValue()));
  if (data.reasons.some((reason) => reason !== null)) found.push(column("failed", "reason", (cell) => cell.getValue()));
  return found;
}

const column = (name, field, text) => ({
  title: name,
  titleFormatter: heading,
  field,
  headerFilter: "input",
  headerFilterLiveFilter: true,
  headerFilterFunc: holds,
  formatter: (cell) => document.createTextNode(text(cell)),
});

function thumbnail(cell) {
  const i = cell.getValue();
  const src = !failed(i) && path(data.ids[i]);
  return src ? h("img", { loading: "lazy", alt: "", src }) : document.createTextNode(NONE);
}

const holds = (asked, value) => String(value).toLowerCase().includes(asked.toLowerCase());

/** `>25`, `<=0.9`, `20..30`, `7`; what cannot be read as such leaves all. */
function within(asked, value) {
  const range = asked.match(/^(.*\S)\s*\.\.\s*(\S.*)$/);
  const [, sign = "=", bound] = asked.trim().match(/^(>=|<=|>|<|=)?(.*)$/);
  const limit = Number(bound);
  if (range ? !range.slice(1).every((end) => Number.isFinite(Number(end))) : bound.trim() === "" || Number.isNaN(limit))
    return true;
  if (typeof value !== "number") return false;
  if (range) return value >= Number(range[1]) && value <= Number(range[2]);
  return { ">": value > limit, "<": value < limit, ">=": value >= limit, "<=": value <= limit, "=": value === limit }[
    sign
  ];
}
