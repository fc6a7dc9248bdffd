//! Bars drawn with characters.

/// One eighth to seven eighths of a cell.
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
/// A column of one to eight eighths.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A bar of `width` cells that is filled up to `share`, with a mark `│` at `mark`; both are shares of the width, and are
/// clamped to it.
pub fn text_bar(share: f64, mark: Option<f64>, width: usize) -> String {
    let eighths = (clamp(share) * 8.0 * width as f64).round() as usize;
    let marked = mark.map(|mark| ((clamp(mark) * width as f64) as usize).min(width.saturating_sub(1)));
    let cell = |i: usize| match eighths.saturating_sub(8 * i) {
        _ if marked == Some(i) => '│',
        0 => ' ',
        filled @ 1..8 => EIGHTHS[filled - 1],
        _ => '█',
    };
    (0..width).map(cell).collect()
}

/// One cell whose height is the share; a space where it is 0.
pub fn text_level(share: f64) -> char {
    match (clamp(share) * 8.0).round() as usize {
        0 => ' ',
        level => LEVELS[level - 1],
    }
}

fn clamp(share: f64) -> f64 {
    if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!(text_bar(0.5, None, 4), "██  ");
        assert_eq!(text_bar(0.3125, None, 4), "█▎  ");
        assert_eq!(text_bar(0.75, Some(0.25), 4), "█│█ ");
        assert_eq!(text_bar(0.0, Some(1.0), 4), "   │");
        assert_eq!(text_bar(f64::NAN, None, 3), "   ");
        assert_eq!(text_bar(9.0, None, 3), "███");
        assert_eq!([0.0, 0.5, 1.0].map(text_level), [' ', '▄', '█']);
    }
}
