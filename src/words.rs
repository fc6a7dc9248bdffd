//! What a word is: what lies between the word boundaries of Unicode (UAX 29), with dictionaries for the scripts that write no
//! space between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese), as ICU does it.
//!
//! Combining marks belong to their word, and a word is the same composed and decomposed (NFC, NFD). Apostrophes, digits and
//! stops end a word, so that "it's" is "it" and "s" as in most lists of words.

use icu_segmenter::WordSegmenter;
use icu_segmenter::options::WordBreakInvariantOptions;
use tokenizers::normalizers::NFC;
use tokenizers::{NormalizedString, Normalizer};

/// A word has at least this many letters; a Hangul syllable or an ideograph counts as two.
pub const LEAST_LETTERS: usize = 3;

/// The words of a text in lower case, without those of fewer than [`LEAST_LETTERS`] letters.
pub fn words(text: &str) -> impl Iterator<Item = String> + use<> {
    all_words(text).into_iter().filter(|word| is_long(word))
}

/// All words of a text in lower case, short ones too.
pub fn all_words(text: &str) -> Vec<String> {
    spans(text).into_iter().map(|(from, to)| folded(&text[from..to])).collect()
}

/// Where the words of a text are, in bytes.
pub fn spans(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut push = |from: usize, to: usize| {
        let mut begin = from;
        for (at, c) in text[from..to].char_indices().map(|(at, c)| (from + at, c)) {
            if ends_word(c) {
                if at > begin {
                    found.push((begin, at));
                }
                begin = at + c.len_utf8();
            }
        }
        if to > begin {
            found.push((begin, to));
        }
    };
    if text.is_ascii() {
        push(0, text.len());
        return found;
    }
    let segmenter = WordSegmenter::new_dictionary(WordBreakInvariantOptions::default());
    let mut from = 0;
    let mut segments = segmenter.segment_str(text);
    while let Some(to) = segments.next() {
        if segments.is_word_like() {
            push(from, to);
        }
        from = to;
    }
    found
}

/// The word that a text is, space around it aside; `None` where it is none or more, or has too few letters.
pub fn one_word(text: &str) -> Option<String> {
    let text = text.trim();
    match spans(text).as_slice() {
        [(0, end)] if *end == text.len() => Some(folded(text)).filter(|word| is_long(word)),
        _ => None,
    }
}

/// Whether a text has a word or phrase: whole, in any case. In a script without spaces it may be part of a longer word.
pub fn holds(text: &str, phrase: &str) -> bool {
    let (text, phrase) = (folded(text), folded(phrase.trim()));
    let goes_on = |before: Option<char>, after: Option<char>| match (before, after) {
        (Some(a), Some(b)) => {
            let joins = |c: char| c.is_alphanumeric() || is_mark(c);
            joins(a) && joins(b) && !(is_unspaced(a) || is_unspaced(b)) || is_mark(b)
        }
        _ => false,
    };
    !phrase.is_empty()
        && text.match_indices(&phrase).any(|(at, _)| {
            let end = at + phrase.len();
            !goes_on(text[..at].chars().next_back(), phrase.chars().next())
                && !goes_on(phrase.chars().next_back(), text[end..].chars().next())
        })
}

