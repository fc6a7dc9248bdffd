//! The page in a browser without a window: no error, figures and tables that are there, filters that filter, at the width
//! of a desk and of a phone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use trainer::claims::read_all;
use trainer::report::html;

use crate::common::process::find_program;
use crate::common::run_folder::{self, HOSTILE, Spec};

/// Runs before the page's own script, and after it once all is loaded.
const BEFORE: &str = r#"<script>
const faults = [];
addEventListener("error", (e) => faults.push(String(e.message)));
console.error = (...what) => faults.push(what.join(" "));
window.alert = (what) => faults.push("alert " + what);
</script>"#;

const AFTER: &str = r#"<script>
addEventListener("load", () => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const pairs = () => all(".pair").filter((p) => p.getClientRects().length).length;
  document.querySelectorAll("details").forEach((d) => (d.open = true));
  const form = document.querySelector("form.filter");
  const filter = (name, value) => {
    form.elements[name].value = value;
    form.dispatchEvent(new Event("input", { bubbles: true }));
    return [pairs(), form.querySelector("output").textContent];
  };
  const light = (rgb) => rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const rgb = (color) => color.match(/[\d.]+/g).slice(0, 3).map(Number);
  const paper = light(rgb(getComputedStyle(document.body).backgroundColor));
  const contrast = (element) => {
    const ink = light(rgb(getComputedStyle(element).color));
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  };
  const found = {
    faults,
    width: innerWidth,
    overflow: document.documentElement.scrollWidth - innerWidth,
    figures: all("figure").map((f) => {
      const box = f.querySelector(".chart svg").getBoundingClientRect();
      return [f.id, box.width, box.height, f.querySelector("[role=img]").getAttribute("aria-label").length];
    }),
    fileLinks: all("figure .files a").every((a) => a.href.startsWith("data:") && a.download),
    pngButtons: all("figure .files button").every((b) => !b.hidden),
    tablesWithoutCaption: all("table").filter((t) => !t.caption?.textContent.trim()).length,
    headings: all("h1, h2, h3, h4, h5, h6").map((h) => Number(h.tagName[1])),
    ids: all("[id]").map((e) => e.id),
    images: all("img").length,
    unlabelled: all("select, input, button").filter((e) => !e.labels?.length && !e.textContent.trim()).length,
    contrast: Math.min(...all("p, .note, small, figcaption, a, li, .claim").map(contrast)),
    all: pairs(),
    words: filter("words", "  FROZEN butter "),
    nothing: filter("words", "no such words"),
    position: (filter("words", ""), filter("position", "3")),
    run: filter("run", "run-2"),
  };
  form.reset();
  HTMLAnchorElement.prototype.click = function () { found.png = [this.download, this.href.slice(0, 22), this.href.length]; };
  document.querySelector("[data-png=lift-mix]").click();
  setTimeout(() => {
    found.again = pairs();
    const out = document.createElement("pre");
    out.id = "found";
    out.textContent = JSON.stringify(found);
    document.body.append(out);
  }, 500);
});
</script>"#;

fn chromium() -> PathBuf {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names.into_iter().find_map(find_program).expect("no chromium: apt-get install chromium")
}

