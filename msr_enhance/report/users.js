// The list of users: only the rows that can be seen are elements. And one user in full beside it.
const ROW = 40;
const nameOf = (user) => (data.users && data.users.ids ? data.users.ids[user] : `user ${user + 1}`);

function usersSection(section) {
  const users = data.users;
  if (!users || !users.count) {
    section.append(note("No users here: the store holds no user level, or is not there."));
    return null;
  }
  const column = (title) => users.columns.find((one) => one.name === title);
  const status = column("Status"), category = column("Top category"), events = column("Events shown");
  const statusOf = (user) => status.labels[status.codes[user]];
  const embedded = data.embedded;
  section.append(h("p", { class: "muted" }, users.total > users.count ? `${whole(users.count)} of ${whole(users.total)} users, spread evenly. ` : "",
    !data.texts ? "This page was made without texts and ids." : !users.stored ? "This store holds no texts: it was saved or shared without them."
      : embedded < users.count ? [`Prompts and answers of ${whole(embedded)} users are on this page, those of ${whole(users.count - embedded)} are left out; more fit with `,
        h("code", {}, "--users N"), "."] : `Prompts and answers of all ${whole(embedded)} users are on this page.`));
  const search = h("input", { type: "search", id: "search", placeholder: embedded ? "Search ids, categories, prompts and answers" : "Search ids and categories",
    "aria-label": "Search users", autocomplete: "off", spellcheck: "false" });
  const groups = [["", "All users"], ...status.labels.map((label) => [`status:${label}`, label]), ...(embedded < users.count && embedded ? [["texts", "with prompt and answer"]] : []),
    ...data.outliers.filter((kind) => ["norm", "repeated", "refusal"].includes(kind.key) && kind.count).map((kind) => [`kind:${kind.key}`, kind.name.toLowerCase()])];
  const filter = h("select", {}, groups.map(([value, words]) => h("option", { value }, words)));
  const numbers = users.columns.filter((one) => one.kind === "numbers");
  const order = h("select", {}, h("option", { value: "" }, "as stored"), numbers.flatMap((one) => [
    h("option", { value: `-${one.name}` }, `${one.name}, most first`), h("option", { value: `+${one.name}` }, `${one.name}, least first`)]));
  const said = h("p", { class: "muted small", role: "status", id: "found", look: { margin: "0 0 8px" } });
  const spacer = h("div", { look: { position: "relative" } });
  const list = h("div", { class: "list", tabindex: "0", role: "listbox", id: "list", "aria-label": "Users; arrow keys move, Enter opens" }, spacer);
  const person = h("div", { class: "card person", id: "person", tabindex: "-1", "aria-live": "polite" });
  section.append(h("div", { class: "tools" }, search, h("label", {}, "Show", filter), h("label", {}, "Order", order)), said,
    h("div", { class: "people" }, list, person));

  let haystack = null, found = [], here = 0, opened = -1;
  function words() {
    if (!haystack) haystack = Array.from({ length: users.count }, (_, user) => {
      const parts = users.columns.filter((one) => one.kind === "names").map((one) => one.labels[one.codes[user]] || "");
      const text = users.texts[user];
      return `${nameOf(user)}\n${parts.join("\n")}${text ? `\n${text.prompt}\n${text.answer}` : ""}`.toLowerCase();
    });
    return haystack;
  }
  const inGroup = () => {
    const value = filter.value;
    if (!value) return null;
    if (value === "texts") return (user) => users.texts[user] !== undefined;
    if (value.startsWith("status:")) { const code = status.labels.indexOf(value.slice(7)); return (user) => status.codes[user] === code; }
    const kept = new Set(data.outliers.find((kind) => kind.key === value.slice(5)).rows);
    return (user) => kept.has(user);
  };
  function refresh() {
    const text = search.value.trim().toLowerCase(), keep = inGroup(), hay = text ? words() : null;
    found = [];
    for (let user = 0; user < users.count; user++) if ((!keep || keep(user)) && (!hay || hay[user].includes(text))) found.push(user);
    if (order.value) {
      const { values } = numbers.find((one) => one.name === order.value.slice(1));
      const sign = order.value[0] === "-" ? -1 : 1;
      const key = (user) => (values[user] === null ? Infinity : sign * values[user]);
      found.sort((one, other) => { const a = key(one), b = key(other); return a === b ? one - other : a < b ? -1 : 1; });
    }
    here = Math.max(0, found.indexOf(opened));
    said.textContent = `${whole(found.length)} of ${whole(users.count)} users`;
    spacer.style.height = `${found.length * ROW}px`;
    list.scrollTop = here > 0 ? here * ROW - list.clientHeight / 2 : 0;
    paintRows();
  }
  function paintRows() {
    const start = Math.max(0, Math.floor(list.scrollTop / ROW) - 4), end = Math.min(found.length, start + Math.ceil((list.clientHeight || 520) / ROW) + 9);
    const rows = [];
    for (let place = start; place < end; place++) {
      const user = found[place], state = statusOf(user);
      const about = [category ? category.labels[category.codes[user]] : "", events ? `${whole(events.values[user])} events` : ""].filter(Boolean);
      rows.push(h("div", { class: `row${place === here ? " here" : ""}`, role: "option", id: `user-${user}`, "aria-selected": String(user === opened), "aria-posinset": place + 1,
        "aria-setsize": found.length, look: { top: `${place * ROW}px` }, on: { click: () => { here = place; open(user); } } },
        h("b", {}, name(nameOf(user))), state !== "ok" ? h("span", { class: `chip ${state}` }, state) : "", h("span", { class: "about" }, name(about.join(" · ")))));
    }
    spacer.replaceChildren(...rows);
    if (found.length) list.setAttribute("aria-activedescendant", `user-${found[here]}`);
    else list.removeAttribute("aria-activedescendant");
  }
  function go(place) {
    here = Math.max(0, Math.min(found.length - 1, place));
    const top = here * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    paintRows();
  }
  list.addEventListener("scroll", () => requestAnimationFrame(paintRows));
  list.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const to = { ArrowDown: here + 1, ArrowUp: here - 1, PageDown: here + page, PageUp: here - page, Home: 0, End: found.length - 1 }[event.key];
    if (to !== undefined) go(to);
    else if ((event.key === "Enter" || event.key === " ") && found.length) open(found[here], { stay: true });
    else return;
    event.preventDefault();
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" && found.length) { event.preventDefault(); list.focus(); }
    if (event.key === "Enter" && found.length) open(found[here], { stay: true });
  });
  search.addEventListener("input", refresh);
  for (const each of [filter, order]) each.addEventListener("change", refresh);
  new ResizeObserver(paintRows).observe(list);

  function open(user, { stay = false, jump = false } = {}) {
    opened = user;
    if (!found.includes(user)) { search.value = ""; filter.value = ""; refresh(); }
    else { here = found.indexOf(user); if (jump) go(here); else paintRows(); }
    person.replaceChildren(...inFull(user, users, statusOf(user)));
    if (jump || (!stay && list.offsetTop !== person.offsetTop)) { (jump ? section : person).scrollIntoView({ block: "start" }); person.focus({ preventScroll: true }); }
  }
  refresh();
  const first = Object.keys(users.texts)[0];
  open(first === undefined ? 0 : Number(first), { stay: true });
  (window.requestIdleCallback || setTimeout)(() => words());
  return { open: (user) => open(user, { jump: true }), only: (value) => { search.value = ""; filter.value = value; refresh(); section.scrollIntoView(); list.focus({ preventScroll: true }); } };
}

