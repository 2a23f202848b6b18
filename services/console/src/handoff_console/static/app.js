// What pages need beyond htmx: the viewer's own time in tips, charts, and a question before what
// cannot be taken back. Without it every page still works.
"use strict";

(() => {
  // A time says the viewer's own in its tip: under the pointer, at a tap, and for the keyboard. What
  // takes the focus in a row of a table says the times of that row; where nothing does, and beside
  // tables, a time takes the focus itself. Pages may hold hundreds of rows.
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
  const TIME = "time[datetime]";
  const ACTS = "a, button, summary";
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "tooltip");
  let told = [];
  let described = null;

  function placeTip() {
    if (tip.hidden) return;
    if (!told.every((time) => time.isConnected)) return closeTip();
    tip.textContent = told.map((time) => local.format(new Date(time.dateTime))).join("\n");
    const at = told[0].getBoundingClientRect();
    const { width, height } = tip.getBoundingClientRect();
    const below = at.bottom + 4 + height <= innerHeight;
    tip.style.left = `${Math.max(4, Math.min(at.left, document.documentElement.clientWidth - width - 4))}px`;
    tip.style.top = `${below ? at.bottom + 4 : at.top - height - 4}px`;
  }

  function openTip(times, by) {
    closeTip();
    told = times;
    described = by;
    tip.hidden = false;
    described.setAttribute("aria-describedby", tip.id);
    placeTip();
  }

  function closeTip() {
    tip.hidden = true;
    if (described?.getAttribute("aria-describedby") === tip.id) {
      described.removeAttribute("aria-describedby");
    }
    described = null;
  }

  function tipUnderPointer(event) {
    if (described?.matches(":focus-visible") || tip.contains(event.target)) return;
    const time = event.target.closest?.(TIME) ?? null;
    if (time === described) return;
    if (time) openTip([time], time);
    else closeTip();
  }
  document.addEventListener("mouseover", tipUnderPointer);
  document.addEventListener("pointerdown", tipUnderPointer);
  document.addEventListener("focusin", ({ target }) => {
    if (!target.matches(":focus-visible")) return;
    const acts = target.closest(ACTS);
    const inside = target.closest(TIME) ?? acts?.querySelector(TIME);
    const times = inside ? [inside] : [...(acts?.closest("tr")?.querySelectorAll(TIME) ?? [])];
    const seen = times.filter((time) => time.checkVisibility());
    if (seen.length) openTip(seen, target);
  });
  document.addEventListener("focusout", ({ target }) => {
    if (target === described) closeTip();
  });
  addEventListener("scroll", placeTip, true);

  function reachTimes() {
    for (const time of document.querySelectorAll(`${TIME}:not([tabindex])`)) {
      if (!time.closest("a") && !time.closest("tr")?.querySelector(ACTS)) time.tabIndex = 0;
    }
  }
  for (const name of ["DOMContentLoaded", "htmx:afterSwap", "htmx:sseMessage"]) {
    document.addEventListener(name, () => {
      reachTimes();
      placeTip();
    });
  }
  document.addEventListener("DOMContentLoaded", () => document.body.append(tip));

  // <form data-confirm="Really?">: asked first, in a dialog of our own.
  document.addEventListener(
    "submit",
    (event) => {
      const form = event.target;
      const question = form.dataset?.confirm;
      if (!question || form.dataset.confirmed) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      const dialog = document.getElementById("confirm");
      document.getElementById("confirm-text").textContent = question;
      dialog.returnValue = "";
      dialog.addEventListener(
        "close",
        () => {
          if (dialog.returnValue !== "yes") return;
          form.dataset.confirmed = "yes";
          form.requestSubmit(event.submitter ?? undefined);
          delete form.dataset.confirmed;
        },
        { once: true },
      );
      dialog.showModal();
    },
    true,
  );

  // What is on its way is not sent once more by the next press of the button. Behind the question
  // above, which stops what it asks about; the way back leads to forms that can be sent.
  const underWay = new Set();
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post" || event.defaultPrevented) return;
    if (underWay.has(form)) {
      event.preventDefault();
      return;
    }
    underWay.add(form);
    // Who has stopped the page from loading means the next press.
    setTimeout(() => underWay.delete(form), 10000);
  });
  addEventListener("pageshow", () => underWay.clear());

  // <select data-submits>: a filter acts as soon as it is chosen.
  document.addEventListener("change", (event) => {
    if (event.target.matches?.("[data-submits]")) event.target.form.requestSubmit();
  });

  const openMenus = () => document.querySelectorAll("details.menu[open]");
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    closeTip();
    for (const menu of openMenus()) {
      // What had the focus is not seen any more.
      if (menu.contains(document.activeElement)) menu.querySelector("summary").focus();
      menu.open = false;
    }
  });
  document.addEventListener("click", (event) => {
    for (const menu of openMenus()) if (!menu.contains(event.target)) menu.open = false;
  });

  // [data-live] is asked for again and again, but not while nobody looks.
  document.addEventListener("htmx:beforeRequest", (event) => {
    const element = event.detail.elt;
    if (!element.matches?.("[data-live]")) return;
    if (document.hidden) event.preventDefault();
  });

  // Where it cannot be told, the figures stay and say that they stand still, until the next answer.
  function standStill(event) {
    const { elt } = event.detail.requestConfig;
    if (!elt.matches("[data-live]")) return;
    if (event.detail.isError === false) return;
    event.detail.shouldSwap = false;
    const said = elt.querySelector(".live");
    said.classList.add("still");
    said.querySelector("strong").textContent = "Not live just now";
  }
  for (const name of ["htmx:beforeSwap", "htmx:sendError", "htmx:timeout"]) {
    document.addEventListener(name, standStill);
  }

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  // Bytes as formats.size writes them.
  function size(count) {
    const units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    const power = count ? Math.min(Math.floor(Math.log10(count) / 3), units.length - 1) : 0;
    return `${+(count / 1000 ** power).toFixed(1)} ${units[power]}`;
  }

  function draw(plot) {
    const given = JSON.parse(plot.dataset.chart);
    const axis = {
      stroke: colour("--muted"),
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { stroke: colour("--line"), width: 1 },
      font: "12px system-ui",
    };
    const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
    const bars = uPlot.paths.bars({ size: [0.7, 40], align: 1 });
    const last = given.x.length - 1;
    const step = last > 0 ? given.x[last] - given.x[last - 1] : 3600;
    const barred = given.series.some((one) => one.kind === "bars");
    // A bar begins at its time: the last one needs the room of its own period.
    const range = () => [given.x[0], given.x[last] + (barred || last === 0 ? step : 0)];
    // uPlot's own texts have the American order and twelve hours.
    const dates = [
      [31536000, "{YYYY}", null, null, null, null, null, null, 1],
      [2419200, "{YYYY}-{MM}", null, null, null, null, null, null, 1],
      [86400, "{MM}-{DD}", "\n{YYYY}", null, null, null, null, null, 1],
      [60, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
    ];
    plot.textContent = "";
    plot.drawn?.destroy();
    plot.drawn = new uPlot(
      {
        width: plot.clientWidth,
        height: plot.clientHeight - 28,
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
        cursor: { drag: { x: false, y: false } },
        legend: { live: true },
        scales: { x: { range }, y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.05 : 1] } },
        axes: [{ ...axis, values: dates }, { ...axis, size: 60, values: (_, values) => values.map((v) => (given.unit === "B" ? size(v) : short.format(v))) }],
        series: [
          { label: "UTC", value: "{YYYY}-{MM}-{DD} {HH}:{mm}" },
          ...given.series.map((one, index) => ({
            label: one.label,
            stroke: colour(`--series-${index + 1}`),
            fill: one.kind === "bars" ? colour(`--series-${index + 1}`) : undefined,
            width: one.kind === "bars" ? 0 : 2,
            paths: one.kind === "bars" ? bars : undefined,
            points: { show: given.x.length < 3 },
            value: (_, value) => {
              if (value == null) return "–";
              return given.unit === "B" ? size(value) : value.toLocaleString("en");
            },
          })),
        ],
      },
      [given.x, ...given.series.map((one) => one.values)],
      plot,
    );
  }

  function drawAll(root) {
    if (typeof uPlot === "undefined") return;
    for (const plot of root.querySelectorAll("[data-chart]")) draw(plot);
  }

  // A link to a field that lies behind a fold opens the fold.
  function unfold() {
    const field = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!field) return;
    for (let fold = field.closest("details"); fold; fold = fold.parentElement.closest("details")) {
      fold.open = true;
    }
    field.scrollIntoView({ block: "center" });
    field.querySelector("input, select, textarea")?.focus({ preventScroll: true });
  }
  addEventListener("hashchange", unfold);

  // After a refusal the keyboard is where something is to be mended.
  function begin() {
    if (location.hash) return;
    const alert = document.querySelector("main [role='alert']");
    const place = document.querySelector("[aria-invalid='true'], [autofocus]") ?? alert;
    if (place === alert) alert?.setAttribute("tabindex", "-1");
    place?.focus();
  }

  document.addEventListener("DOMContentLoaded", () => {
    begin();
    // The tab of this page is in sight where all of them are wider than a phone.
    for (const tab of document.querySelectorAll("nav [aria-current]")) {
      tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    drawAll(document);
  });
  // Behind the browser's own jump to the place, which takes the focus away.
  addEventListener("load", () => requestAnimationFrame(() => setTimeout(unfold)));
  document.addEventListener("htmx:afterSwap", (event) => drawAll(event.target));
  let resizing;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => drawAll(document), 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(document));
})();
