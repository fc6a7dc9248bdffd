//! Every bound on what comes from outside, with its reason. A value that sizes an allocation or a loop is compared with what is
//! there before anything is allocated; where nothing is there to compare it with, one of these applies.
//!
//! `docs/security.md` lists them for users.

// Downloads.

/// Longest description of a repository that is read, in bytes: a list of 100,000 files takes about 10 MiB.
pub const LARGEST_LISTING: u64 = 32 << 20;
/// Redirects that a request to a hub follows: a renamed repository takes one, its storage another.
pub const MOST_REDIRECTS: usize = 5;
/// Longest name that a server may give to a file, in bytes: that of most file systems.
pub const LONGEST_NAME: usize = 255;
/// A request that brings less than this, in bytes, counts as one that brought nothing.
pub const LEAST_PROGRESS: u64 = 64 << 10;

// Files.

/// Largest file that is read whole, in bytes: the lines of the longest runs stay well below.
pub const LARGEST_FILE: u64 = 1 << 30;
/// Largest JSON, TOML or template that is read as one document, in bytes.
pub const LARGEST_TEXT: u64 = 64 << 20;
/// Largest recipe, in bytes: those that are written by hand have some kB, and a table takes a hundred times its text in memory.
pub const LARGEST_RECIPE: usize = 4 << 20;
/// Largest file of JSON lines in a run folder, in bytes: a million steps.
pub const LARGEST_LINES: u64 = 256 << 20;
/// Values in such a file: a million steps of 16.
pub const MOST_VALUES_OF_LINES: usize = 16 << 20;
/// Values in one JSON document: each takes some 70 bytes in memory, however few it has in the file.
pub const MOST_JSON_VALUES: usize = 4 << 20;
/// Bytes that a document of a data set may have: more is a file that is broken, or no text.
pub const LARGEST_DOCUMENT: u64 = 64 << 20;
/// Values in the JSON of one document: a long conversation has some thousands.
pub const MOST_DOCUMENT_VALUES: usize = 1 << 20;
/// Bytes that the documents of a file may have together, whatever its size...
pub const LEAST_EXPANSION: u64 = 256 << 20;
/// ... and for each byte of the file: text is compressed tenfold, the most repetitive logs a hundredfold.
pub const MOST_EXPANSION: u64 = 200;

// Tables.

/// Columns of a table, and groups of the schema of a parquet file.
pub const MOST_COLUMNS: usize = 100_000;

/// Largest description of a parquet file, in bytes: 100,000 column chunks take about 10 MiB.
pub const LARGEST_PARQUET_FOOTER: u64 = 64 << 20;
/// Groups in groups of a schema: the reader recurses into each. A conversation has 5.
pub const DEEPEST_PARQUET_SCHEMA: usize = 32;
/// Largest page once it is decompressed, in bytes: one document, and what is beside it. Writers aim at 1 MiB.
pub const LARGEST_PARQUET_PAGE: u64 = 2 * LARGEST_DOCUMENT;
/// Values of the pages that are read for one row, over all columns: a constant column of a large row group is one page.
pub const MOST_PARQUET_VALUES: u64 = 24 << 20;

// Models.

/// Longest header of a safetensors file, in bytes: 100,000 tensors take about 12 MiB.
pub const LARGEST_SAFETENSORS_HEADER: u64 = 16 << 20;
/// Blocks of a model; the deepest that are published have below 200.
pub const MOST_BLOCKS: u64 = 4096;
/// Heads of a block.
pub const MOST_HEADS: u64 = 1 << 14;
/// Width of a head.
pub const WIDEST_HEAD: u64 = 1 << 14;
/// Width of the residual stream and of the MLP.
pub const WIDEST_LAYER: u64 = 1 << 20;
/// Rows of the embeddings; the largest vocabularies that are published have 262,144.
pub const LARGEST_VOCABULARY: u64 = 1 << 24;
/// Elements that a model may lack before loading gives up: a fault is reported for each tensor, with zeros in its place.
pub const MOST_MISSING_ELEMENTS: usize = 1 << 26;
/// Faults of a checkpoint that are listed.
pub const MOST_FAULTS: usize = 1000;

// Adapters.

/// Patterns of a config, over all keys: one for each of 7 layers in 126 blocks would be 882.
pub const MOST_PATTERNS: usize = 1024;
/// Bytes of a pattern.
pub const LONGEST_PATTERN: usize = 16 << 10;
/// Steps back that matching a pattern with one name may take: the names have below 100 characters.
pub const MOST_BACKTRACKING: usize = 20_000;
/// Bytes of a compiled pattern.
pub const LARGEST_COMPILED_PATTERN: usize = 1 << 20;

// Tokenizers.

/// Largest `tokenizer.json`, in bytes; that of Gemma 3 has 33 MB.
pub const LARGEST_TOKENIZER: u64 = 256 << 20;
/// Bytes of what a `tokenizer.json` holds besides vocabulary and added tokens; tables of characters have 300 kB.
pub const LARGEST_TOKENIZER_RULES: usize = 4 << 20;
/// Bytes of a token of a GGUF file, each part of which is looked up; runs of spaces have some hundreds.
pub const LONGEST_TOKEN: usize = 1024;
/// How many characters one character of a text may become on the way to tokens.
pub const MOST_TEXT_GROWTH: u64 = 64;
/// Characters that the table of a normalizer may put in place of one; Unicode's longest has 18.
pub const LONGEST_NORMALIZATION: usize = 64;
/// Tokens that a tokenizer may add to each text.
pub const MOST_TEMPLATE_TOKENS: usize = 256;

// Chat templates.

/// Bytes of a template; the longest that are published have 30 kB.
pub const LARGEST_TEMPLATE: usize = 1 << 20;
/// Nested expressions, blocks and calls of a template, and values within each other that are written or compared.
pub const DEEPEST_TEMPLATE: usize = 1000;
/// Stack of the thread that parses and renders, in bytes: 64 KiB for each level of [`DEEPEST_TEMPLATE`], which takes below 20
/// where nothing is optimised.
pub const TEMPLATE_STACK: usize = 64 << 20;
/// Bytes that one rendering may make, intermediate values included.
pub const LARGEST_TEMPLATE_OUTPUT: usize = 512 << 20;
/// Bytes and steps that one rendering may go through: some seconds.
pub const MOST_TEMPLATE_WORK: u64 = 2 << 30;
/// Values of one rendering that hold values that hold others. They may all lie within each other, and the stack has to suffice
/// for taking them apart.
pub const MOST_NESTED_VALUES: usize = 50_000;

// Recipes.

/// Examples of a run: their order is held in memory.
pub const MOST_EXAMPLES: f64 = 2e7;
/// Cells of a sweep or values of a search: more is a slip of the pen, and each is a folder.
pub const MOST_CELLS: usize = 100_000;
