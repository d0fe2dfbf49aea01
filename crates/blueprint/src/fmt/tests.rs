//! What the formatter makes of texts, and what it must never do to one.

use proptest::prelude::*;

use super::{FormatError, format};
use crate::SourceFile;

fn file(text: &str) -> SourceFile {
    SourceFile {
        path: "x.yaml".into(),
        text: text.as_bytes().to_vec(),
    }
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let once = format(&file(text)).unwrap_or_else(|e| panic!("{text:?}: {e:?}"));
    assert_eq!(once, expected, "of {text:?}");
    assert_eq!(format(&file(&once)).as_deref(), Ok(expected), "twice");
}

#[test]
fn white_space_becomes_canonical() {
    for (text, expected) in [
        ("a:   1\nb :  2\n", "a: 1\nb: 2\n"),
        ("a: {b: 1,c:   [ 1,2 ,3 ]}\n", "a: { b: 1, c: [1, 2, 3] }\n"),
        ("a: { }\nb: [  ]\nc: {\n  }\n", "a: {}\nb: []\nc: {}\n"),
        (
            "a:\n    b:\n        c: 1\n    d: 2\ne: 3\n",
            "a:\n  b:\n    c: 1\n  d: 2\ne: 3\n",
        ),
        ("a:\n- x\n-   y\n", "a:\n  - x\n  - y\n"),
        (
            "a:\n    -   b: 1\n        c: 2\n    - - x\n      -    y\n",
            "a:\n  - b: 1\n    c: 2\n  - - x\n    - y\n",
        ),
        ("a:\n  -\n      b: 1\n", "a:\n  -\n    b: 1\n"),
        ("a: 1\r\nb: 2\r\n", "a: 1\nb: 2\n"),
        ("\u{feff}a: 1", "a: 1\n"),
        ("# x\n\u{feff}# y\na: 1", "# x\n# y\na: 1\n"),
        ("\n\na: 1\n\n\n\nb: 2   \n\n\n", "a: 1\n\nb: 2\n"),
        ("  a: 1\n  b: 2\n", "a: 1\nb: 2\n"),
        ("a: 1\n---\n\n\nb: 2\n...\n", "a: 1\n---\n\nb: 2\n...\n"),
        ("---    \na: 1\n", "---\na: 1\n"),
        ("a:\n      text\n", "a:\n  text\n"),
        ("? a\n:   b\n? c\n", "? a\n: b\n? c\n"),
        ("a: {\"b\":1, 'c' : x}\n", "a: { \"b\": 1, 'c': x }\n"),
        ("a: \t1\n", "a: 1\n"),
        ("", ""),
        ("\n\n", ""),
    ] {
        check(text, expected);
    }
}

#[test]
fn comments_stay_with_what_they_are_about() {
    for (text, expected) in [
        ("#a\na: 1 #b\n#!c\n##d\n#\n", "# a\na: 1 # b\n#!c\n##d\n#\n"),
        (
            "a:\n# x\n    b: 1\n    # y\n    c: 2\n    # z\n# end\n",
            "a:\n  # x\n  b: 1\n  # y\n  c: 2\n  # z\n# end\n",
        ),
        (
            "a:\n    - x\n      # about y\n    - y\n    # last\nb: 1\n",
            "a:\n  - x\n  # about y\n  - y\n  # last\nb: 1\n",
        ),
        ("a:\n    # b: 1\nc: 2\n", "a:\n  # b: 1\nc: 2\n"),
        (
            "a: 1 # x\n\n\n# y\n\n# z\nb: 2\n",
            "a: 1 # x\n\n# y\n\n# z\nb: 2\n",
        ),
        (
            "a: [\n    x, # one\n    # two\n    y\n]\n",
            "a: [\n  x, # one\n  # two\n  y\n]\n",
        ),
        ("# only\n", "# only\n"),
        (
            "a: [\n    # none yet\n    ]\n",
            "a: [\n    # none yet\n  ]\n",
        ),
    ] {
        check(text, expected);
    }
}

#[test]
fn comments_in_one_column_stay_in_one_column() {
    check(
        "a:   1     # x\nbcd: 2     # y\n\ne: 3 # z\nf: 4  # q\n",
        "a: 1       # x\nbcd: 2     # y\n\ne: 3 # z\nf: 4  # q\n",
    );
    check(
        "a: {b: 1}  # x\nc: 2       # y\n",
        "a: { b: 1 }  # x\nc: 2         # y\n",
    );
}