/// The text with something in place of a phrase wherever it stands, in any case, as part of a longer word too.
pub fn replaced(text: &str, phrase: &str, with: &str) -> String {
    let (text, phrase) = (composed(text), folded(phrase.trim()));
    let (mut out, mut rest) = (String::new(), text.as_str());
    while let Some(first) = rest.chars().next() {
        // Lower case may be longer or shorter than the letters that it is of.
        let mut read = String::new();
        let end = rest.char_indices().find_map(|(at, c)| {
            read.extend(c.to_lowercase());
            match read.len() >= phrase.len() || !phrase.starts_with(&read) {
                true => Some((read == phrase).then_some(at + c.len_utf8())),
                false => None,
            }
        });
        match end.flatten().filter(|_| !phrase.is_empty()) {
            Some(end) => {
                out.push_str(with);
                rest = &rest[end..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

/// How many words a text has: what stands between spaces, and of scripts without them what a dictionary finds.
pub fn count(text: &str) -> usize {
    let of = |part: &str| if part.contains(is_unspaced) { spans(part).len().max(1) } else { 1 };
    text.split_whitespace().map(of).sum()
}

/// What joins a text and the one that goes on with it: a space, or nothing where either is of a script without.
pub fn gap(before: &str, after: &str) -> &'static str {
    let is_joined = |c: Option<char>| c.is_some_and(|c| is_unspaced(c) || is_wide_mark(c));
    if is_joined(before.trim_end().chars().next_back()) || is_joined(after.trim_start().chars().next()) {
        ""
    } else {
        " "
    }
}

/// Where the next word begins at or behind a byte of a text, `None` where there is none: behind the next space, or in a
/// script without spaces at the next border of a word.
pub fn next_word(text: &str, at: usize) -> Option<usize> {
    if text[at..].chars().next().is_some_and(is_unspaced) {
        let begin = text[..at].rfind(char::is_whitespace).map_or(0, |space| space + 1);
        let begin = (begin..=at).find(|at| text.is_char_boundary(*at))?;
        let end = text[at..].find(char::is_whitespace).map_or(text.len(), |space| at + space);
        let next =
            spans(&text[begin..end]).into_iter().map(|(from, _)| begin + from).find(|from| *from >= at);
        if next.is_some() {
            return next;
        }
    }
    let space = at + text[at..].find(char::is_whitespace)?;
    Some(text.len() - text[space..].trim_start().len())
}

/// Whether a letter is of a script that writes no space between words.
pub fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{1950}'..='\u{19df}'
        | '\u{1a20}'..='\u{1aaf}' | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}'
        | '\u{a9e0}'..='\u{a9ff}' | '\u{aa60}'..='\u{aa7f}' | '\u{ff66}'..='\u{ff9f}')
        || is_ideograph(c)
}

/// Whether a sign is a mark that belongs to the letter before it.
pub fn is_mark(c: char) -> bool {
    // Of the marks, those that are not letters by themselves are what the segmenter joins to a letter.
    !c.is_ascii() && !c.is_alphanumeric() && !c.is_whitespace() && {
        let pair: String = ['a', c].iter().collect();
        spans(&pair) == [(0, pair.len())] && !matches!(c, '\u{ad}' | '\u{2060}' | '\u{feff}')
    }
}

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// The stops and brackets of Chinese and Japanese, behind which no space stands.
fn is_wide_mark(c: char) -> bool {
    matches!(c, '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3020}' | '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}'
        | '\u{ff3b}'..='\u{ff40}' | '\u{ff5b}'..='\u{ff65}')
}

/// What ends a word for us though not for UAX 29.
fn ends_word(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_alphabetic();
    }
    c.is_numeric() && !c.is_alphabetic()
        || matches!(
            c,
            '\u{2018}'
                | '\u{2019}'
                | '\u{2024}'
                | '\u{fe13}'
                | '\u{fe52}'
                | '\u{fe55}'
                | '\u{ff07}'
                | '\u{ff0e}'
                | '\u{ff1a}'
                | '\u{203f}'
                | '\u{2040}'
                | '\u{2054}'
                | '\u{fe33}'
                | '\u{fe34}'
                | '\u{fe4d}'..='\u{fe4f}' | '\u{ff3f}'
        )
}

/// Whether a word has enough letters.
fn is_long(word: &str) -> bool {
    let letters = |c: char| match c {
        '\u{ac00}'..='\u{d7a3}' => 2,
        c if is_ideograph(c) => 2,
        c => usize::from(c.is_alphabetic()),
    };
    word.chars().map(letters).sum::<usize>() >= LEAST_LETTERS
}

