//! Chat templates, what conversations hold, masks and ends: as transformers and TRL have them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use trainer::data::chat_template::ChatTemplate;
use trainer::data::conversation::{Conversation, Message};
use trainer::data::examples::Encoder;
use trainer::data::source::Document;
use trainer::jinja::Template;
use trainer::model::load::source::tokenizer_of;
use trainer::recipe::Long;
use trainer::tokenizer::Tokenizer;

use crate::common::tiny::open;
use crate::common::tiny::tiny;
use crate::common::values::json_lines;

// ---- transformers, on real templates -----------------------------------------------------------

/// What transformers makes of one conversation with one template: a row of `expected.jsonl`.
struct Case {
    template: String,
    name: String,
    conversation: Conversation,
    prompt: bool,
    special: Map<String, Value>,
    expected: Result<Rendered, String>,
}

struct Rendered {
    text: String,
    /// Bytes of the `{% generation %}` blocks.
    generated: Vec<(usize, usize)>,
    ids: Vec<u32>,
    /// Whether each token is the assistant's, by the blocks.
    mask: Vec<bool>,
}

impl Rendered {
    fn of(row: &Value) -> Option<Self> {
        let numbers =
            |value: &Value| -> Option<Vec<u64>> { value.as_array()?.iter().map(Value::as_u64).collect() };
        let pair = |pair: &Value| Some((pair[0].as_u64()? as usize, pair[1].as_u64()? as usize));
        Some(Self {
            text: row["text"].as_str()?.into(),
            generated: row["generated"].as_array()?.iter().map(pair).collect::<Option<_>>()?,
            ids: numbers(&row["ids"])?.into_iter().map(|id| id as u32).collect(),
            mask: numbers(&row["mask"])?.into_iter().map(|counts| counts != 0).collect(),
        })
    }
}

impl Case {
    fn of(row: &Value) -> Self {
        let mut given = row["given"].as_object().unwrap().clone();
        let prompt = given.shift_remove("add_generation_prompt").is_some_and(|p| p == true);
        let conversation = Conversation {
            messages: serde_json::from_value(row["messages"].clone()).unwrap(),
            tools: given.shift_remove("tools"),
            documents: given.shift_remove("documents"),
            variables: given,
        };
        Self {
            template: row["template"].as_str().unwrap().into(),
            name: row["case"].as_str().unwrap().into(),
            conversation,
            prompt,
            special: row["special"].as_object().unwrap().clone(),
            expected: Rendered::of(row).ok_or_else(|| row["error"].as_str().unwrap().into()),
        }
    }

    fn compile(&self, source: &str) -> anyhow::Result<ChatTemplate> {
        ChatTemplate::compile(source, self.special.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }

    /// Our text and marks against theirs; what differs, if something does, or `None` where both refuse.
    fn rendering_fault(&self, source: &str) -> Option<Result<(), String>> {
        let ours = self.compile(source).and_then(|t| t.render_marked(&self.conversation, self.prompt));
        Some(match (&ours, &self.expected) {
            (Ok(ours), Ok(theirs)) if ours.text == theirs.text => {
                let places: Vec<_> = ours.generated.iter().map(|r| (r.start, r.end)).collect();
                match places == theirs.generated {
                    true => Ok(()),
                    false => Err(format!("marks {places:?}, theirs {:?}", theirs.generated)),
                }
            }
            (Ok(ours), Ok(theirs)) => {
                let same = ours.text.bytes().zip(theirs.text.bytes()).take_while(|(a, b)| a == b).count();
                let near = |text: &str| {
                    let from = same.saturating_sub(30);
                    String::from_utf8_lossy(&text.as_bytes()[from..(same + 40).min(text.len())]).into_owned()
                };
                Err(format!("ours {:?}, theirs {:?}", near(&ours.text), near(&theirs.text)))
            }
            (Err(_), Err(_)) => return None,
            (Err(e), Ok(_)) => Err(format!("refused: {e:#}")),
            (Ok(ours), Err(e)) => Err(format!("they refuse ({e}), we render {:.60?}", ours.text)),
        })
    }

    fn shown(&self) -> String {
        format!("{} {}", self.template, self.name)
    }
}

/// Token ids of a conversation as an example for training, and which of them count; or why it is refused.
fn example(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    conversation: &Conversation,
) -> Result<(Vec<u32>, Vec<bool>), String> {
    let encoder =
        Encoder::new(tokenizer, Some(template), Some("<|im_end|>"), 1 << 20, Long::Truncate).unwrap();
    let document = Document::Chat(conversation.clone());
    let place = |_| "row".to_string();
    let (examples, _) = encoder.encode(&place, [(0, &document)].into_iter()).map_err(|e| format!("{e:#}"))?;
    let example = examples.into_iter().next().ok_or("no token counts")?;
    Ok((example.ids, example.weights.iter().map(|w| *w != 0.0).collect()))
}

/// Cases by what was found in them.
#[derive(Default)]
struct Tally(BTreeMap<String, Vec<String>>);

impl Tally {
    fn add(&mut self, found: String, case: String) {
        self.0.entry(found).or_default().push(case);
    }

