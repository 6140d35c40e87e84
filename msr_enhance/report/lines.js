// Curves of training: a thin line for each seed, their mean, and the epochs whose weights were kept.
function trainingSection(section) {
  const alpha = (data.curves || {}).alpha || {};
  const auc = (data.curves || {}).validation_auc || {};
  const final = (data.comparison || {}).alphas || {};
  const has = (curves) => Object.values(curves).some((seeds) => seeds.some((one) => one.length));
  if (!has(alpha) && !has(auc)) {
    if (Object.keys(final).length) {
      section.append(note(`No curves in this run. Mixing weights after training: ${Object.entries(final)
        .map(([level, value]) => `${level} ${fixed(value, 3)}`).join(", ")}.`));
    } else section.append(note("No training here: curves come with a run, and this page was made from a store alone."));
    return;
  }
  section.append(h("p", { class: "muted" }, "From before training to after each epoch, at the learning rate that was chosen. Thin: a seed; thick: their mean while all still train. "
    + "A dot is the epoch with the best validation AUC, whose weights were kept; the figure is the mean of these."));
  const grid = h("div", { class: "grid two" });
  section.append(grid);
  if (has(alpha)) grid.append(h("div", { class: "card" }, h("h3", {}, "Mixing weight alpha of the knowledge"),
    responsive((width) => curves(alpha, () => kept(auc.enhanced), width, "alpha by epoch")),
    h("p", { class: "muted small" }, "How much the generated layers count, by level.")));
  if (has(auc)) grid.append(h("div", { class: "card" }, h("h3", {}, "Validation AUC"),
    responsive((width) => curves(auc, (arm) => kept(auc[arm]), width, "validation AUC by epoch")),
    h("p", { class: "muted small" }, "Mean of scenarios. Test rows decide nothing.")));
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// Of each seed the first epoch with the best AUC, as the training loop has it.
const kept = (seeds) => (seeds || []).map((one) => one.indexOf(largest(one)));

function meanCurve(seeds) {
  const shortest = Math.min(...seeds.map((one) => one.length));
  return Array.from({ length: shortest }, (_, epoch) => mean(seeds.map((one) => one[epoch])));
}

function curves(groups, keptOf, width, label) {
  const named = Object.entries(groups).filter(([, seeds]) => seeds.some((one) => one.length));
  const all = named.flatMap(([, seeds]) => seeds.flat());
  let low = smallest(all), high = largest(all);
  const room = Math.max(high - low, 0.01) * 0.08;
  low -= room;
  high += room;
  const epochs = Math.max(1, ...named.flatMap(([, seeds]) => seeds.map((one) => one.length - 1)));
  const left = 44, right = 116, top = 8, bottom = 38, height = 250;
  const x = (epoch) => left + (epoch / epochs) * (width - left - right);
  const y = (value) => top + (1 - (value - low) / (high - low)) * (height - top - bottom);
  const chart = s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img" });
  const levels = ticks(low, high, 5);
  for (const value of levels.at) {
    chart.append(s("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), stroke: "var(--line)" }),
      s("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(levels.places)));
  }
  for (const epoch of ticks(0, epochs, Math.min(epochs, 6)).at) {
    if (Number.isInteger(epoch)) chart.append(s("text", { x: x(epoch), y: height - 20, "text-anchor": "middle" }, whole(epoch)));
  }
  chart.append(s("text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, "epoch"));
  const path = (values) => values.map((value, epoch) => `${epoch ? "L" : "M"}${x(epoch).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const ends = named.map(([group, seeds], place) => {
    const middle = meanCurve(seeds.filter((one) => one.length)), tone = group === "enhanced" ? "var(--accent)" : group === "plain" ? "var(--ink)" : paint(place % PALETTE);
    for (const one of seeds) if (seeds.length > 1 && one.length) chart.append(s("path", { d: path(one), fill: "none", stroke: tone, "stroke-width": 1, opacity: 0.35 }));
    chart.append(s("path", { d: path(middle), fill: "none", stroke: tone, "stroke-width": 2.2, "stroke-linejoin": "round" }));
    const epochsKept = keptOf(group);
    const points = seeds.map((one, seed) => [Math.min(epochsKept[seed] ?? one.length - 1, one.length - 1), one]).filter(([epoch]) => epoch >= 0);
    for (const [epoch, one] of points) chart.append(s("circle", { cx: x(epoch), cy: y(one[epoch]), r: 3.2, fill: tone, stroke: "var(--card)" }));
    const last = mean(points.map(([epoch, one]) => one[epoch]));
    return { group, last, tone, x: x(middle.length - 1), y: y(middle[middle.length - 1]) };
  });
  // Names at the ends of the lines, pushed apart so that each can be read.
  const ordered = [...ends].sort((one, other) => one.y - other.y);
  ordered.forEach((one, place) => { one.at = Math.max(one.y, place ? ordered[place - 1].at + 15 : top); });
  const over = ordered.length ? ordered[ordered.length - 1].at - (height - bottom + 6) : 0;
  if (over > 0) ordered.reduceRight((below, one) => { one.at = Math.min(one.at, below - 15); return one.at; }, height - bottom + 21);
  for (const one of ends) {
    chart.append(s("line", { x1: one.x, x2: width - right + 8, y1: one.y, y2: one.at, stroke: one.tone, "stroke-width": 1, "stroke-dasharray": "1 4" }),
      s("text", { x: width - right + 11, y: one.at + 4 }, `${short(one.group, 9)} ${fixed(one.last, 3)}`));
  }
  chart.setAttribute("aria-label", `${label}: ${ends.map((one) => `${one.group} ${fixed(one.last, 3)}`).join(", ")}`);
  return chart;
}
