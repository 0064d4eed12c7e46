"use strict";
// The panel: one picked cell with its pictures, or two side by side, with a wipe, or by their difference.

const MODES = { side: "side by side", wipe: "wipe", difference: "difference" };
let chosen = ["image", "image"]; // which of its pictures each side shows
let gain = 4;

/** Places of the picked cells: two settings may come to one picture, and so to one id. */
const picks = () =>
  state.pick
    .split(",")
    .filter((place) => /^\d+$/.test(place) && place < data.ids.length)
    .map(Number)
    .slice(0, 2);

/** Pick a cell; a second one is compared with the first, a third takes the second's place, a picked one is let go. */
function pick(i) {
  const now = picks();
  const next = now.includes(i) ? now.filter((other) => other !== i) : [...now.slice(0, 1), i];
  change({ pick: next.join() });
}

function showPanel() {
  const picked = picks();
  $("panel").hidden = !picked.length;
  chosen = chosen.map((name, side) => (side < picked.length && choices(picked[side]).has(name) ? name : "image"));
  if (picked.length) $("panel").replaceChildren(...(picked.length === 1 ? single(picked[0]) : compared(...picked)));
}

/** A cell's pictures that are within reach, and the one it was enlarged from: name -> path. */
function choices(i) {
  const found = kindsOf(i).map((name) => [name, path(data.ids[i], name)]);
  const base = data.bases[i];
  if (base) found.push(["before enlarging", path(base)]);
  return new Map(found.filter(([, address]) => address));
}

function picture(i, side) {
  if (failed(i)) return gone(`failed: ${data.reasons[i]}`);
  const src = choices(i).get(chosen[side]);
  return src ? h("img", { src, alt: `${chosen[side]} of ${label(i)}` }) : gone(LEFT_OUT);
}

function chooser(i, side) {
  const options = [...choices(i).keys()].map((name) =>
    h("option", { value: name, selected: name === chosen[side] }, name),
  );
  const select = h(
    "select",
    { ariaLabel: `picture ${"AB"[side]}`, onchange: () => ((chosen[side] = select.value), showPanel()) },
    ...options,
  );
  return select;
}

/** All of a cell's pictures, small, to choose from. */
function thumbnails(i) {
  const found = choices(i);
  if (found.size < 2) return "";
  const thumbs = [...found].map(([name, src]) =>
    h(
      "button",
      { ariaPressed: String(name === chosen[0]), onclick: () => ((chosen[0] = name), showPanel()) },
      h("img", { loading: "lazy", alt: "", src }),
      h("span", {}, name.replace(/^step_0*(\d)/, "$1")),
    ),
  );
  return h("div", { className: "thumbs" }, ...thumbs);
}

const closer = () => h("button", { title: "Esc", onclick: () => change({ pick: "" }) }, "close");

function single(i) {
  return [
    h(
      "div",
      { className: "bar" },
      h("span", { className: "a" }, "A"),
      chooser(i, 0),
      h("span", { className: "push" }),
      closer(),
    ),
    h("div", { className: "pair one", style: "grid-template-columns: 1fr" }, picture(i, 0)),
    thumbnails(i),
    h("p", { className: "faint" }, "Pick a second picture to compare."),
    facts([i]),
    configuration([i]),
    ...reproduce(i, ""),
  ];
}

function compared(first, second) {
  const buttons = Object.entries(MODES).map(([mode, text]) =>
    h("button", { ariaPressed: String(state.mode === mode), title: mode[0], onclick: () => change({ mode }) }, text),
  );
  const swap = h("button", { onclick: () => (chosen.reverse(), change({ pick: [second, first].join() })) }, "swap");
  const sides = [first, second].map((i, side) =>
    h("label", { className: "ab"[side] }, `${"AB"[side]} `, chooser(i, side)),
  );
  return [
    h("div", { className: "bar" }, ...buttons, h("span", { className: "push" }), swap, closer()),
    h("div", { className: "bar" }, ...sides),
    (VIEWS[state.mode] ?? VIEWS.side)(first, second),
    facts([first, second]),
    configuration([first, second]),
    ...reproduce(first, "A"),
    ...reproduce(second, "B"),
  ];
}

