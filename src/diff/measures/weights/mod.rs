//! The change of the weights read by itself: no text is run through either model.
//!
//! dW is s·B·A of a LoRA module, and W_tuned − W_base of any other pair. [`spectrum`] describes it module by module;
//! [`vocabulary`] asks which words it can write to the stream or read from it, and has the score.

pub mod spectrum;
pub mod vocabulary;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use self::spectrum::{ModuleSpectrum, TotalSpectrum};
use self::vocabulary::Direction;
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::decode::TopToken;
use crate::diff::findings::Findings;
use crate::diff::headline::{TraceMeasure, TraceReading};
use crate::diff::measure::{Measure, Work};
use crate::diff::plot::{Ink, Number, Plot, PlotAxis, PlotSeries, TokenLists, places};
use crate::diff::reader_score::{ReaderNull, ReaderScore};
use crate::diff::reading::Reading;
use crate::diff::score::{FINE, Score};
use crate::diff::statistics::Interval;
use crate::recipe::DiffSection;

/// The change of the weights. Where the models have the same weights there is no module and no score.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Weights {
    /// [`Self::write_auroc`]. Its interval is over words: what other words of the subject would give; it knows nothing of
    /// other texts or seeds. Its null are random changes with the singular values of this one.
    #[serde(flatten)]
    pub reader: ReaderScore,
    /// AUROC of the narrow words among common ones of like frequency, by the energy that dW gives their rows of the
    /// unembedding.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub write_auroc: Option<f64>,
    /// The same where the four dimensions with the largest gain are left out of the rows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub write_auroc_without_top_gains: Option<f64>,
    /// [`Self::write_auroc`] among all common words, whatever their frequency.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub auroc_plain: Option<f64>,
    /// AUROC by the energy that dW draws from the words' embeddings.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub read_auroc: Option<f64>,
    /// Bootstrap interval of [`Self::read_auroc`] over words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub read_auroc_interval: Option<Interval>,
    /// [`Self::read_auroc`] among all common words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub read_auroc_plain: Option<f64>,
    /// Narrow and common words that take part in the stratified AUROCs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub words: Option<[usize; 2]>,
    /// All modules together.
    pub total: TotalSpectrum,
    /// Share of ‖dW‖² by block.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub share_block: Vec<f64>,
    /// Share of ‖dW‖² by kind of module.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub share_kind: BTreeMap<String, f64>,
    /// The modules that changed, in the order of the model.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub modules: Vec<ModuleSpectrum>,
    /// Words along the leading directions of the modules that changed most, most changed first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub directions: Vec<Direction>,
    /// The largest share of relevant words on one side of a direction; a maximum over all of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub directions_best: Option<f64>,
    /// The same maximum over as many random directions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub directions_null: Option<ReaderNull>,
}

/// What the score is.
const UNIT: &str = "probability that the change writes more along a narrow word than along a common one of like \
                    frequency, 0 to 1";

