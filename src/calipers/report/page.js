"use strict";
// Draws the charts with the page's own colours, and draws them again when these change.
(() => {
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const touch = matchMedia("(pointer: coarse)").matches;
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  const onPaper = matchMedia("print");

  const resolve = (value, style) => {
    if (typeof value === "string") {
      const name = /^var\((--[a-z-]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => resolve(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item, style)]));
  };

  const draw = (width) => {
    const style = getComputedStyle(document.documentElement);
    for (const [id, spec] of Object.entries(specs)) {
      const { data, layout } = resolve(spec, style);
      // A finger that drags means to scroll the page, not to zoom the chart.
      Plotly.react(id, data, { ...layout, width, dragmode: touch ? false : "zoom" }, config);
    }
  };

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  onPaper.addEventListener("change", () => draw(onPaper.matches ? 640 : undefined));
})();
