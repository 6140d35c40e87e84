// The page from top to bottom, and the theme.
function lead() {
  document.title = `${data.name} – knowledge report`;
  at("title").append(name(data.name));
  const lines = new Map(data.store ? data.store.lines : []);
  at("subtitle").append(...[data.kind === "run" ? "A run and its store" : "A knowledge store",
    lines.has("Model") ? [", read by ", name(lines.get("Model"))] : ""].flat().filter(Boolean));
  const listed = data.users ? data.users.count : 0;
  at("privacy").append(data.embedded ? `This page contains prompts and answers of ${counted(data.embedded, "user")}${data.explained ? `, and in its explanations answers of ${whole(data.explained)} more` : ""}: treat it as personal data.`
    : data.texts && listed ? `This page contains the ids of ${counted(listed, "user")} and ${data.explained ? `answers of ${whole(data.explained)}, in its explanations` : "no prompts or answers of theirs"}: treat it as personal data.`
      : data.texts && data.explanations ? "This page contains explanations with ids and answers of users: treat it as personal data."
      : listed ? `This page contains no prompts, answers or ids. It still has a point for each user (${whole(listed)}): share it with care.`
        : "This page contains no users.");
  for (const text of data.missing) at("warnings").append(h("p", { class: "note warn" }, text));
  for (const section of document.querySelectorAll("main section")) {
    at("nav").append(h("a", { href: `#${section.id}` }, section.querySelector("h2").textContent));
  }
}

function theme(repaint) {
  const button = at("theme"), wanted = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  // A page that was opened from a file may not be allowed to remember anything.
  try { chosen = localStorage.getItem("msr-enhance-theme"); } catch { chosen = null; }
  function set() {
    const dark = chosen ? chosen === "dark" : wanted.matches;
    root.dataset.theme = dark ? "dark" : "light";
    button.textContent = dark ? "Light" : "Dark";
    button.setAttribute("aria-label", `Use the ${dark ? "light" : "dark"} theme`);
    repaint();
  }
  button.addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("msr-enhance-theme", chosen); } catch { /* it is forgotten, then */ }
    set();
  });
  wanted.addEventListener("change", set);
  window.addEventListener("beforeprint", () => { root.dataset.theme = "light"; repaint(); });
  window.addEventListener("afterprint", set);
  set();
}

let shownMap = null, shownList = null;
theme(() => shownMap && shownMap.repaint());
lead();
overviewSection(at("overview"));
rankingSection(at("auc"));
shownMap = mapSection(at("map"), (user) => shownList && shownList.open(user));
scenariosSection(at("scenarios"));
trainingSection(at("training"));
shownList = usersSection(at("users"));
outliersSection(at("outliers"), shownList);
explanationsSection(at("explanations"));
performance.mark("shown");
