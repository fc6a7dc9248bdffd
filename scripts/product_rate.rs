//! The rate that this machine reaches in a single large product of matrices, with all threads. `scripts/bench` relates the
//! speed of training to it.
//!
//! `cargo run --release --example product_rate`

use std::time::Instant;

/// Rows, depth and columns, as a step of training has them.
const SHAPES: [(usize, usize, usize); 3] = [(768, 576, 1536), (1024, 576, 1536), (2048, 896, 4864)];

fn main() {
    let mut best = 0f64;
    for (rows, depth, columns) in SHAPES {
        let (a, b) = (vec![0.5f32; rows * depth], vec![0.25f32; depth * columns]);
        let mut c = vec![0f32; rows * columns];
        for _ in 0..10 {
            let started = Instant::now();
            (0..8).for_each(|_| product(&mut c, &a, &b, (rows, depth, columns)));
            best = best.max((8 * 2 * rows * depth * columns) as f64 / started.elapsed().as_secs_f64() / 1e9);
        }
        assert_eq!(c[0], depth as f32 / 8.0);
    }
    println!("{best:.1} GFLOP/s");
}

/// c = a·b: a `(rows, depth)`, b `(depth, columns)`, c `(rows, columns)`.
fn product(c: &mut [f32], a: &[f32], b: &[f32], (rows, depth, columns): (usize, usize, usize)) {
    assert!(a.len() == rows * depth && b.len() == depth * columns && c.len() == rows * columns);
    let (depth_apart, columns_apart) = (depth as isize, columns as isize);
    // SAFETY: each slice holds a dense row-major matrix, as asserted; `c` is borrowed mutably, so it overlaps neither.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            c.as_mut_ptr(),
            1,
            columns_apart,
            false,
            a.as_ptr(),
            1,
            depth_apart,
            b.as_ptr(),
            1,
            columns_apart,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        )
    }
}
