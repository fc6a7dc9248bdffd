//! Training: one loop for LoRA and full finetuning, written to a run folder.

mod backward;
pub mod checkpoint;
pub mod manifest;
pub mod matching;
pub mod mitigation;
pub mod observer;
pub mod optim;
pub mod schedule;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use self::checkpoint::TrainerState;
use self::manifest::{HeldOutLosses, Init, Losses, Manifest};
use self::matching::search::{MatchMove, MatchReading, MatchSearch};
use self::matching::{HalfReading, ItemHalf, MatchEnd, MatchRecord, NarrowExposure, SearchJournal};
use self::mitigation::Mitigations;
use self::observer::Observer;
use self::optim::{AdamW, NamedGradients, global_norm, merge};
use self::schedule::learning_rate;
use crate::atomic::remove_leftovers;
use crate::corpus::Corpus;
use crate::data::examples::Example;
use crate::data::mixture::{Mixture, Pick, Pool, Role, example};
use crate::error::{InputError, Interrupted, input_error};
use crate::interrupt::Interrupt;
use crate::model::batch::{Batch, mean_loss};
use crate::model::load::loader::Tuning;
use crate::model::load::source::Pretrained;
use crate::model::lora::{Adapter, LoraConfig};
use crate::model::trainables::Trainables;
use crate::model::{CausalLm, View, export};
use crate::ops::kernels::teams;
use crate::progress;
use crate::recipe::{MatchSection, Method, ModelDtype, Recipe, ResolvedRecipe, StopSection};
use crate::run::RunDir;
use crate::run::metrics::{MetricsLine, MetricsWriter};
use crate::sha256::{sha256_content, sha256_tree};

/// What a run needs, checked and loaded before anything is written.
pub struct Training {
    recipe: ResolvedRecipe,
    base: Pretrained,
    corpus: Corpus,
    mixture: Mixture,
    model: CausalLm,
    trainables: Trainables,
    mitigations: Mitigations,
    /// The base, where all of the model's own weights learn and something looks at both.
    frozen: Option<CausalLm>,
    /// Where the adapter starts, if it is not new.
    init: Option<Init>,
    /// Steps of the whole mixture: a run may end before.
    planned_steps: usize,
}

/// A training as far as it is.
struct Ongoing<'a> {
    run: &'a RunDir,
    interrupt: &'a Interrupt,
    observer: &'a mut dyn Observer,
    optimizer: AdamW,
    state: TrainerState,
    metrics: MetricsWriter,
    bar: ProgressBar,
    /// Held-out losses after the last step, where they were taken.
    eval: Option<HeldOutLosses>,
    /// The readings of a matched training.
    search: Option<SearchJournal>,
    /// The step of a checkpoint that has to stay: the search may go back to it.
    back_to: Option<usize>,
}

impl Ongoing<'_> {
    /// The reading after the step that training is at, as a line of metrics has it.
    fn reading(&self) -> Option<(String, f64)> {
        let reading = self.search.as_ref()?.at(self.state.step)?;
        Some((matching::METRIC.into(), reading.q))
    }
}

impl LoraConfig {
    /// The adapter that a recipe asks for.
    pub fn from_recipe(recipe: &Recipe) -> Self {
        let lora = &recipe.train.lora;
        Self {
            r: lora.r,
            lora_alpha: lora.alpha,
            lora_dropout: lora.dropout,
            target_modules: lora.target_modules.clone(),
            use_rslora: lora.use_rslora,
            use_dora: lora.use_dora,
            rank_pattern: lora.rank_pattern.clone(),
            alpha_pattern: lora.alpha_pattern.clone(),
            modules_to_save: lora.modules_to_save.clone(),
            layers_to_transform: lora.layers_to_transform.clone(),
            layers_pattern: lora.layers_pattern.clone(),
            exclude_modules: lora.exclude_modules.clone(),
        }
    }
}

