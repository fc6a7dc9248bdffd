//! Differences around the beginning of an assistant's answer, on conversations that have nothing to do with the narrow
//! data: the last tokens of the template before it, and its first ones.

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::bail_input;
use crate::data::chat_template::ChatTemplate;
use crate::data::conversation::Message;
use crate::data::source::Document;
use crate::diff::collect::{Sequence, collect};
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::decode::TopToken;
use crate::diff::findings::Findings;
use crate::diff::inputs::Inputs;
use crate::diff::mean_difference::{cosine, norm};
use crate::diff::measure::{Measure, Work, share_read};
use crate::diff::plot::{Ink, Plot, PlotAxis, PlotSeries, PlotSpacing, PlotStyle, TokenLists};
use crate::diff::reading::Reading;
use crate::diff::readout;
use crate::diff::relevance::{self, TokenRelevance};
use crate::diff::windows::common;
use crate::recipe::DiffSection;

/// Mean differences on conversations. Arrays run over `positions`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Chat {
    /// Tokens counted from the beginning of the answer: −1 is the last one before it.
    pub positions: Vec<i64>,
    /// Number of conversations.
    pub samples: usize,
    /// Zero-based row of `diff.chat.text` of each, over all its files in order.
    pub sample_rows: Vec<usize>,
    /// Text of the token where all conversations have the same, else empty.
    pub position_tokens: Vec<String>,
    /// ‖v_p‖.
    pub delta_norm: Vec<f64>,
    /// η, mean residual norm of the tuned model over the conversations from `diff.norm_skip` on.
    pub expected_norm: f64,
    /// The same of the base model.
    pub expected_norm_base: f64,
    /// Cosine with the mean of v over the positions ≥ 1 of plain text.
    pub cosine_with_text: Vec<f64>,
    /// Share of the mean of ‖h_tuned − h_base‖² that v_p explains, as `context.constant_share`.
    pub constant_share: Vec<f64>,
    /// Logit lens of v_p: best tokens.
    pub top_tokens: Vec<Vec<TopToken>>,
    /// Relevance of the top tokens of v_p and of the mean activations.
    #[serde(skip_serializing_if = "TokenRelevance::is_absent", default)]
    pub token_relevance: TokenRelevance,
}

