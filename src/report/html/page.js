// Only a convenience: everything is there and folds without it.
const rows = [...document.querySelectorAll("[data-row]")];
const query = document.getElementById("query");
const found = document.getElementById("found");
// What a row says, tooltips of its bars included: they have what does not fit.
const texts = new Map();
const text = row => {
  if (!texts.has(row)) {
    const titles = [...row.querySelectorAll("[title]")].map(one => one.title);
    texts.set(row, [row.textContent, ...titles].join(" ").toLowerCase());
  }
  return texts.get(row);
};
const folds = [...document.querySelectorAll("details.fold")];
const before = new Map(folds.map(one => [one, one.open]));
const find = () => {
  const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
  rows.forEach(row => { row.hidden = !words.every(word => text(row).includes(word)); });
  const shown = one => one.querySelector("[data-row]:not([hidden])");
  folds.forEach(one => { one.hidden = !shown(one); one.open = words.length ? true : before.get(one); });
  found.textContent = words.length ? `${rows.filter(row => !row.hidden).length} of ${rows.length} rows` : "";
};
let soon;
query.addEventListener("input", () => { clearTimeout(soon); soon = setTimeout(find, 120); });
document.addEventListener("keydown", event => {
  if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && event.target !== query) {
    event.preventDefault();
    query.focus();
  }
});
document.getElementById("find").hidden = rows.length === 0;
const asked = new URLSearchParams(location.hash.slice(1)).get("find");
if (asked) { query.value = asked; find(); }

const logs = document.getElementById("logs");
if (logs) {
  const button = document.createElement("button");
  button.type = "button";
  const all = () => [...logs.querySelectorAll("details")].filter(one => !one.hidden);
  const name = () => { button.textContent = all().every(one => one.open) ? "fold all" : "unfold all"; };
  button.onclick = () => { const open = !all().every(one => one.open); all().forEach(one => { one.open = open; }); name(); };
  name();
  logs.querySelector("h2").after(button);
}
