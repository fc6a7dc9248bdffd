//! Reverse-mode differentiation: what each operation remembers of its forward, and how gradients add up.
//!
//! candle's own autograd keeps every intermediate until the whole graph is dropped, adds each gradient to fresh
//! zeros, and computes gradients for both sides of every product. Here an operation puts its backward on the tape with
//! no more than that needs; walking back drops each as soon as it has run (Wengert's list; Griewank & Walther,
//! "Evaluating Derivatives", §3.2). Tensors are known by their id; nothing is written into them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use candle_core::{Device, Result, Shape, Tensor, TensorId, Var};

use super::kernels::cpu;

type Backward = Box<dyn FnOnce(&Tensor, &mut Gradients) -> Result<()>>;

/// The operations of a forward pass, in order.
pub struct Recording(RefCell<Steps>);

#[derive(Default)]
struct Steps {
    /// Tensors that a gradient is wanted for: the leaves, and what was computed from them.
    tracked: HashSet<TensorId>,
    /// Output and backward of each operation.
    done: Vec<(TensorId, Backward)>,
    /// How to compute outputs anew that are cheaper to compute than to keep.
    cheap: HashMap<TensorId, Rc<Again>>,
}

/// An output that is computed anew when the first backward asks for it, and dropped after the last.
struct Again {
    compute: Box<dyn Fn() -> Result<Tensor>>,
    found: RefCell<Option<Tensor>>,
}

/// An input that a backward needs.
pub(super) enum Kept {
    /// Held all the while.
    Whole(Tensor),
    /// Computed anew.
    Cheap(Cheap),
}

/// An input that is computed anew; all who keep it share one computation.
pub(super) struct Cheap(Rc<Again>);

impl Kept {
    /// The input.
    pub(super) fn get(&self) -> Result<Tensor> {
        match self {
            Self::Whole(t) => Ok(t.clone()),
            Self::Cheap(Cheap(again)) => {
                if let Some(found) = &*again.found.borrow() {
                    return Ok(found.clone());
                }
                let found = (again.compute)()?;
                again.found.replace(Some(found.clone()));
                Ok(found)
            }
        }
    }
}

impl Recording {
    /// Follows everything that is computed from these tensors.
    pub fn new<'a>(leaves: impl IntoIterator<Item = &'a Tensor>) -> Self {
        let tracked = leaves.into_iter().map(Tensor::id).collect();
        Self(RefCell::new(Steps { tracked, ..Steps::default() }))
    }

    /// What operations write to.
    pub fn tape(&self) -> Tape<'_> {
        Tape(Some(self))
    }

    /// Gradients of a scalar for the leaves.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn backward(self, scalar: &Tensor) -> Result<Gradients> {
        let mut gradients = Gradients { tracked: HashSet::new(), sums: HashMap::new() };
        self.walk_back(scalar, &scalar.ones_like()?, &mut gradients)?;
        Ok(gradients)
    }

    /// Adds to `into` what the gradient of `output` brings.
    fn walk_back(self, output: &Tensor, gradient: &Tensor, into: &mut Gradients) -> Result<()> {
        let Steps { tracked, done, .. } = self.0.into_inner();
        into.tracked.extend(tracked);
        into.add_shared(output.id(), gradient)?;
        for (output, backward) in done.into_iter().rev() {
            // What does not reach the output has no gradient.
            if let Some(sum) = into.sums.remove(&output) {
                backward(&sum.tensor, into)?;
            }
        }
        Ok(())
    }
}

/// Where an operation notes its backward, or nowhere.
#[derive(Clone, Copy)]
pub struct Tape<'a>(Option<&'a Recording>);

