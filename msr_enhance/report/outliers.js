// Rows unlike the others, with examples; and scores taken apart.
function outliersSection(section, list) {
  if (!data.outliers.length) {
    section.append(note("No users here to look for outliers among."));
    return;
  }
  section.append(h("p", { class: "muted" }, `Among the ${whole(data.users.count)} users on this page.`));
  const grid = h("div", { class: "grid kinds" });
  section.append(grid);
  for (const kind of data.outliers) {
    const opens = (user, text, more) => h("li", {}, h("button", { type: "button", class: "link", on: { click: () => list && list.open(user) } }, name(text)), h("span", {}, more));
    const column = data.users.columns.find((one) => one.name === "Vector norm");
    const grouped = kind.groups.map(([text, count, user]) => opens(user, short(text.trim().replace(/\s+/g, " ") || nameOf(user), 60), `${whole(count)} ×`));
    const single = kind.examples.map((user) => opens(user, nameOf(user), kind.key === "norm" ? `norm ${figure(column.values[user])}` : ""));
    const filter = ["norm", "repeated", "refusal"].includes(kind.key) ? `kind:${kind.key}` : `status:${kind.key}`;
    grid.append(h("div", { class: `card kind${kind.count ? "" : " none"}` }, h("h3", {}, kind.name),
      h("p", {}, h("b", { class: "big" }, whole(kind.count)), h("span", { class: "muted" }, kind.count ? percent(kind.share, 2) : "none")),
      h("p", { class: "muted small" }, kind.what), h("ul", {}, grouped.length ? grouped : single),
      kind.count ? h("button", { type: "button", class: "quiet noprint", on: { click: () => list && list.only(filter) } }, "Show in the list") : ""));
  }
}

function explanationsSection(section) {
  const found = data.explanations;
  if (!found) {
    section.append(note("No explanations here: they come with a run."));
    return;
  }
  section.append(h("p", { class: "muted" }, "What the enhanced model's parts add to the score of a test row. Bars go right for, left against; they sum to the logit.",
    found.total > found.rows.length ? ` ${whole(found.rows.length)} of ${whole(found.total)} are shown.` : ""));
  const most = Math.max(1e-9, ...found.rows.flatMap((row) => [Math.abs(row.logit), ...row.parts.map((part) => Math.abs(part.logit))]));
  section.append(h("div", { class: "grid panels" }, found.rows.map((row) => explained(row, most))));
}

function explained(row, most) {
  const texts = row.parts.filter((part) => part.text);
  return h("div", { class: "card explain" }, h("header", {}, h("div", {}, h("b", {}, row.item === null ? "An item" : name(short(row.item, 80))), h("div", { class: "muted small" },
    row.user === null ? "" : ["user ", name(row.user), " in "], name(row.scenario), row.label === null ? "" : ` · label ${row.label}`)),
    h("b", { class: "num" }, percent(row.probability))), responsive((width) => waterfall(row, most, width)),
    texts.length ? h("details", {}, h("summary", {}, "Answers behind it"), texts.map((part) => [h("p", { class: "small muted", look: { margin: "8px 0 0" } }, part.name),
      h("p", { class: "said answer", dir: "auto" }, part.text)])) : "");
}

function waterfall(row, most, width) {
  const bars = [...row.parts.map((part) => ({ words: part.name, value: part.logit, more: !part.known ? "no knowledge" : part.alpha === null ? "" : `α ${fixed(part.alpha, 2)}`, part })),
    { words: "sum", value: row.logit, more: "logit", part: null }];
  const left = 92, right = 56, step = 34, height = step * bars.length + 4;
  const middle = left + (width - left - right) / 2, scale = (width - left - right) / 2 / most;
  const chart = s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": bars.map((bar) => `${bar.words} ${signed(bar.value, 3)}`).join(", ") });
  chart.append(s("line", { x1: middle, x2: middle, y1: 0, y2: height, stroke: "var(--line)" }));
  bars.forEach((bar, place) => {
    const y = 4 + place * step, long = Math.abs(bar.value) * scale;
    if (!bar.part) chart.append(s("line", { x1: 0, x2: width, y1: y - 2, y2: y - 2, stroke: "var(--line)" }));
    chart.append(s("text", { x: 0, y: y + (bar.more ? 13 : 19), class: "strong" }, bar.words), bar.more ? s("text", { x: 0, y: y + 26, "font-size": 11 }, bar.more) : "",
      s("rect", { x: bar.value < 0 ? middle - long : middle, y: y + 5, width: Math.max(long, 1), height: 18, rx: 3,
        fill: bar.part ? (bar.value < 0 ? "var(--c5)" : "var(--accent)") : "var(--muted)" }),
      s("text", { x: width, y: y + 19, "text-anchor": "end", class: "strong" }, signed(bar.value, 3)));
  });
  return chart;
}
