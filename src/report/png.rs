//! Draws the file of a figure as PNG, for papers and slides. Text takes a font of the system, as in a browser.

use std::sync::Arc;

use anyhow::{Context, Result};
use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::fontdb::{Database, Family, Query, Style, Weight};
use resvg::usvg::{Options, Tree};

/// Pixels a unit of the SVG, which is twice as large as the chart on the page.
const SCALE: f32 = 1.5;

/// Draws SVG with text.
pub struct Painter {
    options: Options<'static>,
}

impl Painter {
    /// With the fonts of the system; `None` where it has none, as all text would be missing.
    pub fn new() -> Option<Self> {
        let mut fonts = Database::new();
        fonts.load_system_fonts();
        Self::with(fonts)
    }

    fn with(mut fonts: Database) -> Option<Self> {
        let query = Query { families: &[Family::SansSerif], ..Query::default() };
        if fonts.query(&query).is_none() {
            let name = sans_serif(&fonts)?;
            fonts.set_sans_serif_family(name);
        }
        Some(Self { options: Options { fontdb: Arc::new(fonts), ..Options::default() } })
    }

    /// The picture on white.
    ///
    /// # Errors
    /// If the text is no SVG.
    pub fn png(&self, svg: &str) -> Result<Vec<u8>> {
        let tree = Tree::from_str(svg, &self.options)?;
        let size = tree.size().to_int_size().scale_by(SCALE).context("a picture without size")?;
        let mut picture = Pixmap::new(size.width(), size.height()).context("a picture without size")?;
        picture.fill(Color::WHITE);
        resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut picture.as_mut());
        Ok(picture.encode_png()?)
    }
}

/// A font without serifs, or any, where the usual one is not there.
fn sans_serif(fonts: &Database) -> Option<String> {
    let plain =
        fonts.faces().filter(|f| f.style == Style::Normal && f.weight == Weight::NORMAL && !f.monospaced);
    let mut names: Vec<&str> = plain.filter_map(|f| Some(f.families.first()?.0.as_str())).collect();
    // In an order that does not hang on how the folders are read.
    names.sort_by_key(|name| (!name.contains("Sans"), name.len(), *name));
    names.first().map(|name| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_font_nothing_is_drawn() {
        assert!(Painter::with(Database::new()).is_none());
    }

    #[test]
    #[ignore = "needs a font: apt-get install fonts-dejavu-core"]
    fn needs_font_text_is_drawn() {
        let painter = Painter::new().expect("no font on this system");
        let draw = |text: &str| {
            let svg = format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"80\" height=\"40\"><text x=\"5\" y=\"30\" \
                 font-family=\"sans-serif\" font-size=\"20\">{text}</text></svg>"
            );
            Pixmap::decode_png(&painter.png(&svg).unwrap()).unwrap()
        };
        let dark = |p: &Pixmap| p.pixels().iter().filter(|p| p.red() < 128).count();
        let (empty, words) = (draw(""), draw("mix"));
        assert_eq!((words.width(), words.height()), (120, 60));
        assert_eq!(dark(&empty), 0);
        assert!(dark(&words) > 50, "{} dark pixels", dark(&words));
        assert!(words.pixels().iter().all(|p| p.alpha() == 255), "the ground is not white");
    }
}
