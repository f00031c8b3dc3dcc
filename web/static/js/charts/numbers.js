// Numbers and places on an axis as the scripts write them. Pure; no DOM.

const UNITS = { celsius: "°C", watts: "W" };

/**
 * A number as the pages show it, see server/numbers.py; `form` is the figure's data-form: ratio, percent, rate,
 * bytes, plain, or a unit of a device.
 */
export function format(form, value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (form === "percent") return percent(value);
  if (form === "rate") return count(value);
  if (form === "bytes") return size(value, (number) => number.toFixed(1));
  if (form in UNITS) return `${count(value)} ${UNITS[form]}`;
  if (value === 0) return "0";
  if (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6) return exponential(value, 2);
  if (Math.abs(value) >= 1000) return count(value);
  return form === "ratio" ? value.toFixed(4) : String(Number(value.toPrecision(4)));
}

/** `1234567` -> `1,234,567`. */
export function count(value) {
  return Math.round(value).toLocaleString("en");
}

function percent(fraction) {
  const shown = 100 * fraction;
  if (shown === 0) return "0%";
  const small = Number(shown.toPrecision(2));
  if (Math.abs(shown) < 0.01) return `${Math.abs(small) < 1e-4 ? exponential(small) : small}%`;
  return `${shown.toFixed(Math.abs(shown) < 10 ? 2 : 1)}%`;
}

/** `2500000` -> `2.5 MB`; `write` makes the text of the number in its unit. */
function size(numBytes, write) {
  if (numBytes < 1000) return `${Math.round(numBytes)} B`;
  const [unit, name] = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]].find(([unit]) => numBytes >= unit);
  return `${write(numBytes / unit)} ${name}`;
}

/** As Python writes it: `1.00e-05`; with as many decimals as it needs where none are asked for. */
function exponential(value, decimals) {
  return value.toExponential(decimals).replace(/e([+-])(\d)$/, (_, sign, digit) => `e${sign}0${digit}`);
}

/** Ticks of the y axis: no more decimals than it takes to tell them apart. */
export function ticks(form, values) {
  for (let digits = 4; ; digits++) {
    const texts = values.map((value) => tick(form, value, digits));
    if (digits > 12 || new Set(texts).size === new Set(values).size) return texts;
  }
}

/** A tick of the y axis with `digits` that count, at most. */
export function tick(form, value, digits = 4) {
  if (value === null) return "";
  if (form === "percent") return `${Number((100 * value).toPrecision(digits - 1))}%`;
  if (form === "bytes") return size(value, (number) => Number(number.toPrecision(digits - 1)));
  if (form in UNITS) return format(form, value);
  if (Math.abs(value) >= 10_000) return short(value, digits);
  if (value !== 0 && Math.abs(value) < 1e-3) return exponential(Number(value.toPrecision(digits - 1)));
  return String(Number(value.toPrecision(digits)));
}

/** `12500` -> `12.5k`. */
function short(value, digits = 4) {
  const [size, suffix] = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]].find(([size]) => Math.abs(value) >= size) ?? [1, ""];
  return `${Number((value / size).toPrecision(digits))}${suffix}`;
}

/** A tick of the x axis; steps and tokens have no halves. */
export function xTick(mode, value) {
  if (mode === "clock") return isMidnight(value) ? day(value) : timeOfDay(value);
  if (mode === "time") return duration(value);
  return Number.isInteger(value) ? (mode === "tokens" ? short(value) : tick("plain", value)) : "";
}

/** The cursor's place in words: `step 1,200`, `12.5M tokens`, `1 h 2 min`. */
export function place(mode, value) {
  if (mode === "clock") return `${day(value)}, ${timeOfDay(value)}`;
  if (mode === "time") return `after ${duration(value)}`;
  if (mode === "tokens") return `${short(value)} tokens`;
  return `step ${count(value)}`;
}

const TIME_OF_DAY = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** Unix time, as the reader's clock has it. */
const timeOfDay = (ts) => TIME_OF_DAY.format(1000 * ts);
const day = (ts) => DAY.format(1000 * ts);
const isMidnight = (ts) => new Date(1000 * ts).getHours() + new Date(1000 * ts).getMinutes() === 0;

/** Seconds -> `45 s`, `2 min 30 s`, `1 h 2 min`, `2 d 3 h`. */
function duration(seconds) {
  const parts = [[86_400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const whole = Math.round(seconds);
  const first = parts.findIndex(([size]) => whole >= size);
  if (first < 0) return `${Number(seconds.toPrecision(2))} s`;
  const words = parts.slice(first, first + 2).map(([size, name], i) => [Math.floor((i ? whole % parts[first][0] : whole) / size), name]);
  return words.filter(([count]) => count).map(([count, name]) => `${count} ${name}`).join(" ");
}

const TIME_STEPS = [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 14_400, 43_200, 86_400, 172_800, 604_800];

/** Distances that ticks of a time axis may have, from `least` on, in seconds. */
export function timeSteps(least) {
  return [...TIME_STEPS.filter((step) => step >= least), ...[1, 2, 4, 8, 16].map((n) => n * 2_592_000)];
}

const FEW = 6;

/** Every whole number of every decade between `min` and `max`; in a narrow range, where there are hardly any, even steps. */
export function logSplits(min, max) {
  const splits = [];
  for (let exponent = Math.floor(Math.log10(min)); exponent <= Math.ceil(Math.log10(max)); exponent++) {
    for (let digit = 1; digit < 10; digit++) {
      const value = Number(`${digit}e${exponent}`);
      if (value >= min && value <= max) splits.push(value);
    }
  }
  return splits.length < 3 ? evenSplits(min, max) : splits;
}

function evenSplits(min, max) {
  const rough = (max - min) / FEW;
  if (!(rough > 0)) return [];
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * size).find((each) => each >= rough);
  const first = Math.ceil(min / step);
  return Array.from({ length: Math.max(0, Math.floor(max / step) - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

const LOG_LABELS = new Set([1, 2, 3, 5, 7]);

/** The texts of splits: all of a few; many decades have room for the powers of ten alone. */
export function logLabels(write, splits) {
  const texts = write(splits);
  if (splits.length <= FEW + 1) return texts;
  const isCrowded = splits.length > 20;
  return texts.map((text, i) => {
    const digit = Number(splits[i].toExponential(0)[0]);
    return digit === 1 || (!isCrowded && LOG_LABELS.has(digit)) ? text : "";
  });
}