impl Tape<'_> {
    /// A pass without gradients.
    pub const OFF: Tape<'static> = Tape(None);

    /// Whether anything is recorded.
    pub fn is_on(self) -> bool {
        self.0.is_some()
    }

    /// Whether a gradient is wanted for this tensor.
    pub fn tracks(self, t: &Tensor) -> bool {
        self.0.is_some_and(|r| r.0.borrow().tracked.contains(&t.id()))
    }

    /// Notes an operation; `backward` gets the gradient of `output` and adds those of the inputs.
    ///
    /// To be called only if some input is tracked.
    pub fn record(
        self,
        output: &Tensor,
        backward: impl FnOnce(&Tensor, &mut Gradients) -> Result<()> + 'static,
    ) {
        if let Some(recording) = self.0 {
            let mut steps = recording.0.borrow_mut();
            steps.tracked.insert(output.id());
            steps.done.push((output.id(), Box::new(backward)));
        }
    }

    /// Notes a scalar of which the gradients are known already: the input, its gradient, and their shape.
    pub(super) fn record_known(self, scalar: &Tensor, known: Vec<(TensorId, Vec<f32>, (usize, usize))>) {
        if known.is_empty() {
            return;
        }
        self.record(scalar, move |gradient, into| {
            let factor = gradient.to_scalar::<f32>()?;
            for (input, mut known, shape) in known {
                if factor != 1.0 {
                    known.iter_mut().for_each(|g| *g *= factor);
                }
                into.add(input, cpu::tensor(known, shape)?)?;
            }
            Ok(())
        });
    }

    /// Says how to compute an output anew, which is cheaper than to keep it for those who [`keep`](Self::keep) it.
    pub(super) fn cheap(self, output: &Tensor, compute: impl Fn() -> Result<Tensor> + 'static) {
        if let Some(recording) = self.0 {
            let again = Again { compute: Box::new(compute), found: RefCell::default() };
            recording.0.borrow_mut().cheap.insert(output.id(), Rc::new(again));
        }
    }

    /// An input for a backward to use.
    pub(super) fn keep(self, input: &Tensor) -> Kept {
        let again = self.0.and_then(|r| r.0.borrow().cheap.get(&input.id()).cloned());
        again.map_or_else(|| Kept::Whole(input.clone()), |again| Kept::Cheap(Cheap(again)))
    }

    /// Many operations as one step, which remembers nothing but how to do them `again`: the backward records them anew
    /// (Chen et al., arXiv 1604.06174). The forward's own notes are dropped at its end.
    ///
    /// `again` must compute what `forward` does, from tensors it owns.
    ///
    /// # Errors
    /// Those of `forward`.
    pub fn recomputed(
        self,
        forward: impl FnOnce(Tape) -> Result<Tensor>,
        again: impl FnOnce(Tape) -> Result<Tensor> + 'static,
    ) -> Result<Tensor> {
        let Some(outer) = self.0 else { return forward(self) };
        let within = |tracked| Recording(RefCell::new(Steps { tracked, ..Steps::default() }));
        let notes = within(outer.0.borrow().tracked.clone());
        let y = forward(notes.tape())?;
        if notes.tape().tracks(&y) {
            self.record(&y, move |gradient, into| {
                let notes = within(into.tracked.clone());
                let y = again(notes.tape())?;
                notes.walk_back(&y, gradient, into)
            });
        }
        Ok(y)
    }

    /// An operation in candle's own differentiable ops, as one step: the path of other devices than the CPU.
    pub(crate) fn composed(
        self,
        inputs: &[&Tensor],
        f: impl Fn(&[Tensor]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        if !inputs.iter().any(|t| self.tracks(t)) {
            return f(&inputs.iter().map(|t| t.detach()).collect::<Vec<_>>());
        }
        let mut tensors = Vec::with_capacity(inputs.len());
        let mut vars = Vec::new(); // the tracked inputs and their stand-ins in candle's graph
        for &t in inputs {
            if self.tracks(t) {
                let var = Var::from_tensor(&t.detach())?;
                tensors.push(var.as_tensor().clone());
                vars.push((t.id(), var));
            } else {
                tensors.push(t.detach());
            }
        }
        let y = f(&tensors)?;
        let output = y.detach();
        self.record(&output, move |gradient, into| {
            let mut found = (y * gradient)?.sum_all()?.backward()?;
            for (input, var) in vars {
                if let Some(gradient) = found.remove(var.as_tensor()) {
                    into.add(input, gradient)?;
                }
            }
            Ok(())
        });
        Ok(output)
    }
}

/// Gradients that have been summed so far.
pub struct Gradients {
    tracked: HashSet<TensorId>,
    sums: HashMap<TensorId, Sum>,
}

struct Sum {
    tensor: Tensor,
    /// Whether the same storage is the gradient of another tensor too, so that it must not be added to in place.
    shared: bool,
}

impl Gradients {
    /// Whether a gradient is wanted for this tensor.
    pub fn wants(&self, of: TensorId) -> bool {
        self.tracked.contains(&of)
    }