const VIEWS = {
  side: (first, second) =>
    h("div", { className: "pair" }, h("figure", {}, picture(first, 0)), h("figure", {}, picture(second, 1))),

  /** B to the right of the line, A to its left. */
  wipe(first, second) {
    const frame = h("div", { className: "frame wipe" }, picture(first, 0), picture(second, 1));
    const move = h("input", {
      type: "range",
      min: 0,
      max: 100,
      step: 0.5,
      value: 50,
      ariaLabel: "how much of A is shown",
    });
    move.addEventListener("input", () => frame.style.setProperty("--at", `${move.value}%`));
    frame.append(move);
    return frame;
  },

  /** |A - B|, brightened; drawn by the browser's blending, which needs no right to read the pixels. */
  difference(first, second) {
    const frame = h("div", { className: "frame difference" }, picture(first, 0), picture(second, 1));
    const move = h("input", { type: "range", min: 1, max: 16, step: 1, value: gain });
    const told = h("output", {}, `× ${gain}`);
    const brighten = () => (
      (gain = Number(move.value)),
      (frame.style.filter = `brightness(${gain})`),
      (told.value = `× ${gain}`)
    );
    move.addEventListener("input", brighten);
    brighten();
    return h("div", {}, frame, h("label", { className: "bar" }, "|A − B|, brightened", move, told));
  },
};

/** A line for each of these settings: axes, or what else not all cells share. */
const settingLines = (settings, cells) =>
  settings.map((setting) => {
    const texts = cells.map((i) => (setting.at[i] < 0 ? NONE : valueAt(setting, i)));
    return line(setting.name, texts, "", new Set(texts).size > 1);
  });

/** The prompt where it is no axis. */
function promptLines(cells) {
  if (data.shared.prompt !== undefined) return [line("prompt", cells.map(() => data.shared.prompt))];
  return settingLines(
    data.settings.filter((setting) => setting.name === "prompt"),
    cells,
  );
}

/** What else decides the picture, folded: first what not all cells share. */
function configuration(cells) {
  const shared = Object.entries(data.shared).map(([name, text]) =>
    line(
      name,
      cells.map(() => text),
    ),
  );
  const lines = [...settingLines(data.settings, cells), ...shared];
  if (!lines.length) return "";
  const summary = h("summary", {}, "the rest of the configuration");
  return h("details", { className: "configuration" }, summary, h("table", {}, ...lines));
}

/** Settings, of which those that differ are marked, then numbers. */
function facts(cells) {
  const lines = [...settingLines(data.axes, cells), ...(axisOf.has("prompt") ? [] : promptLines(cells))];
  for (const measure of data.measures) {
    const texts = cells.map((i) => numberText(measure, i));
    const [a, b] = cells.map((i) => measure.values[i]);
    const gap = cells.length === 2 && typeof a === "number" && typeof b === "number" ? b - a : null;
    if (texts.some((text) => text !== NONE))
      lines.push(line(measure.name, texts, gap === null ? "" : signed(gap, measure.places)));
  }
  lines.push(
    line(
      "cell",
      cells.map((i) => data.ids[i]),
    ),
  );
  const names =
    cells.length === 2
      ? [
          h("th", {}),
          h("th", { className: "a left" }, "A"),
          h("th", { className: "b left" }, "B"),
          h("th", {}, "B − A"),
        ]
      : [];
  return h("table", {}, names.length ? h("tr", {}, ...names) : null, ...lines);
}

const signed = (value, places) => (value > 0 ? "+" : "") + value.toFixed(places).replace("-", "−");

function line(name, texts, gap = "", differs = false) {
  const cells = texts.map((text) => h("td", { className: "left" }, text));
  const last = texts.length === 2 ? h("td", {}, gap) : null;
  return h(
    "tr",
    { className: differs ? "differs" : "" },
    h("td", { className: "left faint name", title: name }, name),
    ...cells,
    last,
  );
}

/** The command that makes the cell again, and a button that copies it. */
function reproduce(i, side) {
  const text = commandOf(i);
  const block = h("pre", { tabIndex: 0, ariaLabel: `command ${side}` }, text);
  const button = h("button", {}, "copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text, block)) ? "copied" : "selected: copy it from the keyboard";
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
  return [h("div", { className: "bar", style: "margin: .8rem 0 0" }, `To make ${side || "it"} again`, button), block];
}

async function copied(text, block) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(block); // a page from disk may not write to the clipboard everywhere
    return document.execCommand("copy");
  }
}
