// Light or dark on all pages: as the button of the header was set, else as the browser wishes.
// Pages that draw colours themselves listen to the event "rooftrace-theme".
(() => {
  // A page whose URL has a password may fetch nothing; the browser has kept it, and sends it again.
  const url = new URL(document.URL);
  if (url.username || url.password) location.replace(Object.assign(url, { username: "", password: "" }));

  const KEY = "rooftrace-theme";
  const wish = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  let kept = null; // the choice of this page, where the browser stores nothing

  function chosen() {
    try {
      return localStorage.getItem(KEY) ?? kept;
    } catch {
      return kept;
    }
  }

  function apply() {
    const theme = (chosen() ?? (wish.matches ? "dark" : "light")) === "dark" ? "dark" : "light";
    if (root.dataset.theme === theme) return;
    root.dataset.theme = theme;
    dispatchEvent(new CustomEvent(KEY, { detail: theme }));
  }

  apply();
  wish.addEventListener("change", apply);
  addEventListener("storage", apply);
  // A page from the history may be older than the choice.
  addEventListener("pageshow", apply);
  addEventListener("click", (event) => {
    if (!event.target.closest?.(".face-theme")) return;
    kept = root.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem(KEY, kept);
    } catch { /* The choice holds on this page only. */ }
    apply();
  });
})();