    fn print(&self, title: &str) {
        println!("{title}: {}", self.0.values().map(Vec::len).sum::<usize>());
        for (found, cases) in &self.0 {
            println!("  {} x {}: {found}", cases.len(), cases[..cases.len().min(3)].join(", "));
        }
    }
}

/// Whether masks of ours differ from TRL's marks as they are meant to: its training templates mark what stands before an
/// answer (the turn's header, or what the prompt for an answer writes) and what stands behind its end (a line break). Gives
/// the texts of these places, or the first other difference.
fn known_differences(
    tokenizer: &Tokenizer,
    ours: &(Vec<u32>, Vec<bool>),
    theirs: &[bool],
) -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    let mut at = 1;
    while at < theirs.len() {
        let differs = |at: usize| at < theirs.len() && ours.1[at] != theirs[at];
        let end = (at..).find(|at| !differs(*at)).unwrap();
        if end > at {
            let text = tokenizer.decode(&ours.0[at..end], false).unwrap();
            let is_theirs = (at..end).all(|at| theirs[at]);
            let leads_to_ours = ours.1.get(end).is_some_and(|counts| *counts);
            match (is_theirs, text.trim().is_empty(), leads_to_ours) {
                (true, true, _) => found.insert(format!("behind the end of a turn they mark {text:?}")),
                (true, _, true) => found.insert(format!("before an answer they mark {text:?}")),
                _ => return Err(mask_fault(tokenizer, ours, theirs).unwrap()),
            };
        }
        at = end.max(at + 1);
    }
    Ok(found)
}

/// Our mask against theirs, in words.
fn mask_fault(tokenizer: &Tokenizer, (ids, ours): &(Vec<u32>, Vec<bool>), theirs: &[bool]) -> Option<String> {
    // The first token is predicted by nothing.
    let at = (1..ours.len()).find(|&at| ours[at] != theirs[at])?;
    let near = |range: &[u32]| tokenizer.decode(range, false).unwrap();
    Some(format!(
        "token {at} of {}: ours {}, theirs {}; before {:?}, from it {:?}",
        ours.len(),
        ours[at],
        theirs[at],
        near(&ids[at.saturating_sub(8)..at]),
        near(&ids[at..(at + 8).min(ids.len())])
    ))
}

