// Search in a log: marks the lines that are shown, and lists those of the whole file, which the server looks through.
import { count } from "./charts/numbers.js";
import { coalesce } from "./live.js";

const TYPING_MS = 250;
const GROWING_MS = 3000;

export class LogSearch {
  constructor(section, view) {
    this.view = view;
    this.input = section.querySelector("#log-search");
    this.count = section.querySelector("#log-count");
    this.list = section.querySelector("#log-hits");
    this.hits = [];
    this.at = -1;
    this.timer = 0;
    this.scans = new AbortController();
    this.again = coalesce(() => this.run(this.at), GROWING_MS);
    this.input.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.scans.abort();
      this.timer = setTimeout(() => {
        view.place.keepInAddress();
        this.run();
      }, TYPING_MS);
    });
    this.input.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.go(1);
    });
    section.querySelector("#log-next").addEventListener("click", () => this.go(1));
    section.querySelector("#log-previous").addEventListener("click", () => this.go(-1));
    this.input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !event.shiftKey) return;
      event.preventDefault();
      this.go(-1);
    });
  }

  get query() {
    return this.input.value.toLowerCase();
  }

  mark(lines = [...this.view.element.children]) {
    for (const line of lines) line.classList.toggle("match", this.query !== "" && line.textContent.toLowerCase().includes(this.query));
  }

  /** Lines have come: those that match belong to the list too. */
  noteNew(lines) {
    if (this.isComplete && lines.some((line) => line.classList.contains("match"))) this.again();
  }

  /** Look through the whole log; of its matches the one numbered `at` is the current one. */
  async run(at = -1) {
    const query = this.input.value;
    this.scans.abort();
    this.scans = new AbortController();
    const { signal } = this.scans;
    this.mark();
    const found = query ? await this.find(query, signal).catch(() => null) : { hits: [], is_complete: true };
    if (signal.aborted) return;
    this.hits = found?.hits ?? [];
    this.isComplete = found?.is_complete ?? false;
    this.at = at;
    this.show();
  }

  async find(query, signal) {
    const rank = this.view.place.ranks.value;
    const asked = new URLSearchParams({ q: query, ...this.view.shown(), ...(rank && { rank }) });
    const response = await fetch(`${this.view.url}/search?${asked}`, { headers: { Accept: "application/json" }, signal });
    return response.ok ? response.json() : null;
  }

  show() {
    const total = `${this.hits.length}${this.isComplete ? "" : "+"}`;
    if (!this.input.value) this.count.textContent = "";
    else if (!this.hits.length) this.count.textContent = "No match";
    else this.count.textContent = this.at < 0 ? total : `${this.at + 1} of ${total}`;
    this.list.hidden = !this.hits.length;
    if (this.list.childElementCount !== this.hits.length || this.at < 0) this.list.replaceChildren(...this.hits.map((hit, i) => this.row(hit, i)));
    [...this.list.children].forEach((row, i) => row.toggleAttribute("data-current", i === this.at));
  }

  row(hit, index) {
    const row = document.createElement("li");
    const button = document.createElement("button");
    const number = document.createElement("span");
    number.className = "num";
    number.textContent = count(hit.line);
    button.type = "button";
    button.append(number, hit.text);
    button.addEventListener("click", () => this.choose(index));
    row.append(button);
    return row;
  }

  go(by) {
    if (this.hits.length) this.choose((this.at + by + this.hits.length) % this.hits.length);
  }

  /** Show the place of a hit: the first marked line behind it in the piece of the log around it. */
  async choose(index) {
    this.at = index;
    this.show();
    this.list.children[index].scrollIntoView({ block: "nearest" });
    const hit = this.hits[index]; // the list may be another one by then
    if (!(await this.view.showAround(hit.offset))) return;
    const wanted = hit.text.trimEnd();
    const lines = [...this.view.element.children].filter((one) => one.classList.contains("match") && !one.hidden);
    const line = lines.find((one) => one.textContent.includes(wanted)) ?? lines[0];
    for (const one of lines) one.toggleAttribute("data-current", one === line);
    if (line?.classList.contains("of-launcher")) this.view.showReport(true);
    if (line) this.view.element.scrollTop = line.offsetTop - this.view.element.offsetTop - this.view.element.clientHeight / 3;
  }
}
