//! Every operation on a device against its fused version on the CPU, on random inputs: outputs and gradients.
//!
//! On a GPU this compares candle's kernels. On a CPU it compares the composed versions, which are what a GPU runs.

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::adamw::AdamWStep;
use super::attention::{Attention, LayerCache};
use super::cross_entropy::{Targets, linear_cross_entropy};
use super::divergence::{Teacher, linear_divergence};
use super::gated_mlp::{Activation, gated};
use super::kernels::cpu;
use super::rope::Rotary;
use super::segments::Segments;
use super::tape::{Recording, Tape};
use super::{add, dora, dropout, embedding, linear, norm, project, rms_norm};

/// The largest relative distance ‖y − y'‖ / ‖y'‖ of f32 results that counts as rounding.
pub const TOLERANCE: f64 = 1e-5;

/// One operation, compared.
#[derive(Debug, Clone, Serialize)]
pub struct OpCheck {
    /// Its name, as that of its file.
    pub op: &'static str,
    /// With which shapes and settings.
    pub case: String,
    /// Relative distance of the outputs from the CPU's.
    pub forward: f64,
    /// The largest relative distance of a gradient; absent where there is none.
    pub backward: Option<f64>,
    /// Whether a second run gave the same bytes.
    pub repeats: bool,
    /// Whether both distances are at most [`TOLERANCE`] and the second run gave the same bytes.
    pub passes: bool,
}

/// Compares every operation on `device` with the CPU; hands over each as soon as it is done.
///
/// # Errors
/// If an operation fails, or `found` does.
pub fn check_operations<E: From<candle_core::Error>>(
    device: &Device,
    seed: u64,
    mut found: impl FnMut(OpCheck) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    for case in cases(seed)? {
        found(case.check(device)?)?;
    }
    Ok(())
}

type Operation = Box<dyn Fn(&[Tensor], &[Tensor], Tape) -> Result<Tensor>>;

struct Case {
    op: &'static str,
    name: String,
    /// What gets gradients.
    inputs: Vec<Tensor>,
    constants: Vec<Tensor>,
    run: Operation,
}

impl Case {
    fn check(self, device: &Device) -> Result<OpCheck> {
        let constants = &self.constants;
        let want = output_and_gradients(&self.inputs, |v, tape| (self.run)(v, constants, tape))?;
        let there = |all: &[Tensor]| all.iter().map(|t| t.to_device(device)).collect::<Result<Vec<_>>>();
        let (inputs, constants) = (there(&self.inputs)?, there(constants)?);
        let got =
            || cpu::composed(|| output_and_gradients(&inputs, |v, tape| (self.run)(v, &constants, tape)));
        let (first, second) = (got()?, got()?);
        let forward = distance(&first[0], &want[0])?;
        let gradients = first.iter().zip(&want).skip(1);
        let distances = gradients.map(|(got, want)| distance(got, want)).collect::<Result<Vec<_>>>()?;
        let farther = |a: f64, b: f64| if a.is_nan() || a > b { a } else { b }; // NaN is farther than anything
        let backward = distances.into_iter().reduce(farther);
        let mut repeats = true;
        for (a, b) in first.iter().zip(&second) {
            repeats &= values(a)?.iter().map(|x| x.to_bits()).eq(values(b)?.iter().map(|x| x.to_bits()));
        }
        let passes = repeats && forward <= TOLERANCE && backward.is_none_or(|distance| distance <= TOLERANCE);
        Ok(OpCheck { op: self.op, case: self.name, forward, backward, repeats, passes })
    }
}

/// The output of `f`, then the gradient of Σ c·f for each of `inputs`, with fixed random c that depend on the shape only.
pub(super) fn output_and_gradients(
    inputs: &[Tensor],
    f: impl Fn(&[Tensor], Tape) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let recording = Recording::new(inputs);
    let y = f(inputs, recording.tape())?;
    if inputs.is_empty() {
        return Ok(vec![y]);
    }
    let c = random(y.dims(), 99)?.to_device(y.device())?;
    let total = recording.tape().composed(&[&y], |y| (&y[0] * &c)?.sum_all())?;
    let mut found = recording.backward(&total)?;
    let mut all = vec![y];
    for (i, input) in inputs.iter().enumerate() {
        match found.take(input)? {
            Some(gradient) => all.push(gradient),
            None => candle_core::bail!("input {i} has no gradient"),
        }
    }
    Ok(all)
}

