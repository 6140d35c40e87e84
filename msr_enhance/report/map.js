// The knowledge map: every listed user with knowledge as a point, coloured by a column.
function mapSection(section, open) {
  const users = data.users;
  const points = [];
  if (users) for (let user = 0; user < users.count; user++) if (users.x[user] !== null) points.push(user);
  if (!points.length) {
    section.append(note(users ? "No user has knowledge: there is no vector to place." : "No user vectors here: the store holds no user level, or is not there."));
    return null;
  }
  const [first, second] = users.share;
  section.append(h("p", { class: "muted" }, `Each point is a user; near points have similar vectors. The first two principal components show ${percent(first)} and `
    + `${percent(second)} of the variance.`, users.layers > 1 ? ` Vectors have ${users.layers} layers; the last one is shown.` : "",
    users.count > points.length ? ` ${whole(users.count - points.length)} users without knowledge have no place here.` : "",
    users.total > users.count ? ` ${whole(users.count)} of ${whole(users.total)} users are on this page, spread evenly.` : ""));
  const canvas = h("canvas", { tabindex: "0", role: "img", "aria-describedby": "map-help" });
  const tip = h("div", { class: "tip", hidden: true });
  const legend = h("div", { class: "legend", "aria-live": "polite" });
  const choose = h("select", {}, users.columns.map((column, place) => h("option", { value: place }, column.name)));
  const view = { x: 0, y: 0, scale: 1 };
  const buttons = [["+", "Closer", 1.6], ["−", "Further away", 1 / 1.6], ["↺", "All users", 0]].map(([sign, words, by]) =>
    h("button", { type: "button", class: "quiet", "aria-label": words, title: words, on: { click: () => zoom(by) } }, sign));
  section.append(h("div", { class: "card" }, h("div", { class: "tools" }, h("label", {}, "Colour by", choose)),
    h("div", { class: "mapgrid" }, h("div", { class: "stage" }, canvas, h("div", { class: "zoom" }, buttons), tip), legend),
    h("p", { id: "map-help", class: "muted small", look: { margin: "10px 0 0" } }, "Point at a user for its name, click to open it. With the keyboard: arrow keys go to the next "
      + "point that way, Enter opens it. The legend counts the users of each colour, and the list below holds every one.")));

  let half = 1, column = users.columns[0], only = null, marked = -1, width = 0, height = 0, cells = new Map(), tones = [];
  // A few users far away would press all others into one spot: they are drawn on the edge.
  const spanOf = (values) => {
    const sorted = points.map((user) => values[user]).sort((one, other) => one - other), last = sorted.length - 1;
    let low = sorted[0], high = sorted[last];
    if (last > 8) {
      const least = sorted[Math.ceil(0.02 * last)], most = sorted[Math.floor(0.98 * last)];
      low = Math.max(low, least - 0.75 * (most - least));
      high = Math.min(high, most + 0.75 * (most - least));
    }
    return { low, high, middle: (low + high) / 2, half: (high - low) / 2, place: (value) => Math.max(low, Math.min(high, value)) };
  };
  const across = spanOf(users.x), along = spanOf(users.y);
  const beyond = points.filter((user) => across.place(users.x[user]) !== users.x[user] || along.place(users.y[user]) !== users.y[user]).length;
  const CELL = 16, CHUNK = 600;
  const placeX = (user) => width / 2 + (((across.place(users.x[user]) - across.middle) / half) * (width / 2 - 16) + view.x) * view.scale;
  const placeY = (user) => height / 2 - (((along.place(users.y[user]) - along.middle) / half) * (width / 2 - 16) + view.y) * view.scale;

  function range() {
    const values = points.map((user) => column.values[user]).filter((value) => value !== null).sort((one, other) => one - other);
    const pick = (share) => values[Math.min(values.length - 1, Math.floor(share * values.length))];
    return values.length ? { low: pick(0.02), high: pick(0.98), least: values[0], most: values[values.length - 1] } : null;
  }
  function paints() {
    if (column.kind === "names") {
      tones = [...Array.from({ length: PALETTE }, (_, place) => color(`--c${place}`)), color("--other")];
      return points.map((user) => (column.codes[user] >= 0 && column.codes[user] < PALETTE ? column.codes[user] : PALETTE));
    }
    const stops = [0, 1, 2, 3, 4].map((place) => color(`--r${place}`));
    tones = [...Array.from({ length: 24 }, (_, place) => mix(stops, place / 23)), color("--other")];
    const span = range();
    return points.map((user) => {
      const value = column.values[user];
      if (value === null || !span) return 24;
      const share = span.high > span.low ? (value - span.low) / (span.high - span.low) : 0.5;
      return Math.round(23 * Math.max(0, Math.min(1, share)));
    });
  }
  let codes = paints();
  function draw() {
    const ratio = window.devicePixelRatio || 1, pen = canvas.getContext("2d");
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    pen.scale(ratio, ratio);
    const size = Math.max(1.2, Math.min(4, (width / 5.5) / Math.sqrt(points.length))) * Math.min(2, Math.sqrt(view.scale));
    cells = new Map();
    // Some hundred users at a time, so that no colour lies on top of all others.
    for (let start = 0; start < points.length; start += CHUNK) {
      const groups = tones.map(() => []);
      for (let order = start; order < Math.min(points.length, start + CHUNK); order++) {
        const user = points[order], x = placeX(user), y = placeY(user);
        if (x < -5 || y < -5 || x > width + 5 || y > height + 5) continue;
        const key = Math.floor(x / CELL) * 4096 + Math.floor(y / CELL);
        if (!cells.has(key)) cells.set(key, []);
        cells.get(key).push(user);
        groups[codes[order]].push(x, y);
      }
      groups.forEach((group, code) => {
        if (!group.length) return;
        pen.fillStyle = tones[code];
        pen.globalAlpha = only !== null && only !== code ? 0.08 : 0.8;
        pen.beginPath();
        for (let place = 0; place < group.length; place += 2) {
          pen.moveTo(group[place] + size, group[place + 1]);
          pen.arc(group[place], group[place + 1], size, 0, 7);
        }
        pen.fill();
      });
    }
    pen.globalAlpha = 1;
    if (marked >= 0) {
      pen.strokeStyle = color("--ink");
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(placeX(marked), placeY(marked), size + 4, 0, 7);
      pen.stroke();
    }
  }
  const groupOf = (user) => (column.codes[user] >= 0 && column.codes[user] < PALETTE ? column.codes[user] : PALETTE);

  function explain() {
    canvas.setAttribute("aria-label", `Map of ${whole(points.length)} users, coloured by ${column.name}`);
    if (column.kind === "numbers") {
      const span = range();
      legend.replaceChildren(h("h3", {}, column.name), h("div", { class: "ramp" }), h("div", { class: "ends" },
        h("span", {}, span ? figure(span.low) : "–"), h("span", {}, span ? figure(span.high) : "–")),
        h("p", { class: "muted small", look: { "margin-top": "8px" } }, span ? `From ${figure(span.least)} to ${figure(span.most)}; the colours end where 2 % of users lie beyond.` : ""));
      return;
    }
    const counts = Array(PALETTE + 1).fill(0);
    for (const user of points) counts[groupOf(user)]++;
    const more = column.labels.length + column.others - PALETTE;
    const words = (place) => (place < PALETTE ? name(column.labels[place]) : more > 0 ? `others (${whole(more)}), or none` : "none");
    legend.replaceChildren(h("h3", {}, column.name), h("ul", { "aria-label": `Colours of ${column.name}` }, counts.map((count, place) => count
      ? h("li", {}, h("button", { type: "button", "aria-pressed": String(only === place), on: { click: () => { only = only === place ? null : place; explain(); draw(); } } },
        h("span", { class: "swatch", look: { background: paint(place) } }), h("span", {}, words(place)), h("span", { class: "many" }, whole(count)))) : "")));
  }
  function nearest(x, y) {
    let best = -1, least = 18 * 18;
    const cx = Math.floor(x / CELL), cy = Math.floor(y / CELL);
    for (let dx = -2; dx <= 2; dx++) for (let dy = -2; dy <= 2; dy++) for (const user of cells.get((cx + dx) * 4096 + cy + dy) || []) {
      const far = (placeX(user) - x) ** 2 + (placeY(user) - y) ** 2;
      if (far < least) { least = far; best = user; }
    }
    return best;
  }
  function mark(user) {
    if (user === marked) return;
    marked = user;
    draw();
    tip.hidden = user < 0;
    if (user < 0) return;
    const value = column.kind === "names" ? column.labels[column.codes[user]] || "none" : figure(column.values[user]);
    tip.replaceChildren(h("b", {}, name(nameOf(user))), h("br", {}), `${column.name}: `, name(value));
    tip.style.left = `${Math.max(0, Math.min(width - 160, placeX(user) + 12))}px`;
    tip.style.top = `${Math.max(0, Math.min(height - 48, placeY(user) + 12))}px`;
  }
  function zoom(by, x = 0, y = 0) {
    if (!by) Object.assign(view, { x: 0, y: 0, scale: 1 });
    else view.scale = Math.max(1, Math.min(60, view.scale * by));
    if (view.scale === 1) Object.assign(view, { x: 0, y: 0 });
    canvas.classList.toggle("moves", view.scale > 1);
    draw();
  }
  let drag = null;
  const spot = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("pointerdown", (event) => { if (view.scale > 1) { drag = { x: event.clientX, y: event.clientY, far: 0 }; canvas.setPointerCapture(event.pointerId); } });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) {
      view.x += (event.clientX - drag.x) / view.scale;
      view.y -= (event.clientY - drag.y) / view.scale;
      drag = { x: event.clientX, y: event.clientY, far: drag.far + Math.abs(event.movementX) + Math.abs(event.movementY) };
      marked = -1;
      tip.hidden = true;
      draw();
    } else mark(nearest(...spot(event)));
  });
  canvas.addEventListener("pointerleave", () => mark(-1));
  canvas.addEventListener("pointerup", (event) => {
    const moved = drag && drag.far > 6;
    drag = null;
    const user = nearest(...spot(event));
    if (!moved && user >= 0) { mark(user); open(user); }
  });
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Enter" && marked >= 0) open(marked);
    else if (event.key === "Escape") mark(-1);
    else if (way) {
      event.preventDefault();
      mark(marked < 0 ? points[0] : further(way));
      canvas.setAttribute("aria-label", `${isolated(nameOf(marked))}, ${tip.textContent}`);
    }
  });
  function further([dx, dy]) {
    const fromX = placeX(marked), fromY = placeY(marked);
    let best = marked, least = Infinity;
    for (const user of points) {
      const x = placeX(user) - fromX, y = placeY(user) - fromY, ahead = x * dx + y * dy;
      const cost = ahead + 3 * Math.abs(x * dy + y * dx);
      if (ahead > 0.5 && cost < least) { least = cost; best = user; }
    }
    return best;
  }
  choose.addEventListener("change", () => { column = users.columns[choose.value]; only = null; marked = -1; tip.hidden = true; codes = paints(); explain(); draw(); });
  new ResizeObserver((entries) => {
    const now = Math.floor(entries[0].contentRect.width);
    if (now === width || now < 20) return;
    width = now;
    height = Math.round(Math.min(560, Math.max(280, now * 0.7)));
    half = Math.max(across.half, (along.half * (width - 32)) / (height - 32), 1e-12);
    canvas.style.height = `${height}px`;
    draw();
  }).observe(canvas.parentNode);
  if (beyond) at("map-help").append(` ${counted(beyond, "user lies", "users lie")} beyond the edge, and on it here.`);
  explain();
  return { repaint: () => { codes = paints(); draw(); } };
}

function mix(stops, share) {
  const place = Math.min(stops.length - 2, Math.floor(share * (stops.length - 1)));
  const part = share * (stops.length - 1) - place;
  const numbers = (tone) => [1, 3, 5].map((start) => parseInt(tone.slice(start, start + 2), 16));
  const [one, other] = [numbers(stops[place]), numbers(stops[place + 1])];
  return `rgb(${one.map((value, at) => Math.round(value + (other[at] - value) * part)).join(" ")})`;
}
