// Where the knowledge comes from, what became of the rows, the probes, and how alike scenarios are.
const TONES = { ok: "var(--accent)", truncated: "var(--c1)", empty: "var(--other)", failed: "var(--c5)" };
const STATUS_WORDS = {
  ok: "with knowledge",
  truncated: "with knowledge, from a prompt that was cut to fit",
  empty: "nothing to ask about",
  failed: "no usable answer",
};

function overviewSection(section) {
  const stat = (value, words) => h("div", { class: "card stat" }, h("b", {}, value), h("span", {}, words));
  const levels = [...(data.store || { levels: [] }).levels].sort((one, other) => (other.level === "user") - (one.level === "user"));
  const stats = h("div", { class: "grid stats" });
  for (const one of levels) {
    const known = (one.status.ok || 0) + (one.status.truncated || 0);
    stats.append(stat(whole(one.rows), `${one.level === "user" ? "users" : "scenarios"}, ${percent(known / one.rows)} with knowledge`));
  }
  if (levels.length) {
    const widest = levels[0];
    stats.append(stat(whole(widest.dim), widest.layers > 1 ? `numbers a vector, in each of ${widest.layers} layers` : "numbers a vector"));
  }
  const gap = (((data.comparison || {}).gaps || {}).enhanced || {}).mean;
  if (gap) {
    const error = gap.error_users === null ? "" : ` ±\u00a0${fixed(gap.error_users)}`;
    stats.append(stat(signed(gap.mean), `AUC, enhanced minus plain${error}`));
  }
  section.append(stats);
  for (const text of (data.comparison || {}).warnings || []) section.append(h("p", { class: "note warn" }, text));
  const two = h("div", { class: "grid two" });
  section.append(two);
  if (data.store) {
    two.append(h("div", { class: "card" }, h("h3", {}, "How it was made"),
      h("dl", { class: "made" }, data.store.lines.map(([key, value]) => [h("dt", {}, key), h("dd", {}, name(value))])),
      h("details", {}, h("summary", {}, "Every field"), scrolled("Every field of the provenance", h("table", {},
        h("tbody", {}, data.store.everything.map(([key, value]) => h("tr", {}, h("th", { scope: "row" }, name(key)),
          h("td", {}, name(value))))))))));
  } else two.append(h("div", { class: "card" }, h("h3", {}, "How it was made"), note("The store is not there; only the run's figures are.")));
  const side = h("div", {});
  if (levels.length) side.append(h("div", { class: "card" }, h("h3", {}, "What became of the rows"), levels.map(statusBar)));
  if (data.comparison) side.append(probes(data.comparison));
  if (side.childNodes.length) two.append(side);
  else two.classList.remove("two");
}

function statusBar(level) {
  const parts = ["ok", "truncated", "empty", "failed"].filter((status) => level.status[status]);
  const notes = [level.dead ? `${whole(level.dead)} dropped rows still on disk` : "",
    level.without_texts ? `${whole(level.without_texts)} rows without texts` : "", level.keyed ? "ids are keyed hashes" : ""].filter(Boolean);
  return h("div", {}, h("p", { class: "small muted", look: { margin: "10px 0 0" } }, level.level === "user" ? "Users" : "Scenarios"),
    h("div", { class: "shares", "aria-hidden": "true" }, parts.map((status) =>
      h("span", { look: { width: `${(100 * level.status[status]) / level.rows}%`, background: TONES[status] } }))),
    h("ul", { class: "keys" }, parts.map((status) => h("li", {}, h("span", { class: "swatch", look: { background: TONES[status] } }),
      `${whole(level.status[status])} ${status}`, h("span", { class: "muted" }, ` – ${STATUS_WORDS[status]}`)))),
    notes.length ? h("p", { class: "small muted", look: { margin: "6px 0 0" } }, notes.join(", ")) : "");
}

