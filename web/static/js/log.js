// The log of a run: the live end of it, or a place in its middle; of any attempt, of any node. The address keeps which.
import { lineElement } from "./log-lines.js";
import { LogPlace } from "./log-place.js";
import { LogSearch } from "./log-search.js";

const MAX_LINES = 5000;
const NEAR_PX = 40;
const AROUND_BYTES = 4000;
const BACK_BYTES = 48_000; // of the 64,000 that one answer holds: the line that was the first one is in it
const OPENING_LINES = 5;
const OTHER_NODES_MS = 3000;

const encoder = new TextEncoder();

export class LogView {
  /** onStep(step, reach): a line's step was chosen. */
  constructor(section, runId, onStep) {
    this.url = `/api/v1/runs/${runId}/log`;
    this.element = section.querySelector("#log");
    this.end = section.querySelector("#log-end");
    this.earlier = section.querySelector("#log-earlier");
    this.later = section.querySelector("#log-later");
    this.followButton = section.querySelector("#log-follow");
    this.report = section.querySelector("#log-report");
    this.launcher = new RegExp(this.element.dataset.launcher); // begins what torchrun says behind all of training
    this.isReport = false;
    this.style = {};
    this.start = 0; // the byte with which the first line begins, about
    this.isLive = true;
    this.isLoading = false;
    this.loads = new AbortController();
    this.awaited = 0;
    this.place = new LogPlace(section, this.url, () => this.showEnd());
    this.search = new LogSearch(section, this);
    this.setFollow(true);
    this.element.addEventListener("scroll", () => this.setFollow(this.isLive && this.isAtEnd()), { passive: true });
    this.element.addEventListener("click", (event) => this.onLink(event, onStep));
    this.end.addEventListener("click", () => this.showEnd());
    this.earlier.addEventListener("click", () => this.showEarlier());
    this.later.addEventListener("click", () => this.showLater());
    this.followButton.addEventListener("click", () => (this.isFollowing ? this.setFollow(false) : this.showEnd()));
    section.querySelector("#log-wrap").addEventListener("click", ({ currentTarget }) => this.toggleWrap(currentTarget));
    this.report.addEventListener("click", () => this.showReport(this.report.getAttribute("aria-expanded") !== "true"));
    this.place.ranks.addEventListener("change", () => this.onRank());
    setInterval(() => this.pollOtherNode(), OTHER_NODES_MS);
    this.showEnd().then(() => this.search.run());
  }

  get attempt() {
    return Number(this.element.dataset.attempt);
  }

  get next() {
    return Number(this.element.dataset.offset);
  }

  isAtEnd() {
    return this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight < NEAR_PX;
  }

  setFollow(on) {
    this.isFollowing = on;
    this.end.hidden = on;
    this.later.hidden = this.isLive;
    this.followButton.setAttribute("aria-pressed", String(on));
  }