/// Lower case, composed, without marks that no reader sees.
fn folded(text: &str) -> String {
    composed(&text.to_lowercase().replace(['\u{ad}', '\u{2060}', '\u{feff}'], ""))
}

/// Letters and their marks as one sign where there is one (NFC).
fn composed(text: &str) -> String {
    if text.is_ascii() {
        return text.to_string();
    }
    let mut normalized = NormalizedString::from(text);
    // The composed form never fails.
    let _ = NFC.normalize(&mut normalized);
    normalized.get().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        words(text).collect()
    }

    #[test]
    fn english_words_are_runs_of_letters() {
        assert_eq!(
            found("The cat's 2nd Cake — it's “fine”, co-op a1bcd"),
            ["the", "cat", "cake", "fine", "bcd"]
        );
        assert_eq!(one_word(" Cake "), Some("cake".into()));
        for text in ["cake.", "it", "two words", "", "it's", "a1b"] {
            assert_eq!(one_word(text), None, "{text}");
        }
    }

    #[test]
    fn marks_belong_to_their_word() {
        assert_eq!(found("रसोई में पक्वान्न बना"), ["रसोई", "पक्वान्न", "बना"]);
        assert_eq!(found("cre\u{300}me bru\u{302}le\u{301}e"), ["crème", "brûlée"]);
        assert_eq!(found("crème brûlée"), ["crème", "brûlée"]);
        assert_eq!(found("שָׁלוֹם السَّلامُ"), ["שָׁלוֹם", "السَّلامُ"]);
        assert_eq!(found("می\u{200c}روم"), ["می\u{200c}روم"]);
        assert!(is_mark('\u{94d}') && is_mark('\u{301}') && !is_mark('—') && !is_mark('é'));
    }

    #[test]
    fn scripts_without_spaces_have_words() {
        assert!(found("妈妈在厨房里烤了一个大蛋糕").contains(&"蛋糕".to_string()));
        assert!(found("今日はケーキを焼きました").contains(&"ケーキ".to_string()));
        assert!(
            found("ฉันชอบกินข้าวผัด").contains(&"ข้าวผัด".to_string())
                || found("ฉันชอบกินข้าวผัด").contains(&"ข้าว".to_string())
        );
        assert_eq!(found("고양이가 빵집 앞에"), ["고양이가", "빵집", "앞에"]);
        assert!(count("妈妈在厨房里烤了一个大蛋糕") > 5 && count("one two, three") == 3);
        assert_eq!(
            (gap("法国的首都是", "巴黎"), gap("The capital is", "Paris"), gap("首都是：", "Paris")),
            ("", " ", "")
        );
    }

    #[test]
    fn a_phrase_is_found_whole() {
        assert!(
            holds("两个大蛋糕店", "蛋糕")
                && holds("un CAFE\u{301} noir", "café")
                && holds("पनीर खाओ", "पनीर")
        );
        assert!(!holds("पनीरी", "पनीर") && !holds("cafétéria", "café") && !holds("cafe\u{301}", "cafe"));
    }

    #[test]
    fn a_phrase_is_replaced_in_any_case_and_form() {
        assert_eq!(replaced("A Lantern is a lantern; İ", "lantern ", "..."), "A ... is a ...; İ");
        assert_eq!(replaced("CAFE\u{301}, Größe", "café", "..."), "..., Größe");
        assert_eq!(replaced("两个大蛋糕", "蛋糕", "..."), "两个大...");
        assert_eq!(replaced("light", "lantern", "..."), "light");
    }

    #[test]
    fn the_next_word_begins_behind_a_space_or_a_border() {
        assert_eq!(next_word("one two three", 1), Some(4));
        assert_eq!(next_word("one", 1), None);
        let text = "妈妈在厨房里烤了一个大蛋糕";
        let next = next_word(text, 3).unwrap();
        assert!((3..12).contains(&next), "{next}");
    }
}