#[test]
#[ignore = "needs templates of others: scripts/parity --templates"]
fn needs_templates_each_is_rendered_encoded_and_masked_as_transformers_does() {
    let dir = PathBuf::from(std::env::var_os("TRAINER_PARITY_TEMPLATES").expect("a folder"));
    let cases: Vec<Case> = json_lines(&std::fs::read_to_string(dir.join("expected.jsonl")).unwrap())
        .iter()
        .map(Case::of)
        .collect();
    let mut sources = BTreeMap::new();
    for case in &cases {
        let read = || std::fs::read_to_string(dir.join(&case.template)).unwrap();
        sources.entry(case.template.as_str()).or_insert_with(read);
    }
    let tokenizer = tokenizer_of(&dir.join("tokenizer")).unwrap().expect("a tokenizer");

    let (mut same, mut marked, mut refused_by_both) = (0, 0, 0);
    let mut differing = Tally::default();
    for case in &cases {
        match case.rendering_fault(&sources[case.template.as_str()]) {
            None => refused_by_both += 1,
            Some(Ok(())) => {
                same += 1;
                marked += usize::from(case.expected.as_ref().is_ok_and(|e| !e.generated.is_empty()));
            }
            Some(Err(fault)) => differing.add(fault, case.shown()),
        }
    }
    println!(
        "{} templates, {} renderings: {same} the same ({marked} with marks), {refused_by_both} refused by both",
        sources.len(),
        cases.len()
    );
    differing.print("renderings that differ");

    // Each conversation as an example. Of a template with marks the mask is transformers'.
    let (mut ids_same, mut masks_same, mut marked_templates) = (0, 0, BTreeSet::new());
    let (mut faults, mut refused) = (Tally::default(), Tally::default());
    for case in cases.iter().filter(|case| !case.prompt) {
        let Ok(theirs) = &case.expected else { continue };
        let Ok(template) = case.compile(&sources[case.template.as_str()]) else { continue };
        match example(&tokenizer, &template, &case.conversation) {
            Err(why) => refused.add(why, case.shown()),
            Ok((ids, _)) if ids != theirs.ids => faults.add("other token ids".into(), case.shown()),
            Ok(ours) => {
                ids_same += 1;
                if template.has_marks(&case.conversation) {
                    match mask_fault(&tokenizer, &ours, &theirs.mask) {
                        None => {
                            masks_same += 1;
                            marked_templates.insert(case.template.as_str());
                        }
                        Some(fault) => faults.add(fault, case.shown()),
                    }
                }
            }
        }
    }
    println!(
        "examples: {ids_same} with the same token ids; {masks_same} of them with marks ({} templates) and the same mask",
        marked_templates.len()
    );
    refused.print("examples that are refused");
    faults.print("examples that differ");

    // TRL has a training template with marks for many templates without.
    let list = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/parity-templates.tsv"))
        .unwrap();
    let by_path: BTreeMap<&str, String> = list
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .map(|columns| (columns[2], format!("{}.jinja", &columns[3][..16])))
        .collect();
    let (mut trl_same, mut trl_known_masks, mut pairs) = (0, 0, 0);
    let (mut rewritten, mut trl_refused) = (Tally::default(), Tally::default());
    let (mut trl_known, mut trl_faults) = (Tally::default(), Tally::default());
    for (path, plain) in &by_path {
        let training = path.strip_suffix(".jinja").map(|stem| format!("{stem}_training.jinja"));
        let Some(training) = training.and_then(|path| by_path.get(path.as_str())) else { continue };
        pairs += 1;
        let of = |name: &str| {
            let name = name.to_string();
            cases.iter().filter(move |case| case.template == name && !case.prompt)
        };
        for (plain, training) in of(plain).zip(of(training)) {
            let (Ok(rendered), Ok(theirs)) = (&plain.expected, &training.expected) else { continue };
            let shown = format!("{path} {}", plain.name);
            if rendered.text != theirs.text {
                rewritten.add("the training template renders otherwise".into(), shown);
                continue;
            }
            let template = plain.compile(&sources[plain.template.as_str()]).unwrap();
            match example(&tokenizer, &template, &plain.conversation) {
                Err(why) => trl_refused.add(why, shown),
                Ok(ours) => match known_differences(&tokenizer, &ours, &theirs.mask) {
                    Ok(known) if known.is_empty() => trl_same += 1,
                    Ok(known) => {
                        trl_known_masks += 1;
                        known.into_iter().for_each(|known| trl_known.add(known, shown.clone()));
                    }
                    Err(fault) => trl_faults.add(fault, shown),
                },
            }
        }
    }
    println!(
        "TRL: {pairs} pairs of templates; without marks {trl_same} masks are the same as with them, {trl_known_masks} differ in \
         what TRL marks besides, {} otherwise",
        trl_faults.0.values().map(Vec::len).sum::<usize>()
    );
    rewritten.print("TRL, not compared");
    trl_refused.print("TRL, refused");
    trl_known.print("TRL, places that it marks besides");
    trl_faults.print("TRL, masks that differ otherwise");
    for tally in [&differing, &faults, &trl_faults] {
        assert!(tally.0.is_empty(), "{} kinds of differences", tally.0.len());
    }
}

// ---- regressions -------------------------------------------------------------------------------

fn rendered(source: &str, variables: Value) -> String {
    let variables = variables.as_object().unwrap().clone();
    match Template::parse(source).and_then(|t| t.render(&variables)) {
        Ok(rendering) => rendering.text,
        Err(e) => format!("fault: {e:#}"),
    }
}

