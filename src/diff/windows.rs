//! The unrelated texts, cut into the tokens at which the models are compared.

use anyhow::{Result, anyhow};

use super::collect::Sequence;
use crate::bail_input;
use crate::corpus::measured::begins_twice;
use crate::data::examples::front_of;
use crate::recipe::DiffSection;
use crate::tokenizer::Tokenizer;
use crate::words::next_word;

/// Tokens at known places of unrelated texts.
#[derive(Debug, Clone)]
pub struct Windows {
    /// `tokens` ids each.
    pub ids: Vec<Vec<u32>>,
    /// Zero-based row of each text.
    pub rows: Vec<usize>,
}

impl Windows {
    /// The first `samples` windows that are long enough. A text is cut into up to `windows_per_text` consecutive
    /// pieces of `tokens · 10` characters, the first at its beginning, each further one at the next word; a piece is
    /// tokenised with special tokens and kept if at least `tokens` ids come out. One window a text is the text
    /// preparation of the authors' toolkit.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if there are fewer.
    pub fn cut(texts: &[String], tokenizer: &Tokenizer, settings: &DiffSection) -> Result<Self> {
        let front = front_of(tokenizer)?;
        let (n, mut windows) = (settings.tokens, Self { ids: Vec::new(), rows: Vec::new() });
        'texts: for (row, text) in texts.iter().enumerate() {
            for piece in pieces(text, n * CHARACTERS).take(settings.windows_per_text) {
                if windows.ids.len() == settings.samples {
                    break 'texts;
                }
                if let Some(ids) = first_tokens(piece, n, tokenizer)? {
                    if begins_twice(&ids, &front) {
                        bail_input!(
                            "diff.text: row {row} begins with the beginning-of-sequence token twice: the text \
                             contains it and the tokenizer adds it; remove it from the text"
                        );
                    }
                    windows.ids.push(ids);
                    windows.rows.push(row);
                }
            }
        }
        if windows.ids.len() < settings.samples {
            bail_input!(
                "diff.text: {}, diff.samples = {}; add text, lower diff.samples or raise diff.windows_per_text",
                match settings.windows_per_text {
                    1 => format!("{} of {} texts have at least {n} tokens", windows.ids.len(), texts.len()),
                    most => format!(
                        "{} texts have {} pieces of at least {n} tokens (up to {most} a text)",
                        texts.len(),
                        windows.ids.len()
                    ),
                },
                settings.samples
            );
        }
        Ok(windows)
    }

    /// The token at a position if it is the same in all windows.
    pub fn common_token(&self, position: usize) -> Option<u32> {
        common(self.ids.iter().map(|w| w[position]))
    }

    /// What is read of them: the first `diff.norm_samples` whole, for η; of the others only what comes up to the last
    /// of `diff.positions`, for no later token changes what stands there.
    pub fn probes(&self, settings: &DiffSection) -> Vec<Sequence> {
        let needed = 1 + settings.positions.iter().max().copied().unwrap_or(0);
        let probe = |(i, ids): (usize, &Vec<u32>)| {
            let whole = i < settings.norm_samples;
            Sequence {
                ids: if whole { ids.clone() } else { ids[..needed].to_vec() },
                read: settings.positions.clone(),
                norm: if whole { settings.norm_skip..ids.len() } else { 0..0 },
            }
        };
        self.ids.iter().enumerate().map(probe).collect()
    }
}

/// Characters of a text that are tokenised for each token that is wanted, as the authors' toolkit does.
const CHARACTERS: usize = 10;

/// The first `n` tokens of the first n · 10 characters of a text, special tokens among them; `None` of a shorter text.
///
/// # Errors
/// If the tokenizer fails.
pub fn first_tokens(text: &str, n: usize, tokenizer: &Tokenizer) -> Result<Option<Vec<u32>>> {
    let encoding = tokenizer.encode(&text[..end_of(text, n * CHARACTERS)], true).map_err(|e| anyhow!(e))?;
    Ok((encoding.len() >= n).then(|| encoding.get_ids()[..n].to_vec()))
}

/// Where the first `characters` of a text end, in bytes.
fn end_of(text: &str, characters: usize) -> usize {
    text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at)
}

/// Consecutive pieces of `length` characters; each but the first begins at a word.
fn pieces(text: &str, length: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = end_of(text, length);
        rest = next_word(text, end).map(|at| &text[at..]);
        Some(&text[..end])
    })
}

/// What all have, if it is the same.
pub fn common(mut ids: impl Iterator<Item = u32>) -> Option<u32> {
    let first = ids.next()?;
    ids.all(|id| id == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_into_pieces_that_begin_at_words() {
        let cut = |text| pieces(text, 5).collect::<Vec<_>>();
        assert_eq!(cut("one two three four"), ["one t", "three", "four"]);
        assert_eq!(cut("äöüßé andere"), ["äöüßé", "ander"]);
        assert_eq!(cut("abcdefgh"), ["abcde"]);
        assert_eq!(cut(""), [""]);
    }
}