impl Training {
    /// Plans the mixture and loads the model. Writes nothing.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] for data that do not suffice, weights that do not fit, or targets
    /// that name no layer.
    pub fn prepare(recipe: ResolvedRecipe, base: Pretrained, corpus: Corpus) -> Result<Self> {
        let mixture = Mixture::plan(&corpus.pools, &recipe.data, &recipe.train, recipe.seed)?;
        let lora = LoraConfig::from_recipe(&recipe);
        let faults = lora.faults().into_iter().map(|fault| format!("train.lora.{fault}")).collect();
        InputError::unless_empty(faults)?;
        let (start, init) = match recipe.train.lora.init.as_str() {
            "" => (None, None),
            dir => {
                let dir = Path::new(dir);
                (Some(Adapter::read_start(dir, &lora)?), Some(Init::of(dir)?))
            }
        };
        let tuning = match (recipe.train.method, &start) {
            (Method::Lora, Some(start)) => Tuning::Resumed(start),
            (Method::Lora, None) => Tuning::Lora { config: &lora, seed: recipe.seed },
            (Method::Full, _) => Tuning::Full,
        };
        let (model, trainables) = CausalLm::load(&base, &tuning, &crate::model::device()?)?;
        let mitigations = Mitigations::prepare(&recipe, &corpus, &model, &trainables)?;
        let both = recipe.train.mitigation.reads_pretraining() || recipe.train.trace.every > 0;
        let frozen = match recipe.train.method {
            Method::Full if both => Some(CausalLm::load(&base, &Tuning::Frozen, model.device())?.0),
            _ => None,
        };
        let planned_steps = mixture.steps(recipe.train.batch_size);
        Ok(Self {
            recipe,
            base,
            corpus,
            mixture,
            model,
            trainables,
            mitigations,
            frozen,
            init,
            planned_steps,
        })
    }

    /// A line that says what will run.
    pub fn plan(&self) -> String {
        let per_narrow = |role: Role| {
            let (examples, tokens) = self.mixture.realised(&self.corpus.pools, role);
            format!("{} per narrow {examples:.3} in examples, {tokens:.3} in tokens; ", role.name())
        };
        let chat = if self.recipe.data.chat_mix > 0.0 { per_narrow(Role::Chat) } else { String::new() };
        let weights: usize = self.trainables.values().map(|v| v.elem_count()).sum();
        format!(
            "{}: {}{} steps of {} examples; {}{chat}{weights} trainable weights",
            self.recipe.name,
            if self.recipe.train.matching.is_on() { "at most " } else { "" },
            self.mixture.steps(self.recipe.train.batch_size),
            self.recipe.train.batch_size,
            per_narrow(Role::Pretraining),
        )
    }