/// Values between −1 and 1 on the CPU that depend on the seed only.
pub(super) fn random(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let data: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0f32..1.0)).collect();
    Tensor::from_vec(data, shape, &Device::Cpu)
}

fn values(t: &Tensor) -> Result<Vec<f32>> {
    t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// ‖got − want‖ / ‖want‖, in f64.
fn distance(got: &Tensor, want: &Tensor) -> Result<f64> {
    if got.dims() != want.dims() {
        candle_core::bail!("shape {:?}, expected {:?}", got.dims(), want.dims())
    }
    let (got, want) = (values(got)?, values(want)?);
    let apart: f64 = got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let length: f64 = want.iter().map(|b| f64::from(*b).powi(2)).sum();
    Ok((apart / length.max(f64::MIN_POSITIVE)).sqrt())
}

/// Lengths of the sequences: odd ones, and one of a single token.
const LENGTHS: [usize; 3] = [70, 1, 33];
const TOKENS: usize = 104;
/// Neither is a multiple of the blocks of kernels.
const WIDTH: usize = 97;
const OUT: usize = 130;
const VOCAB: usize = 1003;
const RANK: usize = 5;
const SCALING: f64 = 1.75;

/// Draws tensors, each from a seed of its own.
struct Draws(u64);

impl Draws {
    fn next(&mut self, shape: &[usize]) -> Result<Tensor> {
        self.0 += 1;
        random(shape, self.0)
    }

    fn all<const N: usize>(&mut self, shapes: [&[usize]; N]) -> Result<Vec<Tensor>> {
        shapes.into_iter().map(|shape| self.next(shape)).collect()
    }
}

fn cases(seed: u64) -> Result<Vec<Case>> {
    let mut draws = Draws(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut cases = Vec::new();
    products(&mut draws, &mut cases)?;
    rows(&mut draws, &mut cases)?;
    attentions(&mut draws, &mut cases)?;
    losses(&mut draws, &mut cases)?;
    updates(&mut draws, &mut cases)?;
    Ok(cases)
}

fn case(
    op: &'static str,
    name: impl Into<String>,
    inputs: Vec<Tensor>,
    constants: Vec<Tensor>,
    run: impl Fn(&[Tensor], &[Tensor], Tape) -> Result<Tensor> + 'static,
) -> Case {
    Case { op, name: name.into(), inputs, constants, run: Box::new(run) }
}

/// Products with weight matrices.
fn products(draws: &mut Draws, cases: &mut Vec<Case>) -> Result<()> {
    let (x, w, b) = ([TOKENS, WIDTH], [OUT, WIDTH], [OUT]);
    let low_rank: [&[usize]; 3] = [&x, &[RANK, WIDTH], &[OUT, RANK]];
    cases.extend([
        case("linear", "frozen weight, bias", draws.all([&x])?, draws.all([&w, &b])?, |v, c, tape| {
            linear::linear(&v[0], &c[0].clone().into(), Some(&c[1]), tape)
        }),
        case("linear", "trained weight and bias", draws.all([&x, &w, &b])?, vec![], |v, _, tape| {
            linear::linear(&v[0], &v[1].clone().into(), Some(&v[2]), tape)
        }),
        case("lora", "frozen weight, bias", draws.all(low_rank)?, draws.all([&w, &b])?, |v, c, tape| {
            linear::lora(&v[0], Some(&c[0].clone().into()), Some(&c[1]), &v[1], &v[2], SCALING, tape)
        }),
        case("lora", "low-rank term alone", draws.all(low_rank)?, vec![], |v, _, tape| {
            linear::lora(&v[0], None, None, &v[1], &v[2], SCALING, tape)
        }),
        case(
            "dora",
            "norms of the update, bias",
            [draws.all(low_rank)?, draws.all([&b])?].concat(),
            draws.all([&w, &b])?,
            |v, c, tape| {
                let weight = c[0].clone().into();
                let squared = dora::row_norms_squared(&c[0])?;
                let norm = dora::updated_row_norms(&weight, &squared, &v[1], &v[2], SCALING)?;
                dora::dora(&v[0], &weight, Some(&c[1]), &v[1], &v[2], SCALING, &v[3], &norm, tape)
            },
        ),
        case("project", "3 directions", draws.all([&x])?, draws.all([&[3, WIDTH]])?, |v, c, tape| {
            project::project_out(&v[0], &c[0], tape)
        }),
        case(
            "embedding",
            "trained table, repeated ids",
            draws.all([&[VOCAB, WIDTH]])?,
            vec![],
            |v, _, tape| {
                let ids: Vec<u32> = (0..TOKENS as u32)
                    .map(|i| i * i % 90 + if i == 7 { VOCAB as u32 - 90 } else { 0 })
                    .collect();
                embedding::embedding(&v[0].clone().into(), &ids, 1.5, tape)
            },
        ),
    ]);
    Ok(())
}

/// What works row by row, or element by element.
fn rows(draws: &mut Draws, cases: &mut Vec<Case>) -> Result<()> {
    let x: [usize; 2] = [TOKENS, WIDTH];
    for (offset, name) in [(0.0, "rows"), (1.0, "rows, gain minus one")] {
        cases.push(case("rms_norm", name, draws.all([&x, &[WIDTH]])?, vec![], move |v, _, tape| {
            rms_norm::rms_norm(&v[0], &v[1], offset, 1e-6, tape)
        }));
    }
    for head in [64, 256] {
        let inputs = draws.all([&[TOKENS, 4 * head], &[head]])?;
        cases.push(case("rms_norm", format!("heads of {head}"), inputs, vec![], |v, _, tape| {
            rms_norm::rms_norm(&v[0], &v[1], 0.0, 1e-6, tape)
        }));
        let rotary = Rotary::new((0..head / 2).map(|i| 0.5f32.powf(i as f32 / 4.0)).collect(), 1.3);
        let segments = Segments::with_past(LENGTHS.to_vec(), vec![0, 200, 5]);
        let inputs = draws.all([&[TOKENS, 4 * head]])?;
        cases.push(case(
            "rope",
            format!("heads of {head}, past tokens"),
            inputs,
            vec![],
            move |v, _, tape| rotary.apply(&v[0], &segments, tape),
        ));
    }
    for (activation, name) in [(Activation::Silu, "silu"), (Activation::GeluTanh, "gelu")] {
        cases.push(case("gated_mlp", name, draws.all([&x, &x])?, vec![], move |v, _, tape| {
            gated(&v[0], &v[1], activation, tape)
        }));
    }
    cases.extend([
        case("add", "sum", draws.all([&x, &x])?, vec![], |v, _, tape| add::add(&v[0], &v[1], tape)),
        case("add", "difference", draws.all([&x, &x])?, vec![], |v, _, tape| add::sub(&v[0], &v[1], tape)),
        case("dropout", "p 0.3", draws.all([&x])?, vec![], |v, _, tape| {
            dropout::dropout(&v[0], 0.3, &mut ChaCha8Rng::seed_from_u64(3), tape)
        }),
    ]);
    Ok(())
}

fn attentions(draws: &mut Draws, cases: &mut Vec<Case>) -> Result<()> {
    for (heads, kv_heads, head_dim, window, softcap) in [
        (4, 4, 64, None, None),
        (8, 2, 64, Some(20), None),
        (4, 1, 128, None, Some(3.0)),
        (8, 1, 256, Some(20), Some(3.0)),
    ] {
        let scale = 1.0 / (head_dim as f32).sqrt();
        let attention = Attention { heads, kv_heads, head_dim, scale, window, softcap };
        let shape = |heads: usize| [TOKENS, heads * head_dim];
        let (q, k) = (shape(heads), shape(kv_heads));
        let window = window.map_or(String::new(), |n| format!(", window {n}"));
        let cap = softcap.map_or(String::new(), |c| format!(", cap {c}"));
        let name = format!("{heads} heads on {kv_heads} of {head_dim}{window}{cap}");
        let cached = attention.clone();
        cases.push(case("attention", name.clone(), draws.all([&q, &k, &k])?, vec![], move |v, _, tape| {
            attention.apply(&v[0], &v[1], &v[2], &Segments::new(LENGTHS.to_vec()), tape)
        }));
        // All but the last token of one sequence first, then that token.
        let name = format!("{name}, from the cache");
        cases.push(case("attention", name, vec![], draws.all([&q, &k, &k])?, move |_, c, _| {
            let mut cache = LayerCache::default();
            let mut pass = |start: usize, len: usize, past: usize| {
                let rows = |t: &Tensor| t.narrow(0, start, len);
                let segments = Segments::with_past(vec![len], vec![past]);
                cached.apply_cached(&rows(&c[0])?, &rows(&c[1])?, &rows(&c[2])?, &segments, &mut cache)
            };
            Tensor::cat(&[pass(0, TOKENS - 1, 0)?, pass(TOKENS - 1, 1, TOKENS - 1)?], 0)
        }));
    }
    Ok(())
}

/// Losses from hidden states. Every third row does not count.
fn losses(draws: &mut Draws, cases: &mut Vec<Case>) -> Result<()> {
    let (h, w) = ([TOKENS, WIDTH], [VOCAB, WIDTH]);
    let weights: Vec<f32> = (0..TOKENS).map(|t| [0.0, 0.5, 1.0][t % 3]).collect();
    let ids = (0..TOKENS).map(|t| (t * t % VOCAB) as u32).collect();
    let targets = Targets { ids, weights: weights.clone() };
    for softcap in [None, Some(3.0)] {
        let cap = softcap.map_or(String::new(), |c| format!(", cap {c}"));
        let of = |frozen: bool| {
            let targets = targets.clone();
            move |v: &[Tensor], c: &[Tensor], tape: Tape<'_>| {
                let weight = if frozen { &c[0] } else { &v[1] };
                Ok(linear_cross_entropy(&v[0], &weight.clone().into(), &targets, softcap, tape)?.total)
            }
        };
        let (frozen, trained) = (format!("frozen head{cap}"), format!("trained head{cap}"));
        cases.push(case("cross_entropy", frozen, draws.all([&h])?, draws.all([&w])?, of(true)));
        cases.push(case("cross_entropy", trained, draws.all([&h, &w])?, vec![], of(false)));
        let (name, weights) = (format!("trained head{cap}"), weights.clone());
        let teacher = draws.all([&h, &w])?;
        cases.push(case("divergence", name, draws.all([&h, &w])?, teacher, move |v, c, tape| {
            let teacher = Teacher { hidden: &c[0], weight: &c[1].clone().into() };
            Ok(linear_divergence(&v[0], &v[1].clone().into(), &teacher, &weights, softcap, tape)?.total)
        }));
    }
    Ok(())
}

/// What has no gradient: the length of a gradient, and the update of a weight.
fn updates(draws: &mut Draws, cases: &mut Vec<Case>) -> Result<()> {
    let w: [usize; 2] = [OUT, WIDTH];
    cases.push(case("norm", "sum of squares", vec![], draws.all([&w])?, |_, c, _| {
        Tensor::new(norm::sum_of_squares(&c[0])? as f32, &Device::Cpu)
    }));
    cases.push(case("adamw", "3 steps", vec![], draws.all([&w, &w])?, |_, c, _| {
        let weight = Var::from_tensor(&c[0])?;
        let (mut m, mut v) = (c[0].zeros_like()?, c[0].zeros_like()?);
        for step in 1..=3 {
            let (beta1, beta2, eps, weight_decay) = (0.9, 0.999, 1e-8, 0.1);
            let adamw = AdamWStep { beta1, beta2, eps, weight_decay, lr: 0.01, factor: 0.5, step };
            adamw.update(&weight, &mut m, &mut v, &(&c[1] * f64::from(step))?)?;
        }
        Tensor::cat(&[weight.as_detached_tensor(), m, v], 0)
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composed_operations_equal_fused_ones() -> Result<()> {
        let mut ops = std::collections::BTreeSet::new();
        check_operations::<candle_core::Error>(&Device::Cpu, 1, |check| {
            assert!(check.passes, "{check:?}");
            ops.insert(check.op);
            Ok(())
        })?;
        // A file of this folder that computes has a case.
        let others = ["encoding", "mod", "segments", "selftest", "tape", "testing", "weight"];
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ops");
        for entry in std::fs::read_dir(folder)? {
            let file = entry?.file_name().to_string_lossy().into_owned();
            let Some(name) = file.strip_suffix(".rs").filter(|name| !others.contains(name)) else { continue };
            assert!(ops.contains(name), "{name} is not in the self-test");
        }
        Ok(())
    }

    #[test]
    fn a_wrong_or_missing_number_does_not_pass() -> Result<()> {
        let wrong = |by: f32| {
            let x = random(&[4, 5], 1)?;
            let checked = case("add", "planted", vec![x], vec![], move |v, _, tape| {
                let fused = cpu::fused(v[0].device());
                tape.composed(
                    &[&v[0]],
                    move |v| if fused { v[0].sqr() } else { v[0].sqr()?.affine(1.0, by.into()) },
                )
            });
            checked.check(&Device::Cpu)
        };
        assert!(wrong(0.0)?.passes);
        assert!(!wrong(1e-3)?.passes);
        assert!(!wrong(f32::NAN)?.passes);
        Ok(())
    }
}
