// The log of a run: the live end of it, or a place in its middle that a search led to.
import { lineElement } from "./log-lines.js";
import { LogSearch } from "./log-search.js";

const MAX_LINES = 5000;
const NEAR_PX = 40;
const AROUND_BYTES = 4000;

export class LogView {
  constructor(section, runId) {
    this.section = section;
    this.url = `/api/v1/runs/${runId}/log`;
    this.element = section.querySelector("#log");
    this.end = section.querySelector("#log-end");
    this.followButton = section.querySelector("#log-follow");
    this.ranks = section.querySelector("#log-rank");
    this.style = {};
    this.isLive = true;
    this.isLoading = false;
    this.loads = new AbortController();
    this.awaited = 0;
    this.search = new LogSearch(section, this);
    this.setFollow(true);
    this.element.addEventListener("scroll", () => this.setFollow(this.isLive && this.isAtEnd()), { passive: true });
    this.end.addEventListener("click", () => this.showEnd());
    this.followButton.addEventListener("click", () => (this.isFollowing ? this.setFollow(false) : this.showEnd()));
    section.querySelector("#log-wrap").addEventListener("click", ({ currentTarget }) => this.toggleWrap(currentTarget));
    this.ranks.addEventListener("change", () => this.filter());
    this.showEnd();
  }

  isAtEnd() {
    return this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight < NEAR_PX;
  }

  setFollow(on) {
    this.isFollowing = on;
    this.end.hidden = on;
    this.followButton.setAttribute("aria-pressed", String(on));
  }

  toggleWrap(button) {
    const wraps = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(wraps));
    this.element.classList.toggle("unwrapped", !wraps);
  }

  /** Load the end of the newest attempt's log anew, and go on from there. */
  async showEnd() {
    this.isLive = true;
    this.setFollow(true);
    this.awaited = 0;
    if (!(await this.load({}))) return;
    this.element.scrollTop = this.element.scrollHeight;
    if (this.awaited > Number(this.element.dataset.offset)) await this.showEnd();
  }

  /** Load what is around a byte of the log; new lines wait until the end is asked for. Resolves as `load` does. */
  async showAround(offset) {
    this.isLive = false;
    this.setFollow(false);
    return this.load({ attempt: this.element.dataset.attempt, offset: Math.max(0, offset - AROUND_BYTES) });
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
    const { attempt, next_offset: next, text } = found;
    this.clear();
    this.element.dataset.attempt = String(attempt);
    this.element.dataset.offset = String(next);
    this.append(query.offset ? text.slice(text.indexOf("\n") + 1) : text); // from a byte in the middle of a line
    return true;
  }

  async fetch(query, signal) {
    const asked = new URLSearchParams({ ...query, colours: "true" });
    const response = await fetch(`${this.url}?${asked}`, { headers: { Accept: "application/json" }, signal });
    return response.ok ? response.json() : null;
  }

  /** Append what is new in `{attempt, offset, next_offset, text}`, or load the end when it does not join what is shown. */
  take({ attempt, offset, next_offset: next, text }) {
    if (!this.isLive) return;
    if (this.isLoading) {
      this.awaited = next; // by then the load may have read less
      return;
    }
    const shown = Number(this.element.dataset.attempt);
    const have = Number(this.element.dataset.offset);
    if (attempt < shown || (attempt === shown && next <= have)) return;
    if (attempt > shown && offset === 0) this.clear();
    else if (attempt > shown || offset !== have) {
      this.showEnd();
      return;
    }
    this.element.dataset.attempt = String(attempt);
    this.element.dataset.offset = String(next);
    this.append(text);
  }

  clear() {
    this.element.replaceChildren();
    this.style = {};
  }

  append(text) {
    const lines = text.split("\n");
    if (lines.at(-1) === "") lines.pop();
    const added = lines.slice(-MAX_LINES).map((line) => {
      const made = lineElement(line, this.style);
      this.style = made.style;
      return made.element;
    });
    this.element.append(...added);
    while (this.element.childElementCount > MAX_LINES) this.element.firstElementChild.remove();
    this.offerRanks(added);
    this.filter(added);
    this.search.mark(added);
    if (this.isFollowing) this.element.scrollTop = this.element.scrollHeight;
  }

  offerRanks(lines) {
    const known = new Set([...this.ranks.options].map((option) => option.value));
    for (const { rank } of lines.map((line) => line.dataset)) {
      if (known.has(rank)) continue;
      known.add(rank);
      this.ranks.append(new Option(`Rank ${rank}`, rank));
    }
    this.ranks.hidden = known.size <= 2;
  }

  filter(lines = [...this.element.children]) {
    const only = this.ranks.value;
    for (const line of lines) line.hidden = only !== "" && line.dataset.rank !== only;
  }
}
