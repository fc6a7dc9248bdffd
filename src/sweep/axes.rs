//! What a sweep varies: mix ratios, seeds, and any other keys of the recipe.

use std::path::Path;

use anyhow::Result;

use crate::error::{InputError, input_error, or_collect};
use crate::limits::MOST_CELLS;
use crate::model::load::source;
use crate::recipe::{Recipe, SweepSection};

/// The axes of a sweep. An axis without values stays at the recipe's own value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Axes {
    /// Pretraining per narrow.
    pub mix: Vec<f64>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Further keys, each with its values as `--set` takes them.
    pub grid: Vec<(String, Vec<String>)>,
}

/// One combination of the axes' values.
#[derive(Debug, Clone)]
pub struct Combination {
    /// The recipe with these values; what it leaves open is still open.
    pub recipe: Recipe,
    /// The grid's keys with this combination's values.
    pub values: Vec<(String, String)>,
}

impl Axes {
    /// The axes of a recipe's `[sweep]`, each replaced where the command line names it too. An item of `grid` is
    /// `KEY=V,V,…`; commas within brackets, braces and quotes belong to a value.
    ///
    /// # Errors
    /// An [`InputError`] with every axis that cannot be read, or if nothing varies.
    pub fn new(section: &SweepSection, mix: &[f64], seeds: &[u64], grid: &[String]) -> Result<Self> {
        let mut faults = Vec::new();
        let mut axes = Self { mix: section.mix.clone(), seeds: section.seeds.clone(), grid: section.grid() };
        for given in grid {
            let Some((key, values)) = given.split_once('=') else {
                faults.push(format!("--grid {given}: expected KEY.PATH=VALUE,VALUE,..."));
                continue;
            };
            let (key, values) = (key.trim().to_string(), split(values));
            if values.iter().any(|value| value.is_empty()) {
                faults.push(format!("--grid {given}: an empty value"));
            }
            if grid.iter().filter(|g| g.split_once('=').is_some_and(|(k, _)| k.trim() == key)).count() > 1 {
                faults.push(format!("--grid {key}: given twice; expected one list of values"));
            }
            match axes.grid.iter_mut().find(|(k, _)| *k == key) {
                Some((_, before)) => *before = values,
                None => axes.grid.push((key, values)),
            }
        }
        if !mix.is_empty() {
            axes.mix = mix.to_vec();
        }
        if !seeds.is_empty() {
            axes.seeds = seeds.to_vec();
        }
        for (key, taken, option) in
            [("data.mix", !axes.mix.is_empty(), "--mix"), ("seed", !axes.seeds.is_empty(), "--seeds")]
        {
            if taken && axes.grid.iter().any(|(k, _)| k == key) {
                faults.push(format!("{key} is varied twice, by {option} and by the grid"));
            }
        }
        if axes == Self::default() && faults.is_empty() {
            faults.push("nothing to vary; expected --mix, --seeds, --grid, or [sweep] in the recipe".into());
        }
        InputError::unless_empty(faults)?;
        Ok(axes)
    }

    /// Every value of each axis with every value of the others; the grid's first key moves slowest, the seed fastest.
    ///
    /// # Errors
    /// An [`InputError`] with the faults of all the recipes.
    pub fn combinations(&self, recipe: &Path, set: &[String]) -> Result<Vec<Combination>> {
        // Counted before it is expanded.
        let lengths = self.grid.iter().map(|(_, values)| values.len());
        let lengths = lengths.chain([self.mix.len().max(1), self.seeds.len().max(1)]);
        let total = lengths.fold(1usize, usize::saturating_mul);
        if total > MOST_CELLS {
            return Err(input_error(format!("{total} cells; expected at most {MOST_CELLS}")));
        }
        let mut points: Vec<Vec<(String, String)>> = vec![Vec::new()];
        for (key, values) in &self.grid {
            let with = |point: &Vec<(String, String)>, value: &String| {
                [&point[..], &[(key.clone(), value.clone())]].concat()
            };
            points = points.iter().flat_map(|p| values.iter().map(move |v| with(p, v))).collect();
        }
        let (mut out, mut faults) = (Vec::new(), Vec::new());
        for values in points {
            let set: Vec<String> =
                set.iter().cloned().chain(values.iter().map(|(k, v)| format!("{k}={v}"))).collect();
            let Some(point) = or_collect(Recipe::read(recipe, &set), &mut faults)? else { continue };
            let mixes = if self.mix.is_empty() { vec![point.data.mix] } else { self.mix.clone() };
            let seeds = if self.seeds.is_empty() { vec![point.seed] } else { self.seeds.clone() };
            for (mix, seed) in mixes.iter().flat_map(|m| seeds.iter().map(move |s| (*m, *s))) {
                let mut recipe = point.clone();
                (recipe.data.mix, recipe.seed) = (mix, seed);
                // It is read again from wherever the cell runs.
                let recipe = recipe.with_models(source::absolute);
                faults.extend(recipe.faults().into_iter().map(|f| format!("mix {mix}: {f}")));
                out.push(Combination { recipe, values: values.clone() });
            }
        }
        InputError::unless_empty(faults)?;
        Ok(out)
    }
}

/// Splits at commas outside of brackets, braces and quotes.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quote) = (vec![String::new()], 0i32, None);
    for c in text.chars() {
        match (c, quote) {
            (',', None) if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            ('[' | '{', None) => depth += 1,
            (']' | '}', None) => depth -= 1,
            _ => {}
        }
        parts.last_mut().expect("there is always a part").push(c);
    }
    parts.iter().map(|part| part.trim().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_within_a_value_do_not_end_it() {
        assert_eq!(split("4,32"), ["4", "32"]);
        assert_eq!(split("[1, 2],[3]"), ["[1, 2]", "[3]"]);
        assert_eq!(split("{path='a,b', weight=1}, \"c,d\",e"), ["{path='a,b', weight=1}", "\"c,d\"", "e"]);
        assert_eq!(split(""), [""]);
    }

    #[test]
    fn the_command_line_goes_before_the_recipe_and_faults_come_together() {
        let grid = "\"train.lora.r\" = [4, 8]\nlr = 1".parse::<toml::Table>().unwrap();
        let section = SweepSection { mix: vec![1.0], seeds: vec![3], grid };
        let axes = Axes::new(&section, &[0.0, 2.0], &[], &["train.lora.r=1,2,3".into()]).unwrap();
        assert_eq!((axes.mix.as_slice(), axes.seeds.as_slice()), (&[0.0, 2.0][..], &[3][..]));
        assert_eq!(axes.grid[0].1, ["1", "2", "3"]);
        let faults = Axes::new(&section, &[], &[], &["x".into(), "seed=1,".into()]).unwrap_err().to_string();
        for part in ["--grid x: expected", "--grid seed=1,: an empty value", "seed is varied twice"] {
            assert!(faults.contains(part), "{faults}");
        }
        assert!(
            Axes::new(&SweepSection::default(), &[], &[], &[]).unwrap_err().to_string().contains("nothing")
        );
    }
}
