// From the text of a log to its lines as elements: colours as classes, steps as links. Text only, never markup.

const SGR = /\x1b\[([0-9;]*)m/g;
const RANK = /^\[(?:rank|default)(\d+)\]/;
const STEP = /\bstep +(\d+)(?:\/(\d+))?/;
const NEAR_STEPS = 20;

/** The style that the numbers of an SGR escape leave behind; what has no class of ours changes nothing. */
export function restyled(style, codes) {
  const next = { ...style };
  for (let i = 0; i < codes.length; i++) {
    const code = codes[i];
    if (code === 0) for (const key of Object.keys(next)) delete next[key];
    else if (code === 1) next.bold = "bold";
    else if (code === 2) next.dim = "dim";
    else if (code === 3) next.italic = "italic";
    else if (code === 4) next.underline = "underline";
    else if (code === 22) delete next.bold, delete next.dim;
    else if (code === 23) delete next.italic;
    else if (code === 24) delete next.underline;
    else if (code >= 30 && code <= 37) next.fg = `fg-${code - 30}`;
    else if (code >= 90 && code <= 97) next.fg = `fg-${code - 90}`;
    else if (code === 39) delete next.fg;
    else if (code >= 40 && code <= 47) next.bg = `bg-${code - 40}`;
    else if (code >= 100 && code <= 107) next.bg = `bg-${code - 100}`;
    else if (code === 49) delete next.bg;
    else if (code === 38 || code === 48) i += codes[i + 1] === 5 ? 2 : 4; // 256 or 16 million colours
  }
  return next;
}

/** `[{text, classes}]` of a line, and the style that the next one begins with. */
export function pieces(line, style) {
  const found = [];
  let at = 0;
  const push = (text) => text && found.push({ text, classes: Object.values(style).join(" ") });
  for (const match of line.matchAll(SGR)) {
    push(line.slice(at, match.index));
    style = restyled(style, match[1].split(";").map(Number));
    at = match.index + match[0].length;
  }
  push(line.slice(at));
  return { pieces: found, style };
}

/** The process that wrote a line: 0, 1, ...; "" when it does not say. */
export function rankOf(text) {
  return RANK.exec(text)?.[1] ?? "";
}

/** `{index, text, step, reach}` of the step that a line names, or null. */
export function stepOf(text) {
  const match = STEP.exec(text);
  if (!match) return null;
  return { index: match.index, text: match[0], step: Number(match[1]), reach: Math.max(NEAR_STEPS, Math.round(Number(match[2] ?? 0) * 0.02)) };
}

/** A line as an element, and the style behind it. */
export function lineElement(line, style) {
  const parsed = pieces(line, style);
  const element = document.createElement("span");
  const text = parsed.pieces.map((piece) => piece.text).join("");
  element.className = "line";
  element.dataset.rank = rankOf(text);
  const step = parsed.pieces.length === 1 ? stepOf(text) : null;
  for (const piece of parsed.pieces) element.append(...(step ? linked(piece, step) : [styled(piece.text, piece.classes)]));
  element.append("\n");
  return { element, style: parsed.style };
}

function styled(text, classes) {
  if (!classes) return text;
  const span = document.createElement("span");
  span.className = classes;
  span.textContent = text;
  return span;
}

/** The page shows the steps around it; opened elsewhere, its charts take them from the address. */
function linked({ text, classes }, { index, text: name, step, reach }) {
  const link = document.createElement("a");
  Object.assign(link.dataset, { step, reach });
  link.href = `?zoom=${Math.max(0, step - reach)}~${step + reach}#chart-fvu`;
  link.title = `Show the charts around step ${step}`;
  link.textContent = name;
  return [styled(text.slice(0, index), classes), link, styled(text.slice(index + name.length), classes)];
}