#[test]
fn block_scalars_keep_every_byte() {
    for (text, expected) in [
        (
            "a:\n    b: |\n         x\n           y  \n\n         z\n\n\n    c: 1\n",
            "a:\n  b: |\n    x\n      y  \n\n    z\n\n  c: 1\n",
        ),
        (
            "a: |+\n  x\n\n\nb: >-\n    y\n    z\n",
            "a: |+\n  x\n\n\nb: >-\n  y\n  z\n",
        ),
        ("a: |+\n\n\nb: 1\n", "a: |+\n\n\nb: 1\n"),
        ("a: |2\n    x\n  y\n", "a: |2\n    x\n  y\n"),
        (
            "a:\n    - |1-\n       x\n      y\n",
            "a:\n  - |1-\n     x\n    y\n",
        ),
        (
            "a: | # why\n      # text\n      x\n  # a comment\nb: 1\n",
            "a: | # why\n  # text\n  x\n# a comment\nb: 1\n",
        ),
        ("a: |\n  x\n   \n \nb: 1\n", "a: |\n  x\n   \n\nb: 1\n"),
        ("a: |\n", "a: |\n"),
        ("a: |-\n  x", "a: |-\n  x\n"),
        ("a: |\n      x", "a: |\n  x"),
        ("a: >\n\n\n    x\n", "a: >\n\n\n  x\n"),
        ("a: |\n    y\n    \tx\n", "a: |\n  y\n  \tx\n"),
        ("a: &x |1\n  x\n y\n", "a: &x |1\n  x\n y\n"),
        ("a: |1\n    \n\nb: 1\n", "a: |1\n    \n\nb: 1\n"),
        ("é:    |\n    ü\n", "é: |\n  ü\n"),
    ] {
        check(text, expected);
    }
}

#[test]
fn texts_over_several_lines_keep_their_meaning() {
    for (text, expected) in [
        (
            "a: one\n     two\n\n     three\nb: 1\n",
            "a: one\n  two\n\n  three\nb: 1\n",
        ),
        (
            "a:\n- \"one\n  two\\\n     three \\\t\n  four\"\n",
            "a:\n  - \"one\n    two\\\n    three \\\t\n    four\"\n",
        ),
        ("a: 'it''s\n    here'  # c\n", "a: 'it''s\n  here'  # c\n"),
        (
            "a: [one\n       two,\n   three]\n",
            "a: [one\n    two,\n  three]\n",
        ),
    ] {
        check(text, expected);
    }
}

#[test]
fn anchors_aliases_and_merge_keys_are_left_alone() {
    check(
        "a: &x  {b: 1}\nc:   *x\nd: {<<:  *x, e: [*x ,*x]}\nf: &y\n    g: &z 1\nh: &n\n",
        "a: &x { b: 1 }\nc: *x\nd: { <<: *x, e: [*x, *x] }\nf: &y\n  g: &z 1\nh: &n\n",
    );
}

/// Found by fuzzing. Mutation: trim what Unicode calls white space.
#[test]
fn only_what_yaml_calls_white_space_ends_a_text_or_a_comment() {
    check(
        "a:   b\u{2028}\nc:   d\u{a0}   # e\u{a0}  \n# f\u{2029}\n",
        "a: b\u{2028}\nc: d\u{a0}   # e\u{a0}\n# f\u{2029}\n",
    );
}

/// Mutation: take any problem that is left out for one of YAML.
#[test]
fn a_file_with_more_problems_than_are_told_is_formatted_if_it_is_yaml() {
    let many = "kind: App\nname: a\nwrong:   1\nother:   2\n---\n".repeat(600);
    let formatted = format(&file(&many)).expect("it is YAML");
    assert!(formatted.contains("wrong: 1\n"), "{formatted}");
    let broken = format!("{many}a: [\n");
    assert!(matches!(
        format(&file(&broken)),
        Err(FormatError::Unreadable(_))
    ));
}

#[test]
fn what_does_not_parse_is_refused() {
    for text in [
        "a: [\n",
        "a: 1\na: 2\n",
        "a: !x 1\n",
        "- a\n",
        "{[a]: b}\n",
        "a: &x [*x]\n",
        "\ta: 1\n",
        "a: \0\n",
    ] {
        let refused = format(&file(text));
        assert!(
            matches!(&refused, Err(FormatError::Unreadable(problems)) if !problems.is_empty()),
            "{text:?}: {refused:?}"
        );
    }
    assert!(format(&file("kind: Nope\nwhat: ever\n")).is_ok());
}