impl Measure for Weights {
    const UNITS: &[(&str, &str)] = &[
        ("readers.weights.score", UNIT),
        ("readers.weights.interval", "2.5 % and 97.5 % quantiles over words"),
        ("readers.weights.write_auroc", UNIT),
        (
            "readers.weights.read_auroc",
            "probability that the change reads more of a narrow word than of a common one of like frequency, 0 to 1",
        ),
        ("readers.weights.modules.fro", "root of the sum of squares of the change"),
        ("readers.weights.modules.spectral", "largest singular value of the change"),
        ("readers.weights.modules.relative", "fro over that of the base's weight"),
        ("readers.weights.modules.stable_rank", "fro² over spectral²"),
        ("readers.weights.modules.top_share", "spectral² over fro², 0 to 1"),
        ("readers.weights.modules.effective_rank", "exponential of the entropy of the singular values"),
        ("readers.weights.modules.participation", "(Σ s²)² over Σ s⁴"),
        (
            "readers.weights.modules.aligned",
            "share of fro² in the base weight's 16 leading left singular vectors",
        ),
        ("readers.weights.directions.top.score", "cosine with the word's row"),
        ("readers.weights.directions_best", "share of the words on one side, 0 to 1"),
        ("readers.weights.seconds", "seconds"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.weights.enabled
    }

    fn cost(_settings: &DiffSection, _n_layers: usize) -> Work {
        Work::default()
    }

    /// Reads the change of the weights.
    fn measure(reading: &Reading, _: &mut Findings) -> Result<Option<Self>> {
        let clock = Instant::now();
        let spectra = spectrum::spectra(reading.inputs.base, reading.inputs.tuned, reading.interrupt)?;
        let found = vocabulary::read(reading, &spectra)?;
        let (directions_best, directions_null) = found.best.unzip();
        Ok(Some(Self {
            reader: ReaderScore {
                score: found.write.map(|write| write.auroc),
                interval: found.write.map(|write| write.interval),
                null: found.null,
                floor: None,
                unit: UNIT.into(),
                settings: serde_json::to_value(&reading.settings.weights)?,
                seconds: clock.elapsed().as_secs_f64(),
            },
            write_auroc: found.write.map(|write| write.auroc),
            write_auroc_without_top_gains: found.write_without_top_gains,
            auroc_plain: found.plain[0],
            read_auroc: found.read.map(|read| read.auroc),
            read_auroc_interval: found.read.map(|read| read.interval),
            read_auroc_plain: found.plain[1],
            words: found.words,
            total: spectra.total,
            share_block: spectra.share_block,
            share_kind: spectra.share_kind,
            modules: spectra.modules,
            directions: found.directions,
            directions_best,
            directions_null,
        }))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        ReaderScore::put_columns(record.map(|r| &r.reader), "weights_write_auroc", row);
        row.put_late("weights_read_auroc", record.and_then(|r| r.read_auroc));
        row.put_late("weights_fro", record.map(|r| r.total.fro));
        row.put_late("weights_relative", record.map(|r| r.total.relative));
    }

    const TRACE: Option<TraceMeasure> = Some(TraceMeasure {
        key: "weights",
        name: "the weights",
        axis: "energy of the weights, AUROC",
        ink: Ink::Weights,
    });

    fn trace(&self, _: &[usize]) -> Option<TraceReading> {
        self.reader.trace(Some(0.5))
    }

    fn scores(&self) -> Vec<Score> {
        self.reader.scores("weights", "the weights", FINE)
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        if self.share_block.is_empty() {
            return Vec::new();
        }
        let blocks: Vec<usize> = (0..self.share_block.len()).collect();
        let at = places(&blocks);
        vec![Plot {
            key: "weights-block".into(),
            title: "Where the weights changed".into(),
            caption: "Share of the squared change of all weights by block.".into(),
            x: PlotAxis::even("block", "block", 0),
            y: PlotAxis::from_0("share of the squared change", 2, 0.0),
            series: vec![PlotSeries::curve(Ink::Tuned, "change", &at, &self.share_block)],
            null: None,
        }]
    }

    fn tokens(&self, _: &[usize]) -> Vec<TokenLists> {
        let lists: Vec<(String, Vec<TopToken>)> = self
            .directions
            .iter()
            .filter(|direction| direction.index == 0)
            .flat_map(|direction| {
                let name = &direction.module;
                [
                    (name.clone(), direction.top.clone()),
                    (format!("{name}, opposite"), direction.bottom.clone()),
                ]
            })
            .collect();
        let title = "Words along the first singular direction of the modules that changed most".to_string();
        let found = TokenLists { key: "weights", title, lists };
        (!self.directions.is_empty()).then_some(found).into_iter().collect()
    }

    fn numbers(&self) -> Vec<Number> {
        let write = self.reader.score.map(|auroc| {
            Number::new(
                "Weights: AUROC of the narrow words by the energy that the change writes to them",
                auroc,
            )
            .with(self.reader.interval)
        });
        let read = self.read_auroc.map(|auroc| {
            Number::new(
                "Weights: AUROC of the narrow words by the energy that the change reads of them",
                auroc,
            )
            .with(self.read_auroc_interval)
        });
        write.into_iter().chain(read).collect()
    }
}
