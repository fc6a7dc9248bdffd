// The page is complete without this: it narrows the list of generated texts, draws figures as PNG, opens what is linked to.
(() => {
  const form = document.querySelector("form.filter");
  if (form) {
    const groups = [...document.querySelectorAll("[data-run]")];
    const count = form.querySelector("output");
    const apply = () => {
      const value = (name) => form.elements[name]?.value ?? "";
      const chosen = ["run", "position", "strength"].filter((name) => value(name));
      const words = value("words").trim().toLowerCase();
      let shown = 0, all = 0;
      for (const group of groups) {
        let any = false;
        const here = chosen.every((name) => group.dataset[name] === value(name));
        for (const pair of group.querySelectorAll(".pair")) {
          const hit = here && (!words || pair.textContent.toLowerCase().includes(words));
          pair.hidden = !hit;
          any ||= hit;
          shown += hit;
          all += 1;
        }
        group.hidden = !any;
        if (any && (chosen.length || words)) group.open = true;
      }
      count.textContent = shown + " of " + all + " prompts shown";
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (e) => e.preventDefault());
    form.addEventListener("reset", () => setTimeout(apply));
    form.hidden = false;
    apply();
  }
  for (const button of document.querySelectorAll("button[data-png]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const image = new Image();
      image.onload = () => {
        const canvas = Object.assign(document.createElement("canvas"), { width: 2 * image.width, height: 2 * image.height });
        canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
        const link = document.createElement("a");
        Object.assign(link, { download: button.dataset.png + ".png", href: canvas.toDataURL() });
        link.click();
      };
      image.src = button.parentElement.querySelector("a").href;
    });
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