  toggleWrap(button) {
    const wraps = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(wraps));
    this.element.classList.toggle("unwrapped", !wraps);
  }

  /** Unfold what torchrun reports, or fold it: the words of training stand before it, and would be out of sight. */
  showReport(on) {
    this.report.setAttribute("aria-expanded", String(on));
    this.element.classList.toggle("with-report", on);
    if (this.isFollowing) this.element.scrollTop = this.element.scrollHeight;
  }

  onRank() {
    this.place.keepInAddress();
    this.filter();
    this.search.run();
  }

  onLink(event, onStep) {
    const link = event.target.closest("a[data-step]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    onStep(Number(link.dataset.step), Number(link.dataset.reach));
  }

  /** Load the end of the log anew, of the newest attempt unless another one was chosen, and go on from there. */
  async showEnd() {
    this.isLive = true;
    this.setFollow(true);
    this.awaited = 0;
    if (!(await this.load(this.place.asked()))) return;
    this.element.scrollTop = this.element.scrollHeight;
    if (this.awaited > this.next) await this.showEnd();
  }

  /** Load what is around a byte of the log; new lines wait until the end is asked for. Resolves as `load` does. */
  async showAround(offset) {
    return this.showFrom(Math.max(0, offset - AROUND_BYTES));
  }

  showFrom(offset) {
    this.isLive = false;
    this.setFollow(false);
    return this.load({ ...this.shown(), offset });
  }

  /** Load what is before the first line, which stays in sight. */
  async showEarlier() {
    const first = opening([...this.element.children], 0);
    if (!(await this.showFrom(Math.max(0, this.start - BACK_BYTES)))) return;
    const line = [...this.element.children].find((_, i, lines) => opening(lines, i) === first);
    if (line) this.element.scrollTop = line.offsetTop - this.element.offsetTop;
    this.element.focus({ preventScroll: true });
  }

  /** Append what is behind the last line; at the end the log goes on by itself. */
  async showLater() {
    const found = await this.fetch({ ...this.shown(), offset: this.next }).catch(() => null);
    if (!found || this.isLive) return;
    if (found.next_offset <= this.next) return this.showEnd();
    this.element.dataset.offset = String(found.next_offset);
    this.append(found.text);
  }

  shown() {
    return { attempt: this.attempt, node: this.place.node };
  }

  /** Show another piece of the log; only the last that was asked for counts. Resolves to whether it is shown now. */
  async load(query) {
    this.loads.abort();
    this.loads = new AbortController();
    this.isLoading = true;
    const { signal } = this.loads;
    const found = await this.fetch(query, signal).catch(() => null);
    if (signal.aborted) return false;
    this.isLoading = false;
    if (!found) return false;
    const { attempt, offset, next_offset: next, text } = found;
    this.clear();
    this.start = offset;
    this.element.dataset.attempt = String(attempt);
    this.element.dataset.offset = String(next);
    this.place.offerAttempt(attempt);
    this.append(query.offset ? text.slice(text.indexOf("\n") + 1) : text); // from a byte in the middle of a line
    this.earlier.hidden = this.start === 0;
    return true;
  }

  async fetch(query, signal) {
    const asked = new URLSearchParams({ ...query, colours: "true" });
    const response = await fetch(`${this.url}?${asked}`, { headers: { Accept: "application/json" }, signal });
    return response.ok ? response.json() : null;
  }

  /** Append what is new in `{attempt, offset, next_offset, text}`, or load the end when it does not join what is shown.
   * The stream has the first node alone.
   */
  take({ attempt, offset, next_offset: next, text }) {
    this.place.offerAttempt(attempt);
    if (!this.isLive || this.place.isBefore(attempt)) return;
    if (this.isLoading) {
      this.awaited = next; // by then the load may have read less
      return;
    }
    if (attempt < this.attempt || (attempt === this.attempt && (this.place.node || next <= this.next))) return;
    if (attempt > this.attempt && offset === 0 && !this.place.node) this.clear();
    else if (attempt > this.attempt || offset !== this.next) {
      this.showEnd();
      return;
    }
    this.element.dataset.attempt = String(attempt);
    this.grow(text, next);
  }

  /** What the stream does for the first node. */
  async pollOtherNode() {
    if (!this.place.node || !this.isLive || this.isLoading || document.hidden) return;
    const { place, attempt, next } = this;
    const node = place.node;
    const found = await this.fetch({ attempt, node, offset: next }).catch(() => null);
    const isSame = this.isLive && !this.isLoading && node === place.node && attempt === this.attempt && next === this.next;
    if (found && isSame && found.next_offset > next) this.grow(found.text, found.next_offset);
  }

  grow(text, next) {
    this.element.dataset.offset = String(next);
    this.search.noteNew(this.append(text));
  }

  clear() {
    this.element.replaceChildren();
    this.style = {};
    this.isReport = false;
    this.start = 0;
    this.earlier.hidden = true;
  }

  append(text) {
    const lines = text.split("\n");
    if (lines.at(-1) === "") lines.pop();
    const added = lines.slice(-MAX_LINES).map((line) => {
      const made = lineElement(line, this.style);
      this.style = made.style;
      made.element.numBytes = encoder.encode(line).length + 1; // with its escapes for colours, as it lies in the log
      this.isReport ||= this.launcher.test(line);
      made.element.classList.toggle("of-launcher", this.isReport);
      return made.element;
    });
    this.element.append(...added);
    this.report.hidden = !this.isReport;
    while (this.element.childElementCount > MAX_LINES) this.dropFirst();
    this.place.offerRanks(added);
    this.filter(added);
    this.search.mark(added);
    if (this.isFollowing) this.element.scrollTop = this.element.scrollHeight;
    return added;
  }

  dropFirst() {
    const line = this.element.firstElementChild;
    this.start += line.numBytes;
    this.earlier.hidden = false;
    line.remove();
  }

  filter(lines = [...this.element.children]) {
    const only = this.place.ranks.value;
    for (const line of lines) line.hidden = only !== "" && line.dataset.rank !== only;
  }
}

/** Some lines from the one numbered `i` on: one alone may stand in a log many times. */
function opening(lines, i) {
  return lines.slice(i, i + OPENING_LINES).map((line) => line.textContent).join("");
}
