"use strict";
// Unpacks Plotly and the figures, and draws every .plot in the colours of a light or a dark page, and again when that
// changes.
(async () => {
  function unpacked(id) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  // A page that changes its figures while it is open hands them over in an event, which may come before Plotly is ready.
  let given = null, draw_again = () => {};
  document.addEventListener("plots", (event) => { given = event.detail; draw_again(); });

  const library = document.createElement("script");
  library.textContent = await unpacked("plotly");
  document.head.append(library);
  const specs = JSON.parse(await unpacked("plots"));
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 640px)");

  function translucent(hex, alpha) {
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},${alpha})`;
  }

  function painted(trace, theme, paper) {
    const copy = { ...trace };
    const colour = trace.meta[theme];
    if (trace.line) copy.line = { ...trace.line, color: colour };
    if (trace.marker) {
      const edge = /open$/.test(trace.marker.symbol) ? colour : paper;
      copy.marker = { ...trace.marker, color: colour, line: { ...trace.marker.line, color: edge } };
      if (/open$/.test(trace.marker.symbol)) copy.marker.line.width = 2;
    }
    for (const arms of ["error_x", "error_y"]) if (trace[arms]) copy[arms] = { ...trace[arms], color: colour };
    if (trace.meta.fill) copy.fillcolor = translucent(colour, theme === "dark" ? 0.22 : 0.16);
    return copy;
  }

  function draw(div) {
    const theme = dark.matches ? "dark" : "light";
    const css = getComputedStyle(document.documentElement);
    const value = (name) => css.getPropertyValue(name).trim();
    const spec = (given ?? specs)[div.dataset.plot];
    const figure = div.closest("figure");
    if (figure) figure.hidden = !spec;
    if (!spec) return;
    const axis = (given) => ({
      ...given,
      gridcolor: value("--line"), linecolor: value("--muted"), tickcolor: value("--muted"), zerolinecolor: value("--muted"),
      showline: true, ticks: "outside", ticklen: 4, showgrid: true,
    });
    const layout = {
      ...spec.layout,
      font: { family: css.fontFamily, size: narrow.matches ? 11 : 13, color: value("--ink") },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      xaxis: axis(spec.layout.xaxis), yaxis: axis(spec.layout.yaxis),
      modebar: { bgcolor: "rgba(0,0,0,0)", color: value("--muted"), activecolor: value("--ink") },
      hoverlabel: { font: { family: css.fontFamily } },
      height: div.clientHeight || 460,
      uirevision: "kept",  // a zoom outlives a redrawing
      // Below the axis title, however tall the plot is.
      legend: { ...spec.layout.legend, y: -58 / (0.58 * (div.clientHeight || 460)) },
    };
    if (narrow.matches) {
      layout.margin = { l: 44, r: 12, t: 8, b: 40 };
      layout.dragmode = false;
    }
    const config = { responsive: true, displaylogo: false, displayModeBar: narrow.matches ? false : "hover",
                     modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]] };
    Plotly.react(div, spec.data.map((trace) => painted(trace, theme, value("--paper"))), layout, config);
  }

  const all = () => document.querySelectorAll(".plot").forEach(draw);
  document.documentElement.classList.add("live");
  all();
  draw_again = all;
  dark.addEventListener("change", all);
  narrow.addEventListener("change", all);
})();
