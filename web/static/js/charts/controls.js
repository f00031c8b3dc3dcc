// The bar above the charts, and the address, which follows it.
import { PART } from "./catalog.js";
import { coalesce } from "../live.js";
import { writeView } from "./view.js";

const ADDRESS_MS = 500; // Safari refuses more than 100 changes of the address in 30 s

export class Controls {
  constructor(bar, group) {
    this.bar = bar;
    this.group = group;
    /** Keep the view in the address, so that a reload or a link restores it. */
    this.keepView = coalesce(() => keepInAddress(group.view), ADDRESS_MS);
    this.field("x").addEventListener("change", (event) => group.setX(event.target.value));
    this.field("logx").addEventListener("change", (event) => group.change({ logX: event.target.checked }));
    this.field("smooth").addEventListener("input", (event) => group.change({ smoothing: Number(event.target.value) }));
    this.field("filter").addEventListener("input", (event) => group.change({ filter: event.target.value.trim(), page: 1 }));
    this.field("marks")?.addEventListener("change", (event) => group.change({ marks: event.target.checked }));
    for (const button of bar.querySelectorAll("[data-layout]")) button.addEventListener("click", () => group.change({ layout: button.dataset.layout }));
    for (const button of bar.querySelectorAll("[data-turn]")) button.addEventListener("click", () => this.turn(Number(button.dataset.turn)));
    this.reset = bar.querySelector(".reset");
    this.reset.addEventListener("click", () => group.zoomTo(null));
    this.field("filter").value = group.view.filter;
  }

  field(name) {
    return this.bar.querySelector(`[name="${name}"]`);
  }

  turn(by) {
    this.group.change({ page: this.group.view.page + by });
  }

  /** Show the view; `part` is the catalog's, `hasTokens` whether steps can be told in tokens. */
  show(part, numCoders, hasTokens) {
    const { view } = this.group;
    this.field("x").value = view.x;
    this.field("x").querySelector("[value=tokens]").disabled = !hasTokens;
    this.field("logx").checked = view.logX;
    if (this.field("marks")) this.field("marks").checked = view.marks; // where there are none there is no box
    this.field("smooth").value = String(view.smoothing);
    this.bar.querySelector("output").textContent = view.smoothing ? view.smoothing.toFixed(2) : "off";
    for (const button of this.bar.querySelectorAll("[data-layout]")) button.setAttribute("aria-pressed", String(button.dataset.layout === view.layout));
    for (const element of this.bar.querySelectorAll(".of-many")) element.hidden = numCoders < 2;
    this.reset.hidden = !view.zoom;
    this.showPart(part, numCoders);
  }

  showPart({ coders, from, total }, numCoders) {
    const pager = this.bar.querySelector(".part");
    pager.hidden = numCoders <= PART;
    const range = total ? `${from + 1}–${from + coders.length} of ${total}` : `none of ${numCoders}`;
    pager.querySelector("span").textContent = range;
    pager.querySelector("[data-turn='-1']").disabled = from === 0;
    pager.querySelector("[data-turn='1']").disabled = from + coders.length >= total;
  }
}

function keepInAddress(view) {
  const query = writeView(view, new URLSearchParams(location.search)).toString();
  history.replaceState(history.state, "", location.pathname + (query ? `?${query}` : "") + location.hash);
}
