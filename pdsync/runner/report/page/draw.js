// Draws the charts from the data block. Vega's interpreter evaluates expressions without building code, which the
// page's content policy would forbid. Colours are variables of the style sheet, so a change of theme needs no redraw.
(function () {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  for (const box of document.querySelectorAll("[data-chart]")) {
    const chart = data.charts[box.dataset.chart];
    const spec = JSON.parse(JSON.stringify(data.specs[chart.spec]));
    spec.data.find((set) => set.name === "rows").values = chart.rows;
    const view = new vega.View(vega.parse(spec, null, { ast: true }), {
      expr: vega.expressionInterpreter, renderer: "svg", container: box, hover: false, logLevel: vega.Warn,
    });
    view.runAsync().then(function () {
      const svg = box.querySelector("svg");
      for (const name of ["role", "aria-roledescription", "aria-label"]) box.removeAttribute(name);
      svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", box.dataset.label);
      box.classList.add("drawn");
    });
  }
  const opened = [];
  window.addEventListener("beforeprint", function () {
    for (const details of document.querySelectorAll("details:not([open])")) {
      details.open = true;
      opened.push(details);
    }
  });
  window.addEventListener("afterprint", function () {
    for (const details of opened.splice(0)) details.open = false;
  });
})();