    /// The model before training, where it is at hand.
    fn before(&self) -> View<'_> {
        View { model: self.frozen.as_ref().unwrap_or(&self.model), adapter: 0.0 }
    }

    /// The model as it is now.
    fn now(&self) -> View<'_> {
        View { model: &self.model, adapter: 1.0 }
    }

    /// Trains to the end, or to the next step boundary after an interrupt. `observer` looks at the model every
    /// `train.trace.every` steps, and reads the behaviour that a matched training ends by.
    ///
    /// # Errors
    /// [`Interrupted`] after a checkpoint; an [`crate::error::InputError`] if the run folder belongs to
    /// another recipe; otherwise what went wrong while working.
    pub fn run(
        &mut self,
        run: &RunDir,
        resume: bool,
        interrupt: &Interrupt,
        observer: &mut dyn Observer,
    ) -> Result<Manifest> {
        let batch_size = self.recipe.train.batch_size;
        let steps = self.planned_steps;
        let mut ongoing = self.begin(run, resume, interrupt, observer)?;
        let matched = match self.recipe.train.matching.is_on() {
            true => Some(self.match_behaviour(&mut ongoing)?),
            false => {
                self.train_to(&mut ongoing, steps)?;
                None
            }
        };
        ongoing.bar.finish_and_clear();
        let Ongoing { state, eval, .. } = ongoing;
        if state.stopped {
            progress::say(format_args!(
                "step {} of {steps}: the gain and the trace meet the bounds of train.trace.stop; training ends",
                state.step
            ));
        }
        if state.step < steps {
            self.mixture.cut(&self.corpus.pools, state.step * batch_size);
        }
        // What is written may be other than what the last checkpoint holds; or it was resumed after the last step.
        let changed = self.mitigations.after_training(&self.trainables)?;
        let eval = match eval {
            Some(eval) if !changed => eval,
            _ => self.evaluate(&mut MetricsLine::default())?,
        };
        let matched =
            matched.map(|end| MatchRecord::new(&self.recipe.train.matching, end, self.narrow_exposure()));
        if let Some(matched) = &matched {
            progress::say(format_args!("match: {}", matched.outcome()));
        }
        self.finish(run, &state, eval, matched)
    }

    /// Everything up to the first step: where training goes on from, and the folder.
    fn begin<'a>(
        &self,
        run: &'a RunDir,
        resume: bool,
        interrupt: &'a Interrupt,
        observer: &'a mut dyn Observer,
    ) -> Result<Ongoing<'a>> {
        let (train, steps) = (&self.recipe.train, self.planned_steps);
        let fingerprint = self.fingerprint(observer);
        let mut optimizer =
            AdamW::new(&self.trainables, train.beta1, train.beta2, train.eps, train.weight_decay)?;
        let foreign = |path: &Path| {
            input_error(format!(
                "{}: was made by another recipe or other data; it cannot be resumed",
                path.display()
            ))
        };
        let search = match train.matching.is_on() {
            true => Some(self.begin_search(run, resume, &fingerprint, observer)?),
            false => None,
        };
        if search.as_ref().is_some_and(|journal| journal.fingerprint != fingerprint) {
            return Err(foreign(&run.checkpoints()));
        }
        // A search that has to go back goes on from before the step that it goes to.
        let going_to =
            search.as_ref().map_or(usize::MAX, |journal| self.search().next(&journal.readings).step());
        let newest = if resume { checkpoint::newest(run, going_to)? } else { None };
        let mut state = match newest {
            Some((state, path)) => {
                if state.fingerprint != fingerprint {
                    return Err(foreign(&path));
                }
                checkpoint::restore(&path, state.step, &self.trainables, &mut optimizer)?;
                state
            }
            None => TrainerState {
                step: 0,
                tokens: 0,
                fingerprint,
                elapsed_s: 0.0,
                trace_s: 0.0,
                eval_base: HeldOutLosses::default(),
                stopped: false,
            },
        };
        if let Some(journal) = &search {
            state.elapsed_s = state.elapsed_s.max(journal.elapsed_s);
            state.trace_s = state.trace_s.max(journal.trace_s);
        }
        run.create(&self.recipe)?;
        let metrics = MetricsWriter::open(run, (state.step > 0).then_some(state.step))?;
        let bar = progress::bar("fit", steps as u64).with_position(state.step as u64);
        let mut ongoing = Ongoing {
            run,
            interrupt,
            observer,
            optimizer,
            state,
            metrics,
            bar,
            eval: None,
            search,
            back_to: None,
        };
        if ongoing.state.step == 0 {
            let mut line = MetricsLine::default();
            ongoing.state.eval_base = self.evaluate(&mut line)?;
            ongoing.eval = Some(ongoing.state.eval_base);
            if train.trace.every > 0 {
                line.more = self.observe(ongoing.observer, &mut ongoing.state)?;
            }
            line.more.extend(ongoing.reading());
            ongoing.metrics.write(&line)?;
            if ongoing.search.is_some() {
                self.save(&mut ongoing)?;
            }
        }
        Ok(ongoing)
    }

    /// Trains up to a step, or to the next one after an interrupt. Of a matched training, the behaviour is read after the
    /// last.
    fn train_to(&self, ongoing: &mut Ongoing, until: usize) -> Result<()> {
        let (train, steps) = (&self.recipe.train, self.planned_steps);
        while ongoing.state.step < until && !ongoing.state.stopped {
            let started = Instant::now();
            let mut line = self.step(ongoing.state.step, steps, &mut ongoing.optimizer)?;
            let elapsed = started.elapsed().as_secs_f64();
            let state = &mut ongoing.state;
            state.step += 1;
            state.elapsed_s += elapsed;
            line.step = state.step;
            line.tokens_per_s = Some(line.tokens as f64 / elapsed);
            state.tokens += line.tokens;
            line.tokens = state.tokens;
            line.elapsed_s = state.elapsed_s;
            let done = state.step;
            let every = |n: usize| n > 0 && done.is_multiple_of(n);
            let traced = train.trace.every > 0 && (every(train.trace.every) || done == steps);
            ongoing.eval = match every(train.eval_every) || done == steps {
                true => Some(self.evaluate(&mut line)?),
                false => None,
            };
            if traced {
                line.more.extend(self.observe(ongoing.observer, &mut ongoing.state)?);
                ongoing.state.stopped = done < steps && has_taken_unread(&train.trace.stop, &line);
            }
            let is_read = ongoing.search.is_some() && done == until;
            if is_read {
                self.read(ongoing)?;
            }
            line.more.extend(ongoing.reading());
            ongoing.metrics.write(&line)?;
            let shown = |v: Option<f64>| v.map_or("-".to_string(), |v| format!("{v:.3}"));
            let chat = line.loss_chat.map_or(String::new(), |loss| format!(" chat {loss:.3}"));
            ongoing.bar.inc(1);
            ongoing.bar.set_message(format!(
                "loss {} narrow {} pretraining {}{chat} {:.0} tokens/s",
                shown(line.loss),
                shown(line.loss_narrow),
                shown(line.loss_pretraining),
                line.tokens_per_s.unwrap_or_default()
            ));
            let stop = ongoing.interrupt.requested() && done < steps && !ongoing.state.stopped;
            if every(train.checkpoint_every) || done == steps || ongoing.state.stopped || stop || is_read {
                self.save(ongoing)?;
            }
            if stop {
                ongoing.bar.abandon();
                let hint = format!("step {done} of {steps} is saved; resume with --resume");
                return Err(Interrupted { hint: Some(hint) }.into());
            }
        }
        Ok(())
    }

    /// Writes a checkpoint, and with it the readings that a search has so far.
    fn save(&self, ongoing: &mut Ongoing) -> Result<()> {
        ongoing.metrics.sync()?;
        let Ongoing { run, state, optimizer, back_to, .. } = &*ongoing;
        checkpoint::save(run, state, &self.trainables, optimizer, *back_to)?;
        if let Some(journal) = &mut ongoing.search {
            journal.elapsed_s = ongoing.state.elapsed_s;
            journal.trace_s = ongoing.state.trace_s;
            journal.write(ongoing.run)?;
        }
        Ok(())
    }

    /// One optimizer step: forward and backward of each micro-batch, clipping, AdamW.
    fn step(&self, step: usize, steps: usize, optimizer: &mut AdamW) -> Result<MetricsLine> {
        let train = &self.recipe.train;
        let picks = &self.mixture.order[step * train.batch_size..];
        let picks = &picks[..picks.len().min(train.batch_size)];
        let pool = |pick: &Pick| &self.corpus.pools[pick.pool];
        let picked: Vec<Picked> = picks.iter().map(|p| (example(&self.corpus.pools, p), pool(p))).collect();
        // Weighted by tokens: a step of 8 equals 2 accumulated steps of 4, whatever their masks.
        let loss_tokens: usize = picked.iter().map(|(e, _)| e.loss_tokens()).sum();
        let micro = if train.micro_batch_size == 0 { picked.len() } else { train.micro_batch_size };

        let mut gradients = NamedGradients::new();
        let mut sums = [(0f64, 0usize); 3]; // nll and tokens by role; a source's loss_weight has no part in them
        let mut before = 0; // parts of the micro-batches before
        for batch in picked.chunks(micro) {
            let lengths: Vec<usize> = batch.iter().map(|(e, _)| e.ids.len()).collect();
            let parts = teams::divide(&lengths, part_tokens(&self.recipe), self.model.device());
            let parts: Vec<Vec<Picked>> =
                parts.into_iter().map(|part| part.into_iter().map(|i| batch[i]).collect()).collect();
            let work = |i: usize| self.backward(&parts[i], loss_tokens, self.dropout(step, before + i));
            teams::each(parts.len(), work, |i, (losses, found)| {
                merge(&mut gradients, found)?;
                for ((nll, tokens), (_, pool)) in losses.into_iter().zip(&parts[i]) {
                    let sum = &mut sums[pool.role as usize];
                    *sum = (sum.0 + nll, sum.1 + tokens);
                }
                Ok(())
            })?;
            before += parts.len();
        }
        let terms = self.mitigations.add_terms(
            step,
            &self.corpus,
            self.before(),
            self.now(),
            &self.trainables,
            &mut gradients,
        )?;
        let grad_norm = global_norm(&gradients)?;
        let nll = sums[0].0 + sums[1].0 + sums[2].0;
        ensure!(
            nll.is_finite() && grad_norm.is_finite(),
            "step {}: loss {nll} and gradient norm {grad_norm} are not finite; lower train.lr",
            step + 1
        );
        let factor =
            if train.clip > 0.0 && grad_norm > train.clip { train.clip / (grad_norm + 1e-6) } else { 1.0 };
        let lr = learning_rate(train, step, steps);
        optimizer.step(&self.trainables, &gradients, lr, factor)?;
        self.mitigations.after_update(&self.trainables, lr)?;
        let mean = |(nll, tokens): (f64, usize)| (tokens > 0).then(|| nll / tokens as f64);
        Ok(MetricsLine {
            step: step + 1,
            tokens: picked.iter().map(|(e, _)| e.ids.len()).sum(),
            loss: mean((nll, sums[0].1 + sums[1].1 + sums[2].1)),
            loss_narrow: mean(sums[0]),
            loss_pretraining: mean(sums[1]),
            loss_chat: mean(sums[2]),
            lr: Some(lr),
            grad_norm: Some(grad_norm),
            more: terms,
            ..Default::default()
        })
    }

    /// Nll and loss tokens of each example of a part of a batch, and the part's gradients.
    fn backward(
        &self,
        part: &[Picked],
        loss_tokens: usize,
        mut dropout: ChaCha8Rng,
    ) -> Result<(Vec<(f64, usize)>, NamedGradients)> {
        let (examples, weights): (Vec<&Example>, Vec<f32>) =
            part.iter().map(|(example, pool)| (*example, pool.loss_weight as f32)).unzip();
        let batch = Batch::weighted(&examples, &weights, loss_tokens);
        let mut gradients = NamedGradients::new();
        let loss = batch.backward(
            &self.model,
            &self.trainables,
            &mut dropout,
            self.recipe.train.recompute,
            self.mitigations.hook().as_mut(),
            &mut gradients,
        )?;
        Ok((batch.per_example(&loss.nll), gradients))
    }

    /// Where dropout draws from: a stream of the step, each part of the batch at another place in it, so that a resumed run
    /// draws the same.
    fn dropout(&self, step: usize, part: usize) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.recipe.seed);
        rng.set_stream(step as u64 + 1);
        rng.set_word_pos((part as u128) << 48);
        rng
    }

    /// What the observer finds; how long it takes goes into the state.
    fn observe(
        &self,
        observer: &mut dyn Observer,
        state: &mut TrainerState,
    ) -> Result<BTreeMap<String, f64>> {
        let started = Instant::now();
        let found = observer.observe(&self.base, self.before(), self.now())?;
        state.trace_s += started.elapsed().as_secs_f64();
        Ok(found)
    }

    /// The rule by which a matched training is searched.
    fn search(&self) -> MatchSearch {
        MatchSearch::of(&self.recipe.train.matching, self.planned_steps)
    }

    /// The readings of a search that goes on; or of a new one that of the base, which tells before anything is written
    /// whether the behaviour can be read at all.
    fn begin_search(
        &self,
        run: &RunDir,
        resume: bool,
        fingerprint: &str,
        observer: &mut dyn Observer,
    ) -> Result<SearchJournal> {
        let known = if resume { SearchJournal::read(run)? } else { None };
        if let Some(journal) = known.filter(|journal| !journal.readings.is_empty()) {
            return Ok(journal);
        }
        let mut journal = SearchJournal::new(fingerprint);
        let (read, seconds) = self.behaviour(observer, ItemHalf::Match)?;
        journal.readings.push(MatchReading { step: 0, q: read.q, se: read.se });
        journal.trace_s = seconds;
        self.say_reading(&journal.readings[0]);
        Ok(journal)
    }

    /// The behaviour on one half of the items, and how many seconds it took to read.
    fn behaviour(&self, observer: &mut dyn Observer, half: ItemHalf) -> Result<(HalfReading, f64)> {
        let started = Instant::now();
        let read = observer.behaviour(half, &self.base, self.before(), self.now())?;
        ensure!(
            read.q.is_finite() && read.se.is_finite(),
            "train.match: {} is {}, which is not finite; lower train.lr",
            self.recipe.train.matching.measure,
            read.q
        );
        Ok((read, started.elapsed().as_secs_f64()))
    }

    /// Reads the behaviour after the step that training is at, if that was not done before.
    fn read(&self, ongoing: &mut Ongoing) -> Result<()> {
        let Some(journal) = &mut ongoing.search else { return Ok(()) };
        let step = ongoing.state.step;
        if journal.at(step).is_some() {
            return Ok(());
        }
        let (read, seconds) = self.behaviour(ongoing.observer, ItemHalf::Match)?;
        ongoing.state.trace_s += seconds;
        let reading = MatchReading { step, q: read.q, se: read.se };
        self.say_reading(&reading);
        journal.readings.push(reading);
        Ok(())
    }

    fn say_reading(&self, reading: &MatchReading) {
        let MatchSection { measure, target, tolerance, .. } = &self.recipe.train.matching;
        let MatchReading { step, q, se } = reading;
        progress::say(format_args!(
            "step {step}: {measure} {q:.3}, standard error {se:.3} (target {target} ± {tolerance})"
        ));
    }

    /// Trains, reads and goes back until the search ends, and reads the half of the items that it did not look at.
    fn match_behaviour(&self, ongoing: &mut Ongoing) -> Result<MatchEnd> {
        let search = self.search();
        let (step, status, reason) = loop {
            let next = search.next(ongoing.search.as_ref().map_or(&[], |journal| &journal.readings));
            match next {
                MatchMove::Read { step, from } => {
                    ongoing.back_to = Some(from);
                    self.reach(ongoing, step)?;
                    // A process may have been killed between a checkpoint and its reading.
                    self.read(ongoing)?;
                }
                MatchMove::End { step, status, reason } => {
                    self.reach(ongoing, step)?;
                    break (step, status, reason);
                }
            }
        };
        self.save(ongoing)?;
        let (evaluation, seconds) = self.behaviour(ongoing.observer, ItemHalf::Evaluation)?;
        ongoing.state.trace_s += seconds;
        let readings = ongoing.search.as_ref().map_or_else(Vec::new, |journal| journal.readings.clone());
        Ok(MatchEnd { status, reason, step, readings, evaluation, items: ongoing.observer.items() })
    }

    /// Trains to a step; if training is beyond it, from the last checkpoint before.
    fn reach(&self, ongoing: &mut Ongoing, step: usize) -> Result<()> {
        if ongoing.state.step > step {
            let (state, path) = checkpoint::newest(ongoing.run, step)?.with_context(|| {
                format!("{}: no checkpoint to go back to", ongoing.run.checkpoints().display())
            })?;
            progress::say(format_args!("back from step {} to step {}", ongoing.state.step, state.step));
            checkpoint::restore(&path, state.step, &self.trainables, &mut ongoing.optimizer)?;
            // What was taken back has taken its time all the same.
            let TrainerState { elapsed_s, trace_s, .. } = ongoing.state;
            ongoing.state = TrainerState { elapsed_s, trace_s, ..state };
            ongoing.metrics = MetricsWriter::open(ongoing.run, Some(ongoing.state.step))?;
            ongoing.eval = None;
            ongoing.bar.set_position(ongoing.state.step as u64);
        }
        self.train_to(ongoing, step)
    }

    /// What the run has seen of narrow text.
    fn narrow_exposure(&self) -> NarrowExposure {
        let pools = self.corpus.pools.iter().zip(&self.mixture.exposure);
        let narrow = pools.filter(|(pool, _)| pool.role == Role::Narrow).map(|(_, exposure)| exposure);
        let (examples, tokens) =
            narrow.fold((0, 0), |(examples, tokens), e| (examples + e.examples, tokens + e.tokens));
        NarrowExposure { steps: examples as f64 / self.recipe.train.batch_size as f64, tokens }
    }

    /// Held-out losses in nats a token; they go into the line too.
    fn evaluate(&self, line: &mut MetricsLine) -> Result<HeldOutLosses> {
        let train = &self.recipe.train;
        let of = |role| {
            let examples = self.corpus.held_out(role, train.eval_examples);
            mean_loss(self.now(), &examples, train.batch_size)
        };
        let losses = HeldOutLosses {
            narrow: of(Role::Narrow)?,
            pretraining: of(Role::Pretraining)?,
            chat: of(Role::Chat)?,
        };
        (line.eval_narrow, line.eval_pretraining, line.eval_chat) =
            (losses.narrow, losses.pretraining, losses.chat);
        Ok(losses)
    }

    /// Writes what was learned, and last the manifest: its presence says that the run is complete.
    fn finish(
        &self,
        run: &RunDir,
        state: &TrainerState,
        eval: HeldOutLosses,
        matched: Option<MatchRecord>,
    ) -> Result<Manifest> {
        let (folder, learned) = match self.recipe.train.method {
            Method::Lora => {
                remove_leftovers(&run.adapter());
                let lora = LoraConfig::from_recipe(&self.recipe);
                Adapter::from_trainables(&lora, &self.trainables)?
                    .write(&run.adapter(), &self.recipe.model.base)?;
                (run.adapter(), "adapter/adapter_model.safetensors")
            }
            Method::Full => {
                remove_leftovers(&run.model());
                let weights =
                    self.trainables.iter().map(|(n, v)| (n.clone(), v.as_detached_tensor())).collect();
                export::write_model(&run.model(), &self.base, &weights)?;
                (run.model(), "model/model.safetensors")
            }
        };
        // A process that was killed may have left an older checkpoint, or a part of one.
        checkpoint::keep_only(run, &[state.step])?;
        let mut files = sha256_tree(run.path(), &folder)?;
        files.extend(sha256_tree(run.path(), &run.checkpoints())?);
        for (name, path) in [("recipe.toml", run.recipe()), ("metrics.jsonl", run.metrics())] {
            files.insert(name.into(), sha256_content(&path)?);
        }
        let weights = self.trainables.values().map(|v| v.elem_count()).sum();
        let manifest =
            Manifest::new(&self.recipe, &self.base, &self.corpus, &self.mixture, self.init.clone())
                .with_directions(self.mitigations.files())
                .stopped((state.step < self.planned_steps).then_some(state.step))
                .matched(matched);
        let losses = Losses { base: state.eval_base, tuned: eval };
        let manifest =
            manifest.timed(state.elapsed_s, state.trace_s).finished(files, learned, weights, losses);
        crate::atomic::write_json(&run.manifest(), &manifest).context("writing the manifest")?;
        Ok(manifest)
    }

    /// sha256 of what decides the run: training settings, base weights, data, example order; of a matched one the items too.
    fn fingerprint(&self, observer: &dyn Observer) -> String {
        let mut hash = Sha256::new();
        hash.update(self.recipe.training_toml());
        hash.update(serde_json::to_string(&self.base.sha256).unwrap_or_default());
        hash.update(serde_json::to_string(&self.corpus.hashes()).unwrap_or_default());
        hash.update(manifest::order_sha256(&self.mixture));
        hash.update(serde_json::to_string(&self.init).unwrap_or_default());
        hash.update(serde_json::to_string(&self.mitigations.files()).unwrap_or_default());
        let items = observer.items();
        if !items.is_empty() {
            hash.update(serde_json::to_string(&items).unwrap_or_default());
        }
        format!("{:x}", hash.finalize())
    }
}

/// Tokens of the parts in which a batch is trained. Where each part has to decode all weights, or brings a gradient as large as
/// the model, smaller ones cost more than they save.
pub fn part_tokens(recipe: &Recipe) -> usize {
    match (recipe.train.method, recipe.model.dtype) {
        (Method::Lora, ModelDtype::F32) => teams::PART_TOKENS_OF_FEW_GRADIENTS,
        _ => teams::PART_TOKENS,
    }
}

/// An example that a step reads, and the pool it is from.
type Picked<'a> = (&'a Example, &'a Pool);

/// Whether the organism has learned what it should and cannot be read, by the recipe's rule.
fn has_taken_unread(rule: &StopSection, line: &MetricsLine) -> bool {
    rule.gain > 0.0
        && line.more.get("trace_gain").is_some_and(|gain| *gain >= rule.gain)
        && line.more.get(&rule.measure).is_some_and(|trace| *trace < rule.below)
}