    /// Adds a gradient that nobody else holds.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add(&mut self, to: TensorId, gradient: Tensor) -> Result<()> {
        self.put(to, gradient, false)
    }

    /// Adds a gradient whose storage stays somebody else's as well.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add_shared(&mut self, to: TensorId, gradient: &Tensor) -> Result<()> {
        self.put(to, gradient.clone(), true)
    }

    fn put(&mut self, to: TensorId, gradient: Tensor, shared: bool) -> Result<()> {
        if !self.wants(to) {
            return Ok(());
        }
        let sum = match self.sums.remove(&to) {
            None => Sum { tensor: gradient, shared },
            Some(before) => {
                // Into whichever of the two is ours alone.
                let (own, other) = match (before.shared, shared) {
                    (false, _) => (before.tensor, gradient),
                    (true, false) => (gradient, before.tensor),
                    (true, true) => (before.tensor.copy()?, gradient),
                };
                Sum { tensor: cpu::add_into(own, &other)?, shared: false }
            }
        };
        self.sums.insert(to, sum);
        Ok(())
    }

    /// Lets `write` add to the gradient in place on the CPU. It gets the elements, and whether they hold a sum already; if
    /// not, it must write every one of them.
    ///
    /// # Errors
    /// If the storage is not f32 on the CPU.
    pub(super) fn add_with(
        &mut self,
        to: TensorId,
        shape: impl Into<Shape>,
        write: impl FnOnce(&mut [f32], bool),
    ) -> Result<()> {
        if !self.wants(to) {
            return Ok(());
        }
        let sum = match self.sums.remove(&to) {
            None => {
                let shape = shape.into();
                let data = cpu::written(shape.elem_count(), |data| write(data, false));
                Tensor::from_vec(data, shape, &Device::Cpu)?
            }
            Some(before) => {
                let own = if before.shared { before.tensor.copy()? } else { before.tensor };
                cpu::with_mut(&own, |data| write(data, true))?;
                own
            }
        };
        self.sums.insert(to, Sum { tensor: sum, shared: false });
        Ok(())
    }

    /// The gradient of a leaf, if anything reached it; in storage that nobody else holds.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn take(&mut self, of: &Tensor) -> Result<Option<Tensor>> {
        let own = |sum: Sum| if sum.shared { sum.tensor.copy() } else { Ok(sum.tensor) };
        self.sums.remove(&of.id()).map(own).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::add::add;

    fn row(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    fn scale(x: &Tensor, by: f64, tape: Tape) -> Result<Tensor> {
        tape.composed(&[x], |v| &v[0] * by)
    }

    #[test]
    fn gradients_of_all_paths_add_up_and_shared_ones_stay_whole() -> Result<()> {
        let x = row(&[1.0, 2.0]);
        let recording = Recording::new([&x]);
        let tape = recording.tape();
        // y = (x + 3x) + (x + 3x): every sum passes one gradient on to both sides.
        let s = add(&x, &scale(&x, 3.0, tape)?, tape)?;
        let y = add(&s, &s, tape)?;
        let total = tape.composed(&[&y], |v| v[0].sum_all())?;
        let mut gradients = recording.backward(&total)?;
        assert_eq!(gradients.take(&x)?.unwrap().to_vec1::<f32>()?, [8.0, 8.0]);
        Ok(())
    }

    #[test]
    fn recomputed_operations_run_again_and_give_the_same_gradients() -> Result<()> {
        let (x, w) = (row(&[1.0, 2.0]), row(&[3.0, 5.0]));
        let f = |x: &Tensor, w: &Tensor, tape: Tape| {
            let y = tape.composed(&[x, w], |v| &v[0] * &v[1])?;
            add(&y, &add(x, x, tape)?, tape)
        };
        let run = |recompute: bool| -> Result<_> {
            let recording = Recording::new([&x, &w]);
            let tape = recording.tape();
            let mut y = x.clone();
            for _ in 0..2 {
                let (from, x, w) = (y.clone(), y.clone(), w.clone());
                y = match recompute {
                    true => tape.recomputed(|tape| f(&from, &w, tape), {
                        let w = w.clone();
                        move |tape| f(&x, &w, tape)
                    })?,
                    false => f(&from, &w, tape)?,
                };
            }
            let steps = recording.0.borrow().done.len();
            let mut gradients = recording.backward(&y)?;
            let mut take = |t| gradients.take(t)?.unwrap().to_vec1::<f32>();
            Ok((steps, take(&x)?, take(&w)?))
        };
        let (kept, again) = (run(false)?, run(true)?);
        assert_eq!((again.0, &again.1, &again.2), (2, &kept.1, &kept.2));
        assert_eq!(kept.1, [25.0, 49.0]); // (w + 2)²
        Ok(())
    }

    #[test]
    fn what_is_not_tracked_is_not_recorded_even_where_it_is_recomputed() -> Result<()> {
        let (x, w) = (row(&[1.0]), row(&[2.0]));
        let recording = Recording::new([&w]);
        let y = recording.tape().recomputed(|tape| scale(&x, 2.0, tape), |_| unreachable!())?;
        assert!(!recording.tape().tracks(&y) && recording.0.borrow().done.is_empty());
        Ok(())
    }

    #[test]
    fn what_is_not_tracked_is_not_recorded() -> Result<()> {
        let (x, w) = (row(&[1.0]), row(&[2.0]));
        let recording = Recording::new([&w]);
        let y = scale(&x, 2.0, recording.tape())?;
        assert!(!recording.tape().tracks(&y) && recording.tape().tracks(&w));
        assert!(!Tape::OFF.tracks(&w));
        Ok(())
    }
}
