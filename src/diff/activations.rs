//! Residuals of base and tuned model on the same tokens.

use anyhow::{Result, anyhow};
use candle_core::Tensor;
use indicatif::ProgressBar;
use tokenizers::Tokenizer;

use crate::bail_input;
use crate::interrupt::Interrupt;
use crate::model::hooks::NoHook;
use crate::model::{CausalLm, Pass};
use crate::ops::segments::Segments;
use crate::progress;
use crate::recipe::DiffSection;

/// A model with its adapter on or off. Base and tuned are usually two views of one loaded model.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The model.
    pub model: &'a CausalLm,
    /// Factor on its adapter.
    pub adapter: f64,
}

/// The first tokens of unrelated texts.
#[derive(Debug, Clone)]
pub struct Windows {
    /// `tokens` ids each.
    pub ids: Vec<Vec<u32>>,
    /// Zero-based row of each text.
    pub rows: Vec<usize>,
}

impl Windows {
    /// The first `samples` texts that are long enough: cut to `tokens · 10` characters, tokenised with special
    /// tokens, kept if at least `tokens` ids come out (the text preparation of the authors' toolkit).
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if there are fewer such texts.
    pub fn cut(texts: &[String], tokenizer: &Tokenizer, settings: &DiffSection) -> Result<Self> {
        let (n, mut windows) = (settings.tokens, Self { ids: Vec::new(), rows: Vec::new() });
        for (row, text) in texts.iter().enumerate() {
            if windows.ids.len() == settings.samples {
                break;
            }
            let cut: String = text.chars().take(n * 10).collect();
            let encoding = tokenizer.encode(cut, true).map_err(|e| anyhow!(e))?;
            if encoding.len() >= n {
                windows.ids.push(encoding.get_ids()[..n].to_vec());
                windows.rows.push(row);
            }
        }
        if windows.ids.len() < settings.samples {
            bail_input!(
                "diff.text: {} of {} texts have at least {n} tokens, diff.samples = {}; add text or lower diff.samples",
                windows.ids.len(),
                texts.len(),
                settings.samples
            );
        }
        Ok(windows)
    }

    /// The token at a position if it is the same in all windows.
    pub fn common_token(&self, position: usize) -> Option<u32> {
        let first = self.ids.first()?[position];
        self.ids.iter().all(|w| w[position] == first).then_some(first)
    }
}

/// `resid_post` of one block in both models.
pub struct Activations {
    /// Width of the stream.
    pub hidden: usize,
    /// The positions that were kept.
    pub positions: Vec<usize>,
    /// `[sample][position index · hidden ..]` of the base.
    pub base: Vec<Vec<f32>>,
    /// Of the tuned model.
    pub tuned: Vec<Vec<f32>>,
    /// Mean norm over samples and the positions after `norm_skip`: η of the base.
    pub base_norm: f64,
    /// η of the tuned model.
    pub tuned_norm: f64,
}

/// Windows in one forward pass.
const BATCH: usize = 50;

/// Runs both models over the windows, up to the block that is read and no further.
///
/// # Errors
/// [`crate::error::Interrupted`], or a tensor operation that fails.
pub fn collect(
    base: View,
    tuned: View,
    windows: &Windows,
    layer: usize,
    settings: &DiffSection,
    interrupt: &Interrupt,
) -> Result<Activations> {
    let bar = progress::bar("activations", 2 * windows.ids.len() as u64);
    let one = |view| at_positions(view, windows, layer, settings, interrupt, &bar);
    let (base_rows, base_norm) = one(base)?;
    let (tuned_rows, tuned_norm) = one(tuned)?;
    bar.finish_and_clear();
    Ok(Activations {
        hidden: base.model.hidden_size(),
        positions: settings.positions.clone(),
        base: base_rows,
        tuned: tuned_rows,
        base_norm,
        tuned_norm,
    })
}

/// `resid_post` of one model at the positions, `[sample][position index · hidden ..]`, and its η.
///
/// # Errors
/// [`crate::error::Interrupted`], or a tensor operation that fails.
pub fn at_positions(
    view: View,
    windows: &Windows,
    layer: usize,
    settings: &DiffSection,
    interrupt: &Interrupt,
    bar: &ProgressBar,
) -> Result<(Vec<Vec<f32>>, f64)> {
    let hidden = view.model.hidden_size();
    let (mut kept, mut norm_sum, mut norms) = (Vec::with_capacity(windows.ids.len()), 0f64, 0usize);
    for chunk in windows.ids.chunks(BATCH) {
        interrupt.check("nothing of the analysis was written")?;
        for rows in resid_post(view, chunk, layer)? {
            for row in rows.chunks_exact(hidden).skip(settings.norm_skip) {
                norm_sum += row.iter().map(|x| *x as f64 * *x as f64).sum::<f64>().sqrt();
                norms += 1;
            }
            let of_positions = settings.positions.iter().flat_map(|p| &rows[p * hidden..(p + 1) * hidden]);
            kept.push(of_positions.copied().collect());
        }
        bar.inc(chunk.len() as u64);
    }
    Ok((kept, norm_sum / norms.max(1) as f64))
}

/// `resid_post` of block `layer` for every token of each sequence, `[sequence][token · hidden ..]`.
///
/// # Errors
/// If a tensor operation fails.
pub fn resid_post(view: View, sequences: &[Vec<u32>], layer: usize) -> Result<Vec<Vec<f32>>> {
    let segments = Segments::new(sequences.iter().map(Vec::len).collect());
    let flat = stream(view, &sequences.concat(), &segments, layer)?.flatten_all()?.to_vec1::<f32>()?;
    let hidden = view.model.hidden_size();
    Ok((0..segments.len())
        .map(|i| {
            let rows = segments.rows(i);
            flat[rows.start * hidden..rows.end * hidden].to_vec()
        })
        .collect())
}

/// The stream after block `layer`, `(tokens, hidden)`, of sequences that lie end to end.
///
/// # Errors
/// If a tensor operation fails.
pub fn stream(view: View, ids: &[u32], segments: &Segments, layer: usize) -> Result<Tensor> {
    let mut hook = NoHook;
    let mut pass = Pass::new(segments, view.adapter, &mut hook);
    let x = view.model.embed(ids, &pass)?;
    Ok(view.model.run(x, 0..layer + 1, &mut pass)?)
}

/// Rows as a `(rows, hidden)` tensor on the model's device.
///
/// # Errors
/// If the rows are ragged or empty.
pub fn to_tensor(rows: &[Vec<f32>], model: &CausalLm) -> Result<Tensor> {
    Ok(Tensor::from_vec(rows.concat(), (rows.len(), model.hidden_size()), model.device())?)
}
