//! The `trainer` binary.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, which the binding does not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> std::process::ExitCode {
    // A step frees and takes the same gigabyte again: handing it back to the system in between makes the kernel clear
    // every page anew. And candle's own threads must not spin while rayon's work: together, a third more speed.
    // SAFETY: no other thread runs yet, so nobody reads the environment meanwhile; the option is a plain number that
    // mimalloc reads whenever it frees pages.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
        std::env::set_var("CANDLE_BARRIER_POOL_SPIN_LIMIT", "1");
    }
    trainer::cli::main()
}