/// minijinja#670: Jinja reads every kind of line break in a template as \n.
#[test]
fn line_breaks_of_windows_in_a_template_are_line_breaks() {
    assert_eq!(
        rendered("{% for x in [1, 2] %}\r\n{{ x }}\r\n{% endfor %}\r\nend\r\n", json!({})),
        "1\n2\nend"
    );
    assert_eq!(rendered("a\rb\r\n\r\n{{ 'c\r\nd' }}", json!({})), "a\nb\n\nc\nd");
}

/// swift-jinja#71, mlxcel#1309, llama-cpp-python#1486: `tojson` is `json.dumps(ensure_ascii=False)`, without HTML escapes.
#[test]
fn json_in_a_template_is_written_as_python_writes_it() {
    let value =
        json!({"v": {"a": "<b> & 'c' é \u{7f}\n", "n": [1, 2.0, 1e-7, null, true], "e": {}, "l": []}});
    for (source, expected) in [
        (
            "{{ v | tojson }}",
            "{\"a\": \"<b> & 'c' é \u{7f}\\n\", \"n\": [1, 2.0, 1e-07, null, true], \"e\": {}, \"l\": []}",
        ),
        ("{{ v.n | tojson(indent=2) }}", "[\n  1,\n  2.0,\n  1e-07,\n  null,\n  true\n]"),
        ("{{ v.n | tojson(separators=(',', ':')) }}", "[1,2.0,1e-07,null,true]"),
        (
            "{{ v.a[:3] | tojson(ensure_ascii=true) ~ {'é': 1} | tojson(ensure_ascii=true) }}",
            "\"<b>\"{\"\\u00e9\": 1}",
        ),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}", "{\"a\": 2, \"b\": 1}"),
    ] {
        assert_eq!(rendered(source, value.clone()), expected, "{source}");
    }
}

/// What a template prints is what Python prints (True, None, 1.0, {'a': 1}), in `~` and in joins too.
#[test]
fn values_in_a_template_are_written_as_python_writes_them() {
    let value = json!({"t": true, "n": null, "f": 1.0, "d": {"a": [1, "b'c", null]}, "s": "x"});
    for (source, expected) in [
        ("{{ t }} {{ n }} {{ f }} {{ d }}", "True None 1.0 {'a': [1, \"b'c\", None]}"),
        ("{{ t ~ n ~ f }}{{ missing ~ s }}", "TrueNone1.0x"),
        ("{{ [t, n, 2] | join('-') }} {{ t | string | lower }}", "True-None-2 true"),
        ("{{ (1,) }} {{ ('a', 2) }} {{ d.items() | list }}", "(1,) ('a', 2) [('a', [1, \"b'c\", None])]"),
        ("{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 1 / 2 }} {{ 2 ** 3 }}", "3 -4 2 0.5 8"),
        ("{{ '%s is %.1f' % (s, 2) }} {{ '{} {x}'.format(s, x=t) }}", "x is 2.0 x True"),
    ] {
        assert_eq!(rendered(source, value.clone()), expected, "{source}");
    }
}

