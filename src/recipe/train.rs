//! `[train]`: how an organism learns.

use serde::{Deserialize, Serialize};

use super::{LoraSection, MatchSection, MitigationSection, TraceSection};

/// `[train]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSection {
    /// Which weights learn.
    pub method: Method,
    /// Narrow exposure in batches; 0 where `epochs` sizes it.
    pub steps: usize,
    /// Narrow exposure in passes over the narrow examples; 0 where `steps` sizes it.
    pub epochs: f64,
    /// Examples a step.
    pub batch_size: usize,
    /// Examples a forward pass (0: all of a step's); the rest of the step accumulates, weighted by tokens.
    pub micro_batch_size: usize,
    /// Whether the backward pass computes each block again instead of keeping what happened in it: the same bytes,
    /// less memory, more time.
    pub recompute: bool,
    /// Highest learning rate.
    pub lr: f64,
    /// Shape of the schedule.
    pub schedule: Schedule,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
    /// AdamW's β₁.
    pub beta1: f64,
    /// AdamW's β₂.
    pub beta2: f64,
    /// AdamW's ε.
    pub eps: f64,
    /// AdamW's decoupled decay.
    pub weight_decay: f64,
    /// Largest global gradient norm (0: no clipping).
    pub clip: f64,
    /// Steps between evaluations on held-out text (0: at the start and the end only).
    pub eval_every: usize,
    /// At most this many held-out examples of each part of the mixture.
    pub eval_examples: usize,
    /// Steps between checkpoints (0: only when interrupted and at the end).
    pub checkpoint_every: usize,
    /// Rank, alpha, targets.
    pub lora: LoraSection,
    /// What is done against the trace.
    pub mitigation: MitigationSection,
    /// How the trace is followed.
    pub trace: TraceSection,
    /// Where it ends, if it ends by behaviour.
    #[serde(rename = "match")]
    pub matching: MatchSection,
}

impl Default for TrainSection {
    fn default() -> Self {
        Self {
            method: Method::Lora,
            steps: 0,
            epochs: 0.0,
            batch_size: 8,
            micro_batch_size: 0,
            recompute: false,
            lr: 3e-4,
            schedule: Schedule::Linear,
            warmup_steps: 0,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            clip: 1.0,
            eval_every: 0,
            eval_examples: 32,
            checkpoint_every: 50,
            lora: LoraSection::default(),
            mitigation: MitigationSection::default(),
            trace: TraceSection::default(),
            matching: MatchSection::default(),
        }
    }
}

impl TrainSection {
    /// The narrow exposure in batches, at most: `steps`, or those of a matched training; 0 where `epochs` sizes it.
    pub fn narrow_steps(&self) -> usize {
        if self.matching.is_on() { self.matching.max_steps } else { self.steps }
    }

    /// What is wrong with a warm-up in a run of that many optimizer steps.
    pub fn warmup_fault(&self, steps: usize) -> Option<String> {
        let warmup = self.warmup_steps;
        (warmup > 0 && warmup >= steps)
            .then(|| format!("train.warmup_steps = {warmup}: expected fewer than the run's {steps} steps"))
    }

    /// What is out of range or missing.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, fault: String| {
            if !ok {
                faults.push(format!("train.{fault}"));
            }
        };
        let (steps, epochs) = (self.steps, self.epochs);
        match self.matching.max_steps {
            0 => check(
                (steps > 0) != (epochs > 0.0),
                format!("steps = {steps} and train.epochs = {epochs}: expected exactly one of them above 0"),
            ),
            most => check(
                steps == 0 && epochs == 0.0,
                format!(
                    "steps = {steps} and train.epochs = {epochs}: expected 0, as train.match.max_steps = {most} sizes \
                     the training"
                ),
            ),
        }
        faults.extend(self.match_faults());
        let mut check = |ok: bool, fault: String| {
            if !ok {
                faults.push(format!("train.{fault}"));
            }
        };
        check((0.0..=1e6).contains(&epochs), format!("epochs = {epochs}: expected 0 to 1000000"));
        let finite = |value: f64| (0.0..=1e9).contains(&value);
        for (key, value) in [("lr", self.lr), ("eps", self.eps)] {
            check(
                value > 0.0 && finite(value),
                format!("{key} = {value}: expected a number above 0, at most 1000000000"),
            );
        }
        for (key, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            check((0.0..1.0).contains(&beta), format!("{key} = {beta}: expected 0 or more, below 1"));
        }
        for (key, value) in [("weight_decay", self.weight_decay), ("clip", self.clip)] {
            check(finite(value), format!("{key} = {value}: expected 0 to 1000000000"));
        }
        check(
            self.lora.init.is_empty() || self.method == Method::Lora,
            "lora.init: an adapter to start from needs train.method = \"lora\"".into(),
        );
        // The upper ends catch slips that would fill the memory; all products of two of them fit.
        for (key, value, least, most) in
            [("steps", steps, 0, 100_000_000), ("batch_size", self.batch_size, 1, 1_000_000)]
        {
            check((least..=most).contains(&value), format!("{key} = {value}: expected {least} to {most}"));
        }
        faults.extend(self.lora.faults());
        faults.extend(self.mitigation.faults());
        faults.extend(self.trace.faults());
        faults
    }

    /// What a matched training cannot have: with it, the model of a step would depend on how long training is to be, or
    /// would not be the one that was read.
    fn match_faults(&self) -> Vec<String> {
        if !self.matching.is_on() {
            return Vec::new();
        }
        let checks = [
            (
                self.schedule == Schedule::Constant,
                "schedule: the learning rate of a matched training (train.match) must not move; expected \"constant\""
                    .to_string(),
            ),
            (
                self.warmup_steps == 0,
                format!("warmup_steps = {}: a matched training has none; expected 0", self.warmup_steps),
            ),
            (
                self.trace.stop.gain == 0.0,
                format!(
                    "trace.stop.gain = {}: a matched training ends by train.match alone; expected 0",
                    self.trace.stop.gain
                ),
            ),
            (
                self.mitigation.scale.factor == 1.0,
                format!(
                    "mitigation.scale.factor = {}: it would change the model after its behaviour was matched; expected 1",
                    self.mitigation.scale.factor
                ),
            ),
        ];
        checks.into_iter().filter(|(ok, _)| !ok).map(|(_, fault)| format!("train.{fault}")).collect()
    }
}

/// Which weights learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Low-rank matrices beside frozen weights.
    Lora,
    /// All weights.
    Full,
}

impl Method {
    /// As a recipe spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lora => "lora",
            Self::Full => "full",
        }
    }
}

/// How the learning rate moves after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Straight down to zero.
    Linear,
    /// Half a cosine down to zero.
    Cosine,
    /// Stays.
    Constant,
}