#[test]
fn the_examples_are_in_canonical_form() {
    let mut folders =
        vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../blueprints-examples")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yaml") {
                let text = std::fs::read_to_string(&path).unwrap();
                let formatted = format(&file(&text)).map_err(|e| (path.clone(), e));
                assert_eq!(formatted, Ok(text), "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 3);
}

/// What a text is made of, before chance decides how it is written.
#[derive(Debug, Clone)]
enum Node {
    Word(usize),
    Block(Vec<usize>),
    List(Vec<Node>),
    Map(Vec<Node>),
}

const WORDS: [&str; 14] = [
    "x",
    "two words",
    "\"q # no comment\"",
    "'it''s'",
    "12",
    "1.10",
    "no",
    "a#b",
    "http://h:80/p?q=1",
    "\"line\\\n      joined \\\" and\n\n      folded\"",
    "'single\n\n      over lines'",
    "plain\n      over\n\n      lines",
    "",
    "ünï",
];

/// Lines of a block scalar.
const LINES: [&str; 7] = [
    "text",
    "  deeper",
    "",
    "# no comment",
    "trailing  ",
    "\ttab",
    "key: value",
];

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        4 => (0..WORDS.len()).prop_map(Node::Word),
        1 => prop::collection::vec(0..LINES.len(), 0..6).prop_map(Node::Block),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Node::List),
            prop::collection::vec(inner, 0..4).prop_map(Node::Map),
        ]
    })
}

/// Writes a tree as YAML, in a manner that follows from `dice`.
struct Writer<'a> {
    dice: &'a [u8],
    out: String,
    anchors: usize,
}