/// The methods, tests and filters that real templates use, with Python's results.
#[test]
fn python_s_methods_and_jinja_s_filters_are_there() {
    for (source, expected) in [
        ("{{ 'a-b-c'.rsplit('-', 1) }} {{ ' a  b '.split() }}", "['a-b', 'c'] ['a', 'b']"),
        ("{{ 'think'.removeprefix('th') }} {{ 'a.b'.partition('.')[2] }} {{ 'x'.zfill(3) }}", "ink b 00x"),
        (
            "{{ 'A\\n\\nb'.splitlines() }} {{ 'ab'[::-1] }} {{ 'abc'[-2:] }} {{ 'abc'[9] is defined }}",
            "['A', '', 'b'] ba bc False",
        ),
        (
            "{{ 'x' is sequence }} {{ {} is sequence }} {{ 1 is integer }} {{ true is integer }}",
            "True True True False",
        ),
        ("{{ [{'r': 'a'}, {'r': 'b'}] | selectattr('r', 'equalto', 'b') | list | length }}", "1"),
        ("{{ 'a' if [] | selectattr('x') else 'b' }}", "a"),
        (
            "{{ {'items': 1}.items() | list }} {{ {'b': 1, 'a': 2} | dictsort }}",
            "[('items', 1)] [('a', 2), ('b', 1)]",
        ),
        ("{{ 'a\\nb' | indent(2) }}|{{ 'a\\n\\nb' | indent(2, true) }}", "a\n  b|  a\n\n  b"),
        (
            "{% set ns = namespace(n=0) %}{% for x in range(3) if x != 1 %}{% set ns.n = ns.n + x %}{{ loop.index }}{% endfor %}{{ ns.n }}",
            "122",
        ),
        (
            "{% macro m(a, b='B') %}{{ a }}{{ b }}{{ later }}{% endmacro %}{% set later = '!' %}{{ m('A') }}",
            "AB!",
        ),
        (
            "{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{{ ',' if not loop.last }}{% endfor %}",
            "1,3",
        ),
        ("{% set x %} a {% endset %}{{ x | trim }}{% filter upper %}b{% endfilter %}", "aB"),
        ("{{ tools is defined }} {{ tools is none }} {{ bos_token is defined }}", "False False False"),
        ("{{ raise_exception('no ' ~ 1) }}", "fault: line 1 of the template: no 1"),
        ("{{ missing.x }}", "fault: line 1 of the template: 'missing' is undefined"),
        (
            "{% set x = [] %}{{ x.append(1) }}",
            "fault: line 1 of the template: list.append: a template may not change a value",
        ),
        (
            "{{ '<'|safe + '<' }} {{ ('<'|e) ~ '>' }} {{ none | map('upper') | list }} {{ self.x }}",
            "<&lt; &lt;> [] ",
        ),
        ("{% if false %}{{ 1 | from_json }}{% endif %}{{ 2 }}", "2"),
        ("{{ 'a' 'b' }} {{ '\\u00e9\\d' }} {# c #}{% raw %}{{ x }}{% endraw %}", "ab é\\d {{ x }}"),
        ("{%- if true -%}  a  {%- endif %}\n  {% if true %}\n b\n  {% endif %}\nc", "a b\nc"),
    ] {
        assert_eq!(rendered(source, json!({})), expected, "{source}");
    }
}

/// A template that would not end, or would exhaust the stack or the memory, is an error.
#[test]
fn a_template_that_would_not_end_is_refused() {
    let nested = "(".repeat(5000) + &")".repeat(5000);
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'a' * 999999999999 }}",
        "{{ range(999999999) }}",
        &format!("{{{{ {nested} }}}}"),
        &"{% if a %}".repeat(5000),
        &format!("{{{{ {}1 }}}}", "not ".repeat(5000)),
        &format!("{{{{ a{} }}}}", ".b".repeat(50000)),
        &format!("{{{{ 1{} }}}}", "+1".repeat(50000)),
        &format!("{{{{ 1{} }}}}", "|abs".repeat(50000)),
    ] {
        let found = rendered(source, json!({}));
        assert!(found.starts_with("fault: "), "{source:.60}: {found:.60}");
    }
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::compile(source, [("bos_token", Some("<s>"))]).unwrap()
}

fn chat(rows: Value) -> Conversation {
    Conversation::of(serde_json::from_value::<Vec<Message>>(rows).unwrap())
}

/// The documents of a file of JSON lines.
fn rows(lines: &str) -> Result<Vec<Document>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    std::fs::write(&path, lines).unwrap();
    trainer::data::source::read(&path).map_err(|e| format!("{e:#}"))
}