function probes(result) {
  const rows = result.scenarios.map((place) => h("tr", {}, h("th", { scope: "row" }, name(place)),
    h("td", {}, whole(result.test_rows[place] || 0)), h("td", {}, fixed(result.leak_probe[place])),
    h("td", {}, fixed(result.category_probe[place]))));
  return h("div", { class: "card" }, h("h3", {}, "Probes"), scrolled("Probes by scenario", h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Scenario"), h("th", { scope: "col" }, "Test rows"),
      h("th", { scope: "col" }, "Leak"), h("th", { scope: "col" }, "Category"))), h("tbody", {}, rows))),
    h("p", { class: "muted small", look: { "margin-top": "8px" } }, "Leak: AUC of the number of same-scenario positives in the prompt alone; 0.5 where a count "
      + "tells nothing. Category: AUC of the share of the item's category in the prompt; far above 0.5, knowledge can help."));
}

function scenariosSection(section) {
  const found = data.scenarios;
  if (!found) {
    section.append(note("No scenario vectors here: the store holds no scenario level, or is not there."));
    return;
  }
  const left = found.total - found.rows.length;
  if (left > 0) section.append(note(`${whole(found.rows.length)} of ${whole(found.total)} scenarios are shown, spread evenly.`));
  const two = h("div", { class: "grid two" });
  section.append(two);
  if (found.names.length > 1) {
    if (found.names.length > 9) two.classList.remove("two");
    const heat = h("div", {});
    const choices = [["raw", "Raw"], ["centred", "Centred"]];
    const draw = (kind) => heat.replaceChildren(scrolled("Cosines of scenario vectors", heatMap(found.names, found[kind], kind)),
      h("p", { class: "muted small", look: { "margin-top": "10px" } }, kind === "raw"
        ? "Cosine of the scenario vectors as the model wrote them. States share a large common part, so that all are alike."
        : "Cosine once the mean of the scenarios is taken away: what tells them apart."));
    two.append(h("div", { class: "card" }, h("h3", {}, "How alike scenarios are"),
      found.centred ? h("div", { class: "tools" }, toggled(choices, "centred", draw, "Which cosines")) : "", heat));
    draw(found.centred ? "centred" : "raw");
  } else two.append(note(`${found.names.length === 1 ? "One scenario has" : "No scenario has"} knowledge: nothing to compare.`));
  two.append(h("div", { class: "card" }, h("h3", {}, "What the model said of each"), found.rows.map((row) =>
    h("details", {}, h("summary", {}, name(row.name), " ", h("span", { class: `chip ${row.status}` }, row.status)),
      row.prompt === null ? h("p", { class: "muted" }, data.texts ? "This store holds no texts." : "This page was made without texts.")
        : [h("p", { class: "small muted", look: { margin: "8px 0 0" } }, `Prompt, ${whole(row.tokens[0])} tokens`),
          h("p", { class: "said", dir: "auto" }, row.prompt || "(none)"),
          h("p", { class: "small muted", look: { margin: "8px 0 0" } }, `Answer, ${whole(row.tokens[1])} tokens`),
          h("p", { class: "said answer", dir: "auto" }, row.answer || "(none)")]))));
}

function heatMap(names, rows, kind) {
  const off = rows.flatMap((row, place) => row.filter((_, other) => other !== place)).filter((value) => value !== null);
  const low = Math.min(0.999, ...off), numbers = names.length <= 16;
  // Raw cosines lie close together: their colours begin at the smallest. Centred ones have a sign.
  const strength = (value) => (kind === "raw" ? 0.08 + 0.82 * ((value - low) / (1 - low)) : 0.9 * Math.abs(value));
  const cell = (value, one, other) => {
    if (value === null) return h("td", { title: "not defined" }, "–");
    const tone = value < 0 ? "--neg" : "--pos";
    const strong = strength(value);
    return h("td", { class: strong > 0.78 ? "deep" : strong > 0.55 ? "mid" : null,
      look: { background: `rgb(var(${tone}) / ${Math.max(0, Math.min(0.9, strong)).toFixed(3)})` }, title: `${isolated(one)} and ${isolated(other)}: ${fixed(value, 3)}` },
      numbers ? fixed(value, 2).replace("-", "−") : "");
  };
  return h("table", { class: "heat" }, h("thead", {}, h("tr", {}, h("td", {}), names.map((one) => h("th", { scope: "col", title: isolated(one) }, name(short(one, 14)))))),
    h("tbody", {}, rows.map((row, place) => h("tr", {}, h("th", { scope: "row", title: isolated(names[place]) }, name(short(names[place], 22))),
      row.map((value, other) => cell(value, names[place], names[other]))))));
}
