// The board: DataTables sorts, filters and searches the tables of the page, Observable Plot draws what they show.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const one = (id) => document.getElementById(id);
  const controls = {
    dataset: one("dataset"), family: one("family"), search: one("search"),
    metric: one("plot-metric"), cost: one("plot-cost"),
  };
  const checked = (name) => [...document.querySelectorAll(`input[name=${name}]:checked`)].map((box) => box.value);
  const tables = new Map();

  // Values sort as numbers, in either direction with the missing ones last.
  const number = (cell) => Number.parseFloat(cell);
  const ordered = (a, b, sign) => (Number.isNaN(a) ? (Number.isNaN(b) ? 0 : 1) : Number.isNaN(b) ? -1 : sign * (a - b));
  DataTable.type("value", {
    detect: () => false,
    order: { pre: number, asc: (a, b) => ordered(a, b, 1), desc: (a, b) => ordered(a, b, -1) },
  });

  const columnsOf = (table) => [...table.tHead.rows[0].cells].map((cell) => {
    const name = cell.dataset.name;
    const number = cell.classList.contains("num");
    const directions = cell.dataset.higher ? ["desc", "asc"] : ["asc", "desc"];
    return { name, type: name === "group" || number ? "value" : "html", orderSequence: directions, visible: name !== "group" };
  });

  function create(section) {
    const element = section.querySelector("table");
    const columns = columnsOf(element);
    const heads = [...element.tHead.rows[0].cells];
    const start = columns.findIndex((column) => column.name === `${section.dataset.headline}/all`);
    const first = start < 0 ? columns.findIndex((column) => column.name.includes("/")) : start;
    const table = new DataTable(element, {
      columns, paging: false, info: false, autoWidth: false, layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
      ordering: { handler: false, indicators: false },
      orderFixed: { pre: [[columns.length - 1, "asc"]] }, // a smoke run never stands above a result
      order: [[first, columns[first].orderSequence[0]]],
      rowGroup: {
        dataSrc: (row) => row[columns.length - 1].display,
        startRender: (rows, group) => Object.assign(document.createElement("span"), { textContent: group }),
      },
      language: { emptyTable: "No rows.", zeroRecords: "No row passes the filters." },
    });
    heads.forEach((head, index) => {
      const button = head.querySelector("button");
      if (button) table.order.listener(button, index, () => say(table));
    });
    table.search.fixed("filters", (text, row, index) => {
      const { kind, family } = table.row(index).node().dataset;
      return checked("kind").includes(kind) && (!controls.family.value || controls.family.value === family);
    });
    table.on("order", () => markSorted(table, heads));
    markSorted(table, heads);
    const entry = { table, section, columns, heads };
    tables.set(section.dataset.name, entry);
    return entry;
  }

  function sorted(table) {
    const [column, direction] = table.order()[0] ?? [];
    return { column, direction };
  }

  // The fixed order of groups comes first in DataTables' own bookkeeping; a reader's is the column they chose.
  function markSorted(table, heads) {
    const { column, direction } = sorted(table);
    heads.forEach((head, index) => {
      if (index === column && direction) head.setAttribute("aria-sort", direction === "asc" ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  }

  function showSubset({ table, columns }) {
    const subset = checked("subset")[0];
    const wanted = (name) => !name.includes("/") || subset === "*" || name.endsWith(`/${subset}`);
    columns.forEach(({ name }, index) => table.column(index).visible(name !== "group" && wanted(name), false));
    const { column, direction } = sorted(table);
    if (column === undefined || wanted(columns[column].name)) return;
    const metric = columns[column].name.split("/")[0];
    let next = columns.findIndex(({ name }) => name === `${metric}/${subset}`);
    if (next < 0) next = columns.findIndex(({ name }) => name.includes("/") && wanted(name));
    if (next < 0) next = 0;
    const same = columns[next].name.startsWith(`${metric}/`);
    table.order([[next, same ? direction : columns[next].orderSequence[0]]]);
  }

  function say(table) {
    const { column, direction } = sorted(table);
    const all = table.rows().count();
    const shown = table.rows({ search: "applied" }).nodes().toArray();
    const hidden = table.rows().nodes().toArray().filter((row) => row.dataset.kind === "smoke").length;
    const off = hidden && !checked("kind").includes("smoke") ? `; ${hidden} smoke run${hidden > 1 ? "s" : ""} not shown` : "";
    const by = column === undefined ? "" : table.column(column).header().textContent.replace(/\s+/g, " ").trim();
    one("shown").textContent = `${shown.length} of ${all} rows${off}; sorted by ${by}, ${direction === "asc" ? "ascending" : "descending"}.`;
  }

  function refresh() {
    const name = controls.dataset.value;
    document.querySelectorAll("section.board").forEach((section) => { section.hidden = section.dataset.name !== name; });
    const section = one(`board-${name}`);
    const entry = tables.get(name) ?? create(section);
    showSubset(entry);
    entry.table.search(controls.search.value).draw();
    say(entry.table);
    offerMetrics(name, entry);
    draw();
  }

  // Accuracy against cost --------------------------------------------------------------------------------------

  function offerMetrics(name, { table, columns }) {
    const board = data[name];
    one("plot").hidden = !board;
    if (!board) return;
    const before = controls.metric.value;
    const metrics = Object.keys(board.metrics);
    const chosen = columns[sorted(table).column]?.name.split("/")[0];
    controls.metric.replaceChildren(...metrics.map((metric) => new Option(`${metric} ${board.metrics[metric].higher ? "↑" : "↓"}`, metric)));
    controls.metric.value = metrics.includes(before) ? before : metrics.includes(chosen) ? chosen : board.headline;
  }

  function points() {
    const name = controls.dataset.value;
    const { table } = tables.get(name);
    const visible = new Set(table.rows({ search: "applied" }).indexes().toArray());
    const subset = checked("subset")[0] === "*" ? data[name].everybody : checked("subset")[0];
    return data[name].rows.filter((row) => visible.has(row.row)).flatMap((row) => {
      const value = row.values[controls.metric.value]?.[subset];
      if (!value) return [];
      return [{ ...row, y: value[0], low: value[1], high: value[2], x: row.costs[controls.cost.value] }];
    });
  }

  function draw() {
    const chart = one("chart");
    const board = data[controls.dataset.value];
    if (!board) return chart.replaceChildren();
    const all = points();
    const { higher, digits } = board.metrics[controls.metric.value];
    const dots = all.filter((point) => point.x > 0);
    const free = all.filter((point) => point.x === 0);
    const title = controls.cost.selectedOptions[0].textContent;
    const subset = checked("subset")[0];
    const label = `${controls.metric.value}${["all", "*"].includes(subset) ? "" : `, ${subset}`}, ${higher ? "higher" : "lower"} is better`;
    const text = (point) => `${point.title}${point.backbone ? ` (${point.backbone})` : ""}, ${point.kind}\n${controls.metric.value} ${point.y.toFixed(digits)}`
      + (point.low === null ? "" : ` (${point.low.toFixed(digits)} to ${point.high.toFixed(digits)})`) + (point.x === null ? "" : `\n${title}: ${point.x.toLocaleString("en", { maximumFractionDigits: 2 })}`)
      + (controls.cost.value === "inference" && point.timing ? `\n${point.timing}` : "");
    const width = Math.max(300, chart.clientWidth);
    const narrow = width < 560;
    const families = [...new Set(board.rows.map((row) => row.family))].sort();
    const spans = (rows) => rows.filter((point) => point.low !== null);
    const wide = dots.length && Math.max(...dots.map((d) => d.x)) / Math.min(...dots.map((d) => d.x)) > 4;
    const smoke = (point) => point.kind === "smoke run";
    const dot = {
      x: "x", y: "y", stroke: "family", strokeWidth: 2, r: 5, href: "href", title: text,
      ariaLabel: (point) => text(point).replaceAll("\n", ", "),
    };
    const figure = Plot.plot({
      width, height: narrow ? 320 : 400, marginLeft: 52, marginRight: narrow ? 16 : 24, marginBottom: 44, marginTop: 28,
      style: { fontSize: "12px", background: "transparent", overflow: "visible" },
      x: { type: wide ? "log" : "linear", label: title, labelArrow: "none", grid: true, inset: 24, ticks: narrow ? 4 : 7, tickFormat: "~s" },
      y: { label, labelArrow: "none", grid: true, nice: true },
      color: { domain: families, range: palette(families.length), legend: true },
      marks: [
        Plot.ruleY(free, { y: "y", stroke: "family", strokeDasharray: "5 4", strokeOpacity: 0.8 }),
        Plot.text(free, { y: "y", text: "title", frameAnchor: "left", textAnchor: "start", dx: 6, dy: -7, fill: "currentColor", className: "label fixed" }),
        Plot.ruleX(spans(dots), { x: "x", y1: "low", y2: "high", stroke: "family", strokeWidth: 1.5 }),
        Plot.dot(dots.filter((d) => !smoke(d)), { ...dot, fill: "family" }),
        Plot.dot(dots.filter(smoke), { ...dot, fill: "var(--surface)" }), // hollow: no result
        Plot.text(dots, { x: "x", y: "y", text: "title", dy: -12, fill: "currentColor", className: "label" }),
        Plot.tip(dots, Plot.pointer({ x: "x", y: "y", title: text, fill: "var(--surface)", stroke: "var(--line)", lineHeight: 1.4, lineWidth: narrow ? 17 : 30 })),
      ],
    });
    chart.replaceChildren(all.length ? figure : Object.assign(document.createElement("p"), { textContent: "No row has this value." }));
    settle(chart);
    const unknown = all.filter((point) => point.x === null).map((point) => point.title);
    one("plot-note").textContent = [
      dots.length && "A point leads to its report.",
      free.length && "Dashed: what costs nothing.",
      dots.some(smoke) && "Hollow: smoke runs.",
      unknown.length && `Not recorded, and not in the plot: ${[...new Set(unknown)].join(", ")}.`,
      "Published rows have no recorded cost.",
    ].filter(Boolean).join(" ");
  }

  // Okabe and Ito's colours, told apart by colour-blind readers, without the yellow that white paper swallows.
  function palette(count) {
    const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c6bb1", "#7f7f7f"];
    return Array.from({ length: count }, (_, index) => colours[index % colours.length]);
  }

  // Names go above, beside or below their point, wherever they lie on nothing; a name without a place is left to the tip.
  function settle(chart) {
    const frame = chart.getBoundingClientRect();
    const taken = [...chart.querySelectorAll("circle")].map((dot) => dot.getBoundingClientRect());
    const labels = [...chart.querySelectorAll(".label text")].map((node) => ({ node, box: node.getBoundingClientRect() }));
    const free = (box) => box.left >= frame.left && box.right <= frame.right
      && !taken.some((other) => box.left < other.right && box.right > other.left && box.top < other.bottom && box.bottom > other.top);
    for (const { node, box } of labels) { // all is measured before anything moves: one layout, not one a try
      const aside = box.width / 2 + 9;
      const places = node.closest(".fixed") ? [[0, 0]] : [[0, 0], [aside, 12], [-aside, 12], [0, 25], [aside, 3], [aside, 21], [-aside, 3], [-aside, 21]];
      const moved = ([x, y]) => new DOMRect(box.x + x, box.y + y, box.width, box.height);
      const place = places.find((offset) => free(moved(offset)));
      if (!place) {
        node.remove();
        continue;
      }
      taken.push(moved(place));
      node.setAttribute("transform", `${node.getAttribute("transform") ?? ""} translate(${place})`);
    }
  }

  // What changes the page -----------------------------------------------------------------------------------------

  const wanted = decodeURIComponent(location.hash.slice(1));
  if ([...controls.dataset.options].some((option) => option.value === wanted)) controls.dataset.value = wanted;
  // Smoke runs are hidden until asked for, unless there is nothing else.
  const offerSmoke = () => {
    const rows = [...one(`board-${controls.dataset.value}`).querySelectorAll("tbody tr[data-kind]")];
    if (rows.length && rows.every((row) => row.dataset.kind === "smoke")) document.querySelector("input[value=smoke]").checked = true;
  };
  controls.dataset.addEventListener("change", () => {
    history.replaceState(null, "", `#${controls.dataset.value}`);
    controls.metric.value = "";
    offerSmoke();
    refresh();
  });
  controls.family.addEventListener("change", refresh);
  controls.search.addEventListener("input", refresh);
  one("subset").addEventListener("change", refresh);
  one("kinds").addEventListener("change", refresh);
  controls.metric.addEventListener("change", draw);
  controls.cost.addEventListener("change", draw);
  let waiting;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(draw, 150); });
  offerSmoke();
  refresh();
})();
