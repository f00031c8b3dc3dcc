// Which log is shown: of which attempt and node, the lines of which process. The address keeps what is not as it comes.

export class LogPlace {
  /** url: of the log; onMove() hears that another one is to be shown. */
  constructor(section, url, onMove) {
    this.url = url;
    this.attempts = section.querySelector("#log-attempt");
    this.nodes = section.querySelector("#log-node");
    this.ranks = section.querySelector("#log-rank");
    this.input = section.querySelector("#log-search");
    this.download = section.querySelector("#log-download");
    const asked = new URLSearchParams(location.search);
    const rank = asked.get("rank") ?? "";
    if (/^\d{1,5}$/.test(rank)) this.offerRank(rank).selected = true;
    this.input.value = asked.get("find") ?? "";
    for (const select of [this.attempts, this.nodes]) {
      select.addEventListener("change", () => {
        this.keepInAddress();
        onMove();
      });
    }
    this.showControls();
  }

  /** The number of the attempt that was chosen; "" while it is the newest one, whichever that is. */
  get chosen() {
    return this.attempts.selectedIndex > 0 ? this.attempts.value : "";
  }

  get node() {
    return Number(this.nodes.value);
  }

  /** What to ask the server for. */
  asked() {
    return { node: this.node, ...(this.chosen && { attempt: this.chosen }) };
  }

  /** Whether an attempt before `attempt` was chosen. */
  isBefore(attempt) {
    return this.chosen !== "" && Number(this.chosen) < attempt;
  }

  /** A newer attempt comes on top; whoever looks at the newest one goes on with it. */
  offerAttempt(attempt) {
    if (attempt <= Number(this.attempts.options[0].value)) return;
    const isOnNewest = !this.chosen;
    this.attempts.prepend(new Option(`Attempt ${attempt}`, attempt));
    if (isOnNewest) this.attempts.selectedIndex = 0;
    this.showControls();
  }

  offerRank(rank) {
    const option = new Option(`Rank ${rank}`, rank);
    this.ranks.append(option);
    return option;
  }

  offerRanks(lines) {
    const known = new Set([...this.ranks.options].map((option) => option.value));
    for (const { rank } of lines.map((line) => line.dataset)) {
      if (known.has(rank)) continue;
      known.add(rank);
      this.offerRank(rank);
    }
    this.showControls();
  }

  showControls() {
    this.attempts.hidden = this.attempts.options.length < 2;
    this.nodes.hidden = this.nodes.options.length < 2;
    this.ranks.hidden = this.ranks.options.length <= 2 && !this.ranks.value;
    this.download.href = `${this.url}/download?${new URLSearchParams(this.asked())}`;
  }

  keepInAddress() {
    const query = new URLSearchParams(location.search);
    const kept = { attempt: this.chosen, node: this.node || "", rank: this.ranks.value, find: this.input.value };
    for (const [name, value] of Object.entries(kept)) {
      if (value) query.set(name, value);
      else query.delete(name);
    }
    history.replaceState(history.state, "", location.pathname + (query.size ? `?${query}` : "") + location.hash);
    this.showControls();
  }
}
