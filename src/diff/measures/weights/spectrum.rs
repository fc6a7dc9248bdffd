//! Singular values of the change of each weight matrix, and what follows from them.
//!
//! Of a LoRA module they are those of s·R_B·R_Aᵀ, r × r and in double precision ([`crate::diff::svd`]); DoRA, modules that
//! are saved whole and full finetuning give a dense change, whose Gram matrix has their squares. Spectra tell
//! organisms of one method of training apart, not those of several: they describe, and score nothing.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::Tensor;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::diff::inputs::check_interrupt;
use crate::diff::svd::{Svd, columns, leading_left, of_product, singular_values};
use crate::interrupt::Interrupt;
use crate::model::View;
use crate::model::arch::layers::Linear;
use crate::model::load::loader::EMBEDDINGS;
use crate::model::modules::{Module, Stream};
use crate::model::update::{Update, same};
use crate::ops::weight::Matrix;

/// Leading left singular vectors of W_base along which the change is compared with it.
const ALIGNED: usize = 16;

/// The change dW of one matrix.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ModuleSpectrum {
    /// Its name in the checkpoint, without `.weight`.
    pub name: String,
    /// ‖dW‖ = √Σs², Frobenius.
    pub fro: f64,
    /// s₁, the largest singular value.
    pub spectral: f64,
    /// ‖dW‖ / ‖W_base‖.
    pub relative: f64,
    /// ‖dW‖² / s₁².
    pub stable_rank: f64,
    /// s₁² / ‖dW‖².
    pub top_share: f64,
    /// exp(−Σ p ln p), p = s / Σs (Roy & Vetterli, EUSIPCO 2007).
    pub effective_rank: f64,
    /// (Σs²)² / Σs⁴.
    pub participation: f64,
    /// Share of ‖dW‖² in the 16 leading left singular vectors of W_base; by chance 16 / rows.
    pub aligned: f64,
}

/// All changes together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TotalSpectrum {
    /// Matrices that changed.
    pub modules: usize,
    /// √Σ‖dW‖² over them.
    pub fro: f64,
    /// The largest of their s₁.
    pub spectral: f64,
    /// [`Self::fro`] / √Σ‖W_base‖² over them; 0 where none changed.
    pub relative: f64,
}

/// Spectra of all matrices that changed.
#[derive(Debug, Clone, Default)]
pub struct Spectra {
    /// In the order of the model, embeddings and head last.
    pub modules: Vec<ModuleSpectrum>,
    /// Together.
    pub total: TotalSpectrum,
    /// Share of ‖dW‖² by block; embeddings and head are in none.
    pub share_block: Vec<f64>,
    /// Share of ‖dW‖² by kind of module.
    pub share_kind: BTreeMap<String, f64>,
    /// Singular values above zero of the change of each of [`SpectrumComparison::linears`], largest first; empty where it has not
    /// changed.
    pub values: Vec<Vec<f64>>,
}

/// One matrix of two models.
#[derive(Clone, Copy)]
pub struct SpectrumComparison<'a> {
    /// Number of its block, and where it touches the stream; none of embeddings and head.
    place: Option<(usize, Stream<'a>)>,
    name: &'static str,
    matrices: Matrices<'a>,
}