function inFull(user, users, state) {
  const text = users.texts[user];
  const value = (one) => (one.kind === "names" ? one.labels[one.codes[user]] || "–" : figure(one.values[user]));
  const parts = [h("header", {}, h("h3", {}, name(nameOf(user))), h("span", { class: `chip ${state}` }, state)),
    h("div", { class: "facts" }, users.columns.filter((one) => one.name !== "Status").map((one) => h("div", {}, h("span", {}, one.name), name(value(one)))))];
  if (!text) {
    parts.push(h("h4", {}, "Prompt and answer"), h("p", { class: "muted" }, !data.texts ? "This page was made without texts."
      : users.stored ? "Left out of this page; --users puts more texts on it." : "This store holds no texts."));
    return parts;
  }
  if (text.history.length) parts.push(h("h4", {}, "History in the prompt, by scenario and category"), historyBars(text.history));
  if (text.reason && state !== "ok") parts.push(h("h4", {}, "Why"), h("p", {}, name(text.reason)));
  parts.push(h("h4", {}, "Prompt"), h("p", { class: "said", dir: "auto", tabindex: "0", "aria-label": "Prompt" }, text.prompt || "(none)"),
    h("h4", {}, "Answer"), h("p", { class: "said answer", dir: "auto", tabindex: "0", "aria-label": "Answer" }, text.answer || "(none)"));
  return parts;
}

function historyBars(history) {
  const most = Math.max(1, ...history.map(([, shown]) => shown));
  const category = data.users.columns.find((one) => one.name === "Top category");
  const tone = (label) => paint(category ? category.labels.indexOf(label) : -1);
  return h("div", { class: "stack" }, history.flatMap(([place, shown, total, counts]) => {
    const rest = shown - counts.reduce((sum, [, count]) => sum + count, 0);
    const segments = rest > 0 ? [...counts, ["no category", rest]] : counts;
    return [h("div", {}, name(short(place, 30)), h("div", { class: "muted" }, total > shown ? `${whole(shown)} of ${whole(total)}` : whole(shown))),
      h("div", { class: "segments", look: { width: `${Math.max(2, (100 * shown) / most)}%` } }, segments.map(([label, count]) =>
        h("span", { look: { flex: `${count} 1 0`, background: tone(label) }, title: `${isolated(label)}: ${whole(count)}` }, name(label), ` ${whole(count)}`)))];
  }));
}
