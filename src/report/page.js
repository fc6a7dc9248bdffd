// The page is complete without this; it only narrows the list of generated texts.
(() => {
  const form = document.querySelector("form.filter");
  if (form) {
    const groups = [...document.querySelectorAll("[data-run]")];
    const count = form.querySelector("output");
    const apply = () => {
      const run = form.elements.run?.value, words = form.elements.words.value.trim().toLowerCase();
      let shown = 0;
      for (const group of groups) {
        let any = false;
        for (const pair of group.querySelectorAll(".pair")) {
          const hit = (!run || group.dataset.run === run) && (!words || pair.textContent.toLowerCase().includes(words));
          pair.hidden = !hit;
          any ||= hit;
          shown += hit;
        }
        group.hidden = !any;
        if (any && (run || words)) group.open = true;
      }
      count.textContent = shown + " shown";
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (e) => e.preventDefault());
    form.hidden = false;
  }
  const reveal = () => {
    const at = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const box = at && at.closest("details");
    if (box) { box.open = true; at.scrollIntoView(); }
  };
  addEventListener("hashchange", reveal);
  reveal();
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => (d.open = true)));
})();