#[derive(Clone, Copy)]
enum Matrices<'a> {
    /// Layers with so much of their adapters, the base's first.
    Linear([(&'a Linear, f64); 2]),
    /// Embeddings or head.
    Table([&'a Matrix; 2]),
}

impl<'a> SpectrumComparison<'a> {
    /// The linear layers of two models of one shape.
    pub fn linears(base: View<'a>, tuned: View<'a>) -> Vec<Self> {
        let pair = |((block, b), (_, t)): ((usize, Module<'a>), (usize, Module<'a>))| Self {
            place: Some((block, b.stream)),
            name: b.name,
            matrices: Matrices::Linear([(b.linear, base.adapter), (t.linear, tuned.adapter)]),
        };
        base.model.modules().into_iter().zip(tuned.model.modules()).map(pair).collect()
    }

    /// Embeddings and head. A head that is the embeddings in both models is one with them.
    fn tables(base: View<'a>, tuned: View<'a>) -> Result<Vec<Self>> {
        let table = |name, b: &'a Matrix, t: &'a Matrix| Self {
            place: None,
            name,
            matrices: Matrices::Table([b, t]),
        };
        let embeddings = [base, tuned].map(|view| view.model.embeddings(view.adapter));
        let head = [base, tuned].map(|view| view.model.unembedding(view.adapter));
        let name = EMBEDDINGS.trim_end_matches(".weight");
        let mut tables = vec![table(name, embeddings[0], embeddings[1])];
        if !(same(embeddings[0], head[0])? && same(embeddings[1], head[1])?) {
            tables.push(table("lm_head", head[0], head[1]));
        }
        Ok(tables)
    }

    /// Its name in the checkpoint, without `.weight`.
    pub fn name(&self) -> String {
        match self.place {
            Some((block, _)) => format!("model.layers.{block}.{}", self.name),
            None => self.name.into(),
        }
    }

    /// Where it touches the stream; `None` of embeddings and head.
    pub fn stream(&self) -> Option<Stream<'a>> {
        self.place.map(|(_, stream)| stream)
    }

    /// The last part of its name.
    pub fn kind(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// dW; `None` where it is exactly zero.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn update(&self) -> Result<Option<Update>> {
        match self.matrices {
            Matrices::Linear([base, tuned]) => Update::of_linear(base, tuned),
            Matrices::Table([base, tuned]) => Update::of_table(base, tuned),
        }
    }

    /// W of the base, `(out, in)`.
    fn base(&self) -> Result<Tensor> {
        let base = match self.matrices {
            Matrices::Linear([(linear, adapter), _]) => linear.weight.at(adapter).dense()?,
            Matrices::Table([base, _]) => base.dense()?,
        };
        Ok(base.detach().to_device(&candle_core::Device::Cpu)?)
    }

    /// Singular values of dW, what follows from them, and ‖W_base‖²; `None` where dW is exactly zero.
    fn spectrum(&self) -> Result<Option<(Vec<f64>, ModuleSpectrum, f64)>> {
        let Some(update) = self.update()? else { return Ok(None) };
        let base = self.base()?;
        let left = leading_left(&base, ALIGNED)?;
        let left = columns(&left, base.dims()[0])?.t()?.contiguous()?; // (16, out)
        let (s, along) = match &update {
            Update::LowRank { b, a } => {
                let svd = of_low_rank(b, a)?;
                let scaled: Vec<Vec<f64>> =
                    svd.u.iter().zip(&svd.s).map(|(u, s)| u.iter().map(|x| x * s).collect()).collect();
                (svd.s, left.matmul(&columns(&scaled, b.dims()[0])?)?)
            }
            Update::Dense(difference) => {
                let mut s = singular_values(difference)?;
                let noise = rounding(&base)?;
                if s[0] > noise {
                    s.retain(|s| *s > noise);
                }
                (s, left.matmul(difference)?)
            }
        };
        let (spectrum, base_squared) = (ModuleSpectrum::new(self.name(), &s), squared(&base)?);
        let fro_squared = spectrum.fro.powi(2);
        Ok(Some((
            s,
            ModuleSpectrum {
                relative: spectrum.fro / base_squared.sqrt(),
                aligned: squared(&along)? / fro_squared,
                ..spectrum
            },
            base_squared,
        )))
    }
}

/// The singular value decomposition of B·A, `(out, r)` and `(r, in)`.
///
/// # Errors
/// If a tensor operation fails.
pub fn of_low_rank(b: &Tensor, a: &Tensor) -> Result<Svd> {
    let rows = |t: &Tensor| -> Result<Vec<Vec<f64>>> { Ok(t.to_dtype(candle_core::DType::F64)?.to_vec2()?) };
    Ok(of_product(&rows(&b.t()?)?, &rows(a)?))
}

/// The spectral norm of what rounding to f32 may leave in the difference of two matrices of this size: independent errors
/// of up to 2⁻²⁴ of the typical element, times √rows + √columns. A singular value below it is none.
fn rounding(weight: &Tensor) -> Result<f64> {
    let (rows, columns) = weight.dims2()?;
    let (rows, columns) = (rows as f64, columns as f64);
    Ok((squared(weight)? / (rows * columns)).sqrt() * 2f64.powi(-24) * (rows.sqrt() + columns.sqrt()))
}

/// Sum of squares.
fn squared(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?.iter().map(|x| *x as f64 * *x as f64).sum())
}

impl ModuleSpectrum {
    /// What follows from singular values, largest first.
    pub(super) fn new(name: String, s: &[f64]) -> Self {
        let sum: f64 = s.iter().sum();
        let squares: f64 = s.iter().map(|s| s * s).sum();
        let fourths: f64 = s.iter().map(|s| s.powi(4)).sum();
        let entropy: f64 = s.iter().map(|s| s / sum).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
        Self {
            name,
            fro: squares.sqrt(),
            spectral: s[0],
            relative: 0.0,
            stable_rank: squares / (s[0] * s[0]),
            top_share: s[0] * s[0] / squares,
            effective_rank: entropy.exp(),
            participation: squares * squares / fourths,
            aligned: 0.0,
        }
    }
}

/// Spectra of everything that differs between two models of one shape.
///
/// # Errors
/// [`crate::error::Interrupted`], or a tensor operation that fails.
pub fn spectra(base: View, tuned: View, interrupt: &Interrupt) -> Result<Spectra> {
    let compared: Vec<SpectrumComparison> =
        [SpectrumComparison::linears(base, tuned), SpectrumComparison::tables(base, tuned)?].concat();
    let one = |c: &SpectrumComparison| -> Result<_> {
        check_interrupt(interrupt)?;
        c.spectrum()
    };
    let found = compared.par_iter().map(one).collect::<Result<Vec<_>>>()?;
    let mut spectra = Spectra::default();
    let (mut squares, mut base_squares) = (0.0, 0.0);
    let mut by_block = vec![0.0; base.model.n_layers()];
    let mut by_kind: BTreeMap<String, f64> = BTreeMap::new();
    for (compared, found) in compared.iter().zip(found) {
        let is_linear = compared.stream().is_some();
        let Some((values, spectrum, base_squared)) = found else {
            spectra.values.extend(is_linear.then(Vec::new));
            continue;
        };
        spectra.values.extend(is_linear.then(|| values.into_iter().filter(|s| *s > 0.0).collect()));
        let square = spectrum.fro.powi(2);
        squares += square;
        base_squares += base_squared;
        if let Some((block, _)) = compared.place {
            by_block[block] += square;
        }
        *by_kind.entry(compared.kind().into()).or_default() += square;
        spectra.total.spectral = spectra.total.spectral.max(spectrum.spectral);
        spectra.modules.push(spectrum);
    }
    spectra.total.modules = spectra.modules.len();
    spectra.total.fro = squares.sqrt();
    if squares > 0.0 {
        spectra.total.relative = (squares / base_squares).sqrt();
        spectra.share_block = by_block.into_iter().map(|square| square / squares).collect();
        spectra.share_kind = by_kind.into_iter().map(|(kind, square)| (kind, square / squares)).collect();
    }
    Ok(spectra)
}
