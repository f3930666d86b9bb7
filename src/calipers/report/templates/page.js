"use strict";
// Three things the page does on its own: charts say what is pointed at, the gallery sorts and filters, a witness grows.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  for (const [id, { stops, told, upright }] of Object.entries(charts)) {
    const chart = document.getElementById(id);
    if (!chart || !stops.length) continue;
    const plot = chart.querySelector(".plot"), pointer = chart.querySelector(".pointer");
    const output = chart.parentElement.querySelector(`output[for="${CSS.escape(id)}"]`);
    let at = -1;
    const point = (to) => {
      at = Math.max(0, Math.min(stops.length - 1, to));
      pointer.hidden = false;
      pointer.className = upright ? "pointer upright" : "pointer level";
      pointer.style[upright ? "left" : "top"] = `${stops[at] / 10}%`;
      output.textContent = told[at];
    };
    const nearest = (place) => {
      let low = 0, high = stops.length - 1;
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (stops[middle] <= place) low = middle; else high = middle;
      }
      return place - stops[low] <= stops[high] - place ? low : high;
    };
    chart.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const part = upright ? (event.clientX - box.left) / box.width : (event.clientY - box.top) / box.height;
      point(nearest(1000 * part));
    });
    chart.addEventListener("keydown", (event) => {
      const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 10, PageUp: -10,
        Home: -stops.length, End: stops.length };
      if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      point(at + moves[event.key]);
    });
  }

  const form = document.querySelector(".controls");
  if (!form) return;
  const list = document.querySelector(".gallery"), more = document.getElementById("more");
  const dialog = document.getElementById("large"), large = dialog.querySelector("div");
  const all = [...list.children], STEP = 24;
  let found = all, shown = STEP, open = 0;
  const order = { near: (a, b) => a.dataset.rank - b.dataset.rank, far: (a, b) => b.dataset.rank - a.dataset.rank,
    index: (a, b) => a.dataset.index - b.dataset.index };

  const hang = () => {
    const { sort, label, answer } = Object.fromEntries(new FormData(form));
    found = all.filter(({ dataset: it }) => (!label || it.label === label) && (!answer || it.answer === answer));
    found.sort(order[sort]);
    list.replaceChildren(...found.slice(0, shown));
    more.hidden = found.length <= shown;
    form.querySelector("output").textContent = `${found.length} of ${all.length} witnesses`;
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => { shown = STEP; hang(); });
  more.addEventListener("click", () => {
    shown += STEP;
    hang();
    found[shown - STEP]?.querySelector("button").focus();
  });

  const enlarge = (to) => {
    open = (to + found.length) % found.length;
    large.replaceChildren(...found[open].cloneNode(true).children);
    // A picture inside the dialog is large already: it is no button there.
    const button = large.querySelector("button.pictures"), still = document.createElement("div");
    still.className = "pictures";
    still.replaceChildren(...button.childNodes);
    button.replaceWith(still);
    if (!dialog.open) dialog.showModal();
  };
  list.addEventListener("click", (event) => {
    const card = event.target.closest("button.pictures")?.closest("li");
    if (card) enlarge(found.indexOf(card));
  });
  dialog.addEventListener("click", (event) => {
    const name = event.target.name;
    if (event.target === dialog || name === "close") dialog.close();
    if (name === "back") enlarge(open - 1);
    if (name === "on") enlarge(open + 1);
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") enlarge(open + 1);
    if (event.key === "ArrowLeft") enlarge(open - 1);
  });
  hang();
})();
