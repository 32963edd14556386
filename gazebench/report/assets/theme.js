// Light or dark: the system's choice until the button says otherwise; remembered where the browser allows it.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("gazebench-theme"); } catch { return null; } };
  const store = (value) => { try { localStorage.setItem("gazebench-theme", value); } catch { /* a private window */ } };
  const apply = (theme) => {
    root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) {
      button.textContent = theme === "dark" ? "Light theme" : "Dark theme";
      button.title = `Change to the ${theme === "dark" ? "light" : "dark"} theme`;
    }
  };
  const current = () => stored() || (system.matches ? "dark" : "light");
  apply(current());
  system.addEventListener("change", () => apply(current()));
  document.addEventListener("DOMContentLoaded", () => {
    apply(current());
    document.getElementById("theme").addEventListener("click", () => {
      const theme = root.dataset.theme === "dark" ? "light" : "dark";
      store(theme);
      apply(theme);
    });
  });
})();