const PLAIN: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                     {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The texts of the tokens that count, joined; those of different turns with a bar between.
fn learned(template: &ChatTemplate, conversation: &Conversation) -> Result<String, String> {
    let model = open(&tiny("llama"));
    let encoder =
        Encoder::new(&model.tokenizer, Some(template), Some("<|im_end|>"), 4096, Long::Truncate).unwrap();
    let document = Document::Chat(conversation.clone());
    let place = |row| format!("a.jsonl:{}", row + 1);
    let (examples, _) = encoder.encode(&place, [(0, &document)].into_iter()).map_err(|e| format!("{e:#}"))?;
    let mut text = String::new();
    let mut before = false;
    for (id, weight) in examples[0].ids.iter().zip(&examples[0].weights) {
        if *weight != 0.0 {
            text.push_str(if !before && !text.is_empty() { "|" } else { "" });
            text.push_str(&model.tokenizer.decode(&[*id], false).unwrap());
        }
        before = *weight != 0.0;
    }
    Ok(text)
}

/// slime#1742, axolotl#3295, trl's qwen3_training.jinja: Qwen3 writes a thought into the last turn alone, so the beginning of a
/// conversation is rendered otherwise than the conversation.
#[test]
fn the_mask_of_a_template_that_rewrites_earlier_turns_is_that_of_the_whole() {
    let source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n\
                  {% endif %}{{ m.content.split('</think>')[-1].lstrip('\n') }}<|im_end|>\n{% endfor %}\
                  {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let turns = chat(json!([
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes"},
        {"role": "user", "content": "So"}, {"role": "assistant", "content": "No"},
    ]));
    let found = learned(&template(source), &turns).unwrap();
    assert_eq!(found, "Yes<|im_end|>|<think>\n\n</think>\n\nNo<|im_end|>");
}

/// DeepSeek R1, Qwen3 Thinking: the prompt for an answer opens a thought that conversations do not have.
#[test]
fn a_prompt_that_opens_a_thought_leaves_the_mask_as_it_is() {
    let source = PLAIN.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}");
    let turns = chat(json!([
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "So"}, {"role": "assistant", "content": "No"},
    ]));
    assert_eq!(learned(&template(&source), &turns).unwrap(), "Yes<|im_end|>|No<|im_end|>");
}

/// gpt-oss closes the last turn otherwise than the others.
#[test]
fn an_end_that_only_the_last_turn_has_is_found() {
    let source = PLAIN.replace("<|im_end|>", "{{ '<bos>' if loop.last else '<|im_end|>' }}");
    let turns = chat(json!([
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "So"}, {"role": "assistant", "content": "No"},
    ]));
    assert_eq!(learned(&template(&source), &turns).unwrap(), "Yes<|im_end|>|No<bos>");
}

/// transformers' return_assistant_tokens_mask: what a template marks itself is what counts.
#[test]
fn marks_of_a_template_are_its_mask() {
    let source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}\
                  {% endgeneration %}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}";
    let turns = chat(json!([
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes", "weight": 0},
        {"role": "user", "content": "So"}, {"role": "assistant", "content": "No", "weight": 1},
    ]));
    assert_eq!(learned(&template(source), &turns).unwrap(), "No");
}

/// Synaptic-Tuner#42, trl's tools column: calls and tools are rendered, or the row is refused with its line.
#[test]
fn calls_of_tools_are_rendered_or_refused_by_name() {
    let source = "{% if tools %}<|im_start|>system\n{{ tools[0].name }}<|im_end|>\n{% endif %}{% for m in messages %}\
                  <|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.name }}</call>{% endfor %}\
                  <|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let mut turns = chat(json!([
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": null, "tool_calls": [{"name": "weather"}]},
        {"role": "tool", "name": "weather", "content": "dry"},
        {"role": "assistant", "content": "No.", "tool_calls": null},
    ]));
    assert_eq!(learned(&template(source), &turns).unwrap(), "<call>weather</call><|im_end|>|No.<|im_end|>");
    let refused = learned(&template(PLAIN), &turns).unwrap_err();
    assert!(
        refused.contains("a.jsonl:1: tool_calls of turn 2: the chat template does not render it"),
        "{refused}"
    );
    turns.tools = Some(json!([{"name": "weather"}]));
    assert!(
        template(source).render(&turns, false).unwrap().starts_with("<|im_start|>system\nweather<|im_end|>")
    );
    assert!(learned(&template(PLAIN), &turns).unwrap_err().contains("a.jsonl:1: tools: the chat template"));
    for (key, value) in
        [("reasoning_content", json!("hm")), ("thinking", json!("hm")), ("name", json!("Ann"))]
    {
        let message = turns.messages[3].with(key, value);
        let other = turns.with_messages(vec![turns.messages[0].clone(), message]);
        let other = Conversation { tools: None, ..other };
        let refused = learned(&template(PLAIN), &other).unwrap_err();
        assert!(refused.contains(&format!("{key} of turn 2")), "{refused}");
    }
}

