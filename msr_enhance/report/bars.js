// Ranking quality: a dot for each arm and scenario, and the tables beside it.
const AUC = "auc", GAP = "gap";

function rankingSection(section) {
  const result = data.comparison;
  if (!result) {
    section.append(note("No comparison here: this page was made from a store alone. `msr-enhance compare` trains the "
      + "plain model, the enhanced one and the controls, and `msr-enhance report` shows its run."));
    return;
  }
  const arms = Object.keys(result.scores);
  const places = ["mean", ...result.scenarios.filter((one) => one !== "mean")];
  section.append(h("p", { class: "muted" },
    `Test AUC of ${whole(result.rows.test || 0)} rows, mean of ${counted(result.seeds, "seed")}; `,
    `${percent(result.coverage)} of the test rows have knowledge. A dot right of the dashed line is better than the plain model.`));
  const panels = h("div", { class: `grid panels${places.length === 2 || places.length === 4 ? " pairs" : ""}` });
  const more = h("p", {});
  const said = h("p", { class: "muted small" });
  let shown = 9;
  function draw(kind) {
    const range = rangeOf(result, arms, places, kind);
    panels.replaceChildren(...places.slice(0, shown).map((place) => h("div", { class: "card" },
      h("h3", {}, place === "mean" ? "Mean of scenarios" : name(place)),
      responsive((width) => dots(result, arms, place, kind, range, width)))));
    said.textContent = kind === AUC
      ? "Dot: mean over seeds. Bar: ± one standard deviation over seeds. Dashed: the plain model."
      : "Dot: AUC minus the plain model's, the same seeds paired. Thick bar: ± standard error over seeds. "
        + "Thin bar: ± standard error over resampled test users.";
    more.replaceChildren(places.length > shown ? h("button", { type: "button", class: "quiet noprint",
      on: { click: () => { shown = places.length; draw(kind); } } }, `Show all ${places.length} panels`) : "");
  }
  section.append(h("div", { class: "tools" },
    toggled([[AUC, "AUC"], [GAP, "Difference to plain"]], AUC, draw, "What the dots show")), panels, more, said);
  draw(AUC);
  section.append(titled("Test AUC", "Mean over seeds ± standard deviation over seeds.", aucTable(result, arms, places)),
    titled("Difference to plain", "The same seeds paired; ± standard error over seeds, and over resampled test users.",
      gapTable(result, arms, places)));
}

function measured(result, arm, place, kind) {
  if (kind === AUC) {
    const score = (result.scores[arm] || {})[place];
    return score && score.auc !== null ? { value: score.auc, thick: 0, thin: score.spread || 0 } : null;
  }
  const gap = ((result.gaps || {})[arm] || {})[place];
  return gap ? { value: gap.mean, thick: gap.error_seeds || 0, thin: gap.error_users || 0 } : null;
}

function rangeOf(result, arms, places, kind) {
  let low = kind === GAP ? 0 : Infinity, high = kind === GAP ? 0 : -Infinity;
  for (const place of places) for (const arm of arms) {
    const one = measured(result, arm, place, kind);
    if (!one) continue;
    const far = Math.max(one.thick, one.thin);
    low = Math.min(low, one.value - far);
    high = Math.max(high, one.value + far);
  }
  if (!(high >= low)) return [0, 1];
  const room = Math.max(high - low, 0.002) * 0.06;
  return [low - room, high + room];
}

function dots(result, arms, place, kind, [low, high], width) {
  const shownArms = kind === GAP ? arms.filter((arm) => arm !== "plain") : arms;
  const left = 78, right = 58, top = 6, step = 26, bottom = 24;
  const height = top + step * shownArms.length + bottom;
  const x = (value) => left + ((value - low) / (high - low)) * (width - left - right);
  const plain = kind === GAP ? { value: 0 } : measured(result, "plain", place, kind);
  const marks = ticks(low, high, (width - left - right) / 62);
  const words = kind === AUC ? "AUC" : "Difference to plain";
  const told = [];
  const chart = s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const value of marks.at) {
    chart.append(s("line", { x1: x(value), x2: x(value), y1: top, y2: height - bottom, stroke: "var(--line)" }),
      s("text", { x: x(value), y: height - 6, "text-anchor": "middle" },
        kind === GAP && value ? signed(value, marks.places) : value.toFixed(marks.places)));
  }
  if (plain) chart.append(s("line", { x1: x(plain.value), x2: x(plain.value), y1: top, y2: height - bottom,
    stroke: "var(--muted)", "stroke-dasharray": "3 3" }));
  shownArms.forEach((arm, row) => {
    const y = top + step * (row + 0.5), main = arm === "enhanced";
    const one = measured(result, arm, place, kind);
    chart.append(s("text", { x: left - 8, y: y + 4, "text-anchor": "end", class: main ? "strong" : null }, short(arm, 11)));
    if (!one) {
      chart.append(s("text", { x: left + 6, y: y + 4 }, "not defined"));
      return;
    }
    const tone = main ? "var(--accent)" : arm === "plain" ? "var(--ink)" : "var(--quiet)";
    const bar = (half, thickness) => half ? s("line", { x1: x(one.value - half), x2: x(one.value + half), y1: y, y2: y,
      stroke: tone, "stroke-width": thickness, "stroke-linecap": "round" }) : "";
    chart.append(bar(one.thin, 2), bar(one.thick, 5), s("circle", { cx: x(one.value), cy: y, r: 5, fill: tone,
      stroke: "var(--card)", "stroke-width": 1.5 }), s("text", { x: width, y: y + 4, "text-anchor": "end",
      class: main ? "strong" : null }, kind === GAP ? signed(one.value) : fixed(one.value)));
    told.push(`${arm} ${kind === GAP ? signed(one.value) : fixed(one.value)}`);
  });
  chart.setAttribute("aria-label", `${words}, ${isolated(place)}: ${told.join(", ")}`);
  return chart;
}

const titled = (title, words, table) => h("div", { class: "card" }, h("h3", {}, title), h("p", { class: "muted small" }, words),
  scrolled(title, table));

function armCell(arm) {
  return h("th", { scope: "row" }, arm, data.arms[arm] ? h("small", {}, data.arms[arm]) : "");
}

function headed(places, first) {
  return h("thead", {}, h("tr", {}, h("th", { scope: "col" }, first),
    places.map((place) => h("th", { scope: "col" }, place === "mean" ? "mean" : name(place)))));
}

function aucTable(result, arms, places) {
  return h("table", {}, headed(places, "Arm"),
    h("tbody", {}, arms.map((arm) => h("tr", { class: arm === "enhanced" ? "main" : null }, armCell(arm),
      places.map((place) => {
        const score = result.scores[arm][place];
        return h("td", {}, fixed(score ? score.auc : null), score && score.spread !== null ? h("small", {}, `± ${fixed(score.spread)}`) : "");
      })))));
}

function gapTable(result, arms, places) {
  return h("table", {}, headed(places, "Arm"),
    h("tbody", {}, arms.filter((arm) => result.gaps[arm]).map((arm) => h("tr", { class: arm === "enhanced" ? "main" : null }, armCell(arm),
      places.map((place) => {
        const gap = result.gaps[arm][place];
        return gap ? h("td", {}, signed(gap.mean), h("small", {}, `± ${fixed(gap.error_seeds)} seeds`),
          h("small", {}, `± ${fixed(gap.error_users)} users`)) : h("td", {}, "–");
      })))));
}
