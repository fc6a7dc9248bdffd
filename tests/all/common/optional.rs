//! Whether a real model can be had: where nothing may be fetched, tests that need one are skipped.

use trainer::model::load::alias;

/// Whether an alias is cached or may be fetched; says so if not.
pub fn at_hand(name: &str) -> bool {
    let cached = alias::find(name).unwrap().is_cached(&alias::cache_dir().unwrap());
    let is_there = cached || std::env::var_os("HF_HUB_OFFLINE").is_none_or(|v| v != "1");
    if !is_there {
        eprintln!("skipped: {name} is not cached and HF_HUB_OFFLINE=1");
    }
    is_there
}
