// The live end of a run's log: appended by byte offset, kept at the bottom unless the reader scrolled up.

const MAX_CHARACTERS = 400_000;
const NEAR_PX = 40;

export class LogView {
  constructor(element) {
    this.attach(element);
  }

  /** Take over the element again after the region was refetched. */
  attach(element) {
    if (!element || element === this.element) return;
    this.element = element;
    this.button = document.getElementById("log-end");
    this.follow = true;
    element.addEventListener("scroll", () => {
      this.follow = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_PX;
      this.button.hidden = this.follow;
    });
    this.button.addEventListener("click", () => {
      this.follow = true;
      this.toEnd();
    });
    this.toEnd();
  }

  toEnd() {
    this.element.scrollTop = this.element.scrollHeight;
  }

  /** Append what is new in `{attempt, offset, next_offset, text}`. Returns false when it does not join what is shown. */
  take({ attempt, offset, next_offset: next, text }) {
    const shown = Number(this.element.dataset.attempt);
    const have = Number(this.element.dataset.offset);
    if (attempt < shown || (attempt === shown && next <= have)) return true;
    if (attempt > shown) {
      if (offset !== 0) return false;
      this.element.textContent = "";
    } else if (offset !== have) return false;
    this.append(text);
    this.element.dataset.attempt = String(attempt);
    this.element.dataset.offset = String(next);
    return true;
  }

  append(text) {
    this.element.append(text);
    if (this.element.textContent.length > MAX_CHARACTERS) {
      this.element.textContent = this.element.textContent.slice(-MAX_CHARACTERS / 2);
    }
    if (this.follow) this.toEnd();
  }
}
