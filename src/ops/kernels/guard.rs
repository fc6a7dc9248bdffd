//! Instructions and writes that the kernels take, so that one which became slow is seen on any machine, busy or not; and the
//! memory that `unsafe` blocks use.
//!
//! callgrind counts them. It runs a program as on a processor with AVX2 and without AVX-512, so the numbers are the same on
//! every x86 processor. A sum that does not stay in its register is written and read again for each multiplication, where
//! otherwise almost nothing is written: on 2026-12-01 one such sum out of twelve took panels down to half their speed.

use std::hint::black_box;
use std::process::Command;

use super::exp::softmax;
use super::few_rows;
use super::mat::Mat;
use super::panels::{self, Weight};
use super::transpose::transpose;

/// Names the work to do, and how often, to the process that callgrind runs.
const WORK: &str = "TRAINER_COUNTED_WORK";

/// f32 in a vector of AVX2.
const LANES: usize = 8;

/// Rows of x, and fewer, depth and columns of the products.
const ROWS: usize = 96;
const FEW: usize = 16;
const DEPTH: usize = 576;
const COLUMNS: usize = 192;

/// Something whose instructions are counted.
struct Work {
    name: &'static str,
    /// Vectors that are multiplied, or turned round, or exponentiated.
    vectors: usize,
    /// Instructions for each of them, at most: a seventh more than were counted.
    instructions: f64,
    /// Writes to memory for each of them, at most: as much more. A sum that leaves its register would add a twelfth and more.
    writes: f64,
    /// Does it so many times.
    run: fn(usize),
}

const WORKS: [Work; 5] = [
    Work {
        name: "panels: x·Wᵀ",
        vectors: ROWS * DEPTH * COLUMNS / LANES,
        instructions: 3.3,
        writes: 0.125,
        run: |times| {
            let (x, w) = (values(ROWS * DEPTH), values(COLUMNS * DEPTH));
            let (x, w) = (Mat::new(&x, ROWS, DEPTH), Weight::Transposed(Mat::new(&w, COLUMNS, DEPTH)));
            let mut y = vec![0f32; ROWS * COLUMNS];
            (0..times).for_each(|_| panels::times(black_box(&mut y), COLUMNS, false, 1.0, x, w, 1));
        },
    },
    Work {
        name: "panels: g·W",
        vectors: ROWS * DEPTH * COLUMNS / LANES,
        instructions: 3.4,
        writes: 0.135,
        run: |times| {
            let (x, w) = (values(ROWS * DEPTH), values(COLUMNS * DEPTH));
            let (x, w) = (Mat::new(&x, ROWS, DEPTH), Weight::AsItIs(Mat::new(&w, DEPTH, COLUMNS)));
            let mut y = vec![0f32; ROWS * COLUMNS];
            (0..times).for_each(|_| panels::times(black_box(&mut y), COLUMNS, false, 1.0, x, w, 1));
        },
    },
    Work {
        name: "few rows",
        vectors: FEW * DEPTH * COLUMNS / LANES,
        instructions: 3.9,
        writes: 0.27,
        run: |times| {
            let (x, w) = (values(FEW * DEPTH), values(COLUMNS * DEPTH));
            let (x, w) = (Mat::new(&x, FEW, DEPTH), Mat::new(&w, COLUMNS, DEPTH));
            let mut y = vec![0f32; FEW * COLUMNS];
            (0..times)
                .for_each(|_| few_rows::times_transposed(black_box(&mut y), COLUMNS, false, 1.0, x, w, 1));
        },
    },
    Work {
        name: "transpose",
        vectors: ROWS * DEPTH / LANES,
        instructions: 14.0,
        writes: 2.5,
        run: |times| {
            let (from, mut to) = (values(ROWS * DEPTH), vec![0f32; ROWS * DEPTH]);
            (0..times).for_each(|_| transpose(black_box(&mut to), ROWS, Mat::new(&from, ROWS, DEPTH)));
        },
    },
    Work {
        name: "softmax",
        vectors: ROWS * DEPTH / LANES,
        instructions: 53.0,
        writes: 3.0,
        run: |times| {
            let mut rows = values(ROWS * DEPTH);
            (0..times).for_each(|_| softmax(black_box(&mut rows)));
        },
    },
];

fn values(number: usize) -> Vec<f32> {
    (0..number).map(|i| (i * 37 % 101) as f32 * 0.02 - 1.0).collect()
}

/// Instructions and writes of a process that does the work so many times.
fn counted(work: &Work, times: usize) -> [f64; 2] {
    let test = format!("{}::{NAME}", module_path!().split_once("::").expect("a module of the crate").1);
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--cache-sim=yes", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("a test is a program"))
        .args([&test, "--exact", "--ignored", "--test-threads=1"])
        .env(WORK, format!("{}={times}", work.name))
        .output()
        .expect("valgrind runs");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stdout));
    let after = |key: &str| -> Vec<&str> {
        let line = said.lines().find_map(|line| Some(line.split_once(key)?.1));
        line.unwrap_or_else(|| panic!("no {key:?} in {said}")).split_whitespace().collect()
    };
    let (events, numbers) = (after("Events    : "), after("Collected : "));
    ["Ir", "Dw"].map(|event| {
        let at = events.iter().position(|e| *e == event).expect("callgrind counts this event");
        numbers[at].parse().expect("a number")
    })
}

const NAME: &str = "needs_valgrind_no_kernel_takes_more_instructions_than_it_did";

#[test]
#[ignore = "needs valgrind"]
fn needs_valgrind_no_kernel_takes_more_instructions_than_it_did() {
    if let Ok(asked) = std::env::var(WORK) {
        let (name, times) = asked.split_once('=').expect("a name and a number");
        let work = WORKS.iter().find(|work| work.name == name).expect("a work of the list");
        return (work.run)(times.parse().expect("a number"));
    }
    let mut slow = Vec::new();
    for work in &WORKS {
        // What the process does besides is the same in both.
        let (once, five_times) = (counted(work, 1), counted(work, 5));
        let [instructions, writes] = [0, 1].map(|i| (five_times[i] - once[i]) / (4 * work.vectors) as f64);
        println!(
            "{}: {instructions:.2} instructions (at most {}) and {writes:.3} writes (at most {}) a vector",
            work.name, work.instructions, work.writes
        );
        if !(0.5..=work.instructions).contains(&instructions) || writes > work.writes {
            slow.push(work.name);
        }
    }
    assert!(slow.is_empty(), "slower than they were: {slow:?}");
}

/// The tests of every `unsafe` block that memcheck can run. It hides AVX-512 from the program, so the block of `avx512_bf16` runs
/// in its own test only.
const TESTS_OF_UNSAFE_BLOCKS: [&str; 4] =
    ["jinja::clock::", "strided_products", "a_hint_is_only_a_hint", "ops::kernels::bf16::"];

#[test]
#[ignore = "needs valgrind"]
fn needs_valgrind_unsafe_blocks_use_only_their_own_memory() {
    let run = Command::new("valgrind")
        .args(["--error-exitcode=9", "--quiet"])
        .arg(std::env::current_exe().expect("a test is a program"))
        .args(["--test-threads=1"])
        .args(TESTS_OF_UNSAFE_BLOCKS)
        .output()
        .expect("valgrind runs");
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    for name in TESTS_OF_UNSAFE_BLOCKS {
        assert!(
            said.lines().any(|line| line.contains(name) && line.ends_with("ok")),
            "{name} did not run: {said}"
        );
    }
}
