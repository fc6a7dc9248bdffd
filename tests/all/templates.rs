//! Chat templates, what conversations hold, masks and ends: as transformers and TRL have them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use trainer::data::chat_template::ChatTemplate;
use trainer::data::conversation::{Conversation, Message};
use trainer::data::examples::Encoder;
use trainer::data::source::Document;
use trainer::jinja::Template;
use trainer::recipe::Long;
use trainer::tokenizer::Tokenizer;

use crate::common::tiny::open;
use crate::common::tiny::tiny;
use crate::common::values::json_lines;

// ---- transformers, on real templates -----------------------------------------------------------

/// One rendering of `expected.jsonl`.
struct Case {
    template: String,
    name: String,
    conversation: Conversation,
    prompt: bool,
    special: Map<String, Value>,
    expected: Result<(String, Vec<(usize, usize)>), String>,
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
        let pair = |p: &Value| (p[0].as_u64().unwrap() as usize, p[1].as_u64().unwrap() as usize);
        let expected = match row["text"].as_str() {
            Some(text) => Ok((text.into(), row["generated"].as_array().unwrap().iter().map(pair).collect())),
            None => Err(row["error"].as_str().unwrap().into()),
        };
        Self {
            template: row["template"].as_str().unwrap().into(),
            name: row["case"].as_str().unwrap().into(),
            conversation,
            prompt,
            special: row["special"].as_object().unwrap().clone(),
            expected,
        }
    }

    fn compile(&self, source: &str) -> anyhow::Result<ChatTemplate> {
        ChatTemplate::compile(source, self.special.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }
}

/// Tokens of a conversation that count, by our mask; or why it is refused.
fn counted(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    conversation: &Conversation,
) -> Result<Vec<bool>, String> {
    let encoder =
        Encoder::new(tokenizer, Some(template), Some("<|im_end|>"), 1 << 20, Long::Truncate).unwrap();
    let document = Document::Chat(conversation.clone());
    let place = |row| format!("row {row}");
    let (examples, _) = encoder.encode(&place, [(0, &document)].into_iter()).map_err(|e| format!("{e:#}"))?;
    Ok(examples.first().map_or(Vec::new(), |e| e.weights.iter().map(|w| *w != 0.0).collect()))
}

#[test]
#[ignore = "needs templates of others: scripts/parity --templates"]
fn needs_templates_every_one_is_rendered_as_transformers_renders_it() {
    let dir = PathBuf::from(std::env::var_os("TRAINER_PARITY_TEMPLATES").expect("a folder"));
    let rows = std::fs::read_to_string(dir.join("expected.jsonl")).unwrap();
    let source = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let (mut same, mut refused_by_both, mut spans) = (0, 0, 0);
    let mut templates = BTreeSet::new();
    let mut differing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in json_lines(&rows) {
        let case = Case::of(&row);
        templates.insert(case.template.clone());
        let ours = case
            .compile(&source(&case.template))
            .and_then(|template| template.render_marked(&case.conversation, case.prompt));
        let fault = match (&ours, &case.expected) {
            (Ok(ours), Ok((text, generated))) if ours.text == *text => {
                let places: Vec<_> = ours.generated.iter().map(|r| (r.start, r.end)).collect();
                spans += usize::from(!places.is_empty());
                (places != *generated).then(|| format!("marks {places:?}, theirs {generated:?}"))
            }
            (Ok(ours), Ok((text, _))) => {
                let at = ours.text.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
                let near = |text: &str| {
                    String::from_utf8_lossy(
                        &text.as_bytes()[at.saturating_sub(30)..(at + 40).min(text.len())],
                    )
                    .into_owned()
                };
                Some(format!("ours {:?}, theirs {:?}", near(&ours.text), near(text)))
            }
            (Err(_), Err(_)) => {
                refused_by_both += 1;
                continue;
            }
            (Err(e), Ok(_)) => Some(format!("refused: {e:#}")),
            (Ok(ours), Err(e)) => Some(format!("they refuse ({e}), we render {:.60?}", ours.text)),
        };
        match fault {
            None => same += 1,
            Some(fault) => {
                differing.entry(fault).or_default().push(format!("{} {}", case.template, case.name))
            }
        }
    }
    println!(
        "{} templates: {same} renderings the same ({spans} with marks), {refused_by_both} refused by both, {} differ",
        templates.len(),
        differing.values().map(Vec::len).sum::<usize>()
    );
    differing.iter().for_each(|(fault, cases)| println!("{} x {}: {fault}", cases.len(), cases[0]));

    // Masks: TRL has many templates with and without marks that render the same.
    let list = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/parity-templates.tsv"))
        .unwrap();
    let by_path: BTreeMap<&str, &str> = list
        .lines()
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            (columns[2], columns[3])
        })
        .collect();
    let model = open(&tiny("llama"));
    let (mut masks, mut other, mut refused) = (0, 0, BTreeMap::<String, Vec<String>>::new());
    let rows: Vec<Case> = json_lines(&rows).iter().map(Case::of).collect();
    for (path, sha) in &by_path {
        let Some(marked) =
            path.strip_suffix(".jinja").and_then(|p| by_path.get(format!("{p}_training.jinja").as_str()))
        else {
            continue;
        };
        let [plain, marked] = [sha, marked].map(|sha| source(&format!("{}.jinja", &sha[..16])));
        for case in rows.iter().filter(|c| c.template == format!("{}.jinja", &sha[..16]) && !c.prompt) {
            let [plain, marked] = [&plain, &marked].map(|source| case.compile(source).unwrap());
            let texts = [&plain, &marked].map(|t| t.render(&case.conversation, false).unwrap_or_default());
            if texts[0] != texts[1] || texts[0].is_empty() {
                other += 1;
                continue;
            }
            match [&plain, &marked].map(|t| counted(&model.tokenizer, t, &case.conversation)) {
                [Ok(ours), Ok(theirs)] if ours == theirs => masks += 1,
                [Ok(ours), Ok(theirs)] => {
                    let at = ours.iter().zip(&theirs).position(|(a, b)| a != b);
                    refused
                        .entry(format!("differs at token {at:?}"))
                        .or_default()
                        .push(format!("{path} {}", case.name));
                }
                [Err(e), _] | [_, Err(e)] => {
                    refused.entry(e).or_default().push(format!("{path} {}", case.name))
                }
            }
        }
    }
    println!("masks: {masks} the same with and without marks, {other} of other renderings");
    refused.iter().for_each(|(why, cases)| println!("{} x {}: {why}", cases.len(), cases.join(", ")));

    // And every template without marks gives some mask, or says why not.
    let mut why: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut found = 0;
    for case in rows.iter().filter(|c| c.expected.is_ok() && !c.prompt && c.name != "odd") {
        let Ok(template) = case.compile(&source(&case.template)) else { continue };
        match counted(&model.tokenizer, &template, &case.conversation) {
            Ok(_) => found += 1,
            Err(e) => {
                let entry = why.entry(e).or_insert((0, format!("{} {}", case.template, case.name)));
                entry.0 += 1;
            }
        }
    }
    println!("masks of all: {found} found");
    why.iter().for_each(|(why, (n, first))| println!("{n} x {first}: {why}"));
    assert!(differing.is_empty(), "{} kinds of differences", differing.len());
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
    assert!(refused.contains("a.jsonl:1: the chat template leaves out turn 1, of the system"), "{refused}");
}
