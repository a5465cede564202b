// Only a convenience: everything is there and folds without it.
const logs = document.getElementById("logs");
if (logs) {
  const button = document.createElement("button");
  const all = () => [...logs.querySelectorAll("details")];
  const name = () => { button.textContent = all().every(one => one.open) ? "fold all" : "unfold all"; };
  button.onclick = () => { const open = !all().every(one => one.open); all().forEach(one => { one.open = open; }); name(); };
  name();
  logs.querySelector("h2").append(" ", button);
}
