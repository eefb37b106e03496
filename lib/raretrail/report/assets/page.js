(() => {
  "use strict";
  const list = document.querySelector(".incidents");
  const bar = document.querySelector(".filter");
  const open = () => {
    let target = null;
    try { target = document.getElementById(decodeURIComponent(location.hash.slice(1))); } catch { return; }
    if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", open);
  if (list && bar) {
    const all = [...list.children].filter((e) => e.tagName === "DETAILS");
    const said = new Map(all.map((e) => [e, e.querySelector("summary").textContent.toLowerCase() + " " + e.id]));
    const words = bar.querySelector("[name=words]");
    const order = bar.querySelector("[name=order]");
    const boxes = [...bar.querySelectorAll("[type=checkbox]")];
    const told = bar.querySelector("output");
    const filter = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      const levels = new Set(boxes.filter((b) => b.checked).map((b) => b.value));
      let shown = 0;
      for (const e of all) {
        const fits = levels.has(e.dataset.severity) && wanted.every((w) => said.get(e).includes(w));
        e.hidden = !fits;
        shown += fits;
      }
      told.textContent = `${shown} of ${all.length} shown`;
    };
    const sort = () => {
      const key = order.value === "time" ? "time" : "score";
      const value = (e) => (key === "time" ? e.dataset.time : Number(e.dataset.score));
      list.append(...[...all].sort((a, b) => (value(a) < value(b) ? 1 : value(a) > value(b) ? -1 : 0)));
    };
    words.addEventListener("input", filter);
    order.addEventListener("change", sort);
    boxes.forEach((b) => b.addEventListener("change", filter));
    bar.querySelector(".fold").addEventListener("click", () => all.forEach((e) => { e.open = false; }));
    bar.hidden = false;
    filter();
  }
  open();
})();