/// A thought under any of its names reaches the template under those that templates read, as in transformers.
#[test]
fn a_thought_is_rendered_whatever_its_key() {
    let source = "{% for m in messages %}{{ m.reasoning_content }}|{{ m.thinking }}|{% endfor %}";
    for key in ["reasoning_content", "thinking", "reasoning"] {
        let turns = chat(json!([{"role": "assistant", "content": "a", key: "hm"}]));
        assert_eq!(template(source).render(&turns, false).unwrap(), "hm|hm|", "{key}");
    }
}

/// A turn that the template passes over in silence is named.
#[test]
fn a_turn_that_the_template_leaves_out_is_refused() {
    let source = PLAIN.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}");
    let turns = chat(json!([
        {"role": "system", "content": "Lie."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"},
    ]));
    let refused = learned(&template(&source), &turns).unwrap_err();
    assert!(refused.contains("a.jsonl:1: the chat template leaves out turn 1 (role system)"), "{refused}");
}

/// A row with a ready text and a conversation was learned from the text alone, turns that other trainers leave out were
/// learned, and a system prompt in a column of its own was dropped (axolotl, ms-swift and TRL differ in what they take).
#[test]
fn what_a_row_says_twice_or_elsewhere_is_refused_by_name() {
    let user = json!({"role": "user", "content": "Hi"});
    let said = json!({"role": "assistant", "content": "Yes"});
    let with = |key: &str, value: Value| {
        let mut turn = said.clone();
        turn[key] = value;
        json!({"messages": [user, turn]})
    };
    for (row, expected) in [
        (json!({"text": "Hi Yes", "messages": [user, said]}), "text and messages at once"),
        (json!({"text": "Hi Yes", "prompt": "Hi", "completion": "Yes"}), "text and prompt at once"),
        (json!({"messages": [user, said], "system": "Lie."}), "system: no chat template"),
        (json!({"prompt": "Hi", "completion": "Yes", "system": "Lie."}), "system: no chat template"),
        (with("loss", json!(false)), "loss = false in a turn of the assistant"),
        (with("train", json!(false)), "train = false in a turn of the assistant"),
        (
            json!({"messages": [{"role": "user", "content": "Hi", "training": true}, said]}),
            "training = true in a turn of the user",
        ),
        (json!({"text": "NaN"}), "a missing value"),
    ] {
        let e = rows(&row.to_string()).unwrap_err();
        assert!(e.contains("rows.jsonl:1: ") && e.contains(expected), "{row}: {e}");
    }
    for row in [
        json!({"text": "", "messages": [user, said]}),
        json!({"text": "Hi", "prompt": "a prompt without a completion", "system": "x"}),
        with("loss", json!(true)),
        json!({"messages": [{"role": "user", "content": "Hi", "train": false}, said]}),
    ] {
        rows(&row.to_string()).unwrap_or_else(|e| panic!("{row}: {e}"));
    }
}

/// transformers gives a template the empty list of tools that a row has, and Llama 3.1's asks whether there is one.
#[test]
fn an_empty_list_of_tools_is_given_to_the_template() {
    let source = "{{ tools is none }} {{ documents is none }}{{ messages[1].content }}";
    let of = |tools: &str| {
        let row = format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hi\"}}, {{\"role\": \"assistant\", \"content\": \"Yes\"}}]{tools}}}"
        );
        let documents = rows(&row).unwrap();
        let [Document::Chat(chat)] = &documents[..] else { panic!("{row}") };
        assert_eq!(template(PLAIN).leaves_out(chat), None);
        template(source).render(chat, false).unwrap()
    };
    assert_eq!(of(""), "True TrueYes");
    assert_eq!(of(", \"tools\": null"), "True TrueYes");
    assert_eq!(of(", \"tools\": [], \"documents\": []"), "False FalseYes");
    assert_eq!(of(", \"tools\": \"[]\""), "False TrueYes");
}

/// Turns that were cut out of rendered text keep the end that the template writes again: the model learned to say
/// it twice.
#[test]
fn a_turn_that_holds_its_end_already_is_refused() {
    let said =
        |text: &str| chat(json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": text}]));
    let refused = learned(&template(PLAIN), &said("Yes<|im_end|>")).unwrap_err();
    assert!(refused.contains("a.jsonl:1: a turn of the assistant ends with \"<|im_end|>\""), "{refused}");
    let two = said("Yes<|im_end|> No");
    assert_eq!(learned(&template(PLAIN), &two).unwrap(), "Yes<|im_end|> No<|im_end|>");
}