fn run_browser(chromium: &Path, dir: &Path, args: &[String]) -> String {
    let profile = format!("--user-data-dir={}", dir.join("profile").display());
    let fixed = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--virtual-time-budget=10000",
    ];
    let out = Command::new(chromium).args(fixed).arg(profile).args(args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// What the page looks like from within, at a width.
fn look(chromium: &Path, dir: &Path, page: &str, width: u32) -> Value {
    // A window has a least width, an inner frame has not.
    let inner = page.replacen("<head>", &format!("<head>{BEFORE}"), 1).replacen(
        "</body>",
        &format!("{AFTER}</body>"),
        1,
    );
    fs::write(dir.join("page.html"), inner).unwrap();
    let outer = format!(
        "<iframe src=\"page.html\" style=\"border:0;width:{width}px;height:900px\"></iframe><script>\
         addEventListener('load', () => setInterval(() => {{ const found = document.querySelector('iframe')\
         .contentDocument.getElementById('found'); if (found) document.body.textContent = found.textContent; }}, 50))</script>"
    );
    fs::write(dir.join("outer.html"), outer).unwrap();
    let address = format!("file://{}", dir.join("outer.html").display());
    let flags = ["--allow-file-access-from-files", "--dump-dom", "--window-size=1400,900"].map(String::from);
    let dom = run_browser(chromium, dir, &[&flags[..], &[address]].concat());
    let body = dom.split("<body>").nth(1).and_then(|b| b.split("</body>").next());
    let text = body
        .unwrap_or_else(|| panic!("{dom}"))
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {}", &text[..text.len().min(400)]))
}

#[test]
#[ignore = "needs Chromium: apt-get install chromium"]
fn needs_chromium_the_page_works_in_a_browser() {
    let chromium = chromium();
    let dir = tempfile::tempdir().unwrap();
    run_folder::write_sweep(dir.path());
    // Text of a model may hold anything; in a page it must do nothing.
    let spec = Spec { mix: 0.0, seed: 0, trace: 1.0 };
    let mut texts = run_folder::texts(&spec);
    texts[0].steered = vec![HOSTILE.into()];
    run_folder::write_texts(&dir.path().join("cells/mix0-seed0"), &texts);
    let page = html::page(&read_all(&[dir.path().to_path_buf()]).unwrap()).unwrap();
    for width in [1200, 390] {
        let found = look(&chromium, dir.path(), &page, width);
        assert_eq!(found["width"], width, "{found}");
        assert_eq!(found["faults"], json!([]), "{found}");
        assert!(
            found["overflow"].as_f64().unwrap() <= 0.0,
            "the page is wider than {width}: {}",
            found["overflow"]
        );

        let figures = found["figures"].as_array().unwrap();
        assert!(figures.len() > 40, "{} figures", figures.len());
        for figure in figures {
            let (w, h) = (figure[1].as_f64().unwrap(), figure[2].as_f64().unwrap());
            assert!(w > 250.0 && h > 150.0, "{figure} is not visible");
            assert!(figure[3].as_u64().unwrap() > 30, "{figure} says nothing to a screen reader");
        }
        assert_eq!(found["fileLinks"], true);
        assert_eq!(found["pngButtons"], true);
        assert_eq!(found["tablesWithoutCaption"], 0);
        assert_eq!(found["unlabelled"], 0);
        assert_eq!(found["images"], 0);
        assert!(found["contrast"].as_f64().unwrap() >= 4.5, "contrast {}", found["contrast"]);

        let levels: Vec<u64> =
            found["headings"].as_array().unwrap().iter().map(|h| h.as_u64().unwrap()).collect();
        assert_eq!(levels.iter().filter(|l| **l == 1).count(), 1);
        assert!(levels.windows(2).all(|w| w[1] <= w[0] + 1), "a level of headings is left out: {levels:?}");
        let mut ids: Vec<&str> =
            found["ids"].as_array().unwrap().iter().map(|i| i.as_str().unwrap()).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "an id stands twice");

        // 10 runs, 2 positions, 2 prompts; text about cakes in six runs, less the one that was replaced.
        assert_eq!(found["all"], 40);
        assert_eq!(found["words"], json!([23, "23 of 40 prompts shown"]));
        assert_eq!(found["nothing"], json!([0, "0 of 40 prompts shown"]));
        assert_eq!(found["position"], json!([20, "20 of 40 prompts shown"]));
        assert_eq!(found["run"], json!([2, "2 of 40 prompts shown"]));
        assert_eq!(found["again"], 40);
        assert_eq!(found["png"][0], "lift-mix.png", "{}", found["png"]);
        assert_eq!(found["png"][1], "data:image/png;base64,");
        assert!(found["png"][2].as_u64().unwrap() > 10_000, "{}", found["png"]);
    }
    let pdf = dir.path().join("page.pdf");
    let address = format!("file://{}", dir.path().join("page.html").display());
    run_browser(&chromium, dir.path(), &[format!("--print-to-pdf={}", pdf.display()), address]);
    assert!(fs::read(&pdf).unwrap().starts_with(b"%PDF"));
}
