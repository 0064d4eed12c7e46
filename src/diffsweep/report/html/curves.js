"use strict";
// Curves: each setting's mean and interval against an axis, and any two numbers of the cells against each other.

const isNumeric = (axis) => axis.values.length > 1 && axis.numbers.every((number) => number !== null);

function showCurves() {
  const along = data.table.axes.filter((name) => isNumeric(axisOf.get(name)));
  const numbers = data.measures
    .filter((measure) => measure.values.some((value) => value !== null))
    .map((measure) => measure.name);
  const ups = along.length ? [...new Set([...numbers, ...data.table.metrics])] : numbers; // some are a whole setting's
  if (!ups.length) return $("plots").replaceChildren(h("p", { className: "faint" }, "Nothing was measured."));
  const y = ups.includes(state.y) ? state.y : ups[0];
  const across = [...along, ...(numbers.includes(y) ? numbers : [])];
  const x = across.includes(state.x) ? state.x : (across.find((name) => name !== y) ?? y);
  const draw = along.includes(x) ? curve : scatter;
  const others = (draw === curve ? data.table.axes : [...axisOf.keys()]).filter((name) => name !== x);
  const usual = data.table.axes.find((name) => name !== x && !only.has(name)) ?? "";
  const by = state.by === "none" ? "" : others.includes(state.by) ? state.by : usual;
  const controls = h(
    "div",
    { className: "controls" },
    chosenFrom("up", y, ups, (value) => change({ y: value })),
    chosenFrom("along", x, across, (value) => change({ x: value })),
    chosenFrom("colour", by, ["", ...others], (value) => change({ by: value || "none" })),
  );
  $("plots").replaceChildren(controls, ...draw(x, y, by));
}

function chosenFrom(name, value, options, onpick) {
  const select = h(
    "select",
    { ariaLabel: name, onchange: () => onpick(select.value) },
    ...options.map((option) => h("option", { value: option, selected: option === value }, option || "none")),
  );
  return h("label", {}, `${name} `, select);
}

/** Colours for those of an axis's values that are there: in order where they are numbers, apart where they are names. */
function colorScale(by, there) {
  const axis = axisOf.get(by);
  if (!axis) return {};
  const domain = axis.values.filter((value) => there.has(value));
  const short = (text) => (text.length > 40 ? `${text.slice(0, 39)}…` : text);
  const common = { type: "ordinal", legend: domain.length <= 12, domain, label: by, tickFormat: short };
  if (!isNumeric(axis)) return { ...common, scheme: domain.length <= 10 ? "observable10" : "turbo" };
  const [from, to] = dark() ? [0.45, 1] : [0, 0.85];
  return {
    ...common,
    range: domain.map((_, k) => d3.interpolateViridis(from + ((to - from) * k) / Math.max(1, domain.length - 1))),
  };
}

const look = (more) => ({
  width: Math.max(320, Math.min(900, $("plots").clientWidth - 20)),
  height: 460,
  marginLeft: 60,
  marginBottom: 44,
  style: { fontSize: "12px", background: "none" },
  grid: true,
  inset: 8,
  ...more,
});

/** Means with their intervals, as the table has them: a line for each setting of the other axes. */
function curve(x, y, by) {
  const { axes, metrics, rows } = data.table;
  const [xAt, yAt] = [axes.indexOf(x), metrics.indexOf(y)];
  const points = [];
  for (const row of rows) {
    if (
      ![...only].every(
        ([name, place]) =>
          !axes.includes(name) || name === x || row.texts[axes.indexOf(name)] === axisOf.get(name).values[place],
      )
    )
      continue;
    const [mean, low, high] = yAt >= 0 ? row.stats[yAt] : [row[y] ?? null, null, null];
    if (mean === null) continue;
    const rest = axes.map((name, k) => `${name}=${row.texts[k]}`).filter((_, k) => k !== xAt);
    points.push({
      x: row.numbers[xAt],
      mean,
      low,
      high,
      by: by ? row.texts[axes.indexOf(by)] : "",
      line: rest.join(", "),
    });
  }
  const banded = points.filter((point) => point.low !== null);
  const number = new Set(points.map((point) => point.line)).size;
  const [few, many] = [number <= 6, number > 40];
  const stroke = by ? "by" : "currentColor";
  const marks = [
    few ? Plot.areaY(banded, { x: "x", y1: "low", y2: "high", z: "line", fill: stroke, fillOpacity: 0.1 }) : null,
    Plot.ruleX(banded, { x: "x", y1: "low", y2: "high", stroke, strokeOpacity: few ? 0.7 : 0.3 }),
    Plot.lineY(points, {
      x: "x",
      y: "mean",
      z: "line",
      stroke,
      strokeWidth: many ? 0.8 : 1.8,
      strokeOpacity: many ? 0.5 : 1,
      sort: "x",
    }),
    Plot.dot(points, { x: "x", y: "mean", fill: stroke, symbol: by ? "by" : "circle", r: many ? 1.5 : 4 }),
    Plot.tip(
      points,
      Plot.pointer({
        x: "x",
        y: "mean",
        fill: "var(--raised)",
        title: (p) => `${p.line ? `${p.line}\n` : ""}${x} = ${p.x}\n${y} = ${told(p)}`,
      }),
    ),
  ];
  const ticks = axisOf.get(x).numbers.length <= 12 ? { ticks: axisOf.get(x).numbers } : {};
  const color = colorScale(by, new Set(points.map((point) => point.by)));
  const figure = Plot.plot(
    look({
      x: { label: x, tickFormat: "~g", ...ticks },
      y: { label: y },
      color,
      ...(by ? { symbol: { type: "ordinal", domain: color.domain } } : {}),
      marks,
    }),
  );
  const words =
    "Mean of each setting with its 95 % interval, as in the table. Filters on axes count, those on numbers, words and seeds do not.";
  return [figure, h("p", { className: "faint" }, words)];
}

const told = (p) =>
  `${p.mean.toPrecision(4)}${p.low === null ? "" : ` [${p.low.toPrecision(4)}, ${p.high.toPrecision(4)}]`}`;

/** Every cell that is shown, a dot; a click picks its picture. */
function scatter(x, y, by) {
  const [across, up, axis] = [measureOf.get(x), measureOf.get(y), axisOf.get(by)];
  const points = shownCells().filter((i) => across.values[i] !== null && up.values[i] !== null);
  const options = { x: (i) => across.values[i], y: (i) => up.values[i] };
  const fill = axis ? (i) => valueAt(axis, i) : "currentColor";
  const title = (i) => `${label(i)}\n${x} = ${numberText(across, i)}\n${y} = ${numberText(up, i)}`;
  const marks = [
    Plot.dot(points, { ...options, fill, r: points.length > 1000 ? 2 : 4, fillOpacity: 0.75 }),
    Plot.tip(points, Plot.pointer({ ...options, title, fill: "var(--raised)" })),
  ];
  const figure = Plot.plot(
    look({
      x: { label: x },
      y: { label: y },
      color: colorScale(by, new Set(points.map((i) => axis && valueAt(axis, i)))),
      marks,
    }),
  );
  figure.addEventListener("click", () => figure.value !== null && figure.value !== undefined && pick(figure.value));
  figure.style.cursor = "pointer";
  return [
    figure,
    h("p", { className: "faint" }, `${counted("cell", points.length)} left by the filters. A click picks the picture.`),
  ];
}
