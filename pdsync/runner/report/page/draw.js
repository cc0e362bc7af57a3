// Draws the charts from the data block, one after the other, so that the page can be read and scrolled meanwhile.
// Vega's interpreter evaluates expressions without building code, which the page's content policy would forbid.
// Colours are variables of the style sheet, so a change of theme needs no redraw.
(function () {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const waiting = [...document.querySelectorAll("[data-chart]")];

  function draw(box) {
    const chart = data.charts[box.dataset.chart];
    const spec = JSON.parse(JSON.stringify(data.specs[chart.spec]));
    spec.data.find((set) => set.name === "rows").values = chart.rows;
    new vega.View(vega.parse(spec, null, { ast: true }), {
      expr: vega.expressionInterpreter, renderer: "svg", container: box, hover: false, logLevel: vega.Warn,
    }).run();
    const svg = box.querySelector("svg");
    for (const name of ["role", "aria-roledescription", "aria-label"]) box.removeAttribute(name);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", box.dataset.label);
    box.classList.add("drawn");
  }

  function drawNext() {
    if (waiting.length) {
      draw(waiting.shift());
      setTimeout(drawNext);
    }
  }
  setTimeout(drawNext);

  const opened = [];
  window.addEventListener("beforeprint", function () {
    waiting.splice(0).forEach(draw);
    for (const details of document.querySelectorAll("details:not([open])")) {
      details.open = true;
      opened.push(details);
    }
  });
  window.addEventListener("afterprint", function () {
    for (const details of opened.splice(0)) details.open = false;
  });
})();
