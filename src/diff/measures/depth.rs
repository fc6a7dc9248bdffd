//! The same differences after other blocks: how large they are there and what they decode to.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::patchscope::{IdentityPrompts, choose_scales};
use crate::diff::collect::{Sequence, collect};
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::decode::TopToken;
use crate::diff::findings::Findings;
use crate::diff::mean_difference::norm;
use crate::diff::measure::{Measure, Needs, Work};
use crate::diff::plot::{Ink, Plot, PlotAxis, PlotSeries, TokenLists, places};
use crate::diff::reading::{Prepared, Reading};
use crate::diff::relevance;
use crate::diff::statistics::mean;
use crate::progress;
use crate::recipe::DiffSection;

/// Mean differences by depth. Arrays run over `layers`, those within them over positions.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Depth {
    /// Depths that were asked for, 0 the first block and 1 the last.
    pub depths: Vec<f64>,
    /// Zero-based index of each block.
    pub layers: Vec<usize>,
    /// Number of windows.
    pub samples: usize,
    /// ‖v_p‖.
    pub delta_norm: Vec<Vec<f64>>,
    /// η of the tuned model after the block.
    pub expected_norm: Vec<f64>,
    /// ‖v_p‖ / η.
    pub relative_norm: Vec<Vec<f64>>,
    /// Logit lens of v_p: best tokens.
    pub top_tokens: Vec<Vec<Vec<TopToken>>>,
    /// Share of them that is relevant.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance: Vec<Vec<f64>>,
    /// The same of the patchscope at the block, each direction at its own best scale.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub patchscope_token_relevance: Vec<Vec<f64>>,
}