impl Writer<'_> {
    fn roll(&mut self, sides: u8) -> u8 {
        match self.dice.split_first() {
            Some((first, rest)) => {
                self.dice = rest;
                first % sides
            }
            None => 0,
        }
    }

    fn blanks(&mut self) -> String {
        " ".repeat(1 + usize::from(self.roll(3)))
    }

    /// Ends a line, with or without comments and empty lines.
    fn end(&mut self, indent: usize) {
        if self.roll(4) == 0 {
            let blanks = self.blanks();
            self.out.push_str(&format!("{blanks}#end {indent}"));
        } else if self.roll(5) == 0 {
            self.out.push_str("  ");
        }
        let end = if self.roll(9) == 0 { "\r\n" } else { "\n" };
        self.out.push_str(end);
        self.between(indent);
    }

    fn between(&mut self, indent: usize) {
        for _ in 0..self.roll(8).saturating_sub(5) {
            self.out.push('\n');
        }
        if self.roll(6) == 0 {
            let odd = usize::from(self.roll(4));
            self.out
                .push_str(&format!("{}#  note {odd}\n", " ".repeat(indent + odd)));
        }
    }

    fn flow(&mut self, node: &Node) {
        let (open, close, items, map) = match node {
            Node::List(items) => ('[', ']', items, false),
            Node::Map(items) => ('{', '}', items, true),
            Node::Word(word) if !WORDS[*word].contains('\n') => {
                return self.out.push_str(WORDS[*word]);
            }
            _ => return self.out.push('y'),
        };
        self.out.push(open);
        for (at, item) in items.iter().enumerate() {
            match self.roll(7) {
                0 => self.out.push_str("\n          "),
                1 => self.out.push_str("  "),
                2 => self.out.push_str(" # why\n            "),
                _ => {}
            }
            if map {
                self.out.push_str(&format!("k{at}: "));
            }
            self.flow(item);
            match self.roll(6) {
                0 => self.out.push(' '),
                1 => self.out.push_str("\n              "),
                _ => {}
            }
            if at + 1 < items.len() || self.roll(5) == 0 {
                self.out.push(',');
            }
            if self.roll(3) == 0 {
                self.out.push(' ');
            }
        }
        self.out.push(close);
    }

    /// Writes what stands behind `key:` or `-`, and ends the line.
    fn value(&mut self, node: &Node, indent: usize, behind_key: bool) {
        if self.roll(9) == 0 {
            self.anchors += 1;
            self.out.push_str(&format!(" &a{}", self.anchors));
        } else if self.anchors > 0 && self.roll(9) == 0 {
            self.out.push_str("  *a1");
            return self.end(indent);
        }
        match node {
            Node::Word(word) => {
                let blanks = self.blanks();
                // Lines that go on must be deeper than whatever they stand in.
                let text = WORDS[*word].replace("      ", &" ".repeat(indent + 1 + blanks.len()));
                self.out.push_str(&format!("{blanks}{text}"));
                self.end(indent);
            }
            Node::Block(lines) => {
                let style = ["|", ">"][usize::from(self.roll(2))];
                let chomp = ["", "-", "+"][usize::from(self.roll(3))];
                let deep = 1 + usize::from(self.roll(4));
                let digit = if self.roll(3) == 0 {
                    deep.to_string()
                } else {
                    String::new()
                };
                let blanks = self.blanks();
                self.out.push_str(&format!("{blanks}{style}{digit}{chomp}"));
                if self.roll(5) == 0 {
                    self.out.push_str(" # head");
                }
                self.out.push('\n');
                for line in lines {
                    let odd = if LINES[*line].is_empty() {
                        usize::from(self.roll(4))
                    } else {
                        indent + deep
                    };
                    self.out
                        .push_str(&format!("{}{}\n", " ".repeat(odd), LINES[*line]));
                }
                if self.roll(4) == 0 {
                    self.out.push_str("\n\n");
                }
                if self.roll(4) == 0 {
                    self.out
                        .push_str(&format!("{}# after\n", " ".repeat(indent)));
                }
            }
            Node::List(items) | Node::Map(items) if items.is_empty() || self.roll(4) == 0 => {
                let blanks = self.blanks();
                self.out.push_str(&blanks);
                self.flow(node);
                self.end(indent);
            }
            Node::List(items) => {
                let deeper = usize::from(self.roll(4));
                let inner = indent + if behind_key { deeper } else { deeper.max(1) };
                self.end(indent);
                for item in items {
                    self.out.push_str(&format!("{}-", " ".repeat(inner)));
                    self.entry(item, inner);
                }
            }
            Node::Map(items) => {
                let inner = indent + 1 + usize::from(self.roll(4));
                self.end(indent);
                self.map(items, inner, false);
            }
        }
    }

    /// What stands behind `-`: perhaps a mapping that begins on the same line.
    fn entry(&mut self, node: &Node, indent: usize) {
        match node {
            Node::Map(items) if !items.is_empty() && self.roll(2) == 0 => {
                let blanks = self.blanks();
                self.out.push_str(&blanks);
                self.map(items, indent + 1 + blanks.len(), true);
            }
            node => self.value(node, indent, false),
        }
    }

    fn map(&mut self, items: &[Node], indent: usize, mut begun: bool) {
        for (at, item) in items.iter().enumerate() {
            if !begun {
                self.out.push_str(&" ".repeat(indent));
            }
            begun = false;
            let key = ["key", "'a b'", "\"q\"", "ä"][usize::from(self.roll(4))];
            let key = key.replacen(char::is_alphanumeric, &format!("k{at}"), 1);
            self.out.push_str(&key);
            if self.roll(6) == 0 {
                self.out.push(' ');
            }
            self.out.push(':');
            self.value(item, indent, true);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, max_global_rejects: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// That values and comments are the same is held by `format` itself, which refuses to change anything else.
    /// Mutations: put one blank less before a block scalar's lines; forget the comments within brackets; take the column
    /// of a list for that of its key.
    #[test]
    fn formatting_keeps_every_value_and_comment_and_is_done_after_once(
        nodes in prop::collection::vec(prop::collection::vec(node(), 1..5), 1..3),
        dice in prop::collection::vec(any::<u8>(), 400),
    ) {
        let mut writer = Writer { dice: &dice, out: String::new(), anchors: 0 };
        for (at, items) in nodes.iter().enumerate() {
            if at > 0 {
                writer.out.push_str("---\n");
                writer.anchors = 0;
            }
            writer.between(0);
            let indent = usize::from(writer.roll(3));
            writer.map(items, indent, false);
        }
        let text = writer.out;
        let once = match format(&file(&text)) {
            Ok(once) => once,
            Err(FormatError::Unreadable(_)) => return Err(TestCaseError::reject("no YAML")),
            Err(defect) => return Err(TestCaseError::fail(format!("{defect}\n{text}"))),
        };
        let twice = format(&file(&once));
        prop_assert_eq!(twice.as_ref(), Ok(&once), "twice:\n{}", text);
        let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        prop_assert_eq!(bare(&once), bare(&text));
        for line in once.lines() {
            prop_assert!(!line.contains('\r'), "{}", once);
        }
    }
}