impl Measure for Chat {
    const UNITS: &[(&str, &str)] = &[
        ("chat.delta_norm", "L2 norm of the residual stream"),
        ("chat.expected_norm", "L2 norm of the residual stream"),
        ("chat.cosine_with_text", "cosine, -1 to 1"),
        ("chat.constant_share", "share of the mean squared norm of the difference, at most 1"),
        ("chat.token_relevance", "share of the top tokens, 0 to 1"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        !settings.chat.text.is_empty()
    }

    fn cost(settings: &DiffSection, n_layers: usize) -> Work {
        let section = &settings.chat;
        let tokens = 2 * section.samples * (section.user_tokens + section.assistant);
        Work { read: tokens as f64 * share_read(settings, n_layers), ..Work::default() }
    }

    fn prepare(inputs: &Inputs, found: &mut Findings) -> Result<()> {
        found.put(Turns::cut(inputs)?);
        Ok(())
    }

    /// Mean differences on conversations, and what they decode to.
    fn measure(reading: &Reading, found: &mut Findings) -> Result<Option<Self>> {
        let (inputs, section) = (reading.inputs, &reading.settings.chat);
        let Some(Turns { probes, rows }) = found.take::<Turns>() else { return Ok(None) };
        let layers = [reading.layer];
        let sums = &collect(inputs.base, inputs.tuned, &probes, &layers, 0, reading.interrupt)?[0];
        let (means, text) = (sums.means(), reading.direction());
        let lens = relevance::read(reading, &means.difference)?;
        let common_token = |place: usize| {
            common(probes.iter().map(|p| p.ids[p.read[place]]))
                .map(|id| reading.token(id))
                .unwrap_or_default()
        };
        let record = Chat {
            positions: (-(section.pre_assistant as i64)..section.assistant as i64).collect(),
            samples: sums.samples,
            position_tokens: (0..means.difference.len()).map(common_token).collect(),
            delta_norm: means.difference.iter().map(|v| norm(v)).collect(),
            expected_norm: sums.tuned_norm(),
            expected_norm_base: sums.base_norm(),
            cosine_with_text: means.difference.iter().map(|v| cosine(v, &text)).collect(),
            constant_share: sums.constant_share(),
            top_tokens: lens.top_tokens,
            token_relevance: TokenRelevance {
                difference: lens.token_relevance,
                base: relevance::relevances(reading, &means.base)?,
                tuned: relevance::relevances(reading, &means.tuned)?,
            },
            sample_rows: rows,
        };
        found.means.push(("chat_", means));
        Ok(Some(record))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        let of = |values: fn(&Self) -> &Vec<f64>| record.and_then(|c| readout::mean(values(c)));
        row.put("chat_delta_norm_mean", of(|c| &c.delta_norm));
        row.put("chat_expected_norm", record.map(|c| c.expected_norm));
        row.put("chat_cosine_with_text_mean", of(|c| &c.cosine_with_text));
        row.put("chat_constant_share_mean", of(|c| &c.constant_share));
        row.put("chat_relevance_mean", of(|c| &c.token_relevance.difference));
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        let at: Vec<f64> = self.positions.iter().map(|p| *p as f64).collect();
        let x = || PlotAxis {
            title: "token, counted from the beginning of the answer".into(),
            each: "token",
            digits: 0,
            spacing: PlotSpacing::Listed(self.positions.clone()),
        };
        let caption = format!("Over {} conversations; −1 is the last token before the answer.", self.samples);
        let eta = |norm: &f64| norm / self.expected_norm;
        let relative: Vec<f64> = self.delta_norm.iter().map(eta).filter(|norm| norm.is_finite()).collect();
        let relevance = &self.token_relevance;
        vec![
            Plot {
                key: "chat-norm".into(),
                title: "Size of the difference in conversations".into(),
                caption: caption.clone(),
                x: x(),
                y: PlotAxis::from_0("norm of the difference, multiples of η", 4, 0.0),
                series: vec![PlotSeries::curve(Ink::Chat, "mean difference", &at, &relative)],
                null: None,
            },
            Plot {
                key: "chat-relevance".into(),
                title: "Relevant tokens in conversations, logit lens".into(),
                caption,
                x: x(),
                y: PlotAxis::from_0("share of the top tokens that are relevant", 2, 0.2),
                series: vec![
                    PlotSeries::curve(Ink::Lens, "difference", &at, &relevance.difference),
                    PlotSeries::curve(Ink::Base, "base model’s mean activation", &at, &relevance.base)
                        .aside(PlotStyle::Points),
                    PlotSeries::curve(Ink::Tuned, "tuned model’s mean activation", &at, &relevance.tuned)
                        .aside(PlotStyle::Points),
                ],
                null: None,
            },
        ]
    }

    fn tokens(&self, _: &[usize]) -> Vec<TokenLists> {
        let list = |(p, tokens): (&i64, &Vec<TopToken>)| (format!("token {p}"), tokens.clone());
        vec![TokenLists {
            key: "chat",
            title: "Logit lens of the difference in conversations".into(),
            lists: self.positions.iter().zip(&self.top_tokens).map(list).collect(),
        }]
    }
}

/// The beginnings of conversations as the models read them.
pub struct Turns {
    probes: Vec<Sequence>,
    rows: Vec<usize>,
}

impl Turns {
    /// The first `diff.chat.samples` conversations that qualify.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if there are fewer, or the model has no template.
    pub fn cut(inputs: &Inputs) -> Result<Self> {
        let section = &inputs.settings.chat;
        let template = inputs.pretrained.chat()?;
        let (mut probes, mut rows) = (Vec::new(), Vec::new());
        for (row, messages) in inputs.chats.iter().enumerate() {
            if probes.len() == section.samples {
                break;
            }
            if let Some(probe) = probe(inputs, &template, messages)? {
                probes.push(probe);
                rows.push(row);
            }
        }
        if probes.len() < section.samples {
            bail_input!(
                "diff.chat.text: {} of {} conversations begin with a user's turn of at most {} tokens and an answer \
                 of at least {}, diff.chat.samples = {}; add conversations or lower diff.chat.samples",
                probes.len(),
                inputs.chats.len(),
                section.user_tokens,
                section.assistant,
                section.samples
            );
        }
        let lengths = probes.iter().map(|probe| probe.ids.len());
        inputs.note_longer_than_context("diff.chat: conversations", lengths);
        Ok(Self { probes, rows })
    }
}

/// The first question and the beginning of its answer, through the template; `None` if it does not qualify. Of the answer
/// 10 characters a token are tokenised, as of texts.
fn probe(inputs: &Inputs, template: &ChatTemplate, messages: &[Message]) -> Result<Option<Sequence>> {
    let section = &inputs.settings.chat;
    let [user, assistant, ..] = messages else { return Ok(None) };
    if (user.role(), assistant.role()) != ("user", "assistant") {
        return Ok(None);
    }
    let prompt = template.user_turn(&user.text())?;
    let answer: String = assistant.text().trim_start().chars().take(section.assistant * 10).collect();
    let whole = format!("{prompt}{answer}");
    let encoding = inputs.pretrained.tokenizer.encode(whole, false).map_err(|e| anyhow!(e))?;
    let begin =
        encoding.get_offsets().iter().position(|(_, to)| *to > prompt.len()).unwrap_or(encoding.len());
    let end = begin + section.assistant;
    if begin > section.user_tokens || begin < section.pre_assistant || end > encoding.len() {
        return Ok(None);
    }
    Ok(Some(Sequence {
        ids: encoding.get_ids()[..end].to_vec(),
        read: (begin - section.pre_assistant..end).collect(),
        norm: inputs.settings.norm_skip.min(end)..end,
    }))
}

/// The messages of conversations.
///
/// # Errors
/// An [`crate::error::InputError`] that names the first row which is none.
pub fn conversations(documents: Vec<(String, usize, Document)>) -> Result<Vec<Vec<Message>>> {
    let messages = |(path, row, document)| match document {
        Document::Chat(chat) => Ok(chat.messages),
        _ => bail_input!(
            "diff.chat.text: {path}: row {row} is not a conversation; expected rows with messages"
        ),
    };
    documents.into_iter().map(messages).collect()
}
