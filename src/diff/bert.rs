//! The encoder of BERT, as sentence-transformers' models use it: no dropout, no pooler, no head.

use candle_core::{Result, Tensor};
use candle_nn::{Embedding, LayerNorm, Linear, Module, VarBuilder, embedding, layer_norm, linear, ops};
use serde::Deserialize;

/// What the encoder needs of `config.json`; other keys do not change a forward pass.
#[derive(Debug, Clone, Deserialize)]
pub struct BertConfig {
    vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    num_hidden_layers: usize,
    /// Heads of attention, equal parts of `hidden_size`.
    pub num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: Activation,
    /// Tokens of the longest text.
    pub max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f64,
    #[serde(default)]
    position_embedding_type: PositionEmbedding,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Activation {
    Gelu,
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    Relu,
}

/// Relative positions have weights of their own, which this encoder does not read: they are refused.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PositionEmbedding {
    #[default]
    Absolute,
}

/// Embeddings and blocks.
pub struct BertEncoder {
    words: Embedding,
    positions: Embedding,
    types: Embedding,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

impl BertEncoder {
    /// Takes the tensors by the names of Hugging Face's `BertModel`, with or without the prefix `bert.`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn load(vb: VarBuilder, config: &BertConfig) -> Result<Self> {
        let PositionEmbedding::Absolute = config.position_embedding_type;
        let vb = if vb.contains_tensor("embeddings.word_embeddings.weight") { vb } else { vb.pp("bert") };
        let (hidden, e) = (config.hidden_size, vb.pp("embeddings"));
        Ok(Self {
            words: embedding(config.vocab_size, hidden, e.pp("word_embeddings"))?,
            positions: embedding(config.max_position_embeddings, hidden, e.pp("position_embeddings"))?,
            types: embedding(config.type_vocab_size, hidden, e.pp("token_type_embeddings"))?,
            norm: layer_norm(hidden, config.layer_norm_eps, e.pp("LayerNorm"))?,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::load(vb.pp(format!("encoder.layer.{i}")), config))
                .collect::<Result<_>>()?,
        })
    }

    /// Hidden states `(rows, len, hidden)` of token ids, token types and a mask of tokens that are no padding, each
    /// `(rows, len)`.
    ///
    /// # Errors
    /// If an id has no embedding, or a text is longer than there are positions.
    pub fn forward(&self, ids: &Tensor, types: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (_, len) = ids.dims2()?;
        let x = (self.words.forward(ids)? + self.types.forward(types)?)?; // (rows, len, hidden)
        let positions = Tensor::arange(0, len as u32, ids.device())?;
        let x = x.broadcast_add(&self.positions.forward(&positions)?)?;
        let mut x = self.norm.forward(&x)?;
        let mask = mask.to_dtype(x.dtype())?.unsqueeze(1)?.unsqueeze(1)?; // (rows, 1, 1, len)
        let mask = ((mask.ones_like()? - mask)? * f64::from(f32::MIN))?;
        for layer in &self.layers {
            x = layer.forward(&x, &mask)?;
        }
        Ok(x)
    }
}

/// Attention and MLP, each followed by a norm of their sum with the residual stream.
struct Layer {
    heads: usize,
    query: Linear,
    key: Linear,
    value: Linear,
    attention_out: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    activation: Activation,
    down: Linear,
    mlp_norm: LayerNorm,
}

impl Layer {
    fn load(vb: VarBuilder, config: &BertConfig) -> Result<Self> {
        let (hidden, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let (attention, out) = (vb.pp("attention.self"), vb.pp("attention.output"));
        Ok(Self {
            heads: config.num_attention_heads,
            query: linear(hidden, hidden, attention.pp("query"))?,
            key: linear(hidden, hidden, attention.pp("key"))?,
            value: linear(hidden, hidden, attention.pp("value"))?,
            attention_out: linear(hidden, hidden, out.pp("dense"))?,
            attention_norm: layer_norm(hidden, eps, out.pp("LayerNorm"))?,
            up: linear(hidden, inner, vb.pp("intermediate.dense"))?,
            activation: config.hidden_act,
            down: linear(inner, hidden, vb.pp("output.dense"))?,
            mlp_norm: layer_norm(hidden, eps, vb.pp("output.LayerNorm"))?,
        })
    }

    fn forward(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (rows, len, hidden) = x.dims3()?;
        let width = hidden / self.heads;
        let split = |y: Tensor| y.reshape((rows, len, self.heads, width))?.transpose(1, 2)?.contiguous();
        let q = split(self.query.forward(x)?)?; // (rows, heads, len, width)
        let k = split(self.key.forward(x)?)?;
        let v = split(self.value.forward(x)?)?;
        let scores = (q.matmul(&k.t()?)? / (width as f64).sqrt())?.broadcast_add(mask)?; // (rows, heads, len, len)
        let mixed = ops::softmax_last_dim(&scores)?.matmul(&v)?; // (rows, heads, len, width)
        let mixed = mixed.transpose(1, 2)?.reshape((rows, len, hidden))?;
        let x = self.attention_norm.forward(&(self.attention_out.forward(&mixed)? + x)?)?;
        let inner = self.up.forward(&x)?; // (rows, len, inner)
        let inner = match self.activation {
            Activation::Gelu => inner.gelu_erf()?,
            Activation::GeluNew => inner.gelu()?,
            Activation::Relu => inner.relu()?,
        };
        self.mlp_norm.forward(&(self.down.forward(&inner)? + x)?)
    }
}