impl Measure for Depth {
    const UNITS: &[(&str, &str)] = &[
        ("depth.delta_norm", "L2 norm of the residual stream"),
        ("depth.expected_norm", "L2 norm of the residual stream"),
        ("depth.relative_norm", "multiples of expected_norm of the block"),
        ("depth.token_relevance", "share of the top tokens, 0 to 1"),
        ("depth.patchscope_token_relevance", "share of the top tokens, 0 to 1"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.depth.enabled
    }

    fn needs(settings: &DiffSection) -> Needs {
        let chooses = settings.depth.patchscope && settings.patchscope.scales.len() > 1;
        Needs { embedder: chooses, ..Needs::default() }
    }

    fn cost(settings: &DiffSection, n_layers: usize) -> Work {
        let section = &settings.depth;
        let blocks = section.layers.iter().map(|depth| settings.block_at(*depth, n_layers) + 1);
        let share = |blocks: usize| blocks as f64 / n_layers as f64;
        let tokens = 2 * section.samples.min(settings.samples) * settings.tokens;
        let patched = settings.positions.len() * settings.patchscope.scales.len() * 3;
        let above: f64 = blocks.clone().map(|blocks| 1.0 - share(blocks)).sum();
        Work {
            read: tokens as f64 * share(blocks.max().unwrap_or(0)),
            patched: if section.patchscope { patched as f64 * above } else { 0.0 },
            ..Work::default()
        }
    }

    /// Mean differences after each of the blocks, from one pass of either model over the first windows.
    fn measure(reading: &Reading, _: &mut Findings) -> Result<Option<Self>> {
        let Reading { inputs, settings, prepared: Prepared { windows, .. }, .. } = reading;
        let layers: Vec<usize> = settings
            .depth
            .layers
            .iter()
            .map(|depth| settings.block_at(*depth, inputs.base.model.n_layers()))
            .collect();
        let probe = |ids: &Vec<u32>| Sequence {
            ids: ids.clone(),
            read: settings.positions.clone(),
            norm: settings.norm_skip..ids.len(),
        };
        let probes: Vec<Sequence> = windows.ids.iter().take(settings.depth.samples).map(probe).collect();
        let of_layers = collect(inputs.base, inputs.tuned, &probes, &layers, 0, reading.interrupt)?;

        let mut record =
            Depth { depths: settings.depth.layers.clone(), samples: probes.len(), ..Depth::default() };
        for (&layer, found) in layers.iter().zip(&of_layers) {
            let (differences, eta) = (found.means().difference, found.tuned_norm());
            let lens = relevance::read(reading, &differences)?;
            let norms: Vec<f64> = differences.iter().map(|v| norm(v)).collect();
            record.relative_norm.push(norms.iter().map(|n| n / eta).collect());
            record.delta_norm.push(norms);
            record.expected_norm.push(eta);
            record.top_tokens.push(lens.top_tokens);
            if reading.prepared.lexicon.is_some() {
                record.token_relevance.push(lens.token_relevance);
                if settings.depth.patchscope {
                    record.patchscope_token_relevance.push(patchscope(reading, layer, eta, &differences)?);
                }
            }
        }
        Ok(Some(Depth { layers, ..record }))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        for (key, values) in [
            ("relative_norm", record.map(|d| &d.relative_norm)),
            ("relevance", record.map(|d| &d.token_relevance)),
        ] {
            let of_layers = values.map(|v| of_layers(v)).unwrap_or_default();
            let most = (0..of_layers.len()).reduce(|a, b| if of_layers[b] > of_layers[a] { b } else { a });
            row.put(format!("depth_{key}_max"), most.map(|i| of_layers[i]));
            row.put(format!("depth_{key}_max_layer"), record.zip(most).map(|(d, i)| d.layers[i]));
        }
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        let (at, caption) = (places(&self.layers), "Mean over the positions.");
        let plot = |key: &str, title: &str, y, series| Plot {
            key: format!("depth-{key}"),
            title: title.into(),
            caption: caption.into(),
            x: PlotAxis::even("block, counted from 0", "block", 0),
            y,
            series,
            null: None,
        };
        let curve =
            |ink, name: &str, values: &[Vec<f64>]| PlotSeries::curve(ink, name, &at, &of_layers(values));
        vec![
            plot(
                "norm",
                "Size of the difference by depth",
                PlotAxis::from_0("norm of the difference, multiples of η of the block", 4, 0.0),
                vec![curve(Ink::Narrow, "mean difference", &self.relative_norm)],
            ),
            plot(
                "relevance",
                "Relevant tokens by depth",
                PlotAxis::from_0("share of the top tokens that are relevant", 2, 0.2),
                vec![
                    curve(Ink::Lens, "logit lens", &self.token_relevance),
                    curve(Ink::Patchscope, "patchscope", &self.patchscope_token_relevance),
                ],
            ),
        ]
    }

    fn tokens(&self, positions: &[usize]) -> Vec<TokenLists> {
        let list = |(layer, of_layer): (&usize, &Vec<Vec<TopToken>>)| -> Vec<(String, Vec<TopToken>)> {
            let name = |p: &usize| format!("block {layer}, position {p}");
            positions.iter().zip(of_layer).map(|(p, tokens)| (name(p), tokens.clone())).collect()
        };
        vec![TokenLists {
            key: "depth",
            title: "Logit lens of the difference after other blocks".into(),
            lists: self.layers.iter().zip(&self.top_tokens).flat_map(list).collect(),
        }]
    }
}

/// Mean over the positions, by layer.
fn of_layers(values: &[Vec<f64>]) -> Vec<f64> {
    values.iter().map(|values| mean(values)).collect()
}

/// Relevance of what the patchscope at a block decodes directions to.
fn patchscope(reading: &Reading, layer: usize, eta: f64, directions: &[Vec<f32>]) -> Result<Vec<f64>> {
    let (section, k) = (&reading.settings.patchscope, reading.settings.top_k);
    let bar = progress::bar("patchscope", (directions.len() * section.scales.len()) as u64);
    let prompts = IdentityPrompts::new(reading.inputs.tuned, &reading.inputs.pretrained.tokenizer, layer)?;
    let decoded = prompts.decode(directions, eta, section, k, &bar, reading.interrupt)?;
    bar.finish_and_clear();
    let (chosen, _) = choose_scales(reading, decoded)?;
    Ok(reading.relevances(chosen.iter().map(|d| &d.tops[d.best])))
}
