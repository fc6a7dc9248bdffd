//! How far repeated yes-no judgements of the same things agree.

use serde::{Deserialize, Serialize};

/// Agreement of a grader with itself over the orders in which a list was shown.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Share of things judged alike every time.
    pub unanimous: f64,
    /// Krippendorff's alpha: 1 is perfect, 0 what chance gives; absent where every judgement is the same.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub alpha: Option<f64>,
}

impl Agreement {
    /// Of things judged equally often, `votes[thing][time]`; `None` of nothing, or of a single time.
    pub fn of<'a>(votes: impl IntoIterator<Item = &'a Vec<bool>>) -> Option<Self> {
        // Nominal alpha from the coincidence matrix (Krippendorff, Content Analysis, ch. 11): α = 1 − D_o / D_e.
        let (mut things, mut unanimous, mut disagreeing, mut yes, mut all) =
            (0usize, 0usize, 0f64, 0f64, 0f64);
        for votes in votes.into_iter().filter(|votes| votes.len() > 1) {
            let (n, r) = (votes.len() as f64, votes.iter().filter(|v| **v).count() as f64);
            things += 1;
            unanimous += usize::from(r == 0.0 || r == n);
            disagreeing += 2.0 * r * (n - r) / (n - 1.0);
            yes += r;
            all += n;
        }
        if things == 0 {
            return None;
        }
        let expected = 2.0 * yes * (all - yes) / (all - 1.0);
        let alpha = (expected > 0.0).then(|| 1.0 - disagreeing / expected);
        Some(Self { unanimous: unanimous as f64 / things as f64, alpha })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes(rows: &[&str]) -> Vec<Vec<bool>> {
        rows.iter().map(|row| row.chars().map(|c| c == '1').collect()).collect()
    }

    #[test]
    fn alpha_is_the_published_one() {
        // Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section A: two observers, ten units,
        // binary, no missing data: alpha = 0.095.
        // meg 0 1 0 0 0 0 0 0 1 0, owen 1 1 1 0 0 1 0 0 0 0
        let a: Vec<bool> = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0].map(|v| v == 1).to_vec();
        let b: Vec<bool> = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0].map(|v| v == 1).to_vec();
        let pairs: Vec<Vec<bool>> = a.iter().zip(&b).map(|(a, b)| vec![*a, *b]).collect();
        let agreement = Agreement::of(&pairs).unwrap();
        assert!((agreement.alpha.unwrap() - 0.095).abs() < 5e-4, "{agreement:?}");
        assert_eq!(agreement.unanimous, 0.6);
    }

    #[test]
    fn ends_of_the_scale() {
        let perfect = Agreement::of(&votes(&["111", "000"])).unwrap();
        assert_eq!((perfect.unanimous, perfect.alpha), (1.0, Some(1.0)));
        let constant = Agreement::of(&votes(&["000", "000"])).unwrap();
        assert_eq!((constant.unanimous, constant.alpha), (1.0, None));
        assert!(Agreement::of(&votes(&["010", "101"])).unwrap().alpha.unwrap() < 0.0);
        assert!(Agreement::of(&votes(&[])).is_none());
    }
}
